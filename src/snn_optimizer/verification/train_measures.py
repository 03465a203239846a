"""Measures of how far two sets of spike trains are apart, in discrete time.

All four take one time scale ``s`` in steps, within which two spikes count as near:

*Exact match*: the fraction of trains with the same spikes at the same steps.

*Coincidence factor* (Kistler, Gerstner and van Hemmen, Neural Computation 9, 1997): spikes of
one train matched one to one with spikes of the other at most ``s`` steps away, less the number
that chance gives, normalized so that equal trains give 1 and independent ones 0. In
discrete time the window holds ``w = 2 s + 1`` steps; a train that fires at rate ``r`` meets
it with chance ``w r``: ``(coincidences - w r n) / ((1 - w r) (n + m) / 2)`` with ``n``
spikes before, ``m`` after and ``r`` the rate after. It is undefined where ``w r >= 1`` (trains too
dense for the window) and where neither train fires.

*Victor-Purpura distance* (Victor and Purpura, Network 8, 1997): the cheapest way to turn one
train into the other, where adding or removing a spike costs 1 and moving it by one step ``1 / s``.

*van Rossum distance* (van Rossum, Neural Computation 13, 2001): the distance of the trains convolved
with ``exp(-t / s)``, normalized so that one spike more is a distance of 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "TrainComparison",
    "coincidence_factor",
    "compare_trains",
    "van_rossum_distance",
    "victor_purpura_distance",
]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

_PAIRS = 2048  # compared at a time


@dataclass(frozen=True, slots=True)
class TrainComparison:
    """Sums over pairs of trains; two comparisons add up.

    Attributes
    ----------
    trains, equal : int
        Pairs, and those that match exactly.
    spikes_before, spikes_after : float
    rated : int
        Pairs whose coincidence factor is defined, ``coincidence_sum`` its sum over them.
    coincidence_sum, victor_purpura_sum, van_rossum_sum : float
    victor_purpura_max, van_rossum_max : float
    """

    trains: int = 0
    equal: int = 0
    spikes_before: float = 0.0
    spikes_after: float = 0.0
    rated: int = 0
    coincidence_sum: float = 0.0
    victor_purpura_sum: float = 0.0
    victor_purpura_max: float = 0.0
    van_rossum_sum: float = 0.0
    van_rossum_max: float = 0.0

    def __add__(self, other: TrainComparison) -> TrainComparison:
        """Return the comparison of all pairs of both."""
        return TrainComparison(
            self.trains + other.trains,
            self.equal + other.equal,
            self.spikes_before + other.spikes_before,
            self.spikes_after + other.spikes_after,
            self.rated + other.rated,
            self.coincidence_sum + other.coincidence_sum,
            self.victor_purpura_sum + other.victor_purpura_sum,
            max(self.victor_purpura_max, other.victor_purpura_max),
            self.van_rossum_sum + other.van_rossum_sum,
            max(self.van_rossum_max, other.van_rossum_max),
        )

    @property
    def exact_match(self) -> float:
        """Fraction of trains that match exactly."""
        return self.equal / self.trains if self.trains else 1.0

    @property
    def coincidence(self) -> float | None:
        """Mean coincidence factor, None where it is defined for no pair."""
        return self.coincidence_sum / self.rated if self.rated else None

    @property
    def victor_purpura(self) -> float:
        """Mean Victor-Purpura distance."""
        return self.victor_purpura_sum / self.trains if self.trains else 0.0

    @property
    def van_rossum(self) -> float:
        """Mean van Rossum distance."""
        return self.van_rossum_sum / self.trains if self.trains else 0.0

    def to_json(self) -> dict[str, object]:
        """Return means and maxima in JSON types."""
        return {
            "trains": self.trains,
            "exact_match": self.exact_match,
            "spikes_before": self.spikes_before,
            "spikes_after": self.spikes_after,
            "coincidence_factor": self.coincidence,
            "coincidence_trains": self.rated,
            "victor_purpura_mean": self.victor_purpura,
            "victor_purpura_max": self.victor_purpura_max,
            "van_rossum_mean": self.van_rossum,
            "van_rossum_max": self.van_rossum_max,
        }


def compare_trains(before: Array, after: Array, *, time_scale: float = 1.0) -> TrainComparison:
    """Compare trains pair by pair; only pairs that differ cost more than the comparison.

    Parameters
    ----------
    before, after : array, shape (T, ...)
        Spike counts per step, trains along the first axis.
    time_scale : float
        In steps.
    """
    old, new = (_columns(side) for side in (before, after))
    equal = (old == new).all(axis=0)
    total = TrainComparison(
        trains=old.shape[1],
        equal=int(equal.sum()),
        spikes_before=float(old.sum()),
        spikes_after=float(new.sum()),
    )
    rate = old.mean(axis=0) if len(old) else np.zeros(old.shape[1])
    sure = int((equal & (rate > 0) & (_window(time_scale) * rate < 1)).sum())
    total += TrainComparison(rated=sure, coincidence_sum=float(sure))
    for chosen in _chunks(np.flatnonzero(~equal)):
        left, right = old[:, chosen], new[:, chosen]
        factor = coincidence_factor(left, right, time_scale=time_scale)
        defined = np.isfinite(factor)
        edits = victor_purpura_distance(left, right, time_scale=time_scale)
        filtered = van_rossum_distance(left, right, time_scale=time_scale)
        total += TrainComparison(
            rated=int(defined.sum()),
            coincidence_sum=float(factor[defined].sum()),
            victor_purpura_sum=float(edits.sum()),
            victor_purpura_max=float(edits.max()),
            van_rossum_sum=float(filtered.sum()),
            van_rossum_max=float(filtered.max()),
        )
    return total


def coincidence_factor(before: Array, after: Array, *, time_scale: float = 1.0) -> Floats:
    """Return the coincidence factor of each pair of trains, NaN where it is undefined.

    Parameters
    ----------
    before, after : array, shape (T, ...)
        Spike counts per step.
    time_scale : float
        Largest distance of coinciding spikes, in whole steps; fractions are cut off.
    """
    old, new = (_columns(side) for side in (before, after))
    reach, steps = int(time_scale), len(old)
    left, found = new.copy(), np.zeros(old.shape[1])
    for step in range(steps):  # the earliest partner first: no matching has more pairs
        missing = old[step].copy()
        for partner in range(max(0, step - reach), min(steps, step + reach + 1)):
            pairs = np.minimum(missing, left[partner])
            found += pairs
            missing -= pairs
            left[partner] -= pairs
    counts = old.sum(axis=0), new.sum(axis=0)
    chance = _window(time_scale) * counts[1] / max(1, steps)
    both = counts[0] + counts[1]
    with np.errstate(all="ignore"):
        factor = (found - chance * counts[0]) / ((1 - chance) * both / 2)
    return np.where((chance < 1) & (both > 0), factor, np.nan)


def victor_purpura_distance(before: Array, after: Array, *, time_scale: float = 1.0) -> Floats:
    """Return the Victor-Purpura distance of each pair of trains.

    Parameters
    ----------
    before, after : array, shape (T, ...)
        Spike counts per step.
    time_scale : float
        Steps over which moving a spike costs 1.
    """
    old, new = (_times(_columns(side)) for side in (before, after))
    counts = [np.isfinite(side).sum(axis=1) for side in (old, new)]
    places = np.arange(new.shape[1] + 1, dtype=np.float64)
    row = np.broadcast_to(places, (len(new), len(places))).copy()  # from no spike to the first j
    result = np.where(counts[0] == 0, row[np.arange(len(row)), counts[1]], 0.0)
    for index in range(old.shape[1]):
        shifts = np.abs(np.nan_to_num(old[:, index : index + 1], posinf=0.0) - np.nan_to_num(new, posinf=0.0))
        best = row + 1
        best[:, 1:] = np.minimum(best[:, 1:], row[:, :-1] + shifts / time_scale)
        # the spikes added after the last match: min over k <= j of best[k] + (j - k)
        row = np.minimum.accumulate(best - places, axis=1) + places
        done = counts[0] == index + 1
        result[done] = row[done, counts[1][done]]
    return result


def van_rossum_distance(before: Array, after: Array, *, time_scale: float = 1.0) -> Floats:
    """Return the van Rossum distance of each pair of trains.

    Parameters
    ----------
    before, after : array, shape (T, ...)
        Spike counts per step.
    time_scale : float
        Time constant of the exponential, in steps.
    """
    difference = _columns(before) - _columns(after)
    clock = np.arange(len(difference))
    kernel = np.exp(-np.abs(clock[:, np.newaxis] - clock) / time_scale)
    squared = np.einsum("tn,tn->n", kernel @ difference, difference)
    return np.asarray(np.sqrt(np.maximum(squared, 0)))


def _window(time_scale: float) -> int:
    """Return the number of steps within reach of one."""
    return 2 * int(time_scale) + 1


def _columns(trains: Array) -> Floats:
    values = np.asarray(trains)
    return values.reshape(len(values), int(np.prod(values.shape[1:], dtype=np.int64))).astype(np.float64)


def _times(columns: Floats) -> Floats:
    """Return the steps of the spikes of each train in a row, infinity after the last; two spikes at a step twice."""
    counts = np.maximum(columns, 0).astype(np.int64)  # a wrong candidate may put out anything
    totals = counts.sum(axis=0)
    times = np.full((counts.shape[1], int(totals.max(initial=0))), np.inf)
    trains, steps = np.nonzero(counts.T)
    repeats = counts.T[trains, steps]
    rows = np.repeat(trains, repeats)
    starts = np.cumsum(totals) - totals
    times[rows, np.arange(len(rows)) - starts[rows]] = np.repeat(steps, repeats)
    return times


def _chunks(chosen: npt.NDArray[np.intp]) -> Iterator[npt.NDArray[np.intp]]:
    for start in range(0, len(chosen), _PAIRS):
        yield chosen[start : start + _PAIRS]
