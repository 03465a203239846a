"""Values that are known but for their shape: an array that broadcasts to them.

Initial states are zeros of a shape only known at run time; the arithmetic a step does to
them is then arithmetic on one number (or one number per neuron), in the element type of the
model, rounded as the runtime rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx

from snn_optimizer.ir import Array, Node, Value, array_of, is_standard, shape_of_constant

__all__ = ["apply", "uniform"]

_LARGEST: Final = 1 << 16  # elements of a constant that is worth looking into
_DEEPEST: Final = 24  # nodes followed backwards

_ELEMENTWISE: Final[Mapping[str, Callable[..., Any]]] = {
    "Abs": np.abs,
    "Add": np.add,
    "And": np.logical_and,
    "Div": np.divide,
    "Equal": np.equal,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Identity": lambda x: x,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Not": np.logical_not,
    "Or": np.logical_or,
    "Relu": lambda x: np.maximum(x, np.zeros_like(x)),
    "Sign": np.sign,
    "Sub": np.subtract,
    "Where": np.where,
}
_RESHAPING: Final = frozenset({"Expand", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Tile"})


def apply(node: Node, arrays: Sequence[Array]) -> Array | None:
    """Return what an elementwise node computes from these operands; None for other nodes."""
    if not is_standard(node):
        return None
    with np.errstate(all="ignore"):
        if node.op == "Cast":
            target = onnx.helper.tensor_dtype_to_np_dtype(int(node.attrs["to"]))
            return np.asarray(arrays[0].astype(target))
        if node.op == "Clip":
            clipped = arrays[0]
            clipped = np.maximum(clipped, arrays[1]) if len(arrays) > 1 else clipped
            return np.asarray(np.minimum(clipped, arrays[2]) if len(arrays) > 2 else clipped)
        function = _ELEMENTWISE.get(node.op)
        if function is None or (node.op in ("Max", "Min") and len(arrays) != 2):
            return None
        return np.asarray(function(*arrays))


def uniform(value: Value, depth: int = _DEEPEST) -> Array | None:
    """Return an array that broadcasts to ``value`` and agrees with it; None when not known.

    The array of a value of equal elements has rank 0.
    """
    shape = shape_of_constant(value)
    if shape is not None:
        if np.prod(shape, dtype=np.int64) > _LARGEST:
            return None
        array = array_of(value)
        return None if array is None else _reduced(array)
    if not value.inputs or depth == 0:
        return None
    node = value.inputs[0]
    if is_standard(node, "ConstantOfShape"):
        fill = node.attrs.get("value")
        array = np.zeros(1, np.float32) if fill is None else array_of(fill)
        return None if array is None else np.asarray(array.reshape(()))
    if is_standard(node) and node.op in _RESHAPING:
        inner = uniform(node.inputs[0], depth - 1)
        return inner if inner is not None and (inner.ndim == 0 or node.op == "Expand") else None
    if is_standard(node, "CastLike"):
        inner = uniform(node.inputs[0], depth - 1)
        return inner if inner is not None and inner.dtype == value.dtype else None
    if not is_standard(node) or (node.op not in _ELEMENTWISE and node.op not in ("Cast", "Clip")):
        return None
    arrays = []
    for operand in node.inputs:
        array = uniform(operand, depth - 1)
        if array is None:
            return None
        arrays.append(array)
    return apply(node, arrays)


def _reduced(array: Array) -> Array:
    if array.size and (array == array.reshape(-1)[0]).all():
        return np.asarray(array.reshape(-1)[0])
    return array
