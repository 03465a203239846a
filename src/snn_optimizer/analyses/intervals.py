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
    with np.errstate(invalid="ignore"):  # an infinite end of an infinite magnitude is NaN: a range knows what to do
        return low - margin, high + margin


def contract(
    weights: npt.NDArray[Any],
    incoming: Range,
    bias: npt.NDArray[Any] | Range | None,
    roundoff: float,
    limit: int | None = None,
    totals: Array | None = None,
) -> Range:
    """Bound ``weights @ x + bias`` row by row.

    Parameters
    ----------
    weights : array, shape (rows, columns)
    incoming : Range, shape (columns,) or (views, columns)
        Several views of ``x`` are bounded in one pass over the weights.
    bias : array of shape (rows,), or Range of that shape or (views, rows), optional
    roundoff : float
    limit : int, optional
        How many entries of ``x`` are non-zero at most.
    totals : array, shape (views,), optional
        What the entries of ``x``, none of them negative, add up to at most.

    Returns
    -------
    Range, shape (rows,) or (views, rows)

    Notes
    -----
    Any summation tree over ``n`` terms, products and FMA included, is off by at most
    ``gamma_k sum |t_i|`` with ``k = 2 n + 1`` (Higham, *Accuracy and Stability of Numerical
    Algorithms*, section 4.2); zero weights add nothing, so ``n`` counts the non-zero ones.
    Since ``t + gamma |t|`` grows with ``t``, the largest result is at most the sum of it over
    the upper ends of the terms: negative terms do not widen the upper bound.

    With a limit all but ``limit`` terms are exact zeros, so the result is at most the sum over
    as many largest non-negative upper ends.

    With a total ``t`` and any ``l >= 0`` the positive terms are at most ``l t + sum of max(w - l, 0) x``, by duality
    of linear programs. With the ``l`` chosen this is the optimum where the upper ends of ``x`` are equal.
    """
    rows, columns = weights.shape
    lead = np.broadcast_shapes(incoming.low.shape[:-1], () if not isinstance(bias, Range) else bias.low.shape[:-1])
    shape = (int(np.prod(lead)), columns)
    low, high, fixed = (
        np.broadcast_to(a, (*lead, columns)).reshape(shape) for a in (incoming.low, incoming.high, incoming.fixed)
    )
    infinite = ~(np.isfinite(low) & np.isfinite(high))
    low, high = np.where(infinite, 0, low), np.where(infinite, 0, high)
    # (columns, 6 kinds of terms x views): one product with the weights serves all of them
    varied = np.logical_not(fixed)
    for_positive = _terms([high, np.abs(high), low, np.abs(low), varied, infinite])
    for_negative = _terms([low, -np.abs(low), high, -np.abs(high), varied, infinite])
    if not isinstance(bias, Range):
        bias = Range.constant(np.zeros(rows) if bias is None else bias)
    offset_low, offset_high = (np.broadcast_to(a, (*lead, rows)).reshape(-1, rows) for a in (bias.low, bias.high))
    lower, upper = (np.empty((shape[0], rows)) for _ in range(2))
    steady = np.empty((shape[0], rows), np.bool_)
    step = max(1, CHUNK // max(columns, 1))
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, rows, step):
            block = np.asarray(weights[start : start + step], np.float64)
            part = slice(start, start + step)
            sums = (np.maximum(block, 0) @ for_positive).reshape(len(block), 6, -1).transpose(1, 2, 0)
            others = (np.minimum(block, 0) @ for_negative).reshape(len(block), 6, -1).transpose(1, 2, 0)
            gamma = _gamma(np.count_nonzero(block, axis=1), roundoff)
            most, least = sums[1] + others[1], sums[3] + others[3]
            size = np.maximum(np.abs(offset_low[:, part]), np.abs(offset_high[:, part]))
            size = np.where((most > 0) | (least > 0), size, 0)
            unknown = sums[5] - others[5] > 0
            above = sums[0] + others[0] + gamma * (most + size)
            below = sums[2] + others[2] - gamma * (least + size)
            if limit is not None and limit < columns:
                gamma = _gamma(np.minimum(np.count_nonzero(block, axis=1), limit), roundoff)
                largest = _largest_sums(block, low.min(axis=0), high.max(axis=0), limit) * (1 + gamma)
                above = np.minimum(above, largest[0] + gamma * size)
                below = np.maximum(below, -largest[1] - gamma * size)
            if totals is not None:
                above = np.minimum(above, _shared(block, np.asarray(high), totals) * (1 + gamma) + gamma * size)
            upper[:, part] = np.where(unknown, np.inf, above + offset_high[:, part])
            lower[:, part] = np.where(unknown, -np.inf, below + offset_low[:, part])
            steady[:, part] = (sums[4] - others[4] == 0) & (offset_low[:, part] == offset_high[:, part])
        return Range.of(*(a.reshape(*lead, rows) for a in (lower, upper, steady)))


def _shared(block: Array, high: Array, totals: Array) -> Array:
    """Bound positive terms by what all entries add up to; (views, rows)."""
    largest, total = float(high.max(initial=0)), float(totals[-1])
    columns = block.shape[1]
    if largest <= 0 or not total < largest * (columns - 1):
        return np.full((len(totals), len(block)), np.inf)
    place = columns - 1 - int(total / largest)
    price = np.maximum(np.partition(block, place, axis=1)[:, place], 0)
    return price * totals[:, np.newaxis] + high @ np.maximum(block - price[:, np.newaxis], 0).T


def _terms(kinds: list[npt.NDArray[Any]]) -> Array:
    """Return what weights are multiplied with: (columns, kinds x views)."""
    table = np.stack([np.asarray(kind, np.float64) for kind in kinds])
    return table.reshape(-1, table.shape[-1]).T


def _gamma(count: npt.NDArray[Any], roundoff: float) -> Array:
    """Relative error of sums of as many products; their float64 evaluation is off too, which the factor 2 covers."""
    terms = 2.0 * count + 1
    return np.asarray(2 * terms * roundoff / (1 - 2 * terms * roundoff))


def _largest_sums(block: Array, low: Array, high: Array, limit: int) -> Array:
    """Return per row the sum of the ``limit`` largest terms, and of the ``limit`` largest negated ones."""
    sums = []
    for ends in ((high, low), (-low, -high)):
        terms = np.maximum(np.maximum(block * ends[0], block * ends[1]), 0)
        cut = terms.shape[1] - limit
        sums.append(np.partition(terms, cut, axis=1)[:, cut:].sum(axis=1))
    return np.stack(sums)
