"""What a ``Loop`` does over time: how often it runs, what it reads per step, what it carries and collects.

:func:`read_loop` proves, for a Loop of the main graph, all that a ``Scan`` in its place needs:

steps    The trip count is known before the loop starts: the condition is always true and the count is
         given, or the condition compares a counter with a limit from outside.
reads    ``Gather`` or ``Slice`` of a value from outside at the number of the iteration, along an axis
         that has as many elements as there are steps.
states   Carried values keep their shape: shape inference of the body, given the shape of the initial
         value, gives that shape for the value after the step. Those that never change are no states.
emitted  Scan outputs, and sequences to which every step appends one tensor and that are stacked
         afterwards along a new axis.

Sizes are equal where they are the same number or the same symbol. Symbols are those that inference
itself spreads from the inputs of the model; what the file declares about inner values is not believed,
since exporters give one symbol to different sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import onnx

from snn_optimizer.ir import (
    Dimension,
    Graph,
    GraphIndex,
    Module,
    Node,
    Value,
    bodies_of,
    is_missing,
    is_standard,
    reads_of,
    shape_of_constant,
)
from snn_optimizer.raising.loop_shapes import LoopShapes, Sizes, integer, starts_below, truth
from snn_optimizer.raising.shift import origin

__all__ = ["Emitted", "Obstacle", "Read", "State", "TimeLoop", "read_loop"]

_FOREVER: Final = 2**63 - 1
_LOWEST_OPSET: Final = 11  # before, Scan and Slice looked different


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a Loop is not known to be one over time: a kebab-case name and a sentence."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """A node of the body that reads the element of this step of ``source``, which is from outside.

    ``axis`` counts the steps; ``keeps_axis`` where the result still has it, of size 1.
    """

    node: Node
    source: Value
    axis: int
    keeps_axis: bool


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A carried value: initial value, body input, body output, and output of the node."""

    initial: Value
    before: Value
    after: Value
    final: Value


@dataclass(frozen=True, slots=True, eq=False)
class Emitted:
    """A value of every step that ``target`` stacks along a new axis; ``stack`` is the node that does, if any."""

    value: Value
    axis: int
    target: Value
    stack: Node | None = None


