"""Which presynaptic units a layer can do without, and what its weights must be then.

A layer drives its neurons with ``W r``, where ``r`` are the presynaptic signals and a constant 1 (for the bias),
filtered as the membrane filters them. With ``H`` the second moments of ``r``, the squared error of the drive
that leaving out the signals ``B`` costs, when the other weights take over what they can, is

    sum over rows of  w_B  inv((inv H)_BB)  w_B^T,

and the weights that do it are ``w - w_B inv((inv H)_BB) (inv H)_B``: the optimal brain surgeon (Hassibi and
Stork, NIPS 1992) for a quadratic that is exact here, because the drive is linear in the weights. Leaving out one
more group is an update of ``inv H`` of the group's rank, not a new inverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["DENSE", "Elimination", "refit", "refit_weighted", "saliences", "with_ridge"]

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

DENSE = 0.75  # share of non-zeros above which zeros are not kept
_TINY = 1e-12
_DIRECT = 2e10  # operations up to which rows are solved one pattern after the other
_ITERATIONS = 200
_CONVERGED = 1e-10


def with_ridge(moments: Array, ridge: float) -> Array:
    """Return moments with ``ridge`` times their mean diagonal added, but for the constant, which is last."""
    result = np.array(moments, np.float64)
    inner = np.arange(len(result) - 1)
    scale = float(np.mean(result[inner, inner])) if len(inner) else 0.0
    result[inner, inner] += ridge * scale + _TINY
    result[-1, -1] += _TINY
    return result


@dataclass(eq=False)
class Elimination:
    """Leaves out groups of inputs of one linear layer, one after the other.

    Parameters
    ----------
    moments : array, shape (n + 1, n + 1)
        Second moments of the filtered inputs and the constant, regularised.
    weights : array, shape (rows, n + 1)
        The bias is the last column.
    groups : sequence of index arrays
        Disjoint; inputs that leave together, of ``n``.
    """

    moments: Array
    weights: Array
    groups: Sequence[Indices]
    energy: float = field(init=False)

    def __post_init__(self) -> None:
        self.weights = np.array(self.weights, np.float64)
        self.energy = _energy(self.moments, self.weights)
        self._inverse: Array = np.asarray(np.linalg.inv(self.moments), np.float64)
        self._place = np.arange(len(self.moments))  # where each input is in the compacted arrays
        self._single = np.array([len(group) == 1 for group in self.groups])
        self._first = np.array([int(group[0]) if len(group) else -1 for group in self.groups], np.int64)
        self._gone = np.zeros(len(self.groups), np.bool_)
        support, dense = _support(self.weights)
        self._support = None if dense else support

    def costs(self) -> Array:
        """Return what leaving out each group next costs, as a share of the energy of the drive; infinite when gone."""
        result = np.full(len(self.groups), np.inf)
        power = np.einsum("ij,ij->j", self.weights, self.weights)
        diagonal = np.diagonal(self._inverse)
        some = self._single & ~self._gone
        where = self._place[self._first[some]]
        result[some] = power[where] / np.maximum(diagonal[where], _TINY)
        for number in np.flatnonzero(~self._single & ~self._gone).tolist():
            where = self._place[self.groups[number]]
            if not len(where):
                result[number] = 0.0
                continue
            columns = self.weights[:, where]
            block = self._inverse[np.ix_(where, where)]
            result[number] = float(np.einsum("ij,ij->", columns @ np.linalg.pinv(block, hermitian=True), columns))
        return np.asarray(np.maximum(result, 0) / self.energy)

    def leave_out(self, number: int) -> None:
        """Leave a group out, and let the others take over."""
        where = self._place[self.groups[number]]
        self._gone[number] = True
        if not len(where):
            return
        gain = np.linalg.pinv(self._inverse[np.ix_(where, where)], hermitian=True) @ self._inverse[where]
        change = self.weights[:, where] @ gain
        if self._support is not None:
            change *= self._support
        self.weights -= change
        self._inverse -= self._inverse[:, where] @ gain
        self._compact(where)

    def _compact(self, gone: Indices) -> None:
        """Forget inputs that are gone, when they are many enough to pay for it."""
        self._place = np.array(self._place)
        self.weights[:, gone] = 0
        self._inverse[gone, :] = 0
        self._inverse[:, gone] = 0
        self._inverse[gone, gone] = 1
        left = np.concatenate([group for group, out in zip(self.groups, self._gone, strict=True) if out])
        dead = np.unique(self._place[left])
        dead = dead[dead >= 0]
        if 4 * len(dead) < len(self._inverse):
            return
        keep = np.ones(len(self._inverse), np.bool_)
        keep[dead] = False
        moved = np.full(len(keep), -1, np.int64)
        moved[keep] = np.arange(int(keep.sum()))
        self._place = np.where(self._place >= 0, moved[self._place], -1)
        self.weights = np.ascontiguousarray(self.weights[:, keep])
        self._inverse = np.ascontiguousarray(self._inverse[np.ix_(keep, keep)])
        if self._support is not None:
            self._support = np.ascontiguousarray(self._support[:, keep])


def saliences(moments: Array, weights: Array) -> Array:
    """Return what setting each weight alone to zero costs, as a share of the energy of the drive.

    Parameters
    ----------
    moments : array, shape (n + 1, n + 1)
        Regularised.
    weights : array, shape (rows, n + 1)
        The bias is last, and has no cost here.

    Returns
    -------
    array, shape (rows, n)
    """
    diagonal = np.maximum(np.diagonal(np.linalg.inv(moments)), _TINY)
    return np.asarray(weights[:, :-1] ** 2 / diagonal[:-1] / _energy(moments, weights))


def _energy(moments: Array, weights: Array) -> float:
    return max(float(np.sum((weights @ moments) * weights)), _TINY)


def _support(weights: Array) -> tuple[npt.NDArray[np.bool_], bool]:
    """Return which weights may differ from zero, the bias always, and whether these are nearly all."""
    support = weights != 0
    support[:, -1] = True
    return support, support.shape[1] < 2 or float(support[:, :-1].mean()) >= DENSE


def refit(moments: Array, cross: Array, old: Array, wanted: Array, ridge: float, *, sparse: bool = False) -> Array:
    """Return weights that drive a layer as before from the signals it has now.

    The minimum of ``|drive - W r|^2 + lambda |W - old|^2`` over the data; rows keep their zeros where the layer is
    sparse, so that non-zeros never grow.

    Parameters
    ----------
    moments : array, shape (n + 1, n + 1)
        Second moments of the filtered signals now and the constant.
    cross : array, shape (n + 1, m + 1)
        Moments of the signals now with those of the original network.
    old : array, shape (rows, n + 1)
        Weights of the signals that are left.
    wanted : array, shape (rows, m + 1)
        Weights of the original network.
    ridge : float
        ``lambda`` as a share of the mean second moment.
    sparse : bool
        Keep zeros whatever their share.
    """
    gap = (cross @ wanted.T - moments @ old.T).T  # what the old weights leave unexplained, by row
    return np.asarray(old + _solved(with_ridge(moments, ridge), gap, old, sparse=sparse))


def refit_weighted(
    rows: npt.NDArray[np.float32],
    drive: Array,
    closeness: npt.NDArray[np.float32],
    old: Array,
    ridge: float,
    *,
    sparse: bool,
) -> Array:
    """Return weights as :func:`refit` does, where each neuron has its own weight for each observation.

    Parameters
    ----------
    rows : array, shape (observations, n + 1)
        Filtered signals now.
    drive : array, shape (observations, neurons)
        What is to be reached.
    closeness : array, shape (observations, neurons)
    old : array, shape (neurons, n + 1)
    ridge : float
    sparse : bool
    """
    result = np.array(old)
    for neuron, weights in enumerate(old):  # each has a system of its own; the caller bounds their number
        counts = closeness[:, neuron] / max(float(closeness[:, neuron].sum()), _TINY)
        weighted = rows * counts[:, np.newaxis]
        moments = np.asarray(weighted.T @ rows, np.float64)
        gap = np.asarray(weighted.T @ drive[:, neuron], np.float64) - moments @ weights
        result[neuron] += _solved(with_ridge(moments, ridge), gap[np.newaxis], weights[np.newaxis], sparse=sparse)[0]
    return result


def _solved(system: Array, gap: Array, old: Array, *, sparse: bool) -> Array:
    """Return the change of weights that closes the gap, on the non-zeros where the layer is sparse."""
    support, dense = _support(old)
    counts = support.sum(axis=1, dtype=np.float64)
    if dense and not sparse:
        return np.asarray(np.linalg.solve(system, gap.T).T)
    if float((counts**3).sum()) > _DIRECT:
        return _restricted(system, gap, support)
    result = np.zeros_like(old)
    patterns, of_row = np.unique(support, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        rows = np.flatnonzero(of_row.reshape(-1) == number)
        where = np.flatnonzero(pattern)
        result[np.ix_(rows, where)] += np.linalg.solve(system[np.ix_(where, where)], gap[np.ix_(rows, where)].T).T
    return result


def _restricted(system: Array, gap: Array, support: npt.NDArray[np.bool_]) -> Array:
    """Solve all rows at once on their supports, by conjugate gradients with the diagonal as preconditioner."""
    scale = 1.0 / np.diagonal(system)
    change = np.zeros_like(gap)
    residual = gap * support
    step = residual * scale
    direction = step.copy()
    product = np.einsum("ij,ij->i", residual, step)
    first = np.maximum(product, _TINY)
    for _ in range(_ITERATIONS):
        if (product <= _CONVERGED * first).all():
            break
        curved = (direction @ system) * support
        length = product / np.maximum(np.einsum("ij,ij->i", direction, curved), _TINY)
        change += length[:, np.newaxis] * direction
        residual -= length[:, np.newaxis] * curved
        step = residual * scale
        following = np.einsum("ij,ij->i", residual, step)
        direction = step + (following / np.maximum(product, _TINY))[:, np.newaxis] * direction
        product = following
    return change
