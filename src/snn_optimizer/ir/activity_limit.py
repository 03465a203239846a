"""How many entries of an input may be non-zero at one step of one sample.

A *frame* is what an input holds at one step of one sample: all axes behind the first two, which count steps and
samples; of a matrix all axes behind the first. Whatever the first two axes of a value mean, the elements of a
frame belong to one step of one sample, so what is proved from a limit on frames holds for every layout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["frame_axes", "largest_activity", "thinned"]

Array = npt.NDArray[Any]
LEADING = 2  # axes that count steps and samples


def frame_axes(rank: int) -> tuple[int, ...]:
    """Return the axes of a frame; none for a vector, each element of which is a frame of its own."""
    return tuple(range(max(0, min(LEADING, rank - 1)), rank)) if rank > 1 else ()


def largest_activity(array: Array) -> int:
    """Return the largest number of non-zero entries of any frame."""
    if not array.size:
        return 0
    return int(np.count_nonzero(array, axis=frame_axes(array.ndim)).max())


def thinned(array: Array, limit: int, generator: np.random.Generator, preference: Array | None = None) -> Array:
    """Return the array with entries set to zero until every frame has at most ``limit`` others.

    Parameters
    ----------
    array : array
    limit : int
    generator : Generator
        Chooses which entries stay, among those of equal preference.
    preference : array, optional
        Broadcasts into ``array``; of each frame the entries of the highest preference stay.
    """
    axes = frame_axes(array.ndim)
    frames = array.reshape(*array.shape[: array.ndim - len(axes)], -1) if axes else array[..., np.newaxis]
    if frames.shape[-1] <= limit or not array.size:
        return array
    active = frames != 0
    order = generator.random(frames.shape)
    if preference is not None:
        wanted = np.broadcast_to(preference, array.shape).reshape(frames.shape).astype(np.float64)
        ranks = np.argsort(np.argsort(wanted, axis=-1, kind="stable"), axis=-1, kind="stable")
        equal = _ranks_of_equals(wanted, ranks)
        order = equal + order
    order = np.where(active, order, -1.0)
    first = np.argpartition(order, -limit, axis=-1)[..., -limit:]
    kept = np.zeros_like(frames)
    np.put_along_axis(kept, first, np.take_along_axis(frames, first, axis=-1), axis=-1)
    return np.asarray(kept.reshape(array.shape), array.dtype)


def _ranks_of_equals(values: Array, ranks: Array) -> Array:
    """Return for each value the smallest rank of the values equal to it in its frame."""
    ordered = np.sort(values, axis=-1, kind="stable")
    places = np.arange(values.shape[-1])
    fresh = np.concatenate([np.ones((*values.shape[:-1], 1), np.bool_), ordered[..., 1:] != ordered[..., :-1]], axis=-1)
    starts = np.maximum.accumulate(np.where(fresh, places, 0), axis=-1)
    return np.take_along_axis(starts, ranks, axis=-1).astype(np.float64)
