"""What the populations did before and after, run on the same samples in onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import DataError, ExecutionError
from snn_optimizer.execution import Dataset, Observation, Observer
from snn_optimizer.execution.observe import steps_of
from snn_optimizer.execution.profile import bounded_batch
from snn_optimizer.ir import InputDomain, SNNGraph
from snn_optimizer.report.html.samples import generated_samples

__all__ = ["Activity", "Change", "Trace", "measure_activity"]

Array = npt.NDArray[Any]

_SAMPLES: Final = 256
_PRODUCTS: Final = 40_000_000_000  # multiplications in all runs of one model
_POTENTIALS: Final = 100_000  # drawn from a population for its histogram
_WATCHED: Final = 32  # samples whose potentials are computed
_LARGEST_MESSAGE: Final = 64 << 20  # bytes of weights; the runtime maps larger ones from a file


@dataclass(slots=True, eq=False)
class Trace:
    """One population of one model.

    Attributes
    ----------
    spiking : bool
        False for a readout, whose ``rates`` and ``raster`` say nothing.
    rates : array, shape (neurons,)
        Spikes per step and sample.
    potentials : float32 array
        Drawn from the potentials at the threshold test, in thresholds; of a readout in its own units.
    raster : array, shape (neurons, columns)
        Spikes of the sample that is shown.
    """

    spiking: bool
    rates: npt.NDArray[np.float64]
    potentials: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    raster: Array = field(default_factory=lambda: np.zeros((0, 0)))


@dataclass(slots=True, eq=False)
class Change:
    """One population before and after.

    Attributes
    ----------
    kept : array or None
        Of each neuron after, its number before; None when that is not known.
    compared, changed : int
        Steps of neurons that both have, over all samples.
    """

    before: Trace | None = None
    after: Trace | None = None
    kept: npt.NDArray[np.int64] | None = None
    compared: int = 0
    changed: int = 0


@dataclass(slots=True)
class Activity:
    """All populations.

    Attributes
    ----------
    source : str
        What was shown to the models.
    sample : int
        The one whose rasters are shown; -1 where a column is a sample, because a call is one step.
    omitted : str
        Why nothing was measured, or not of one of the models; empty otherwise.
    """

    populations: dict[str, Change] = field(default_factory=dict)
    source: str = ""
    samples: int = 0
    steps: int = 0
    sample: int = 0
    omitted: str = ""


def measure_activity(
    before: SNNGraph,
    after: SNNGraph,
    data: Dataset | None,
    source: str,
    *,
    domain: InputDomain,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Activity:
    """Run both models on the same samples and return what their populations did.

    Parameters
    ----------
    before, after : SNNGraph
        With the same inputs.
    data : Dataset, optional
        Seeded spike trains when there is none.
    source : str
        What the data are, in words.
    """
    with tempfile.TemporaryDirectory(prefix="snnopt-") as folder:
        try:
            first = Observer(_source(before, Path(folder) / "before.onnx"))
            second = Observer(_source(after, Path(folder) / "after.onnx"))
            if data is None:
                data, source = generated_samples(first, domain, seed)
            return _Measurement(before, after, first, second, data, source, seed, progress).run()
        except (DataError, ExecutionError) as error:
            return Activity(omitted=f"the models could not be watched: {error}")


def _source(graph: SNNGraph, path: Path) -> Any:
    if graph.module.initializer_bytes() < _LARGEST_MESSAGE:
        return graph.to_onnx()
    graph.save(path, external=True)
    return path


@dataclass(slots=True)
class _Measurement:
    before: SNNGraph
    after: SNNGraph
    first: Observer
    second: Observer
    data: Dataset
    text: str
    seed: int
    progress: Callable[[str, int, int], None] | None
    found: dict[str, Change] = field(default_factory=dict)
    counts: dict[tuple[int, str], npt.NDArray[np.float64]] = field(default_factory=dict)
    observations: dict[tuple[int, str], int] = field(default_factory=dict)

    def run(self) -> Activity:
        """Measure everything."""
        if not self.first.taps:
            return Activity(omitted="no population of the model can be watched")
        steps = steps_of(self.first, self.data)
        self.data = self._affordable(steps)
        size = min(bounded_batch(each, self.data, 64) for each in (self.first, self.second))
        batches = list(self.data.batches(size))
        self._prepare()
        changes, spikes = [], []
        for number, batch in enumerate(batches):
            changed, fired = self._compare(batch)
            changes.append(changed)
            spikes.append(fired)
            self._tell(number, len(batches) + 2)
        sample = _most(np.concatenate(changes), np.concatenate(spikes))
        self._watch(batches)
        self._tell(len(batches), len(batches) + 2)
        if steps > 1:
            sizes = np.cumsum([0, *(len(each) for each in changes)])
            place = int(np.searchsorted(sizes, sample, side="right")) - 1
            self._record([batches[place]], sample - int(sizes[place]))
        else:
            self._record(batches, None)
        self._tell(len(batches) + 2, len(batches) + 2)
        shown = sample if steps > 1 else -1
        return Activity(self.found, self.text, self.data.samples, steps, shown)

    def _tell(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress("report", done, total)

    def _affordable(self, steps: int) -> Dataset:
        """Return samples that are spread evenly, as many as can be run in some seconds."""
        most = min(_SAMPLES, max(1, _PRODUCTS // max(1, steps * self.before.total_params)))
        batch = self.data.fixed_batch or 1
        runs = max(1, self.data.samples // batch)
        chosen = np.unique(np.linspace(0, runs - 1, max(1, min(runs, most // batch))).astype(np.int64))
        return self.data.take((chosen[:, np.newaxis] * batch + np.arange(batch)).reshape(-1))

    def _prepare(self) -> None:
        sizes = [{layer.name: layer.n_neurons for layer in graph.layers} for graph in (self.before, self.after)]
        names = dict.fromkeys(tap.population for each in (self.first, self.second) for tap in each.taps)
        for name in names:
            change = self.found.setdefault(name, Change())
            if name in sizes[0] and name in sizes[1]:
                change.kept = _kept(self.after.unit_origins.get(name), sizes[0][name], sizes[1][name])

    def _compare(self, batch: Dataset) -> tuple[Array, Array]:
        """Count spikes and changes of one batch; return both for each sample."""
        one, other = self.first.trains(batch.feeds), self.second.trains(batch.feeds)
        changed = np.zeros(batch.samples)
        fired = np.zeros(batch.samples)
        for name in self.found:
            trains = [_flat(each[name]) if name in each else None for each in (one, other)]
            for side, train in enumerate(trains):
                if train is not None:
                    key = (side, name)
                    self.counts[key] = self.counts.get(key, 0) + train.sum(axis=(0, 1), dtype=np.float64)
                    self.observations[key] = self.observations.get(key, 0) + train.shape[0] * train.shape[1]
            before, after = trains
            if before is None or not self._spikes(name):
                continue
            _add(fired, before.sum(axis=(0, 2)))
            change = self.found[name]
            if after is not None and change.kept is not None and before.shape[:2] == after.shape[:2]:
                differs = before[:, :, change.kept] != after
                change.compared += differs.size
                change.changed += int(differs.sum())
                _add(changed, differs.sum(axis=(0, 2)))
        return changed, fired

    def _spikes(self, name: str) -> bool:
        taps = (each.tap(name) for each in (self.first, self.second))
        return any(tap is not None and tap.parameter("v_threshold") is not None for tap in taps)

    def _watch(self, batches: list[Dataset]) -> None:
        """Draw potentials from the first samples."""
        parts: dict[tuple[int, str], list[Array]] = {}
        spiking: dict[tuple[int, str], bool] = {}
        watched = batches[: max(1, _WATCHED // max(1, batches[0].samples))]
        for number, batch in enumerate(watched):
            for side, observer in enumerate((self.first, self.second)):
                for seen in observer.observe(batch.feeds):
                    key = (side, seen.population)
                    parts.setdefault(key, []).append(_drawn(seen, [self.seed, number], _POTENTIALS // len(watched)))
                    spiking[key] = seen.spiking
        for (side, name), drawn in parts.items():
            rates = self.counts[side, name] / max(1, self.observations[side, name])
            trace = Trace(spiking[side, name], rates, np.concatenate(drawn))
            change = self.found[name]
            if side:
                change.after = trace
            else:
                change.before = trace

    def _record(self, batches: list[Dataset], sample: int | None) -> None:
        """Keep the trains that are shown: of one sample, or of one step of all."""
        for side, observer in enumerate((self.first, self.second)):
            parts: dict[str, list[Array]] = {}
            for batch in batches:
                for name, train in observer.trains(batch.feeds).items():
                    flat = _flat(train)
                    shown = flat[0] if sample is None else flat[:, min(sample, flat.shape[1] - 1)]
                    parts.setdefault(name, []).append(shown)
            for name, shown_parts in parts.items():
                change = self.found[name]
                trace = change.after if side else change.before
                if trace is not None and trace.spiking:
                    trace.raster = np.concatenate(shown_parts).T


def _kept(numbers: npt.NDArray[np.int64] | None, before: int, after: int) -> npt.NDArray[np.int64] | None:
    """Return the number before of each neuron after, from those of units with several neurons each."""
    if numbers is None:
        return np.arange(before) if before == after else None
    if not len(numbers) or after % len(numbers):
        return None
    each = after // len(numbers)
    spread = (numbers[:, np.newaxis] * each + np.arange(each)).reshape(-1)
    return spread if spread.max() < before else None


def _flat(train: Array) -> Array:
    return train.reshape(*train.shape[:2], -1)


def _add(total: Array, by_sample: Array) -> None:
    """Add what was counted for each sample; where samples cannot be told apart, to all."""
    total += by_sample if len(by_sample) == len(total) else by_sample.sum()


def _most(changes: Array, spikes: Array) -> int:
    """Return the sample with the most changes, of those the one that fires most."""
    return int(np.lexsort((spikes, changes))[-1])


def _drawn(seen: Observation, seed: list[int], number: int) -> Array:
    """Return some potentials; of populations of one size the same places, so that equal ones look equal."""
    generator = np.random.default_rng(seed)
    potential = np.asarray(seen.potential)
    places = generator.integers(max(potential.size, 1), size=min(potential.size, number))
    drawn = potential.reshape(-1)[places].astype(np.float64)
    if seen.threshold is not None:
        with np.errstate(all="ignore"):
            drawn = drawn / np.broadcast_to(seen.threshold, potential.shape).reshape(potential.size)[places]
    return np.asarray(drawn[np.isfinite(drawn)], np.float32)
