"""Compare the bytes of constants without a copy of large ones."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Hashable, Iterator
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from snn_optimizer.ir.types import Array, Node, Value, array_of, dtype_of_constant, is_missing, shape_of_constant

__all__ = ["attribute_key", "attributes_key", "digest", "same_bytes", "value_key"]

_CHUNK: Final = 1 << 18  # elements read at a time; a mapped file is never in memory as a whole
_SMALL: Final = 256  # bytes up to which a constant is known by its contents, not by what holds it


def _chunks(array: Array) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the bytes of an array in C order, a piece at a time."""
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    for start in range(0, array.size, _CHUNK):
        yield np.asarray(flat[start : start + _CHUNK]).view(np.uint8)


def digest(array: Array) -> bytes:
    """Return a hash of the bytes of an array."""
    total = hashlib.blake2b(digest_size=16)
    for piece in _chunks(array):
        total.update(piece.data)
    return total.digest()


def same_bytes(first: Array, second: Array) -> bool:
    """Tell whether two arrays of one type and shape agree bit for bit; a NaN agrees with itself, 0 not with -0."""
    return all(map(np.array_equal, _chunks(first), _chunks(second)))


def value_key(value: Value) -> Hashable:
    """Return what two values must share to be the same: the object, or the contents of small constants."""
    return "missing" if is_missing(value) else _held_key(value)


def _held_key(value: Value) -> Hashable:
    shape, dtype = shape_of_constant(value), dtype_of_constant(value)
    if shape is None or dtype is None or prod(shape) * dtype.itemsize > _SMALL:
        return "value", id(value)
    array = array_of(value)
    return ("value", id(value)) if array is None else _array_key(array)


def _array_key(array: Array) -> Hashable:
    held = tuple(array.reshape(-1).tolist()) if array.dtype.kind == "O" else array.tobytes()
    return "constant", array.dtype.name, array.shape, held


def attributes_key(node: Node) -> tuple[tuple[str, Hashable], ...]:
    """Return what two nodes of one operator must share to have the same attributes."""
    return tuple(sorted((name, attribute_key(held)) for name, held in node.attrs.items()))


def attribute_key(held: Any) -> Hashable:
    """Return what two attributes must share to be the same; 1 is not 1.0 and 0.0 is not -0.0."""
    if isinstance(held, np.generic):
        held = held.item()
    if isinstance(held, float):
        return "float", struct.pack("<d", held)
    if isinstance(held, (bool, int, str, bytes)):
        return type(held).__name__, held
    if isinstance(held, (list, tuple)):
        return tuple(map(attribute_key, held))
    if isinstance(held, np.ndarray):
        return _array_key(held)
    if isinstance(held, Message):
        return type(held).__name__, held.SerializeToString(deterministic=True)
    return _held_key(held)  # a tensor: it may have no name and is there all the same
