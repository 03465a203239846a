"""Watching populations at work: currents and spikes from the runtime, potentials from the reference.

The current and the incoming state are recorded; the potential that meets the
threshold is computed from them by :func:`snn_optimizer.ops.membrane` in the order
of operations of the population's variant, so it is the runtime's to the last bit.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer import ops
from snn_optimizer.errors import ExecutionError, UnsupportedModelError
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.instrument import Exposed, Source, Tap, instrument
from snn_optimizer.execution.ort import Session
from snn_optimizer.execution.source import ModelSource, read_model

__all__ = ["Observation", "Observer", "gap_to_threshold", "over_time", "signal_outputs", "steps_of"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What one population did in one run.

    Attributes
    ----------
    population : str
    spikes, potential : array, shape (T, B, N...)
        Spike counts (``LI``: the potential again), and the potential at the threshold test.
    threshold : array or None
        Broadcasts into ``potential``; None for ``LI``.
    gap : array or None
        From the nearest value at which the count of spikes changes to the potential: positive above it.
    """

    population: str
    spikes: Array
    potential: Array
    threshold: Array | None
    gap: Array | None

    @property
    def distance(self) -> Array | None:
        """How far each potential is from the nearest value at which the count of spikes changes."""
        return None if self.gap is None else np.abs(self.gap)

    @property
    def spiking(self) -> bool:
        """Whether the population spikes."""
        return self.threshold is not None

    def of_units(self, units: npt.NDArray[np.int64]) -> Observation:
        """Return what some of its units did, by their positions on the first axis of units."""
        threshold, gap = self.threshold, self.gap
        if threshold is not None:
            axis = threshold.ndim - (self.potential.ndim - 2)
            if axis >= 0 and threshold.shape[axis] > 1:
                threshold = np.take(threshold, units, axis=axis)
        spikes, potential = (np.take(each, units, axis=2) for each in (self.spikes, self.potential))
        gap = None if gap is None else np.take(gap, units, axis=2)
        return Observation(self.population, spikes, potential, threshold, gap)


