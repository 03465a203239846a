"""What a set of inputs made of the neurons: which fired, which met their threshold, which did neither."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.execution.observe import Observation, Observer
from snn_optimizer.verification.near_ties import ROUNDING

__all__ = ["Coverage", "PopulationCoverage", "measure_coverage"]

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]


@dataclass(slots=True, eq=False)
class PopulationCoverage:
    """One population, a flag per neuron, neurons in the order of the flattened axes.

    Attributes
    ----------
    population : str
    fired : bool array
        Neurons that fired at some step of some sample.
    rested : bool array
        Neurons that did not fire at some step of some sample.
    near : bool array
        Neurons whose potential came within :data:`~snn_optimizer.verification.near_ties.ROUNDING` of a value at
        which they fire once more.
    met : bool array
        Neurons whose potential was such a value, to the bit.
    """

    population: str
    fired: Flags
    rested: Flags
    near: Flags
    met: Flags

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return self.fired.size

    @property
    def untested(self) -> Flags:
        """Neurons that never fired and never came near their threshold: of these nothing is known."""
        return ~(self.fired | self.near)

    def add(self, seen: Observation) -> None:
        """Count in one run."""
        assert seen.gap is not None
        assert seen.threshold is not None
        axes = (0, 1)
        distance = np.abs(seen.gap) / np.maximum(1, np.abs(seen.threshold))
        self.fired |= (seen.spikes != 0).any(axis=axes).reshape(-1)
        self.rested |= (seen.spikes == 0).any(axis=axes).reshape(-1)
        self.near |= (distance <= ROUNDING).any(axis=axes).reshape(-1)
        self.met |= (seen.gap == 0).any(axis=axes).reshape(-1)

    def to_json(self) -> dict[str, object]:
        """Return counts, and the neurons behind each."""
        return {
            "population": self.population,
            "neurons": self.neurons,
            "fired": _indices(self.fired),
            "never_fired": _indices(~self.fired),
            "always_fired": _indices(~self.rested),
            "near_threshold": _indices(self.near),
            "on_threshold": _indices(self.met),
            "untested": _indices(self.untested),
        }


@dataclass(slots=True, eq=False)
class Coverage:
    """The spiking populations of a model, in the order of its nodes."""

    populations: dict[str, PopulationCoverage] = field(default_factory=dict)

    def to_json(self) -> list[dict[str, object]]:
        """Return the populations in JSON types."""
        return [each.to_json() for each in self.populations.values()]


def measure_coverage(observer: Observer, runs: Iterable[Mapping[str, npt.ArrayLike]]) -> Coverage:
    """Run a model and see what each of its neurons did.

    Parameters
    ----------
    observer : Observer
    runs : iterable of mapping from input name to array
        The feeds of each run.

    Raises
    ------
    ExecutionError
        If the model does not run.
    """
    found = Coverage()
    taps = [tap for tap in observer.taps if tap.variant.spiking]
    for feeds in runs:
        for seen in observer.observe(feeds, taps):
            if seen.gap is None:
                continue
            known = found.populations.get(seen.population)
            if known is None:
                neurons = int(np.prod(seen.spikes.shape[2:], dtype=np.int64))
                known = PopulationCoverage(seen.population, *(np.zeros(neurons, np.bool_) for _ in range(4)))
                found.populations[seen.population] = known
            known.add(seen)
    return found


def _indices(flags: Flags) -> list[int]:
    return [int(index) for index in np.flatnonzero(flags)]
