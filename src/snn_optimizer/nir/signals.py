"""Values that vary, as NIR sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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
    picked : array of int or None
        Which entries of the first axis of their sum it is, in order; weights that read it have zeros for the others.
    whole : int
        Entries of that axis, where some are picked.
    """

    sources: tuple[str, ...]
    shape: tuple[int, ...]
    factor: float = 1.0
    picked: npt.NDArray[np.int64] | None = None
    whole: int = 0

    def weights(self, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the weights that read the sources themselves; the inputs are their second axis."""
        if self.factor != 1.0:
            weight = np.asarray(weight * self.factor, weight.dtype)
        if self.picked is None:
            return weight
        full = np.zeros((weight.shape[0], self.whole, *weight.shape[2:]), weight.dtype)
        for column, entry in enumerate(self.picked):
            full[:, entry] += weight[:, column]
        return full
