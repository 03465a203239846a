"""Interval arithmetic with outward rounding, for what onnxruntime computes in 32-bit floats.

Every bound is computed in double precision and opened by two errors: that of the float32 arithmetic it speaks about,
for any order of summation (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 4.2: ``gamma_n
sum |w x|``), and that of the double-precision arithmetic used here. The results are rounded outward to float32, so
that they come out the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from snn_optimizer.certificates.network import Array

__all__ = ["UNIT", "Ends", "hull", "linear", "outward", "product"]

UNIT: Final = 2.0**-24
"""Half the spacing of float32 at one."""

_DOUBLE: Final = 2.0**-52
_LEAST: Final = 2.0**-126  # below it float32 may be rounded to zero: a bound on every absolute error
_ROWS: Final = 1 << 22  # elements of a weight that are widened to double precision at a time


@dataclass(frozen=True, slots=True, eq=False)
class Ends:
    """Lower and upper bounds, one per unit or one for all (size 1)."""

    low: Array
    high: Array

    @classmethod
    def of(cls, low: Array | float, high: Array | float) -> Ends:
        """Make bounds of what may be scalars; what is not a number is unbounded."""
        first, second = np.atleast_1d(np.asarray(low, np.float64)), np.atleast_1d(np.asarray(high, np.float64))
        first, second = np.where(np.isnan(first), -np.inf, first), np.where(np.isnan(second), np.inf, second)
        return cls(*np.broadcast_arrays(first, second))

    @classmethod
    def unknown(cls) -> Ends:
        """Nothing is known."""
        return cls.of(-np.inf, np.inf)

    @property
    def size(self) -> Array:
        """Bound of the absolute value."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def equals(self, other: Ends) -> bool:
        """Tell whether two bounds are the same numbers."""
        return np.array_equal(self.low, other.low) and np.array_equal(self.high, other.high)

    def repeated(self, times: int) -> Ends:
        """Return the bounds with every unit in several places."""
        return self if self.low.size == 1 else Ends(np.repeat(self.low, times), np.repeat(self.high, times))

    def with_zero(self) -> Ends:
        """Return the hull with zero."""
        return Ends(np.minimum(self.low, 0), np.maximum(self.high, 0))

    def opened(self, slack: Array | float) -> Ends:
        """Return the bounds moved outward."""
        return Ends.of(self.low - slack, self.high + slack)

    def plus(self, other: Ends) -> Ends:
        """Return bounds of the float32 sum."""
        low, high = self.low + other.low, self.high + other.high
        size = self.size + other.size
        return Ends.of(low, high).opened(2 * UNIT * size + _LEAST)


def hull(values: Ends) -> Ends:
    """Return one interval around all."""
    return Ends.of(values.low.min(), values.high.max())


def product(first: Ends, second: Ends) -> Ends:
    """Return bounds of the float32 product; zero times anything is zero, because zeros are exact."""
    with np.errstate(invalid="ignore"):
        corners = [a * b for a in (first.low, first.high) for b in (second.low, second.high)]
    corners = [np.where(np.isnan(corner), 0.0, corner) for corner in corners]
    low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
    ends = Ends.of(low, high)
    slack = 2 * UNIT * np.where(np.isfinite(ends.size), ends.size, 0.0)
    return ends.opened(np.where(ends.size > 0, slack + _LEAST, 0.0))


def linear(weights: Array, bias: Array, reach: Array, inputs: Ends, fused: int = 0) -> Ends:
    """Return bounds of ``weights @ x + bias`` for any order of summation.

    Parameters
    ----------
    weights : array, shape (rows, inputs)
    bias : array, shape (rows,)
    reach : array, shape (rows,)
        Absolute values of all that went into the bias.
    inputs : Ends
        One per input, one for all, or one per row and input.
    fused : int
        How many more roundings every term goes through.
    """
    rows, columns = weights.shape
    shape = (rows, columns) if inputs.low.ndim > 1 else (1, columns)
    low, high = (np.broadcast_to(end, shape) for end in (inputs.low, inputs.high))
    bounded = np.isfinite(low) & np.isfinite(high)
    finite_low, finite_high = np.where(bounded, low, 0.0), np.where(bounded, high, 0.0)
    sizes = np.maximum(np.abs(finite_low), np.abs(finite_high))
    found = [np.empty(rows) for _ in range(4)]
    step = max(1, _ROWS // max(columns, 1))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        block = weights[part].astype(np.float64)
        sound = np.isfinite(block)
        block = np.where(sound, block, 0.0)
        positive, negative = np.maximum(block, 0), np.minimum(block, 0)
        near = part if len(low) > 1 else slice(None)
        found[0][part] = _rows_times(positive, finite_low[near]) + _rows_times(negative, finite_high[near])
        found[1][part] = _rows_times(positive, finite_high[near]) + _rows_times(negative, finite_low[near])
        found[2][part] = _rows_times(np.abs(block), sizes[near])
        found[3][part] = ((block != 0) & ~bounded[near]).any(axis=1) | ~sound.all(axis=1)
    offset = np.where(np.isfinite(bias), bias, 0.0).astype(np.float64)
    size = found[2] + reach
    terms = columns + 2 + fused
    slack = size * (_gamma(terms, UNIT) + _gamma(terms, _DOUBLE)) + terms * _LEAST * (size > 0)
    open_ended = (found[3] != 0) | ~np.isfinite(bias)
    low, high = found[0] + offset - slack, found[1] + offset + slack
    return Ends.of(np.where(open_ended, -np.inf, low), np.where(open_ended, np.inf, high))


def _rows_times(block: Array, values: Array) -> Array:
    return np.asarray(block @ values[0] if len(values) == 1 else (block * values).sum(axis=1))


def outward(low: Array, high: Array) -> tuple[Array, Array]:
    """Round bounds outward to float32."""
    with np.errstate(over="ignore"):
        down, up = low.astype(np.float32), high.astype(np.float32)
    down = np.where(down > low, np.nextafter(down, np.float32(-np.inf)), down)
    up = np.where(up < high, np.nextafter(up, np.float32(np.inf)), up)
    return down.astype(np.float64), up.astype(np.float64)


def _gamma(terms: int, unit: float) -> float:
    """Return ``n u / (1 - n u)``; unbounded when the sum is too long for it."""
    reach = terms * unit * (1 + 1e-9)
    return reach / (1 - reach) if reach < 1 else np.inf
