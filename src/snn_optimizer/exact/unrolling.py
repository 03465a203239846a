"""A network over its time steps as one mixed-integer program.

The nodes are interpreted in their order, loops step by step, on arrays of affine functions of the decision variables:
the entries of the input, the spikes of every neuron at every step, and products of both kinds with potentials. The
interpretation stops at the population that is asked about, whose own spikes are assumed: none before the step in
question (can it fire?), or one at every step (can it stay silent?). Before its first spike no reset has acted, so the
largest potential over all steps decides the first question; the second one is the same with a reset at every step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from snn_optimizer import ops
from snn_optimizer.exact.affine import Affine, joined, unit_rows
from snn_optimizer.exact.affine_rules import NotLinear, Operand, apply_rule, run_reference
from snn_optimizer.exact.neurons import NeuronSteps, Step
from snn_optimizer.exact.pooling import pooled
from snn_optimizer.exact.program import SHARED, MixedProgram
from snn_optimizer.exact.space import Entries
from snn_optimizer.ops import NeuronVariant

__all__ = ["NotUnrolled", "Target", "Unrolled", "unroll"]

Array = npt.NDArray[Any]
LARGEST = 1 << 21  # elements of one value
_SAME_EVERYWHERE = frozenset(
    {
        "Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Div", "Expand", "Flatten", "Gather", "Identity", "Mul",
        "Neg", "Reshape", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip


class NotUnrolled(ValueError):  # noqa: N818 - an answer: the network has no exact formulation here
    """A network holds something that has no exact formulation; the message says what and where."""


@dataclass(frozen=True, slots=True)
class Target:
    """The neuron that is asked about, and whether it is assumed to fire at every step so far or at none.

    Neurons of a population outside of loops do not hear each other: there the same is assumed of all of them, and
    the program serves for each.
    """

    population: str
    neuron: int
    fires: bool


@dataclass(slots=True, eq=False)
class Unrolled:
    """The program of a network up to one population.

    Attributes
    ----------
    program : MixedProgram
    inputs : mapping from input name to the numbers of its variables, in the order of its entries
    potentials : list of Affine
        Of the neurons of the population at the threshold test of every step.
    thresholds : array
        One element per neuron.
    fire : {"gt", "ge"}
    steps : NeuronSteps
    serves_all : bool
        Whether the potentials of other neurons of the population may be asked about too.
    """

    program: MixedProgram
    inputs: Mapping[str, npt.NDArray[np.int64]]
    potentials: list[Affine]
    thresholds: Array
    fire: str
    steps: NeuronSteps
    serves_all: bool


def unroll(model: onnx.ModelProto, entries: Sequence[Entries], target: Target) -> Unrolled:
    """Formulate a network as a program.

    Parameters
    ----------
    model : onnx.ModelProto
        With its weights.
    entries : sequence of Entries
        What one sample consists of.
    target : Target

    Raises
    ------
    NotUnrolled
        If something on the way has no exact formulation.
    """
    return _Unrolling(model, entries, target).run()


class _Reached(Exception):  # noqa: N818 - ends the interpretation
    """Everything that is wanted of the target is known."""


@dataclass
class _Unrolling:
    model: onnx.ModelProto
    entries: Sequence[Entries]
    target: Target
    program: MixedProgram = field(default_factory=MixedProgram)
    inputs: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    potentials: list[Affine] = field(default_factory=list)
    found: tuple[Array, str] | None = None
    in_loop: bool = False

    def __post_init__(self) -> None:
        self.opset = next((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), 18)
        kinds = {one.dtype for one in self.entries if one.dtype.kind == "f"}
        if len(kinds) > 1:
            raise NotUnrolled("inputs of several floating types")
        self.steps = NeuronSteps(self.program, next(iter(kinds), np.dtype(np.float32)))

    def run(self) -> Unrolled:
        values: dict[str, Operand] = {t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer}
        values |= {one.name: self._input(one) for one in self.entries}
        with contextlib.suppress(_Reached):
            self._walk(self.model.graph.node, values)
        if self.found is None:
            raise NotUnrolled(f"population '{self.target.population}' is in a place that is not followed")
        thresholds, fire = self.found
        return Unrolled(
            self.program, self.inputs, self.potentials, thresholds, fire, self.steps, serves_all=not self.in_loop
        )

    def _input(self, one: Entries) -> Affine:
        low, high = one.low.ravel(), one.high.ravel()
        if not np.isfinite(low).all() or not np.isfinite(high).all():
            raise NotUnrolled(f"input '{one.name}' has no bounds; declare them with --input-range")
        whole = one.is_spikes or one.dtype.kind != "f"
        numbers = self.program.variables(low, high, integral=whole)
        self.inputs[one.name] = numbers
        if one.limit is not None:
            self._limit(one, numbers, whole=whole)
        terms = self.program.rows_of(numbers)
        size = np.maximum(np.abs(low), np.abs(high))
        return Affine(one.shape, np.zeros(len(numbers)), terms, size, 0, 0 if whole else None)

    def _limit(self, one: Entries, numbers: npt.NDArray[np.int64], *, whole: bool) -> None:
        """At most so many entries of a frame are not zero; counted by the entries themselves where they are spikes."""
        low, high = self.program.low[numbers], self.program.high[numbers]
        counted = numbers
        if not (whole and (low >= 0).all() and (high <= 1).all()):
            counted = self.program.variables(np.zeros(len(numbers)), np.ones(len(numbers)), integral=True)
            entry, active = self.program.rows_of(numbers), self.program.rows_of(counted)
            free, zero = np.full(len(numbers), np.inf), np.zeros(len(numbers))
            self.program.require(entry - active.multiply(high[:, np.newaxis]).tocsr(), -free, zero, numbers)
            self.program.require(entry - active.multiply(low[:, np.newaxis]).tocsr(), zero, free, numbers)
        frames, inside = one.frame_shape()
        rows = unit_rows(counted, np.repeat(np.arange(frames), inside), frames, self.program.size)
        most = np.full(frames, float(one.limit or 0))
        self.program.require(rows, np.full(frames, -np.inf), most, np.full(frames, SHARED))

    # -- nodes -----------------------------------------------------------------------------

    def _walk(self, nodes: Sequence[onnx.NodeProto], values: dict[str, Operand]) -> None:
        for node in nodes:
            try:
                results = self._node(node, values)
            except NotLinear as error:
                place = node.name or node.output[0]
                raise NotUnrolled(f"node '{place}': no exact rule for {error}") from None
            for name, result in zip(node.output, results, strict=False):
                if name:
                    values[name] = result
                    self._check_size(name, result)

    def _node(self, node: onnx.NodeProto, values: dict[str, Operand]) -> Sequence[Operand]:
        operands = [values[name] if name else None for name in node.input]
        if ops.is_neuron(node.domain, node.op_type):
            return self._neurons(node, operands)
        if node.domain not in ("", "ai.onnx"):
            raise NotLinear(f"'{node.domain}.{node.op_type}'")
        if node.op_type == "Scan":
            return self._scan(node, operands, values)
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise NotLinear(f"'{node.op_type}'")
        if node.op_type == "MaxPool" and len(node.output) == 1:
            return [pooled(self.program, node, operands, self.opset)]
        if any(isinstance(value, Affine) for value in operands):
            return apply_rule(node, operands, self.opset, self.steps.unit)
        arrays = [value for value in operands if not isinstance(value, Affine)]
        if node.op_type in _SAME_EVERYWHERE or all(a is None or a.dtype.kind != "f" for a in arrays):
            return run_reference(node, arrays, self.opset)
        # the last bits of a sum depend on the runtime: it is followed like that of a signal
        first, *others = operands
        return apply_rule(node, [_affine(first), *others], self.opset, self.steps.unit)

    def _check_size(self, name: str, value: Operand) -> None:
        if isinstance(value, Affine) and (value.size > LARGEST or value.terms.nnz > 16 * LARGEST):
            raise NotUnrolled(f"value '{name}' has {value.size:,} elements over all steps, too many to formulate")

    def _scan(self, node: onnx.NodeProto, operands: Sequence[Operand], outer: dict[str, Operand]) -> Sequence[Operand]:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        body, scanned = attributes["body"], int(attributes["num_scan_inputs"])
        forward = not any(any(attributes.get(f"scan_{end}_directions", ())) for end in ("input", "output"))
        plain = not any(any(attributes.get(f"scan_{end}_axes", ())) for end in ("input", "output"))
        if not (forward and plain) or self.in_loop:
            raise NotLinear("a 'Scan' that does not run forward over the first axis of the main graph")
        carried = len(operands) - scanned
        states, trains = list(operands[:carried]), operands[carried:]
        length = next(value.shape[0] for value in trains if value is not None)
        names = [info.name for info in body.input]
        outputs = [info.name for info in body.output]
        constants: dict[str, Operand] = {t.name: numpy_helper.to_array(t) for t in body.initializer}
        collected: list[list[Operand]] = [[] for _ in outputs[carried:]]
        self.in_loop = True
        for step in range(length):
            inside = outer | constants | dict(zip(names[:carried], states, strict=True))
            inside |= {name: _slice(train, step) for name, train in zip(names[carried:], trains, strict=True)}
            self._walk(body.node, inside)
            states = [inside[name] for name in outputs[:carried]]
            for place, name in zip(collected, outputs[carried:], strict=True):
                place.append(inside[name])
        if self.found is not None:
            raise _Reached
        self.in_loop = False
        return [*states, *(_stack(parts) for parts in collected)]

    # -- populations -----------------------------------------------------------------------

    def _neurons(self, node: onnx.NodeProto, operands: Sequence[Operand]) -> Sequence[Operand]:
        variant = NeuronVariant.parse(node.op_type, {a.name: helper.get_attribute_value(a) for a in node.attribute})
        currents = [_affine(value) for value in operands[: variant.currents]]
        roles = [one.role for one in variant.schema.inputs]
        states = [_affine(value) for value, role in zip(operands, roles, strict=True) if role == "state"]
        parameters = {
            name: _constant(value, name)
            for name, value, role in zip(variant.inputs, operands, roles, strict=True)
            if role == "parameter"
        }
        shape = np.broadcast_shapes(*(current.shape for current in currents))
        # axes (T, B, N...): of a cell one step, of the flat form one sample, so that its first axis counts steps
        axes = {"sequence": shape, "cell": (1, *shape), "flat": (shape[0], 1, *shape[1:])}[variant.form]
        trains = [current.spread(shape).reshaped(axes) for current in currents]
        states = [state.spread(axes[1:]) for state in states]
        name = node.name or node.output[0]
        asked = name == self.target.population
        assumed = [self.target.neuron] if self.in_loop else range(int(np.prod(axes[1:], dtype=np.int64)))
        fixed = dict.fromkeys(assumed, float(self.target.fires)) if asked else {}
        signals, recorded = [], []
        for step in range(axes[0]):
            received = [_affine(_slice(train, step)) for train in trains]
            now = self.steps.step(variant, received, states, parameters, fixed)
            states = now.states
            signals.append(now.signal)
            recorded.append(now.states)
            if asked:
                self._note(now, name)
        if asked and not self.in_loop:
            raise _Reached
        return self._results(variant, signals, recorded, shape)

    def _note(self, now: Step, name: str) -> None:
        if now.threshold is None:
            raise NotUnrolled(f"'{name}' is a readout, its neurons do not fire")
        self.potentials.append(now.potential)
        self.found = np.broadcast_to(now.threshold, now.potential.shape).ravel(), now.fire

    def _results(
        self, variant: NeuronVariant, signals: list[Affine], recorded: list[list[Affine]], shape: tuple[int, ...]
    ) -> list[Operand]:
        if variant.form == "cell":
            return [signals[0], *recorded[0]]
        names = "iv"[-len(recorded[0]) :]
        over_time = [_stack([states[names.index(name)] for states in recorded]) for name in variant.record]
        trains = [_affine(_stack(list(signals))), *(_affine(value) for value in over_time)]
        if variant.form == "flat":
            trains = [train.reshaped(shape) for train in trains]
        return [*trains, *recorded[-1]]


def _affine(value: Operand) -> Affine:
    assert value is not None
    return value if isinstance(value, Affine) else Affine.of(value)


def _constant(value: Operand, name: str) -> Array:
    if not isinstance(value, np.ndarray) or not np.isfinite(value).all():
        raise NotLinear(f"parameter '{name}' of neurons, which is computed or not finite")
    return np.asarray(value, np.float64)


def _slice(value: Operand, step: int) -> Operand:
    """Return what a train holds at one step."""
    assert value is not None
    if not isinstance(value, Affine):
        return np.asarray(value[step])
    inside = value.shape[1:]
    size = int(np.prod(inside, dtype=np.int64))
    return value.gather(np.arange(step * size, (step + 1) * size).reshape(inside))


def _stack(parts: Sequence[Operand]) -> Operand:
    """Return the train of what each step holds."""
    if all(not isinstance(part, Affine) for part in parts):
        return np.stack([np.asarray(part) for part in parts])
    steps = [_affine(part) for part in parts]
    return joined(steps).reshaped((len(steps), *steps[0].shape))
