"""Inputs that make silent neurons fire: found by climbing, they refute that a neuron is dead.

Every neuron has one sample, which starts as the one of the data on which it came closest to its threshold. Elements
of the samples are moved to an end of the input's domain, at random, alone or in runs over time; what brings the
neuron's potential closer to its threshold stays. Now and then every element goes where it was seen to help:
for a first layer that is the input of the largest current. That nothing was found proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import ExecutionError
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.observe import Observation, Observer
from snn_optimizer.execution.source import ModelSource
from snn_optimizer.ir.activity_limit import thinned

__all__ = ["find_witnesses"]

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
_ROUNDS: Final = 48
_STEERED: Final = 6  # every how many rounds what was learned is tried
_MOST: Final = 128  # neurons of one population that are tried


def find_witnesses(
    model: ModelSource,
    wanted: Mapping[str, Mask],
    dataset: Dataset,
    ends: Mapping[str, tuple[float, float]],
    *,
    seed: int = 0,
    limits: Mapping[str, int] | None = None,
) -> dict[str, Mask]:
    """Return which of the wanted neurons fire for an input that was found.

    Parameters
    ----------
    model : ModelProto, bytes or path
    wanted : mapping from population to bool array
        One element per unit; a unit with several positions fires when one of them does.
    dataset : Dataset
        Where the search starts.
    ends : mapping from input to (low, high)
        The domain; inputs without an entry keep their values.
    seed : int
    limits : mapping from input to int, optional
        How many entries of it may be non-zero at one step of one sample.

    Raises
    ------
    ExecutionError
        If the model does not run, or its samples cannot be told apart.
    """
    observer = Observer(model)
    found: dict[str, Mask] = {}
    for name, mask in wanted.items():
        tap = observer.tap(name)
        found[name] = np.zeros(mask.shape, np.bool_)
        if tap is None or not tap.variant.spiking or not mask.any() or dataset.fixed_batch is not None:
            continue
        units = np.flatnonzero(mask)[:_MOST]
        climb = _Climb(observer, name, units, len(mask), dataset, ends, seed, limits or {})
        found[name][units[climb.run()]] = True
    return found


class _Climb:
    def __init__(
        self,
        observer: Observer,
        population: str,
        units: npt.NDArray[np.int64],
        size: int,
        dataset: Dataset,
        ends: Mapping[str, tuple[float, float]],
        seed: int,
        limits: Mapping[str, int],
    ) -> None:
        self.limits = limits
        self.observer = observer
        self.taps = [tap for tap in observer.taps if tap.population == population]
        self.units = units
        self.size = size
        self.dataset = dataset
        self.ends = {
            name: ends[name] for name in dataset.feeds if name in ends and dataset.feeds[name].dtype.kind == "f"
        }
        self.rng = np.random.default_rng(seed)
        self.covariance: dict[str, Array] = {}

    def run(self) -> Mask:
        """Return which units fired."""
        samples = self._closest()
        best, fired = self._scores(samples)
        for turn in range(_ROUNDS):
            if fired.all() or not self.ends:
                break
            moved = self._steered(samples) if turn % _STEERED == _STEERED - 1 else self._moved(samples, turn)
            gap, also = self._scores(moved)
            better = gap < best
            samples = self._chosen(samples, moved, better)
            best, fired = np.where(better, gap, best), fired | also
        return fired

    def _closest(self) -> Dataset:
        gaps = [self._gaps(self._observed(batch), batch.samples) for batch in self.dataset.batches(64)]
        table = np.concatenate(gaps, axis=0)
        return self.dataset.take(table.argmin(axis=0))

    def _observed(self, batch: Dataset) -> Observation:
        return next(iter(self.observer.observe(batch.feeds, self.taps)))

    def _gaps(self, seen: Observation, samples: int) -> Array:
        """Return how far each sample kept each unit below its threshold; at most zero where it fired."""
        assert seen.threshold is not None  # it spikes
        if seen.potential.shape[1:2] != (samples,):
            raise ExecutionError(f"which axis of the inputs counts samples is not seen in '{seen.population}'")
        shape = (*seen.potential.shape[:2], self.size, -1)
        below = np.broadcast_to(seen.threshold, seen.potential.shape) - seen.potential
        gap = below.reshape(shape).min(axis=(0, 3))
        fires = (seen.spikes.reshape(shape) != 0).any(axis=(0, 3))
        return np.asarray(np.where(fires, -np.inf, gap)[:, self.units])

    def _scores(self, samples: Dataset) -> tuple[Array, Mask]:
        gaps = self._gaps(self._observed(samples), samples.samples)
        self._learn(samples, gaps)
        own = np.arange(len(self.units))
        return gaps[own, own], np.asarray(np.isneginf(gaps).any(axis=0))

    def _learn(self, samples: Dataset, gaps: Array) -> None:
        """Add to the covariance of every unit's distance to threshold with the mean of every input over time."""
        finite = np.where(np.isfinite(gaps), gaps, 0.0)
        centred = finite - finite.mean(axis=0)
        for name in self.ends:
            axis = samples.batch_axes[name]
            if axis is not None:
                level = self._levels(samples.feeds[name], axis)
                self.covariance[name] = self.covariance.get(name, 0) + centred.T @ (level - level.mean(axis=0))

    @staticmethod
    def _levels(array: Array, axis: int) -> Array:
        """Return the inputs of every sample, their mean over time where they have a time axis, flat."""
        means = array.mean(axis=0) if axis == 1 else array
        return np.asarray(means, np.float64).reshape(len(means), -1)

    def _steered(self, samples: Dataset) -> Dataset:
        """Hold every input of a unit's sample where it was seen to help, at all steps."""
        feeds = dict(samples.feeds)
        for name, (low, high) in self.ends.items():
            axis = samples.batch_axes[name]
            if axis is None or axis > 1:
                continue
            array = feeds[name]
            one = array.shape[1:] if axis == 1 else array.shape
            level = np.where(self.covariance[name] < 0, high, low).reshape(one)
            held = np.broadcast_to(level, array.shape).astype(array.dtype)
            feeds[name] = self._limited(name, held, np.abs(self.covariance[name]).reshape(one))
        return Dataset(feeds, None, samples.batch_axes)

    def _moved(self, samples: Dataset, turn: int) -> Dataset:
        """Move elements of every sample to an end of the domain; a run over all steps in every other turn."""
        feeds = dict(samples.feeds)
        for name, (low, high) in self.ends.items():
            array = np.array(feeds[name])
            axis = samples.batch_axes[name]
            if axis is None:
                continue
            share = float(self.rng.choice([0.02, 0.1, 0.3]))
            shape = [1 if turn % 2 and axis == 1 and index == 0 else size for index, size in enumerate(array.shape)]
            chosen = np.broadcast_to(self.rng.random(shape) < share, array.shape)
            level = np.broadcast_to(np.where(self.rng.random(shape) < 0.5, low, high), array.shape)
            feeds[name] = self._limited(name, np.where(chosen, level, array).astype(array.dtype), None)
        return Dataset(feeds, None, samples.batch_axes)

    def _limited(self, name: str, array: Array, preference: Array | None) -> Array:
        """Keep as many entries of a step as the domain allows, those that matter most where that is known."""
        return thinned(array, self.limits[name], self.rng, preference) if name in self.limits else array

    def _chosen(self, old: Dataset, new: Dataset, better: Mask) -> Dataset:
        feeds = {}
        for name, array in old.feeds.items():
            axis = old.batch_axes[name]
            shape = [1] * array.ndim
            if axis is None:
                feeds[name] = array
                continue
            shape[axis] = len(better)
            feeds[name] = np.where(better.reshape(shape), new.feeds[name], array)
        return Dataset(feeds, None, old.batch_axes)
