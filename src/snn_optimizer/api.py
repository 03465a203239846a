"""The programming interface: optimize, verify and profile models."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from snn_optimizer.analyses import AnalysisManager
from snn_optimizer.bisection import Bisection, bisect
from snn_optimizer.errors import InputError, SnnOptimizerError, UnknownPassError, did_you_mean
from snn_optimizer.execution import ModelSource, Observer, Profile, Session, profile_model
from snn_optimizer.ir import SNNGraph
from snn_optimizer.job import Data, Job, Model, dataset_of, proto_of, run_job
from snn_optimizer.passes import registry
from snn_optimizer.passes.base import PassContext
from snn_optimizer.pipeline import PassResult, PassStatus
from snn_optimizer.pipeline.budget import Budget
from snn_optimizer.raised import Raised, raise_model
from snn_optimizer.reduction import Reduction, reduce
from snn_optimizer.report import OptimizationReport
from snn_optimizer.reproducer import Replay, Reproducer, replay
from snn_optimizer.verification import Equivalence, Examination
from snn_optimizer.verification import examine as examine_models
from snn_optimizer.verification import verify as verify_models

__all__ = [
    "Bisection",
    "Job",
    "Raised",
    "Reduction",
    "Replay",
    "Reproducer",
    "SNNOptimizer",
    "bisect",
    "dead_neuron_elimination",
    "examine",
    "layer_fusion",
    "optimize",
    "profile",
    "raise_model",
    "reduce",
    "redundancy_elimination",
    "replay",
    "run_job",
    "verify",
]

DEFAULT_PASSES = ("dead-neuron-elimination", "redundancy-elimination", "layer-fusion")
CLASSIC_TEXT = {
    "dead-neuron-elimination": "dead-neuron-elimination{measured}",
    "layer-fusion": "layer-fusion{measured}",
}


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
    first, second = proto_of(before), proto_of(after)
    dataset = None if data is None else dataset_of(data, Session(first), "verification")
    return verify_models(first, second, dataset=dataset, **options)


def examine(before: Model, after: Model, data: Data | None = None, **options: Any) -> Examination:
    """Tell whether two models compute the same, and what the verdict rests on.

    As :func:`snn_optimizer.verification.examine`; a model that hides its neurons, an unrolled export for
    example, is raised so that its inside can be seen.
    """
    first, second = (model.to_onnx() if isinstance(model, SNNGraph) else model for model in (before, after))
    dataset = None if data is None else dataset_of(data, Session(first), "verification")
    options.setdefault("windows", (_window(first), _window(second)))
    return examine_models(first, second, dataset=dataset, **options)


def profile(model: Model, data: Data, **options: Any) -> Profile:
    """Measure rates, membrane ranges and margins of every neuron on data.

    The neurons of an export are measured in the network that is found in it.
    """
    source: ModelSource = model if isinstance(model, (str, os.PathLike)) else proto_of(model)
    dataset = dataset_of(data, Session(source), "profile")
    assert dataset is not None
    return profile_model(_window(source) or source, dataset, **options)


def _window(model: ModelSource) -> ModelSource | None:
    """Return the raised form of a model without neuron nodes, None where it has them or nothing is found."""
    try:
        if Observer(model).taps:
            return None
        raised = raise_model(model)
        return raised.graph.to_onnx() if raised.graph.layers else None
    except SnnOptimizerError:  # what cannot be raised is compared from outside
        return None


# -- parts of a job --------------------------------------------------------------------------


def _job(options: dict[str, Any]) -> Job:
    options.pop("level", None)
    limits = {n: options.pop(f"max_{n}", None) for n in ("accuracy_drop", "decision_change", "spike_change")}
    if any(v is not None for v in limits.values()):
        options["budget"] = Budget(**limits)
    known = set(Job.__dataclass_fields__)
    for name in options:
        if name not in known:
            raise InputError(f"unknown option '{name}'{did_you_mean(name, known)}")
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
