"""Values that vary, as NIR sees them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Signal"]


@dataclass(frozen=True)
class Signal:
    """A value that varies.

    Attributes
    ----------
    sources : tuple of str
        The nodes whose outputs it adds up.
    shape : tuple of int
        Without the batch.
    factor : float
        What their sum is multiplied by; the weights that read it take it in.
    """

    sources: tuple[str, ...]
    shape: tuple[int, ...]
    factor: float = 1.0
