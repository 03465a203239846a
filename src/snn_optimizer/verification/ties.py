"""Inputs solved for one neuron after another, so that its potential is a sum that meets the threshold.

In a layer that reads the inputs the potential of one step is a sum: the effect
of every entry is measured by switching it, and a set of entries is chosen whose effects are what is
missing to the threshold. Where weights, bias and threshold lie on a common grid (multiples of
1/16, tenths), sums are counted in units of the grid, so the tie is exact in real arithmetic and its
side in float arithmetic is a matter of rounding alone. Otherwise the closest of 2^20 sums is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.execution.axes import time_axis
from snn_optimizer.execution.instrument import Tap
from snn_optimizer.execution.observe import Observer
from snn_optimizer.verification.near_ties import ROUNDING
from snn_optimizer.verification.sample_space import SampleSpace, closest_subset
from snn_optimizer.verification.stimuli import Stimulus

__all__ = ["exact_subset", "grid_unit", "solve_sums"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Place = tuple[str, tuple[int, ...]]

_PLACES = 160  # entries whose effects are measured
_NEURONS = 96  # solved for, per population
_KEPT = 96  # samples, per population
_BATCH = 64
_CLOSEST = 20  # entries combined where there is no grid
_FINEST = 1e-3  # unit of a grid
_SLACK = 1e-2  # of a unit, from a multiple of it
_SUMS = 1 << 16  # units that sums may reach


def solve_sums(
    observer: Observer, base: Sequence[Stimulus], *, seed: int = 0, limits: Mapping[str, int] | None = None
) -> tuple[Stimulus, ...]:
    """Solve the first step of samples for the neurons whose potential is a sum of effects of the inputs.

    Parameters
    ----------
    observer : Observer
    base : sequence of Stimulus
        All of one shape; a random train among them gives the other steps.
    seed : int
    limits : mapping from input name to int, optional
        How many entries of an input may be non-zero at one step of one sample.

    Returns
    -------
    tuple of Stimulus
        ``grid:POPULATION`` or, where nothing lies on a grid, ``sums:POPULATION``; samples that came within
        rounding of a threshold.

    Raises
    ------
    ExecutionError
        If the model does not run on ``base``.
    """
    solver = _Sums(observer, base, np.random.default_rng([seed, 0x50105]), limits or {})
    return tuple(solver.stimuli()) if solver.places else ()


class _Sums:
    """Effects of single entries of one step, and what they add up to."""

    def __init__(
        self, observer: Observer, base: Sequence[Stimulus], generator: np.random.Generator, limits: Mapping[str, int]
    ) -> None:
        self.observer = observer
        self.generator = generator
        self.limits = limits
        self.space = SampleSpace(observer.session.inputs, base)
        trains = [each for each in base if each.name.startswith("random")] or list(base)
        self.background = trains[len(trains) // 2].feeds
        self.places = self._choose_places()

    def _choose_places(self) -> list[Place]:
        """Choose entries of the first step, over all inputs."""
        found: list[Place] = []
        for name in self.space.free:
            array, batch = self.background[name], self.space.axes[name]
            time = time_axis(array.shape, batch)
            shape = [1 if axis in (time, batch) else size for axis, size in enumerate(array.shape)]
            found += [(name, tuple(index)) for index in np.ndindex(*shape)]
        chosen = np.sort(self.generator.permutation(len(found))[:_PLACES])
        return [found[position] for position in chosen]

    def _samples(self, plans: Sequence[Sequence[int]]) -> dict[str, Array]:
        """Return one sample per plan: the first step at the low ends but for the plan, then background."""
        feeds = self.space.taken(self.background, [row % self._backgrounds for row in range(len(plans))])
        for name in self.space.free:
            array = feeds[name]
            time = time_axis(array.shape, self.space.axes[name])
            step = tuple(0 if axis == time else slice(None) for axis in range(array.ndim))
            array[step] = np.broadcast_to(self.space.low[name], array.shape)[step]
        for row, plan in enumerate(plans):
            for position in plan:
                name, index = self.places[position]
                self.space.flip(name, feeds[name], row, index)
        return feeds

    @property
    def _backgrounds(self) -> int:
        axis = next(self.space.axes[name] for name in self.space.free)
        return int(self.background[self.space.free[0]].shape[axis or 0])

    def _first_step(self, plans: Sequence[Sequence[int]], taps: Sequence[Tap]) -> dict[str, tuple[Floats, Floats]]:
        """Return potential and gap of the first step of each population, one row per plan."""
        rows: dict[str, list[tuple[Floats, Floats]]] = {}
        for batch in self.space.dataset(self._samples(plans)).batches(_BATCH):
            for seen in self.observer.observe(batch.feeds, taps):
                if seen.gap is not None and len(seen.gap):
                    rows.setdefault(seen.population, []).append((_row(seen.potential), _row(seen.gap)))
        count = len(plans)
        return {
            name: (np.concatenate([p for p, _ in parts])[:count], np.concatenate([g for _, g in parts])[:count])
            for name, parts in rows.items()
        }

    def stimuli(self) -> Iterator[Stimulus]:
        count = len(self.places)
        halves = [sorted(self.generator.permutation(count)[: count // 2].tolist()) for _ in range(2)]
        taps = [tap for tap in self.observer.taps if tap.variant.spiking and tap.variant.max_spikes == 1]
        measured = self._first_step([[], *([place] for place in range(count)), *halves], taps)
        for tap in taps:
            if tap.population not in measured:
                continue
            potentials, gaps = measured[tap.population]
            effects, missing = potentials[1 : count + 1] - potentials[0], -gaps[0]
            size = np.maximum(1, np.abs(potentials).max(axis=0, initial=0))
            adds_up = np.ones(potentials.shape[1], np.bool_)
            for row, half in enumerate(halves, start=count + 1):
                expected = potentials[0] + effects[half].sum(axis=0)
                adds_up &= np.abs(potentials[row] - expected) <= 100 * ROUNDING * size
            up, down = np.maximum(effects, 0).sum(axis=0), np.minimum(effects, 0).sum(axis=0)
            reachable = adds_up & np.isfinite(missing) & (missing <= up) & (missing >= down) & (missing != 0)
            yield from self._solved(tap, effects, missing, np.flatnonzero(reachable))

    def _solved(self, tap: Tap, effects: Floats, missing: Floats, neurons: npt.NDArray[np.intp]) -> Iterator[Stimulus]:
        plans: list[list[int]] = []
        targets: list[int] = []
        on_grid = False
        for neuron in self.generator.permutation(neurons)[:_NEURONS]:
            unit = grid_unit(np.append(effects[:, neuron], missing[neuron]))
            on_grid |= unit is not None
            for _ in range(2):
                plan = self._plan(effects[:, neuron], float(missing[neuron]), unit)
                if plan and self._is_allowed(plan):
                    plans.append(plan)
                    targets.append(int(neuron))
        if not plans:
            return
        _, gaps = self._first_step(plans, [tap])[tap.population]
        near = np.abs(gaps[np.arange(len(plans)), targets])
        kept = [row for row in np.argsort(near, kind="stable") if near[row] <= ROUNDING][:_KEPT]
        if kept:
            feeds = self._samples(plans)  # backgrounds go by the row
            data = self.space.dataset(self.space.taken(feeds, [int(row) for row in kept]))
            yield Stimulus(f"{'grid' if on_grid else 'sums'}:{tap.population}", data.feeds)

    def _plan(self, effects: Floats, missing: float, unit: float | None) -> list[int] | None:
        useful = self.generator.permutation(np.flatnonzero(effects))
        if unit is not None:
            found = exact_subset(np.rint(effects[useful] / unit).astype(np.int64).tolist(), round(missing / unit))
            return None if found is None else sorted(int(useful[position]) for position in found)
        few, others = useful[:_CLOSEST], useful[_CLOSEST:]
        center = float(effects[few].sum()) / 2  # of the sums that the few can make
        plan = []
        for place in others:  # bring what is missing there
            if abs(missing - effects[place] - center) < abs(missing - center):
                plan.append(int(place))
                missing -= float(effects[place])
        return sorted(plan + [int(place) for place in few[closest_subset(effects[few], missing)]])

    def _is_allowed(self, plan: Sequence[int]) -> bool:
        """Tell whether a plan keeps to the activity limits; entries at rest are zero where there is one."""
        names = [self.places[position][0] for position in plan]
        return all(names.count(name) <= limit for name, limit in self.limits.items())


def grid_unit(values: npt.ArrayLike) -> float | None:
    """Return the unit of which all values are multiples, None where there is none above rounding.

    Powers of two, decimals, and fractions of the smallest value are tried, the largest first.
    """
    found = np.abs(np.asarray(values, np.float64))
    found = found[found > 0]
    if found.size < 2:
        return None
    smallest = float(found.min())
    units = {2.0**-k for k in range(10)} | {d * 10.0**-k for k in range(1, 4) for d in (1, 2, 5)}
    units |= {smallest / part for part in range(1, 17)}
    for unit in sorted((unit for unit in units if _FINEST <= unit <= smallest * (1 + _SLACK)), reverse=True):
        multiples = found / unit
        if (np.abs(multiples - np.rint(multiples)) <= _SLACK).all():
            return unit
    return None


def exact_subset(numbers: Sequence[int], target: int) -> list[int] | None:
    """Return positions of numbers that add up to the target, None where none do or sums get too large."""
    low = sum(number for number in numbers if number < 0)
    high = sum(number for number in numbers if number > 0)
    if not low <= target <= high or high - low > _SUMS:
        return None
    reached = [1 << -low]  # bit k: the sum k + low can be had
    for number in numbers:
        last = reached[-1]
        reached.append(last | (last << number if number >= 0 else last >> -number))
        if reached[-1] >> (target - low) & 1:
            break
    else:
        return None
    chosen, rest = [], target - low
    for position in range(len(reached) - 2, -1, -1):
        if not reached[position] >> rest & 1:
            chosen.append(position)
            rest -= numbers[position]
    return chosen[::-1]


def _row(values: Array) -> Floats:
    return np.asarray(values[0].reshape(values.shape[1], -1), np.float64)
