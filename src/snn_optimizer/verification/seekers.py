"""Threshold seekers: inputs that bring membranes onto their thresholds.

A rewrite that only rounds differently changes a spike exactly where a potential
meets its threshold, and random inputs hardly ever bring it there. Two searches do:

*Evolution.* For every neuron the sample that came closest is kept; bits of these
samples are flipped, most of them at the step of the closest approach, and what came
closer stays.

*Solving.* The responses of the potentials of one step to single flips are measured.
Where they add up, as in a first layer, a subset of flips whose sum lands on the
threshold is found by meeting in the middle: 2^10 sums against 2^10 sums come within
about a millionth. Where they do not add up the proposal is a random flip like others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.execution.axes import time_axis
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.observe import Observer
from snn_optimizer.execution.profile import bounded_batch
from snn_optimizer.execution.source import ModelSource
from snn_optimizer.ir.activity_limit import thinned
from snn_optimizer.verification.sample_space import SampleSpace, closest_subset, joined
from snn_optimizer.verification.stimuli import Stimulus

__all__ = ["QUICK", "THOROUGH", "Effort", "seek_thresholds"]

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

_LEAST = 16  # samples kept at least, shared by the populations
_RANKS = 4  # samples kept for the sake of one neuron
_SOLVED = 20  # elements whose flips are combined; 2^10 sums on either side
_TARGETS = 6  # neurons solved for per population and round


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to search.

    Attributes
    ----------
    rounds : int
        At most; large models get fewer.
    solves : int
        Samples per round whose single flips are measured and combined.
    most : int
        Samples kept at most, shared by the populations.
    kept_work : int
        Potentials of the samples kept, where that is fewer samples (and at least 16).
    all_work : int
        Potentials computed, after which a search of two rounds or more ends.
    both_sides : bool
        Whether the closest approach from below and that from above count on their own, beside the closest of all.
    solve_each : bool
        Whether to solve for the neurons one by one as well, see :mod:`~snn_optimizer.verification.ties`.
    """

    rounds: int
    solves: int
    most: int
    kept_work: int
    all_work: int
    both_sides: bool
    solve_each: bool


QUICK = Effort(rounds=12, solves=1, most=192, kept_work=1 << 20, all_work=1 << 24, both_sides=False, solve_each=False)
THOROUGH = Effort(rounds=96, solves=4, most=384, kept_work=1 << 24, all_work=1 << 26, both_sides=True, solve_each=True)


def seek_thresholds(
    model: ModelSource | Observer,
    base: Sequence[Stimulus],
    *,
    rounds: int | None = None,
    seed: int = 0,
    effort: Effort = QUICK,
    limits: Mapping[str, int] | None = None,
) -> tuple[Stimulus, ...]:
    """Search for samples whose potentials come closest to the thresholds.

    Parameters
    ----------
    model : ModelProto, bytes, path or Observer
    base : sequence of Stimulus
        Where the search starts, all of one shape. Each element of the result stays
        between the smallest and the largest value it has there.
    rounds : int, optional
        At most, instead of those of the effort.
    seed : int
    effort : Effort
    limits : mapping from input name to int, optional
        How many entries of an input may be non-zero at one step of one sample.

    Returns
    -------
    tuple of Stimulus
        One per population that spikes and is driven by the inputs, closest samples first.

    Raises
    ------
    ExecutionError
        If the model does not run on ``base``.
    """
    observer = model if isinstance(model, Observer) else Observer(model)
    spiking = [tap for tap in observer.taps if tap.variant.spiking]
    if not base or not spiking or not observer.session.inputs:
        return ()
    search = _Search(observer, base, seed, limits or {}, effort)
    for done in range(effort.rounds if rounds is None else rounds):
        if done >= 2 and search.work > effort.all_work:
            break
        search.evolve()
        for _ in range(effort.solves):
            search.solve()
    return search.found()


@dataclass(slots=True)
class _Pool:
    """Samples with the closest approach of every neuron: arrays of shape (samples, neurons) per population.

    Where both sides count, three columns per neuron: the closest of all, from below, from above.
    """

    feeds: dict[str, Array]
    closest: dict[str, Array] = field(default_factory=dict)
    steps: dict[str, Array] = field(default_factory=dict)


