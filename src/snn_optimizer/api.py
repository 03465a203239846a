"""The programming interface: optimize, verify and profile models."""

from __future__ import annotations

import difflib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx

from snn_optimizer.analyses import AnalysisManager
from snn_optimizer.errors import DataError, ExecutionError, InputError, UnknownPassError, UnsupportedModelError
from snn_optimizer.execution import Dataset, ModelSource, Profile, Session, load_dataset, profile_model
from snn_optimizer.execution.activity import MeasuredActivity
from snn_optimizer.execution.evaluate import node_evaluator
from snn_optimizer.ir import InputDomain, SNNGraph
from snn_optimizer.lowering.emit import emit
from snn_optimizer.lowering.step_form import steps_of
from snn_optimizer.passes import registry
from snn_optimizer.passes.base import Exactness, Frontend, Pass, PassContext
from snn_optimizer.pipeline import PassResult, PassStatus
from snn_optimizer.pipeline.budget import Budget
from snn_optimizer.pipeline.guard import Guard
from snn_optimizer.pipeline.manager import Instrument, PassManager
from snn_optimizer.pipeline.presets import expand
from snn_optimizer.pipeline.spec import Pipeline, parse
from snn_optimizer.remarks import RemarkKind
from snn_optimizer.report import Evidence, OptimizationReport, Size
from snn_optimizer.verification import Equivalence, score
from snn_optimizer.verification import verify as verify_models
from snn_optimizer.verification.forms import Form, compare_forms

__all__ = [
    "Job",
    "Raised",
    "SNNOptimizer",
    "dead_neuron_elimination",
    "layer_fusion",
    "optimize",
    "profile",
    "raise_model",
    "redundancy_elimination",
    "run_job",
    "verify",
]

Model: TypeAlias = str | os.PathLike[str] | onnx.ModelProto | SNNGraph
Data: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | Dataset
FITTED = 0.6  # share of the calibration samples that weights are fitted to, where a budget is measured on the others
LARGEST_IN_MEMORY = 256 << 20  # bytes of weights that are serialized only to be counted
DEFAULT_PASSES = ("dead-neuron-elimination", "redundancy-elimination", "layer-fusion")
CLASSIC_TEXT = {
    "dead-neuron-elimination": "dead-neuron-elimination{measured}",
    "layer-fusion": "layer-fusion{measured}",
}


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
    frontend : Frontend
        What cannot be seen in the file: states of a one-step model, custom operators.
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
    seed: int = 0
    strip_metadata: bool = False
    limit: int | None = None
    frontend: Frontend = field(default_factory=Frontend)
    emit: str = ""
    instruments: Sequence[Instrument] = ()
    progress: Callable[[str, int, int], None] | None = None


def run_job(model: Model, job: Job) -> tuple[SNNGraph, OptimizationReport]:
    """Optimize a copy of ``model`` as ``job`` says and report on it.

    Raises
    ------
    InputError
        For anything the caller can mend; nothing was changed.
    """
    start = time.perf_counter()
    graph = model.copy(share_weights=True) if isinstance(model, SNNGraph) else SNNGraph.from_onnx(model)
    pipeline = parse(job.pipeline)
    weakest = _weakest(pipeline)
    original: ModelSource = Path(model) if isinstance(model, (str, os.PathLike)) else graph.to_onnx()
    report = OptimizationReport(model=graph.module.path.name if graph.module.path else graph.module.graph.name)
    report.pipeline = str(pipeline)
    session = _session(original, report) if job.verify or job.calibration or job.test else None
    calibration = _dataset(job.calibration, session, "calibration")
    test = _dataset(job.test, session, "test")
    _require(weakest, job, calibration, graph)
    domain = _widened(job.domain, calibration, report)
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
        frontend=job.frontend,
    )
    report.pass_results = manager.run(graph, pipeline)
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
        report.evidence = _evidence(guard.evidence(graph, exactness))
    _measure_on(report, session, guard, graph, test or calibration)
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


@dataclass(frozen=True)
class Raised:
    """A network found in a file.

    Attributes
    ----------
    graph : SNNGraph
    form : str
        What the file was: an unrolled export, a loop, one step per call, or a network of ``ai.snn``.
    steps : int or None
        Time steps, where the file fixes them.
    producer : str
        What wrote the file.
    nodes : int
        Nodes of the file.
    origins : dict
        Class of the framework each population comes from, where the file says.
    refused : list of str
        What stayed as it was, and why.
    """

    graph: SNNGraph
    form: str
    steps: int | None
    producer: str
    nodes: int
    origins: dict[str, str | None]
    refused: list[str]


