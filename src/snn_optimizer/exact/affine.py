"""Arrays of affine functions of decision variables, and how far rounding can move what a runtime computes from them.

A value of the network is ``constant + terms @ variables``, in real arithmetic. What a runtime computes in floats
differs from it by at most ``gamma(k) * magnitude`` (Higham, *Accuracy and Stability of Numerical Algorithms*, 2002,
lemma 3.1) where ``k`` counts the roundings on the longest path and ``magnitude`` is the same sum with all signs
positive. Where all values are multiples of one power of two and their sums fit the significand, nothing is rounded and
``k`` stays 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

__all__ = ["Affine", "Matrix", "grid_of", "unit_rows", "widened"]

Array: TypeAlias = npt.NDArray[np.float64]
Matrix: TypeAlias = Any  # a scipy.sparse.csr_array; scipy is not typed
COARSEST: Final = 1 << 12  # the exponent of zero, which is a multiple of everything
_BITS: Final = 53


def widened(matrix: Matrix, columns: int) -> Matrix:
    """Return the matrix with at least this many columns."""
    if matrix.shape[1] >= columns:
        return matrix
    return sparse.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=(matrix.shape[0], columns))


def unit_rows(columns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], size: int, width: int) -> Matrix:
    """Return a matrix with a one at each of the given places."""
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(size, width))


def grid_of(array: npt.ArrayLike) -> int | None:
    """Return the largest e so that all values are multiples of ``2**e``; None where a value is not finite."""
    values = np.asarray(array, np.float64).ravel()
    if not np.isfinite(values).all():
        return None
    values = values[values != 0]
    if not values.size:
        return COARSEST
    mantissa, exponent = np.frexp(values)
    whole = np.abs(mantissa * 2.0**_BITS).astype(np.int64)
    lowest = np.log2((whole & -whole).astype(np.float64)).astype(np.int64)
    return int((exponent - _BITS + lowest).min())


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """An array of affine functions.

    Attributes
    ----------
    shape : tuple of int
    constant : array, flat
    terms : sparse array, one row per element, one column per variable
    magnitude : array, flat
        Upper bound of the sum of the sizes of everything that was added up.
    roundings : int
        On the longest path.
    grid : int or None
        All values are multiples of ``2**grid``; kept while nothing was rounded.
    """

    shape: tuple[int, ...]
    constant: Array
    terms: Matrix
    magnitude: Array
    roundings: int = 0
    grid: int | None = None

    @classmethod
    def of(cls, array: npt.ArrayLike) -> Affine:
        """Return a constant."""
        values = np.asarray(array, np.float64)
        flat = values.ravel()
        empty = sparse.csr_array((flat.size, 0))
        return cls(values.shape, flat, empty, np.abs(flat), 0, grid_of(flat))

    @property
    def size(self) -> int:
        """Number of elements."""
        return len(self.constant)

    @property
    def is_constant(self) -> bool:
        """Whether no variable matters."""
        return int(self.terms.nnz) == 0

    def value(self) -> Array:
        """Return the constant part as an array."""
        return self.constant.reshape(self.shape)

    def gather(self, places: npt.NDArray[np.int64]) -> Affine:
        """Return elements by their flat places, in the shape of ``places``."""
        flat = places.ravel()
        return Affine(
            places.shape, self.constant[flat], self.terms[flat], self.magnitude[flat], self.roundings, self.grid
        )

    def reshaped(self, shape: tuple[int, ...]) -> Affine:
        """Return the same elements in another shape."""
        return Affine(shape, self.constant, self.terms, self.magnitude, self.roundings, self.grid)

    def spread(self, shape: tuple[int, ...]) -> Affine:
        """Broadcast into a shape."""
        if shape == self.shape:
            return self
        return self.gather(np.broadcast_to(np.arange(self.size).reshape(self.shape), shape))

    def error(self, unit: float) -> Array:
        """Bound how far a runtime with this unit roundoff is from the real value."""
        steps = self.roundings * unit
        return self.magnitude * (steps / (1 - steps)) if steps < 1 else np.full(self.size, np.inf)

    def plus(self, other: Affine, unit: float) -> Affine:
        """Add, element by element with broadcasting."""
        shape = np.broadcast_shapes(self.shape, other.shape)
        first, second = self.spread(shape), other.spread(shape)
        width = max(first.terms.shape[1], second.terms.shape[1])
        return rounded(
            Affine(
                shape,
                first.constant + second.constant,
                widened(first.terms, width) + widened(second.terms, width),
                first.magnitude + second.magnitude,
                max(first.roundings, second.roundings),
                _finer(first.grid, second.grid),
            ),
            1,
            unit,
        )

    def scaled(self, factor: npt.ArrayLike, unit: float) -> Affine:
        """Multiply by constants, element by element with broadcasting."""
        factors = np.asarray(factor, np.float64)
        shape = np.broadcast_shapes(self.shape, factors.shape)
        first, scale = self.spread(shape), np.broadcast_to(factors, shape).ravel()
        grid = grid_of(factors)
        product = Affine(
            shape,
            first.constant * scale,
            sparse.csr_array(first.terms.multiply(scale[:, np.newaxis])),
            first.magnitude * np.abs(scale),
            first.roundings,
            None if grid is None or first.grid is None else grid + first.grid,
        )
        plain = bool(np.isin(factors, (-1.0, 0.0, 1.0)).all())
        return product if plain else rounded(product, 1, unit)

    def mapped(self, operator: Matrix, offset: Array, shape: tuple[int, ...], additions: int, unit: float) -> Affine:
        """Apply a matrix and add constants; ``additions`` bounds the roundings of one element."""
        grid = None
        if self.grid is not None:
            own = grid_of(operator.data)
            grid = None if own is None else _finer(own + self.grid, grid_of(offset))
        return rounded(
            Affine(
                shape,
                operator @ self.constant + offset,
                sparse.csr_array(operator @ self.terms),
                abs(operator) @ self.magnitude + np.abs(offset),
                self.roundings,
                grid,
            ),
            additions,
            unit,
        )


def rounded(value: Affine, roundings: int, unit: float) -> Affine:
    """Count roundings, unless all sums are exact in the significand of the float type."""
    if value.roundings == 0 and value.grid is not None:
        most = float(value.magnitude.max(initial=0.0))
        if most == 0 or math.log2(most) - value.grid < -math.log2(unit):
            return value
    return Affine(value.shape, value.constant, value.terms, value.magnitude, value.roundings + roundings, None)


def _finer(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else min(first, second)


def joined(parts: list[Affine]) -> Affine:
    """Return the elements of all parts one after another, flat."""
    width = max(part.terms.shape[1] for part in parts)
    grid: int | None = COARSEST
    for part in parts:
        grid = _finer(grid, part.grid)
    return Affine(
        (sum(part.size for part in parts),),
        np.concatenate([part.constant for part in parts]),
        sparse.csr_array(sparse.vstack([widened(part.terms, width) for part in parts])),
        np.concatenate([part.magnitude for part in parts]),
        max(part.roundings for part in parts),
        grid,
    )
