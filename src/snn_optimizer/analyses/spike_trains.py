"""What is proved about the spikes of a population over time.

Time is cut into segments, the same for all populations of a run of steps. A claim of a segment holds at each of
its steps, and claims only ever speak of the steps up to one, so they may be proved by induction over time even
where neurons feed back on each other.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses.intervals import Array, Range
from snn_optimizer.ir import Value

__all__ = ["LONGEST_RUN", "Clock", "Train", "discounted_sum", "spikes_of"]

LONGEST_RUN = 512  # steps iterated one by one; longer runs count as unbounded
SINGLE_STEPS = 8  # segments of one step at the beginning
SEGMENTS = 16
FIRST_SEGMENTS = (*range(1, SINGLE_STEPS + 1), 16, 32, 64)  # ends, where time is unbounded
CARE = 1e-12  # float64 errors of the closed forms below


def discounted_sum(decay: Array | float, count: Array | float) -> Array:
    """Return ``1 + decay + ...`` of ``count`` terms, which may be infinitely many; ``0 <= decay <= 1``."""
    ratio, number = np.broadcast_arrays(np.asarray(decay, np.float64), np.asarray(count, np.float64))
    with np.errstate(all="ignore"):
        closed = -np.expm1(number * np.log(ratio)) / (1 - ratio)
    closed = np.where(ratio == 0, np.minimum(number, 1), np.where(ratio >= 1, number, closed))
    return np.asarray(np.where(number <= 0, 0, np.minimum(closed, np.maximum(number, 0))))


@dataclass(frozen=True, slots=True, eq=False)
class Clock:
    """The segments of a run; steps count from 1.

    Attributes
    ----------
    starts, ends : array
        First and last step of every segment; the last one has no end where the number of steps is unknown.
    """

    starts: Array
    ends: Array

    @classmethod
    def of(cls, steps: int | None) -> Clock:
        """Return the clock of a run; runs longer than ``LONGEST_RUN`` count as unbounded."""
        return _clock(steps if steps is not None and steps <= LONGEST_RUN else None)

    @property
    def unbounded(self) -> bool:
        """Whether there is no last step."""
        return bool(np.isinf(self.ends[-1]))

    def sums(self, least: float, most: float) -> tuple[Array, Array]:
        """Return bounds of the discounted number of steps so far, for decays between two."""
        low = discounted_sum(least, self.starts) * (1 - CARE)
        return low, discounted_sum(most, self.ends) * (1 + CARE)


@functools.lru_cache(maxsize=64)
def _clock(steps: int | None) -> Clock:
    if steps is None:
        ends = np.array([*FIRST_SEGMENTS, np.inf])
    elif steps <= SEGMENTS:
        ends = np.arange(1.0, steps + 1)
    else:
        rest = np.linspace(SINGLE_STEPS, steps, SEGMENTS - SINGLE_STEPS + 1)[1:]
        ends = np.concatenate([np.arange(1.0, SINGLE_STEPS + 1), np.ceil(rest)])
    return Clock(np.concatenate([[1.0], ends[:-1] + 1]), ends)


@dataclass(frozen=True, slots=True, eq=False)
class Train:
    """Facts about spikes; arrays broadcast into the neurons of the population.

    Attributes
    ----------
    clock : Clock
    steps : int, str or None
        Number of steps as the model declares it, where it does.
    inside : bool
        Whether the spikes are those of one step, in the body of a loop over the steps.
    size : int
        Neurons of the population.
    first : array
        Step of the earliest possible spike, infinite where there is none.
    interval : array
        Steps from a spike to the next one at least.
    decay : array
    caps : array, one more axis in front for the segments
        Upper bounds of ``D_T = sum over spikes at k <= T of decay^(T - k)``, which never fall.
    limit : int, optional
        Neurons of one sample that can spike in one step at most.
    totals : array, optional
        Upper bounds of the sum of ``D_T`` over all neurons, of every segment, which never fall.
    """

    clock: Clock
    steps: int | str | None
    inside: bool
    size: int
    first: Array
    interval: Array
    decay: Array
    caps: Array
    limit: int | None = None
    totals: Array | None = None

    @property
    def informative(self) -> bool:
        """Whether it says more than that there may be a spike at every step."""
        free = _over_segments(self.clock.ends, self.decay.ndim)
        rarer = self.caps < discounted_sum(self.decay[np.newaxis], free) * (1 - 1e-9)
        return bool(self.totals is not None or (self.first > 1).any() or (self.interval > 1).any() or rarer.any())

    def silenced(self, never: npt.NDArray[np.bool_]) -> Train:
        """Return the facts with the given neurons silent."""
        return replace(self, first=np.where(never, np.inf, self.first))

    def delayed(self) -> Train:
        """Return the facts of the spikes one step later, zeros at the first."""
        return replace(self, first=self.first + 1)

    def join(self, other: Train) -> Train | None:
        """Return what both claim; None where they speak of different things."""
        if (
            self.clock is not other.clock
            or (self.steps, self.inside) != (other.steps, other.inside)
            or self.size != other.size
        ):
            return None
        if not np.array_equal(self.decay, other.decay):
            return None
        limited = self.limit is not None and other.limit is not None
        return replace(
            self,
            first=np.minimum(self.first, other.first),
            interval=np.minimum(self.interval, other.interval),
            caps=np.maximum(self.caps, other.caps),
            limit=max(self.limit or 0, other.limit or 0) if limited else None,
            totals=None if self.totals is None or other.totals is None else np.maximum(self.totals, other.totals),
        )

    def equals(self, other: Train) -> bool:
        """Tell whether two claim the same."""
        pairs = ((self.first, other.first), (self.interval, other.interval), (self.caps, other.caps))
        if (self.totals is None) != (other.totals is None) or self.limit != other.limit:
            return False
        same_totals = self.totals is None or np.array_equal(self.totals, np.asarray(other.totals))
        return same_totals and all(np.array_equal(a, b) for a, b in pairs)

    def at_each_segment(self, bound: Range) -> Range:
        """Return the range of the spikes in every segment, from their range over all time."""
        active = self.first[np.newaxis] <= _over_segments(self.clock.ends, self.first.ndim)
        return Range.of(np.where(active, bound.low, 0), np.where(active, bound.high, 0))

    def discounted(self, bound: Range, least: float, most: float) -> Range:
        """Return the range of the discounted sum of the spikes, for decays between two, in every segment.

        Spikes at least ``d`` steps apart, the first not before step ``f``, sum up to the most when the last one is
        now. A cap for another decay holds for a smaller one; for a larger one, ``D'_T = D_T + (most - decay) *
        sum over k < T of most^(T - 1 - k) D_k``.
        """
        ends = _over_segments(self.clock.ends, self.first.ndim)
        with np.errstate(all="ignore"):
            room = np.where(np.isinf(self.first[np.newaxis]), -1.0, ends - self.first[np.newaxis])
            number = np.where(room < 0, 0.0, np.floor(room / self.interval) + 1)
            spaced = discounted_sum(np.power(most, self.interval), number)
            high = np.minimum(spaced, self.caps * _slower(self.decay, most, ends)) * (1 + CARE)
            high = np.where(number == 0, 0.0, high) * np.where(bound.high > 0, bound.high, 0.0)
        starts, _ = self.clock.sums(least, most)
        low = np.where(bound.low > 0, bound.low * _over_segments(starts, bound.rank), 0.0)
        return Range.of(np.minimum(low, high), np.where(np.isnan(high), np.inf, high))

    def discounted_total(self, most: float) -> Array | None:
        """Return the bounds of the sum over all neurons of the discounted sums, for decays up to ``most``."""
        if self.totals is None:
            return None
        with np.errstate(all="ignore"):
            total = self.totals * _slower(self.decay.min(), most, self.clock.ends) * (1 + CARE)
        return np.where(np.isnan(total), np.inf, total)


def _slower(decay: Array, most: float, ends: Array) -> Array:
    """Return by how much a discounted sum grows where what is summed decays more slowly."""
    slower = most - decay
    return np.asarray(1 + np.where(slower > 0, slower * discounted_sum(most, ends - 1), 0.0))


def spikes_of(trains: Mapping[int, Train], value: Value) -> Train | None:
    """Return the facts about a value that is spikes, directly or as a copy."""
    while id(value) not in trains and value.inputs and value.inputs[0].op == "Identity" and not value.inputs[0].domain:
        value = value.inputs[0].inputs[0]
    return trains.get(id(value))


def _over_segments(values: Array, rank: int) -> Array:
    return values.reshape(-1, *(1,) * rank)
