"""Weights that are stored in few bits: what standard nodes make of constants, evaluated here.

Only what turns stored numbers into a weight is followed: casts, scales, tables and shapes.
"""

from __future__ import annotations

from typing import Any, Final, cast

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
    """Return the shape of a constant or an encoded weight; None when it is neither or not known."""
    if is_constant(value):
        return shape_of_constant(value)
    if value.shape is None or not all(isinstance(size, int) for size in value.shape):
        return None
    return cast("tuple[int, ...]", tuple(value.shape)) if _depends_on_constants(value, _DEEPEST) else None


def weights_of(value: Value) -> Array | None:
    """Return the values of a constant or an encoded weight, not to be written to; None when it is neither.

    Raises
    ------
    InputError
        If the nodes do not compute what the shape of the weight says.
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
            return np.asarray(np.take(table, places, axis=int(node.attrs.get("axis", 0))))
        case "Reshape", [stored, shape]:
            return np.asarray(stored).reshape([int(size) for size in shape])
        case "Slice", [stored, starts, ends] if np.ndim(stored) == 1:
            return np.asarray(stored)[int(starts[0]) : int(ends[0])]
        case _:
            return None
