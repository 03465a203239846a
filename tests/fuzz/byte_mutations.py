"""Damage to the bytes of a file."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

__all__ = ["BYTES"]


def truncate(data: bytearray, rng: Random) -> None:
    del data[rng.randrange(len(data)) :]


def flip_bits(data: bytearray, rng: Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def overwrite(data: bytearray, rng: Random) -> None:
    start = _place(data, rng)
    data[start : start + 8] = rng.randbytes(rng.randint(1, 8))


def remove_bytes(data: bytearray, rng: Random) -> None:
    start = _place(data, rng)
    del data[start : start + rng.choice((1, 2, 7, 100))]


def repeat_bytes(data: bytearray, rng: Random) -> None:
    start = _place(data, rng)
    data[start:start] = data[start : start + rng.choice((1, 16, 300))]


def insert_varint(data: bytearray, rng: Random) -> None:
    start = _place(data, rng)
    data[start:start] = b"\xff" * rng.randint(1, 9) + b"\x01"


def break_text(data: bytearray, rng: Random) -> None:
    """Make a letter of a name something that is not UTF-8."""
    letters = [i for i in range(max(0, len(data) - 4000), len(data)) if 97 <= data[i] <= 122]
    if letters:
        data[rng.choice(letters)] = 0xFF


def _place(data: bytearray, rng: Random) -> int:
    """Choose a position, by preference where structure is: at the ends of the file."""
    size = max(1, len(data))
    reach = size if rng.random() < 0.3 else min(size, 3000)
    position = rng.randrange(reach)
    return position if rng.random() < 0.5 else size - 1 - position


BYTES: Final[dict[str, Callable[[bytearray, Random], None]]] = {
    edit.__name__: edit
    for edit in (truncate, flip_bits, overwrite, remove_bytes, repeat_bytes, insert_varint, break_text)
}
