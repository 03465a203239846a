"""Find which node of a step is which node of the step before.

A correspondence is assumed for a few seeds (neighbouring operands of a stack of steps,
neighbouring readers of one weight) and followed backwards: the operands of two
corresponding nodes correspond. It ends where the nodes differ, which for a sound
unrolled graph is before its first step. What is found is a conjecture; whoever uses it
checks every node (:mod:`snn_optimizer.raising.lanes`).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from snn_optimizer.ir import Module, Node, Value, array_of, is_constant, is_missing, is_standard, shape_of_constant
from snn_optimizer.ir.contents import attributes_key, digest, value_key
from snn_optimizer.raising.slices import Step
from snn_optimizer.raising.uniform import uniform

__all__ = ["COMMUTATIVE", "Difference", "Shift", "origin", "output_index", "producer_of"]

_IMPOSSIBLE: Final = -3
_ARITHMETIC: Final = frozenset({"Add", "Div", "Mul", "Sub"})
COMMUTATIVE: Final = frozenset({"Add", "And", "Equal", "Max", "Min", "Mul", "Or"})


@dataclass(frozen=True, slots=True)
class Difference:
    """Two nodes that should be the same of two steps, and are not."""

    node: Node
    before: Node
    reason: str


def producer_of(value: Value) -> Node | None:
    """Return the node that computes a value, behind aliases; None for inputs and constants."""
    value = origin(value)
    if not value.inputs or is_constant(value):
        return None
    return value.inputs[0]


def origin(value: Value) -> Value:
    """Return what an alias stands for: exporters hand one weight to several steps through ``Identity``."""
    while value.inputs and is_standard(value.inputs[0], "Identity"):
        value = value.inputs[0].inputs[0]
    return value


def output_index(node: Node, value: Value) -> int:
    """Return which output of a node a value, or what it is an alias of, is."""
    value = origin(value)
    return next(index for index, made in enumerate(node.outputs) if made is value)


class Shift:
    """The correspondence of nodes one step apart, over the nodes of one graph.

    Attributes
    ----------
    before, after : dict
        Node of the step before and after, by ``id``; inverse of each other.
    differences : list of Difference
        Where following the correspondence ended on two unlike nodes.
    """

    def __init__(self, module: Module, nodes: Sequence[Node], steps: Mapping[int, Step]) -> None:
        self.before: dict[int, Node] = {}
        self.after: dict[int, Node] = {}
        self.differences: list[Difference] = []
        self.position = {id(node): index for index, node in enumerate(nodes)}
        self._module = module
        self._nodes = nodes
        self._steps = steps
        self._keys: dict[int, Hashable] = {}
        self._value_keys: dict[int, Hashable] = {}

    def find(self) -> None:
        """Follow stacks of steps, readers of one weight, and what reads these."""
        for node in reversed(self._nodes):
            if is_standard(node, "Concat", "Sum", "Max", "Min", "Mean") and len(node.inputs) > 1:
                self._follow_neighbours([producer_of(value) for value in node.inputs])
        for readers in self._readers_of_weights():
            self._follow_neighbours([node for node in readers if id(node) not in self.after])
        self._follow_sequences()
        self._extend()

    def follow_currents(self) -> None:
        """Follow readers of one current that never changes, where nothing else told of their steps."""
        for readers in self._readers_of_currents():
            self._follow_neighbours(readers)
        self._extend()

    def key(self, node: Node) -> Hashable:
        """Return what corresponding nodes share: the operator, its attributes and its arity."""
        found = self._keys.get(id(node))
        if found is None:
            attributes = attributes_key(node)
            found = self._module.call_key(node), attributes, len(node.inputs), len(node.outputs)
            self._keys[id(node)] = found
        return found

    def same(self, first: Value, second: Value) -> bool:
        """Tell whether two operands are one value, or constants of equal contents."""
        first, second = origin(first), origin(second)
        if first is second:
            return True
        if not is_constant(first) or not is_constant(second):
            return False
        return shape_of_constant(first) == shape_of_constant(second) and self.value_key(first) == self.value_key(second)

    def value_key(self, value: Value) -> Hashable:
        """Return what equal values share; large constants are known by a hash of their bytes."""
        value = origin(value)
        found = self._value_keys.get(id(value))
        if found is None:
            found = value_key(value)
            if found == ("value", id(value)) and is_constant(value):
                array = array_of(value)
                found = found if array is None else ("digest", array.dtype.name, array.shape, digest(array))
            self._value_keys[id(value)] = found
        return found

    # ------------------------------------------------------------------ seeds

    def _follow_neighbours(self, nodes: Sequence[Node | None]) -> None:
        for earlier, later in itertools.pairwise(nodes):
            if earlier is not None and later is not None:
                self.follow(later, earlier)

    def _readers_of_weights(self) -> Iterator[list[Node]]:
        alike: defaultdict[Hashable, list[tuple[Node, Value]]] = defaultdict(list)
        for node in self._nodes:
            for slot, value in enumerate(node.inputs if not is_standard(node, "Identity") else ()):
                shape = shape_of_constant(origin(value))
                if shape is not None and len(shape) > 1 and not self._starts(node, value):
                    alike[shape, slot, self.key(node)].append((node, value))
                    break
        for readers in alike.values():
            groups: defaultdict[Hashable, list[Node]] = defaultdict(list)
            for node, value in readers if len(readers) > 1 else ():
                groups[self.value_key(value)].append(node)
            yield from (group for group in groups.values() if len(group) > 1)

    def _starts(self, node: Node, value: Value) -> bool:
        """Tell whether a node reads a fill: what layers start from is alike in all of them, and no weight."""
        return is_standard(node, *_ARITHMETIC) and uniform(value) is not None

    def _readers_of_currents(self) -> Iterator[list[Node]]:
        """Yield nodes that read what does not change in time, where nothing else told of their steps."""
        alike: defaultdict[Hashable, list[Node]] = defaultdict(list)
        for node in self._nodes:
            if id(node) in self.before or id(node) in self.after or not is_standard(node, *_ARITHMETIC):
                continue
            for slot, value in enumerate(node.inputs):
                source = origin(value)
                if len(source.outputs) > 1 and not is_constant(source) and id(source) not in self._steps:
                    place = None if is_standard(node, *COMMUTATIVE) else slot
                    alike[id(source), place, self.key(node)].append(node)
        yield from (readers for readers in alike.values() if len(readers) > 1)

    def _follow_sequences(self) -> None:
        """Let readers of neighbouring steps of a sequence correspond, where nothing else told."""
        trains: defaultdict[Hashable, dict[int, Value]] = defaultdict(dict)
        for node in self._nodes:
            for value in node.inputs:
                step = self._steps.get(id(value))
                if step is not None:
                    trains[step.train][step.index] = value
        for train in trains.values():
            for index in sorted(train, reverse=True):
                before = train.get(index - 1)
                for node in train[index].outputs if before is not None else ():
                    if id(node) in self.before or id(node) not in self.position or before is None:
                        continue
                    if any(id(value) in self._steps for value in node.outputs):  # it only drops the time axis
                        continue
                    slot = next(k for k, value in enumerate(node.inputs) if value is train[index])
                    twin = self._twin(node, slot, before)
                    if twin is not None:
                        self.follow(node, twin)

    def _extend(self) -> None:
        """Follow nodes that read corresponding nodes, in the order of computation."""
        for node in self._nodes:
            if id(node) in self.before or id(node) in self.after or is_standard(node, "Identity"):
                continue
            for slot, value in enumerate(node.inputs):
                producer = producer_of(value)
                partner = None if producer is None else self.before.get(id(producer))
                if producer is None or partner is None:
                    continue
                twin = self._twin(node, slot, partner.outputs[output_index(producer, value)])
                if twin is not None:
                    self.follow(node, twin)
                    break

    def _twin(self, node: Node, slot: int, value: Value) -> Node | None:
        """Return the node that reads ``value`` as ``node`` reads what corresponds to it; None in doubt."""
        fits: list[tuple[int, Node]] = []
        for reader in value.outputs:
            if (
                id(reader) in self.position
                and id(reader) not in self.after
                and reader is not node
                and len(reader.inputs) > slot
                and reader.inputs[slot] is value
                and self.key(reader) == self.key(node)
            ):
                scores = [self._fit(new, old) for new, old in zip(node.inputs, reader.inputs, strict=True)]
                if min(scores) > _IMPOSSIBLE:
                    fits.append((sum(scores), reader))
        best = max((score for score, _ in fits), default=0)
        found = [reader for score, reader in fits if score == best]
        return found[0] if len(found) == 1 else None

    # ----------------------------------------------------------------- follow

    def follow(self, node: Node, before: Node) -> None:
        """Let ``before`` be ``node`` one step earlier, and so their operands."""
        pending = [(node, before)]
        while pending:
            later, earlier = pending.pop()
            if later is earlier or self.before.get(id(later)) is earlier:
                continue
            if id(later) in self.before or id(earlier) in self.after:
                continue
            reason = self._unlike(later, earlier)
            if reason is not None:
                self.differences.append(Difference(later, earlier, reason))
                continue
            self.before[id(later)], self.after[id(earlier)] = earlier, later
            for new, old in zip(later.inputs, self.aligned(later, earlier), strict=True):
                pair = self._makers(new, old)
                if pair is not None:
                    pending.append(pair)

    def _unlike(self, later: Node, earlier: Node) -> str | None:
        if self.key(later) != self.key(earlier):
            return f"{later.op} is {earlier.op}" if later.op != earlier.op else f"the attributes of {later.op} differ"
        if self.position[id(later)] < self.position[id(earlier)]:
            return "the order is reversed"
        for slot, (new, old) in enumerate(zip(later.inputs, self.aligned(later, earlier), strict=True)):
            if is_constant(new) and is_constant(old) and not self.same(new, old):
                return f"input {slot} of {later.op} holds other values"
        return None

    def aligned(self, later: Node, earlier: Node) -> list[Value]:
        """Return the operands of ``earlier`` in the order in which ``later`` reads them.

        Exporters write the first step of a sum as ``o + 0`` and the others as ``sum + o``.
        """
        operands = list(earlier.inputs)
        if later.op not in COMMUTATIVE or later.domain or len(operands) != 2:
            return operands
        crossed = operands[::-1]
        straight_fit, crossed_fit = (sum(map(self._fit, later.inputs, order)) for order in (operands, crossed))
        return crossed if crossed_fit > straight_fit else operands

    def _fit(self, new: Value, old: Value) -> int:
        """Return how well two operands go together, from impossible to certain."""
        if self.same(new, old):
            return 3
        if is_constant(new) or is_constant(old):
            return _IMPOSSIBLE if is_constant(new) and is_constant(old) else 0
        first, second = self._steps.get(id(origin(new))), self._steps.get(id(origin(old)))
        if first is not None and second is not None:
            return 4 if first.train == second.train and first.index == second.index + 1 else -1
        maker, former = producer_of(new), producer_of(old)
        if maker is None or former is None:
            return 0
        if self.before.get(id(maker)) is former:
            return 4
        return 2 if self.key(maker) == self.key(former) else -1

    def _makers(self, new: Value, old: Value) -> tuple[Node, Node] | None:
        """Return the nodes that compute two operands, None when these are steps of a sequence or given."""
        if new is old or is_missing(new) or is_missing(old):
            return None
        if id(origin(new)) in self._steps and id(origin(old)) in self._steps:
            return None
        maker, former = producer_of(new), producer_of(old)
        if maker is None or former is None or id(maker) not in self.position or id(former) not in self.position:
            return None
        return maker, former
