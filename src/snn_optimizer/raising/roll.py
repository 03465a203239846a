"""Write a proved loop as one ``Scan``.

The body is one step; what travels to later steps are its states; what stays the same for
all steps is captured; sequences are scanned. Stacks of steps become scan outputs, the last
step of a state its final value, and any other step is picked from a stack.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import numpy as np

from snn_optimizer.ir import (
    Array,
    GraphIndex,
    Node,
    Rewriter,
    Shapes,
    Value,
    array_of,
    is_missing,
    is_standard,
)
from snn_optimizer.ir.contents import value_key
from snn_optimizer.raising.initial import InitialValues, ShapeUnknown
from snn_optimizer.raising.loop import Lane, Loop, Operand
from snn_optimizer.raising.rolled_values import Concatenation, Register, Stack
from snn_optimizer.raising.shift import origin, output_index
from snn_optimizer.raising.uniform import uniform

__all__ = ["ShapeUnknown", "roll"]


def roll(rewriter: Rewriter, index: GraphIndex, shapes: Shapes, loop: Loop, name: str) -> Node:
    """Replace the nodes of a loop by a ``Scan`` and return it.

    Raises
    ------
    ShapeUnknown
        If a state needs an initial value whose shape cannot be written; nothing was changed.
    """
    return _Roller(rewriter, index, shapes, loop).run(name)


@dataclass
class _Roller:
    rewriter: Rewriter
    index: GraphIndex
    shapes: Shapes
    loop: Loop
    body_nodes: list[tuple[Node, list[Value | None], list[Value]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.graph = self.rewriter.module.graph
        self.initials = InitialValues(self.rewriter, self.shapes)
        self.registers: dict[Hashable, Register] = {}
        self.made: dict[int, list[Value]] = {}
        self.scanned: dict[Hashable, tuple[Value, Value, int]] = {}
        self.expanded: dict[int, Value] = {}
        self.stacks: dict[tuple[int, int], Stack] = {}
        self.doomed = [
            node for lane in self.loop.lanes for p, node in enumerate(lane.nodes) if self._inside(lane.offset + p)
        ]
        self.inside = {id(node) for node in self.doomed}

    def _inside(self, step: int) -> bool:
        return self.loop.first <= step <= self.loop.last

    def run(self, name: str) -> Node:
        for lane in self.loop.lanes:
            self.made[id(lane)] = [
                value if is_missing(value) else self.rewriter.value(value.name, value.dtype, value.shape)
                for value in lane.nodes[-1].outputs
            ]
        bodies = [self._body_node(lane) for lane in self.loop.lanes]
        self.initials.check([(r.initial, r.lane.nodes[-1].outputs[r.output]) for r in self.registers.values()])
        self._keep_for_initials()
        uses = self._outside_uses()
        self._plan_stacks(uses)
        starts = [self.initials.build(r.initial, r.lane.nodes[-1].outputs[r.output]) for r in self.registers.values()]
        return self._write(name, bodies, starts, uses)

    # ------------------------------------------------------------------- body

    def _body_node(self, lane: Lane) -> tuple[Node, list[Value | None], list[Value]]:
        model = lane.at(min(lane.last, self.loop.last)) or lane.nodes[-1]
        return model, [self._read(operand) for operand in self.loop.operands[id(lane)]], self.made[id(lane)]

    def _read(self, operand: Operand) -> Value | None:
        if operand.value is not None:
            return None if is_missing(operand.value) else operand.value
        if operand.step is not None:
            return self._scan_input(operand)
        assert operand.lane is not None  # the third kind
        if operand.lag == 0:
            return self.made[id(operand.lane)][operand.output]
        return self._register(operand, operand.lag).received

    def _register(self, operand: Operand, age: int) -> Register:
        assert operand.lane is not None  # only lanes have a past
        feed = self._register(operand, age - 1) if age > 1 else None
        dtype = self.loop.dtype(operand.lane, operand.output)
        initial: Value | Array = (
            operand.past[age]
            if age in operand.past
            else np.asarray(0.0 if operand.fill is None else operand.fill, dtype)
        )
        fill = initial if isinstance(initial, np.ndarray) else uniform(initial)
        known = fill is not None and np.ndim(fill) == 0
        key: Hashable = (
            id(operand.lane),
            operand.output,
            id(feed),
            ("fill", str(np.asarray(fill))) if known or isinstance(initial, np.ndarray) else value_key(initial),
        )
        found = self.registers.get(key)
        if found is None:
            value = operand.lane.nodes[-1].outputs[operand.output]
            received = self.rewriter.value(f"{value.name}_before", dtype, value.shape)
            final = self.rewriter.value(f"{value.name}_final", dtype, value.shape)
            found = Register(operand.lane, operand.output, age, initial, feed, received, final)
            self.registers[key] = found
        return found

    def _scan_input(self, operand: Operand) -> Value:
        step = operand.step
        assert step is not None  # the caller looked
        rank = self.shapes.rank(step.source)
        axis = step.axis + rank if step.axis < 0 and rank is not None else step.axis
        key = id(step.source), axis, step.index
        if key not in self.scanned:
            element = self.rewriter.value(f"{step.source.name}_step", step.source.dtype, None)
            self.scanned[key] = (self._window(step.source, axis, step.index), element, axis)
        element = self.scanned[key][1]
        if not step.kept:
            return element
        if id(element) not in self.expanded:
            self.expanded[id(element)] = self.rewriter.value(f"{element.name}_kept", element.dtype, None)
        return self.expanded[id(element)]

    def _window(self, source: Value, axis: int, index: int) -> Value:
        """Return the steps of a sequence that the loop runs over."""
        start, stop = index + self.loop.first, index + self.loop.last + 1
        shape = self.shapes.shape(source)
        if start == 0 and shape is not None and shape[axis] == stop:
            return source
        window = self.rewriter.value(f"{source.name}_window", source.dtype, None)
        bounds = [self.rewriter.constant("bound", np.array([n], np.int64)) for n in (start, stop, axis)]
        self.rewriter.add(self.graph, "Slice", [source, *bounds], [window])
        return window

    # ---------------------------------------------------------------- outside

    def _keep_for_initials(self) -> None:
        """Leave the nodes in place that initial values are computed from, for their shapes at least."""
        pending = [
            r.initial
            for r in self.registers.values()
            if not isinstance(r.initial, np.ndarray)
            and self.initials.needs(r.initial, r.lane.nodes[-1].outputs[r.output])
        ]
        for operands in self.loop.operands.values():
            pending += [operand.value for operand in operands if operand.value is not None]
            pending += [operand.step.source for operand in operands if operand.step is not None]
        seen: set[int] = set()
        while pending:
            value = pending.pop()
            node = value.inputs[0] if value.inputs else None
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            pending.extend(node.inputs)
        self.doomed = [node for node in self.doomed if id(node) not in seen]
        self.inside -= seen

    def _outside_uses(self) -> list[tuple[Node, int]]:
        """Return the readings of the loop's values by nodes that stay."""
        found: list[tuple[Node, int]] = []
        seen: set[tuple[int, int]] = set()
        for node in self.doomed:
            for value in node.outputs:
                for use in self.index.consumers(value):
                    key = id(use.node), use.slot
                    if id(use.node) not in self.inside and key not in seen:
                        seen.add(key)
                        found.append((use.node, use.slot))
        return found

    def _place(self, value: Value) -> tuple[Lane, int, int] | None:
        """Return lane, output and step of a value of the loop."""
        node = value.inputs[0] if value.inputs else None
        if node is None or id(node) not in self.inside:
            return None
        lane, step = self.loop.owner[id(node)]
        return lane, output_index(node, value), step

    def _plan_stacks(self, uses: list[tuple[Node, int]]) -> None:
        """Let concatenations of all steps read one stack."""
        readers: dict[int, Node] = {}
        pending = [node for node, _ in uses]
        while pending:
            node = pending.pop()
            if is_standard(node, "Concat"):
                readers[id(node)] = node
            elif is_standard(node, "Identity"):
                pending += [use.node for use in self.index.consumers(node.outputs[0])]
        self.concatenations: list[Concatenation] = []
        for node in readers.values():
            places = [self._place(origin(value)) for value in node.inputs]
            first = next((slot for slot, place in enumerate(places) if place is not None), None)
            if first is None:
                continue
            run = places[first : first + self.loop.steps]
            lane, output, step = places[first] or (self.loop.lanes[0], 0, 0)
            wanted = [(lane, output, step + offset) for offset in range(self.loop.steps)]
            if step != self.loop.first or run != wanted:
                continue
            axis = int(node.attrs["axis"])
            source = self._unsqueezed(lane, axis)
            if source is not None:
                self.concatenations.append(Concatenation(node, first, source, axis, None))
                continue
            shape = self.shapes.shape(node.inputs[first])
            if shape is None or len(node.inputs) != self.loop.steps:
                continue
            at = axis + len(shape) if axis < 0 else axis
            if all(isinstance(size, int) for size in shape[at + 1 :]):
                merged = [0] * at + [-1, *(int(size) for size in shape[at + 1 :] if isinstance(size, int))]
                self.concatenations.append(Concatenation(node, first, self.made[id(lane)][output], at, merged))

    def _unsqueezed(self, lane: Lane, axis: int) -> Value | None:
        """Return the value of the step that a lane only gives the axis of the stack."""
        model = lane.nodes[-1]
        if not is_standard(model, "Unsqueeze") or len(model.inputs) < 2:
            return None
        axes = array_of(model.inputs[1])
        operand = self.loop.operands[id(lane)][0]
        if axes is None or axes.size != 1 or int(axes.reshape(())) != axis or operand.lane is None:
            return None
        return self._read(operand)

    def _stack(self, source: Value, axis: int, result: Value | None = None) -> Value:
        key = id(source), axis
        if key not in self.stacks:
            stacked = result or self.rewriter.value(f"{source.name}_stack", source.dtype, None)
            self.stacks[key] = Stack(source, axis, stacked)
        return self.stacks[key].result

    # ------------------------------------------------------------------ write

    def _write(
        self,
        name: str,
        bodies: list[tuple[Node, list[Value | None], list[Value]]],
        starts: list[Value],
        uses: list[tuple[Node, int]],
    ) -> Node:
        rewriter = self.rewriter
        places = {(id(node), slot): self._place(node.inputs[slot]) for node, slot in uses}
        outputs = [
            (value, self._place(value))
            for value in self.graph.outputs
            if value.inputs and self._place(value) is not None
        ]
        whole = [c for c in self.concatenations if len(c.node.inputs) == self.loop.steps]
        results = [c.node.outputs[0] for c in whole]
        rewriter.erase([c.node for c in whole])
        for concatenation, result in zip(whole, results, strict=True):
            self._replace(result, concatenation)
        gone = {id(c.node) for c in whole}
        partial = {id(c.node): c for c in self.concatenations if id(c.node) not in gone}
        for node, slot in uses:
            place = places[id(node), slot]
            if id(node) not in gone and id(node) not in partial and place is not None:
                rewriter.set_input(node, slot, self._single(*place))
        self._shorten(partial)
        finals = [(value, self._single(*place)) for value, place in outputs if place is not None]
        models = [(model, inputs, made, dict(model.attrs)) for model, inputs, made in bodies]
        self.origins = {id(model): rewriter.module.sidecar.origin(model) for model, _, _ in bodies}
        rewriter.erase(self.doomed)
        scan = self._scan(name, models, starts)
        for value, source in finals:
            rewriter.add(self.graph, "Identity", [source], [value])
        return scan

    def _replace(self, value: Value, concatenation: Concatenation) -> None:
        """Let what a concatenation made be the stack, or the stack with two axes joined."""
        if concatenation.merged is not None:
            stacked = self._stack(concatenation.source, concatenation.axis)
            shape = self.rewriter.constant("joined", np.array(concatenation.merged, np.int64))
            self.rewriter.add(self.graph, "Reshape", [stacked, shape], [value])
            return
        stacked = self._stack(concatenation.source, concatenation.axis, value)
        if stacked is not value:
            if self.index.output_of(value):
                self.rewriter.add(self.graph, "Identity", [stacked], [value])
            else:
                self.rewriter.replace_uses(value, stacked)

    def _shorten(self, partial: Mapping[int, Concatenation]) -> None:
        """Let concatenations of more than the loop's steps read one stack in place of these steps."""
        for one in partial.values():
            stacked = self._stack(one.source, one.axis)
            kept = [*one.node.inputs[: one.slot], stacked, *one.node.inputs[one.slot + self.loop.steps :]]
            self.rewriter.retarget(one.node, one.node.op, kept)

    def _single(self, lane: Lane, output: int, step: int) -> Value:
        """Return the value of one step: the final state, or picked from a stack."""
        if step == self.loop.last:
            for register in self.registers.values():
                if register.lane is lane and register.output == output and register.age == 1:
                    return register.final
        stacked = self._stack(self.made[id(lane)][output], 0)
        picked = self.rewriter.value(f"{stacked.name}_{step}", stacked.dtype, None)
        at = self.rewriter.constant("step", np.array(step - self.loop.first, np.int64))
        self.rewriter.add(self.graph, "Gather", [stacked, at], [picked], {"axis": 0})
        return picked

    def _live(
        self, models: list[tuple[Node, list[Value | None], list[Value], dict[str, object]]]
    ) -> list[tuple[Node, list[Value | None], list[Value], dict[str, object]]]:
        """Leave out what neither a state nor a result needs: the axes that stacks had."""
        needed = {id(self.made[id(r.lane)][r.output]) for r in self.registers.values()}
        needed |= {id(stack.source) for stack in self.stacks.values()}
        kept = []
        for entry in reversed(models):
            if any(id(value) in needed for value in entry[2]):
                kept.append(entry)
                needed.update(id(value) for value in entry[1] if value is not None)
        return kept[::-1]

    def _scan(
        self,
        name: str,
        models: list[tuple[Node, list[Value | None], list[Value], dict[str, object]]],
        starts: list[Value],
    ) -> Node:
        rewriter, registers = self.rewriter, list(self.registers.values())
        if not self.scanned:
            clock = rewriter.constant("clock", np.zeros(self.loop.steps, np.float32))
            self.scanned["clock"] = (clock, rewriter.value("tick", np.float32, ()), 0)
        scans = list(self.scanned.values())
        body = rewriter.body(f"{name}_step", [*(r.received for r in registers), *(s[1] for s in scans)], [])
        for source, kept in self.expanded.items():
            element = next(s for s in scans if id(s[1]) == source)
            axes = rewriter.constant("axes", np.array([element[2]], np.int64))
            rewriter.add(body, "Unsqueeze", [element[1], axes], [kept])
        for model, inputs, made, held in self._live(models):
            results_of = [None if is_missing(value) else value for value in made]
            node = rewriter.add(body, model.op, inputs, results_of, held, model.domain or "", model.name or None)
            origin = self.origins[id(model)]
            if origin is not None:
                rewriter.module.sidecar.set_origin(node, origin)
        outputs: list[Value] = []
        taken: set[int] = {id(v) for v in body.inputs}

        def emit(value: Value) -> None:
            if id(value) in taken:
                copy = rewriter.value(f"{value.name}_copy", value.dtype, value.shape)
                rewriter.add(body, "Identity", [value], [copy])
                value = copy
            taken.add(id(value))
            outputs.append(value)

        for register in registers:
            emit(self.made[id(register.lane)][register.output] if register.feed is None else register.feed.received)
        for stack in self.stacks.values():
            emit(stack.source)
        rewriter.set_ports(body, body.inputs, outputs)
        attrs: dict[str, object] = {"body": body, "num_scan_inputs": len(scans)}
        if any(s[2] for s in scans):
            attrs["scan_input_axes"] = [s[2] for s in scans]
        if any(s.axis for s in self.stacks.values()):
            attrs["scan_output_axes"] = [s.axis for s in self.stacks.values()]
        results = [*(r.final for r in registers), *(s.result for s in self.stacks.values())]
        return rewriter.add(self.graph, "Scan", [*starts, *(s[0] for s in scans)], results, attrs, name_hint=name)
