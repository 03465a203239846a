"""Ranges whose axes come and go."""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_optimizer.analyses.intervals import Range

__all__ = ["common_tail", "drop_axis", "insert_axis", "trailing"]


def trailing(bound: Range, rank: int) -> Range:
    """Return the bound over the last ``rank`` axes; hull over the ones before."""
    if bound.rank > rank:
        axes = tuple(range(bound.rank - rank))
        low, high = bound.low.min(axis=axes), bound.high.max(axis=axes)
        return Range.of(low, high, bound.fixed.all(axis=axes) & (low == high))
    lead = (1,) * (rank - bound.rank)
    return bound.apply(lambda a: a.reshape(lead + a.shape))


def drop_axis(bound: Range | None, axis: int) -> Range | None:
    """Return the hull over one axis, without it."""
    if bound is None:
        return None
    axis %= bound.rank
    return Range.of(bound.low.min(axis=axis), bound.high.max(axis=axis), bound.fixed.all(axis=axis))


def insert_axis(bound: Range, axis: int) -> Range:
    """Return the bound with an axis of size one."""
    axis %= bound.rank + 1
    return bound.apply(lambda a: np.expand_dims(a, axis))


def common_tail(first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[int, int] | None:
    """Return the longest trailing runs of integers with equal products."""
    best: tuple[int, int] | None = (0, 0)
    sizes = []
    for dims in (first, second):
        products, total = [1], 1
        for n in reversed(dims):
            if not isinstance(n, int):
                break
            total *= n
            products.append(total)
        sizes.append(products)
    for i, total in enumerate(sizes[0]):
        if total in sizes[1]:
            best = (i, len(sizes[1]) - 1 - sizes[1][::-1].index(total))
    return best
