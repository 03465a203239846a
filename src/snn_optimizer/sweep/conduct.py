"""A sweep from its plan to its tables: runs in parallel, then latencies one after another, then the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib

from snn_optimizer.ir.atomic import write_text
from snn_optimizer.sweep.latency import Stopwatch
from snn_optimizer.sweep.plan import Plan, Run
from snn_optimizer.sweep.records import Record, Results
from snn_optimizer.sweep.scheduling import carried_out
from snn_optimizer.sweep.tables import Row, csv_text, merit_name, rows_of
from snn_optimizer.version import __version__

__all__ = ["Sweep", "run_sweep"]

Progress = Callable[[str, int, int], None]
GRAVEST_FIRST = (3, 1, 2, 4)


@dataclass(frozen=True, slots=True)
class Sweep:
    """The outcome of a sweep.

    Attributes
    ----------
    rows : list of Row
        The original, then the pipelines in their order, each within its budgets.
    merit : str
        What the fronts weigh against the costs.
    executed, reused : int
        Runs carried out now, and those whose results were there.
    """

    plan: Plan
    rows: list[Row]
    merit: str
    executed: int
    reused: int

    @property
    def exit_code(self) -> int:
        """The gravest of the exit codes of the runs: a defect, a wrong result, bad input, cannot tell."""
        found = {row.record.exit_code for row in self.rows}
        return next((code for code in GRAVEST_FIRST if code in found), 0)

    def to_json(self) -> dict[str, Any]:
        """Return what ``sweep.json`` holds."""
        plan = self.plan
        return {
            "version": __version__,
            "model": str(plan.model),
            "calibration": str(plan.calibration),
            "test": None if plan.test is None else str(plan.test),
            "budget_kind": plan.budget_kind,
            "merit": self.merit,
            "rows": [row.to_json() for row in self.rows],
        }


def run_sweep(
    plan: Plan,
    folder: Path,
    *,
    jobs: int | None = None,
    scheduler: str = "",
    fresh: bool = False,
    keep_models: bool = False,
    progress: Progress | None = None,
) -> Sweep:
    """Carry out a plan and write ``sweep.json`` and ``sweep.csv``.

    What is finished in the folder is not repeated. A run that fails is a row with its reason; the others go on.

    Parameters
    ----------
    plan : Plan
    folder : Path
        Results, one file per run below ``runs``, models below ``models``.
    jobs : int, optional
        Processes; as many as there are cores by default.
    scheduler : str
        Address of a Dask scheduler instead.
    fresh : bool
        Repeat what is finished.
    keep_models : bool
        Keep the optimized models.
    progress : callable, optional
        Takes what, done and total.

    Raises
    ------
    SnnOptimizerError
        If the sweep as a whole cannot go on.
    """
    runs = plan.runs()
    results = Results(folder.resolve())
    results.prepare()
    found: dict[str, Record] = {}
    if not fresh:
        kept = (results.finished(run, keep_models=keep_models) for run in runs)
        found = {record.key: record for record in kept if record is not None}
    missing = [run for run in runs if run.key not in found]
    reused = len(found)
    for record in carried_out(missing, results.folder, jobs=jobs or joblib.cpu_count(), scheduler=scheduler):
        found[record.key] = record
        if progress is not None:
            progress("runs", len(found) - reused, len(missing))
    _time(runs, found, results, keep_models=keep_models, progress=progress)
    records = [found[run.key] for run in runs]
    models = [_kept_model(record, results) for record in records]
    sweep = Sweep(plan, rows_of(records, models), merit_name(records), len(missing), reused)
    write_text(folder / "sweep.json", json.dumps(sweep.to_json(), indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "sweep.csv", csv_text(sweep.rows))
    return sweep


def _time(
    runs: tuple[Run, ...],
    found: dict[str, Record],
    results: Results,
    *,
    keep_models: bool,
    progress: Progress | None,
) -> None:
    """Measure the latencies that are missing, one after another in this process, when no other run disturbs them."""
    untimed = [run for run in runs if found[run.key].latency is None and found[run.key].bytes is not None]
    if not untimed:
        return
    sources = runs[0].sources
    _, calibration, test = sources.open()
    stopwatch = Stopwatch(sources.model, calibration if test is None else test)
    for number, run in enumerate(untimed, 1):
        record = found[run.key]
        ratio, milliseconds = stopwatch.measure(results.model_path(run.key) if run.pipeline else sources.model)
        # the original beside itself shows how still the machine is; by definition the ratio is 1
        found[run.key] = replace(record, latency=ratio if run.pipeline else 1.0, latency_ms=milliseconds)
        results.save(found[run.key])
        if run.pipeline and not keep_models:
            results.forget_model(record)
        if progress is not None:
            progress("latency", number, len(untimed))


def _kept_model(record: Record, results: Results) -> str:
    path = results.model_path(record.key)
    return str(path.relative_to(results.folder)) if record.model_digest and path.exists() else ""