def raise_model(model: Model, frontend: Frontend | None = None) -> Raised:
    """Find the network in a framework's export, without optimizing it.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    before = SNNGraph.from_onnx(model) if not isinstance(model, SNNGraph) else model
    nodes, ops = before.module.count_nodes(), {node.op for node in before.module.graph.nodes}
    header = before.module.sidecar.header
    job = Job(pipeline="@raise,dead-code", verify=False, frontend=frontend or Frontend())
    graph, report = run_job(before, job)
    remarks = [remark for result in report.pass_results for remark in result.remarks]
    rolled = [r for r in remarks if r.kind is RemarkKind.APPLIED and r.rule == "rolled"]
    named = {r.place: r.arguments.get("origin") for r in remarks if r.rule == "recognized"}
    raising = ("reroll", "recognize-neurons", "distribute-time", "loop-to-scan", "map-custom-ops")
    refused = [
        f"{r.place}: {r.message}"
        for r in remarks
        if r.kind is RemarkKind.MISSED and r.pass_name in raising and r.rule != "one-loop"
    ]
    steps = next((int(str(r.arguments["steps"])) for r in rolled), None)
    return Raised(
        graph,
        _form(rolled, ops, graph),
        steps,
        f"{header.producer_name} {header.producer_version}".strip(),
        nodes,
        {layer.name: _text(named.get(layer.name)) for layer in graph.layers},
        list(dict.fromkeys(refused)),
    )


def _text(held: object) -> str | None:
    return None if held is None else str(held)


def _form(rolled: Sequence[Any], ops: set[str], graph: SNNGraph) -> str:
    if rolled:
        return "unrolled export"
    if "Loop" in ops or "Scan" in ops:
        return "loop over time"
    cells = any(layer.variant.form == "cell" for layer in graph.layers)
    return "one step per call" if cells else "network over all steps" if graph.layers else "plain graph"


def optimize(graph: Model, passes: Sequence[str] | None = None, **options: Any) -> tuple[SNNGraph, OptimizationReport]:
    """Optimize a model; the input is left untouched.

    Parameters
    ----------
    graph : SNNGraph, path or ModelProto
    passes : sequence of str, optional
        Names of passes, aliases included, in order; all classic passes (dead neuron
        elimination, redundancy elimination, layer fusion) by default. A name that is not
        known is ignored with a warning.
    **options
        Fields of :class:`Job`, and ``max_accuracy_drop``, ``max_decision_change``,
        ``max_spike_change``; ``level="O2"`` instead of ``passes`` runs a preset.

    Returns
    -------
    SNNGraph, OptimizationReport
    """
    job = _job(dict(options))
    ignored: list[str] = []
    if "level" in options:
        if passes is not None:
            raise InputError("give passes or level, not both")
        job = replace(job, pipeline=f"@{str(options['level']).lstrip('-@')}")
    elif "pipeline" not in options:
        job = replace(job, pipeline=_classic_pipeline(passes, ignored))
    result, report = run_job(graph, job)
    report.warnings.extend(ignored)
    return result, report


class SNNOptimizer:
    """Optimizes models with the same options and keeps the last report.

    Parameters
    ----------
    **options
        As for :func:`optimize`.

    Attributes
    ----------
    report : OptimizationReport or None
        Of the last call.
    """

    def __init__(self, **options: Any) -> None:
        _job(dict(options))
        self._options = options
        self.report: OptimizationReport | None = None

    def optimize(self, model: Model, passes: Sequence[str] | None = None, **options: Any) -> SNNGraph:
        """Return an optimized copy of ``model``; the report is in :attr:`report`."""
        result, self.report = optimize(model, passes, **(self._options | options))
        return result


def dead_neuron_elimination(graph: SNNGraph, threshold: float = 0.001) -> PassResult:
    """Remove neurons that never fire, in place: proved, or with known rates at or below ``threshold``."""
    return _run_one(graph, "dead-neuron-elimination", {"threshold": threshold, "measured": True})


def redundancy_elimination(graph: SNNGraph, correlation_threshold: float = 0.99) -> PassResult:
    """Merge duplicate neurons in place, and ones at least this similar (1 merges exact duplicates only)."""
    return _run_one(graph, "redundancy-elimination", {"correlation_threshold": correlation_threshold})


def layer_fusion(graph: SNNGraph, rate_threshold: float = 0.01) -> PassResult:
    """Fuse layers in place, the classic rule for quiet layers included; that rule changes results.

    A layer with known firing rates whose mean is below ``rate_threshold`` is multiplied into the
    next one; :func:`optimize` never applies this rule.
    """
    return _run_one(graph, "layer-fusion", {"classic": True, "measured": True, "rate_threshold": rate_threshold})


def verify(before: Model, after: Model, data: Data | None = None, **options: Any) -> Equivalence:
    """Tell whether two models compute the same; see :func:`snn_optimizer.verification.verify`."""
    first, second = _proto(before), _proto(after)
    dataset = None if data is None else _dataset(data, Session(first), "verification")
    return verify_models(first, second, dataset=dataset, **options)


def profile(model: Model, data: Data, **options: Any) -> Profile:
    """Measure rates, membrane ranges and margins of every neuron on data."""
    proto = _proto(model)
    dataset = _dataset(data, Session(proto), "profile")
    assert dataset is not None
    return profile_model(proto, dataset, **options)


# -- parts of a job --------------------------------------------------------------------------


def _job(options: dict[str, Any]) -> Job:
    options.pop("level", None)
    limits = {n: options.pop(f"max_{n}", None) for n in ("accuracy_drop", "decision_change", "spike_change")}
    if any(v is not None for v in limits.values()):
        options["budget"] = Budget(**limits)
    known = set(Job.__dataclass_fields__)
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InputError(f"unknown option '{name}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    return Job(**options)


def _classic_pipeline(passes: Sequence[str] | None, ignored: list[str]) -> str:
    names = []
    for name in DEFAULT_PASSES if passes is None else passes:
        try:
            canonical = registry.resolve(str(name))
        except UnknownPassError as error:
            ignored.append(f"{error}; ignored")
            warnings.warn(ignored[-1], UserWarning, stacklevel=4)
            continue
        names.append(CLASSIC_TEXT.get(canonical, canonical))
    return ",".join(names)


def _run_one(graph: SNNGraph, name: str, options: dict[str, object]) -> PassResult:
    """Run one pass in place, unguarded, as the classic functions do."""
    one = registry.create(name, options)
    result = PassResult(name=name, claim=one.claim.name.lower())
    result.params_before, result.neurons_before = graph.total_params, graph.total_neurons
    context = PassContext(AnalysisManager(graph.module), pass_name=name, remarks=result.remarks)
    start = time.perf_counter()
    outcome = one.run(graph, context)
    result.seconds = time.perf_counter() - start
    result.changes, result.statistics = outcome.changes, outcome.details
    result.neurons_removed, result.layers_fused = outcome.neurons_removed, outcome.layers_fused
    result.status = PassStatus.KEPT if outcome.changes else PassStatus.UNCHANGED
    result.params_after, result.neurons_after = graph.total_params, graph.total_neurons
    return result


def _weakest(pipeline: Pipeline) -> Exactness:
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


def _dataset(data: Data | None, session: Session | None, what: str) -> Dataset | None:
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


def _widened(domain: InputDomain, calibration: Dataset | None, report: OptimizationReport) -> InputDomain:
    """Let the domain cover the calibration data: a proof for other inputs would be worth nothing."""
    if calibration is None:
        return domain
    for name, array in calibration.feeds.items():
        if array.dtype.kind != "f" or not array.size:
            continue
        low, high = domain.scalar(name)
        seen_low, seen_high = float(array.min()), float(array.max())
        if seen_low < low or seen_high > high:
            domain = domain.widened(name, seen_low, seen_high)
            report.warnings.append(
                f"input '{name}' takes values {seen_low:g}..{seen_high:g} in the calibration data: its declared range "
                f"{low:g}..{high:g} was widened to cover them"
            )
    return domain


def _load_rates(graph: SNNGraph, job: Job, original: ModelSource, measured: Dataset | None) -> None:
    """Fill in measured rates; what the caller gave by hand wins."""
    if job.profile is not None:
        found = job.profile if isinstance(job.profile, Profile) else Profile.load(job.profile)
        sizes = {layer.name: layer.n_neurons for layer in graph.layers}
        for name, population in found.populations.items():
            if sizes.get(name) != int(np.prod(population.shape)):
                raise DataError(
                    f"the profile has a population '{name}' of shape {population.shape} that the model has not"
                )
    elif measured is not None:
        report = None if job.progress is None else (lambda done, total: job.progress("profile", done, total))  # type: ignore[misc]  # checked here
        found = profile_model(original, measured, progress=report)
    else:
        return
    for name, population in found.populations.items():
        if population.spiking:
            graph.firing_rates.setdefault(name, np.asarray(population.rate, np.float64))


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


def _evidence(equivalence: Equivalence) -> Evidence:
    return Evidence(
        verdict=str(equivalence.verdict),
        reason=equivalence.reason,
        values_compared=equivalence.values_compared,
        spikes_compared=equivalence.spikes_compared,
        spikes_seen=equivalence.spikes_seen,
        spikes_changed=equivalence.spikes_differing,
        near_ties=equivalence.near_ties,
        samples=equivalence.samples,
    )


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


def _proto(model: Model) -> onnx.ModelProto:
    graph = model if isinstance(model, SNNGraph) else SNNGraph.from_onnx(model)
    return graph.to_onnx()
