"""Sequences with time and batch in one axis, time outside, and how to get there and back.

What has one value for all steps is kept as one value. Sequences in other layouts are followed
back to where they come from, through operators that treat steps alike: the synapse that an
exporter applies to ``[B, T, F]`` at once is the same synapse applied to ``[T * B, F]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from snn_optimizer.ir import Node, Rewriter, Shape, Shapes, Value, array_of, is_constant, is_standard
from snn_optimizer.raising.batching import BROADCASTING

__all__ = ["Layout", "Sequences", "Timed"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a tensor has its steps.

    Attributes
    ----------
    axis : int
        The time axis; batch is the other one of the first two.
    flat : bool
        Whether time and batch are one axis, the first; ``axis`` 0 is time outside.
    """

    axis: int
    flat: bool = False


@dataclass(frozen=True, slots=True)
class Timed:
    """A value of the network over time.

    Attributes
    ----------
    value : Value
        With time and batch in the first axis, or of one step when it is the same for all.
    shape : shape or None
        Of one step, batch first.
    constant : bool
        Whether it is the same for all steps.
    """

    value: Value
    shape: Shape | None
    constant: bool = False


class Sequences:
    """Converts values of the main graph; remembers what it converted."""

    def __init__(self, rewriter: Rewriter, shapes: Shapes) -> None:
        self.rewriter = rewriter
        self.graph = rewriter.module.graph
        self.shapes = shapes
        self._known: dict[tuple[int, Layout], Timed] = {}
        self._values: dict[int, Value] = {}
        self._steps: dict[int, Value] = {}
        self._spread: dict[tuple[int, object], Value] = {}
        self._split: dict[tuple[int, Shape], Value] = {}

    def remember(self, value: Value, layout: Layout, timed: Timed) -> None:
        """Note that a value of the main graph, in this layout, is ``timed``."""
        self._known[id(value), layout] = timed

    def adopt(self) -> None:
        """Let what read a tensor of all steps and samples in one axis read the one that was made for the loops."""
        for (key, layout), timed in self._known.items():
            old = self._values.get(key)
            if old is None or not layout.flat or layout.axis or timed.constant or old is timed.value:
                continue
            if not is_constant(old) and old.inputs:
                self.rewriter.replace_uses(old, timed.value)

    # ------------------------------------------------------------------- steps

    def steps(self, count: int | None, source: Value, axis: int) -> Value:
        """Return the number of steps as a tensor: a constant, or read off a sequence."""
        key = count if count is not None else id(source)
        if key not in self._steps:
            if count is not None:
                self._steps[key] = self.rewriter.constant("steps", np.array([count], np.int64))
            else:
                steps = self.rewriter.value("steps", np.int64, (1,))
                self.rewriter.add(self.graph, "Shape", [source], [steps], {"start": axis, "end": axis + 1})
                self._steps[key] = steps
        return self._steps[key]

    def spread(self, timed: Timed, steps: Value) -> Value:
        """Return a value with time and batch in one axis; what is the same for all steps is repeated."""
        if not timed.constant:
            return timed.value
        key = id(timed.value), id(steps)
        if key not in self._spread:
            rank = len(timed.shape or ())
            count = array_of(steps)
            if count is not None:
                repeats = self.rewriter.constant("repeats", np.array([int(count[0]), *[1] * (rank - 1)], np.int64))
            elif rank > 1:
                repeats = self.rewriter.value("repeats", np.int64, (rank,))
                ones = self.rewriter.constant("ones", np.ones(rank - 1, np.int64))
                self.rewriter.add(self.graph, "Concat", [steps, ones], [repeats], {"axis": 0})
            else:
                repeats = steps
            result = self.rewriter.value(f"{timed.value.name}_repeated", timed.value.dtype, None)
            self.rewriter.add(self.graph, "Tile", [timed.value, repeats], [result])
            self._spread[key] = result
        return self._spread[key]

    def split(self, timed: Timed, steps: Value, into: Value | None = None, axis: int = 0) -> Value:
        """Return a sequence with time and batch as two axes, time at ``axis``; ``into`` receives it when given."""
        flat = self.spread(timed, steps)
        rest = tuple(timed.shape or ())[1:]
        key = id(flat), (*rest, axis)
        if into is None and key in self._split:
            return self._split[key]
        shape = self._shape_vector(steps, rest)
        if axis == 0:
            result = into or self.rewriter.value(f"{flat.name}_steps", flat.dtype, None)
            self.rewriter.add(self.graph, "Reshape", [flat, shape], [result])
        else:
            apart = self.rewriter.value(f"{flat.name}_steps", flat.dtype, None)
            self.rewriter.add(self.graph, "Reshape", [flat, shape], [apart])
            result = into or self.rewriter.value(f"{flat.name}_outer", flat.dtype, None)
            order = [*range(1, axis + 1), 0, *range(axis + 1, len(rest) + 2)]
            self.rewriter.add(self.graph, "Transpose", [apart], [result], {"perm": order})
        self._split[key] = result
        return result

    def _shape_vector(self, steps: Value, rest: Shape) -> Value:
        count = array_of(steps)
        sizes = [int(size) for size in rest if isinstance(size, int)]
        if len(sizes) != len(rest):
            raise ValueError("the shape of one step is not known")
        if count is not None:
            return self.rewriter.constant("split", np.array([int(count[0]), -1, *sizes], np.int64))
        tail = self.rewriter.constant("tail", np.array([-1, *sizes], np.int64))
        vector = self.rewriter.value("split", np.int64, (len(rest) + 2,))
        self.rewriter.add(self.graph, "Concat", [steps, tail], [vector], {"axis": 0})
        return vector

    # -------------------------------------------------------------------- pull

    def pull(self, value: Value, layout: Layout) -> Timed | None:
        """Return a sequence of the main graph with time and batch in one axis; None when its shape is unknown."""
        key = id(value), layout
        if key not in self._known:
            found = self._through(value, layout) or self._joined(value, layout)
            if found is None:
                return None
            self._known[key] = found
            self._values[id(value)] = value
        return self._known[key]

    def _through(self, value: Value, layout: Layout) -> Timed | None:
        """Follow a sequence through an operator that treats steps alike."""
        node = value.inputs[0] if value.inputs else None
        if node is None or is_constant(value) or not is_standard(node) or len(value.outputs) == 0:
            return None
        if layout.flat:
            return self._unjoined(node, layout)
        if node.op in BROADCASTING:
            return self._elementwise(node, layout)
        if node.op == "MatMul":
            return self._matmul(node, layout)
        if node.op == "Reshape":
            return self._reshaped(node, layout)
        if node.op in ("Tile", "Expand"):
            return self._repeated(node, layout)
        return None

    def _elementwise(self, node: Node, layout: Layout) -> Timed | None:
        rank = self.shapes.rank(node.outputs[0])
        parts: list[Timed | None] = []
        for operand in node.inputs:
            if is_constant(operand) and self._ignores_steps(operand, rank):
                parts.append(None)
                continue
            if self.shapes.rank(operand) != rank or not self._is_sequence(operand, node.outputs[0]):
                return None
            timed = self.pull(operand, layout)
            if timed is None:
                return None
            parts.append(timed)
        timed_parts = [part for part in parts if part is not None]
        if not timed_parts or len({part.constant for part in timed_parts}) != 1:
            return None
        inputs = [
            self._lower(operand) if part is None else part.value
            for operand, part in zip(node.inputs, parts, strict=True)
        ]
        return self._like(node, inputs, timed_parts[0], self._step_shape(node.outputs[0], layout))

    def _is_sequence(self, operand: Value, result: Value) -> bool:
        """Tell whether an operand has all steps and samples of the result."""
        mine, whole = self.shapes.shape(operand), self.shapes.shape(result)
        return mine is not None and whole is not None and mine[:2] == whole[:2] and None not in mine[:2]

    def _ignores_steps(self, operand: Value, rank: int | None) -> bool:
        shape = self.shapes.shape(operand)
        if shape is None or rank is None:
            return False
        return len(shape) <= rank - 2 or all(size == 1 for size in shape[: len(shape) - (rank - 2)])

    def _lower(self, operand: Value) -> Value:
        """Return a constant with fewer leading axes of length 1: the sequence has one axis less now."""
        array = array_of(operand)
        if array is None or array.ndim < 2 or array.shape[0] != 1:
            return operand
        return self.rewriter.constant(operand.name, array[0])

    def _matmul(self, node: Node, layout: Layout) -> Timed | None:
        rank = self.shapes.rank(node.inputs[0])
        weight = self.shapes.rank(node.inputs[1])
        if rank is None or rank < 3 or weight != 2 or not is_constant(node.inputs[1]):
            return None
        timed = self.pull(node.inputs[0], layout)
        if timed is None:
            return None
        return self._like(node, [timed.value, node.inputs[1]], timed, self._step_shape(node.outputs[0], layout))

    def _reshaped(self, node: Node, layout: Layout) -> Timed | None:
        """Follow a Reshape that splits or keeps the first two axes."""
        before, after = self.shapes.shape(node.inputs[0]), self.shapes.shape(node.outputs[0])
        if before is None or after is None or len(after) < 2:
            return None
        rest = after[2:]
        if before[1:] == rest and all(isinstance(size, int) for size in rest):
            return self.pull(node.inputs[0], Layout(layout.axis, flat=True))
        if before[:2] == after[:2] and None not in before[:2] and all(isinstance(size, int) for size in rest):
            timed = self.pull(node.inputs[0], layout)
            if timed is None:
                return None
            shape = self.rewriter.constant("shape", np.array([-1, *rest], np.int64))
            return self._like(node, [timed.value, shape], timed, self._step_shape(node.outputs[0], layout))
        return None

    def _unjoined(self, node: Node, layout: Layout) -> Timed | None:
        """Follow a tensor of all steps and samples in one axis back to a sequence of them."""
        if node.op == "Reshape":
            before, after = self.shapes.shape(node.inputs[0]), self.shapes.shape(node.outputs[0])
            if before is not None and after is not None and len(before) == len(after) + 1 and before[2:] == after[1:]:
                return self.pull(node.inputs[0], Layout(layout.axis))
            return None
        from snn_optimizer.raising.batching import Operands, batched  # noqa: PLC0415

        shapes = tuple(self.shapes.shape(value) for value in node.inputs)
        timed = tuple(not is_constant(value) for value in node.inputs)
        ruled = batched(node, Operands(timed, shapes, self.shapes.shape(node.outputs[0])))
        if isinstance(ruled, str) or ruled.spread or len(node.outputs) != 1:
            return None
        inputs: list[Value] = []
        parts: list[Timed] = []
        for slot, operand in enumerate(node.inputs):
            if slot in ruled.constants:
                inputs.append(self.rewriter.constant(operand.name, ruled.constants[slot]))
            elif not timed[slot]:
                inputs.append(operand)
            else:
                part = self.pull(operand, layout)
                if part is None:
                    return None
                parts.append(part)
                inputs.append(part.value)
        if len({part.constant for part in parts}) != 1:
            return None
        return self._like(node, inputs, parts[0], self._step_shape(node.outputs[0], layout))

    def _repeated(self, node: Node, layout: Layout) -> Timed | None:
        """A tensor repeated along time is the same for all steps."""
        before, after = self.shapes.shape(node.inputs[0]), self.shapes.shape(node.outputs[0])
        if before is None or after is None or len(before) != len(after) or before[layout.axis] != 1:
            return None
        others = [k for k in range(len(after)) if k != layout.axis]
        if any(before[k] != after[k] or before[k] is None for k in others):
            return None
        source = node.inputs[0]
        squeezed = self._step_shape(node.outputs[0], layout)
        inner = source.inputs[0] if source.inputs else None
        if inner is not None and is_standard(inner, "Unsqueeze"):
            axes = array_of(inner.inputs[1]) if len(inner.inputs) > 1 else None
            if axes is not None and axes.size == 1 and int(axes.reshape(())) % len(after) == layout.axis:
                return Timed(inner.inputs[0], squeezed, constant=True)
        result = self.rewriter.value(f"{source.name}_once", source.dtype, None)
        axis = self.rewriter.constant("axis", np.array([layout.axis], np.int64))
        self.rewriter.add(self.graph, "Squeeze", [source, axis], [result])
        return Timed(result, squeezed, constant=True)

    def _joined(self, value: Value, layout: Layout) -> Timed | None:
        """Join time and batch of a sequence, whatever it comes from."""
        shape = self.shapes.shape(value)
        if layout.flat or shape is None or len(shape) < 2 or layout.axis > 1:
            return None
        rest = shape[2:]
        if not all(isinstance(size, int) for size in rest):
            return None
        if layout.axis == 1:
            turned = self.rewriter.value(f"{value.name}_by_time", value.dtype, None)
            order = [1, 0, *range(2, len(shape))]
            self.rewriter.add(self.graph, "Transpose", [value], [turned], {"perm": order})
            value = turned
        flat = self.rewriter.value(f"{value.name}_flat", value.dtype, None)
        target = self.rewriter.constant("flat", np.array([-1, *rest], np.int64))
        self.rewriter.add(self.graph, "Reshape", [value, target], [flat])
        return Timed(flat, self._step_of(shape, layout))

    # ------------------------------------------------------------------ shared

    def _step_shape(self, value: Value, layout: Layout) -> Shape | None:
        shape = self.shapes.shape(value)
        return None if shape is None else self._step_of(shape, layout)

    @staticmethod
    def _step_of(shape: Shape, layout: Layout) -> Shape:
        if layout.flat:
            return (None, *shape[1:])
        return (shape[1 - layout.axis], *shape[2:])

    def _like(self, node: Node, inputs: list[Value], part: Timed, shape: Shape | None) -> Timed:
        result = self.rewriter.value(f"{node.outputs[0].name}_flat", node.outputs[0].dtype, None)
        self.rewriter.add_like(self.graph, node, inputs, [result])
        return Timed(result, shape, part.constant)
