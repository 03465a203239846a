"""One optimization from a model to a checked result: what decides it, and how it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx

from snn_optimizer.errors import DataError, ExecutionError, InputError, UnsupportedModelError
from snn_optimizer.execution import Dataset, ModelSource, Profile, Session, load_dataset, profile_model
from snn_optimizer.execution.activity import MeasuredActivity
from snn_optimizer.execution.evaluate import node_evaluator
from snn_optimizer.ir import InputDomain, SNNGraph
from snn_optimizer.lowering.emit import emit
from snn_optimizer.lowering.time_axes import steps_of
from snn_optimizer.passes import registry
from snn_optimizer.passes.base import Exactness, Frontend, Pass
from snn_optimizer.pipeline import PassResult, PassStatus
from snn_optimizer.pipeline.budget import Budget
from snn_optimizer.pipeline.guard import Guard
from snn_optimizer.pipeline.manager import Instrument, PassManager
from snn_optimizer.pipeline.presets import expand
from snn_optimizer.pipeline.spec import Pipeline, parse
from snn_optimizer.premises import forbid_more_active, forbid_unknown_inputs, widened
from snn_optimizer.report import Evidence, OptimizationReport, Size
from snn_optimizer.verification import score
from snn_optimizer.verification.forms import Form, compare_forms

__all__ = ["Data", "Job", "Model", "Prepared", "dataset_of", "prepare", "proto_of", "run_job", "weakest_claim"]

Model: TypeAlias = str | os.PathLike[str] | onnx.ModelProto | SNNGraph
Data: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | Dataset
FITTED = 0.6  # share of the calibration samples that weights are fitted to, where a budget is measured on the others
LARGEST_IN_MEMORY = 256 << 20  # bytes of weights that are serialized only to be counted


@dataclass
class Job:
    """Everything that decides what an optimization does.

    Attributes
    ----------
    pipeline : str
        Pipeline text; ``@O2`` by default.
    calibration : path, mapping of arrays or Dataset, optional
        Samples (and labels) that rates are measured on and claims are checked on.
    profile : path or Profile, optional
        A profile measured before; instead of measuring on ``calibration``.
    test : optional
        Labelled samples for the accuracy before and after; nothing is decided on them.
    budget : Budget
    domain : InputDomain
    verify : bool
        Guard the passes and compare the result; on by default.
    verify_each : bool
        Check every pass that changed something against the model before it, bitwise ones too. Without it that
        is done when the result turns out to differ.
    limit, rewrite_limit : int, optional
        Runs of passes beyond this number are skipped, and rewrites beyond ``rewrite_limit`` of the last that runs.
    frontend : Frontend
        What cannot be seen in the file: states of a one-step model, custom operators.
    min_calibration : int
        Refuse to remove by measured rates on fewer samples.
    emit : {"", "sequence", "step", "scan"}
        The form to write the result in; as it came when empty.
    """

    pipeline: str = "@O2"
    calibration: Data | None = None
    profile: str | os.PathLike[str] | Profile | None = None
    test: Data | None = None
    budget: Budget = field(default_factory=Budget)
    domain: InputDomain = field(default_factory=InputDomain)
    verify: bool = True
    verify_each: bool = False
    seed: int = 0
    strip_metadata: bool = False
    limit: int | None = None
    rewrite_limit: int | None = None
    frontend: Frontend = field(default_factory=Frontend)
    emit: str = ""
    min_calibration: int = 0
    instruments: Sequence[Instrument] = ()
    progress: Callable[[str, int, int], None] | None = None


@dataclass(slots=True)
class Prepared:
    """A job on a model, ready to run; the graph is a copy, to be changed and compared with the original."""

    graph: SNNGraph
    original: ModelSource
    pipeline: Pipeline
    report: OptimizationReport
    session: Session | None
    guard: Guard | None
    manager: PassManager
    calibration: Dataset | None
    test: Dataset | None


def run_job(model: Model, job: Job) -> tuple[SNNGraph, OptimizationReport]:
    """Optimize a copy of ``model`` as ``job`` says and report on it.

    Where the result differs from the model the job runs once more with every pass checked.

    Raises
    ------
    InputError
        For anything the caller can mend; nothing was changed.
    """
    graph, report = _run_once(model, job)
    if report.evidence.verdict != "DIFFERENT" or report.exactness == "lossy" or not job.verify or job.verify_each:
        return graph, report
    found = report.evidence.reason
    graph, report = _run_once(model, replace(job, verify_each=True))
    report.warnings.append(f"the result differed ({found}), so the run was repeated with every pass checked")
    return graph, report


def prepare(model: Model, job: Job) -> Prepared:
    """Read a model and its data, and refuse with an ``InputError`` what cannot be done before anything is changed."""
    graph = model.copy(share_weights=True) if isinstance(model, SNNGraph) else SNNGraph.from_onnx(model)
    pipeline = parse(job.pipeline)
    weakest = weakest_claim(pipeline)
    original: ModelSource = Path(model) if isinstance(model, (str, os.PathLike)) else graph.to_onnx()
    report = OptimizationReport(model=graph.module.path.name if graph.module.path else graph.module.graph.name)
    report.pipeline = str(pipeline)
    session = _session(original, report) if job.verify or job.calibration or job.test else None
    calibration = dataset_of(job.calibration, session, "calibration")
    test = dataset_of(job.test, session, "test")
    _require(weakest, job, calibration, graph)
    forbid_unknown_inputs(job.domain, graph)
    for data, what in ((calibration, "calibration"), (test, "test")):
        forbid_more_active(job.domain, data, what)
    domain = widened(job.domain, calibration, report.warnings)
    report.assumptions = domain.premises()
    if weakest >= Exactness.PROFILED:
        _load_rates(graph, job, original, calibration)
    report.before = _size(graph, _file_bytes(model) or _stored_bytes(graph))
    fitted, unseen = _parted(calibration, pipeline, job, report)
    guard = Guard(original, calibration, job.budget, domain, job.seed, unseen) if job.verify and session else None
    manager = PassManager(
        domain=domain,
        checker=guard,
        evaluate_node=node_evaluator,
        activity=None if fitted is None else MeasuredActivity(fitted),
        has_budget=job.budget.is_set,
        instruments=job.instruments,
        limit=job.limit,
        rewrite_limit=job.rewrite_limit,
        verify_each=job.verify_each,
        frontend=job.frontend,
    )
    return Prepared(graph, original, pipeline, report, session, guard, manager, calibration, test)


def _run_once(model: Model, job: Job) -> tuple[SNNGraph, OptimizationReport]:
    if job.verify_each and not job.verify:
        raise InputError("verify_each checks every pass and verify=False none: give one of them")
    start = time.perf_counter()
    prepared = prepare(model, job)
    graph, report, guard = prepared.graph, prepared.report, prepared.guard
    report.pass_results = prepared.manager.run(graph, prepared.pipeline)
    if job.strip_metadata:
        graph.module.strip_metadata()
    emitted = _emitted(graph, job, report) if job.emit else None
    if not report.before.neurons:
        report.before = replace(report.before, neurons=_neurons_raised(report.pass_results))
    kept = [Exactness[r.claim.upper()] for r in report.pass_results if r.status is PassStatus.KEPT]
    exactness = max(kept, default=Exactness.BITWISE)
    report.exactness = exactness.name.lower()
    report.after = _size(graph, _stored_bytes(graph))
    if guard is not None:
        report.evidence = Evidence.of(guard.evidence(graph, exactness))
    _measure_on(report, prepared.session, guard, graph, prepared.test or prepared.calibration)
    if emitted is not None:
        graph = emitted
        report.after = _size(graph, _stored_bytes(graph))
    report.seconds = time.perf_counter() - start
    return graph, report


def _neurons_raised(results: Sequence[PassResult]) -> int:
    """Return how many neurons raising found in a file that had none of ours."""
    return next((r.neurons_after for r in results if r.neurons_after), 0)


def _emitted(graph: SNNGraph, job: Job, report: OptimizationReport) -> SNNGraph:
    """Write the result in another form, and compare the two forms by running them."""
    emitted, step, streaming = emit(graph, job.emit, dict(job.frontend.states))
    stepwise = Form(True, dict(step.signals), step.states, step.starts)
    steps = steps_of(graph.module)
    whole = Form(False, dict(step.signals), steps=steps or 0)
    result = Form(False, dict.fromkeys(step.signals, 0))
    if job.emit == "sequence" and streaming:
        PassManager(evaluate_node=node_evaluator, domain=job.domain).run(emitted, parse("distribute-time,@hygiene"))
    check = compare_forms(
        graph.to_onnx(), stepwise if streaming else whole,
        emitted.to_onnx(), stepwise if job.emit == "step" else whole if emitted is graph else result,
        seed=job.seed,
    )  # fmt: skip
    if check.problem or check.changed:
        found = check.problem or f"{check.changed:,} of {check.compared:,} output values differ"
        raise UnsupportedModelError(f"the {job.emit} form does not run like the model it was made from: {found}")
    report.form = f"{job.emit} form: {check.compared:,} output values equal to those of the optimized model"
    if not check.spikes:
        report.warnings.append(f"the {job.emit} form was compared on trains that make nothing fire")
    return emitted


def weakest_claim(pipeline: Pipeline) -> Exactness:
    """Return the weakest claim of a pipeline; also finds unknown passes and options early."""
    return max((one.claim for one in _passes(expand(pipeline).elements)), default=Exactness.BITWISE)


def _passes(elements: Sequence[Any]) -> Iterator[Pass]:
    for element in elements:
        if hasattr(element, "body"):
            yield from _passes(element.body)
        else:
            yield registry.create(element.name, dict(element.options))


def _parted(
    calibration: Dataset | None, pipeline: Pipeline, job: Job, report: OptimizationReport
) -> tuple[Dataset | None, Dataset | None]:
    """Return the samples weights are fitted to, and those a budget is measured on; None where nothing is fitted."""
    if calibration is None or not job.budget.is_set or not any(one.fits for one in _passes(expand(pipeline).elements)):
        return calibration, None
    batch = calibration.fixed_batch or 1
    whole = calibration.samples // batch
    if whole < 2:
        report.warnings.append("one batch of samples is too few to fit weights and measure the budget on others")
        return None, None
    order = np.random.default_rng(job.seed).permutation(whole)
    samples = (order[:, np.newaxis] * batch + np.arange(batch)).reshape(-1)
    cut = round(FITTED * whole) * batch
    fitted, unseen = calibration.take(np.sort(samples[:cut])), calibration.take(np.sort(samples[cut:]))
    report.split = f"weights fitted to {fitted.samples} samples, the budget measured on {unseen.samples} others"
    return fitted, unseen


def _session(original: ModelSource, report: OptimizationReport) -> Session | None:
    try:
        return Session(original)
    except ExecutionError as error:
        report.warnings.append(f"the model cannot be run, so nothing is checked by execution: {error}")
        report.evidence = Evidence(verdict="INCONCLUSIVE", reason=str(error))
        return None


def dataset_of(data: Data | None, session: Session | None, what: str) -> Dataset | None:
    """Return data as samples for a model; ``what`` names them in messages."""
    if data is None or isinstance(data, Dataset):
        return data
    if session is None:
        raise DataError(f"the {what} data cannot be used: the model cannot be run")
    if isinstance(data, Mapping):
        arrays = dict(data)
        labels = arrays.pop("labels", None)
        return Dataset.from_arrays(arrays, session.inputs, labels)
    return load_dataset(data, session.inputs)


def _require(weakest: Exactness, job: Job, calibration: Dataset | None, graph: SNNGraph) -> None:
    known = calibration is not None or job.profile is not None or graph.firing_rates
    if weakest is Exactness.LOSSY and job.budget.is_set and calibration is None:
        raise InputError("a budget is measured on data: give --calib DATA.npz")
    if job.budget.accuracy_drop is not None and calibration is not None and calibration.labels is None:
        raise InputError("--max-accuracy-drop needs 'labels' in the calibration data; or use --max-decision-change")
    if weakest is Exactness.PROFILED and not known and job.pipeline.startswith("@O"):
        raise InputError(f"{job.pipeline[1:]} uses measured firing rates: give --calib DATA.npz or --profile P.npz")
    if job.pipeline.startswith("@Oz") and not job.budget.is_set:
        raise InputError("Oz is lossy: give a budget, --max-accuracy-drop, --max-decision-change or --max-spike-change")


def _load_rates(graph: SNNGraph, job: Job, original: ModelSource, measured: Dataset | None) -> None:
    """Fill in measured rates; what the caller gave by hand wins."""
    if job.profile is not None:
        found = job.profile if isinstance(job.profile, Profile) else Profile.load(job.profile)
        sizes = {layer.name: layer.n_neurons for layer in (graph if graph.layers else _raised(graph, job)).layers}
        for name, population in found.populations.items():
            if sizes.get(name) != int(np.prod(population.shape)):
                raise DataError(
                    f"the profile has a population '{name}' of shape {population.shape} that the model has not"
                )
    elif measured is not None:
        if not graph.layers:  # an export: its neurons are measured in the form in which they are found
            original = _raised(graph, job).to_onnx()
        report = None if job.progress is None else (lambda done, total: job.progress("profile", done, total))  # type: ignore[misc]  # checked here
        found = profile_model(original, measured, progress=report)
    else:
        return
    if found.samples < job.min_calibration:
        raise InputError(
            f"there are {found.samples} calibration samples, fewer than the {job.min_calibration} of --min-calibration"
        )
    graph.rate_samples = None if graph.firing_rates else found.samples
    for name, population in found.populations.items():
        if population.spiking:
            graph.firing_rates.setdefault(name, np.asarray(population.rate, np.float64))


def _raised(graph: SNNGraph, job: Job) -> SNNGraph:
    """Return a copy of an export in which its neurons are recognized, under the names they get in the run."""
    copy = graph.copy(share_weights=True)
    PassManager(evaluate_node=node_evaluator, domain=job.domain, frontend=job.frontend).run(copy, parse("@raise"))
    return copy


def _size(graph: SNNGraph, stored: int) -> Size:
    return Size(graph.total_neurons, graph.total_params, graph.nonzero_params, graph.module.count_nodes(), stored)


def _file_bytes(model: Model) -> int:
    """Return the size of a model's file, weights beside it included; zero when it is not one."""
    if not isinstance(model, (str, os.PathLike)):
        return 0
    path = Path(model)
    beside = path.with_name(path.name + ".data")
    return path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)


def _stored_bytes(graph: SNNGraph) -> int:
    """Return the size the model has in one file; of a very large one without building it, a little more than it is."""
    weights = graph.module.initializer_bytes()
    if weights < LARGEST_IN_MEMORY:
        return len(graph.to_onnx().SerializeToString())
    return len(graph.module.skeleton().SerializeToString()) + weights


def _measure_on(
    report: OptimizationReport, session: Session | None, guard: Guard | None, graph: SNNGraph, data: Dataset | None
) -> None:
    """Count changed outputs, and with labels the accuracy, on samples that decided nothing."""
    if session is None or data is None:
        return
    source = graph.to_onnx() if guard is None else guard.runnable(graph)
    before, after = score(session, data), score(Session(source), data)
    report.accuracy_before, report.accuracy_after = before.accuracy, after.accuracy
    report.accuracy_samples = data.samples
    report.outputs_changed = before.outputs_changed(after)
    report.decisions_changed = before.decisions_changed(after)


def proto_of(model: Model) -> onnx.ModelProto:
    """Return a model as a message."""
    graph = model if isinstance(model, SNNGraph) else SNNGraph.from_onnx(model)
    return graph.to_onnx()
