"""Carry labels through a reshape: which output axis holds which units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from snn_optimizer.analyses.labels import NO_UNIT, Axes, Labels
from snn_optimizer.ir import Dimension

__all__ = ["ReshapeResult", "reshape_labels"]


@dataclass(frozen=True, slots=True)
class ReshapeResult:
    """Labels of the output axes, and input labels that could not be followed."""

    axes: Axes
    lost: tuple[Labels, ...]


def reshape_labels(dims_in: Sequence[Dimension], axes: Axes, dims_out: Sequence[Dimension]) -> ReshapeResult:
    """Align two row-major shapes block by block and move the labels.

    Trailing (and leading) runs of axes whose products agree correspond exactly,
    whatever lies before (after) them; only the middle, where sizes are unknown,
    cannot be followed.
    """
    blocks, (rest_in, rest_out) = _align(dims_in, dims_out)
    out: Axes = [None] * len(dims_out)
    lost: list[Labels] = []
    for (start_in, stop_in), (start_out, stop_out) in blocks:
        _move(dims_in, axes, dims_out, range(start_in, stop_in), range(start_out, stop_out), out, lost)
    if len(rest_in) == 1 and len(rest_out) == 1:
        out[rest_out[0]] = axes[rest_in[0]]
    else:
        lost.extend(labels for i in rest_in if (labels := axes[i]) is not None)
    return ReshapeResult(out, tuple(lost))


Block = tuple[tuple[int, int], tuple[int, int]]


def _align(dims_in: Sequence[Dimension], dims_out: Sequence[Dimension]) -> tuple[list[Block], tuple[range, range]]:
    blocks: list[Block] = []
    end_in, end_out = len(dims_in), len(dims_out)
    while end_in and end_out:
        step = _match(dims_in[:end_in][::-1], dims_out[:end_out][::-1])
        if step is None:
            break
        blocks.append(((end_in - step[0], end_in), (end_out - step[1], end_out)))
        end_in, end_out = end_in - step[0], end_out - step[1]
    start_in = start_out = 0
    while start_in < end_in and start_out < end_out:
        step = _match(dims_in[start_in:end_in], dims_out[start_out:end_out])
        if step is None:
            break
        blocks.append(((start_in, start_in + step[0]), (start_out, start_out + step[1])))
        start_in, start_out = start_in + step[0], start_out + step[1]
    return blocks, (range(start_in, end_in), range(start_out, end_out))


def _match(first: Sequence[Dimension], second: Sequence[Dimension]) -> tuple[int, int] | None:
    """Return the shortest leading runs with equal products, ``None`` when unknown."""
    a, b = first[0], second[0]
    if a is not None and a == b:
        return 1, 1
    if not isinstance(a, int) or not isinstance(b, int):
        return None
    taken_a = taken_b = 1
    while a != b:
        if a < b:
            if taken_a == len(first) or not isinstance(following := first[taken_a], int):
                return None
            a, taken_a = a * following, taken_a + 1
        else:
            if taken_b == len(second) or not isinstance(following := second[taken_b], int):
                return None
            b, taken_b = b * following, taken_b + 1
    return taken_a, taken_b


def _move(
    dims_in: Sequence[Dimension],
    axes: Axes,
    dims_out: Sequence[Dimension],
    group_in: range,
    group_out: range,
    out: Axes,
    lost: list[Labels],
) -> None:
    labelled = [i for i in group_in if axes[i] is not None]
    if not labelled:
        return
    if len(group_in) == 1 and len(group_out) == 1:
        out[group_out[0]] = axes[group_in[0]]
        return
    position = labelled[0]
    labels = axes[position]
    assert labels is not None
    sizes_in = [int(dims_in[i]) for i in group_in]  # type: ignore[arg-type]  # blocks of several axes are all integers
    sizes_out = [int(dims_out[j]) for j in group_out]  # type: ignore[arg-type]  # likewise
    if len(labelled) > 1 or len(labels) != sizes_in[position - group_in[0]]:
        lost.extend(found for i in labelled if (found := axes[i]) is not None)
        return
    shape = [1] * len(sizes_in)
    shape[position - group_in[0]] = len(labels)
    spread = np.broadcast_to(labels.reshape(shape), sizes_in).reshape(sizes_out)
    for offset, axis in enumerate(group_out):
        other = tuple(i for i in range(len(sizes_out)) if i != offset)
        if spread.size and (spread.min(axis=other) == spread.max(axis=other)).all():
            along = np.ascontiguousarray(spread.min(axis=other))
            if len(along) > 1 or spread.size == 1 or len(sizes_out) == 1 or along[0] != NO_UNIT:
                out[axis] = along
                return
    lost.append(labels)
