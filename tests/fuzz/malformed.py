"""Feed damaged models to every command: one clear line and the right exit code, whatever is in the file.

    python -m tests.fuzz.malformed --seconds 60 --seed 1 --save found

Each case runs in a fork of this process, with a limit of time and of memory. What goes wrong is
printed once per kind and kept with ``--save``: the model, the command, and what was said.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from snn_optimizer.errors import SnnOptimizerError
from snn_optimizer.ir import Module
from tests.fuzz.mutations import Damage, damaged
from tests.fuzz.processes import Ended, forked

__all__ = ["COMMANDS", "Case", "judge", "run_case"]

ROOT: Final = Path(__file__).resolve().parents[2]
CODES: Final = frozenset({0, 1, 2, 4})
SECONDS: Final = 30.0
MEMORY: Final = 4 << 30
LARGEST: Final = 80_000  # bytes of a model to start from: large ones only take longer

COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "info": ("info", "{model}"),
    "info-json": ("info", "{model}", "--json"),
    "optimize-O0": ("optimize", "{model}", "-o", "{out}", "-O0"),
    "optimize-O1": ("optimize", "{model}", "-o", "{out}", "-O1"),
    "optimize-O2": ("optimize", "{model}", "-o", "{out}", "-O2"),
    "optimize-unverified": ("optimize", "{model}", "-o", "{out}", "-O2", "--no-verify", "--external-data"),
    "optimize-O3": ("optimize", "{model}", "-o", "{out}", "-O3", "--calib", "{data}"),
    "optimize-Oz": ("optimize", "{model}", "-o", "{out}", "-Oz", "--calib", "{data}", "--max-decision-change", "0.1"),
    "optimize-step": ("optimize", "{model}", "-o", "{out}", "--emit", "step"),
    "optimize-scan": ("optimize", "{model}", "-o", "{out}", "--emit", "scan", "--strip-metadata"),
    "verify": ("verify", "{model}", "{original}"),
    "verify-second": ("verify", "{original}", "{model}"),
    "profile": ("profile", "{model}", "--data", "{data}", "-o", "{out}.npz"),
    "costs": ("costs", "{model}", "--data", "{data}"),
    "bench": ("bench", "{model}", "{original}", "--rounds", "2"),
    "bisect": ("bisect", "{model}", "-O2", "-o", "{folder}/found"),
    "sweep": ("sweep", "{model}", "--calib", "{data}", "-o", "{folder}/sweep", "--jobs", "1", "--plot", "none",
              "--budget-kind", "decision-change", "--budgets", "0.05", "-p", "@Oz"),
}  # fmt: skip
_RARE: Final = {"sweep": 0.3, "bisect": 0.7, "bench": 0.5, "optimize-Oz": 0.5}


@dataclass(frozen=True, slots=True)
class Original:
    """A valid model and samples for it."""

    path: Path
    data: Path


@dataclass(frozen=True, slots=True)
class Case:
    """A damaged model and a command that reads it."""

    original: Original
    damage: Damage
    command: str


def run_case(case: Case, folder: Path, *, seconds: float = SECONDS) -> tuple[Ended, list[str]]:
    """Run a case in an empty folder; return how it ended and what is wrong with that."""
    model, out = folder / "model.onnx", folder / "out.onnx"
    model.write_bytes(case.damage.data)
    (folder / "link.bin").symlink_to("/etc/passwd")
    places = {"model": model, "out": out, "data": case.original.data, "original": case.original.path, "folder": folder}
    arguments = [word.format(**places) for word in COMMANDS[case.command]]
    before = set(folder.iterdir())

    def call() -> int:
        from snn_optimizer.cli.main import main

        try:
            main(arguments)
        except SystemExit as stop:
            return int(stop.code or 0)

    ended = forked(call, folder, seconds=seconds, memory=MEMORY)
    return ended, judge(ended, folder, before, model)


def judge(ended: Ended, folder: Path, before: set[Path], model: Path) -> list[str]:
    """Return what a user would complain about."""
    problems: list[str] = []
    if ended.late:
        problems.append(f"hangs: more than {ended.seconds:.0f} s")
    elif ended.code < 0:
        problems.append(f"crashes: signal {-ended.code}")
    elif ended.code not in CODES:
        problems.append(f"exit code {ended.code}: {_last(ended.err)}")
    if "Traceback" in ended.err:
        problems.append(f"a traceback: {_last(ended.err)}")
    lines = [
        line for line in ended.err.splitlines() if not line.startswith(("snnopt: warning: ", "BISECT: ", "wrote "))
    ]
    complaints = [line for line in lines if line.startswith("snnopt: ")]
    if len(lines) > len(complaints):
        problems.append(f"talk that is not ours: {next(line for line in lines if line not in complaints)[:200]}")
    if ended.code == 2 and len(complaints) != 1:
        problems.append(f"{len(complaints)} lines of complaint")
    if any(len(line) > 1500 for line in complaints):
        problems.append(f"a line of {max(map(len, complaints))} characters")
    new = {path for path in folder.iterdir() if path not in before and path.name not in {"stdout", "stderr"}}
    if left := [path.name for path in folder.rglob(".*.tmp")]:
        problems.append(f"temporary files left: {left}")
    if ended.code in {2, 3, 4} or ended.code < 0:
        written = [path.name for path in new if path.name not in {"sweep", "found"}]
        problems += [f"failed, but wrote {written}"] if written else []
    out = folder / "out.onnx"
    if out in new and ended.code == 0:
        problems += _unusable(model, out, folder)
    return problems


def _unusable(model: Path, out: Path, folder: Path) -> list[str]:
    """Tell what is wrong with a result: it can be read, and run where the original can."""

    def call() -> int:
        from snn_optimizer.execution import Session

        try:
            Module.load(out)
        except SnnOptimizerError as error:
            sys.stderr.write(str(error))
            return 3
        try:
            Session(model)
        except SnnOptimizerError:
            return 0
        try:
            Session(out)
        except SnnOptimizerError as error:
            sys.stderr.write(str(error))
            return 4
        return 0

    ended = forked(call, folder, seconds=SECONDS, memory=MEMORY)
    if ended.code == 3:
        return [f"the result cannot be read: {ended.err}"]
    if ended.code == 4:
        return [f"the result does not run, the model does: {ended.err}"]
    return [f"reading the result ends with {ended.code}: {_last(ended.err)}"] if ended.code else []


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else ""


def kind_of(command: str, problem: str) -> str:
    """Return what is the same for problems of one cause, more or less."""
    return f"{command.partition('-')[0]}: " + re.sub(r"'[^']*'|\d+|0x\w+", "_", problem)[:110]


def originals(folder: Path) -> list[Original]:
    """Return the small models of ``models/`` and the corpus, with random samples made for each."""
    corpus = Path(os.environ.get("SNN_CORPUS", ROOT.parent / "shared" / "corpus"))
    paths = sorted((ROOT / "models").rglob("*.onnx")) + sorted(corpus.glob("*/model.onnx"))
    found = []
    for path in paths:
        if path.stat().st_size > LARGEST:
            continue
        name = path.stem if path.stem != "model" else path.parent.name
        data = folder / f"{name}.npz"
        _write_samples(path, data)
        found.append(Original(path, data))
    return found


def _write_samples(path: Path, data: Path) -> None:
    rng = np.random.default_rng(0)
    model = onnx.load(path)
    stored = {tensor.name for tensor in model.graph.initializer}
    arrays = {}
    for entry in model.graph.input:
        if entry.name in stored:
            continue
        tensor = entry.type.tensor_type
        shape = [dim.dim_value or 4 for dim in tensor.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        arrays[entry.name] = (rng.random(shape) < 0.3).astype(dtype)
    np.savez(data, **arrays)


def cases(seed: int, found: Sequence[Original]) -> Iterator[tuple[int, Case]]:
    """Yield cases without end, numbered; each number gives the same case again."""
    messages: dict[Path, onnx.ModelProto] = {}
    names = list(COMMANDS)
    weights = [_RARE.get(name, 1.0) for name in names]
    number = seed * 1_000_000
    while True:
        rng = random.Random(number)  # noqa: S311 - nothing secret
        original = rng.choice(found)
        if original.path not in messages:
            messages[original.path] = onnx.load(original.path)
        yield number, Case(original, damaged(messages[original.path], number), rng.choices(names, weights)[0])
        number += 1


def fuzz(seconds: float, seed: int, save: Path | None, start: int = 0) -> int:
    """Run cases for some time; return the number of kinds of failure."""
    for name in ("benching", "bisecting", "inspecting", "costing", "optimizing", "measuring", "sweeping"):
        importlib.import_module(f"snn_optimizer.cli.{name}")
    for name in (
        "api",
        "sweep",
        "raised",
        "execution.benchmark",
        "execution.diagnosis",
        "report.costs",
        "passes.registry",
    ):
        importlib.import_module(f"snn_optimizer.{name}")
    from snn_optimizer.passes import registry

    for name in registry.names():
        registry.load(name)
    kinds: Counter[str] = Counter()
    codes: Counter[int] = Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        found = originals(folder)
        for number, case in cases(seed, found):
            if number % 1_000_000 < start:
                continue
            if time.monotonic() - started > seconds:
                break
            work = folder / "work"
            work.mkdir()
            ended, problems = run_case(case, work)
            codes[ended.code] += 1
            for problem in problems:
                kind = kind_of(case.command, problem)
                kinds[kind] += 1
                if kinds[kind] == 1:
                    origin = f"{case.original.path.parent.name}/{case.original.path.stem}"
                    print(f"{number}: {case.command} {origin} {'+'.join(case.damage.edits)}: {problem}", flush=True)
                    if save is not None:
                        _save(save, number, case, ended, problems)
            shutil.rmtree(work)
    print(f"{sum(codes.values())} cases, exit codes {dict(sorted(codes.items()))}, {len(kinds)} kinds of failure")
    for kind, count in kinds.most_common():
        print(f"  {count:5} {kind}")
    return len(kinds)


def _save(folder: Path, number: int, case: Case, ended: Ended, problems: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{number}.onnx").write_bytes(case.damage.data)
    lines = [
        f"command: snnopt {' '.join(COMMANDS[case.command])}",
        f"original: {case.original.path}",
        f"edits: {', '.join(case.damage.edits)}",
        *problems,
        f"exit code {ended.code} after {ended.seconds:.1f} s",
        ended.err,
    ]
    (folder / f"{number}.txt").write_text("\n".join(lines))


def main() -> int:
    """Read the command line and fuzz."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.malformed", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--save", type=Path, help="folder for what goes wrong")
    options = parser.parse_args()
    return 1 if fuzz(options.seconds, options.seed, options.save, options.start) else 0


if __name__ == "__main__":
    sys.exit(main())
