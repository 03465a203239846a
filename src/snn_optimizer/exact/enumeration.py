"""What every neuron does on every input of a finite domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.exact.running import Progress, affordable_samples, check_independence
from snn_optimizer.exact.space import DEFAULT_LIMIT, InputSpace
from snn_optimizer.execution.observe import Observation, Observer
from snn_optimizer.execution.source import ModelSource
from snn_optimizer.ir.domain import InputDomain

__all__ = ["Reachability", "reachable"]

Array = npt.NDArray[Any]
Numbers = npt.NDArray[np.int64]
NONE = -1


@dataclass(slots=True, eq=False)
class Reachability:
    """What the neurons of one population do on all inputs.

    Attributes
    ----------
    population : str
    fires, rests : int64 arrays, one element per neuron
        The number of the first input on which the neuron fires, and of the first on which it stays silent at some
        step; -1 where there is none.
    fires_at, rests_at : int64 arrays
        At which step of that input it first does.
    peak, trough : float64 arrays
        Largest potential at a threshold test up to and including the first spike, of all inputs; and the smallest up
        to and including the first step without one.
    threshold : float64 array
    """

    population: str
    fires: Numbers
    rests: Numbers
    fires_at: Numbers
    rests_at: Numbers
    peak: Array
    trough: Array
    threshold: Array

    @property
    def never(self) -> npt.NDArray[np.bool_]:
        """The neurons that fire on no input."""
        return np.asarray(self.fires == NONE)

    @property
    def always(self) -> npt.NDArray[np.bool_]:
        """The neurons that fire at every step of every input."""
        return np.asarray(self.rests == NONE)


def reachable(
    model: ModelSource,
    *,
    domain: InputDomain | None = None,
    steps: int = 16,
    limit: int = DEFAULT_LIMIT,
    progress: Progress | None = None,
) -> tuple[InputSpace, dict[str, Reachability]]:
    """Run a model on every input of the declared domain and record what its neurons do.

    Parameters
    ----------
    model : ModelProto, bytes or path
    domain : InputDomain, optional
    steps : int
        Where the model leaves their number open.
    limit : int
        The most inputs to try.
    progress : callable, optional
        Is told how many of how many inputs are done.

    Returns
    -------
    InputSpace
        The inputs, whose numbers the results name.
    dict of Reachability
        By population; those that spike and can be seen.

    Raises
    ------
    NotEnumerable
        If the inputs are not finitely many, or more than ``limit``.
    ExecutionError
        If the model does not run.
    """
    observer = Observer(model)
    states = observer.fed_states
    ports = observer.session.inputs
    space = InputSpace(ports, domain or InputDomain(), steps=steps, states=states, limit=limit)
    taps = [tap for tap in observer.taps if tap.variant.spiking]
    samples = affordable_samples(space, observer.session)
    check_independence(space, observer.session, samples)
    found: dict[str, Reachability] = {}
    for start, fresh, feeds in space.runs(samples):
        for seen in observer.observe(feeds, taps):
            if seen.spiking:
                _add(found, seen, start, fresh)
        if progress is not None:
            progress(start + fresh, space.count)
    return space, found


def _add(found: dict[str, Reachability], seen: Observation, start: int, fresh: int) -> None:
    spikes = seen.spikes[:, :fresh]
    shape = spikes.shape[2:]
    size = int(np.prod(shape, dtype=np.int64))
    fired = (spikes != 0).reshape(len(spikes), fresh, size)
    potential = np.asarray(seen.potential[:, :fresh], np.float64).reshape(fired.shape)
    if seen.population not in found:
        threshold = np.broadcast_to(np.asarray(seen.threshold, np.float64), seen.potential.shape)[0, 0]
        none = np.full(size, NONE)
        found[seen.population] = Reachability(
            seen.population, none, none.copy(), none.copy(), none.copy(), np.full(size, -np.inf), np.full(size, np.inf),
            threshold.reshape(-1).copy(),
        )  # fmt: skip
    one = found[seen.population]
    _note(one.fires, one.fires_at, fired, start)
    _note(one.rests, one.rests_at, ~fired, start)
    with np.errstate(invalid="ignore"):
        one.peak = np.fmax(one.peak, np.where(_before(fired), potential, -np.inf).max(axis=(0, 1)))
        one.trough = np.fmin(one.trough, np.where(_before(~fired), potential, np.inf).min(axis=(0, 1)))


def _note(numbers: Numbers, places: Numbers, happened: Array, start: int) -> None:
    """Write down for each neuron the first input at which something happened, and the step."""
    any_step = np.asarray(happened.any(axis=0))
    new = any_step.any(axis=0) & (numbers == NONE)
    for neuron in np.flatnonzero(new):
        sample = int(any_step[:, neuron].argmax())
        numbers[neuron] = start + sample
        places[neuron] = int(happened[:, sample, neuron].argmax())


def _before(happened: Array) -> Array:
    """Mark the steps up to and including the first at which something happened."""
    earlier = np.cumsum(happened, axis=0) - happened
    return np.asarray(earlier == 0)
