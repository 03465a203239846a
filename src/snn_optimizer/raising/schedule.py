"""The step of every lane of a loop.

The step of a lane's first node follows from what it reads: not before its operands, a node of a
sequence's step t not before t, and, where that leaves a choice, as late as its readers allow but
present at the first step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from snn_optimizer.ir import Node, Value, shape_of_constant
from snn_optimizer.raising.loop import Lane
from snn_optimizer.raising.regions import ELEMENTWISE, TESTS
from snn_optimizer.raising.shift import Shift, origin, producer_of
from snn_optimizer.raising.slices import Step
from snn_optimizer.raising.uniform import uniform

__all__ = ["Schedule", "Unscheduled"]


class Unscheduled(Exception):  # noqa: N818 - a refusal on its way to a remark
    """Nodes of different steps need each other; ``node`` is one of them."""

    def __init__(self, node: Node) -> None:
        super().__init__("nodes of different steps need each other")
        self.node = node


def _is_weight(value: Value) -> bool:
    return len(shape_of_constant(value) or ()) > 1


class Schedule:
    """Gives the lanes of one loop their steps.

    Parameters
    ----------
    lanes : list of Lane
        Their offsets are set.
    owner : mapping
        Lane and position of each node that repeats, by ``id``.
    steps : mapping
        Steps of sequences, by ``id`` of the value.
    shift : Shift
    """

    def __init__(
        self, lanes: list[Lane], owner: Mapping[int, tuple[Lane, int]], steps: Mapping[int, Step], shift: Shift
    ) -> None:
        self.lanes = lanes
        self.owner = owner
        self.steps = steps
        self.follows_on = {id(d.node) for d in shift.differences if uniform(d.before.outputs[0]) is None}

    def assign(self, *, folded: bool) -> None:
        """Give each lane its first step.

        With ``folded``, lanes may have no node at the first step: those that compute with one
        value of the step before only, which move a state but never add one, and those whose
        first node corresponds to a node that is not like it.
        """
        edges = self._edges()
        offsets = self._earliest(edges, folded=folded)
        steps = self._steps_run()
        movable = self._movable(edges) if folded else set()
        for lane in self.lanes:
            late = id(lane) in movable and len(lane.nodes) < steps
            lane.offset = max(offsets[id(lane)], 1 if late else min(0, steps - len(lane.nodes)))
        self._relax(edges)

    def _movable(self, edges: Mapping[tuple[int, int], int]) -> set[int]:
        """Return the lanes that others read and that compute with one value only, tests not counted as such."""
        lanes = {id(lane): lane for lane in self.lanes}
        read_by = {key: self._lanes_read(lane.nodes[-1]) for key, lane in lanes.items()}
        roots: dict[int, int] = {}

        def root(key: int) -> int:
            if key in roots:
                return roots[key]
            roots[key] = key
            lane = lanes[key]
            node = lane.nodes[-1]
            sliced = any(id(origin(value)) in self.steps for value in node.inputs)
            if node.op in ELEMENTWISE - TESTS and not sliced and read_by[key]:
                found = {root(read) for read in read_by[key]}
                if len(found) == 1:
                    roots[key] = found.pop()
            return roots[key]

        read_keys = {key for key, _ in edges}
        return {
            key for key in lanes if root(key) != key and key in read_keys and not self._starts_from_fill(lanes[key])
        }

    def _lanes_read(self, node: Node) -> set[int]:
        producers = [producer for value in node.inputs if (producer := producer_of(value)) is not None]
        return {id(self.owner[id(producer)][0]) for producer in producers if id(producer) in self.owner}

    def _starts_from_fill(self, lane: Lane) -> bool:
        """Tell whether the readers of a lane start from zeros that are made at run time: it is a state then."""
        first = lane.nodes[0]
        for value in first.outputs:
            for reader in value.outputs:
                owner, position = self.owner.get(id(reader), (lane, 0))
                if position == 0:
                    continue
                for operand in owner.nodes[position - 1].inputs:
                    maker = producer_of(operand)
                    if maker is not None and id(maker) not in self.owner and uniform(operand) is not None:
                        return True
        return False

    def _edges(self) -> dict[tuple[int, int], int]:
        """Return, per pair of lanes, the least offset of the reader above that of what it reads."""
        edges: dict[tuple[int, int], int] = {}
        for lane in self.lanes:
            for position, node in enumerate(lane.nodes):
                for value in node.inputs:
                    producer = producer_of(value)
                    found = None if producer is None else self.owner.get(id(producer))
                    if found is not None:
                        key = id(found[0]), id(lane)
                        edges[key] = max(edges.get(key, found[1] - position), found[1] - position)
        return edges

    def _earliest(self, edges: Mapping[tuple[int, int], int], *, folded: bool) -> dict[int, int]:
        lanes = {id(lane): lane for lane in self.lanes}
        least = {key: self._own_earliest(lane) for key, lane in lanes.items()}
        if all(least[key] == -len(lane.nodes) for key, lane in lanes.items()):
            anchor = self._anchor()
            least[id(anchor)] = 0
        if folded:
            count = self._steps_run()
            for lane in self.lanes:
                if len(lane.nodes) == count:
                    least[id(lane)] = max(least[id(lane)], 0)
                if id(lane.nodes[0]) in self.follows_on:
                    least[id(lane)] = max(least[id(lane)], 1)
        readers: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for (read, reader), distance in edges.items():
            readers[read].append((reader, distance))
        pending, rounds = list(lanes), 0
        while pending:
            following: dict[int, None] = {}
            for key in pending:
                for reader, distance in readers[key]:
                    if least[key] + distance > least[reader]:
                        least[reader] = least[key] + distance
                        following[reader] = None
            pending, rounds = list(following), rounds + 1
            if rounds > len(lanes) + 1:
                node = lanes[pending[0]].nodes[0]
                raise Unscheduled(node)
        return least

    def _steps_run(self) -> int:
        """Return how many steps the file has: of what is stacked or read, else of the synapses, else of anything."""
        for bound in (self._stacked, self._own_earliest):
            steps = [len(lane.nodes) for lane in self.lanes if bound(lane) > -len(lane.nodes)]
            if steps:
                return max(steps)
        return len(self._anchor().nodes)

    def _anchor(self) -> Lane:
        """Return the lane whose first node is of step 0 when no sequence says so: the longest of the synapses."""
        weighted = [lane for lane in self.lanes if any(_is_weight(value) for value in lane.nodes[0].inputs)]
        return max(weighted or self.lanes, key=lambda lane: len(lane.nodes))

    def _own_earliest(self, lane: Lane) -> int:
        """Return the offset below which no lane may start: of the steps of sequences it reads."""
        least = -len(lane.nodes)
        for position, node in enumerate(lane.nodes):
            for value in node.inputs:
                step = self.steps.get(id(origin(value)))
                if step is not None:
                    least = max(least, step.index - position)
        return max(least, self._stacked(lane))

    def _stacked(self, lane: Lane) -> int:
        """Return the offset that a stack of the lane's values asks for."""
        node = lane.nodes[-1]
        for value in node.outputs:
            for reader in value.outputs:
                if reader.op == "Concat" and len(reader.inputs) >= len(lane.nodes) and len(reader.inputs) > 1:
                    index = max(slot for slot, read in enumerate(reader.inputs) if read is value)
                    return index - (len(lane.nodes) - 1)
        return -len(lane.nodes)

    def _relax(self, edges: Mapping[tuple[int, int], int]) -> None:
        """Move what is too late for its readers to an earlier step."""
        lanes = {id(lane): lane for lane in self.lanes}
        read_by: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for (read, reader), distance in edges.items():
            read_by[reader].append((read, distance))
        pending = list(lanes)
        while pending:
            following: dict[int, None] = {}
            for key in pending:
                for read, distance in read_by[key]:
                    latest = lanes[key].offset - distance
                    if lanes[read].offset > latest:
                        lanes[read].offset = latest
                        following[read] = None
            pending = list(following)
