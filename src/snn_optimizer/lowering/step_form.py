"""Write a raised network as one time step: states come in as inputs and go out as outputs.

With time and batch in one axis, a network over all steps is a network of one step run on more
samples: its synapses are taken over as they are, its neurons become their one-step form, and
what joined or split time and batch disappears. Loops around recurrent layers are opened.
Results over all steps (a sum, a maximum, a mean over time) become running results, whose value
after the last step is the one of the whole run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from snn_optimizer import ops
from snn_optimizer.errors import UnsupportedModelError
from snn_optimizer.ir import (
    Dimension,
    Graph,
    Module,
    Node,
    Rewriter,
    Shapes,
    SNNGraph,
    Value,
    array_of,
    is_constant,
    is_missing,
    is_standard,
)
from snn_optimizer.lowering.time_axes import joins_time, steps_of, time_axis
from snn_optimizer.raising.batching import BROADCASTING
from snn_optimizer.raising.uniform import uniform

__all__ = ["StepForm", "step_form"]

_RUNNING = {"ReduceSum": ("Add", 0.0), "ReduceMax": ("Max", -np.inf), "ReduceMin": ("Min", np.inf)}


@dataclass(frozen=True, slots=True)
class StepForm:
    """A network that runs one step per call.

    Attributes
    ----------
    graph : SNNGraph
    states : dict
        State output by state input.
    starts : dict
        Value that fills each state before the first step, by input.
    signals : dict
        Time axis of each input of the whole run, by name; inputs that are the same for all steps are not in it.
    """

    graph: SNNGraph
    states: dict[str, str]
    starts: dict[str, float]
    signals: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Step:
    """A value of the old graph at one step: the new value, and the old time axis, None when it has none apart."""

    value: Value
    axis: int | None = None


def step_form(graph: SNNGraph) -> StepForm:
    """Return the one-step form of a network over all steps.

    Raises
    ------
    UnsupportedModelError
        If a part of it has no meaning at one step; the message names it.
    """
    return _Writer(graph).write()


@dataclass
class _Writer:
    source: SNNGraph
    made: dict[int, _Step] = field(default_factory=dict)
    constants: dict[int, Value] = field(default_factory=dict)
    states: list[tuple[Value, Value, float]] = field(default_factory=list)
    signals: dict[str, int] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)

    def write(self) -> StepForm:
        old = self.source.module
        self.shapes = Shapes.compute(old)
        self.steps = steps_of(old, self.shapes)
        if self.steps is None:
            raise UnsupportedModelError("this model has no neurons over all steps that could run one step at a time")
        self.new = Module.empty(inputs=[], outputs=[], opset=max(old.opset(), ops.MINIMUM_OPSET), name=old.graph.name)
        self.new.metadata.update(old.metadata)
        self.rewriter = Rewriter(self.new)
        self.results = [self.rewriter.value(value.name, value.dtype, None) for value in old.graph.outputs]
        for value in old.graph.inputs:
            self._input(value)
        for node in old.graph.nodes:
            try:
                self._node(node)
            except UnsupportedModelError as error:  # it may only have made a shape that nothing needs any more
                self.refused.update((id(value), str(error)) for value in node.outputs)
        outputs = [self._output(value, made) for value, made in zip(old.graph.outputs, self.results, strict=True)]
        pairs: dict[str, str] = {}
        starts: dict[str, float] = {}
        for before, after, start in self.states:
            result = self.rewriter.value(f"{before.name}_next", before.dtype, before.shape)
            self.rewriter.add(self.new.graph, "Identity", [after], [result])
            outputs.append(result)
            pairs[before.name], starts[before.name] = result.name, start
        self.new.graph.outputs.extend(outputs)
        self.rewriter.finish()
        return StepForm(SNNGraph(module=self.new), pairs, starts, self.signals)

    # --------------------------------------------------------------- interface

    def _input(self, value: Value) -> None:
        shape = self.shapes.shape(value)
        axis = time_axis(value, self.shapes)
        if axis is None:
            step = self.rewriter.value(value.name, value.dtype, None if shape is None else list(shape))
        else:
            assert shape is not None  # a time axis was found in it
            rest: list[Dimension] = [size for k, size in enumerate(shape) if k != axis]
            step = self.rewriter.value(value.name, value.dtype, rest)
            self.signals[value.name] = axis
        self.new.graph.inputs.append(step)
        self.made[id(value)] = _Step(step, axis)

    def _splits(self, node: Node) -> bool:
        """Tell whether a Reshape puts time and batch into two axes."""
        target = array_of(node.inputs[1])
        before = self.shapes.rank(node.inputs[0])
        if target is None:
            after = self.shapes.rank(node.outputs[0])
            return before is not None and after == before + 1
        if before is None or target.size < 2 or int(target[1]) != -1:
            return False
        return target.size == before + 1 or (int(target[0]) == self.steps and self._axis_of(node.inputs[0]) is None)

    def _output(self, value: Value, result: Value) -> Value:
        if id(value) in self.refused:
            raise UnsupportedModelError(self.refused[id(value)])
        if is_constant(value) or id(value) not in self.made:
            raise UnsupportedModelError(f"output '{value.name}' does not depend on the inputs")
        step = self.made[id(value)]
        shape = self.shapes.shape(value)
        if shape is not None and step.axis is not None:
            shape = tuple(size for k, size in enumerate(shape) if k != step.axis)
        result.shape = None if shape is None else list(shape)
        self.rewriter.add(self.new.graph, "Identity", [step.value], [result])
        return result

    def _state(self, name: str, like: Value, dtype: object, start: float) -> Value:
        shape = self.shapes.shape(like)
        value = self.rewriter.value(name, dtype or np.float32, None if shape is None else list(shape))  # type: ignore[arg-type]
        self.new.graph.inputs.append(value)
        return value

    # ------------------------------------------------------------------- nodes

    def _read(self, value: Value) -> Value | None:
        if is_missing(value):
            return None
        if id(value) in self.made:
            return self.made[id(value)].value
        if is_constant(value):
            if id(value) not in self.constants:
                array = array_of(value)
                assert array is not None  # a constant
                self.constants[id(value)] = self.rewriter.constant(value.name, array)
            return self.constants[id(value)]
        raise UnsupportedModelError(self.refused.get(id(value), f"'{value.name}' is not known at one step"))

    def _node(self, node: Node) -> None:
        if ops.is_neuron(node.domain or "", node.op):
            self._neuron(node)
        elif is_standard(node, "Scan"):
            self._loop(node)
        elif (
            is_standard(node, "Reshape")
            and (joins_time(node, self.shapes) or self._splits(node))
            and self._is_timed(node)
        ):
            axis = 0 if self._splits(node) else None
            self.made[id(node.outputs[0])] = _Step(self._split(node, axis), axis)
        elif is_standard(node, "Transpose") and self._moves_time(node):
            self.made[id(node.outputs[0])] = _Step(self._value(node.inputs[0]), self._moved_axis(node))
        elif is_standard(node, "Tile") and (axis := self._repeats_steps(node)) is not None:
            self._repeat(node, axis)
        elif any(self._axis_of(value) is not None for value in node.inputs):
            self._over_time(node)
        else:
            self._copy(node)

    def _split(self, node: Node, axis: int | None) -> Value:
        """Return the value of one step; a split that also reshapes the units still does that."""
        value, target = self._value(node.inputs[0]), array_of(node.inputs[1])
        before = self.shapes.rank(node.inputs[0])
        if axis is None or target is None or before is None or target.size == before + 1:
            return value
        result = self.rewriter.value(f"{node.outputs[0].name}_step", value.dtype, None)
        shape = self.rewriter.constant("shape", np.array([-1, *(int(n) for n in target[2:])], np.int64))
        self.rewriter.add(self.new.graph, "Reshape", [value, shape], [result])
        return result

    def _value(self, value: Value) -> Value:
        found = self._read(value)
        assert found is not None  # not a missing input
        return found

    def _axis_of(self, value: Value) -> int | None:
        step = self.made.get(id(value))
        return None if step is None else step.axis

    def _is_timed(self, node: Node) -> bool:
        return id(node.inputs[0]) in self.made

    def _moves_time(self, node: Node) -> bool:
        axis = self._axis_of(node.inputs[0])
        return axis is not None and node.attrs.get("perm") is not None

    def _moved_axis(self, node: Node) -> int:
        axis = self._axis_of(node.inputs[0])
        return [int(a) for a in node.attrs["perm"]].index(int(axis or 0))

    def _repeats_steps(self, node: Node) -> int | None:
        """Return the axis along which a value is repeated once per step."""
        repeats = array_of(node.inputs[1])
        if repeats is None:
            made = node.inputs[1].inputs
            return 0 if made and is_standard(made[0], "Concat", "Shape") and self.steps == 0 else None
        axes = [axis for axis, count in enumerate(repeats) if int(count) != 1]
        return axes[0] if len(axes) == 1 and int(repeats[axes[0]]) == self.steps else None

    def _repeat(self, node: Node, axis: int) -> None:
        """Take a repeated value once; where the steps got an axis of their own, without it."""
        value = self._value(node.inputs[0])
        apart = axis > 0 or any(
            is_standard(reader, "Transpose", "MatMul")
            or (is_standard(reader, "Reshape") and joins_time(reader, self.shapes))
            for reader in node.outputs[0].outputs
        )
        if not apart:
            self.made[id(node.outputs[0])] = _Step(value)
            return
        once = self.rewriter.value(f"{node.outputs[0].name}_once", value.dtype, None)
        axes = self.rewriter.constant("axis", np.array([axis], np.int64))
        self.rewriter.add(self.new.graph, "Squeeze", [value, axes], [once])
        self.made[id(node.outputs[0])] = _Step(once, axis)

    def _copy(self, node: Node) -> None:
        if node.attrs and any(isinstance(held, type(self.source.module.graph)) for held in node.attrs.values()):
            raise UnsupportedModelError(f"node '{node.name}' ({node.op}) has a body")
        inputs = [self._read(value) for value in node.inputs]
        outputs = [
            None if is_missing(value) else self.rewriter.value(value.name, value.dtype, None) for value in node.outputs
        ]
        self.rewriter.add(self.new.graph, node.op, inputs, outputs, node.attrs, node.domain or "", node.name or None)
        for value, made in zip(node.outputs, outputs, strict=True):
            if made is not None:
                self.made[id(value)] = _Step(made)

    def _over_time(self, node: Node) -> None:
        """Take over a node that works on sequences: picked steps, results over time, elementwise arithmetic."""
        axis = self._axis_of(node.inputs[0])
        if is_standard(node, "Gather") and int(node.attrs.get("axis", 0)) == axis:
            index = array_of(node.inputs[1])
            last = index is not None and index.ndim == 0 and int(index) in (-1, (self.steps or 0) - 1)
            if last:
                self.made[id(node.outputs[0])] = _Step(self._value(node.inputs[0]))
                return
        if axis is not None and is_standard(node, *_RUNNING, "ReduceMean") and self._reduces(node, axis):
            self._running(node)
            return
        if self._keeps_time(node):
            found = next(a for value in node.inputs if (a := self._axis_of(value)) is not None)
            self._copy(node)
            self.made[id(node.outputs[0])] = _Step(self.made[id(node.outputs[0])].value, found)
            return
        raise UnsupportedModelError(
            f"node '{node.name}' ({node.op}) needs several steps at once and has no one-step form"
        )

    def _keeps_time(self, node: Node) -> bool:
        """Tell whether a node treats steps alike, and has operands without a time axis only where that is the same."""
        rank = self.shapes.rank(node.outputs[0])
        axes = {self._axis_of(value) for value in node.inputs if not is_constant(value)}
        if len(axes) != 1 or rank is None:
            return False
        ranks = [len(array.shape) for value in node.inputs if (array := array_of(value)) is not None]
        if is_standard(node, "MatMul"):
            return rank > 2 and ranks == [2]
        return is_standard(node, *BROADCASTING) and all(own <= rank - 2 for own in ranks)

    def _reduces(self, node: Node, axis: int) -> bool:
        axes = node.attrs.get("axes")
        if axes is None and len(node.inputs) > 1:
            axes = array_of(node.inputs[1])
        return axes is not None and [int(a) for a in axes] == [axis] and not int(node.attrs.get("keepdims", 1))

    def _running(self, node: Node) -> None:
        """Keep a sum, mean or extreme over time as a state."""
        op, start = _RUNNING.get(node.op, ("Add", 0.0))
        value = self._value(node.inputs[0])
        before = self._state(f"{node.outputs[0].name}_so_far", node.outputs[0], value.dtype, start)
        after = self.rewriter.value(f"{node.outputs[0].name}_now", value.dtype, None)
        self.rewriter.add(self.new.graph, op, [before, value], [after], name_hint=node.name or None)
        self.states.append((before, after, start))
        result = after
        if node.op == "ReduceMean":
            count = self.rewriter.constant("steps", np.array(float(self.steps or 1), np.float32))
            result = self.rewriter.value(f"{node.outputs[0].name}_mean", value.dtype, None)
            self.rewriter.add(self.new.graph, "Div", [after, count], [result])
        self.made[id(node.outputs[0])] = _Step(result)

    def _neuron(self, node: Node) -> None:
        variant = ops.NeuronVariant.parse(node.op, node.attrs)
        cell = replace(variant, form="cell", record="")
        inputs: list[Value | None] = []
        before: dict[str, Value] = {}
        for declared, value in zip(variant.schema.inputs, node.inputs, strict=True):
            if declared.role == "steps":
                continue
            if declared.role == "state" and variant.form != "cell":
                letter = declared.name[0]
                start = self._start_of(node, value)
                state = self._state(f"{node.name}_{letter}", node.outputs[-1], np.float32, start)
                before[letter] = state
                inputs.append(state)
                self.states.append((state, state, start))
            else:
                inputs.append(self._read(value))
        first = self.rewriter.value(node.outputs[0].name, np.float32, None)
        after = {letter: self.rewriter.value(f"{node.name}_{letter}_after", np.float32, None) for letter in before}
        self.rewriter.add(
            self.new.graph, cell.op_type, inputs, [first, *after.values()], cell.attributes(), ops.DOMAIN, node.name
        )
        self.new.add_function(ops.function_proto(cell, min(self.new.opset(), ops.MAXIMUM_OPSET)))
        self.states = [
            (b, after[letter], start) if b is before.get(letter) else (b, a, start)
            for b, a, start in self.states
            for letter in [next((k for k, v in before.items() if v is b), "")]
        ]
        axis = 0 if variant.form == "sequence" else None
        self.made[id(node.outputs[0])] = _Step(first, axis)
        for declared, value in zip(variant.schema.outputs[1:], node.outputs[1:], strict=True):
            self.made[id(value)] = _Step(after[declared.name[0].lower()], axis if declared.role == "signal" else None)

    def _start_of(self, node: Node, value: Value) -> float:
        fill = uniform(value)
        if fill is None or fill.ndim:
            raise UnsupportedModelError(f"the initial state of '{node.name}' is not one number")
        return float(fill)

    def _loop(self, node: Node) -> None:
        """Open a loop: its states are states of the step, its body is part of the step."""
        body: Graph = node.attrs["body"]
        carried = len(node.inputs) - int(node.attrs["num_scan_inputs"])
        for slot in range(carried, len(node.inputs)):
            self.made[id(body.inputs[slot])] = _Step(self._value(node.inputs[slot]))
        opened: list[tuple[Value, float]] = []
        for slot in range(carried):
            start = self._loop_start(node, slot)
            state = self._state(f"{node.name}_{body.inputs[slot].name}", node.outputs[slot], np.float32, start)
            self.made[id(body.inputs[slot])] = _Step(state)
            opened.append((state, start))
        for inner in body.nodes:
            if ops.is_neuron(inner.domain or "", inner.op):
                variant = ops.NeuronVariant.parse(inner.op, inner.attrs)
                self.new.add_function(ops.function_proto(variant, min(self.new.opset(), ops.MAXIMUM_OPSET)))
            self._copy(inner)
        for slot, (state, start) in enumerate(opened):
            after = self._value(body.outputs[slot])
            self.states.append((state, after, start))
            self.made[id(node.outputs[slot])] = _Step(after)
        axes = node.attrs.get("scan_output_axes", [0] * len(node.outputs))
        for position, value in enumerate(node.outputs[carried:]):
            self.made[id(value)] = _Step(self._value(body.outputs[carried + position]), int(axes[position]))

    def _loop_start(self, node: Node, slot: int) -> float:
        fill = uniform(node.inputs[slot])
        if fill is None or fill.ndim:
            raise UnsupportedModelError(f"the initial state {slot} of loop '{node.name}' is not one number")
        return float(fill)
