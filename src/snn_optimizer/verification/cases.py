"""The original of a comparison: what it is run on, and what it put out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import ExecutionError
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.observe import Observer
from snn_optimizer.execution.ort import Session
from snn_optimizer.verification.compare import Comparison, Level, is_spike_valued, same_bits
from snn_optimizer.verification.stimuli import Stimulus

__all__ = ["Case", "Original", "Run"]

Array = npt.NDArray[Any]


@dataclass(slots=True, eq=False)
class Run:
    """One batch, and what the original put out on it.

    Attributes
    ----------
    unchanged : tuple of spike outputs and Comparison, optional
        What comparing the outputs with equal ones gives; kept because most candidates give equal ones.
    """

    batch: Dataset
    outputs: dict[str, Array]
    unchanged: tuple[tuple[str, ...], Comparison] | None = None


@dataclass(slots=True, eq=False)
class Case:
    """A stimulus or the data, split into runs."""

    name: str
    data: Dataset
    generated: bool
    runs: list[Run]


@dataclass(slots=True, eq=False)
class Original:
    """The original and everything known about it."""

    session: Session
    batch_size: int
    observer: Observer | None = None
    stimuli: tuple[Stimulus, ...] = ()
    cases: list[Case] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict)
    not_spikes: set[str] = field(default_factory=set)
    fired: set[str] = field(default_factory=set)
    looked: int = 0

    def add_stimulus(self, stimulus: Stimulus) -> None:
        """Add a case, or note that the original does not run on it."""
        try:
            self.add(stimulus.name, Dataset.from_arrays(stimulus.feeds, self.session.inputs), generated=True)
        except ExecutionError:
            self.skipped.append(stimulus.name)

    def add(self, name: str, data: Dataset, *, generated: bool) -> None:
        """Run the original and keep its outputs."""
        runs = [Run(batch, self.session.run(batch.feeds)) for batch in data.batches(self.batch_size)]
        for run in runs:
            for output, values in run.outputs.items():
                if values.dtype.kind == "f":
                    finite = np.abs(values, where=np.isfinite(values), out=np.zeros_like(values))
                    self.scales[output] = max(self.scales.get(output, 0.0), float(finite.max(initial=0)))
                if not is_spike_valued(values):
                    self.not_spikes.add(output)
        self.cases.append(Case(name, data, generated, runs))

    def equals(self, copy: Session) -> bool:
        """Tell whether another model puts out the same bytes on every case; False where it does not run."""
        try:
            runs = [run for case in self.cases for run in case.runs]
            return all(same_bits(run.outputs, copy.run(run.batch.feeds)) for run in runs)
        except (ExecutionError, KeyError):
            return False

    def cases_for(self, level: Level) -> list[Case]:
        """Return what a claim of this level covers: measured claims hold on the data only."""
        data = [case for case in self.cases if not case.generated]
        if level is Level.PROFILED or (level is Level.LOSSY and data):
            return data
        return self.cases

    @property
    def spike_outputs(self) -> list[str]:
        """Outputs that held only integers from 0 up, on everything."""
        return [port.name for port in self.session.outputs if port.name not in self.not_spikes]

    @property
    def populations(self) -> tuple[str, ...]:
        """Spiking populations that can be seen."""
        taps = self.observer.taps if self.observer is not None else ()
        return tuple(tap.population for tap in taps if tap.variant.spiking)

    def silent(self) -> tuple[str, ...]:
        """Return the populations that fired on nothing; runs until all have fired."""
        populations = self.populations
        while self.observer is not None and self.looked < len(self.cases) and not self.fired.issuperset(populations):
            for run in self.cases[self.looked].runs:
                trains = self.observer.trains(run.batch.feeds)
                self.fired.update(name for name, train in trains.items() if train.any())
            self.looked += 1
        return tuple(name for name in populations if name not in self.fired)
