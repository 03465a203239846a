"""What a linear map has to be once units that it reads are gone."""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_optimizer.certificates.affine import Affine
from snn_optimizer.certificates.network import Array
from snn_optimizer.certificates.signals import Gaps, NotFollowed, Signal

__all__ = ["Broken", "only_picked", "rows_after"]


class Broken(Exception):  # noqa: N818 - what it says is about the files, not about this program
    """The relation does not hold; the message says where."""


def rows_after(affine: Affine, source: Signal, rows: Array) -> tuple[Array, Array, tuple[Array, Array] | None, bool]:
    """Return what a linear map has to be once units it reads are gone.

    Parameters
    ----------
    affine : Affine
        Before the cut.
    source : Signal
        What it reads.
    rows : int array
        Units of its own that are left.

    Returns
    -------
    weights, bias : array
    size : tuple of arrays, or None
        Sums of the absolute values that were added up for each weight and bias; None where nothing was.
    moved : bool
        Whether sums have other terms now.

    Raises
    ------
    Broken
        If it reads a unit that is gone and nothing stands for.
    NotFollowed
        For grouped convolutions.
    """
    weights, bias = affine.weights[rows], affine.bias[rows]
    fused = (np.abs(weights), np.abs(bias)) if affine.fused else None
    cut = source.cut
    if cut is None or len(cut.kept) == len(cut.twin):
        return weights, bias, fused, False
    if affine.groups != 1:
        raise NotFollowed(f"'{affine.name}' is a convolution in groups")
    units, columns = len(cut.twin), affine.weights.shape[1]
    if columns % units:
        raise NotFollowed(f"'{affine.name}' reads {columns} inputs of {units} units")
    if columns != units:
        raise NotFollowed(f"'{affine.name}' reads {columns} positions, {units} are known")
    gone = cut.gone
    place = np.full(units, -1)
    place[cut.kept] = np.arange(len(cut.kept))
    constant = cut.constant[gone]
    loud = gone[np.isnan(constant) & (cut.twin[gone] < 0)]
    if (weights[:, loud] != 0).any() or not np.isfinite(weights[:, gone]).all():
        unit = int(loud[(weights[:, loud] != 0).any(axis=(0, 2))][0]) if len(loud) else int(gone[0])
        raise Broken(f"'{affine.name}' reads unit {unit}, which is gone")
    kept = weights[:, cut.kept]
    merged = gone[np.isnan(constant) & (cut.twin[gone] >= 0)]
    added = gone[np.nan_to_num(constant) != 0]
    size = None if fused is None else (fused[0][:, cut.kept], fused[1])
    if size is None and (len(merged) or len(added)):
        size = (np.abs(kept.astype(np.float64)), np.abs(bias.astype(np.float64)))
    if len(merged) and size is not None:
        if (place[cut.twin[merged]] < 0).any():
            raise Broken(f"'{affine.name}' reads units whose twins are gone too")
        kept, sums = kept.astype(np.float64), np.array(size[0], np.float64)
        at: Any = (slice(None), place[cut.twin[merged]])
        np.add.at(kept, at, weights[:, merged].astype(np.float64))
        np.add.at(sums, at, np.abs(weights[:, merged].astype(np.float64)))
        size = (sums, size[1])
    if len(added) and size is not None:
        if affine.padded:
            raise Broken(f"'{affine.name}' pads with zeros what is never zero")
        moved = weights[:, added].astype(np.float64) * cut.constant[added][np.newaxis, :, np.newaxis]
        size = (size[0], size[1] + np.abs(moved).sum(axis=(1, 2)))
        bias = bias.astype(np.float64) + moved.sum(axis=(1, 2))
    return kept, bias, size, True


def only_picked(source: Signal, picked: Array, affine: Affine) -> Signal:
    """Return a signal of which only some positions are read: the others must meet zeros, or be zero."""
    if source.cut is not None:
        raise NotFollowed(f"'{affine.name}' picks from units that are gone in part")
    columns = affine.weights.shape[1]
    if len(picked) and (picked.min() < 0 or picked.max() >= columns or len(np.unique(picked)) != len(picked)):
        raise Broken(f"'{affine.name}' picks inputs that do not exist, or one twice")
    zero = np.broadcast_to((source.ends.low == 0) & (source.ends.high == 0), (columns,))
    return Signal(source.ends, source.tail, Gaps(picked, np.where(zero, 0.0, np.nan), np.full(columns, -1)))
