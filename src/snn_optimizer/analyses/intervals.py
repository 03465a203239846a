"""Intervals of values, sound in floating point.

A :class:`Range` bounds every element of a value along its axes; axes that do
not matter (time, batch, space) have size one. ``fixed`` marks elements that
take one and the same value at every step, for every sample and every input.
Bounds are float64 and widened by the rounding of the type the model computes
in, so that what onnxruntime returns lies inside whatever the order of its sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Range", "contract", "unit_roundoff", "widen"]

Array = npt.NDArray[np.float64]
CHUNK = 1 << 22  # weights converted to float64 at a time: 32 MiB


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds ``low <= value <= high``; arrays that broadcast against the value."""

    low: Array
    high: Array
    fixed: npt.NDArray[np.bool_]

    @classmethod
    def unknown(cls, rank: int) -> Range:
        """Return the range that says nothing."""
        shape = (1,) * rank
        return cls(np.full(shape, -np.inf), np.full(shape, np.inf), np.zeros(shape, np.bool_))

    @classmethod
    def of(cls, low: npt.ArrayLike, high: npt.ArrayLike, fixed: npt.ArrayLike = False) -> Range:
        """Broadcast the three parts against each other; NaN bounds become unknown."""
        lower, upper, steady = np.broadcast_arrays(
            np.asarray(low, np.float64), np.asarray(high, np.float64), np.asarray(fixed, np.bool_)
        )
        bad = np.isnan(lower) | np.isnan(upper)
        if bad.any():
            lower, upper = np.where(bad, -np.inf, lower), np.where(bad, np.inf, upper)
            steady = steady & ~bad
        return cls(lower, upper, steady)

    @classmethod
    def constant(cls, array: npt.NDArray[Any]) -> Range:
        """Return the range of a constant: its own elements."""
        values = np.asarray(array, np.float64)
        return cls.of(values, values, fixed=True)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return self.low.ndim

    def apply(self, function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Range:
        """Return the range with one rearrangement applied to all three parts."""
        return Range(function(self.low), function(self.high), function(self.fixed))

    def join(self, other: Range) -> Range:
        """Return the smallest range that holds both."""
        same = self.fixed & other.fixed & (self.low == other.low) & (self.high == other.high)
        return Range.of(np.minimum(self.low, other.low), np.maximum(self.high, other.high), same)

    def equals(self, other: Range) -> bool:
        """Tell whether two ranges are the same, element by element."""
        return (
            self.low.shape == other.low.shape
            and bool(np.array_equal(self.low, other.low))
            and bool(np.array_equal(self.high, other.high))
            and bool(np.array_equal(self.fixed, other.fixed))
        )


def unit_roundoff(dtype: Any) -> float:
    """Return half the spacing of floats at one."""
    try:
        return float(np.finfo(np.dtype(dtype)).eps) / 2
    except (TypeError, ValueError):
        return 2.0**-24


def widen(low: Array, high: Array, magnitude: npt.ArrayLike, roundoff: float) -> tuple[Array, Array]:
    """Open an interval by the rounding of results of this magnitude; exact zeros stay."""
    margin = np.asarray(magnitude) * (2 * roundoff)
    return low - margin, high + margin


def contract(weights: npt.NDArray[Any], incoming: Range, bias: npt.NDArray[Any] | None, roundoff: float) -> Range:
    """Bound ``weights @ x + bias`` row by row.

    Parameters
    ----------
    weights : array, shape (rows, columns)
    incoming : Range, shape (columns,)
    bias : array, shape (rows,), optional

    Notes
    -----
    Any summation tree over ``n`` terms, products and FMA included, is off by at most
    ``gamma_k sum |t_i|`` with ``k = 2 n + 1`` (Higham, *Accuracy and Stability of Numerical
    Algorithms*, section 4.2); zero weights add nothing, so ``n`` counts the non-zero ones.
    Since ``t + gamma |t|`` grows with ``t``, the largest result is at most the sum of it over
    the upper ends of the terms: negative terms do not widen the upper bound.
    """
    rows, columns = weights.shape
    low, high = np.broadcast_to(incoming.low, (columns,)), np.broadcast_to(incoming.high, (columns,))
    fixed = np.broadcast_to(incoming.fixed, (columns,))
    infinite = ~(np.isfinite(low) & np.isfinite(high))
    low, high = np.where(infinite, 0, low), np.where(infinite, 0, high)
    flags = [~fixed, infinite]
    for_positive = np.stack([high, np.abs(high), low, np.abs(low), *flags], axis=1).astype(np.float64)
    for_negative = np.stack([low, -np.abs(low), high, -np.abs(high), *flags], axis=1).astype(np.float64)
    lower, upper, steady = np.empty(rows), np.empty(rows), np.empty(rows, np.bool_)
    step = max(1, CHUNK // max(columns, 1))
    offset = np.zeros(rows) if bias is None else np.asarray(bias, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, rows, step):
            block = np.asarray(weights[start : start + step], np.float64)
            part = slice(start, start + step)
            positive = np.maximum(block, 0)
            sums, others = positive @ for_positive, np.minimum(block, 0) @ for_negative
            terms = 2 * np.count_nonzero(block, axis=1) + 1
            # the float64 evaluation of these sums is off too, by 2^-29 of the same gamma; doubling covers it
            gamma = 2 * terms * roundoff / (1 - 2 * terms * roundoff)
            most, least = sums[:, 1] + others[:, 1], sums[:, 3] + others[:, 3]
            moved = (most > 0) | (least > 0)
            size = np.where(moved, np.abs(offset[part]), 0)
            unknown = sums[:, 5] - others[:, 5] > 0
            upper[part] = np.where(unknown, np.inf, sums[:, 0] + others[:, 0] + offset[part] + gamma * (most + size))
            lower[part] = np.where(unknown, -np.inf, sums[:, 2] + others[:, 2] + offset[part] - gamma * (least + size))
            steady[part] = sums[:, 4] - others[:, 4] == 0
        return Range.of(lower, upper, steady)
