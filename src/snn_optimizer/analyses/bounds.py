"""Value ranges: sound bounds of every value, and what they prove about neurons.

Loop bodies are solved optimistically: carried values start at their initial
range and grow until a step adds nothing. Every range is then an invariant, and
a cycle of neurons that could only start each other stays proved silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from snn_optimizer import ops
from snn_optimizer.analyses.interval_rules import INTERVAL_RULES
from snn_optimizer.analyses.intervals import Range, unit_roundoff
from snn_optimizer.analyses.manager import AnalysisManager
from snn_optimizer.analyses.neuron_bounds import Mask, NeuronFacts, neuron_facts
from snn_optimizer.analyses.propagation import StaticShapes
from snn_optimizer.analyses.written_neurons import written_facts
from snn_optimizer.ir import Array, Graph, InputDomain, Module, Node, Shapes, Value, array_of, is_constant

__all__ = ["RangePropagation", "ValueRanges"]

SYNAPSES = frozenset({"Gemm", "MatMul", "Conv", "Shape", "Size"})  # what lies behind them is a signal again
ROUNDS = 64  # optimistic rounds of a loop body before its carried values are given up


@dataclass(frozen=True, slots=True)
class ValueRanges:
    """Ranges by ``id(value)`` and facts by ``id(neuron node)``."""

    ranges: Mapping[int, Range]
    facts: Mapping[int, NeuronFacts]

    @classmethod
    def compute(cls, module: Module, analyses: AnalysisManager) -> ValueRanges:
        """Bound every value; cost O(nodes + weights)."""
        return cls.assuming(module, analyses, {})

    @classmethod
    def assuming(cls, module: Module, analyses: AnalysisManager, silent: Mapping[int, Mask]) -> ValueRanges:
        """Bound every value if the given neurons (mask by id of their node) never fire."""
        run = RangePropagation(module, analyses.get(StaticShapes).shapes, analyses.domain, silent)
        run.run()
        return cls(run.ranges, run.facts)

    def of(self, value: Value) -> Range | None:
        """Return the range of a value, ``None`` when nothing is known."""
        return self.ranges.get(id(value))


@dataclass
class RangePropagation:
    """State of one bounding run."""

    module: Module
    shapes: Shapes
    domain: InputDomain
    silent: Mapping[int, Mask]
    ranges: dict[int, Range] = field(default_factory=dict)
    facts: dict[int, NeuronFacts] = field(default_factory=dict)
    steps: int | None = None

    def run(self) -> None:
        """Bound the main graph."""
        graph = self.module.graph
        bare = _bare_inputs(self.module)
        for value in graph.inputs:
            rank = self.shapes.rank(value)
            if rank is None or not self.is_float(value):
                continue
            if id(value) in bare and not self.domain.is_declared(value.name):
                continue
            low, high = self.domain.interval(value.name)
            if low.ndim <= rank:
                shape = [(1,) * (rank - a.ndim) + a.shape for a in (low, high)]
                self.ranges[id(value)] = Range.of(low.reshape(shape[0]), high.reshape(shape[1]))
        self.walk(graph)

    def walk(self, graph: Graph) -> None:
        """Bound the outputs of every node in order."""
        for node in graph.nodes:
            if ops.is_neuron(node.domain or "", node.op):
                self._neuron(node)
            elif node.op == "Scan" and not node.domain:
                self._scan(node)
            elif not node.domain and (found := INTERVAL_RULES.get(node.op)):
                self._put(node.outputs[0], found(self, node))

    # -- what rules ask --------------------------------------------------------------------

    def get(self, node: Node, slot: int) -> Range | None:
        """Return the range of an operand, broadcast to at least the operand's rank."""
        return self.range_of(node.inputs[slot])

    def range_of(self, value: Value) -> Range | None:
        """Return the range of a value or constant."""
        if is_constant(value):
            array = array_of(value)
            return Range.constant(array) if array is not None and array.dtype.kind in "fiub" else None
        return self.ranges.get(id(value))

    def is_float(self, value: Value) -> bool:
        """Tell whether a value holds floating-point numbers (unknown counts as such)."""
        try:
            return bool(np.dtype(value.dtype).kind == "f")
        except TypeError:
            return value.dtype is None

    def roundoff(self, node: Node) -> float:
        """Return half the spacing of floats at one in the type this node computes in."""
        dtype = node.outputs[0].dtype or node.inputs[0].dtype
        return unit_roundoff(dtype if dtype is not None else np.float32)

    def with_rank(self, bound: Range, rank: int) -> Range:
        """Prepend axes of size one."""
        if bound.rank >= rank:
            return bound
        lead = (1,) * (rank - bound.rank)
        return bound.apply(lambda a: a.reshape(lead + a.shape))

    def collapse_spatial(self, node: Node) -> Range | None:
        """Return the hull over all axes behind the channel axis of input 0."""
        source = self.get(node, 0)
        if source is None or source.rank < 3:
            return None
        axes = tuple(range(2, source.rank))
        low, high = source.low.min(axis=axes, keepdims=True), source.high.max(axis=axes, keepdims=True)
        same = (source.low.max(axis=axes, keepdims=True) == low) & (source.high.min(axis=axes, keepdims=True) == high)
        return Range(low, high, source.fixed.all(axis=axes, keepdims=True) & same)

    def rearrange(self, node: Node) -> Range | None:
        """Move bounds through Reshape and its kin."""
        source = self.get(node, 0)
        dims_in, dims_out = self.shapes.shape(node.inputs[0]), self.shapes.shape(node.outputs[0])
        if source is None or dims_in is None or dims_out is None or not self.is_float(node.outputs[0]):
            return None
        if node.op == "Transpose":
            order = node.attrs.get("perm") or list(range(source.rank))[::-1]
            full = self.with_rank(source, len(dims_in))
            return full.apply(lambda a: np.transpose(a, order))
        tail = _common_tail(dims_in, dims_out)
        if tail is None or any(n != 1 for n in source.low.shape[: source.rank - tail[0]]):
            hull = Range.of(source.low.min(), source.high.max())
            return self.with_rank(hull, len(dims_out))
        sizes = [int(n) for n in dims_in[len(dims_in) - tail[0] :]]  # type: ignore[arg-type]  # a common tail is integers
        target = (1,) * (len(dims_out) - tail[1]) + tuple(int(n) for n in dims_out[len(dims_out) - tail[1] :])  # type: ignore[arg-type]
        return source.apply(lambda a: np.broadcast_to(a.reshape(a.shape[a.ndim - tail[0] :]), sizes).reshape(target))

    # -- stateful nodes --------------------------------------------------------------------

    def _put(self, value: Value, bound: Range | None) -> None:
        if bound is None:
            self.ranges.pop(id(value), None)
        else:
            self.ranges[id(value)] = bound

    def _neuron(self, node: Node) -> None:
        variant = ops.NeuronVariant.parse(node.op, node.attrs)
        rank = self.shapes.rank(node.inputs[0])
        lead = variant.axes_before_units
        if rank is None or rank <= lead:
            return
        trailing = rank - lead
        current = self.range_of(node.inputs[0]) or Range.unknown(rank)
        states = {slot: node.outputs[out] for slot, out in variant.states}
        parameters: dict[str, Range] = {}
        currents = [current, *(self.range_of(v) or Range.unknown(rank) for v in node.inputs[1 : variant.currents])]
        for slot, name in enumerate(variant.inputs):
            if variant.schema.inputs[slot].role in ("signal", "steps"):
                continue
            bound = self._initial(node, slot) if slot in states else self.range_of(node.inputs[slot])
            key = {"v": "v0", "i": "i0"}.get(name, name)
            bound = bound or Range.unknown(trailing)
            parameters[key] = _trailing(bound, trailing)
        steps = self.steps if variant.form == "cell" else self._steps(node, variant)
        roundoff = self.roundoff(node)
        if variant.written:
            received = [_trailing(one, trailing) for one in currents]
            facts = written_facts(variant, received, parameters, _constants_of(node, variant), steps, roundoff)
        else:
            facts = neuron_facts(variant, _trailing(current, trailing), parameters, steps, roundoff)
        facts = self._with_assumptions(node, facts)
        self.facts[id(node)] = facts
        self._put(node.outputs[0], self.with_rank(_emitted(variant, facts), rank))
        for out in states.values():
            self.ranges.pop(id(out), None)

    def _steps(self, node: Node, variant: ops.NeuronVariant) -> int | None:
        if variant.form == "flat":
            count = array_of(node.inputs[-1])
            return None if count is None else int(count.reshape(-1)[0])
        dims = self.shapes.shape(node.inputs[0])
        return dims[0] if dims is not None and isinstance(dims[0], int) else None

    def _initial(self, node: Node, slot: int) -> Range | None:
        """Initial state: the operand itself, or in a loop body what the loop starts with."""
        return self.starts.get(id(node.inputs[slot])) or self.range_of(node.inputs[slot])

    def _with_assumptions(self, node: Node, facts: NeuronFacts) -> NeuronFacts:
        mask = self.silent.get(id(node))
        if mask is None:
            return facts
        never = facts.never | mask.reshape(mask.shape + (1,) * (facts.never.ndim - mask.ndim))
        return NeuronFacts(never, facts.always & ~never, facts.highest, facts.lowest, facts.membrane)

    starts: dict[int, Range] = field(default_factory=dict)

    def _scan(self, node: Node) -> None:
        body: Graph = node.attrs["body"]
        scanned = int(node.attrs["num_scan_inputs"])
        carried = len(node.inputs) - scanned
        axes = [int(a) for a in node.attrs.get("scan_input_axes", [0] * scanned)]
        own = _own_states(body, carried)
        for position, slot in enumerate(range(carried, len(node.inputs))):
            self._put(body.inputs[slot], _drop_axis(self.get(node, slot), axes[position]))
        for slot in range(carried):
            start = self.get(node, slot)
            self._put(body.inputs[slot], None if slot in own else start)
            if slot in own and start is not None:
                self.starts[id(body.inputs[slot])] = start
        outer, self.steps = self.steps, self._scan_length(node, carried, axes)
        number = 0
        self.walk(body)
        while self._grow(body, carried, own, give_up=number >= ROUNDS):
            self.walk(body)
            number += 1
        self.steps = outer
        for slot in range(carried):
            self._put(node.outputs[slot], self.ranges.get(id(body.inputs[slot])))
        outs = [int(a) for a in node.attrs.get("scan_output_axes", [0] * (len(node.outputs) - carried))]
        for position, value in enumerate(node.outputs[carried:]):
            bound = self.range_of(body.outputs[carried + position])
            self._put(value, None if bound is None else _insert_axis(bound, outs[position]))

    def _scan_length(self, node: Node, carried: int, axes: list[int]) -> int | None:
        for slot, axis in zip(range(carried, len(node.inputs)), axes, strict=True):
            dims = self.shapes.shape(node.inputs[slot])
            if dims is not None and isinstance(size := dims[axis % len(dims)], int):
                return size
        return None

    def _grow(self, body: Graph, carried: int, own: set[int], *, give_up: bool) -> bool:
        """Join what a step returns into what the next one starts with; tell whether anything grew."""
        grew = False
        for slot in range(carried):
            if slot in own:
                continue
            before, after = self.ranges.get(id(body.inputs[slot])), self.range_of(body.outputs[slot])
            if before is None:
                continue
            joined = None if after is None or give_up else before.join(after)
            if joined is None or not joined.equals(before):
                self._put(body.inputs[slot], joined)
                grew = True
        return grew


