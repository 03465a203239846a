"""Follow vectors of dimensions through Shape, Gather, Slice, Concat and the like.

Reshape and Expand take their target as data. To cut a unit, the analysis must
know which entry of that vector counts the unit and where the entry comes from:
a constant that can be edited, or the size of an axis that shrinks by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from snn_optimizer.ir import Node, Shapes, Use, Value, array_of, is_constant

__all__ = ["ConstantEntry", "DimensionEntry", "Entry", "ShapeVectors"]

LARGEST_VECTOR = 64  # shape vectors have one entry per axis; longer integer constants are data


@dataclass(frozen=True, slots=True)
class ConstantEntry:
    """Entry ``position`` of the constant read at ``use``."""

    use: Use
    position: int
    value: int


@dataclass(frozen=True, slots=True)
class DimensionEntry:
    """The size of axis ``axis`` of ``source``."""

    source: Value
    axis: int


Entry = ConstantEntry | DimensionEntry | None


class ShapeVectors:
    """The entries of every vector that is built from constants and shapes."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._entries: dict[int, Sequence[Entry]] = {}

    def entries(self, node: Node, slot: int) -> Sequence[Entry] | None:
        """Return the entries of the vector that ``node`` reads at ``slot``."""
        value = node.inputs[slot]
        if not is_constant(value):
            return self._entries.get(id(value))
        array = array_of(value)
        if array is None or array.dtype.kind not in "iu" or array.size > LARGEST_VECTOR or array.ndim > 1:
            return None
        use = Use(node, slot)
        return [ConstantEntry(use, i, int(n)) for i, n in enumerate(array.reshape(-1))]

    def dimensions(self, value: Value) -> list[tuple[Value, int]]:
        """Return the axes whose sizes this value holds."""
        return [(e.source, e.axis) for e in self._entries.get(id(value), ()) if isinstance(e, DimensionEntry)]

    def is_vector(self, value: Value) -> bool:
        """Tell whether this value is a followed vector of dimensions."""
        return id(value) in self._entries

    def read(self, node: Node) -> None:
        """Follow one node."""
        if node.domain not in {"", "ai.onnx", None}:
            return
        entries = self._read(node)
        if entries is not None:
            self._entries[id(node.outputs[0])] = entries

    def _read(self, node: Node) -> Sequence[Entry] | None:
        match node.op:
            case "Shape":
                source = node.inputs[0]
                rank = self._shapes.rank(source)
                if rank is None:
                    return None
                start, stop, _ = slice(node.attrs.get("start", 0), node.attrs.get("end", None)).indices(rank)
                return [DimensionEntry(source, axis) for axis in range(start, stop)]
            case "Identity" | "Cast" | "Unsqueeze" | "Squeeze" if self._derived(node, 0):
                return self.entries(node, 0)
            case "Gather" if self._derived(node, 0):
                index = array_of(node.inputs[1])
                entries = self.entries(node, 0)
                if index is None or entries is None:
                    return None
                return [entries[int(i)] for i in index.reshape(-1)]
            case "Slice" if self._derived(node, 0):
                return self._slice(node)
            case "Concat" if any(self._derived(node, i) for i in range(len(node.inputs))):
                parts = [self.entries(node, i) for i in range(len(node.inputs))]
                if any(p is None for p in parts):
                    return None
                return [entry for part in cast("list[Sequence[Entry]]", parts) for entry in part]
            case _:
                return None

    def _derived(self, node: Node, slot: int) -> bool:
        return id(node.inputs[slot]) in self._entries

    def _slice(self, node: Node) -> Sequence[Entry] | None:
        entries = self.entries(node, 0)
        bounds = [array_of(v) for v in node.inputs[1:]]
        if entries is None or len(bounds) < 2 or any(b is None or b.size != 1 for b in bounds):
            return None
        start, stop = (
            int(cast("np.ndarray", bounds[0]).reshape(-1)[0]),
            int(cast("np.ndarray", bounds[1]).reshape(-1)[0]),
        )
        step = int(cast("np.ndarray", bounds[3]).reshape(-1)[0]) if len(bounds) > 3 else 1
        return list(entries)[start:stop:step]