@dataclass(slots=True)
class TimeLoop:
    """A Loop over time.

    Attributes
    ----------
    steps : Value or int
        How many.
    counted : bool
        Whether the body needs the number of the iteration otherwise than in ``reads``.
    unchanged : list of State
        Carried values that are the same in every step.
    appended : list of State
        Sequences to which every step appends.
    types : dict from id to (ONNX element type, shape)
        Of the values of the body and those it reads.
    """

    node: Node
    steps: Value | int
    counted: bool = False
    reads: list[Read] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    unchanged: list[State] = field(default_factory=list)
    appended: list[State] = field(default_factory=list)
    emitted: list[Emitted] = field(default_factory=list)
    types: dict[int, tuple[int, tuple[Dimension, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Count:
    """The number of the iteration plus ``offset``, as a tensor of ``rank`` 0 or 1."""

    offset: int
    rank: int


def read_loop(module: Module, index: GraphIndex, node: Node) -> TimeLoop | Obstacle:
    """Return what a Loop of the main graph does over time, or why that cannot be told."""
    body: Graph = node.attrs["body"]
    number = len(node.inputs) - 2
    if len(body.inputs) != number + 2 or len(body.outputs) <= number or len(node.outputs) != len(body.outputs) - 1:
        return Obstacle("malformed", "the inputs and outputs of the node are not those of its body")
    made = {id(value) for inner in body.nodes for value in inner.outputs} | {id(value) for value in body.inputs}
    if any(id(value) in made for inner in body.nodes for _, graph in bodies_of(inner) for value in graph.outputs):
        return Obstacle("returned-by-body", "a body inside the body returns a value that it only reads")
    if module.opset() < _LOWEST_OPSET:
        return Obstacle("opset", f"the model has opset {module.opset()}, at least {_LOWEST_OPSET} is needed")
    return _Reader(module, index, node, body).read()


class _Reader:
    """Reads one Loop."""

    def __init__(self, module: Module, index: GraphIndex, node: Node, body: Graph) -> None:
        self.index = index
        self.node = node
        self.body = body
        self.main = module.graph
        self.shapes = LoopShapes(module, node)
        self.local = {id(value) for value in body.inputs}
        self.local.update(id(value) for inner in body.nodes for value in inner.outputs)
        ports = zip(node.inputs[2:], body.inputs[2:], body.outputs[1:], node.outputs, strict=False)
        self.carried = [State(*values) for values in ports]
        self.outer = {id(one.before): one.initial for one in self.carried if origin(one.after) is one.before}
        self.counters: dict[int, _Count] = {}
        self.runs_once = False  # even if the number of steps is computed as less

    def read(self) -> TimeLoop | Obstacle:
        """Collect the facts."""
        self.find_counters()
        steps = self.steps()
        if isinstance(steps, Obstacle):
            return steps
        loop = TimeLoop(self.node, steps)
        obstacle = self.find_reads(loop) or self.sort_carried(loop)
        if obstacle is None:
            self.drop_counters(loop)
            obstacle = self.keep_shapes(loop)
        return obstacle or loop

    # ------------------------------------------------------------------- steps

    def find_counters(self) -> None:
        """Find what counts the iterations: their number, and carried integers that grow by one."""
        number = self.body.inputs[0]
        if number.shape is not None and len(number.shape) < 2:
            self.counters[id(number)] = _Count(0, len(number.shape))
        for one in self.carried:
            start, shape = integer(one.initial), shape_of_constant(one.initial)
            if start is not None and shape is not None:
                self.counters[id(one.before)] = _Count(start, len(shape))
                if self.count(one.after) != _Count(start + 1, len(shape)):
                    del self.counters[id(one.before)]

    def count(self, value: Value) -> _Count | None:
        """Return which count of iterations an integer of the body is, None when it is none."""
        known = self.counters.get(id(value))
        maker = self.maker(value)
        if known is not None or maker is None:
            return known
        if maker.op in {"Add", "Sub"}:
            left, right = maker.inputs
            if maker.op == "Add" and integer(right) is None:
                left, right = right, left
            more = integer(right)
            one = None if more is None else self.count(left)
            if one is None or more is None:
                return None
            rank = max(one.rank, len(shape_of_constant(right) or ()))
            return _Count(one.offset + (more if maker.op == "Add" else -more), rank)
        if maker.op not in {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"}:
            return None
        one = self.count(maker.inputs[0])
        if one is None or (maker.op == "Cast" and maker.attrs.get("to") != onnx.TensorProto.INT64):
            return None
        after = {"Squeeze": 0, "Unsqueeze": one.rank + 1}.get(maker.op, one.rank)
        if maker.op == "Reshape":
            after = next(iter(shape_of_constant(maker.inputs[1]) or (2,)))
        return _Count(one.offset, after) if after < 2 else None

    def steps(self) -> Value | int | Obstacle:
        """Return how often the loop runs."""
        limit, first = self.node.inputs[:2]
        last = origin(self.body.outputs[0])
        endless = is_missing(limit) or integer(limit) == _FOREVER
        starts = True if is_missing(first) else truth(first)
        if starts is False:
            return Obstacle("never-runs", "the condition is false before the first step")
        unknown = Obstacle("condition-computed", f"whether the loop goes on is '{last.name}', known at run time")
        if last is self.body.inputs[1] or truth(last):
            if endless:
                return Obstacle("endless", "the condition is always true, and there is no trip count")
            return unknown if starts is None else _known(limit)
        maker = self.maker(last)
        if maker is None or maker.op not in {"Less", "Greater", "LessOrEqual"}:
            return unknown
        small, large = maker.inputs if maker.op != "Greater" else maker.inputs[::-1]
        count, bound = self.count(small), large if integer(large) is not None else self.from_outside(large)
        if count is None or bound is None:
            return unknown
        if not endless:
            return Obstacle("two-limits", f"both the trip count '{limit.name}' and '{last.name}' end the loop")
        number = integer(bound)
        if number is not None and starts:
            return max(1, number + 1 - count.offset + (maker.op == "LessOrEqual"))
        if self.shapes.kind(bound) != onnx.TensorProto.INT64 or maker.op == "LessOrEqual" or count.offset != 1:
            return unknown
        if not (starts or starts_below(first, bound)):
            return unknown
        self.runs_once = bool(starts)
        return _known(bound)

    def find_reads(self, loop: TimeLoop) -> Obstacle | None:
        """Find what is read step by step; all of it must have as many elements as there are steps."""
        length = loop.steps if isinstance(loop.steps, int) else self.shapes.length(loop.steps)
        for inner in self.body.nodes:
            read = self.as_read(inner)
            if read is None:
                continue
            sizes = self.shapes.sizes(read.source)
            if sizes is None or not -len(sizes) <= read.axis < len(sizes):
                return Obstacle("rank-unknown", f"the number of axes of '{read.source.name}' is not known")
            axis = read.axis % len(sizes)
            if sizes[axis] != length:
                many = "an unknown number of" if length is None else length
                reason = f"'{read.source.name}' has {sizes[axis]} elements along axis {axis}, the loop {many} steps"
                return Obstacle("other-length", reason)
            loop.reads.append(Read(inner, read.source, axis, read.keeps_axis))
        if self.runs_once and not loop.reads:
            return Obstacle("condition-computed", "the loop runs once even where the limit is zero")
        return None

    def as_read(self, inner: Node) -> Read | None:
        """Return what a node reads at the number of the iteration."""
        source = self.from_outside(inner.inputs[0]) if is_standard(inner, "Gather", "Slice") else None
        count = None if source is None else self.count(inner.inputs[1])
        if source is None or count is None or count.offset != 0:
            return None
        if inner.op == "Gather":
            return Read(inner, source, int(inner.attrs.get("axis", 0)), keeps_axis=count.rank == 1)
        axis = integer(inner.inputs[3]) if len(inner.inputs) > 3 else None
        stride = integer(inner.inputs[4]) if len(inner.inputs) > 4 and not is_missing(inner.inputs[4]) else 1
        if axis is None or stride != 1 or self.count(inner.inputs[2]) != _Count(1, 1):
            return None
        return Read(inner, source, axis, keeps_axis=True)

    # ------------------------------------------------------- carried, collected

    def sort_carried(self, loop: TimeLoop) -> Obstacle | None:
        """Tell states from values that never change and from sequences, and list what is collected."""
        for one in self.carried:
            if id(one.before) in self.outer:
                loop.unchanged.append(one)
            elif not _is_sequence(one):
                loop.states.append(one)
            elif (obstacle := self.append(loop, one)) is not None:
                return obstacle
        number = len(self.carried)
        collected = zip(self.body.outputs[1 + number :], self.node.outputs[number:], strict=True)
        loop.emitted += [Emitted(value, 0, target) for value, target in collected if not is_missing(target)]
        return None

    def append(self, loop: TimeLoop, one: State) -> Obstacle | None:
        """Read a sequence that grows by one tensor per step and is stacked at the end."""
        name = one.before.name
        empty = one.initial.inputs[0] if len(one.initial.inputs) == 1 else None
        insert = self.maker(one.after)
        if empty is None or not is_standard(empty, "SequenceEmpty"):
            return Obstacle("sequence-not-empty", f"the sequence '{name}' may hold something before the first step")
        if (
            insert is None
            or insert.op != "SequenceInsert"
            or len(insert.inputs) > 2
            or insert.inputs[0] is not one.before
        ):
            return Obstacle("sequence-not-appended", f"a step does more to the sequence '{name}' than append")
        readers = [use.node for use in self.index.consumers(one.before)]
        returned = sum(value is one.after or value is one.before for value in self.body.outputs)
        if len(readers) + returned > 2 or self.index.consumers(one.after) or self.index.is_interface(one.final):
            return Obstacle("sequence-read", f"the sequence '{name}' is read before it is complete, or returned")
        for use in self.index.consumers(one.final):
            stacks = is_standard(use.node, "ConcatFromSequence") and use.node.attrs.get("new_axis", 0)
            if not stacks or self.index.scope_of(use.node).graph is not self.main:
                return Obstacle("sequence-read", f"the sequence '{name}' is not only stacked along a new axis")
            axis = int(use.node.attrs["axis"])
            loop.emitted.append(Emitted(insert.inputs[1], axis, use.node.outputs[0], use.node))
        loop.appended.append(one)
        return None

    def drop_counters(self, loop: TimeLoop) -> None:
        """Take out counters that nothing but themselves, the condition and the reads needs."""
        droppable = [
            one
            for one in loop.states
            if id(one.before) in self.counters
            and not self.index.consumers(one.final)
            and not self.index.is_interface(one.final)
        ]
        cut = {id(read.node) for read in loop.reads}
        kept = [one for one in loop.states if one not in droppable]
        needed: dict[int, Value] = {}
        pending = [one.after for one in kept] + [one.value for one in loop.emitted]
        while pending:
            value = pending.pop()
            if id(value) in needed:
                continue
            needed[id(value)] = value
            maker = self.maker(value, standard=False)
            if maker is not None and id(maker) not in cut:
                pending += reads_of(maker)
            pending += [one.after for one in droppable if one.before is value]
        loop.states = [one for one in loop.states if one not in droppable or id(one.before) in needed]
        loop.counted = id(self.body.inputs[0]) in needed

    def keep_shapes(self, loop: TimeLoop) -> Obstacle | None:
        """Show that no state changes its shape, by inference from the shapes before the first step."""
        given: list[tuple[Value, int, Sizes]] = [(self.body.inputs[1], onnx.TensorProto.BOOL, ())]
        number = self.body.inputs[0]
        given.append((number, onnx.TensorProto.INT64, tuple(f"{number.name}.{k}" for k in number.shape or ())))
        for one in self.carried:
            if one in loop.appended:
                continue
            sizes, kind = self.shapes.sizes(one.initial), self.shapes.kind(one.initial)
            if sizes is None or kind is None:
                return Obstacle("shape-unknown", f"the shape of state '{one.initial.name}' is not known")
            given.append((one.before, kind, sizes))
        for read in loop.reads:
            sizes, kind = self.shapes.sizes(read.source), self.shapes.kind(read.source)
            assert sizes is not None
            middle: Sizes = (1,) if read.keeps_axis else ()
            taken = (*sizes[: read.axis], *middle, *sizes[read.axis + 1 :])
            given.append((read.node.outputs[0], kind or 0, taken))
        if not self.shapes.enter(self.body, given, [read.node for read in loop.reads]):
            return Obstacle("names-shadowed", "the body has values named like values around it")
        for one in loop.states:
            before, after = self.shapes.sizes(one.initial), self.shapes.sizes(one.after)
            if before != after:
                shown = "is not known" if after is None else f"is {list(after)}"
                reason = f"'{one.before.name}' has shape {list(before or ())}, after a step it {shown}"
                return Obstacle("shape-changes", reason)
        seen = (*(v for v, _, _ in given), *(one.value for one in loop.emitted), *(one.after for one in loop.states))
        for value in (*seen, *(read.source for read in loop.reads)):
            sizes, kind = self.shapes.sizes(value), self.shapes.kind(value)
            if sizes is not None and kind is not None:
                loop.types[id(value)] = (kind, self.shapes.declared(sizes))
        return None

    # ----------------------------------------------------------------- values

    def maker(self, value: Value, *, standard: bool = True) -> Node | None:
        """Return the node of the body that makes a value."""
        if id(value) not in self.local or len(value.inputs) != 1:
            return None
        return value.inputs[0] if not standard or is_standard(value.inputs[0]) else None

    def from_outside(self, value: Value) -> Value | None:
        """Return what a value is outside the body, None when it is made inside."""
        value = origin(value)
        return self.outer.get(id(value)) if id(value) in self.local else value


def _is_sequence(one: State) -> bool:
    makers = [*one.initial.inputs, *one.after.inputs]
    return any(is_standard(maker) and maker.op.startswith("Sequence") for maker in makers)


def _known(value: Value) -> Value | int:
    number = integer(value)
    return value if number is None else number
