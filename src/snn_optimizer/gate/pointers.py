"""Git LFS pointers: the three lines that stand for a large file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Pointer", "pointer_of_file", "read_pointer"]

_START: Final = b"version https://git-lfs.github.com/spec/v1\n"
_LONGEST: Final = 1024  # bytes, by the specification


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which file it stands for: SHA-256 in hexadecimal, and bytes."""

    digest: str
    size: int


def read_pointer(data: bytes) -> Pointer | None:
    """Return the pointer that the contents of a file are, None when they are none."""
    if len(data) > _LONGEST or not data.startswith(_START):
        return None
    digest = re.search(rb"^oid sha256:([0-9a-f]{64})$", data, re.MULTILINE)
    size = re.search(rb"^size ([0-9]{1,18})$", data, re.MULTILINE)
    return Pointer(digest[1].decode(), int(size[1])) if digest and size else None


def pointer_of_file(path: Path) -> Pointer | None:
    """Return the pointer that a file is, None when it is none or cannot be read."""
    try:
        with path.open("rb") as file:
            return read_pointer(file.read(_LONGEST + 1))
    except (OSError, ValueError):
        return None
