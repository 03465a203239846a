"""What a model did on data: rate, membrane range and distance to threshold of every neuron."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import DataError
from snn_optimizer.execution.data import Dataset, read_arrays, save_arrays
from snn_optimizer.execution.observe import Observation, Observer
from snn_optimizer.execution.source import ModelSource, model_digest

__all__ = ["PopulationProfile", "Profile", "bounded_batch", "profile_model"]

Array = npt.NDArray[Any]

FORMAT = "snn_optimizer profile 1"
"""First entry of the header of a saved profile."""

_ARRAYS = ("spike_count", "v_min", "v_max", "margin")
_MOST = 2.0**62  # spikes of a neuron that are counted
_MEMORY = 256 << 20  # bytes of recordings held at once


@dataclass(frozen=True, slots=True, eq=False)
class PopulationProfile:
    """Measurements of one population, per neuron.

    Attributes
    ----------
    name : str
        The name of its node.
    shape : tuple of int
        Of every array below: the axes of a neuron.
    observations : int
        Steps times samples.
    spiking : bool
        False for ``LI``, whose ``rate`` and ``margin`` are NaN.
    spike_count : int64 array
        Spikes over all steps and samples.
    v_min, v_max : float64 array, membrane units
        Range of the potential at the threshold test.
    margin : float64 array, membrane units
        Smallest distance of that potential to a value at which the count of spikes changes.
    """

    name: str
    shape: tuple[int, ...]
    observations: int
    spiking: bool
    spike_count: npt.NDArray[np.int64]
    v_min: npt.NDArray[np.float64]
    v_max: npt.NDArray[np.float64]
    margin: npt.NDArray[np.float64]

    @property
    def rate(self) -> npt.NDArray[np.float64]:
        """Mean spikes per step and sample."""
        if not self.spiking:
            return np.full(self.shape, np.nan)
        return np.asarray(self.spike_count / self.observations, np.float64)

    @classmethod
    def of(cls, observation: Observation) -> Self:
        """Measure one run."""
        potential = observation.potential
        neurons = potential.shape[2:]
        both = (0, 1)
        margin = np.full(neurons, np.nan)
        count = np.zeros(neurons, np.int64)
        if observation.distance is not None:
            margin = observation.distance.min(axis=both).astype(np.float64)
            total = observation.spikes.sum(axis=both, dtype=np.float64)
            # what puts out no number is not silent
            sound = np.where(np.isfinite(total), np.minimum(total, _MOST), potential.shape[0] * potential.shape[1])
            count = sound.astype(np.int64)
        return cls(
            name=observation.population,
            shape=neurons,
            observations=potential.shape[0] * potential.shape[1],
            spiking=observation.spiking,
            spike_count=np.asarray(count),
            v_min=potential.min(axis=both).astype(np.float64),
            v_max=potential.max(axis=both).astype(np.float64),
            margin=margin,
        )

    def merge(self, other: Self) -> Self:
        """Return the measurements of both.

        Raises
        ------
        DataError
            If they are of different populations.
        """
        if (self.name, self.shape, self.spiking) != (other.name, other.shape, other.spiking):
            raise DataError(f"population '{self.name}' {self.shape} is not '{other.name}' {other.shape}")
        return type(self)(
            name=self.name,
            shape=self.shape,
            observations=self.observations + other.observations,
            spiking=self.spiking,
            spike_count=self.spike_count + other.spike_count,
            v_min=np.minimum(self.v_min, other.v_min),
            v_max=np.maximum(self.v_max, other.v_max),
            margin=np.minimum(self.margin, other.margin),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Measurements of all populations of a model.

    Attributes
    ----------
    populations : mapping from name to PopulationProfile
    samples : int
    steps : int
        Time steps of one sample.
    model_digest : str
        Of the model that was measured, see :func:`snn_optimizer.execution.source.model_digest`.
    """

    populations: Mapping[str, PopulationProfile]
    samples: int
    steps: int
    model_digest: str

    def merge(self, other: Profile) -> Profile:
        """Return the measurements of both, as if the data had been one file.

        Raises
        ------
        DataError
            If they are of different models, or of runs of different length.
        """
        if self.model_digest != other.model_digest or list(self.populations) != list(other.populations):
            raise DataError("the profiles are of different models")
        if self.steps != other.steps:
            raise DataError(f"one profile is of {self.steps} steps per sample, the other of {other.steps}")
        merged = {name: mine.merge(other.populations[name]) for name, mine in self.populations.items()}
        return Profile(merged, self.samples + other.samples, self.steps, self.model_digest)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an ``.npz`` file, complete or not at all.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        header = {
            "format": FORMAT,
            "samples": self.samples,
            "steps": self.steps,
            "model_digest": self.model_digest,
            "populations": [
                {"name": each.name, "observations": each.observations, "spiking": each.spiking}
                for each in self.populations.values()
            ],
        }
        arrays = {"header": np.array(json.dumps(header))}
        for index, population in enumerate(self.populations.values()):
            arrays |= {f"{index}.{name}": getattr(population, name) for name in _ARRAYS}
        save_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Profile:
        """Read what :meth:`save` wrote.

        Raises
        ------
        DataError
            If the file cannot be read, is something else, or contradicts itself.
        """
        arrays = read_arrays(path)
        try:
            return _read(arrays)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"'{os.fspath(path)}': not a profile of this version; make one with 'snnopt profile'"
            ) from error


