"""Decide what becomes of each part of a loop over time, before anything is changed.

A part is a strongly connected component of the step: a node without past is computed for all
steps at once, a neuron that only advances itself runs over all steps, and the rest stays a loop.
"""

from __future__ import annotations

from dataclasses import dataclass

from snn_optimizer import ops
from snn_optimizer.ir import GraphIndex, Node, Shape, Shapes, Value, captures_of
from snn_optimizer.raising.batching import Batched, Operands, batched
from snn_optimizer.raising.components import components
from snn_optimizer.raising.step_graph import State, StepGraph

__all__ = ["Division", "Part", "Undistributed", "scanned_axes"]


class Undistributed(Exception):  # noqa: N818 - a refusal on its way to a remark
    """The loop stays as it is; ``rule`` and the message say why."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Part:
    """One component, and what becomes of it."""

    kind: str  # "map", "neuron" or "loop"
    nodes: list[Node]


def scanned_axes(scan: Node) -> list[int]:
    """Return the axes of the steps of the sequences that a ``Scan`` reads."""
    return [int(a) for a in scan.attrs.get("scan_input_axes", [0] * int(scan.attrs["num_scan_inputs"]))]


class Division:
    """The parts of one ``Scan``, and what is known of their values.

    Parameters
    ----------
    step : StepGraph
        Of a loop over time.
    index : GraphIndex
    shapes : Shapes
    """

    def __init__(self, step: StepGraph, index: GraphIndex, shapes: Shapes) -> None:
        assert step.scan is not None  # a loop over time
        self.step = step
        self.index = index
        self.shapes = shapes
        self.scan = step.scan
        self.carried = len(step.states)
        self.axes = scanned_axes(step.scan)

    def parts(self) -> list[Part]:
        """Return the parts in an order of computation."""
        found: list[Part] = []
        for nodes in components(self.step):
            node = nodes[0]
            if len(nodes) > 1 or self._reads_past(node):
                kind = "neuron" if len(nodes) == 1 and self._is_lone_neuron(node) else "loop"
            else:
                kind = "map"
            found.append(Part(kind, nodes))
        return found

    def states_read(self, node: Node) -> list[State]:
        """Return the states that a node reads, its bodies included."""
        read = {id(value) for value in node.inputs} | {id(value) for value in captures_of(node)}
        return [state for state in self.step.states if id(state.before) in read]

    def _reads_past(self, node: Node) -> bool:
        return bool(self.states_read(node))

    def _is_lone_neuron(self, node: Node) -> bool:
        """Tell whether a neuron advances its own states, and no other node reads them before it does."""
        if not ops.is_neuron(node.domain or "", node.op):
            return False
        variant = ops.NeuronVariant.parse(node.op, node.attrs)
        own = {id(node.inputs[slot]): node.outputs[out] for slot, out in variant.states}
        for state in self.states_read(node):
            after = own.get(id(state.before))
            if after is not state.after or any(use.node is not node for use in self.index.consumers(state.before)):
                return False
            if sum(value is state.before for value in node.inputs) != 1:
                return False
        return len(own) == len(self.states_read(node))

    def check(self, parts: list[Part]) -> None:
        """Make sure that every node that leaves the loop can be batched, before anything is changed.

        Raises
        ------
        Undistributed
            With the node that cannot.
        """
        varying = {id(value) for value in self.step.graph.inputs}
        for part in parts:
            for node in part.nodes:
                if any(id(v) in varying for v in (*node.inputs, *captures_of(node))) or part.kind != "map":
                    varying.update(id(value) for value in node.outputs)
            if part.kind == "map":
                node = part.nodes[0]
                timed = tuple(id(value) in varying for value in node.inputs)
                if any(timed):
                    self.batched(node, timed)
                elif captures_of(node):
                    raise Undistributed("has-bodies", f"'{node.name}' has bodies")
            for node in part.nodes if part.kind == "loop" else ():
                owned = {id(n) for n in part.nodes}
                for state in self.states_read(node):
                    maker = state.after.inputs[0] if state.after.inputs else None
                    if maker is None or id(maker) not in owned:
                        raise Undistributed(
                            "delayed", f"'{node.name}' reads a value of the step before of another part"
                        )
        for value in self.step.graph.outputs[self.carried :]:
            self.step_shape(value)
        for position, value in enumerate(self.scan.inputs[self.carried :]):
            shape = self.shapes.shape(value)
            if shape is None or len(shape) < 2 or self.axes[position] > 1 or None in shape[2:]:
                if len(shape or ()) == 1 and not self.index.consumers(self.step.graph.inputs[self.carried + position]):
                    continue
                raise Undistributed("sequence-shape", f"the shape of '{value.name}' is not known")

    def step_shape(self, value: Value) -> Shape:
        """Return the shape of a value of the step, of which only the batch may be unknown.

        Raises
        ------
        Undistributed
            If it is not known.
        """
        shape = self.shapes.shape(value)
        if shape is None or not shape or not all(isinstance(size, int) for size in shape[1:]):
            raise Undistributed("step-shape", f"the shape of '{value.name}' is not known")
        return shape

    def batched(self, node: Node, timed: tuple[bool, ...]) -> Batched:
        """Return how a node runs on all steps at once, where the inputs in ``timed`` differ between steps.

        Raises
        ------
        Undistributed
            If it cannot.
        """
        known = tuple(self.shapes.shape(value) for value in node.inputs)
        result = self.shapes.shape(node.outputs[0])
        found = batched(node, Operands(timed, known, result))
        if isinstance(found, str):
            raise Undistributed("not-batched", f"'{node.name}': {found}")
        return found
