"""From a correspondence of nodes to a loop: lanes, the step of every node, and the proof.

A *lane* is one node of the step, as it stands in the file once per step. The step of a
lane's first node follows from what it reads: not before its operands, a node of a sequence's
step t not before t, and, where that leaves a choice, as late as its readers allow but
present at the first step.

What :func:`find_loops` returns is proved, not conjectured: from the first step of the loop
on, every node is the same operator with the same attributes, and every operand is the same
kind of thing at the same distance in time (one value for all steps, one step of a sequence, a
node of this step, a node of an earlier step).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snn_optimizer.ir import Module, Node, Value, describe, is_missing, shape_of_constant
from snn_optimizer.raising.first_step import FirstStep, Unexplained
from snn_optimizer.raising.loop import Lane, Loop, Operand
from snn_optimizer.raising.regions import ELEMENTWISE, TESTS
from snn_optimizer.raising.shift import COMMUTATIVE, Shift, origin, output_index, producer_of
from snn_optimizer.raising.slices import Step, steps_of
from snn_optimizer.raising.uniform import uniform

__all__ = ["Found", "Irregular", "find_loops"]


@dataclass(frozen=True, slots=True)
class Irregular:
    """Why a group of nodes that repeats is no loop: the step and node that differ."""

    rule: str
    step: int
    node: str
    reason: str


class _NotALoop(Exception):  # noqa: N818 - control flow inside this module
    def __init__(self, rule: str, step: int, node: Node, reason: str) -> None:
        super().__init__(reason)
        self.irregular = Irregular(rule, step, describe(node), reason)


@dataclass(frozen=True, slots=True)
class Found:
    """The loops of a graph.

    Attributes
    ----------
    loops : list of Loop
    refused : list of Irregular
        Of what repeats and is no loop.
    owner : dict
        Lane and position of each node that repeats, by ``id``.
    """

    loops: list[Loop]
    refused: list[Irregular]
    owner: Mapping[int, tuple[Lane, int]]

    @property
    def nodes(self) -> int:
        """Number of nodes that are in a loop."""
        return sum(len(lane.nodes) for loop in self.loops for lane in loop.lanes)


def find_loops(module: Module, nodes: Sequence[Node]) -> Found:
    """Find the unrolled loops among the nodes of one graph, in linear time."""
    steps = steps_of(nodes)
    shift = Shift(module, nodes, steps)
    shift.find()
    owner = _chain(nodes, shift)
    loops: list[Loop] = []
    refused: list[Irregular] = []
    for lanes in _components(owner):
        if not _is_temporal(lanes):
            continue
        builder = _Builder(module, shift, steps, lanes, owner)
        try:
            loops.append(builder.build())
        except _NotALoop as error:
            refused.append(error.irregular)
    return Found(loops, refused, owner)


def _is_temporal(lanes: Sequence[Lane]) -> bool:
    """Tell a loop over time from operands that are merely alike: it has more than one node per step."""
    return len(lanes) > 1


def _chain(nodes: Sequence[Node], shift: Shift) -> dict[int, tuple[Lane, int]]:
    """Follow the correspondence from first to last nodes; return lane and position of each node."""
    owner: dict[int, tuple[Lane, int]] = {}
    for node in nodes:
        if id(node) in shift.before or id(node) not in shift.after:
            continue
        chain = [node]
        while (following := shift.after.get(id(chain[-1]))) is not None:
            chain.append(following)
        lane = Lane(chain)
        owner.update((id(member), (lane, position)) for position, member in enumerate(chain))
    return owner


def _components(owner: Mapping[int, tuple[Lane, int]]) -> list[list[Lane]]:
    """Group lanes that read each other; a sequence and its steps are no connection."""
    lanes = {id(lane): lane for lane, _ in owner.values()}
    root = {key: key for key in lanes}

    def find(key: int) -> int:
        while root[key] != key:
            root[key] = root[root[key]]
            key = root[key]
        return key

    for lane in lanes.values():
        for node in lane.nodes:
            for value in node.inputs:
                producer = producer_of(value)
                if producer is not None and id(producer) in owner:
                    root[find(id(owner[id(producer)][0]))] = find(id(lane))
    groups: defaultdict[int, list[Lane]] = defaultdict(list)
    for key, lane in lanes.items():
        groups[find(key)].append(lane)
    return list(groups.values())


def _has_steps(step: Step, loop: Loop, seen: int) -> bool:
    """Tell whether a sequence reaches over all steps of a loop; the file reads it up to step ``seen`` of these."""
    shape = step.source.shape
    length = shape[step.axis] if shape is not None and -len(shape) <= step.axis < len(shape) else None
    reaches = loop.last <= seen or (isinstance(length, int) and step.index + loop.last < length)
    return reaches and step.index + loop.first >= 0


def _is_weight(value: Value) -> bool:
    return len(shape_of_constant(value) or ()) > 1


class _Builder:
    """Schedules the lanes of one loop and proves it."""

    def __init__(
        self,
        module: Module,
        shift: Shift,
        steps: Mapping[int, Step],
        lanes: list[Lane],
        owner: Mapping[int, tuple[Lane, int]],
    ) -> None:
        self.module = module
        self.shift = shift
        self.steps = steps
        self.lanes = lanes
        self.owner = owner
        self.follows_on = {id(d.node) for d in shift.differences if uniform(d.before.outputs[0]) is None}

    def build(self) -> Loop:
        first = last = 0
        found: _NotALoop | None = None
        for folded in (True, False):
            self._schedule(folded=folded)
            first = max(lane.offset for lane in self.lanes)
            last = max(lane.last for lane in self.lanes)
            if first > 1 and folded:
                continue
            self._check_range(first, last)
            try:
                loop = self._proved(0, last)
                FirstStep(loop, self.shift, self.steps).absorb()
            except Unexplained:
                continue
            except _NotALoop as error:
                if found is None or error.irregular.step > found.irregular.step:
                    found = error
                continue
            return loop
        try:
            return self._proved(first, last)
        except _NotALoop as error:
            # the attempt that came furthest says best what is wrong
            raise found if found is not None and found.irregular.step > error.irregular.step else error from None

    def _proved(self, first: int, last: int) -> Loop:
        loop = Loop(first, last, self._in_order(last - 1))
        for lane in loop.lanes:
            loop.owner.update((id(node), (lane, lane.offset + p)) for p, node in enumerate(lane.nodes))
        for lane in loop.lanes:
            loop.operands[id(lane)] = self._prove(loop, lane)
        self._check_outside(loop)
        return loop

    def _check_outside(self, loop: Loop) -> None:
        """Make sure that nothing the loop is given is computed from its own steps, but for its first one."""
        pending: list[Value] = []
        for operands in loop.operands.values():
            pending += [operand.value for operand in operands if operand.value is not None]
            pending += [operand.step.source for operand in operands if operand.step is not None]
        seen: set[int] = set()
        while pending:
            node = producer_of(pending.pop())
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            place = loop.owner.get(id(node))
            if place is not None and place[1] > loop.first:
                raise _NotALoop("needs-itself", place[1], node, "all steps read something made of it")
            pending.extend(node.inputs)

    # --------------------------------------------------------------- schedule

    def _schedule(self, *, folded: bool) -> None:
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
            lane.offset = max(offsets[id(lane)], 1 if late else 0)
        self._relax(edges)

    def _movable(self, edges: Mapping[tuple[int, int], int]) -> set[int]:
        """Return the lanes that others read and that compute with one value only, tests not counted as such."""
        read_by: defaultdict[int, list[int]] = defaultdict(list)
        for read, reader in edges:
            read_by[reader].append(read)
        lanes = {id(lane): lane for lane in self.lanes}
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
                raise _NotALoop("no-schedule", 0, node, "nodes of different steps need each other")
        return least

    def _steps_run(self) -> int:
        """Return how many steps the file has: of what is stacked, else of the synapses, else of anything."""
        stacked = [len(lane.nodes) for lane in self.lanes if self._stacked(lane) > -len(lane.nodes)]
        return max(stacked, default=len(self._anchor().nodes))

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

    def _check_range(self, first: int, last: int) -> None:
        steps = last - first + 1
        if first > 1:
            lane = max(self.lanes, key=lambda lane: lane.offset)
            raise self._difference(lane.nodes[0], first - 1)
        if steps < 2:
            raise _NotALoop("one-step", last, self.lanes[0].nodes[0], "only one step is left to roll")
        for lane in self.lanes:
            if lane.last < last - 1:
                raise self._difference(lane.nodes[-1], lane.last + 1)

    def _difference(self, node: Node, step: int) -> _NotALoop:
        found = {id(d.node): d for d in self.shift.differences} | {id(d.before): d for d in self.shift.differences}
        difference = found.get(id(node))
        if difference is None:
            return _NotALoop("step-differs", step, node, "nothing at this step corresponds to it")
        return _NotALoop("step-differs", step, difference.before, difference.reason)

    def _in_order(self, step: int) -> list[Lane]:
        """Return the lanes in an order of computation: that of their nodes at one step."""

        def place(lane: Lane) -> int:
            node = lane.at(step)
            return 0 if node is None else self.shift.position[id(node)]

        return sorted(self.lanes, key=place)

    # ------------------------------------------------------------------ proof

    def _prove(self, loop: Loop, lane: Lane) -> list[Operand]:
        """Return the operands of a lane after comparing all its steps."""
        last = min(lane.last, loop.last)
        model = lane.at(last)
        assert model is not None  # the step is within the lane
        key = self.shift.key(model)
        operands = [self._operand(loop, value, last) for value in model.inputs]
        if not all(_has_steps(operand.step, loop, last) for operand in operands if operand.step is not None):
            raise _NotALoop("step-differs", last, model, "the sequence it reads has no such step")
        for step in range(max(loop.first, lane.offset), last + 1):
            node = lane.nodes[step - lane.offset]
            if self.shift.key(node) != key:
                raise _NotALoop("step-differs", step, node, "operator or attributes differ")
            if not self._agree(loop, operands, node, step):
                raise _NotALoop("step-differs", step, node, "an input is wired differently")
        return operands

    def _agree(self, loop: Loop, operands: list[Operand], node: Node, step: int) -> bool:
        """Compare the operands of one step, in either order where the operator allows it."""
        orders = [list(node.inputs)]
        if not node.domain and node.op in COMMUTATIVE and len(operands) == 2:
            orders.append(orders[0][::-1])
        for order in orders:
            if all(self._agrees(loop, o, v, step) for o, v in zip(operands, order, strict=True)):
                for operand, value in zip(operands, order, strict=True):
                    self._note(loop, operand, value, step)
                return True
        return False

    def _operand(self, loop: Loop, value: Value, step: int) -> Operand:
        sliced = self.steps.get(id(origin(value)))
        if sliced is not None:
            return Operand(step=Step(sliced.source, sliced.axis, sliced.index - step, sliced.kept))
        producer = producer_of(value)
        found = None if producer is None else loop.owner.get(id(producer))
        if found is None or producer is None:
            return Operand(value=value)
        return Operand(lane=found[0], output=output_index(producer, value), lag=step - found[1])

    def _agrees(self, loop: Loop, operand: Operand, value: Value, step: int) -> bool:
        if operand.lane is not None:
            source = step - operand.lag
            if source < loop.first:
                return self._may_start(loop, operand.past.get(loop.first - source), value)
            node = operand.lane.at(source)
            if node is None and source == loop.first and operand.output == 0:
                known = loop.missing.get(id(operand.lane))
                return known is None or self.shift.same(known, value)
            return node is not None and node.outputs[operand.output] is origin(value)
        if operand.step is not None:
            sliced = self.steps.get(id(origin(value)))
            return (
                sliced is not None and sliced.train == operand.step.train and sliced.index - step == operand.step.index
            )
        assert operand.value is not None  # the third kind
        return (is_missing(operand.value) and is_missing(value)) or self.shift.same(operand.value, value)

    def _may_start(self, loop: Loop, known: Value | None, value: Value) -> bool:
        """Tell whether a value may be what a register holds before the first step."""
        producer = producer_of(value)
        found = None if producer is None else loop.owner.get(id(producer))
        if found is not None and found[1] >= loop.first:
            return False
        return known is None or self.shift.same(known, value)

    def _note(self, loop: Loop, operand: Operand, value: Value, step: int) -> None:
        """Keep what an operand reads that no node of the loop makes."""
        if operand.lane is None:
            return
        source = step - operand.lag
        if source < loop.first:
            operand.past.setdefault(loop.first - source, value)
        elif operand.lane.at(source) is None:
            loop.missing.setdefault(id(operand.lane), value)
