"""Values of a network: what is cut out of them and what stands for it.

A *position* is an index into the axis of a value that counts units: the last axis of dense signals, the channel axis of
images. Where images are flattened every channel becomes a block of positions, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from snn_optimizer.certificates.intervals import Ends
from snn_optimizer.certificates.network import Array

__all__ = ["CutUnits", "Gaps", "NotFollowed", "Signal", "joined", "regrouped", "side_by_side", "tail_of"]


class NotFollowed(Exception):  # noqa: N818 - not a mistake of anybody: a limit of the checker
    """The checker cannot follow a value; the message says which and why."""


@dataclass(frozen=True, slots=True, eq=False)
class CutUnits:
    """Which units of a population are gone, and what stands for them.

    Attributes
    ----------
    kept : int array
        Units that are left, in order.
    silent, always, unread : bool array, one per unit of the whole population
        Gone because they never fire, fire at every step, or are read by zero weights only.
    twin : int array
        Of a unit that is gone the unit that fires in the same steps, else -1.
    """

    kept: Array
    silent: Array
    always: Array
    unread: Array
    twin: Array

    @property
    def mask(self) -> Array:
        """Which units are left."""
        found = np.zeros(len(self.twin), np.bool_)
        found[self.kept] = True
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Gaps:
    """Which positions of a value are gone, and what stands for them.

    Attributes
    ----------
    kept : int array
        Positions that are left, in order.
    constant : float array, one per position of the whole value
        The number that a position always holds; not a number where it varies.
    twin : int array
        Of a position that is gone the one that always holds the same, else -1.
    """

    kept: Array
    constant: Array
    twin: Array

    @classmethod
    def of(cls, cut: CutUnits) -> Gaps:
        """Return what the cut units of a population leave in its spikes."""
        constant = np.where(cut.silent, 0.0, np.where(cut.always, 1.0, np.nan))
        return cls(cut.kept, constant, cut.twin)

    @property
    def gone(self) -> Array:
        """Positions that are not left."""
        mask = np.ones(len(self.twin), np.bool_)
        mask[self.kept] = False
        return np.flatnonzero(mask)

    @property
    def holds_more_than_zeros(self) -> bool:
        """Whether zeros around the value would not be what is gone from it."""
        return bool((np.nan_to_num(self.constant[self.gone]) != 0).any())


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """A value: its bounds, and what is cut out of it.

    Attributes
    ----------
    ends : Ends
        Per position, or one for all.
    tail : tuple of int
        Sizes of the axes from the one that counts positions on; empty when no axis is known to.
    cut : Gaps, optional
        None when all positions are there.
    whole : int
        The values are whole multiples of ``2**whole`` (spikes: 0); None when they are not.
    """

    ends: Ends
    tail: tuple[int, ...] = ()
    cut: Gaps | None = None
    whole: int | None = None


def joined(first: Signal, second: Signal, name: str) -> Gaps | None:
    """Join what is cut out of two summands: the same positions, constant or alike in both."""
    if first.cut is None and second.cut is None:
        return None
    one, other = first.cut, second.cut
    if one is None or other is None or not np.array_equal(one.kept, other.kept):
        raise NotFollowed(f"'{name}' adds signals of which different units are gone")
    # what is neither constant nor alike in both has to be read by zeros
    return Gaps(one.kept, one.constant + other.constant, np.where(one.twin == other.twin, one.twin, -1))


def side_by_side(signals: Sequence[Signal], sizes: Sequence[int]) -> Gaps:
    """Join what is cut out of values that are put in one row."""
    parts: list[Gaps] = []
    start = 0
    for each, n in zip(signals, sizes, strict=True):
        gaps = each.cut or Gaps(np.arange(n), np.full(n, np.nan), np.full(n, -1))
        parts.append(Gaps(gaps.kept + start, gaps.constant, np.where(gaps.twin < 0, -1, gaps.twin + start)))
        start += n
    kept, constant, twin = (
        np.concatenate(each) for each in ([p.kept for p in parts], [p.constant for p in parts], [p.twin for p in parts])
    )
    return Gaps(kept, constant, twin)


def tail_of(shape: tuple[int, ...], count: int) -> tuple[int, ...] | None:
    """Return the shortest end of a shape that holds so many elements."""
    size = 1
    for axis in range(len(shape) - 1, -1, -1):
        size *= shape[axis]
        if size == count:
            return shape[axis:]
    return None


def regrouped(source: Signal, tail: tuple[int, ...]) -> Signal | None:
    """Follow units into another split of the same elements: whole, or every unit into a block."""
    before, after = source.tail[0], tail[0]
    if before == after:
        return replace(source, tail=tail)
    if after % before:
        return None
    block = after // before
    cut = source.cut
    if cut is not None:
        offsets = np.arange(block)
        kept = (cut.kept[:, np.newaxis] * block + offsets).reshape(-1)
        twin = np.where(cut.twin[:, np.newaxis] < 0, -1, cut.twin[:, np.newaxis] * block + offsets).reshape(-1)
        cut = Gaps(kept, np.repeat(cut.constant, block), twin)
    return Signal(source.ends.repeated(block), tail, cut, source.whole)
