"""Smaller counterexamples: one sample, few steps, few active inputs, and still a difference.

Delta debugging (Zeller and Hildebrandt, IEEE Transactions on Software Engineering 28, 2002): parts are
left out, large ones first, and what still differs is kept. At the end no single step and no
single active entry can be left out. Every attempt is run as it would be replayed, alone, so that
a difference that only the company of other samples brings about is not promised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.execution.axes import time_axis
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.ort import Port
from snn_optimizer.ir.domain import InputDomain
from snn_optimizer.verification.stimuli import Ranges

__all__ = ["Shrunk", "shrink"]

Array = npt.NDArray[Any]
Differs = Callable[[Dataset], bool]
Place = tuple[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Shrunk:
    """A counterexample as small as it was made.

    Attributes
    ----------
    data : Dataset
        One sample, repeated where the model insists on more.
    steps, active : int
        Its steps, and its entries that are not at rest.
    alone : bool
        Whether the sample differs when it is run alone; otherwise ``data`` is the whole run.
    minimal : bool
        Whether no single step or entry can be left out; otherwise the attempts ran out.
    """

    data: Dataset
    steps: int
    active: int
    alone: bool
    minimal: bool


def shrink(
    run: Dataset,
    sample: int | None,
    differs: Differs,
    inputs: Sequence[Port],
    *,
    ranges: Ranges = None,
    fixed_inputs: bool = False,
    attempts: int = 1500,
) -> Shrunk:
    """Make a counterexample small.

    Parameters
    ----------
    run : Dataset
        A run on which the models differ.
    sample : int or None
        The sample of the run that differs; None where samples cannot be told apart.
    differs : callable
        Tells whether the models differ on some data.
    inputs : sequence of Port
        Tell which inputs take another number of steps.
    ranges : InputDomain or mapping, optional
        Declared ranges; an entry rests at zero, or at the end of its range that is closest to zero.
    fixed_inputs : bool
        Whether values must stay those of the sample: only samples and last steps are left out.
    attempts : int
        Runs of both models at most.
    """
    if sample is None:
        return _result(run, ranges, alone=False, minimal=False)
    alone = _alone(run, sample)
    if not differs(alone):
        return _result(run, ranges, alone=False, minimal=False)
    search = _Search(differs, alone, ranges, attempts)
    timed = _timed(alone, inputs)
    if timed:
        search.cut_last_steps(timed)
    if fixed_inputs:
        return _result(search.best, ranges, alone=True, minimal=False)
    size = -1
    while size != (size := search.size()) and search.left > 0:
        if timed:
            search.leave_out_steps(timed)
        search.leave_out_entries()
    return _result(search.best, ranges, alone=True, minimal=search.left > 0)


@dataclass(slots=True, eq=False)
class _Search:
    """The smallest input so far, and how many attempts are left."""

    differs: Differs
    best: Dataset
    ranges: Ranges
    left: int

    def size(self) -> int:
        """Number of elements and of active ones; sinks with every success."""
        return sum(array.size for array in self.best.feeds.values()) + len(_active(self.best, self.ranges))

    def accepts(self, candidate: Dataset) -> bool:
        """Try a smaller input and keep it where it differs."""
        if self.left <= 0:
            return False
        self.left -= 1
        if not self.differs(candidate):
            return False
        self.best = candidate
        return True

    def cut_last_steps(self, timed: Mapping[str, int]) -> None:
        """Keep only the first steps, as few as do, by halving."""
        low, high = 0, self.best.steps
        whole = self.best
        while high - low > 1:
            middle = (low + high) // 2
            if self.accepts(_kept_steps(whole, timed, range(middle))):
                high = middle
            else:
                low = middle

    def leave_out_steps(self, timed: Mapping[str, int]) -> None:
        """Leave out any steps, keeping the order of the others."""
        whole = self.best
        self._reduce(list(range(whole.steps)), lambda kept: _kept_steps(whole, timed, kept), least=1)

    def leave_out_entries(self) -> None:
        """Put entries to rest."""
        whole = self.best
        self._reduce(_active(whole, self.ranges), lambda kept: _only_active(whole, kept, self.ranges), least=0)

    def _reduce(self, parts: list[Any], build: Callable[[list[Any]], Dataset], least: int) -> None:
        chunk = max(1, len(parts) // 2)
        while len(parts) > least and self.left > 0:
            start, shrunk = 0, False
            while start < len(parts) and len(parts) > least:
                rest = parts[:start] + parts[start + chunk :]
                if len(rest) >= least and self.accepts(build(rest)):
                    parts, shrunk = rest, True
                else:
                    start += chunk
            if chunk == 1 and not shrunk:
                break
            chunk = max(1, chunk // 2)


def _alone(run: Dataset, sample: int) -> Dataset:
    """Return one sample, as often as the model wants samples."""
    return replace(run.take([sample] * (run.fixed_batch or 1)), labels=None)


def _timed(data: Dataset, inputs: Sequence[Port]) -> dict[str, int]:
    """Return the time axis of each input that counts steps, none unless all of them leave their number open."""
    axes = {}
    for port in inputs:
        axis = time_axis(data.feeds[port.name].shape, data.batch_axes[port.name])
        if axis is not None and data.feeds[port.name].shape[axis] == data.steps:
            if port.shape is None or isinstance(port.shape[axis], int):
                return {}
            axes[port.name] = axis
    return axes


def _kept_steps(data: Dataset, timed: Mapping[str, int], kept: Sequence[int]) -> Dataset:
    steps = np.asarray(kept, np.int64)
    return replace(
        data, feeds={n: array.take(steps, axis=timed[n]) if n in timed else array for n, array in data.feeds.items()}
    )


def _rest(name: str, array: Array, ranges: Ranges) -> Array:
    """Return the value each entry has when nothing happens."""
    domain = ranges if isinstance(ranges, InputDomain) else InputDomain(named=dict(ranges or {}))
    low, high = domain.interval(name)
    return np.broadcast_to(np.clip(0.0, low, high), array.shape).astype(array.dtype)


def _active(data: Dataset, ranges: Ranges) -> list[Place]:
    """Return the entries of one sample that are not at rest."""
    places = []
    for name, array in data.feeds.items():
        single = _first(array, data.batch_axes[name])
        resting = _first(_rest(name, array, ranges), data.batch_axes[name])
        places += [(name, int(index)) for index in np.flatnonzero((single != resting).reshape(-1))]
    return places


def _only_active(data: Dataset, kept: Sequence[Place], ranges: Ranges) -> Dataset:
    feeds = {}
    for name, array in data.feeds.items():
        axis = data.batch_axes[name]
        single, values = _first(array, axis), _first(_rest(name, array, ranges), axis).copy()
        indices = [index for owner, index in kept if owner == name]
        values.reshape(-1)[indices] = single.reshape(-1)[indices]
        feeds[name] = values if axis is None else np.repeat(values, array.shape[axis], axis=axis)
    return replace(data, feeds=feeds)


def _first(array: Array, axis: int | None) -> Array:
    """Return the first sample, its axis kept."""
    return np.ascontiguousarray(array if axis is None else array.take([0], axis=axis))


def _result(data: Dataset, ranges: Ranges, *, alone: bool, minimal: bool) -> Shrunk:
    return Shrunk(data, data.steps, len(_active(data, ranges)), alone, minimal)
