"""Weights that are stored in few bits: what standard nodes make of constants, evaluated here.

Only what turns stored numbers into a weight is followed: casts, scales, tables and shapes.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from snn_optimizer.errors import InputError
from snn_optimizer.ir.elements import numpy_dtype
from snn_optimizer.ir.types import Array, Node, Value, array_of, is_constant, is_standard, shape_of_constant

__all__ = ["is_encoded", "weights_of", "weights_shape"]

_FOLLOWED: Final = ("Cast", "Gather", "Mul", "Reshape", "Slice")
_DEEPEST: Final = 8  # nodes between what is stored and the weight


def is_encoded(value: Value) -> bool:
    """Tell whether a value is computed from constants, by nodes that only unpack and scale."""
    return not is_constant(value) and _depends_on_constants(value, _DEEPEST) and weights_shape(value) is not None


def _depends_on_constants(value: Value, depth: int) -> bool:
    if is_constant(value):
        return True
    if not depth or not value.inputs or not is_standard(value.inputs[0], *_FOLLOWED):
        return False
    return all(_depends_on_constants(read, depth - 1) for read in value.inputs[0].inputs if read.name)


def weights_shape(value: Value) -> tuple[int, ...] | None:
    """Return the shape of a constant or an encoded weight, without computing it; None when it is neither."""
    if is_constant(value):
        return shape_of_constant(value)
    if not _depends_on_constants(value, _DEEPEST):
        return None
    try:
        return _shape(value)
    except (IndexError, TypeError, ValueError):
        return None


def _shape(value: Value) -> tuple[int, ...] | None:
    if is_constant(value):
        return shape_of_constant(value)
    node = value.inputs[0]
    shapes = [_shape(read) for read in node.inputs if read.name]
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes):
        return None
    match node.op, known:
        case "Cast", [shape]:
            return shape
        case "Mul", [first, second]:
            return np.broadcast_shapes(first, second)
        case "Gather", [table, places] if not int(node.attrs.get("axis", 0)):
            return (*places, *table[1:])
        case "Reshape", [shape, _] if (target := array_of(node.inputs[1])) is not None:
            sizes = [int(size) for size in target]
            rest = math.prod(size for size in sizes if size != -1)
            return tuple(math.prod(shape) // rest if size == -1 else size for size in sizes) if rest else None
        case "Slice", [(size,), _, _]:
            start, stop = (array_of(read) for read in node.inputs[1:])
            return None if start is None or stop is None else (len(range(size)[int(start[0]) : int(stop[0])]),)
        case _:
            return None


def weights_of(value: Value) -> Array | None:
    """Return the values of a constant or an encoded weight, not to be written to; None when it is neither.

    Raises
    ------
    InputError
        If the nodes cannot be computed.
    """
    if is_constant(value):
        return array_of(value)
    if not is_encoded(value):
        return None
    try:
        found = _evaluated(value.inputs[0])
    except (IndexError, ValueError):
        found = None
    if found is None or found.shape != weights_shape(value):
        raise InputError(f"weight '{value.name}': its nodes do not compute a tensor of shape {weights_shape(value)}")
    return found


def _evaluated(node: Node) -> Array | None:
    operands: list[Any] = [
        array_of(read) if is_constant(read) else _evaluated(read.inputs[0]) for read in node.inputs if read.name
    ]
    if any(operand is None for operand in operands):
        return None
    match node.op, operands:
        case "Cast", [stored]:
            dtype = numpy_dtype(int(node.attrs["to"]))
            return None if dtype is None else np.asarray(stored).astype(dtype)
        case "Mul", [first, second]:
            return np.asarray(first * second)
        case "Gather", [table, places]:
            return np.asarray(np.take(table, places, axis=0))
        case "Reshape", [stored, shape]:
            return np.asarray(stored).reshape([int(size) for size in shape])
        case "Slice", [stored, starts, ends] if np.ndim(stored) == 1:
            return np.asarray(stored)[int(starts[0]) : int(ends[0])]
        case _:
            return None
