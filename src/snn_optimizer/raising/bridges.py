"""Correspondence of nodes over what the first step lacks, for files of so few steps that nothing else tells."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Final

from snn_optimizer.ir import Node, Value, is_constant, is_standard
from snn_optimizer.raising.loop import Lane, Loop
from snn_optimizer.raising.regions import ELEMENTWISE
from snn_optimizer.raising.shift import Shift, origin, output_index, producer_of
from snn_optimizer.raising.slices import Step

__all__ = ["bridge", "read_states"]

_NEAR: Final = 32  # nodes of a neuron


def bridge(shift: Shift, nodes: Sequence[Node], steps: Mapping[int, Step]) -> None:
    """Let nodes of a first step correspond to nodes of the second over what the first step lacks.

    Where a state is known, ``v * beta + x`` is ``x`` at the first step, and the test that reads it reads what the
    synapse gives. Its counterpart is the nearest node like it behind the synapse of the second step.
    """
    places = {
        (step.train, step.index): value for node in nodes for value in node.outputs if (step := steps.get(id(value)))
    }

    def one_later(value: Value) -> Value | None:
        step = steps.get(id(value))
        if step is not None:
            return places.get((step.train, step.index + 1)) if step.index == 0 else None
        maker = producer_of(value)
        later = None if maker is None or id(maker) in shift.before else shift.after.get(id(maker))
        return None if maker is None or later is None else later.outputs[output_index(maker, value)]

    for node in nodes:
        if id(node) in shift.before or id(node) in shift.after or is_standard(node, "Identity"):
            continue
        if any(id(value) in steps for value in node.outputs):
            continue
        for value in node.inputs:
            later = one_later(origin(value))
            twin = None if later is None else _nearest(shift, node, later)
            if twin is not None:
                shift.follow(twin, node)
                break


def _nearest(shift: Shift, node: Node, start: Value) -> Node | None:
    pending, seen = deque([start]), set[int]()
    while pending and len(seen) < _NEAR:
        for reader in pending.popleft().outputs:
            if id(reader) in seen or id(reader) in shift.before or id(reader) in shift.after:
                continue
            seen.add(id(reader))
            if reader is not node and shift.key(reader) == shift.key(node) and _constants_agree(shift, reader, node):
                return reader
            if is_standard(reader, "Identity", *ELEMENTWISE):
                pending.extend(reader.outputs)
    return None


def _constants_agree(shift: Shift, later: Node, earlier: Node) -> bool:
    pairs = zip(later.inputs, shift.aligned(later, earlier), strict=True)
    return all(shift.same(new, old) for new, old in pairs if is_constant(new) or is_constant(old))


def read_states(loop: Loop, shift: Shift) -> None:
    """Let a loop of two steps read the state that stands for a current, where the first step cannot tell them apart.

    ``beta * x[t-1] + x[t]`` and ``beta * v[t-1] + x[t]`` are one over two steps from ``v = 0``; the second
    is what a neuron computes. The state is the lane furthest from the reader that no other such reader comes into.
    """
    if loop.steps != 2:
        return
    readers: defaultdict[int, list[tuple[Lane, int]]] = defaultdict(list)
    for lane in loop.lanes:
        for operand in loop.operands[id(lane)]:
            if operand.lane is not None and operand.lag == 0:
                readers[id(operand.lane)].append((lane, operand.output))
    doubtful = [
        (lane, operand)
        for lane in loop.lanes
        for operand in loop.operands[id(lane)]
        if operand.lag == 1 and operand.lane is not None and operand.lane.at(loop.first) is not None
    ]
    for lane, operand in doubtful:
        assert operand.lane is not None  # looked at above
        node = operand.lane.at(loop.first)
        assert node is not None  # looked at above
        value = node.outputs[operand.output]
        alike = {id(other) for other, read in doubtful if (read.lane, read.output) == (operand.lane, operand.output)}
        current: Lane | None = lane
        found: Lane | None = None
        while current is not None:
            following = [
                reader for reader, output in readers[id(current)] if output == 0 and _stands(loop, shift, reader, value)
            ]
            current = following[0] if len(following) == 1 else None
            if current is None or (found is not None and _merges(loop, current, alike)):
                break
            found = current
        if found is not None:
            operand.lane, operand.output = found, 0


def _stands(loop: Loop, shift: Shift, lane: Lane, value: Value) -> bool:
    known = loop.missing.get(id(lane))
    return known is not None and shift.same(known, value)


def _merges(loop: Loop, lane: Lane, others: set[int]) -> bool:
    """Tell whether a lane combines what reads another state of the step before."""
    reads = [operand.lane for operand in loop.operands[id(lane)] if operand.lane is not None and operand.lag == 0]
    return any(id(read) in others for read in reads)
