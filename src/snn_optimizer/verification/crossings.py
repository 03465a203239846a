"""Real-valued inputs moved until a potential crosses its threshold, by bisection down to neighbouring floats.

Of a state that the caller feeds, for example, or of intensities. Three samples of each crossing: the
last float below the threshold, the first that is not, which lands on it where the arithmetic
allows, and the first strictly above.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.execution.instrument import Tap
from snn_optimizer.execution.observe import Observation, Observer
from snn_optimizer.verification.sample_space import SampleSpace
from snn_optimizer.verification.stimuli import Stimulus

__all__ = ["solve_crossings"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Place = tuple[str, tuple[int, ...]]

_ROWS = 24  # searched at once, per population
_BATCH = 64


def solve_crossings(
    observer: Observer, base: Sequence[Stimulus], *, seed: int = 0, limits: Mapping[str, int] | None = None
) -> tuple[Stimulus, ...]:
    """Move real-valued inputs until potentials cross their thresholds, to neighbouring floats on either side.

    Parameters
    ----------
    observer, base, seed, limits
        As in :func:`~snn_optimizer.verification.ties.solve_sums`. Inputs with a limit stay as they are.

    Returns
    -------
    tuple of Stimulus
        ``cross:POPULATION``; empty where no input of floats takes other values than the ends of its range.

    Raises
    ------
    ExecutionError
        If the model does not run on ``base``.
    """
    space = SampleSpace(observer.session.inputs, base)
    real = [name for name in space.free if name not in (limits or {}) and _is_real(space, base, name)]
    if not real:
        return ()
    generator = np.random.default_rng([seed, 0xC2055])
    search = _Crossings(observer, space, base, real, generator)
    crossed = [(tap.population, search.found(tap)) for tap in observer.taps if tap.variant.spiking]
    return tuple(Stimulus(f"cross:{name}", space.dataset(feeds).feeds) for name, feeds in crossed if feeds)


def _is_real(space: SampleSpace, base: Sequence[Stimulus], name: str) -> bool:
    low, high = space.low[name], space.high[name]
    floats = base[0].feeds[name].dtype.kind == "f"
    return floats and any(bool(((each.feeds[name] > low) & (each.feeds[name] < high)).any()) for each in base)


@dataclass(slots=True, eq=False)
class _Crossings:
    """Crossings of one population, all searched at once: a sample, an entry, a neuron and a step each."""

    observer: Observer
    space: SampleSpace
    base: Sequence[Stimulus]
    real: Sequence[str]
    generator: np.random.Generator

    def found(self, tap: Tap) -> dict[str, Array] | None:
        feeds, places = self._origins()
        ends = [np.array([self._end(side, place) for place in places]) for side in (self.space.low, self.space.high)]
        gaps = [self._gaps(tap, feeds, places, values) for values in ends]
        if gaps[0] is None or gaps[1] is None:
            return None
        rows, cells, rising = self._targets(gaps[0], gaps[1])
        if not rows:
            return None
        feeds, places = self.space.taken(feeds, rows), [places[row] for row in rows]
        below = np.where(rising, ends[0][rows], ends[1][rows])
        above = np.where(rising, ends[1][rows], ends[0][rows])
        samples = []
        for strictly in (False, True):
            low, high = self._bisected(tap, feeds, places, cells, (below, above), strictly=strictly)
            samples += [high] if strictly else [low, high]
        return {name: self._put(feeds, places, samples, name) for name in feeds}

    def _origins(self) -> tuple[dict[str, Array], list[Place]]:
        """Choose samples of the stimuli, and in each an entry to move."""
        kinds = [self.base[int(k)] for k in self.generator.integers(len(self.base), size=_ROWS)]
        axis = next(self.space.axes[name] for name in self.real) or 0
        size = self.base[0].feeds[self.real[0]].shape[axis]
        parts = [self.space.taken(kind.feeds, [int(self.generator.integers(size))]) for kind in kinds]
        feeds = {
            name: parts[0][name] if batch is None else np.concatenate([part[name] for part in parts], axis=batch)
            for name, batch in self.space.axes.items()
        }
        places = []
        for _ in range(_ROWS):
            name = self.real[int(self.generator.integers(len(self.real)))]
            index = [int(self.generator.integers(extent)) for extent in feeds[name].shape]
            index[self.space.axes[name] or 0] = 0
            places.append((name, tuple(index)))
        return feeds, places

    def _end(self, side: Mapping[str, Array], place: Place) -> Any:
        name, index = place
        array = side[name]
        return array[tuple(0 if array.shape[axis] == 1 else at for axis, at in enumerate(index))]

    def _with(self, feeds: Mapping[str, Array], places: Sequence[Place], values: Array) -> dict[str, Array]:
        moved = {name: array.copy() for name, array in feeds.items()}
        for row, ((name, index), value) in enumerate(zip(places, values, strict=True)):
            at = list(index)
            at[self.space.axes[name] or 0] = row
            moved[name][tuple(at)] = value
        return moved

    def _gaps(self, tap: Tap, feeds: Mapping[str, Array], places: Sequence[Place], values: Array) -> Floats | None:
        """Return the gaps of all steps and neurons, shape (rows, T * neurons)."""
        parts = []
        for batch in self.space.dataset(self._with(feeds, places, values)).batches(_BATCH):
            (seen,) = self.observer.observe(batch.feeds, [tap])
            if seen.gap is None:
                return None
            parts.append(_by_sample(seen))
        return np.concatenate(parts)[: len(places)]

    def _targets(self, low: Floats, high: Floats) -> tuple[list[int], list[int], npt.NDArray[np.bool_]]:
        """Choose in each row a neuron and step that one end brings below the threshold and the other not."""
        rows, cells, rising = [], [], []
        for row in range(len(low)):
            crossed = np.flatnonzero((low[row] < 0) != (high[row] < 0))
            if crossed.size:
                cell = int(self.generator.choice(crossed))
                rows.append(row)
                cells.append(cell)
                rising.append(bool(low[row, cell] < 0))
        return rows, cells, np.array(rising, np.bool_)

    def _bisected(
        self,
        tap: Tap,
        feeds: Mapping[str, Array],
        places: Sequence[Place],
        cells: Sequence[int],
        ends: tuple[Array, Array],
        *,
        strictly: bool,
    ) -> tuple[Array, Array]:
        """Return neighbouring floats between which each gap becomes positive, or at least zero."""
        low, high = ends[0].copy(), ends[1].copy()
        for _ in range(8 * low.dtype.itemsize):
            middle = _between(low, high)
            if ((middle == low) | (middle == high)).all():
                break
            gaps = self._gaps(tap, feeds, places, middle)
            assert gaps is not None
            gap = gaps[np.arange(len(cells)), cells]
            is_above = gap > 0 if strictly else gap >= 0
            low, high = np.where(is_above, low, middle), np.where(is_above, middle, high)
        return low, high

    def _put(self, feeds: Mapping[str, Array], places: Sequence[Place], samples: Sequence[Array], name: str) -> Array:
        axis = self.space.axes[name]
        parts = [self._with(feeds, places, values)[name] for values in samples]
        return parts[0] if axis is None else np.concatenate(parts, axis=axis)


def _by_sample(seen: Observation) -> Floats:
    assert seen.gap is not None
    return np.asarray(np.moveaxis(seen.gap, 1, 0).reshape(seen.gap.shape[1], -1), np.float64)


def _between(low: Array, high: Array) -> Array:
    """Return the float in the middle of two in the order of floats, not in value; one of the two for neighbours."""
    first, last = _ordinal(low), _ordinal(high)
    middle = (first >> 1) + (last >> 1) + (first & last & 1)  # the sum of two may not fit
    bits = np.dtype(f"i{low.dtype.itemsize}")
    least = np.iinfo(bits).min
    return np.asarray(np.where(middle >= 0, middle, least - middle).astype(bits).view(low.dtype))


def _ordinal(values: Array) -> npt.NDArray[np.int64]:
    """Number floats in their order; both zeros are 0."""
    bits = values.view(np.dtype(f"i{values.dtype.itemsize}"))
    least = np.iinfo(bits.dtype).min
    return np.where(bits >= 0, bits, least - bits).astype(np.int64)
