"""Values that vary, as NIR sees them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Signal"]


@dataclass(frozen=True)
class Signal:
    """A value that varies: the nodes whose outputs it adds up, and its shape without the batch."""

    sources: tuple[str, ...]
    shape: tuple[int, ...]