def _own_states(body: Graph, carried: int) -> set[int]:
    """Carried values that are the state of one neuron cell and nothing else: the cell's own bound covers them."""
    produced: dict[int, Any] = {}
    for node in body.nodes:
        if ops.is_neuron(node.domain or "", node.op):
            for slot, out in ops.NeuronVariant.parse(node.op, node.attrs).states:
                produced[id(node.outputs[out])] = node.inputs[slot]
    return {i for i in range(carried) if produced.get(id(body.outputs[i])) is body.inputs[i]}


def _bare_inputs(module: Module) -> set[int]:
    """Graph inputs to which no default range applies: they hold a state, a parameter or a default value.

    States and parameters are what neurons and loops read so, directly or through anything but a synapse.
    """
    pending: list[Value] = []
    for scope in module.scopes():
        if scope.kind == "function":
            continue
        for node in scope.graph.nodes:
            if ops.is_neuron(node.domain or "", node.op):
                pending.extend(node.inputs[ops.NeuronVariant.parse(node.op, node.attrs).currents :])
            elif node.op == "Scan" and not node.domain:
                pending.extend(node.inputs[: len(node.inputs) - int(node.attrs["num_scan_inputs"])])
    found = set(module.sidecar.record(module.graph).defaults)
    while pending:
        value = pending.pop()
        if id(value) in found:
            continue
        found.add(id(value))
        for node in value.inputs:
            if node.op not in SYNAPSES and not ops.is_neuron(node.domain or "", node.op):
                pending.extend(node.inputs)
    return found


