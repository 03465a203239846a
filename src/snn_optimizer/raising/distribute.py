"""Split the loop over time: what has no past leaves it and runs once over all steps.

A ``Scan`` falls into the strongly connected components of its step. A component without state
is computed for all steps at once, with time and batch in one axis. A neuron that depends on no
other component's past becomes its own run over all steps. What is left, recurrent synapses and
arithmetic that is no neuron, keeps a loop of its own, as small as it can be.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from snn_optimizer import ops
from snn_optimizer.ir import (
    Graph,
    GraphIndex,
    Node,
    Rewriter,
    Shapes,
    Value,
    array_of,
    captures_of,
    is_missing,
    is_standard,
)
from snn_optimizer.raising.division import Division, Undistributed, scanned_axes
from snn_optimizer.raising.sequences import Layout, Sequences, Timed
from snn_optimizer.raising.step_graph import State, StepGraph
from snn_optimizer.raising.uniform import uniform

__all__ = ["Undistributed", "distribute"]


def distribute(
    rewriter: Rewriter, step: StepGraph, index: GraphIndex, shapes: Shapes, sequences: Sequences
) -> list[tuple[Node, str]]:
    """Replace a ``Scan`` by its components; return the nodes that left the loop, with the names they had.

    Raises
    ------
    Undistributed
        If the loop must stay; nothing that matters was changed.
    """
    return _Distributor(rewriter, step, index, shapes, sequences).run()


def _is_copy(node: Node) -> bool:
    """Tell whether a node gives a value that stays in the loop a second name, as results of loops need it."""
    return is_standard(node, "Identity")


@dataclass
class _Distributor:
    rewriter: Rewriter
    step: StepGraph
    index: GraphIndex
    shapes: Shapes
    sequences: Sequences
    timed: dict[int, Timed] = field(default_factory=dict)
    finals: dict[int, Value] = field(default_factory=dict)
    moved: list[tuple[Node, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.step.scan is not None  # a loop over time
        self.scan: Node = self.step.scan
        self.graph: Graph = self.rewriter.module.graph
        self.carried = len(self.step.states)
        self.axes = scanned_axes(self.scan)
        self.results = len(self.scan.outputs) - self.carried
        self.axes_out = [int(a) for a in self.scan.attrs.get("scan_output_axes", [0] * self.results)]
        self.division = Division(self.step, self.index, self.shapes)

    def run(self) -> list[tuple[Node, str]]:
        parts = self.division.parts()
        loops = [part for part in parts if part.kind == "loop"]
        if loops and all(part.kind == "loop" or _is_copy(part.nodes[0]) for part in parts):
            raise Undistributed("one-loop", "every node depends on its own past")
        self.division.check(parts)
        self._inputs()
        self.steps = self._steps()
        for number, part in enumerate(parts):
            if part.kind == "map":
                self._map(part.nodes[0])
            elif part.kind == "neuron":
                self._neuron(part.nodes[0])
            else:
                self._loop(part.nodes, number)
        self._outputs()
        return self.moved

    # ------------------------------------------------------------------ inputs

    def _inputs(self) -> None:
        for position, source in enumerate(self.scan.inputs[self.carried :]):
            received = self.step.graph.inputs[self.carried + position]
            if not self.index.consumers(received) and not self.index.output_of(received):
                continue
            timed = self.sequences.pull(source, Layout(self.axes[position]))
            if timed is None:
                raise Undistributed("sequence-shape", f"the shape of '{source.name}' is not known")
            self.timed[id(received)] = timed

    def _steps(self) -> Value:
        for position, source in enumerate(self.scan.inputs[self.carried :]):
            shape = self.shapes.shape(source)
            if shape is not None and isinstance(shape[self.axes[position]], int):
                return self.sequences.steps(int(shape[self.axes[position]]), source, self.axes[position])  # type: ignore[arg-type]
        return self.sequences.steps(None, self.scan.inputs[self.carried], self.axes[0])

    def _of(self, value: Value) -> Timed:
        """Return a value of the step over time; what comes from outside is the same for all steps."""
        return self.timed.get(id(value)) or Timed(value, self.shapes.shape(value), constant=True)

    # --------------------------------------------------------------------- map

    def _map(self, node: Node) -> None:
        parts = [self._of(value) for value in node.inputs]
        inputs: list[Value | None] = [None if is_missing(p.value) else p.value for p in parts]
        made = [
            None if is_missing(value) else self.rewriter.value(value.name, value.dtype, None) for value in node.outputs
        ]
        varying = tuple(not part.constant for part in parts)
        if any(varying):
            ruled = self.division.batched(node, varying)
            for slot, array in ruled.constants.items():
                inputs[slot] = self.rewriter.constant("shape", array)
            for slot in ruled.spread:
                inputs[slot] = self.sequences.spread(parts[slot], self.steps)
        self.moved.append((self.rewriter.add_like(self.graph, node, inputs, made), node.name))
        for value, result in zip(node.outputs, made, strict=True):
            if result is not None:
                self.timed[id(value)] = Timed(result, self.shapes.shape(value), constant=not any(varying))

    # ------------------------------------------------------------------ neuron

    def _neuron(self, node: Node) -> None:
        cell = ops.NeuronVariant.parse(node.op, node.attrs)
        states = self.division.states_read(node)
        after = {id(state.before): state for state in states}
        record = self._recorded(node, cell)
        variant = replace(cell, form="flat", record=record)
        currents = [self._of(value) for value in node.inputs[: cell.currents]]
        inputs: list[Value | None] = [self.sequences.spread(part, self.steps) for part in currents]
        for value in node.inputs[cell.currents :]:
            state = after.get(id(value))
            inputs.append(value if state is None else self._start(state))
        inputs.append(self.steps)
        shape = self.shapes.shape(node.outputs[0]) or currents[0].shape
        results = [self.rewriter.value(node.outputs[0].name, node.outputs[0].dtype, None)]
        self.timed[id(node.outputs[0])] = Timed(results[0], shape)
        for letter in record:
            out = _output_of_state(cell, letter)
            value = self.rewriter.value(f"{node.outputs[out].name}_all", node.outputs[out].dtype, None)
            results.append(value)
            self.timed[id(node.outputs[out])] = Timed(value, shape)
        for _, out in cell.states:
            final = self.rewriter.value(f"{node.outputs[out].name}_last", node.outputs[out].dtype, None)
            results.append(final)
            self.finals[id(node.outputs[out])] = final
        if not cell.spiking:  # the potential of every step is the output
            self.timed[id(node.outputs[_output_of_state(cell, "v")])] = self.timed[id(node.outputs[0])]
        self._call(node, variant, inputs, results)

    def _call(self, node: Node, variant: ops.NeuronVariant, inputs: list[Value | None], results: list[Value]) -> None:
        module = self.rewriter.module
        call = self.rewriter.add(
            self.graph, variant.op_type, inputs, results, variant.attributes(), ops.DOMAIN, node.name or None
        )
        self.moved.append((call, node.name))
        origin = module.sidecar.origin(node)
        if origin is not None:
            module.sidecar.set_origin(call, origin)
        opset = min(max(module.opset(), ops.MINIMUM_OPSET), ops.MAXIMUM_OPSET)
        module.add_function(ops.function_proto(variant, opset))

    def _recorded(self, node: Node, cell: ops.NeuronVariant) -> str:
        """Return the states whose values at every step are read."""
        letters = ""
        for slot, out in cell.states:
            letter = cell.as_form("cell").inputs[slot]
            if letter == "v" and not cell.spiking:
                continue
            value = node.outputs[out]
            emitted = any(value is made for made in self.step.graph.outputs[self.carried :])
            if emitted or self.index.consumers(value):
                letters += letter
        return letters

    def _start(self, state: State) -> Value:
        """Return the initial value of a state; a fill is one number."""
        assert state.initial is not None  # a loop gives all its states
        fill = uniform(state.initial)
        if fill is None or fill.ndim:
            return state.initial
        return self.rewriter.constant(f"{state.before.name}_start", fill)

    # -------------------------------------------------------------------- loop

    def _loop(self, nodes: list[Node], number: int) -> None:
        """Keep nodes that need each other in a loop of their own."""
        owned = {id(node) for node in nodes}
        made = {id(value) for node in nodes for value in node.outputs}
        states = [s for s in self.step.states if s.after.inputs and id(s.after.inputs[0]) in owned]
        befores = {id(state.before) for state in states}
        reads = {id(v): v for node in nodes for v in (*node.inputs, *captures_of(node)) if not is_missing(v)}
        fed = [v for key, v in reads.items() if key in self.timed and key not in made and key not in befores]
        body = self.rewriter.body(f"{self.scan.name}_{number}", [], [])
        swapped = {
            state: self.rewriter.value(f"{state.before.name}_in", state.before.dtype, state.before.shape)
            for state in states
        }
        renamed: dict[int, Value] = {id(state.before): swapped[state] for state in states}
        entering: list[tuple[Value, Value]] = []
        for value in fed:
            part = self.timed[id(value)]
            if part.constant:
                renamed[id(value)] = part.value
                continue
            inner = self.rewriter.value(f"{value.name}_in", value.dtype, value.shape)
            renamed[id(value)] = inner
            entering.append((self.sequences.split(part, self.steps), inner))
        for node in nodes:
            for value in node.outputs:
                renamed[id(value)] = self.rewriter.value(value.name, value.dtype, value.shape)
        for node in nodes:
            inputs = [None if is_missing(v) else renamed.get(id(v), v) for v in node.inputs]
            made_like = self.rewriter.add_like(body, node, inputs, [renamed[id(v)] for v in node.outputs])
            self.moved.append((made_like, node.name))
        leaving = self._leaving(nodes, owned)
        outputs: list[Value] = []
        taken: set[int] = set()
        for value in (*(renamed[id(s.after)] for s in states), *(renamed[id(v)] for v in leaving)):
            emitted = value
            if id(value) in taken:
                emitted = self.rewriter.value(f"{value.name}_copy", value.dtype, value.shape)
                self.rewriter.add(body, "Identity", [value], [emitted])
            taken.add(id(emitted))
            outputs.append(emitted)
        if not entering:
            entering.append((self._clock(), self.rewriter.value("tick", np.float32, None)))
        self.rewriter.set_ports(body, [*swapped.values(), *(inner for _, inner in entering)], outputs)
        finals = [self.rewriter.value(f"{s.after.name}_last", s.after.dtype, None) for s in states]
        stacks = [self.rewriter.value(f"{v.name}_stack", v.dtype, None) for v in leaving]
        starts = [state.initial for state in states]
        attrs = {"body": body, "num_scan_inputs": len(entering)}
        self.rewriter.add(
            self.graph,
            "Scan",
            [*starts, *(s for s, _ in entering)],
            [*finals, *stacks],
            attrs,
            name_hint=f"{self.scan.name}_{number}",
        )
        self.finals.update((id(s.after), final) for s, final in zip(states, finals, strict=True))
        for value, stack in zip(leaving, stacks, strict=True):
            self.timed[id(value)] = self._flattened(value, stack)

    def _clock(self) -> Value:
        """Return a sequence for a loop that reads none: it runs as many steps as the others."""
        count = array_of(self.steps)
        if count is not None:
            return self.rewriter.constant("clock", np.zeros(int(count[0]), np.float32))
        clock = self.rewriter.value("clock", np.float32, None)
        self.rewriter.add(self.graph, "ConstantOfShape", [self.steps], [clock])
        return clock

    def _leaving(self, nodes: list[Node], owned: set[int]) -> list[Value]:
        """Return what other parts read of a loop at every step."""
        emitted = {id(value) for value in self.step.graph.outputs[self.carried :]}
        return [
            value
            for node in nodes
            for value in node.outputs
            if id(value) in emitted or any(id(use.node) not in owned for use in self.index.consumers(value))
        ]

    def _flattened(self, value: Value, stack: Value) -> Timed:
        shape = self.division.step_shape(value)
        flat = self.rewriter.value(f"{stack.name}_flat", stack.dtype, None)
        target = self.rewriter.constant("flat", np.array([-1, *shape[1:]], np.int64))
        self.rewriter.add(self.graph, "Reshape", [stack, target], [flat])
        return Timed(flat, shape)

    # ----------------------------------------------------------------- outputs

    def _outputs(self) -> None:
        results = list(self.scan.outputs)
        body_outputs = list(self.step.graph.outputs)
        self.rewriter.erase(self.scan)
        for slot, result in enumerate(results):
            if not result.name or not (self.index.consumers(result) or self.index.output_of(result)):
                continue
            value = body_outputs[slot]
            if slot < self.carried:
                self._hand(result, self._final(value, slot))
                continue
            timed = self._of(value)
            shape = self.shapes.shape(value)
            axis = self.axes_out[slot - self.carried]
            axis = axis + len(shape or ()) + 1 if axis < 0 else axis
            timed = Timed(timed.value, timed.shape or shape, timed.constant)
            self.sequences.split(timed, self.steps, result, axis)
            if axis <= 1:
                self.sequences.remember(result, Layout(axis), timed)

    def _final(self, value: Value, slot: int) -> Value:
        """Return the last value of a state."""
        found = self.finals.get(id(value))
        if found is not None:
            return found
        state = self.step.states[slot]
        if value is state.before:  # never changes
            assert state.initial is not None  # a loop gives all its states
            return state.initial
        timed = self._of(value)
        if timed.constant:
            return timed.value
        picked = self.rewriter.value(f"{value.name}_last", value.dtype, None)
        last = self.rewriter.constant("last", np.array(-1, np.int64))
        stacked = self.sequences.split(timed, self.steps)
        self.rewriter.add(self.graph, "Gather", [stacked, last], [picked], {"axis": 0})
        return picked

    def _hand(self, result: Value, source: Value) -> None:
        if self.index.output_of(result):
            self.rewriter.add(self.graph, "Identity", [source], [result])
        else:
            self.rewriter.replace_uses(result, source)


def _output_of_state(cell: ops.NeuronVariant, letter: str) -> int:
    return next(out for slot, out in cell.states if cell.inputs[slot] == letter)
