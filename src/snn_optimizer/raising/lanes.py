"""From a correspondence of nodes to a loop, and the proof that it is one.

A *lane* is one node of the step, as it stands in the file once per step
(:mod:`~snn_optimizer.raising.chains`); its steps are found by :mod:`~snn_optimizer.raising.schedule`.
What :func:`find_loops` returns is proved, not conjectured: from the first step of the loop
on, every node is the same operator with the same attributes, and every operand is the same
kind of thing at the same distance in time (one value for all steps, one step of a sequence, a
node of this step, a node of an earlier step).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snn_optimizer.ir import Module, Node, Value, describe, is_missing
from snn_optimizer.raising.bridges import bridge, read_states
from snn_optimizer.raising.chains import between, chained, components_of
from snn_optimizer.raising.first_step import FirstStep, Unexplained
from snn_optimizer.raising.loop import Lane, Loop, Operand
from snn_optimizer.raising.schedule import Schedule, Unscheduled
from snn_optimizer.raising.shift import COMMUTATIVE, Shift, origin, output_index, producer_of
from snn_optimizer.raising.slices import Step, steps_of

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
    """Find the unrolled loops among the nodes of one graph, in linear time.

    Where a file of two steps folded the first, most nodes of the step are there once; that is
    assumed only if no loop shows otherwise.
    """
    steps = steps_of(nodes)
    found = _found(module, nodes, steps, short=False)
    if found.loops:
        return found
    again = _found(module, nodes, steps, short=True)
    return again if again.loops else found


def _found(module: Module, nodes: Sequence[Node], steps: Mapping[int, Step], *, short: bool) -> Found:
    shift = Shift(module, nodes, steps)
    shift.find()
    if short:
        bridge(shift, nodes, steps)
    else:
        shift.follow_currents()
    owner = chained(nodes, shift)
    if short:
        owner |= between(nodes, owner, steps)
    loops: list[Loop] = []
    refused: list[Irregular] = []
    for lanes in components_of(owner):
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


def _has_steps(step: Step, loop: Loop, seen: int) -> bool:
    """Tell whether a sequence reaches over all steps of a loop; the file reads it up to step ``seen`` of these."""
    shape = step.source.shape
    length = shape[step.axis] if shape is not None and -len(shape) <= step.axis < len(shape) else None
    reaches = loop.last <= seen or (isinstance(length, int) and step.index + loop.last < length)
    return reaches and step.index + loop.first >= 0


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
        self.schedule = Schedule(lanes, owner, steps, shift)

    def build(self) -> Loop:
        first = last = 0
        found: _NotALoop | None = None
        for folded in (True, False):
            try:
                self.schedule.assign(folded=folded)
            except Unscheduled as error:
                raise _NotALoop("no-schedule", 0, error.node, str(error)) from None
            first = max(lane.offset for lane in self.lanes)
            last = max(lane.last for lane in self.lanes)
            if first > 1 and folded:
                continue
            self._check_ends(first, last)
            try:
                loop = self._proved(0, last)
                FirstStep(loop, self.shift, self.steps).absorb()
                read_states(loop, self.shift)
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
        if last == first:
            raise _NotALoop("one-step", last, self.lanes[0].nodes[0], "only one step is left to roll")
        loop = Loop(first, last, self._in_order(last))
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

    # ------------------------------------------------------------------ range

    def _check_ends(self, first: int, last: int) -> None:
        if first > 1:
            lane = max(self.lanes, key=lambda lane: lane.offset)
            raise self._difference(lane.nodes[0], first - 1)
        for lane in self.lanes:
            if lane.last < last - 1:
                raise self._difference(lane.nodes[-1], lane.last + 1)

    def _difference(self, node: Node, step: int) -> _NotALoop:
        found = {id(d.node): d for d in self.shift.differences} | {id(d.before): d for d in self.shift.differences}
        difference = found.get(id(node))
        if difference is None:
            return _NotALoop("step-differs", step, node, "nothing at this step corresponds to it")
        return _NotALoop("step-differs", step, difference.before, difference.reason)

    def _in_order(self, last: int) -> list[Lane]:
        """Return the lanes in an order of computation: of the last step, then what is not needed there any more."""

        def place(lane: Lane) -> tuple[bool, int]:
            node = lane.at(last)
            return node is None, self.shift.position[id(node or lane.nodes[-1])]

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
