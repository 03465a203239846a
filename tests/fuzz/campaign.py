"""Many samples, several runs each, for a given time, in worker processes that may die."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from snn_optimizer.pipeline import PassStatus
from tests.fuzz.findings import Finding, shrink
from tests.fuzz.oracle import Examined, Failure, Outcome, crash
from tests.fuzz.plans import Plan, check_options, plan
from tests.fuzz.samples import KINDS, Sample, sample

PATIENCE = 60  # seconds of computing for one run, checks included
SHRINKING = 20.0  # seconds for one finding
RUNS = 4


class Hang(BaseException):
    """A run took too long."""


@dataclass
class Settings:
    """What a campaign is asked to do."""

    seconds: float
    seed: int
    jobs: int
    folder: Path
    costs: str
    runs: int = RUNS
    kinds: tuple[str, ...] = tuple(KINDS)
    first: int = 0
    models: int | None = None
    shrinks: bool = True


@dataclass
class Figures:
    """What happened, in counts."""

    models: Counter[str] = field(default_factory=Counter)
    unloadable: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    passes: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    rewrites: Counter[str] = field(default_factory=Counter)
    rolled_back: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)

    def add(self, other: Figures) -> None:
        """Sum up."""
        for name, counter in vars(other).items():
            getattr(self, name).update(counter)

    def note(self, kind: str, made: Plan, outcome: Outcome) -> None:
        """Count one run."""
        self.runs[kind] += 1
        self.counts["level runs" if made.is_level else "pass runs"] += 1
        self.counts["guarded"] += made.verify
        self.counts["with data"] += made.calibration > 0
        self.counts["stimuli compared"] += outcome.compared
        self.counts["empty inputs the result does not run on"] += outcome.empty_lost
        self.counts["a second run found more"] += outcome.unsettled
        if outcome.refusal or outcome.skipped:
            self.refusals[outcome.refusal or outcome.skipped] += 1
        if outcome.report is None:
            return
        self.verdicts[f"{outcome.report.exactness} {outcome.report.evidence.verdict or 'unguarded'}"] += 1
        for each in outcome.report.pass_results:
            self.passes[each.name] += 1
            if each.status is PassStatus.KEPT:
                self.changed[each.name] += 1
                self.rewrites[each.name] += each.changes
            elif each.status is PassStatus.ROLLED_BACK:
                self.rolled_back[f"{each.name} ({each.claim})"] += 1


def run_campaign(settings: Settings) -> tuple[Figures, dict[str, Finding | str]]:
    """Run until the time is over; returns the figures and one finding of each signature (a path, or its text)."""
    check_options()
    settings.folder.mkdir(parents=True, exist_ok=True)
    figures, found = Figures(), {}
    deadline = time.monotonic() + settings.seconds
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, _Worker] = {}
    for number in range(settings.jobs):
        worker = _Worker(context, settings, number, settings.first + number, deadline)
        workers[worker.connection] = worker
    shown = time.monotonic()
    while workers:
        for connection in wait(list(workers), timeout=5):
            worker = workers[connection]  # type: ignore[index]
            try:
                kind, content = worker.connection.recv()
            except EOFError:
                del workers[worker.connection]
                worker.process.join()
                following = _buried(worker, figures, found, settings)
                if following is not None and time.monotonic() < deadline:
                    heir = _Worker(context, settings, worker.number, following, deadline)
                    workers[heir.connection] = heir
                continue
            if kind == "at":
                worker.at = content
            elif kind == "figures":
                figures.add(content)
            else:
                found.setdefault(content[0], content[1])
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            left = max(0.0, deadline - shown)
            print(
                f"{left:5.0f} s left: {sum(figures.models.values()):,} models, {sum(figures.runs.values()):,} runs, "
                f"{len(figures.failures)} signatures", file=sys.stderr,
            )  # fmt: skip
    return figures, found


class _Worker:
    """A process, its end of the pipe, and the run it was last heard to begin."""

    def __init__(self, context: Any, settings: Settings, number: int, first: int, deadline: float):
        self.number = number
        self.at: tuple[int, int] | None = None
        self.connection, other = context.Pipe(duplex=False)
        left = deadline - time.monotonic()
        self.process = context.Process(target=work, args=(other, settings, first, left), daemon=True)
        self.process.start()
        other.close()


def _buried(worker: _Worker, figures: Figures, found: dict[str, Finding | str], settings: Settings) -> int | None:
    """Note how a worker died; returns the index to go on with, None when it was done."""
    code = worker.process.exitcode
    if code == 0:
        return None
    index, number = worker.at or (settings.first + worker.number, 0)
    signature = f"worker died: {signal.Signals(-code).name if code and code < 0 else code}"
    figures.failures[signature] += 1
    found.setdefault(signature, f"--seed {settings.seed} --first {index} --models 1 (run {number})")
    return index + settings.jobs if worker.at else None


def work(connection: Connection, settings: Settings, first: int, seconds: float) -> None:
    """Grow and examine every `jobs`-th sample until the time is over."""
    signal.signal(signal.SIGPROF, _hang)
    deadline = time.monotonic() + seconds
    index, known = first, set()
    while time.monotonic() < deadline and (settings.models is None or index < settings.first + settings.models):
        figures = Figures()
        for finding in _examined(connection, settings, index, figures, deadline):
            signature = finding.failure.signature
            figures.failures[signature] += 1
            if signature in known:
                continue
            known.add(signature)
            connection.send(("finding", (signature, _saved(finding, settings))))
        connection.send(("figures", figures))
        index += settings.jobs
    connection.close()


def _saved(finding: Finding, settings: Settings) -> Any:
    if (settings.folder / f"{finding.name}.json").exists():
        return str(settings.folder / f"{finding.name}.json")
    if settings.shrinks:
        end = time.monotonic() + SHRINKING
        with contextlib.suppress(Hang), _limit(2 * SHRINKING):
            finding = shrink(finding, settings.costs, lambda: time.monotonic() > end)
    return str(finding.save(settings.folder))


def _examined(
    connection: Connection, settings: Settings, index: int, figures: Figures, deadline: float
) -> Iterator[Finding]:
    """The findings of one sample."""
    kind = settings.kinds[index % len(settings.kinds)]
    start = time.perf_counter()
    connection.send(("at", (index, -1)))
    origin = f"--seed {settings.seed} --first {index} --models 1"
    try:
        made = sample(settings.seed, index, kind)
    except Exception as error:  # noqa: BLE001 - makers use the optimizer for kind `raised`
        failure = crash(error)
        figures.failures[f"maker of {kind}: {failure.signature}"] += 1
        return
    figures.models[kind] += 1
    for twist in made.twists:
        figures.counts[f"twist {twist}"] += 1
    try:
        examined = Examined(made)
    except Exception as error:  # noqa: BLE001 - the runtime's own exceptions have no public root
        figures.unloadable[f"{kind}: {' '.join(str(error).split())[:60]}"] += 1
        return
    figures.seconds["making models"] += time.perf_counter() - start
    for number in range(settings.runs):
        if time.monotonic() > deadline:
            return
        connection.send(("at", (index, number)))
        drawn = plan(made, settings.seed, index, number)
        again, twice = (index + number) % 6 == 0, (index + number) % 6 == 3
        outcome = _one_run(examined, drawn, settings, figures, again=again, twice=twice)
        figures.note(kind, drawn, outcome)
        for failure in outcome.failures:
            yield Finding(made, drawn, failure, f"{origin} (run {number})", again, twice)


def _one_run(
    examined: Examined, drawn: Plan, settings: Settings, figures: Figures, *, again: bool, twice: bool
) -> Outcome:
    start = time.perf_counter()
    try:
        with _limit(PATIENCE):
            examined.recorded(drawn)
            figures.seconds["running the original"] += time.perf_counter() - start
            outcome = examined.examine(drawn, settings.costs, again=again, twice=twice)
    except Hang:
        outcome = Outcome([Failure(f"hang: over {PATIENCE} s", drawn.pipeline)])
    spent = time.perf_counter() - start
    optimizing = outcome.report.seconds if outcome.report is not None else 0.0
    figures.seconds["optimizing, guarded" if drawn.verify else "optimizing"] += optimizing
    figures.seconds["judging" if not (again or twice) else "second runs and judging"] += spent - optimizing
    return outcome


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise `Hang` after so many seconds of computing, however busy the machine is."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _hang(number: int, frame: object) -> None:
    raise Hang


__all__ = ["Figures", "Sample", "Settings", "run_campaign"]
