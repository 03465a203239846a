"""Runs over every input: how many samples a run may take, and that samples of one run do not influence each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import ExecutionError
from snn_optimizer.exact.space import InputSpace
from snn_optimizer.execution.axes import output_axes
from snn_optimizer.execution.ort import Session

__all__ = ["Progress", "affordable_samples", "check_independence"]

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]

MEMORY: Final = 128 << 20  # bytes that the outputs of a run may take, about
_INNER: Final = 4  # how much more the values inside a model take than those that are read, about
_LARGEST: Final = 1 << 14
_FIRST: Final = 16  # samples of the run that measures
_PROBES: Final = 4
_TOLERANCE: Final = 1e-4


def affordable_samples(space: InputSpace, *sessions: Session, memory: int = MEMORY) -> int:
    """Return how many samples a run takes so that what it returns stays within a bound."""
    fixed = space.samples_per_run
    if fixed is not None:
        return fixed
    number = min(_FIRST, space.count)
    feeds = space.feeds(np.arange(number))
    largest = max(sum(value.nbytes for value in session.run(feeds).values()) for session in sessions)
    return int(np.clip(memory * number // max(1, _INNER * largest), 1, _LARGEST))


def check_independence(space: InputSpace, session: Session, samples: int) -> None:
    """Run some samples among others and alone; what they put out must be the same.

    Raises
    ------
    ExecutionError
        If it is not: then the axis taken for samples does not count samples.
    """
    samples = min(samples, space.count) if space.samples_per_run is None else samples
    if samples == 1:
        return
    numbers = np.random.default_rng(0).integers(space.count, size=samples)
    together = session.run(space.feeds(numbers))
    for place in range(min(_PROBES, samples)):
        # where the model fixes the number of samples, the others become copies of this one
        alone = session.run(space.feeds(np.full(space.samples_per_run or 1, numbers[place])))
        for port in session.outputs:
            if not _agree(port, together[port.name], alone[port.name], space, samples, place):
                raise ExecutionError(
                    f"cannot tell: output '{port.name}' of a sample depends on the other samples of its run, "
                    "so inputs cannot be tried together"
                )


def _agree(port: Any, many: Array, alone: Array, space: InputSpace, samples: int, place: int) -> bool:
    _, axis = output_axes(port, many.shape, space.steps, samples)
    if axis is None:
        return False
    own = place if space.samples_per_run is not None else 0
    first, second = np.take(many, place, axis), np.take(alone, own, axis)
    if first.shape != second.shape:
        return False
    if first.dtype.kind != "f":
        return bool(np.array_equal(first, second))
    scale = float(np.abs(first).max(initial=0.0, where=np.isfinite(first)))
    return bool(np.allclose(first, second, rtol=0, atol=_TOLERANCE * scale, equal_nan=True))


def axes_of(outputs: Mapping[str, Array], session: Session, space: InputSpace, samples: int) -> dict[str, Any]:
    """Return the axes of steps and samples of every output of a run."""
    return {port.name: output_axes(port, outputs[port.name].shape, space.steps, samples) for port in session.outputs}
