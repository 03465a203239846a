"""Inputs for models: spike trains of several kinds, all seeded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import DataError
from snn_optimizer.execution.axes import batch_axes, names_time, time_axis
from snn_optimizer.execution.ort import Port
from snn_optimizer.ir.activity_limit import thinned
from snn_optimizer.ir.domain import InputDomain

__all__ = ["Ranges", "Stimulus", "generate"]

Array = npt.NDArray[Any]
Ranges = InputDomain | Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]] | None
"""Declared range of each input, scalars or arrays per feature; (0, 1) where nothing is declared."""

BINARY = (0.0, 1.0)
RATES = (0.05, 0.3, 0.7)

_UNBOUNDED = 4.0  # stands for an infinite end of a range
_STATE_RANGE = (-1.0, 2.0)  # of a state the caller feeds, in thresholds, unless declared
_GRID = 8  # multiples within the larger end of a range, about
_FREE_SIZE = 8  # of a symbolic axis that is neither time nor batch


@dataclass(frozen=True, slots=True, eq=False)
class Stimulus:
    """Some samples for all inputs of a model.

    Attributes
    ----------
    name : str
        What kind of input it is.
    feeds : mapping from input name to array
    """

    name: str
    feeds: Mapping[str, Array]


@dataclass(frozen=True, slots=True, eq=False)
class _Signal:
    """One input to fill: its sizes, what its axes count, and its range."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    time: int | None
    batch: int | None
    low: Array
    high: Array
    is_real: bool
    is_state: bool

    def levels(self, chosen: Array) -> Array:
        """Return the high end where chosen, the low end elsewhere."""
        return np.where(chosen, self.high, self.low)

    def shape_with(self, **lengths: int) -> tuple[int, ...]:
        """Return the shape with another length for ``time`` or ``batch``, or 1 for all ``others``."""
        named = {self.time: "time", self.batch: "batch"}
        named.pop(None, None)
        return tuple(lengths.get(named.get(axis, "others"), size) for axis, size in enumerate(self.shape))


Family = Callable[[_Signal, np.random.Generator], Array]


def generate(
    inputs: Sequence[Port],
    *,
    steps: int,
    batch: int,
    seed: int,
    ranges: Ranges = None,
    states: Collection[str] = (),
) -> tuple[Stimulus, ...]:
    """Make inputs of every kind.

    All at the low end of the range (``zeros``), all at the high end (``ones``), random
    trains between the two at three rates, one impulse, bursts, patterns held over all
    steps; where a range is declared that is not (0, 1), real values within it, and
    multiples of a power of two (``grid``), which with weights on a grid of their own
    give sums that meet thresholds exactly. States take such values too. Of an
    input with an activity limit only as many entries of a step stay.

    Parameters
    ----------
    inputs : sequence of Port
        ``Session.inputs``.
    steps, batch : int
        Used where the model leaves them open; a fixed batch is filled up to a multiple.
    seed : int
    ranges : InputDomain or mapping from input name to (low, high), optional
        Scalars, or arrays that broadcast into the trailing axes.
    states : collection of str
        Inputs that are states of neurons: they take real values, not spikes.

    Raises
    ------
    DataError
        If an input has a type or an unknown rank that no values can be made for.
    """
    domain = ranges if isinstance(ranges, InputDomain) else InputDomain(named=dict(ranges or {}))
    signals = _signals(inputs, steps, batch, domain, states)
    families: dict[str, Family] = {"zeros": _zeros, "ones": _ones}
    families |= {f"random:{rate:g}": _trains(rate) for rate in RATES}
    families |= {"impulse": _impulse, "bursts": _bursts, "constant": _constant}
    if any(signal.is_real and not signal.is_state for signal in signals):
        families["uniform"] = _uniform
    if any(signal.is_real or signal.is_state for signal in signals):
        families["grid"] = _grid
    stimuli = []
    for index, (name, family) in enumerate(families.items()):
        generator = np.random.default_rng([seed, index])
        feeds = {}
        for signal in signals:
            fill = _uniform if signal.is_state and family not in (_zeros, _grid) else family
            values = np.broadcast_to(fill(signal, generator), signal.shape)
            limit = domain.named_active.get(signal.name) if signal.is_state else domain.most_active(signal.name)
            if limit is not None:
                # a pattern that is held stays the same at every step
                held = generator.random(signal.shape_with(time=1)) if family in (_ones, _constant) else None
                values = thinned(np.asarray(values), limit, generator, held)
            feeds[signal.name] = values.astype(signal.dtype, order="C")
        stimuli.append(Stimulus(name, feeds))
    return tuple(stimuli)


