"""Spike trains of a population over a whole data set, and their second moments."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import DataError
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.instrument import Tap
from snn_optimizer.execution.observe import Observer, over_time, signal_outputs
from snn_optimizer.execution.profile import bounded_batch
from snn_optimizer.execution.source import ModelSource

__all__ = ["Recorder"]

Array = npt.NDArray[Any]


class Recorder:
    """Runs a model over data and hands out what its populations emitted.

    Nothing is kept between calls but the moments.

    Parameters
    ----------
    model : ModelProto, bytes or path
    dataset : Dataset
    batch_size : int
        Samples per run at most.
    """

    def __init__(self, model: ModelSource, dataset: Dataset, *, batch_size: int = 64) -> None:
        self._observer = Observer(model)
        self._dataset = dataset
        self._batch_size = bounded_batch(self._observer, dataset, batch_size)
        self._moments: dict[str, npt.NDArray[np.float64]] = {}

    @property
    def populations(self) -> tuple[str, ...]:
        """The names of the populations, in the order of the nodes."""
        return tuple(tap.population for tap in self._observer.taps)

    def spikes(self, population: str) -> Array:
        """Return the whole output of a population, shape (T, samples, N...).

        Raises
        ------
        DataError
            If there is no such population.
        """
        tap = self._tap(population)
        return np.concatenate([self._train(tap, batch) for batch in self._batches()], axis=1)

    def distances(self, population: str) -> npt.NDArray[np.float32] | None:
        """Return how far each potential is from its threshold, as a share of it, shape (T, samples, N...).

        ``None`` for a population without threshold.

        Raises
        ------
        DataError
            If there is no such population.
        """
        tap = self._tap(population)
        parts = []
        for batch in self._batches():
            (seen,) = self._observer.observe(batch.feeds, [tap])
            if seen.distance is None or seen.threshold is None:
                return None
            with np.errstate(all="ignore"):
                parts.append((seen.distance / np.abs(seen.threshold)).astype(np.float32))
        return np.concatenate(parts, axis=1)

    def gram(self, population: str) -> npt.NDArray[np.float64]:
        """Return the second moments of a population's output and a constant.

        The mean over steps and samples: with the output of one step and sample flattened
        to ``s`` and ``r = (s, 1)``, the mean of ``r r^T``. The last row is the mean of the
        output, the last element 1. Held once: ``(n + 1)^2`` numbers for ``n`` neurons.

        Raises
        ------
        DataError
            If there is no such population.
        """
        if population not in self._moments:
            tap = self._tap(population)
            total = sum((_moments(self._train(tap, batch)) for batch in self._batches()), start=np.zeros(()))
            self._moments[population] = total / total[-1, -1]
        return self._moments[population].copy()

    def _tap(self, population: str) -> Tap:
        tap = self._observer.tap(population)
        if tap is None:
            raise DataError(f"no population '{population}'; the model has {', '.join(self.populations) or 'none'}")
        return tap

    def _batches(self) -> list[Dataset]:
        return list(self._dataset.batches(self._batch_size))

    def _train(self, tap: Tap, batch: Dataset) -> Array:
        values = self._observer.session.run(batch.feeds, list(signal_outputs(tap)))
        return over_time(tap, values[tap.s], values)


def _moments(train: Array) -> npt.NDArray[np.float64]:
    flat = train.reshape(train.shape[0] * train.shape[1], -1).astype(np.float64)
    regressors = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
    return np.asarray(regressors.T @ regressors)
