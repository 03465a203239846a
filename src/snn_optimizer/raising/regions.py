"""Find the neurons of a step: the elementwise arithmetic around each state.

A state's own nodes are those on a path from the state as received to the state as returned.
States whose nodes read each other's values without a threshold test between belong to one
neuron (synaptic current and membrane). The threshold test of the potential belongs to it even
where nothing inside reads the spikes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from snn_optimizer.ir import GraphIndex, Node, Value, is_constant, is_standard
from snn_optimizer.raising.step_graph import State, StepGraph

__all__ = ["ELEMENTWISE", "TESTS", "Region", "apart", "regions_of"]

_FLOAT = 1  # element type
TESTS = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"})
ELEMENTWISE = TESTS | {
    "Abs", "Add", "Cast", "Div", "Floor", "Identity", "Max", "Min", "Mul", "Neg", "Relu", "Sign", "Sub",
}  # fmt: skip


@dataclass(eq=False, slots=True)
class Region:
    """The arithmetic of one population, and the states it advances.

    Attributes
    ----------
    states : list of State
    nodes : dict of int to Node
        By ``id``.
    """

    states: list[State]
    nodes: dict[int, Node] = field(default_factory=dict)

    def makes(self, value: Value) -> bool:
        """Tell whether a value is computed inside."""
        return bool(value.inputs) and id(value.inputs[0]) in self.nodes


def regions_of(step: StepGraph, index: GraphIndex) -> list[Region]:
    """Return the regions of a step, in the order of their states."""
    finder = _Finder(step, index)
    return [finder.grown(states) for states in finder.groups()]


def apart(step: StepGraph, index: GraphIndex, region: Region) -> list[Region]:
    """Return the neuron of a region and what only follows it (a sum or a maximum over time); none of one piece."""
    finder = _Finder(step, index)
    followers = [state for state in region.states if not finder.is_read(state, region.states)]
    leading = [state for state in region.states if state not in followers]
    if not leading or not followers:
        return []
    return [finder.grown(leading), *(finder.grown([state]) for state in followers)]


def _is_elementwise(node: Node) -> bool:
    return is_standard(node) and node.op in ELEMENTWISE


class _Finder:
    def __init__(self, step: StepGraph, index: GraphIndex) -> None:
        self.step = step
        self.index = index
        self.inside = {id(node) for node in step.graph.nodes}
        self.paths = {state.slot: self._path(state) for state in step.states}
        self.smooth = {state.slot: self._reached(state.before, through_tests=False) for state in step.states}

    def _consumers(self, value: Value) -> Iterable[Node]:
        for use in self.index.consumers(value):
            if id(use.node) in self.inside and _is_elementwise(use.node):
                yield use.node

    def _reached(self, start: Value, *, through_tests: bool) -> dict[int, Value]:
        """Return the values that elementwise nodes compute from a value."""
        found = {id(start): start}
        pending = [start]
        while pending:
            for node in self._consumers(pending.pop()):
                if not through_tests and _counts(node):
                    continue
                for value in node.outputs:
                    if id(value) not in found:
                        found[id(value)] = value
                        pending.append(value)
        return found

    def _path(self, state: State) -> dict[int, Node]:
        """Return the nodes on paths from a state to itself one step later."""
        forward = self._reached(state.before, through_tests=True)
        found: dict[int, Node] = {}
        pending = [state.after]
        while pending:
            value = pending.pop()
            node = value.inputs[0] if value.inputs else None
            if node is None or id(node) in found or id(value) not in forward or not _is_elementwise(node):
                continue
            found[id(node)] = node
            pending.extend(node.inputs)
        return found

    def groups(self) -> list[list[State]]:
        """Join the states that one neuron has."""
        root = {state.slot: state.slot for state in self.step.states}

        def find(slot: int) -> int:
            while root[slot] != slot:
                slot = root[slot]
            return slot

        for reader in self.step.states:
            for other in self.step.states:
                if other is not reader and self.paths[other.slot] and self._reads(reader, other):
                    root[find(other.slot)] = find(reader.slot)
        joined: defaultdict[int, list[State]] = defaultdict(list)
        for state in self.step.states:
            if self.paths[state.slot]:
                joined[find(state.slot)].append(state)
        return list(joined.values())

    def _reads(self, reader: State, other: State) -> bool:
        read = {id(value) for node in self.paths[reader.slot].values() for value in node.inputs}
        return not read.isdisjoint(self.smooth[other.slot])

    def is_read(self, state: State, others: Sequence[State]) -> bool:
        """Tell whether another state advances by what one holds."""
        return any(self._reads(other, state) for other in others if other is not state)

    def grown(self, states: Sequence[State]) -> Region:
        """Return the region of some states, with the threshold test of what they hold."""
        region = Region(list(states))
        for state in states:
            region.nodes.update(self.paths[state.slot])
        values = [value for node in region.nodes.values() for value in node.outputs]
        pending = [*values, *(state.before for state in states)]
        known = {id(value) for value in pending}
        while pending:
            value = pending.pop()
            if value.inputs and _gives_spikes(value.inputs[0]):
                continue
            for node in self._consumers(value):
                if id(node) in region.nodes or not self._belongs(node, known):
                    continue
                region.nodes[id(node)] = node
                known.update(id(made) for made in node.outputs)
                pending.extend(node.outputs)
        self._trim(region)
        self._scales(region)
        return region

    def _belongs(self, node: Node, known: set[int]) -> bool:
        return all(id(value) in known or is_constant(value) for value in node.inputs)

    def _trim(self, region: Region) -> None:
        """Leave outside what was grown and ends in no threshold test."""
        wanted = {key for state in region.states for key in self.paths[state.slot]}
        pending = [node for node in region.nodes.values() if _gives_spikes(node)]
        pending += [node for node in region.nodes.values() if node.op in TESTS]
        while pending:
            node = pending.pop()
            wanted.add(id(node))
            for value in node.inputs:
                if region.makes(value) and id(value.inputs[0]) not in wanted:
                    pending.append(value.inputs[0])
        region.nodes = {key: node for key, node in region.nodes.items() if key in wanted}

    def _scales(self, region: Region) -> None:
        """Take in factors of the current that only this neuron reads."""
        pending = [value for node in region.nodes.values() for value in node.inputs if not region.makes(value)]
        while pending:
            value = pending.pop()
            node = value.inputs[0] if value.inputs else None
            if node is None or id(node) not in self.inside or not is_standard(node, "Mul", "Div"):
                continue
            constants = [is_constant(operand) for operand in node.inputs]
            lone = all(id(use.node) in region.nodes for use in self.index.consumers(value))
            if sum(constants) == 1 and (node.op == "Mul" or constants[1]) and lone and not self.index.output_of(value):
                region.nodes[id(node)] = node
                pending.extend(node.inputs)


def _counts(node: Node) -> bool:
    """Tell whether a node makes whole numbers of a potential: a test, or the count of several spikes."""
    return node.op in TESTS or node.op == "Floor" or (node.op == "Cast" and int(node.attrs["to"]) != _FLOAT)


def _gives_spikes(node: Node) -> bool:
    """Tell whether a node turns a threshold test into numbers."""
    return is_standard(node, "Cast") and bool(node.inputs[0].inputs) and node.inputs[0].inputs[0].op in TESTS
