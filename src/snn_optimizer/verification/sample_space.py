"""The inputs of a model as a space to search: what every element may be, and samples to run."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.execution.axes import time_axis
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.ort import Port
from snn_optimizer.verification.stimuli import Stimulus

__all__ = ["SampleSpace", "closest_subset", "joined"]

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


class SampleSpace:
    """What samples of a model may be.

    Parameters
    ----------
    inputs : sequence of Port
    base : sequence of Stimulus
        All of one shape. Each element stays between the smallest and the largest value it has there.

    Attributes
    ----------
    axes : mapping from input name to int or None
        The axis that counts samples.
    fixed_batch : int or None
    low, high : dict of array
        Ends of each element, over time and samples.
    free : list of str
        Inputs that can be changed.
    """

    def __init__(self, inputs: Sequence[Port], base: Sequence[Stimulus]) -> None:
        first = Dataset.from_arrays(base[0].feeds, inputs)
        self.axes: Mapping[str, int | None] = first.batch_axes
        self.fixed_batch = first.fixed_batch
        together = {name: joined([stimulus.feeds[name] for stimulus in base], axis) for name, axis in self.axes.items()}
        self.low = {name: self._extreme(name, np.minimum, array) for name, array in together.items()}
        self.high = {name: self._extreme(name, np.maximum, array) for name, array in together.items()}
        self.free = [
            name for name, axis in self.axes.items() if axis is not None and (self.low[name] != self.high[name]).any()
        ]

    def _extreme(self, name: str, reduce: np.ufunc, array: Array) -> Array:
        """Smallest or largest value of each element, over time and samples."""
        axis = self.axes[name]
        over = [each for each in (axis, time_axis(array.shape, axis)) if each is not None]
        return np.asarray(reduce.reduce(array, axis=tuple(over), keepdims=True)) if over else array

    def dataset(self, feeds: Mapping[str, Array]) -> Dataset:
        """Return samples to run, the last one repeated until the model's own batch is full."""
        data = Dataset(feeds, None, self.axes, self.fixed_batch)
        missing = -data.samples % (self.fixed_batch or 1)
        if not missing:
            return data
        return data.take(np.minimum(np.arange(data.samples + missing), data.samples - 1))

    def flip(self, name: str, array: Array, samples: int | Integers, index: Sequence[int] | Sequence[Integers]) -> None:
        """Mirror elements of samples between the ends of their ranges."""
        axis = self.axes[name]
        assert axis is not None
        place: list[Any] = list(index)
        place[axis] = samples
        low, high = self.low[name], self.high[name]
        corner = tuple(0 if low.shape[each] == 1 else place[each] for each in range(array.ndim))
        values = array[tuple(place)]
        if array.dtype.kind == "b":
            array[tuple(place)] = ~values
        else:
            array[tuple(place)] = np.clip(low[corner] + (high[corner] - values), low[corner], high[corner])

    def taken(self, feeds: Mapping[str, Array], samples: Sequence[int]) -> dict[str, Array]:
        """Copy samples, to be changed."""
        data = Dataset(feeds, None, self.axes, None).take(samples)
        return {name: array.copy() for name, array in data.feeds.items()}


def joined(arrays: Sequence[Array], axis: int | None) -> Array:
    """Return arrays behind one another along an axis; the first where there is none."""
    return arrays[0] if axis is None else np.concatenate(arrays, axis=axis)


def closest_subset(effects: npt.NDArray[np.float64], target: float) -> npt.NDArray[np.bool_]:
    """Return the subset whose sum comes closest to the target, by meeting in the middle."""
    half = len(effects) // 2
    left_bits, right_bits = _subsets(half), _subsets(len(effects) - half)
    left, right = left_bits @ effects[:half], right_bits @ effects[half:]
    order = np.argsort(right, kind="stable")
    ranked = right[order]
    above = np.minimum(np.searchsorted(ranked, target - left), len(ranked) - 1)
    below = np.maximum(above - 1, 0)
    gaps = np.stack([np.abs(left + ranked[side] - target) for side in (above, below)])
    side, row = np.unravel_index(int(gaps.argmin()), gaps.shape)
    partner = order[(above, below)[int(side)][row]]
    return np.concatenate([left_bits[row], right_bits[partner]]).astype(np.bool_)


@functools.cache
def _subsets(count: int) -> npt.NDArray[np.float64]:
    """Return all subsets of a few elements as rows of zeros and ones."""
    numbers = np.arange(1 << count)
    return ((numbers[:, np.newaxis] >> np.arange(count)) & 1).astype(np.float64)
