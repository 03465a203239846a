"""A mixed-integer linear program that grows while a network is unrolled, solved by HiGHS through scipy."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import optimize, sparse

from snn_optimizer.exact.affine import Affine, Array, Matrix, unit_rows, widened

__all__ = ["MixedProgram", "Optimum"]

Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
SHARED: Final = -1
_LIMIT_REACHED: Final = 1
_INFEASIBLE: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class Optimum:
    """What the solver found.

    Attributes
    ----------
    bound : float
        No point of the program has a larger value; infinite when nothing is known.
    value : float or None
        Of the best point found.
    point : array or None
        Values of all variables; those that do not matter are at their low end.
    timed_out : bool
    """

    bound: float
    value: float | None
    point: Array | None
    timed_out: bool


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what HiGHS prints by itself, whatever its options, off the standard output of the process."""
    library = ctypes.CDLL(None) if os.name == "posix" else None
    if library is None:
        yield
        return
    try:
        kept = os.dup(1)
    except OSError:  # there is no standard output
        yield
        return
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device
        library.fflush(None)
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            library.fflush(None)
            os.dup2(kept, 1)
            os.close(kept)


class MixedProgram:
    """Variables with bounds, and linear constraints on them."""

    def __init__(self) -> None:
        self.low: Array = np.zeros(0)
        self.high: Array = np.zeros(0)
        self.integral: Mask = np.zeros(0, np.bool_)
        self._rows: list[Matrix] = []
        self._lower: list[Array] = []
        self._upper: list[Array] = []
        self._owners: list[Places] = []

    @property
    def size(self) -> int:
        """Number of variables."""
        return len(self.low)

    def variables(self, low: Array, high: Array, *, integral: bool) -> Places:
        """Add variables and return their numbers."""
        start = self.size
        self.low, self.high = np.concatenate([self.low, low]), np.concatenate([self.high, high])
        self.integral = np.concatenate([self.integral, np.full(len(low), integral)])
        return np.arange(start, self.size)

    def rows_of(self, numbers: Places) -> Matrix:
        """Return one row per variable that picks it."""
        return unit_rows(numbers, np.arange(len(numbers)), len(numbers), self.size)

    def require(self, rows: Matrix, lower: Array, upper: Array, owners: Places) -> None:
        """Add constraints; each belongs to a variable, or to all it mentions (``SHARED``).

        A constraint counts where its variable does; a shared one must also hold when the variables that do not count
        are zero.
        """
        self._rows.append(rows)
        self._lower.append(np.asarray(lower, np.float64))
        self._upper.append(np.asarray(upper, np.float64))
        self._owners.append(owners)

    def bounds(self, value: Affine) -> tuple[Array, Array]:
        """Return the interval of each element."""
        terms = widened(value.terms, self.size)
        up, down = terms.maximum(0), terms.minimum(0)
        low = value.constant + up @ self.low + down @ self.high
        high = value.constant + up @ self.high + down @ self.low
        return np.asarray(low), np.asarray(high)

    def maximize(
        self,
        value: Affine,
        time_limit: float,
        gap: float,
        inputs: Places,
        excluded: Sequence[Array] = (),
        least: float = -np.inf,
    ) -> Optimum:
        """Return the largest value of one affine function.

        Parameters
        ----------
        value : Affine, one element
        time_limit : float, seconds
        gap : float
            Relative distance of bound and value at which the solver may stop.
        inputs : array of int
            The variables that points to exclude differ in; binary where there are such points.
        excluded : sequence of array
            Points whose inputs, as far as the value depends on them, are not wanted again.
        least : float
            Points of smaller value do not count; without any other the bound is minus infinity.
        """
        objective = widened(value.terms, self.size)
        rows, lower, upper, owners = self._stacked()
        needed = self._cone(objective, rows, owners)
        columns = np.flatnonzero(needed)
        offset = float(value.constant[0])
        if not len(columns):
            return Optimum(-np.inf if excluded else offset, offset, self._still(), timed_out=False)
        kept = self._kept(rows, owners, needed)
        cost = -objective[[0], :].toarray().ravel()[columns]
        constraints = (
            [optimize.LinearConstraint(rows[kept][:, columns], lower[kept], upper[kept])] if kept.any() else []
        )
        if np.isfinite(least):
            row = sparse.csr_array(-cost[np.newaxis, :])
            constraints.append(optimize.LinearConstraint(row, [least - offset], [np.inf]))
        if excluded:
            constraints.append(self._excluding(excluded, inputs[needed[inputs]], columns))
        with _quiet():
            found = optimize.milp(
                cost,
                integrality=self.integral[columns].astype(np.int64),
                bounds=optimize.Bounds(self.low[columns], self.high[columns]),
                constraints=constraints,
                options={"time_limit": max(time_limit, 0.01), "mip_rel_gap": gap},
            )
        return self._read(found, columns, offset)

    def _read(self, found: Any, columns: Places, offset: float) -> Optimum:
        if found.status == _INFEASIBLE:
            return Optimum(-np.inf, None, None, timed_out=False)
        bound = np.inf
        if found.status == 0 and not self.integral[columns].any():
            bound = offset - float(found.fun)
        elif found.mip_dual_bound is not None and np.isfinite(found.mip_dual_bound):
            bound = offset - float(found.mip_dual_bound)
        if found.x is None:
            return Optimum(bound, None, None, timed_out=found.status == _LIMIT_REACHED)
        point = self._still()
        point[columns] = found.x
        return Optimum(bound, offset - float(found.fun), point, timed_out=found.status == _LIMIT_REACHED)

    def _still(self) -> Array:
        return np.asarray(np.clip(0.0, self.low, self.high))

    def _excluding(self, points: Sequence[Array], inputs: Places, columns: Places) -> Any:
        """At least one input is another one than in each of the points."""
        places = np.searchsorted(columns, inputs)
        rows, least = np.zeros((len(points), len(columns))), np.zeros(len(points))
        for row, point in enumerate(points):
            ones = np.rint(point[inputs]) > 0
            rows[row, places] = np.where(ones, -1.0, 1.0)
            least[row] = 1.0 - ones.sum()
        return optimize.LinearConstraint(sparse.csr_array(rows), least, np.full(len(points), np.inf))

    def _stacked(self) -> tuple[Matrix, Array, Array, Places]:
        if not self._rows:
            empty = np.zeros(0)
            return sparse.csr_array((0, self.size)), empty, empty, np.zeros(0, np.int64)
        rows = sparse.csr_array(sparse.vstack([widened(part, self.size) for part in self._rows]))
        self._rows = [rows]
        self._lower, self._upper = [np.concatenate(self._lower)], [np.concatenate(self._upper)]
        self._owners = [np.concatenate(self._owners)]
        return rows, self._lower[0], self._upper[0], self._owners[0]

    def _cone(self, objective: Matrix, rows: Matrix, owners: Places) -> Mask:
        """Return the variables on which the objective depends, through the constraints that belong to them."""
        needed = np.zeros(self.size, np.bool_)
        needed[objective.indices[objective.data != 0]] = True
        owned = owners != SHARED
        pattern = rows.copy()
        pattern.data = np.ones_like(pattern.data)
        while True:
            active = owned & needed[np.where(owned, owners, 0)]
            reached = (active.astype(np.float64) @ pattern) > 0
            if not (reached & ~needed).any():
                return needed
            needed |= reached

    def _kept(self, rows: Matrix, owners: Places, needed: Mask) -> Mask:
        shared = owners == SHARED
        pattern = rows.copy()
        pattern.data = np.ones_like(pattern.data)
        mentions = np.asarray(pattern @ needed.astype(np.float64)) > 0
        return np.where(shared, mentions, needed[np.where(shared, 0, owners)])
