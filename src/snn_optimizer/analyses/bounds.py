"""Value ranges: sound bounds of every value, and what they prove about neurons.

Loop bodies are solved optimistically: carried values start at their initial
range and grow until a step adds nothing. Every range is then an invariant, and
a cycle of neurons that could only start each other stays proved silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from snn_optimizer import ops
from snn_optimizer.analyses.incoming import Incoming
from snn_optimizer.analyses.interval_rules import INTERVAL_RULES
from snn_optimizer.analyses.intervals import Range, unit_roundoff
from snn_optimizer.analyses.manager import AnalysisManager
from snn_optimizer.analyses.neuron_bounds import Mask, NeuronFacts, neuron_facts
from snn_optimizer.analyses.propagation import StaticShapes
from snn_optimizer.analyses.range_axes import common_tail, drop_axis, insert_axis, trailing
from snn_optimizer.analyses.spike_trains import Clock, Train, spikes_of
from snn_optimizer.analyses.temporal_facts import temporal_facts
from snn_optimizer.analyses.written_neurons import written_facts
from snn_optimizer.ir import Array, Graph, InputDomain, Module, Node, Shapes, Value, array_of, is_constant

__all__ = ["RangePropagation", "ValueRanges"]

SYNAPSES = frozenset({"Gemm", "MatMul", "Conv", "Shape", "Size"})  # what lies behind them is a signal again
TRAIN_ROUNDS = 24  # optimistic rounds before what is known about carried spikes is given up
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
    trains: dict[int, Train] = field(default_factory=dict)
    limited_inputs: dict[int, int] = field(default_factory=dict)
    scanned: dict[int, tuple[Value, int]] = field(default_factory=dict)
    loops: list[int | str | None] = field(default_factory=list)
    joined: set[int] = field(default_factory=set)

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
            limit = self.domain.most_active(value.name)
            if limit is not None and (id(value) not in bare or value.name in self.domain.named_active):
                self.limited_inputs[id(value)] = limit
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
        tail = common_tail(dims_in, dims_out)
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
        self.trains.pop(id(node.outputs[0]), None)
        rank = self.shapes.rank(node.inputs[0])
        lead = variant.axes_before_units
        if rank is None or rank <= lead:
            return
        trailing_axes = rank - lead
        current = self.range_of(node.inputs[0]) or Range.unknown(rank)
        states = {slot: node.outputs[out] for slot, out in variant.states}
        parameters: dict[str, Range] = {}
        currents = [current, *(self.range_of(v) or Range.unknown(rank) for v in node.inputs[1 : variant.currents])]
        for slot, name in enumerate(variant.inputs):
            if variant.schema.inputs[slot].role in ("signal", "steps"):
                continue
            bound = self._initial(node, slot) if slot in states else self.range_of(node.inputs[slot])
            key = {"v": "v0", "i": "i0"}.get(name, name)
            bound = bound or Range.unknown(trailing_axes)
            parameters[key] = trailing(bound, trailing_axes)
        steps = self.steps if variant.form == "cell" else self._steps(node, variant)
        roundoff = self.roundoff(node)
        incoming = self._incoming(node, variant, trailing_axes, steps)
        if variant.written:
            received = [trailing(one, trailing_axes) for one in currents]
            constants = _constants_of(node, variant)
            facts = written_facts(variant, received, parameters, constants, steps, roundoff, incoming)
        else:
            facts = neuron_facts(
                variant, trailing(current, trailing_axes), parameters, steps, roundoff,
                refine=None if incoming is None else lambda run, facts: temporal_facts(run, facts, incoming),
            )  # fmt: skip
        facts = self._with_assumptions(node, facts)
        self.facts[id(node)] = facts
        if facts.train is not None:
            self.trains[id(node.outputs[0])] = facts.train.silenced(facts.never)
        self._put(node.outputs[0], self.with_rank(_emitted(variant, facts), rank))
        for out in states.values():
            self.ranges.pop(id(out), None)

    def _incoming(self, node: Node, variant: ops.NeuronVariant, rank: int, steps: int | None) -> Incoming | None:
        """Return the currents over time; None where a call is one step of nobody knows which run."""
        inside = variant.form == "cell"
        own = all(id(node.inputs[slot]) in self.starts for slot, _ in variant.states)
        if (inside and (len(self.loops) != 1 or not own)) or (not inside and self.loops):
            return None
        dims = self.shapes.shape(node.outputs[0]) or self.shapes.shape(node.inputs[0])
        sizes = () if dims is None else dims[len(dims) - rank :]
        if dims is None or not all(isinstance(n, int) for n in sizes):
            return None
        declared = self.loops[0] if inside else steps if variant.form == "flat" else dims[0]
        size = int(np.prod([int(n or 0) for n in sizes]))
        currents = tuple(node.inputs[: variant.currents])
        return Incoming(self, currents, rank, size, Clock.of(steps), declared, inside)

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
        return replace(facts, never=never, always=facts.always & ~never)

    starts: dict[int, Range] = field(default_factory=dict)

    def _scan(self, node: Node) -> None:
        body: Graph = node.attrs["body"]
        scanned = int(node.attrs["num_scan_inputs"])
        carried = len(node.inputs) - scanned
        axes = [int(a) for a in node.attrs.get("scan_input_axes", [0] * scanned)]
        own = _own_states(body, carried)
        for position, slot in enumerate(range(carried, len(node.inputs))):
            self._put(body.inputs[slot], drop_axis(self.get(node, slot), axes[position]))
            self.scanned[id(body.inputs[slot])] = (node.inputs[slot], axes[position])
        for slot in range(carried):
            start = self.get(node, slot)
            self._put(body.inputs[slot], None if slot in own else start)
            if slot in own and start is not None:
                self.starts[id(body.inputs[slot])] = start
        outer, length = self.steps, self._scan_length(node, carried, axes)
        self.steps = length if isinstance(length, int) else None
        self.loops.append(None if any(node.attrs.get("scan_input_directions", ())) else length)
        number = 0
        self.walk(body)
        while self._grow(body, carried, own, number):
            self.walk(body)
            number += 1
        self.loops.pop()
        self.steps = outer
        for slot in range(carried):
            self._put(node.outputs[slot], self.ranges.get(id(body.inputs[slot])))
        outs = [int(a) for a in node.attrs.get("scan_output_axes", [0] * (len(node.outputs) - carried))]
        for position, value in enumerate(node.outputs[carried:]):
            bound = self.range_of(body.outputs[carried + position])
            self._put(value, None if bound is None else insert_axis(bound, outs[position]))
            train = spikes_of(self.trains, body.outputs[carried + position])
            forward = not any(node.attrs.get("scan_output_directions", ()))
            if train is not None and train.inside and outs[position] == 0 and forward and not self.loops:
                self.trains[id(value)] = replace(train, steps=length, inside=False)

    def _scan_length(self, node: Node, carried: int, axes: list[int]) -> int | str | None:
        """Return the number of steps, or its name."""
        found: int | str | None = None
        for slot, axis in zip(range(carried, len(node.inputs)), axes, strict=True):
            dims = self.shapes.shape(node.inputs[slot])
            size = None if dims is None else dims[axis % len(dims)]
            if isinstance(size, int):
                return size
            found = found or size
        return found

    def _grow(self, body: Graph, carried: int, own: set[int], number: int) -> bool:
        """Join what a step returns into what the next one starts with; tell whether anything grew."""
        grew = False
        for slot in range(carried):
            if slot in own:
                continue
            before, after = self.ranges.get(id(body.inputs[slot])), self.range_of(body.outputs[slot])
            grew |= self._grow_train(body.inputs[slot], body.outputs[slot], before, give_up=number >= TRAIN_ROUNDS)
            if before is None:
                continue
            joined = None if after is None or number >= ROUNDS else before.join(after)
            if joined is None or not joined.equals(before):
                self._put(body.inputs[slot], joined)
                grew = True
        return grew

    def _grow_train(self, carried: Value, returned: Value, before: Range | None, *, give_up: bool) -> bool:
        """Join the facts about spikes of one step into those of the last step's spikes; tell whether they changed.

        Like the ranges they start with silence, so what is left at the end implies itself over a step.
        """
        known, train = self.trains.get(id(carried)), spikes_of(self.trains, returned)
        started = id(carried) in self.joined
        self.joined.add(id(carried))
        silent = before is not None and not before.low.any() and not before.high.any()
        if train is None or give_up or (known is None and (started or not silent)):
            return self.trains.pop(id(carried), None) is not None
        joined = train.delayed() if known is None else known.join(train.delayed())
        if known is not None and joined is not None and joined.equals(known):
            return False
        if joined is None:
            del self.trains[id(carried)]
        else:
            self.trains[id(carried)] = joined
        return True


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
