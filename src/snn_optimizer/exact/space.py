"""The finite set of inputs of a small model: counted, numbered, and written out in runs of bounded size.

An entry of a spike input (floats declared to lie in 0..1) is 0 or 1; an entry of an integer input takes every whole
number of its range; an entry whose range is one point is that point. With at most K active entries per step, the
patterns of a step are listed instead of the values of its entries. Every input is one number in mixed radix: the
patterns of all places, places in the order of the memory of one sample, inputs in the order of the model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import InputError
from snn_optimizer.execution.axes import batch_axes, names_time, time_axis
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.ort import Port
from snn_optimizer.ir.activity_limit import frame_axes
from snn_optimizer.ir.domain import InputDomain

__all__ = ["DEFAULT_LIMIT", "Entries", "InputSpace", "NotEnumerable", "describe_entries", "sample_entries"]

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

DEFAULT_LIMIT = 1 << 20
_MOST = 1 << 62  # numbers of inputs are computed in 64 bits
_TABLE = 1 << 27  # bytes of the patterns of a step


class NotEnumerable(InputError):  # noqa: N818 - an answer first, an error only where all inputs were asked for
    """The inputs of a model are not finitely many, or too many.

    Attributes
    ----------
    reason : str
        One word in kebab case.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(f"cannot decide for all inputs ({reason}): {message}")


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """One input of a model, for one sample.

    Attributes
    ----------
    name : str
    dtype : numpy.dtype
    shape : tuple of int
        With 1 on the axis that counts samples.
    batch_axis : int or None
    fixed_batch : int or None
        The number of samples the model insists on.
    time : int or None
        The axis that counts steps.
    low, high : float64 arrays of ``shape``
    limit : int or None
        How many entries of a frame are active at most.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    batch_axis: int | None
    fixed_batch: int | None
    time: int | None
    low: Array
    high: Array
    limit: int | None

    @property
    def size(self) -> int:
        """Entries of a sample."""
        return math.prod(self.shape)

    @property
    def steps(self) -> int:
        """Time steps; 1 without an axis that counts them."""
        return 1 if self.time is None else self.shape[self.time]

    @property
    def is_spikes(self) -> bool:
        """Whether the entries are spikes, or held at one value."""
        ends = (self.low == 0) & (self.high == 1)
        return bool((ends | (self.low == self.high)).all()) and self.dtype.kind == "f"

    def frame_shape(self) -> tuple[int, int]:
        """Return the number of frames and the entries of each."""
        inside = math.prod(self.shape[axis] for axis in frame_axes(len(self.shape)))
        return self.size // inside if inside else 0, inside


def sample_entries(ports: Sequence[Port], domain: InputDomain, steps: int, states: Collection[str]) -> list[Entries]:
    """Return what one sample of a model consists of.

    Parameters
    ----------
    ports : sequence of Port
    domain : InputDomain
    steps : int
        Where the model leaves their number open.
    states : collection of str
        Inputs that are states of neurons; they need a declared range.

    Raises
    ------
    NotEnumerable
        If an input has no known shape, or is a state nobody declared.
    """
    domain.forbid_unknown([port.name for port in ports])
    axes = batch_axes(ports)
    found = []
    for port in ports:
        if port.shape is None:
            raise NotEnumerable("unknown-shape", f"input '{port.name}' declares no shape")
        batch = axes[port.name]
        time = time_axis(port.shape, batch)
        shape = []
        for axis, size in enumerate(port.shape):
            if axis == batch:
                shape.append(1)
            elif isinstance(size, int):
                shape.append(size)
            elif axis == time or names_time(size):
                shape.append(steps)
            else:
                raise NotEnumerable("open-size", f"axis {axis} of input '{port.name}' ({port}) has no fixed size")
        state = port.name in states
        if state and not domain.is_declared(port.name):
            raise NotEnumerable(
                "state-input",
                f"input '{port.name}' is the state of neurons; declare its value, as --input-range {port.name}=0:0",
            )
        limit = domain.named_active.get(port.name) if state else domain.most_active(port.name)
        fixed = None if batch is None else port.shape[batch]
        low, high = (_spread(end, tuple(shape), port) for end in domain.interval(port.name))
        if port.dtype.kind == "b":
            low, high = np.maximum(low, 0), np.minimum(high, 1)
        if port.dtype.kind != "f":
            low, high = np.ceil(low), np.floor(high)
            if (low > high).any():
                raise InputError(f"the range of input '{port.name}' holds no {port.dtype}")
        else:
            low, high = (np.asarray(end.astype(port.dtype), np.float64) for end in (low, high))
        found.append(
            Entries(
                port.name, port.dtype, tuple(shape), batch, fixed if isinstance(fixed, int) else None, time, low, high,
                limit,
            )
        )  # fmt: skip
    return found


def _spread(end: Array, shape: tuple[int, ...], port: Port) -> Array:
    try:
        return np.array(np.broadcast_to(end, shape), np.float64)
    except ValueError:
        raise InputError(
            f"the range of input '{port.name}' has shape {end.shape}, its samples are {list(shape)}"
        ) from None


def describe_entries(entries: Sequence[Entries]) -> str:
    """Return in words how many entries of which inputs are free, as ``12 = 3 inputs x 4 steps``."""
    parts = []
    for one in entries:
        free = int((one.low != one.high).sum())
        if not free:
            continue
        split = free % one.steps == 0 and one.steps > 1
        text = f"{free:,} = {free // one.steps:,} inputs x {one.steps} steps" if split else f"{free:,} inputs"
        if one.limit is not None:
            text += f", at most {one.limit} active at a step"
        if one.dtype.kind == "f" and not one.is_spikes:
            text += f", real values in {one.low.min():g}..{one.high.max():g}"
        parts.append(f"'{one.name}': {text}" if len(entries) > 1 else text)
    return "; ".join(parts)


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """The places of one input and the patterns each can take."""

    entries: Entries
    radices: tuple[int, ...]
    table: Array
    """Patterns, shape (radix, entries of a place) where all places share them, else (largest radix, places)."""
    shared: bool

    @property
    def count(self) -> int:
        return math.prod(self.radices)

    def decode(self, numbers: Indices) -> Array:
        """Return the samples of these numbers, shape (samples, entries)."""
        digits = np.empty((len(numbers), len(self.radices)), np.int64)
        for place, radix in enumerate(self.radices):
            numbers, digits[:, place] = np.divmod(numbers, radix)
        if self.shared:
            return np.asarray(self.table[digits].reshape(len(digits), -1))
        return np.asarray(self.table[digits, np.arange(digits.shape[1])])


class InputSpace:
    """Every input of a model in a declared domain.

    Parameters
    ----------
    ports : sequence of Port
    domain : InputDomain
    steps : int
        Where the model leaves their number open.
    states : collection of str
        Inputs that are states of neurons.
    limit : int
        The most inputs to accept.

    Attributes
    ----------
    entries : list of Entries
    count : int

    Raises
    ------
    NotEnumerable
        If an input takes real values, or there are more than ``limit`` inputs; the message has the count.
    """

    def __init__(
        self,
        ports: Sequence[Port],
        domain: InputDomain,
        *,
        steps: int = 16,
        states: Collection[str] = (),
        limit: int = DEFAULT_LIMIT,
    ) -> None:
        self.ports = tuple(ports)
        self.entries = sample_entries(ports, domain, steps, states)
        counts = [_count(one) for one in self.entries]
        self.count = math.prod(counts)
        if self.count > min(limit, _MOST):
            raise NotEnumerable("too-many-inputs", f"{self.describe()} are more than {limit:,} (--limit)")
        self._places = [_places(one) for one in self.entries]

    @property
    def steps(self) -> int:
        """Time steps of a sample."""
        return max((one.steps for one in self.entries), default=1)

    @property
    def samples_per_run(self) -> int | None:
        """How many samples a run must take; None where that is free."""
        if any(one.batch_axis is None for one in self.entries):
            return 1  # what all samples share differs from input to input
        return next((one.fixed_batch for one in self.entries if one.fixed_batch is not None), None)

    def describe(self) -> str:
        """Return the count in words, as ``2^12 = 4,096 inputs (12 = 3 inputs x 4 steps)``."""
        power = self.count.bit_length() - 1
        if self.count > _MOST:
            number = f"about 2^{power}"
        else:
            number = f"2^{power} = {self.count:,}" if self.count == 1 << power else f"{self.count:,}"
        parts = describe_entries(self.entries)
        return f"{number} inputs" + (f" ({parts})" if parts else "")

    def feeds(self, numbers: npt.ArrayLike) -> dict[str, Array]:
        """Return the inputs of these numbers as samples of one run; shared inputs take those of the first."""
        rest = np.asarray(numbers, np.int64)
        found = {}
        for places in self._places:
            own = rest % places.count
            rest = rest // places.count
            one = places.entries
            samples = places.decode(own).astype(one.dtype).reshape(-1, *one.shape)
            if one.batch_axis is None:
                found[one.name] = samples[0]
            else:
                found[one.name] = np.ascontiguousarray(
                    np.moveaxis(samples, 0, one.batch_axis).squeeze(one.batch_axis + 1)
                )
        return found

    def dataset(self, numbers: npt.ArrayLike) -> Dataset:
        """Return the inputs of these numbers as data for the model."""
        return Dataset.from_arrays(self.feeds(numbers), self.ports)

    def runs(self, samples: int) -> Iterator[tuple[int, int, dict[str, Array]]]:
        """Yield start, number of new samples and feeds of every run; the last one repeats a sample if it must."""
        fixed = self.samples_per_run
        size = fixed or samples
        for start in range(0, self.count, size):
            stop = min(start + size, self.count)
            numbers = np.arange(start, start + size if fixed else stop).clip(max=self.count - 1)
            yield start, stop - start, self.feeds(numbers)


def _count(one: Entries) -> int:
    """Return how many values an input takes."""
    choices = _choices(one)
    if one.limit is None:
        return math.prod(choices)
    frames, inside = one.frame_shape()
    total = 1
    for frame in range(frames):
        total *= sum(_by_activity([n - 1 for n in choices[frame * inside : (frame + 1) * inside]], one.limit))
    return total


def _choices(one: Entries) -> list[int]:
    """Return how many values each entry takes."""
    if one.dtype.kind == "f":
        if not one.is_spikes:
            raise NotEnumerable(
                "real-values",
                f"input '{one.name}' takes all real values in {one.low.min():g}..{one.high.max():g}; only spikes "
                "(the range 0:1), whole numbers and values held at one point can be tried one by one",
            )
        return [2 if free else 1 for free in (one.low != one.high).ravel().tolist()]
    if not np.isfinite(one.low).all() or not np.isfinite(one.high).all():
        raise NotEnumerable("real-values", f"input '{one.name}' has no bounds; declare them with --input-range")
    return [int(n) + 1 for n in (one.high - one.low).ravel().tolist()]


def _by_activity(choices: Sequence[int], limit: int) -> list[int]:
    """Return how many patterns have exactly 0, 1, ... ``limit`` active entries."""
    sums = [1] + [0] * limit
    for number in choices:
        for active in range(limit, 0, -1):
            sums[active] += number * sums[active - 1]
    return sums


def _places(one: Entries) -> _Places:
    choices = _choices(one)
    if one.limit is None:
        table = np.zeros((max(choices, default=1), one.size))
        offsets = np.arange(len(table))[:, np.newaxis]
        table[:] = np.minimum(one.low.reshape(1, -1) + offsets, one.high.reshape(1, -1))
        return _Places(one, tuple(choices), table, shared=False)
    frames, inside = one.frame_shape()
    first = (one.low.reshape(frames, inside)[0], one.high.reshape(frames, inside)[0])
    if (one.low.reshape(frames, inside) != first[0]).any() or (one.high.reshape(frames, inside) != first[1]).any():
        raise NotEnumerable("ranges-differ", f"input '{one.name}' has a limit and other ranges at other steps")
    patterns = sum(_by_activity([n - 1 for n in choices[:inside]], one.limit))
    if patterns * inside * 8 > _TABLE:
        raise NotEnumerable("too-many-inputs", f"input '{one.name}' takes {patterns:,} values at one step")
    table = np.array(list(_patterns(*first, one.limit)), np.float64).reshape(patterns, inside)
    return _Places(one, (patterns,) * frames, table, shared=True)


def _patterns(low: Array, high: Array, limit: int) -> Iterator[Array]:
    """Yield the values of a frame with at most ``limit`` entries that are not zero."""
    others = [[v for v in range(int(a), int(b) + 1) if v] for a, b in zip(low, high, strict=True)]
    able = [place for place, values in enumerate(others) if values]
    for active in range(min(limit, len(able)) + 1):
        for places in itertools.combinations(able, active):
            for values in itertools.product(*(others[place] for place in places)):
                pattern = np.zeros(len(low))
                pattern[list(places)] = values
                yield pattern
