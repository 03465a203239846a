"""Random networks of every kind through random pipelines, for a given time.

    python -m tests.fuzz.pipelines --seconds 3600 --seed 1 --jobs 2 --save findings
    python -m tests.fuzz.pipelines --replay findings/NAME.json

Exit code 0 when nothing was found, 1 otherwise. See docs/reference/fuzzing.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.campaign import RUNS, Figures, Settings, run_campaign
from tests.fuzz.findings import Finding
from tests.fuzz.samples import KINDS
from tests.support.costs import write_costs


def cheap_gathers(folder: Path) -> str:
    """A file of costs on which gathering always pays, so that `event-driven` rewrites."""
    return str(write_costs(folder / "costs.json", dense=100e-6, single=1e-6, several=1e-6, pooled=1e-6))


def describe(figures: Figures, seconds: float) -> str:
    """The figures, as printed."""
    models, runs = sum(figures.models.values()), sum(figures.runs.values())
    rewrites = sum(figures.rewrites.values())
    lines = [
        (
            f"{models:,} models, {runs:,} runs, {rewrites:,} rewrites in {seconds:.0f} s: "
            f"{models / seconds:.1f} models and {runs / seconds:.1f} runs per second"
        )
    ]
    lines += ["", "kind             models    runs"]
    lines += [f"{kind:14} {count:8,} {figures.runs[kind]:7,}" for kind, count in sorted(figures.models.items())]
    lines += ["", "pass                              runs  changed  rewrites"]
    lines += [
        f"{name:30} {count:7,} {figures.changed[name]:8,} {figures.rewrites[name]:9,}"
        for name, count in sorted(figures.passes.items())
    ]
    for title, counter in (
        ("claims and verdicts", figures.verdicts),
        ("of the runs", figures.counts),
        ("rolled back", figures.rolled_back),
        ("refused", figures.refusals),
        ("models the runtime refuses", figures.unloadable),
    ):
        lines += _listed(title, counter)
    total = sum(figures.seconds.values()) or 1.0
    lines += ["", "time"] + [f"  {value / total:6.1%}  {name}" for name, value in figures.seconds.most_common()]
    lines += ["", f"failures: {sum(figures.failures.values()):,} of {len(figures.failures):,} signatures"]
    lines += [f"{count:8,}  {name}" for name, count in figures.failures.most_common()]
    return "\n".join(lines)


def _listed(title: str, counter: Counter[str], shown: int = 30) -> list[str]:
    kept = [(name, count) for name, count in counter.most_common() if count]
    more = [f"          and {len(kept) - shown} more"] if len(kept) > shown else []
    return ["", title, *(f"{count:8,}  {name}" for name, count in kept[:shown]), *more] if kept else []


def replay(path: Path) -> int:
    """Run a finding again."""
    finding = Finding.load(path)
    print(f"{finding.sample.kind}: {path.with_suffix('.onnx')}")
    print(f"plan: {finding.plan.to_json()}")
    print(f"found: {finding.failure.signature}: {finding.failure.reason}")
    with tempfile.TemporaryDirectory() as folder:
        failures = finding.replay(cheap_gathers(Path(folder)))
    for each in failures:
        print(f"now: {each.signature}: {each.reason}")
    if not failures:
        print("now: nothing fails")
    return int(bool(failures))


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.pipelines", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of all models and pipelines (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes (default: 1)")
    parser.add_argument("--save", type=Path, default=Path("fuzz-findings"), help="folder of findings")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"pipelines per model (default: {RUNS})")
    parser.add_argument("--kind", action="append", choices=sorted(KINDS), help="only models of this kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first model (default: 0)")
    parser.add_argument("--models", type=int, help="stop after this many models")
    parser.add_argument("--no-shrink", action="store_true", help="save findings as they are")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one finding again, and nothing else")
    given = parser.parse_args(arguments)
    if given.replay is not None:
        if not given.replay.is_file() or given.replay.suffix != ".json":
            parser.error(f"--replay: '{given.replay}' is not a finding; give the .json file of one")
        return replay(given.replay)
    if given.jobs < 1 or given.runs < 1 or given.seconds <= 0:
        parser.error("--jobs, --runs and --seconds must be positive")
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            seconds=given.seconds,
            seed=given.seed,
            jobs=given.jobs,
            folder=given.save,
            costs=cheap_gathers(Path(folder)),
            runs=given.runs,
            kinds=tuple(given.kind or KINDS),
            first=given.first,
            models=given.models,
            shrinks=not given.no_shrink,
        )
        start = time.perf_counter()
        figures, found = run_campaign(settings)
    print(describe(figures, time.perf_counter() - start))
    for signature, place in sorted(found.items()):
        print(f"saved  {signature}: {place}")
    return int(bool(figures.failures))


if __name__ == "__main__":
    sys.exit(main())
