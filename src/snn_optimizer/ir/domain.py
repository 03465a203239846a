"""The declared domain of a model's inputs: the premise of every proof."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import InputError, did_you_mean

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
    max_active : int, optional
        How many entries of every input that is not named are non-zero at one step of one sample at most; see
        :mod:`~snn_optimizer.ir.activity_limit` for what a step of a sample is. No limit by default.
    named_active : mapping from input name to int
        The same of single inputs.
    """

    default: tuple[float, float] = (0.0, 1.0)
    named: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]] = field(default_factory=dict)
    max_active: int | None = None
    named_active: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (low, high) in {"": self.default, **self.named}.items():
            lower, upper = np.asarray(low, np.float64), np.asarray(high, np.float64)
            if np.isnan(lower).any() or np.isnan(upper).any() or (lower > upper).any():
                place = f"of '{name}'" if name else "default"
                raise InputError(f"input range {place} is {lower}..{upper}: the low end must not exceed the high end")
            if self.most_active(name) is not None and ((lower > 0) | (upper < 0)).any():
                place = f"of '{name}'" if name else "default"
                raise InputError(
                    f"input range {place} is {lower}..{upper} and holds no zero, which an input with at most "
                    f"{self.most_active(name)} active entries takes: declare a range around zero or no activity limit"
                )
        for name, limit in {"": self.max_active, **self.named_active}.items():
            if limit is not None and limit < 1:
                place = f"of input '{name}'" if name else "of the inputs"
                raise InputError(f"{limit} active entries {place}: at least 1 must be allowed")

    def interval(self, name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the bounds of one input as float64 arrays."""
        low, high = self.named.get(name, self.default)
        return np.asarray(low, np.float64), np.asarray(high, np.float64)

    def forbid_unknown(self, known: Sequence[str]) -> None:
        """Refuse a declaration of an input that is not among the known ones: nothing would come of it.

        Raises
        ------
        InputError
            With the inputs there are, and the nearest.
        """
        for name in (*self.named, *self.named_active):
            if name not in known:
                raise InputError(
                    f"the model has no input '{name}' to declare a range or activity of; it has {', '.join(known)}"
                    f"{did_you_mean(name, known)}"
                )

    def is_declared(self, name: str) -> bool:
        """Tell whether the caller named this input."""
        return name in self.named

    def most_active(self, name: str) -> int | None:
        """Return how many entries of an input are non-zero at one step of one sample, None without a limit."""
        return self.named_active.get(name, self.max_active)

    def active_limits(self, names: Iterable[str]) -> dict[str, int]:
        """Return the limits of those of the inputs that have one."""
        limits = {name: self.most_active(name) for name in names}
        return {name: limit for name, limit in limits.items() if limit is not None}

    def premises(self) -> list[str]:
        """Return what is assumed of the inputs, in sentences."""
        found = [f"inputs lie in {self.default[0]:g}..{self.default[1]:g}"]
        for name, (low, high) in self.named.items():
            found.append(f"input '{name}' lies in {float(np.min(low)):g}..{float(np.max(high)):g}")
        if self.max_active is not None:
            found.append(f"at most {self.max_active} entries of an input are non-zero at one step of one sample")
        for name, limit in self.named_active.items():
            found.append(f"at most {limit} entries of input '{name}' are non-zero at one step of one sample")
        return found

    def scalar(self, name: str) -> tuple[float, float]:
        """Return the hull of an input's interval, for generators of test data."""
        low, high = self.interval(name)
        return float(low.min()), float(high.max())

    def widened(self, name: str, low: float, high: float) -> InputDomain:
        """Return a domain in which input ``name`` also covers ``[low, high]``."""
        old_low, old_high = self.interval(name)
        merged = (np.minimum(old_low, low), np.maximum(old_high, high))
        return replace(self, named={**self.named, name: merged})
