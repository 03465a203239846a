"""Take large tensors out of serialized models and put them back, without parsing them.

A model is read as a small *skeleton*: the same protobuf, in which every large
``raw_data`` holds a marker with the place of the bytes instead of the bytes. Writing goes
the other way: the skeleton is serialized with markers, and each marker is replaced by its
payload while the lengths of the enclosing messages are corrected. Neither direction ever
holds a second copy of the weights.

The wire format is that of https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Mapping
from typing import Final, TypeAlias

__all__ = ["Piece", "WireError", "extract", "marker", "read_marker", "splice"]

Piece: TypeAlias = memoryview | int
"""Part of a serialized model: bytes, or the number of a payload."""

_MARKER: Final = struct.Struct("<QQ")
_RAW_DATA: Final = 9

# message kind -> field number -> kind of the message in that field
_CHILDREN: Final[Mapping[str, Mapping[int, str]]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}  # fmt: skip


class WireError(ValueError):
    """The bytes are not a protobuf message."""


def marker(token: bytes, first: int, second: int = 0) -> bytes:
    """Return the stand-in for a payload; ``token`` must occur nowhere else."""
    return token + _MARKER.pack(first, second)


def read_marker(data: bytes, token: bytes) -> tuple[int, int] | None:
    """Return the two numbers of a marker, or None when ``data`` is not one."""
    if len(data) != len(token) + _MARKER.size or not data.startswith(token):
        return None
    first, second = _MARKER.unpack_from(data, len(token))
    return int(first), int(second)


def _read_varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    result = shift = 0
    while position < end and shift < 64:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
    raise WireError(f"a number is cut off at byte {position}")


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append((number & 0x7F) | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _next_field(data: memoryview, position: int, end: int) -> tuple[int, int, int]:
    """Return tag, start and end of the content of the field at ``position``."""
    tag, position = _read_varint(data, position, end)
    wire_type = tag & 7
    if wire_type == 2:
        length, position = _read_varint(data, position, end)
    elif wire_type == 0:
        start = position
        _, position = _read_varint(data, position, end)
        return tag, start, position
    elif wire_type in (1, 5):
        length = 8 if wire_type == 1 else 4
    else:
        raise WireError(f"wire type {wire_type} at byte {position}")
    if length > end - position:
        raise WireError(f"a field of {length} bytes is cut off at byte {position}")
    return tag, position, position + length


def extract(data: memoryview, token: bytes, threshold: int) -> bytes:
    """Copy a serialized model without its large ``raw_data``.

    Parameters
    ----------
    data : memoryview
        A serialized ``ModelProto``.
    token : bytes
        Starts each marker; the marker's numbers are offset and length within ``data``.
    threshold : int
        ``raw_data`` of more bytes is replaced.

    Raises
    ------
    WireError
        If a length points outside its message.
    """
    return _Extract(data, token, threshold).copy(0, len(data), "model")


class _Extract:
    def __init__(self, data: memoryview, token: bytes, threshold: int) -> None:
        self.data = data
        self.token = token
        self.threshold = threshold

    def copy(self, position: int, end: int, kind: str) -> bytes:
        """Copy one message of a kind, which lies between ``position`` and ``end``."""
        if end - position <= self.threshold:
            return bytes(self.data[position:end])
        children = _CHILDREN[kind]
        copied = bytearray()
        run = position  # start of the bytes not yet copied
        while position < end:
            field_start = position
            tag, start, position = _next_field(self.data, position, end)
            if position - start <= self.threshold or tag & 7 != 2:
                continue
            if kind == "tensor" and tag >> 3 == _RAW_DATA:
                content = marker(self.token, start, position - start)
            elif (child := children.get(tag >> 3)) is not None:
                content = self.copy(start, position, child)
            else:
                continue
            copied += self.data[run:field_start]
            copied += _varint(tag) + _varint(len(content)) + content
            run = position
        copied += self.data[run:end]
        return bytes(copied)


def splice(skeleton: bytes, token: bytes, sizes: list[int]) -> tuple[list[Piece], int]:
    """Plan the serialized model whose markers are replaced by payloads.

    Parameters
    ----------
    skeleton : bytes
        A serialized message; the first number of each marker is the number of a payload.
    token : bytes
        What the markers start with.
    sizes : list of int
        Bytes of each payload.

    Returns
    -------
    pieces : list of Piece
        What to write, in order.
    total : int
        Bytes in all.
    """
    positions: list[int] = []
    found = skeleton.find(token)
    while found >= 0:
        positions.append(found)
        found = skeleton.find(token, found + len(token))
    pieces: list[Piece] = []
    total = _Splice(memoryview(skeleton), token, positions, sizes).plan(0, len(skeleton), pieces)
    return pieces, total


class _Splice:
    def __init__(self, data: memoryview, token: bytes, positions: list[int], sizes: list[int]) -> None:
        self.data = data
        self.token = token
        self.positions = positions
        self.sizes = sizes

    def holds_marker(self, start: int, end: int) -> bool:
        index = bisect_left(self.positions, start)
        return index < len(self.positions) and self.positions[index] < end

    def plan(self, position: int, end: int, pieces: list[Piece]) -> int:
        """Append the pieces of one message; return its size."""
        total = 0
        run = position
        while position < end:
            field_start = position
            tag, start, position = _next_field(self.data, position, end)
            if not self.holds_marker(start, position):
                continue
            before = self.data[run:field_start]
            run = position
            inner: list[Piece] = []
            place = read_marker(bytes(self.data[start:position]), self.token)
            if place is not None:
                inner.append(place[0])
                size = self.sizes[place[0]]
            else:
                size = self.plan(start, position, inner)
            head = _varint(tag) + _varint(size)
            pieces += [before, memoryview(head), *inner]
            total += len(before) + len(head) + size
        pieces.append(self.data[run:end])
        return total + end - run