def _constants_of(node: Node, variant: ops.NeuronVariant) -> dict[str, Array] | None:
    """Return the parameters of a neuron by name, None when one is computed at run time."""
    found: dict[str, Array] = {}
    for declared, value in zip(variant.schema.inputs, node.inputs, strict=True):
        if declared.role == "parameter":
            array = array_of(value)
            if array is None:
                return None
            found[declared.name] = array
    return found


def _emitted(variant: ops.NeuronVariant, facts: NeuronFacts) -> Range:
    if not variant.spiking:
        return facts.membrane
    most = float(variant.max_spikes) if variant.max_spikes else np.inf
    low = np.where(facts.always, 1.0, 0.0)
    high = np.where(facts.never, 0.0, most)
    return Range.of(low, high, facts.never | facts.always)


def _trailing(bound: Range, rank: int) -> Range:
    """Return the bound over the last ``rank`` axes; hull over the ones before."""
    if bound.rank > rank:
        axes = tuple(range(bound.rank - rank))
        low, high = bound.low.min(axis=axes), bound.high.max(axis=axes)
        return Range.of(low, high, bound.fixed.all(axis=axes) & (low == high))
    lead = (1,) * (rank - bound.rank)
    return bound.apply(lambda a: a.reshape(lead + a.shape))


def _drop_axis(bound: Range | None, axis: int) -> Range | None:
    if bound is None:
        return None
    axis %= bound.rank
    return Range.of(bound.low.min(axis=axis), bound.high.max(axis=axis), bound.fixed.all(axis=axis))


def _insert_axis(bound: Range, axis: int) -> Range:
    axis %= bound.rank + 1
    return bound.apply(lambda a: np.expand_dims(a, axis))


def _common_tail(first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[int, int] | None:
    """Return the longest trailing runs of integers with equal products."""
    best: tuple[int, int] | None = (0, 0)
    sizes = []
    for dims in (first, second):
        products, total = [1], 1
        for n in reversed(dims):
            if not isinstance(n, int):
                break
            total *= n
            products.append(total)
        sizes.append(products)
    for i, total in enumerate(sizes[0]):
        if total in sizes[1]:
            best = (i, len(sizes[1]) - 1 - sizes[1][::-1].index(total))
    return best
