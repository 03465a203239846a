"""Large arrays as small images: means of blocks, with the size of the block said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["TIMES", "Image", "block_means", "shrunk"]

Array = npt.NDArray[Any]
Reduce = Callable[[Array], Array]
TIMES: Final = "\u00d7"  # the multiplication sign, between sizes
_CHUNK: Final = 16 << 20  # elements that are worked on at once


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """An array of two axes, small enough to be seen.

    Attributes
    ----------
    values : float32 array
        One per block.
    shape : tuple of int
        Of the array it was made from.
    block : tuple of int
        Rows and columns of a block; (1, 1) where every element is shown.
    """

    values: npt.NDArray[np.float32]
    shape: tuple[int, int]
    block: tuple[int, int]

    @property
    def binned(self) -> bool:
        """Whether an element of the image stands for several of the array."""
        return self.block != (1, 1)


def block_means(array: Array, block: tuple[int, int], of: Reduce = np.asarray) -> npt.NDArray[np.float32]:
    """Return the mean of ``of`` the elements of every block; blocks at the ends may be smaller.

    Works on some rows at a time, so that nothing of the size of the array is made.
    """
    rows, columns = array.shape
    height, width = block
    starts = np.arange(0, columns, width)
    sizes = np.diff(np.append(starts, columns))
    at_once = max(1, _CHUNK // max(1, columns * height)) * height
    parts = []
    for start in range(0, rows, at_once):
        chunk = of(array[start : start + at_once]).astype(np.float32, copy=False)
        tops = np.arange(0, len(chunk), height)
        sums = np.add.reduceat(np.add.reduceat(chunk, starts, axis=1), tops, axis=0)
        parts.append(sums / (np.diff(np.append(tops, len(chunk)))[:, np.newaxis] * sizes))
    return np.concatenate(parts).astype(np.float32, copy=False)


def shrunk(array: Array, limit: tuple[int, int], of: Reduce = np.asarray, *, whole: Reduce = np.asarray) -> Image:
    """Return an image of at most ``limit`` rows and columns; ``whole`` is applied where no block is needed."""
    rows, columns = (int(size) for size in array.shape)
    block = (max(1, -(-rows // limit[0])), max(1, -(-columns // limit[1])))
    if not array.size:
        return Image(np.zeros(array.shape, np.float32), (rows, columns), (1, 1))
    values = whole(array).astype(np.float32) if block == (1, 1) else block_means(array, block, of)
    return Image(values, (rows, columns), block)
