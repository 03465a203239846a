"""What NIR cannot say: each loss has a name, and is taken only when the caller allows it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from snn_optimizer.errors import InputError, UnsupportedModelError

__all__ = ["LOSSES", "Losses"]

LOSSES: Final = {
    "fire-at-threshold": "it fires at the threshold too (>=); NIR neurons fire above it (>)",
    "multi-spike": "it fires several times in one step; NIR neurons fire once",
    "no-reset": "a spike does not reset it; NIR neurons are set to v_reset",
    "potential": "its potential is an output; NIR neurons put out spikes",
    "potential-floor": "its potential has a floor; NIR has none",
    "reset-delay": "a spike resets it one step later; NIR neurons are reset at once",
    "soft-reset": "a spike takes the threshold off its potential; NIR neurons are set to v_reset",
}


@dataclass
class Losses:
    """The losses a caller allows.

    Attributes
    ----------
    allowed : collection of str
        Names out of :data:`LOSSES`.
    taken : list of str
        What was lost, one line each.
    """

    allowed: Collection[str] = ()
    taken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in self.allowed:
            if name not in LOSSES:
                raise InputError(f"--allow-loss '{name}' is no known loss; known: {', '.join(LOSSES)}")

    def take(self, name: str, what: str) -> None:
        """Lose something.

        Raises
        ------
        UnsupportedModelError
            Unless the caller allows it.
        """
        if name not in self.allowed:
            raise UnsupportedModelError(f"{what} cannot be written to NIR: {LOSSES[name]} (--allow-loss {name})")
        self.taken.append(f"{name}: {what}: {LOSSES[name]}")
