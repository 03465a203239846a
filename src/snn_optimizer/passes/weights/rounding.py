"""Weights as whole levels times one scale per neuron, rounded alone or so that the others make up for it.

Rounded alone, every weight goes to the nearest level. With data, the weights of one input after the other are
rounded, and what that changes in the drive of the membranes is given to the inputs that are still to come: of all
changes of theirs the one with the least squared error, which the inverse of the second moments of the filtered
inputs tells (Frantar et al., GPTQ, ICLR 2023, after the optimal brain surgeon). The bias comes last and stays real.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from snn_optimizer.passes.weights.compensation import DENSE, with_ridge

__all__ = ["Levels", "Scales", "blocks", "compensated", "largest_level", "nearest", "scales_of"]

Array = npt.NDArray[np.float64]
Scales = Literal["free", "power-of-two"]

_SHRUNK: Final = np.linspace(1.0, 0.5, 26)  # largest levels tried, as a share of the largest weight
_SCRATCH: Final = 1 << 18  # numbers worked on at a time
_BLOCK: Final = 128  # inputs whose changes are passed on to all the others at once


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Weights of one layer.

    Attributes
    ----------
    levels : array of int8, shape (rows, fan-in)
    scale : array of float32, shape (rows,)
        Positive and finite.
    bias : array, shape (rows,)
        What is to be added to the bias.
    """

    levels: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    bias: Array

    def weights(self, rows: slice) -> npt.NDArray[np.float32]:
        """Return the weights some rows of levels stand for, as the runtime computes them."""
        return self.levels[rows].astype(np.float32) * self.scale[rows, np.newaxis]


def largest_level(bits: int) -> int:
    """Return the largest level; the smallest is its negative."""
    return int(2 ** (bits - 1) - 1)


def blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield ranges of rows, so that work on one at a time takes a few MiB."""
    step = max(1, _SCRATCH // max(1, shape[1]))
    for start in range(0, shape[0], step):
        yield slice(start, start + step)


def scales_of(weights: npt.NDArray[Any], bits: int, kind: Scales, importance: Array | None = None) -> npt.NDArray[Any]:
    """Return the scale of each row.

    Eight bits reach to the largest weight. With four, a largest level below the largest weight can be nearer to the
    weights as a whole: the best of a few is taken, by squared error weighed with the importance of the inputs. A row
    without a weight that differs from zero has scale 1.

    Parameters
    ----------
    weights : array, shape (rows, fan-in)
        Finite.
    importance : array, shape (fan-in,), optional
        Second moment of each input; all alike when missing.
    """
    result = np.empty(len(weights), np.float32)
    for rows in blocks(weights.shape):
        result[rows] = _scales(np.abs(weights[rows].astype(np.float64)), bits, kind, importance)
    return result


def _scales(sizes: Array, bits: int, kind: Scales, importance: Array | None) -> Array:
    most = largest_level(bits)
    reach = _storable(sizes.max(axis=1, initial=0.0) / most)
    if kind == "power-of-two":
        fraction, exponent = np.frexp(reach)
        return np.asarray(np.ldexp(1.0, exponent - (fraction == 0.5)))
    if bits >= 8:
        return reach
    weighed = np.ones(sizes.shape[1]) if importance is None else importance
    best, least = reach, np.full(len(sizes), np.inf)
    for share in _SHRUNK:
        tried = _storable(reach * share)[:, np.newaxis]
        error = ((np.minimum(np.rint(sizes / tried), most) * tried - sizes) ** 2) @ weighed
        better = error < least
        best, least = np.where(better, tried[:, 0], best), np.minimum(error, least)
    return best


def _storable(scale: Array) -> Array:
    """Return scales that are float32 numbers of full precision, 1 where there is nothing to scale."""
    return np.where(scale >= np.finfo(np.float32).tiny, scale, 1.0).astype(np.float32).astype(np.float64)


def nearest(weights: npt.NDArray[Any], bits: int, kind: Scales) -> Levels:
    """Round every weight alone; weights have shape (rows, fan-in)."""
    scale = scales_of(weights, bits, kind)
    levels = np.empty(weights.shape, np.int8)
    for rows in blocks(weights.shape):
        levels[rows] = _rounded(weights[rows].astype(np.float64), scale[rows], bits)
    return Levels(levels, scale, np.zeros(len(weights)))


def _rounded(weights: Array, scale: npt.NDArray[Any], bits: int) -> npt.NDArray[np.int8]:
    most = largest_level(bits)
    return np.clip(np.rint(weights / scale.astype(np.float64)[:, np.newaxis]), -most, most).astype(np.int8)


def compensated(weights: Array, moments: Array, bits: int, kind: Scales, ridge: float) -> Levels | None:
    """Round one input after the other, the most active first, and let the others make up for it.

    Where few weights differ from zero, only these change.

    Parameters
    ----------
    weights : array, shape (rows, fan-in + 1)
        The last column is what the bias has to become on top of what it is.
    moments : array, shape (fan-in + 1, fan-in + 1)
        Mean second moments of the filtered inputs and a constant.
    ridge : float
        Added to the moments, as a share of their mean.

    Returns
    -------
    Levels or None
        None when the moments say nothing.
    """
    system = with_ridge(moments, ridge)
    fan_in = len(system) - 1
    order = np.append(np.argsort(-np.diagonal(system)[:-1], kind="stable"), fan_in)
    try:
        # rows of this factor are what a change of each input asks of the later ones
        factor = np.linalg.cholesky(np.linalg.inv(system[np.ix_(order, order)])).T
    except np.linalg.LinAlgError:
        return None
    if not np.isfinite(factor).all():
        return None
    scale = scales_of(weights[:, :-1], bits, kind, np.diagonal(system)[:-1])
    left = np.ascontiguousarray(weights[:, order])
    support = left != 0
    support[:, -1] = True
    kept = support if float(support[:, :-1].mean()) < DENSE else None
    levels = np.zeros((len(left), fan_in), np.int8)
    for start in range(0, fan_in, _BLOCK):  # later inputs depend on earlier ones; all rows at once
        stop = min(start + _BLOCK, fan_in)
        errors = np.zeros((len(left), stop - start))
        for column in range(start, stop):
            levels[:, column] = _rounded(left[:, column : column + 1], scale, bits)[:, 0]
            missed = (left[:, column] - levels[:, column] * scale.astype(np.float64)) / factor[column, column]
            errors[:, column - start] = missed
            change = np.outer(missed, factor[column, column + 1 : stop])
            left[:, column + 1 : stop] -= change if kept is None else change * kept[:, column + 1 : stop]
        change = errors @ factor[start:stop, stop:]
        left[:, stop:] -= change if kept is None else change * kept[:, stop:]
    result = np.empty_like(levels)
    result[:, order[:-1]] = levels
    return Levels(result, scale, left[:, -1])
