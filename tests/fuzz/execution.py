"""Running original and result in the plain runtime, and comparing what comes out without the project's own judge."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from tests.fuzz.plans import Plan
from tests.fuzz.samples import TIME, Sample
from tests.fuzz.stimuli import Arrays, stimuli

Run = Callable[[Mapping[str, np.ndarray]], Arrays]
RELATIVE = {"float16": 2.0**-9, "float32": 2.0**-20, "float64": 2.0**-48}
TOLERANCE = 1e-4
PERTURBED = 4
RECURRENT_STEPS = 4
RUNTIME_ERRORS = (RuntimeError, ValueError)


def load(model: onnx.ModelProto) -> Run:
    """A session on one thread with the runtime's own rewrites off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True))


@dataclass(frozen=True)
class Recorded:
    """One run of the original."""

    name: str
    feeds: Arrays
    outputs: Arrays


def record(sample: Sample, plan: Plan, run: Run) -> Iterator[Recorded]:
    """The original on all stimuli it runs on; a one-step model goes on from the states it reached."""
    for name, feeds in stimuli(sample, plan):
        current = feeds
        if is_empty(feeds) and not survives(run, feeds):
            continue
        for step in range(RECURRENT_STEPS if sample.states else 1):
            try:
                outputs = run(current)
            except Exception:  # noqa: BLE001 - the runtime's own exceptions have no public root
                break
            yield Recorded(f"{name}+{step}" if sample.states else name, current, outputs)
            current = feeds | {state: outputs[after] for state, after in sample.states.items() if after in outputs}


def is_empty(feeds: Arrays) -> bool:
    """Whether there are no samples, or no steps."""
    return not all(array.size for array in feeds.values())


def survives(run: Run, feeds: Arrays) -> bool:
    """Try a run in a child: the runtime divides by sizes, and dies of some that are zero."""
    child = os.fork()
    if child == 0:
        try:
            run(feeds)
        except Exception:  # noqa: BLE001 - as below
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


class Comparison:
    """Holds a result to the claim of a run, on recorded runs of the original."""

    def __init__(self, sample: Sample):
        self.sample = sample
        self._perturbed: list[Run] | None = None
        self._axes = {value.name: _sample_axis(value) for value in sample.model.graph.output}

    def difference(
        self, recorded: Recorded, after: Arrays, claim: str, *, excuse: bool = True, signed: bool = True
    ) -> str | None:
        """Say in one phrase what differs more than the claim allows; None if nothing does.

        excuse: near ties. signed: whether -0.0 differs from 0.0 where bits are compared.
        """
        for name, old in recorded.outputs.items():
            new = after.get(name)
            if new is None or (new.dtype, new.shape) != (old.dtype, old.shape):
                found = "missing" if new is None else f"{new.dtype}{list(new.shape)}"
                return f"output '{name}' is {found} instead of {old.dtype}{list(old.shape)}"
            wrong = _bits(old, new) if claim == "bitwise" else self._beyond(name, recorded, new)
            if claim == "bitwise" and not signed:
                wrong &= ~((old == 0) & (new == 0))
            if wrong.any() and claim != "bitwise" and excuse and not self._decided(name, old):
                wrong &= ~self._near_ties(name, recorded)
            if wrong.any():
                place = tuple(int(each) for each in np.argwhere(wrong)[0])
                count = int(np.count_nonzero(wrong))
                return f"output '{name}'{list(place)}: {old[place]} became {new[place]}, {count} of {old.size} on {recorded.name}"
        return None

    def _decided(self, name: str, old: np.ndarray) -> bool:
        """Whether sums are exact, so that a spike cannot depend on rounding."""
        return self.sample.exact and _whole(old)

    def _beyond(self, name: str, recorded: Recorded, new: np.ndarray) -> np.ndarray:
        old = recorded.outputs[name]
        if old.dtype.kind != "f" or (_whole(old) and _whole(new)):
            return np.asarray(old != new)
        wide, other = old.astype(np.float64), new.astype(np.float64)
        scale = np.abs(wide).max(initial=1.0, where=np.isfinite(wide))
        allowed = scale * (TOLERANCE if old.dtype != np.float16 else 2.0**-7)
        with np.errstate(invalid="ignore", over="ignore"):
            close = np.abs(wide - other) <= allowed
        return np.asarray(~(close | (old == new) | (np.isnan(old) & np.isnan(new))))

    def _near_ties(self, name: str, recorded: Recorded) -> np.ndarray:
        """Samples whose outputs change when the numbers of the original move by a few last bits."""
        old = recorded.outputs[name]
        moved = np.zeros(old.shape, np.bool_)
        for run in self._variants():
            outputs = run(recorded.feeds)
            for other, values in recorded.outputs.items():
                changed = self._beyond(other, recorded, outputs[other])
                source, target = self._axes.get(other), self._axes.get(name)
                if not changed.any():
                    continue
                if source is None or target is None:
                    moved[...] = True
                    continue
                rows = np.moveaxis(changed, source, 0).reshape(values.shape[source], -1).any(axis=1)
                moved |= rows.reshape([-1 if axis == target else 1 for axis in range(old.ndim)])
        return moved

    def _variants(self) -> list[Run]:
        if self._perturbed is None:
            self._perturbed = [load(perturbed(self.sample.model, seed)) for seed in range(PERTURBED)]
        return self._perturbed


def perturbed(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """A copy whose stored floats are moved by up to eight last bits or so."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    generator = np.random.default_rng(seed)
    _perturb(changed.graph, generator)
    return changed


def _perturb(graph: onnx.GraphProto, generator: np.random.Generator) -> None:
    for tensor in graph.initializer:
        _move(tensor, generator)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _move(attribute.t, generator)
            elif attribute.HasField("g"):
                _perturb(attribute.g, generator)


def _move(tensor: onnx.TensorProto, generator: np.random.Generator) -> None:
    array = numpy_helper.to_array(tensor)
    if str(array.dtype) not in RELATIVE:
        return
    with np.errstate(all="ignore"):
        factor = 1 + generator.uniform(-1, 1, array.shape) * RELATIVE[str(array.dtype)]
        moved = np.asarray((array * factor).astype(array.dtype)).reshape(array.shape)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(moved).reshape(array.shape), tensor.name))


def _sample_axis(value: onnx.ValueInfoProto) -> int | None:
    names = [axis.dim_param for axis in value.type.tensor_type.shape.dim]
    found = [index for index, name in enumerate(names) if name and name not in TIME]
    return found[0] if len(found) == 1 else None


def _whole(array: np.ndarray) -> bool:
    if array.dtype.kind != "f":
        return True
    with np.errstate(invalid="ignore"):
        return bool(np.isfinite(array).all() and (array >= 0).all() and (array == np.floor(array)).all())


def _bits(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    if old.dtype.kind != "f":
        return np.asarray(old != new)
    bits = f"u{old.dtype.itemsize}"
    left, right = np.ascontiguousarray(old).view(bits), np.ascontiguousarray(new).view(bits)
    return np.asarray((left != right).reshape(old.shape) & ~(np.isnan(old) & np.isnan(new)))


def interface(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """What a caller sees of a model."""
    ends = [("input", each) for each in model.graph.input] + [("output", each) for each in model.graph.output]
    return [(side, f"{each.name}: {helper.printable_type(each.type)}") for side, each in ends]
