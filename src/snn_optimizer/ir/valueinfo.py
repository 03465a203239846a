"""Declared types between ONNX messages and values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from onnx import TensorProto, TypeProto, ValueInfoProto

from snn_optimizer.ir.elements import numpy_dtype, onnx_dtype
from snn_optimizer.ir.types import Dimension, Value

__all__ = ["declared_type", "type_kind", "write_value_info"]

_KINDS: Final = ("sequence_type", "map_type", "optional_type", "opaque_type", "sparse_tensor_type")


def type_kind(proto: TypeProto) -> str:
    """Return the kind of a type in the words of the graph library."""
    return next((kind for kind in _KINDS if proto.HasField(kind)), "tensor_type")


def declared_type(
    entries: Iterable[ValueInfoProto],
) -> tuple[np.dtype[Any] | None, list[Dimension] | None]:
    """Return the type and shape that several declarations of one value give it, first ones first."""
    dtype: np.dtype[Any] | None = None
    shape: list[Dimension] | None = None
    for entry in entries:
        next_dtype, next_shape = _read_type(entry.type)
        dtype = next_dtype if dtype is None else dtype
        shape = next_shape if shape is None else shape
    return dtype, shape


def _read_type(proto: TypeProto) -> tuple[np.dtype[Any] | None, list[Dimension] | None]:
    """Return element type and shape of a tensor type; None where unknown or no tensor."""
    if not proto.HasField("tensor_type"):
        return None, None
    tensor = proto.tensor_type
    dtype = numpy_dtype(tensor.elem_type)  # None for a type newer than the library, kept in the file
    if not tensor.HasField("shape"):
        return dtype, None
    return dtype, [_read_dimension(dim) for dim in tensor.shape.dim]


def _read_dimension(dim: Any) -> Dimension:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    if dim.HasField("dim_param") and dim.dim_param:
        return str(dim.dim_param)
    return None


def _same(first: Any, second: Any) -> bool:
    return (first is None) == (second is None) and (first is None or first == second)


def write_value_info(
    value: Value, origin: ValueInfoProto | None, declared: Iterable[ValueInfoProto], target: ValueInfoProto
) -> None:
    """Describe a value: as in the file when type and shape are still those of the file.

    Parameters
    ----------
    value : Value
    origin : ValueInfoProto or None
        What the file says in this place.
    declared : iterable of ValueInfoProto
        All the file says about the value in this graph, in order of precedence.
    target : ValueInfoProto
    """
    shape = None if value.shape is None else list(value.shape)
    if origin is not None:
        target.CopyFrom(origin)
        old_dtype, old_shape = declared_type(declared)
        if value.name != origin.name:
            target.name = value.name
        if _same(old_dtype, value.dtype) and _same(old_shape, shape):
            return
    else:
        target.name = value.name
    if value.dtype is None and shape is None:
        return
    tensor = target.type.tensor_type
    tensor.elem_type = TensorProto.UNDEFINED if value.dtype is None else onnx_dtype(np.dtype(value.dtype))
    tensor.ClearField("shape")
    if shape is None:
        return
    tensor.shape.SetInParent()
    for size in shape:
        dim = tensor.shape.dim.add()
        if isinstance(size, str):
            dim.dim_param = size
        elif size is not None:
            dim.dim_value = int(size)
