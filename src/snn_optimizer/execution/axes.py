"""Which axis of an input counts samples and which counts time steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from snn_optimizer.execution.ort import Dimension, Port

__all__ = ["batch_axes", "names_time", "output_axes", "time_axis"]

_BATCH = re.compile(r"b|n|bs|.*batch.*|samples?", re.IGNORECASE)
_TIME = re.compile(r"t|.*time.*|.*steps?|seq.*", re.IGNORECASE)


def batch_axes(
    ports: Sequence[Port], arrays: Mapping[str, npt.NDArray[Any]] | None = None, samples: int | None = None
) -> dict[str, int | None]:
    """Return the axis of each input that counts samples, None where all samples share the input.

    Decided per input by the first of these that answers: a symbol that names a
    batch; the number of labels; the only symbol that does not name time. Without
    any, a model input of three or more axes is time-major (axis 1) unless that axis names
    time, a smaller one is not (axis 0). An input of fixed shape is shared when another input has a
    batch symbol and its own leading sizes do not follow the samples.

    Parameters
    ----------
    ports : sequence of Port
    arrays : mapping from input name to array, optional
        The data at hand, to compare with ``samples``.
    samples : int, optional
        The number of labels.
    """
    symbolic = any(_named_batch(port.shape) is not None for port in ports)
    return {port.name: _batch_axis(port, (arrays or {}).get(port.name), samples, symbolic) for port in ports}


def time_axis(shape: Sequence[Dimension], batch_axis: int | None) -> int | None:
    """Return the axis that counts steps: the first, where samples are counted on the second."""
    return 0 if batch_axis == 1 and len(shape) >= 3 else None


def _named_batch(shape: tuple[Dimension, ...] | None) -> int | None:
    for axis, size in enumerate(shape or ()):
        if isinstance(size, str) and _BATCH.fullmatch(size):
            return axis
    return None


def _batch_axis(port: Port, array: npt.NDArray[Any] | None, samples: int | None, symbolic: bool) -> int | None:
    shape = port.shape
    if shape is None:
        if array is None:
            return None
        shape = (None,) * array.ndim
    if not shape:
        return None
    named = _named_batch(shape)
    if named is not None:
        return named
    preferred = 1 if len(shape) >= 3 else 0
    order = (preferred, 1 - preferred)
    if samples is not None and array is not None:
        for axis in order:
            if axis < array.ndim and array.shape[axis] == samples:
                return axis
    fixed = all(isinstance(size, int) for size in shape)
    if fixed and symbolic:
        return None
    free = [axis for axis in order if axis < len(shape) and _may_count_samples(shape[axis])]
    if len(free) == 1 and len(shape) != 3:
        return free[0]
    if len(shape) == 1 and fixed:
        return None
    return next((axis for axis in order if axis < len(shape) and not names_time(shape[axis])), preferred)


def _may_count_samples(size: Dimension) -> bool:
    return not isinstance(size, int) and not names_time(size)


def output_axes(port: Port, shape: Sequence[int], steps: int, samples: int) -> tuple[int | None, int | None]:
    """Return the axes of an output that count steps and samples, None where there is none.

    Parameters
    ----------
    port : Port
        A symbol that names a batch decides.
    shape : sequence of int
        Of the output in a run of ``steps`` steps and ``samples`` samples; decides
        where no symbol does.
    """
    batch = _named_batch(port.shape)
    if batch is None:
        sizes = tuple(shape)
        if len(sizes) >= 2 and sizes[:2] == (steps, samples) and (len(sizes) >= 3 or steps != samples):
            batch = 1
        else:
            batch = next((axis for axis, size in enumerate(sizes[:2]) if size == samples), None)
    return (0, 1) if batch == 1 else (None, batch)


def names_time(size: Dimension) -> bool:
    """Tell whether a symbolic size is called like a number of steps."""
    return isinstance(size, str) and _TIME.fullmatch(size) is not None