class _Search:
    """The state of one search."""

    def __init__(
        self, observer: Observer, base: Sequence[Stimulus], seed: int, limits: Mapping[str, int], effort: Effort
    ) -> None:
        self.observer = observer
        self.effort = effort
        self.limits = limits
        self.generator = np.random.default_rng([seed, 0x5EED])
        self.space = SampleSpace(observer.session.inputs, base)
        self.axes, self.free = self.space.axes, self.space.free
        first = Dataset.from_arrays(base[0].feeds, observer.session.inputs)
        self.batch = bounded_batch(observer, first, 64)
        self.work = 0
        single = self._scored(dict(first.take([0]).feeds))
        populations = len(single.closest)
        potentials = max(1, sum(table.shape[1] for table in single.closest.values()) * first.steps)
        kept = min(max(effort.kept_work // potentials, _LEAST), effort.most)
        self.share = max(2, kept // max(1, populations))
        self.pool = self._scored(self._thinned(base, 2 * kept))

    def _thinned(self, base: Sequence[Stimulus], samples: int) -> dict[str, Array]:
        """Return the first samples of each stimulus, about as many as wanted in all."""
        each = slice(max(1, samples // len(base)))
        taken = [Dataset(stimulus.feeds, None, self.axes).take(each).feeds for stimulus in base]
        return {name: joined([feeds[name] for feeds in taken], axis) for name, axis in self.axes.items()}

    def _scored(self, feeds: dict[str, Array]) -> _Pool:
        limited = {
            name: thinned(array, self.limits[name], self.generator) if name in self.limits else array
            for name, array in feeds.items()
        }
        data = self.space.dataset(limited)
        pool = _Pool(dict(data.feeds))
        closest: dict[str, list[Array]] = {}
        steps: dict[str, list[Array]] = {}
        for batch in data.batches(self.batch):
            for seen in self.observer.observe(batch.feeds):
                self.work += seen.potential.size
                if seen.gap is None or seen.threshold is None or seen.potential.shape[1:2] != (batch.samples,):
                    continue  # no spikes, or which of its axes counts samples is not seen
                with np.errstate(invalid="ignore"):  # thresholds may be infinite
                    relative = seen.gap / np.maximum(1, np.abs(seen.threshold))
                flat = self._approaches(relative)
                closest.setdefault(seen.population, []).append(flat.min(axis=0))
                steps.setdefault(seen.population, []).append(flat.argmin(axis=0))
        pool.closest = {name: np.concatenate(parts) for name, parts in closest.items()}
        pool.steps = {name: np.concatenate(parts) for name, parts in steps.items()}
        return pool

    def _approaches(self, gaps: Array) -> Array:
        """Return distances from gaps, a column for each that counts on its own: infinite on the other side."""
        flat = gaps.reshape(*gaps.shape[:2], -1)
        distance = np.abs(flat)
        distance[np.isnan(distance)] = np.inf
        if not self.effort.both_sides:
            return np.asarray(distance)
        sides = [distance, *(np.where(side, distance, np.inf) for side in (flat < 0, flat > 0))]
        return np.concatenate(sides, axis=2)

    def _elites(self, population: str, count: int) -> list[tuple[int, int]]:
        """Return (sample, step) of the closest approaches, samples without repeats."""
        table, steps = self.pool.closest[population], self.pool.steps[population]
        ranks = _lowest(table, _RANKS)
        columns = np.arange(table.shape[1])
        samples, at = [], []
        for best in ranks:  # all neurons' closest samples, then all second closest, ...
            order = np.argsort(table[best, columns], kind="stable")
            samples.append(best[order])
            at.append(steps[best, columns][order])
        flat, flat_steps = np.concatenate(samples), np.concatenate(at)
        first = np.sort(np.unique(flat, return_index=True)[1])[:count]
        return list(zip(flat[first].tolist(), flat_steps[first].tolist(), strict=True))

    def evolve(self) -> None:
        """Flip elements of the closest samples, then keep the closest of all."""
        populations = list(self.pool.closest)
        parents = [elite for population in populations for elite in self._elites(population, self.share)]
        if not parents or not self.free:
            return
        children = self.space.taken(self.pool.feeds, [sample for sample, _ in parents])
        flips = self.generator.choice([1, 2, 4, 8], size=len(parents))
        rows = np.repeat(np.arange(len(parents)), flips)
        steps = np.array([step for _, step in parents])[rows]
        inputs = self.generator.integers(len(self.free), size=len(rows))
        for number, name in enumerate(self.free):
            chosen = inputs == number
            self._flip_somewhere(name, children[name], rows[chosen], steps[chosen])
        self._admit(self._scored(children))

    def _flip_somewhere(self, name: str, array: Array, samples: Integers, steps: Integers) -> None:
        """Flip a random element of each of the samples, half of them at the given steps, half before."""
        index = [self.generator.integers(size, size=len(samples)) for size in array.shape]
        time = time_axis(array.shape, self.axes[name])
        if time is not None:
            near = np.minimum(steps, array.shape[time] - 1)
            earlier = (self.generator.random(len(samples)) * (near + 1)).astype(np.int64)
            index[time] = np.where(self.generator.random(len(samples)) < 0.5, near, earlier)
        self.space.flip(name, array, samples, index)

    def solve(self) -> None:
        """Combine single flips at one step of one sample so that potentials land on thresholds."""
        populations = list(self.pool.closest)
        if not populations or not self.free:
            return
        elites = self._elites(populations[int(self.generator.integers(len(populations)))], self.share)
        sample, step = elites[int(self.generator.integers(len(elites)))]
        places = self._places(step)
        probes = self.space.taken(self.pool.feeds, [sample] * (len(places) + 1))
        for row, (name, index) in enumerate(places, start=1):
            self.space.flip(name, probes[name], row, index)
        plans = list(self._plans(probes, step, len(places)))
        if not plans:
            return
        proposals = self.space.taken(self.pool.feeds, [sample] * len(plans))
        for row, plan in enumerate(plans):
            for position in np.flatnonzero(plan):
                name, index = places[position]
                self.space.flip(name, proposals[name], row, index)
        self._admit(self._scored(proposals))

    def _places(self, step: int) -> list[tuple[str, list[int]]]:
        """Choose different elements, over all inputs, of one step and where it has too few of the steps before."""
        places: dict[tuple[str, tuple[int, ...]], None] = {}
        for _ in range(3 * _SOLVED):
            name = self.free[int(self.generator.integers(len(self.free)))]
            shape = self.pool.feeds[name].shape
            index = [int(self.generator.integers(size)) for size in shape]
            axis = self.axes[name]
            assert axis is not None
            index[axis] = 0
            time = time_axis(shape, axis)
            if time is not None:
                last = min(step, shape[time] - 1)
                window = -(-_SOLVED * shape[time] * shape[axis] // self.pool.feeds[name].size)
                index[time] = max(0, last - int(self.generator.integers(window)))
            places[name, tuple(index)] = None
            if len(places) == _SOLVED:
                break
        return [(name, list(index)) for name, index in places]

    def _plans(self, probes: dict[str, Array], step: int, count: int) -> Iterator[npt.NDArray[np.bool_]]:
        """Yield sets of flips, from the potentials without any and with each single one."""
        potentials: dict[str, list[Array]] = {}
        thresholds: dict[str, Array] = {}
        for batch in self.space.dataset(probes).batches(self.batch):
            for seen in self.observer.observe(batch.feeds):
                self.work += seen.potential.size
                if seen.threshold is None:
                    continue
                at = min(step, len(seen.potential) - 1)
                row = seen.potential[at].reshape(seen.potential.shape[1], -1).astype(np.float64)
                potentials.setdefault(seen.population, []).append(row)
                level = np.broadcast_to(seen.threshold, seen.potential.shape)[at, 0]
                thresholds[seen.population] = level.reshape(-1).astype(np.float64)
        for population, parts in potentials.items():
            table = np.concatenate(parts)[: count + 1]
            if not np.isfinite(table).all() or table.size == 0:
                continue
            effects, missing = table[1:] - table[0], thresholds[population] - table[0]
            movable = np.flatnonzero(np.abs(effects).sum(axis=0) >= np.abs(missing))
            for neuron in self.generator.permutation(movable)[:_TARGETS]:
                yield closest_subset(effects[:, neuron], float(missing[neuron]))

    def _admit(self, found: _Pool) -> None:
        """Keep, of the pool and the new samples, those closest for some neuron."""
        self.pool = _Pool(
            {name: joined([self.pool.feeds[name], found.feeds[name]], axis) for name, axis in self.axes.items()},
            {name: np.concatenate([self.pool.closest[name], found.closest[name]]) for name in self.pool.closest},
            {name: np.concatenate([self.pool.steps[name], found.steps[name]]) for name in self.pool.steps},
        )
        kept = sorted({sample for name in self.pool.closest for sample, _ in self._elites(name, self.share)})
        self.pool = _Pool(
            self.space.taken(self.pool.feeds, kept),
            {name: table[kept] for name, table in self.pool.closest.items()},
            {name: table[kept] for name, table in self.pool.steps.items()},
        )

    def found(self) -> tuple[Stimulus, ...]:
        """Return the closest samples of each population."""
        stimuli = []
        for population in self.pool.closest if self.free else ():
            samples = [sample for sample, _ in self._elites(population, self.share)]
            if samples:
                feeds = self.space.dataset(self.space.taken(self.pool.feeds, samples)).feeds
                stimuli.append(Stimulus(f"seek:{population}", feeds))
        return tuple(stimuli)


def _lowest(table: Array, count: int) -> Integers:
    """Return, per column, the rows of the lowest values, lowest first; many times faster than sorting."""
    left, columns = table.copy(), np.arange(table.shape[1])
    rows = []
    for _ in range(min(count, len(table))):
        rows.append(left.argmin(axis=0))
        left[rows[-1], columns] = np.inf
    return np.stack(rows)
