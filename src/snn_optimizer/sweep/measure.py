"""One run of a sweep: optimize, measure, and write down what was found. Runs in worker processes."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from snn_optimizer.errors import InputError, OutputError, SnnOptimizerError
from snn_optimizer.execution import Dataset, Session, model_digest
from snn_optimizer.ir import SNNGraph
from snn_optimizer.job import Job, run_job
from snn_optimizer.pipeline import PassStatus
from snn_optimizer.report import OptimizationReport
from snn_optimizer.report.costs import measure_costs
from snn_optimizer.sweep.plan import Run, Sources
from snn_optimizer.sweep.records import Record, Results
from snn_optimizer.verification import score
from snn_optimizer.version import __version__

__all__ = ["execute"]

RAISED = "@raise,dead-code"
VERDICTS = {"EQUIVALENT": ("equivalent", 0), "DIFFERENT": ("different", 1), "INCONCLUSIVE": ("inconclusive", 4)}


def execute(run: Run, folder: Path) -> Record:
    """Carry out a run and write its model and its record into the folder of results.

    A network that cannot be optimized or judged is a result as well. What is no property of the run, a defect of ours
    or memory that did not suffice, is returned but not written, so that the run is tried again next time.

    Raises
    ------
    InputError
        If the worker sees other files, or is another version, than the sweep was planned with.
    OutputError
        If the results cannot be written.
    """
    _check_worker(run)
    results = Results(folder)
    found = Record(run.key, run.pipeline, run.budget, run.seed, "failed")
    try:
        found = _optimized(run, found, results) if run.pipeline else _original(run, found)
    except OutputError:
        raise
    except SnnOptimizerError as error:
        found = replace(found, reason=str(error).splitlines()[0], exit_code=error.exit_code)
    except Exception as error:  # noqa: BLE001 - one defect must not end the other runs
        return replace(found, reason=f"internal error: {type(error).__name__}: {error}", exit_code=3)
    results.save(found)
    return found


def _check_worker(run: Run) -> None:
    if run.version != __version__:
        raise InputError(f"a worker has snn_optimizer {__version__}, the sweep was planned with {run.version}")
    seen = Sources.read(run.sources.model, run.sources.calibration, run.sources.test)
    for path, digest, planned in zip(_paths(seen), seen.digests, run.sources.digests, strict=True):
        if digest != planned:
            raise InputError(f"'{path}' has changed since the sweep began, or a worker sees another file there")


def _paths(sources: Sources) -> tuple[Path, Path, Path | None]:
    return sources.model, sources.calibration, sources.test


def _original(run: Run, found: Record) -> Record:
    graph, report = run_job(run.sources.model, Job(pipeline=RAISED, verify=False, domain=run.domain))
    sizes = asdict(report.before) | {
        "neurons": graph.total_neurons, "params": graph.total_params, "nonzero_params": graph.nonzero_params,
    }  # fmt: skip
    return replace(found, verdict="original", **_measured(run, graph, sizes, run.sources.model))


def _optimized(run: Run, found: Record, results: Results) -> Record:
    job = Job(
        pipeline=run.pipeline,
        calibration=run.sources.calibration,
        budget=run.limits,
        domain=run.domain,
        seed=run.seed,
    )
    graph, report = run_job(run.sources.model, job)
    path = results.model_path(run.key)
    size = graph.save(path)
    verdict, exit_code = VERDICTS[report.evidence.verdict]
    if verdict == "different" and report.exactness == "lossy":
        verdict, exit_code = "within budget", 0
    reasons = [] if verdict in {"equivalent", "within budget"} else [report.evidence.reason]
    sizes = asdict(report.after) | {"bytes": size}
    return replace(
        found,
        verdict=verdict,
        exit_code=exit_code,
        reason="; ".join([*reasons, *_given_up(report)]),
        model_digest=model_digest(path),
        seconds=report.seconds,
        **_measured(run, graph, sizes, path),
    )


def _given_up(report: OptimizationReport) -> list[str]:
    """Return which lossy passes did not stand, and why."""
    lossy = [result for result in report.pass_results if result.claim == "lossy"]
    return [f"{r.name} rolled back: {r.reason}" for r in lossy if r.status is PassStatus.ROLLED_BACK]


def _measured(run: Run, graph: SNNGraph, sizes: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the figures of a model: sizes, operations, answers on both sets of samples."""
    original, calibration, test = run.sources.open()
    after = Session(path)
    decided: Dataset = calibration if test is None else test
    costs = measure_costs(graph, decided)
    first, second = score(original, decided), score(after, decided)
    return {
        "parameters": sizes["params"],
        "nonzero_parameters": sizes["nonzero_params"],
        "neurons": sizes["neurons"],
        "bytes": sizes["bytes"],
        "nodes": sizes["nodes"],
        "dense": costs.dense,
        "effective_macs": costs.effective_macs,
        "effective_acs": costs.effective_acs,
        "energy": costs.energy,
        "accuracy_calibration": score(after, calibration).accuracy if test is not None else second.accuracy,
        "accuracy_test": second.accuracy if test is not None else None,
        "decision_change": first.decisions_changed(second),
        "spike_change": first.outputs_changed(second),
    }