class Observer:
    """A model with every population exposed, ready to run.

    Parameters
    ----------
    model : ModelProto, bytes or path

    Attributes
    ----------
    taps : tuple of Tap

    Raises
    ------
    UnsupportedModelError
        If a neuron call contradicts itself.
    """

    def __init__(self, model: ModelSource) -> None:
        original, self._folder = read_model(model)
        self._instrumented, self.taps = instrument(original)

    @functools.cached_property
    def session(self) -> Session:
        """The session of the instrumented model, made at first use."""
        return Session(self._instrumented, external_data=self._folder)

    def runs(self) -> bool:
        """Tell whether the runtime accepts the instrumented model."""
        try:
            return bool(self.session.outputs)
        except ExecutionError:
            return False

    @property
    def fed_states(self) -> set[str]:
        """Names of values that are read as the states of cells, inputs of the model among them."""
        return {
            source.value for tap in self.taps if not tap.in_loop for source in tap.states if isinstance(source, Exposed)
        }

    def tap(self, population: str) -> Tap | None:
        """Return the tap of a population, None when there is no such population."""
        return next((tap for tap in self.taps if tap.population == population), None)

    def observe(self, feeds: Mapping[str, npt.ArrayLike], taps: Iterable[Tap] | None = None) -> Iterator[Observation]:
        """Run once and yield what each population did, one at a time.

        The recordings of a population are released when the next one is asked for.
        """
        watched = self.taps if taps is None else tuple(taps)
        if not watched:
            return
        names = dict.fromkeys(name for tap in watched for name in tap.outputs)
        values = self.session.run(feeds, list(names))
        uses = {name: sum(name in tap.outputs for tap in watched) for name in names}
        for tap in watched:
            yield _observed(tap, values)
            for name in tap.outputs:
                uses[name] -= 1
                if uses[name] == 0:
                    del values[name]

    def trains(self, feeds: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
        """Run once and return the output of each population, shape (T, B, N...)."""
        if not self.taps:
            return {}
        names = list(dict.fromkeys(name for tap in self.taps for name in signal_outputs(tap)))
        values = self.session.run(feeds, names)
        return {tap.population: over_time(tap, values[tap.s], values) for tap in self.taps}


def steps_of(observer: Observer, dataset: Dataset) -> int:
    """Return how many time steps the network runs for one sample.

    An input with a time axis tells. A network that is shown one input at all steps counts them itself: they are those
    of its populations, seen in one run.

    Raises
    ------
    ExecutionError
        If the model does not run.
    """
    if dataset.steps > 1 or not observer.taps:
        return dataset.steps
    found = {len(train) for train in observer.trains(next(dataset.batches(1)).feeds).values()}
    return found.pop() if len(found) == 1 else dataset.steps


def gap_to_threshold(tap: Tap, potential: Array, threshold: Array) -> Array:
    """Return how far each potential is above the nearest value at which the count of spikes changes.

    That value is the threshold, or for a neuron of several spikes per step any
    multiple of it that counts.
    """
    with np.errstate(all="ignore"):
        if tap.variant.max_spikes == 1:
            return np.asarray(potential - threshold)
        most = tap.variant.max_spikes or np.inf
        level = np.clip(np.rint(potential / threshold), 1, most)
        return np.asarray(potential - level * threshold)


def _observed(tap: Tap, values: Mapping[str, Array]) -> Observation:
    try:
        potential = _potential(tap, values)
    except ValueError as error:  # the runtime broadcasts what the operator does not
        raise UnsupportedModelError(f"neuron '{tap.population}': {error}") from error
    spikes = over_time(tap, values[tap.s], values)
    source = tap.parameter("v_threshold")
    if source is None:
        return Observation(tap.population, spikes, potential, None, None)
    threshold = _aligned(_read(source, values), source, potential.ndim)
    gap = gap_to_threshold(tap, potential, threshold)
    return Observation(tap.population, spikes, potential, threshold, gap)


def _potential(tap: Tap, values: Mapping[str, Array]) -> Array:
    currents = [values[name] for name in tap.currents]
    states = [_read(source, values) for source in tap.states]
    parameters = [_read(source, values) for source in tap.parameters]
    if tap.variant.form != "cell" or not tap.in_loop:
        trains = [over_time(tap, current, values) for current in currents]
        return ops.membrane(tap.variant, [*trains, *states, *parameters])
    x = currents[0]
    if any(_is_stacked(source) for source in tap.parameters):
        cells = [_potential_of_iteration(tap, currents, states, parameters, index) for index in range(len(x))]
        return np.concatenate([x[:0], *cells])
    # with its state at hand a step needs no other step: all iterations are one batch
    spread = [
        np.broadcast_to(_aligned(state, source, x.ndim), x.shape)
        for state, source in zip(states, tap.states, strict=True)
    ]
    signals = [current.reshape(1, -1, *x.shape[2:]) for current in currents]
    batch = [value.reshape(-1, *x.shape[2:]) for value in spread]
    return ops.membrane(tap.variant, [*signals, *batch, *parameters]).reshape(x.shape)


def _potential_of_iteration(
    tap: Tap, currents: Iterable[Array], states: Iterable[Array], parameters: Iterable[Array], index: int
) -> Array:
    chosen = [
        value[index] if _is_stacked(source) else value
        for source, value in zip((*tap.states, *tap.parameters), (*states, *parameters), strict=True)
    ]
    return ops.membrane(tap.variant, [*(x[index : index + 1] for x in currents), *chosen])


def signal_outputs(tap: Tap) -> tuple[str, ...]:
    """Return the outputs that :func:`over_time` needs."""
    return (tap.s, tap.steps.output) if isinstance(tap.steps, Exposed) else (tap.s,)


def over_time(tap: Tap, signal: Array, values: Mapping[str, Array]) -> Array:
    """Return a signal of the runtime with the axes (T, B, N...)."""
    if tap.steps is not None:
        return signal.reshape(int(_read(tap.steps, values).reshape(-1)[0]), -1, *signal.shape[1:])
    return signal[np.newaxis] if tap.variant.form == "cell" and not tap.in_loop else signal


def _read(source: Source, values: Mapping[str, Array]) -> Array:
    return values[source.output] if isinstance(source, Exposed) else source


def _is_stacked(source: Source) -> bool:
    return isinstance(source, Exposed) and source.stacked


def _aligned(value: Array, source: Source, rank: int) -> Array:
    """Give a stacked operand as many axes as the signal, its iterations first."""
    if not _is_stacked(source) or value.ndim >= rank:
        return value
    return value.reshape(value.shape[0], *(1,) * (rank - value.ndim), *value.shape[1:])