def profile_model(
    model: ModelSource,
    dataset: Dataset,
    *,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Profile:
    """Measure every population of a model on data.

    Parameters
    ----------
    model : ModelProto, bytes or path
    dataset : Dataset
    batch_size : int
        Samples per run at most; fewer where the recordings would fill the memory.
    progress : callable, optional
        Told the samples done and the samples in all.

    Raises
    ------
    ExecutionError
        If the model does not run.
    """
    observer = Observer(model)
    total: dict[str, PopulationProfile] = {}
    done = 0
    for batch in dataset.batches(bounded_batch(observer, dataset, batch_size)):
        for part in _measured(observer, batch):
            total[part.name] = total[part.name].merge(part) if part.name in total else part
        done += batch.samples
        if progress is not None:
            progress(done, dataset.samples)
    first = next(iter(total.values()), None)
    steps = dataset.steps if first is None else first.observations // dataset.samples
    return Profile(total, dataset.samples, steps, model_digest(model))


def bounded_batch(observer: Observer, dataset: Dataset, batch_size: int) -> int:
    """Return how many samples to record at once, so that the recordings stay below 256 MiB."""
    probe = next(dataset.batches(1))
    if dataset.samples <= probe.samples or not observer.taps:
        return batch_size
    recorded = sum(3 * train.nbytes for train in observer.trains(probe.feeds).values())  # current, spikes, potential
    return max(1, min(batch_size, _MEMORY * probe.samples // max(1, recorded)))


def _measured(observer: Observer, batch: Dataset) -> Iterator[PopulationProfile]:
    for observation in observer.observe(batch.feeds):
        yield PopulationProfile.of(observation)


def _read(arrays: Mapping[str, Array]) -> Profile:
    header = json.loads(str(arrays["header"]))
    if header["format"] != FORMAT:
        raise ValueError
    populations = {entry["name"]: _loaded(entry, index, arrays) for index, entry in enumerate(header["populations"])}
    samples, steps = _positive(header["samples"]), _positive(header["steps"])
    return Profile(populations, samples, steps, str(header["model_digest"]))


def _loaded(entry: Mapping[str, Any], index: int, arrays: Mapping[str, Array]) -> PopulationProfile:
    values = {name: arrays[f"{index}.{name}"] for name in _ARRAYS}
    shape = values["spike_count"].shape
    if any(array.shape != shape for array in values.values()):
        raise ValueError
    if values["spike_count"].dtype != np.int64 or any(values[name].dtype != np.float64 for name in _ARRAYS[1:]):
        raise ValueError
    if not isinstance(entry["spiking"], bool) or not isinstance(entry["name"], str):
        raise TypeError
    return PopulationProfile(
        name=entry["name"],
        shape=shape,
        observations=_positive(entry["observations"]),
        spiking=entry["spiking"],
        **values,
    )


def _positive(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError
    return value
