"""Attributes between ONNX messages and Python values.

===================  ====================================================================
FLOAT, INT           ``float``, ``int``
STRING               ``str``; ``bytes`` when it is not UTF-8
TENSOR, SPARSE_..    a constant of the graph library
GRAPH                a graph of the graph library
TYPE_PROTO           the message itself
plurals              lists of these
reference            the ``AttributeProto`` itself (attributes of function bodies)
===================  ====================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx_graphsurgeon as gs
from onnx import AttributeProto, TypeProto

from snn_optimizer.ir.tensors import SparseTensor

__all__ = ["decode_plain", "encode_plain", "is_plain", "kind_of", "same_value"]

_FIELDS: Final[Mapping[int, str]] = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TYPE_PROTO: "tp",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
    AttributeProto.TYPE_PROTOS: "type_protos",
}
_PLURAL: Final[Mapping[int, int]] = {
    AttributeProto.FLOAT: AttributeProto.FLOATS,
    AttributeProto.INT: AttributeProto.INTS,
    AttributeProto.STRING: AttributeProto.STRINGS,
    AttributeProto.TENSOR: AttributeProto.TENSORS,
    AttributeProto.SPARSE_TENSOR: AttributeProto.SPARSE_TENSORS,
    AttributeProto.GRAPH: AttributeProto.GRAPHS,
    AttributeProto.TYPE_PROTO: AttributeProto.TYPE_PROTOS,
}


def is_plain(kind: int) -> bool:
    """Tell whether an attribute of this type holds no tensor and no graph."""
    return kind in _FIELDS


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def decode_plain(attribute: AttributeProto) -> Any:
    """Return the value of an attribute that holds no tensor and no graph."""
    if attribute.ref_attr_name:
        return attribute
    kind = attribute.type
    if kind == AttributeProto.STRING:
        return _text(attribute.s)
    if kind == AttributeProto.STRINGS:
        return [_text(data) for data in attribute.strings]
    held = getattr(attribute, _FIELDS[kind])
    return list(held) if kind in _PLURAL.values() else held


_SINGULAR: Final[tuple[tuple[tuple[type, ...], int], ...]] = (
    ((bool, int, np.integer, np.bool_), AttributeProto.INT),
    ((float, np.floating), AttributeProto.FLOAT),
    ((str, bytes), AttributeProto.STRING),
    ((np.ndarray,), AttributeProto.TENSOR),
    ((TypeProto,), AttributeProto.TYPE_PROTO),
)


def _singular_kind(value: Any) -> int | None:
    if isinstance(value, gs.Graph):
        return int(AttributeProto.GRAPH)
    if isinstance(value, gs.Constant):
        sparse = isinstance(value._values, SparseTensor)  # noqa: SLF001 -- `values` would load it
        return int(AttributeProto.SPARSE_TENSOR if sparse else AttributeProto.TENSOR)
    return next((int(kind) for types, kind in _SINGULAR if isinstance(value, types)), None)


def kind_of(name: str, value: Any, origin: int | None) -> int:
    """Return the attribute type of a Python value.

    Parameters
    ----------
    name : str
        For the message.
    value
        The value; an empty list has the type it had before, INTS when it is new.
    origin : int or None
        The type the attribute had in the file.

    Raises
    ------
    TypeError
        If the value is of no kind an attribute can hold.
    """
    if isinstance(value, (list, tuple)):
        kind = _plural_kind(value, origin)
    else:
        kind = _singular_kind(value)
        if kind == AttributeProto.INT and origin == AttributeProto.FLOAT:
            kind = int(AttributeProto.FLOAT)
    if kind is None:
        raise TypeError(f"attribute '{name}' cannot hold {type(value).__name__} {value!r}")
    return kind


def _plural_kind(values: Sequence[Any], origin: int | None) -> int | None:
    if not values:
        return origin if origin is not None and origin in _PLURAL.values() else int(AttributeProto.INTS)
    kinds = {_singular_kind(item) for item in values}
    numbers = kinds <= {AttributeProto.FLOAT, AttributeProto.INT}
    if numbers and (len(kinds) == 2 or origin == AttributeProto.FLOATS):
        return int(AttributeProto.FLOATS)
    kind = kinds.pop()
    return None if kinds or kind is None else int(_PLURAL[kind])


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


_CONVERT: Final[Mapping[int, Callable[[Any], Any]]] = {
    AttributeProto.FLOAT: float,
    AttributeProto.FLOATS: float,
    AttributeProto.INT: int,
    AttributeProto.INTS: int,
    AttributeProto.STRING: _bytes,
    AttributeProto.STRINGS: _bytes,
}


def encode_plain(attribute: AttributeProto, kind: int, value: Any) -> None:
    """Write a value that holds no tensor and no graph; sets the type too."""
    field = _FIELDS[kind]
    attribute.type = kind
    attribute.ClearField(field)
    if kind == AttributeProto.TYPE_PROTO:
        attribute.tp.CopyFrom(value)
    elif kind == AttributeProto.TYPE_PROTOS:
        attribute.type_protos.extend(value)
    elif kind in _PLURAL.values():
        getattr(attribute, field).extend(map(_CONVERT[kind], value))
    else:
        setattr(attribute, field, _CONVERT[kind](value))


def same_value(old: Any, new: Any) -> bool:
    """Tell whether two plain attribute values are the same; NaN is itself, 1 is not 1.0."""
    if isinstance(old, (list, tuple)):
        return type(old) is type(new) and len(old) == len(new) and all(map(same_value, old, new))
    if not isinstance(old, (bool, int, float, str, bytes)):
        return old is new
    return type(old) is type(new) and bool(old == new or (old != old and new != new))  # noqa: PLR0124 -- NaN
