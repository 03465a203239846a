"""The declared domain of a model's inputs: the premise of every proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import InputError

__all__ = ["InputDomain"]


@dataclass(frozen=True, slots=True)
class InputDomain:
    """Intervals that the values of the graph inputs never leave.

    Attributes
    ----------
    default : tuple of float
        Interval of every input that is not named; spikes and intensities: (0, 1).
    named : mapping from input name to (low, high)
        Bounds are scalars or arrays that broadcast into the input's trailing
        axes, so that single features can be declared.
    """

    default: tuple[float, float] = (0.0, 1.0)
    named: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (low, high) in {"": self.default, **self.named}.items():
            lower, upper = np.asarray(low, np.float64), np.asarray(high, np.float64)
            if np.isnan(lower).any() or np.isnan(upper).any() or (lower > upper).any():
                place = f"of '{name}'" if name else "default"
                raise InputError(f"input range {place} is {lower}..{upper}: the low end must not exceed the high end")

    def interval(self, name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the bounds of one input as float64 arrays."""
        low, high = self.named.get(name, self.default)
        return np.asarray(low, np.float64), np.asarray(high, np.float64)

    def is_declared(self, name: str) -> bool:
        """Tell whether the caller named this input."""
        return name in self.named

    def scalar(self, name: str) -> tuple[float, float]:
        """Return the hull of an input's interval, for generators of test data."""
        low, high = self.interval(name)
        return float(low.min()), float(high.max())

    def widened(self, name: str, low: float, high: float) -> InputDomain:
        """Return a domain in which input ``name`` also covers ``[low, high]``."""
        old_low, old_high = self.interval(name)
        merged = (np.minimum(old_low, low), np.maximum(old_high, high))
        return InputDomain(default=self.default, named={**self.named, name: merged})
