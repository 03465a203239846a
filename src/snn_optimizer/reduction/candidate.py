"""What is reduced: a model, the pipeline that fails on it, and the samples it fails with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from snn_optimizer.errors import ExecutionError, SnnOptimizerError
from snn_optimizer.execution import Dataset, Session
from snn_optimizer.execution.source import serialize
from snn_optimizer.ir import InputDomain
from snn_optimizer.job import Job
from snn_optimizer.passes.base import Frontend
from snn_optimizer.pipeline.spec import Element, GroupSpec, Pipeline
from snn_optimizer.raised import raise_model
from snn_optimizer.verification.stimuli import generate

__all__ = ["Candidate", "Measure", "graphs_of", "is_sound"]

Samples: TypeAlias = Mapping[str, npt.NDArray[Any]]
PROBED = ("zeros", "ones", "random:0.3")  # stimuli a candidate has to run on


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A model with a pipeline to run on it.

    Attributes
    ----------
    model : ModelProto
        Not to be changed.
    pipeline : tuple of Element
        Empty where only a check judges.
    samples : mapping from input name to array, or None
        Calibration data, ``labels`` among them.
    """

    model: onnx.ModelProto
    pipeline: tuple[Element, ...] = ()
    samples: Samples | None = None

    @property
    def text(self) -> str:
        """The pipeline as text."""
        return str(Pipeline(self.pipeline))

    def digest(self) -> bytes:
        """Return what two equal candidates share."""
        found = hashlib.sha256(serialize(self.model))
        found.update(self.text.encode())
        for name, array in sorted((self.samples or {}).items()):
            found.update(name.encode() + repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return found.digest()

    def job(self, job: Job) -> Job:
        """Return a job without premises about inputs and states that this model has not."""
        inputs = {info.name for info in self.model.graph.input}
        outputs = {info.name for info in self.model.graph.output}
        domain = replace(
            job.domain,
            named={name: ends for name, ends in job.domain.named.items() if name in inputs},
            named_active={name: limit for name, limit in job.domain.named_active.items() if name in inputs},
        )
        states = {old: new for old, new in job.frontend.states.items() if old in inputs and new in outputs}
        return replace(
            job,
            pipeline=self.text,
            calibration=self.samples,
            domain=domain,
            frontend=Frontend(states, job.frontend.custom_ops),
            instruments=(),
            limit=None,
            progress=None,
        )


@dataclass(frozen=True, slots=True)
class Measure:
    """The size of a candidate.

    Attributes
    ----------
    nodes : int
        Of the main graph and all bodies.
    neurons : int
        As far as raising finds them.
    values : int
        Numbers in initializers that are not zero.
    passes, samples : int
    """

    nodes: int
    neurons: int
    values: int
    passes: int
    samples: int

    @classmethod
    def of(cls, candidate: Candidate, frontend: Frontend) -> Measure:
        """Count."""
        graphs = list(graphs_of(candidate.model.graph))
        try:
            neurons = raise_model(candidate.model, candidate.job(Job(frontend=frontend)).frontend).graph.total_neurons
        except SnnOptimizerError:
            neurons = 0
        return cls(
            nodes=sum(len(graph.node) for graph in graphs),
            neurons=neurons,
            values=sum(int(np.count_nonzero(_array(t))) for graph in graphs for t in graph.initializer),
            passes=_count(candidate.pipeline),
            samples=_samples(candidate),
        )


def _array(tensor: onnx.TensorProto) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = onnx.numpy_helper.to_array(tensor)
    return found


def _count(elements: Sequence[Element]) -> int:
    return sum(_count(one.body) if isinstance(one, GroupSpec) else 1 for one in elements)


def _samples(candidate: Candidate) -> int:
    if candidate.samples is None:
        return 0
    labels = candidate.samples.get("labels")
    if labels is not None:
        return len(labels)
    sizes = [array.shape[1 if array.ndim >= 3 else 0] for array in candidate.samples.values() if array.ndim]
    return max(sizes, default=0)


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and all bodies in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from graphs_of(body)


def is_sound(model: onnx.ModelProto, *, runs: bool, seed: int, domain: InputDomain) -> bool:
    """Tell whether a model is valid, and where ``runs``, gives the same finite numbers whenever it runs.

    Parameters
    ----------
    runs : bool
        Whether onnxruntime has to run it; False where it cannot run the model that is reduced either.
    seed : int
    domain : InputDomain
    """
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError):
        return False
    if not runs:
        return True
    try:
        session = Session(model)
        stimuli = generate(session.inputs, steps=4, batch=2, seed=seed, ranges=domain)
        for stimulus in stimuli:
            if stimulus.name in PROBED:
                data = Dataset.from_arrays(stimulus.feeds, session.inputs)
                if not _repeats(session, next(data.batches(data.samples)).feeds):
                    return False
    except SnnOptimizerError:
        return False
    return True


def _repeats(session: Session, feeds: Samples) -> bool:
    first, second = session.run(feeds), session.run(feeds)
    for name, array in first.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return False
        if not np.array_equal(array, second[name]):
            return False
    if not first:
        raise ExecutionError("the model has no output")
    return True