def _signals(
    inputs: Sequence[Port], steps: int, batch: int, domain: InputDomain, states: Collection[str]
) -> list[_Signal]:
    axes = batch_axes(inputs)
    symbols: dict[str, int] = {}
    for port in inputs:
        if port.shape is None:
            raise DataError(f"input '{port.name}' declares no shape, so no values can be made for it")
        if port.dtype.kind not in "biuf":
            raise DataError(f"input '{port.name}' is {port.dtype}, for which no values can be made")
        for axis, size in enumerate(port.shape):
            if isinstance(size, str):
                symbols.setdefault(size, _size(port, axis, axes[port.name], steps, batch))
    multiple = max((_fixed(port, axes[port.name]) for port in inputs), default=1)
    filled = -(-batch // multiple) * multiple
    signals = []
    for port in inputs:
        batch_axis = axes[port.name]
        shape = []
        for axis, size in enumerate(port.shape or ()):
            known = size if isinstance(size, int) else symbols.get(size or "")
            shape.append(_size(port, axis, batch_axis, steps, filled) if known is None else known)
        if batch_axis is not None:
            shape[batch_axis] = filled
        signals.append(_signal(port, tuple(shape), batch_axis, domain, is_state=port.name in states))
    return signals


def _fixed(port: Port, batch_axis: int | None) -> int:
    size = None if batch_axis is None or port.shape is None else port.shape[batch_axis]
    return size if isinstance(size, int) and size > 0 else 1


def _size(port: Port, axis: int, batch_axis: int | None, steps: int, batch: int) -> int:
    assert port.shape is not None
    if axis == batch_axis:
        return batch
    if axis == time_axis(port.shape, batch_axis) or names_time(port.shape[axis]):
        return steps
    return _FREE_SIZE


def _signal(
    port: Port, shape: tuple[int, ...], batch_axis: int | None, domain: InputDomain, *, is_state: bool
) -> _Signal:
    declared = domain.is_declared(port.name)
    low, high = domain.interval(port.name)
    if is_state and not declared:
        low, high = (np.asarray(end) for end in _STATE_RANGE)
    low, high = np.broadcast_to(_bounded(low), shape), np.broadcast_to(_bounded(high), shape)
    if port.dtype.kind != "f":
        low, high = np.ceil(low), np.floor(high)
    is_binary = bool((low == BINARY[0]).all() and (high == BINARY[1]).all())
    return _Signal(
        name=port.name,
        dtype=port.dtype,
        shape=shape,
        time=time_axis(shape, batch_axis),
        batch=batch_axis,
        low=low,
        high=high,
        is_real=not is_binary and not is_state,
        is_state=is_state,
    )


def _bounded(end: Array) -> Array:
    return np.where(np.isinf(end), np.copysign(_UNBOUNDED, end), end)


def _zeros(signal: _Signal, _: np.random.Generator) -> Array:
    return np.clip(np.zeros(signal.shape), signal.low, signal.high) if signal.is_state else signal.low


def _ones(signal: _Signal, _: np.random.Generator) -> Array:
    return signal.high


def _trains(rate: float) -> Family:
    def fill(signal: _Signal, generator: np.random.Generator) -> Array:
        return signal.levels(generator.random(signal.shape) < rate)

    return fill


def _impulse(signal: _Signal, generator: np.random.Generator) -> Array:
    """One element of each sample at the high end."""
    samples = 1 if signal.batch is None else signal.shape[signal.batch]
    chosen = np.zeros(signal.shape, np.bool_)
    for sample in range(samples):
        place = [int(generator.integers(size)) for size in signal.shape]
        if signal.batch is not None:
            place[signal.batch] = sample
        chosen[tuple(place)] = True
    return signal.levels(chosen)


def _bursts(signal: _Signal, generator: np.random.Generator) -> Array:
    """Dense activity for some steps of each sample, silence before and after."""
    chosen = generator.random(signal.shape) < 0.6
    if signal.time is not None:
        steps = signal.shape[signal.time]
        start = generator.integers(steps, size=signal.shape_with(time=1, others=1))
        length = generator.integers(1, max(2, steps // 2), size=start.shape)
        clock = np.arange(steps).reshape([-1 if axis == signal.time else 1 for axis in range(len(signal.shape))])
        chosen &= (clock >= start) & (clock < start + length)
    return signal.levels(chosen)


def _constant(signal: _Signal, generator: np.random.Generator) -> Array:
    """One pattern per sample, held over all steps."""
    return signal.levels(generator.random(signal.shape_with(time=1)) < 0.5)


def _uniform(signal: _Signal, generator: np.random.Generator) -> Array:
    drawn = generator.random(signal.shape)
    if signal.dtype.kind != "f":
        return np.asarray(np.minimum(np.floor(signal.low + drawn * (signal.high - signal.low + 1)), signal.high))
    return np.asarray(signal.low + drawn * (signal.high - signal.low))


def _grid(signal: _Signal, generator: np.random.Generator) -> Array:
    """Multiples of a power of two; spikes stay spikes."""
    if not signal.is_real and not signal.is_state:
        return signal.levels(generator.random(signal.shape) < 0.5)
    largest = np.maximum(np.abs(signal.low), np.abs(signal.high))
    unit = 2.0 ** np.floor(np.log2(np.where(largest > 0, largest, 1) / _GRID))
    if signal.dtype.kind != "f":
        unit = np.maximum(unit, 1)
    drawn = signal.low + generator.random(signal.shape) * (signal.high - signal.low)
    return np.asarray(np.clip(np.rint(drawn / unit) * unit, signal.low, signal.high))
