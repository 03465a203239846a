"""Initial values of states, in the shape the state has."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from snn_optimizer.ir import Array, Rewriter, Shape, Shapes, Value, is_constant
from snn_optimizer.raising.uniform import uniform

__all__ = ["InitialValues", "ShapeUnknown"]


class ShapeUnknown(Exception):  # noqa: N818 - control flow between raising and its passes
    """The shape of a state cannot be written in terms of the model's inputs."""


class InitialValues:
    """Builds the tensors that states start from; one for all states of a shape and number."""

    def __init__(self, rewriter: Rewriter, shapes: Shapes) -> None:
        self._rewriter = rewriter
        self._shapes = shapes
        self._fills: dict[tuple[Shape, str, bytes], Value] = {}
        self._vectors: dict[Shape, Value] = {}
        self._symbols = self._find_symbols()

    def check(self, wanted: Iterable[tuple[Value | Array, Value]]) -> None:
        """Make sure that all of these can be built.

        Raises
        ------
        ShapeUnknown
            With the name of the state.
        """
        for initial, state in wanted:
            shape = self._shapes.shape(state)
            if not isinstance(initial, np.ndarray) and self._fits(initial, state):
                continue
            if not self._writable(shape) and (isinstance(initial, np.ndarray) or is_constant(initial)):
                raise ShapeUnknown(state.name)

    def needs(self, initial: Value, state: Value) -> bool:
        """Tell whether the state starts from ``initial`` itself, not from a fill of its shape."""
        fill = uniform(initial)
        return fill is None or fill.ndim > 0 or not self._writable(self._shapes.shape(state))

    def build(self, initial: Value | Array, state: Value) -> Value:
        """Return a value of the state's shape: a fill, or what the file starts from, spread if need be."""
        shape = self._shapes.shape(state)
        fill = initial if isinstance(initial, np.ndarray) else uniform(initial)
        if shape is None or not self._writable(shape):
            assert not isinstance(initial, np.ndarray)  # check() refused it
            return initial
        if fill is not None and fill.ndim == 0:
            return self._fill(shape, fill)
        assert not isinstance(initial, np.ndarray)  # a number is a fill
        if self._fits(initial, state):
            return initial
        spread = self._rewriter.value(f"{state.name}_start", initial.dtype, None)
        self._rewriter.add(self._rewriter.module.graph, "Expand", [initial, self._vector(shape)], [spread])
        return spread

    def _fits(self, initial: Value, state: Value) -> bool:
        mine, wanted = self._shapes.shape(initial), self._shapes.shape(state)
        return mine is not None and wanted is not None and tuple(mine) == tuple(wanted) and None not in mine

    def _writable(self, shape: Shape | None) -> bool:
        return shape is not None and all(isinstance(size, int) or size in self._symbols for size in shape)

    def _find_symbols(self) -> dict[str, tuple[Value, int]]:
        found: dict[str, tuple[Value, int]] = {}
        for value in self._rewriter.module.graph.inputs:
            for axis, size in enumerate(self._shapes.shape(value) or ()):
                if isinstance(size, str):
                    found.setdefault(size, (value, axis))
        return found

    def _fill(self, shape: Shape, fill: Array) -> Value:
        key = shape, str(fill.dtype), fill.tobytes()  # -0.0 is not 0.0 here
        if key not in self._fills:
            if all(isinstance(size, int) for size in shape):
                value = self._rewriter.constant("start", np.full([int(n) for n in shape if n is not None], fill))
            else:
                value = self._rewriter.value("start", fill.dtype, shape)
                tensor = self._rewriter.constant("fill", fill.reshape(1))
                graph = self._rewriter.module.graph
                self._rewriter.add(graph, "ConstantOfShape", [self._vector(shape)], [value], {"value": tensor})
            self._fills[key] = value
        return self._fills[key]

    def _vector(self, shape: Shape) -> Value:
        """Return a shape as a tensor of integers."""
        if shape in self._vectors:
            return self._vectors[shape]
        rewriter, graph = self._rewriter, self._rewriter.module.graph
        parts: list[Value] = []
        for size in shape:
            if isinstance(size, int):
                parts.append(rewriter.constant("size", np.array([size], np.int64)))
                continue
            source, axis = self._symbols[str(size)]
            sizes = rewriter.value(f"{source.name}_shape", np.int64, None)
            rewriter.add(graph, "Shape", [source], [sizes])
            picked = rewriter.value(f"{source.name}_{size}", np.int64, (1,))
            at = rewriter.constant("axis", np.array([axis], np.int64))
            rewriter.add(graph, "Gather", [sizes, at], [picked], {"axis": 0})
            parts.append(picked)
        if len(parts) == 1:
            vector = parts[0]
        else:
            vector = rewriter.value("shape", np.int64, (len(parts),))
            rewriter.add(graph, "Concat", parts, [vector], {"axis": 0})
        self._vectors[shape] = vector
        return vector
