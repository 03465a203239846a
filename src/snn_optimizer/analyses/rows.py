"""Rows of parameters, one per unit position: views, hashes, and how positions of a class are numbered."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses.labels import Site
from snn_optimizer.analyses.unit_groups import Contraction
from snn_optimizer.ir import array_of

__all__ = ["contraction_matrix", "hash_rows", "mix", "position_ranks", "positions_of", "site_rows"]

Hashes = npt.NDArray[np.uint64]
CHUNK = 1 << 21


def site_rows(site: Site) -> npt.NDArray[Any]:
    """Return the constant of a site as (positions, rest), a view where possible."""
    array = array_of(site.use.node.inputs[site.use.slot])
    assert array is not None
    moved = np.moveaxis(array, site.axis, 0)
    return moved.reshape(moved.shape[0], -1)


def contraction_matrix(contraction: Contraction) -> npt.NDArray[Any]:
    """Return the weights as (postsynaptic, presynaptic, kernel), a view where possible."""
    array = array_of(contraction.node.inputs[contraction.weight_slot])
    assert array is not None
    order = [contraction.axis_out, contraction.axis_in]
    moved = np.transpose(array, [*order, *(i for i in range(array.ndim) if i not in order)])
    return moved.reshape(*moved.shape[:2], -1)


def position_ranks(classes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Number the positions of each class 0, 1, ... in order of appearance."""
    if len(classes) < 2 or bool((np.diff(classes) > 0).all()):
        return np.zeros(len(classes), np.int64)
    order = np.argsort(classes, kind="stable")
    ordered = classes[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ranks = np.empty(len(classes), np.int64)
    ranks[order] = np.arange(len(classes)) - np.repeat(starts, np.diff(np.r_[starts, len(classes)]))
    return ranks


def positions_of(
    classes: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64], ranks: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return where the position of the given rank of each wanted class lies, -1 where it has none."""
    order = np.argsort(classes, kind="stable")
    ordered = classes[order]
    start = np.searchsorted(ordered, wanted, side="left")
    stop = np.searchsorted(ordered, wanted, side="right")
    where = start + ranks
    return np.where(where < stop, order[np.minimum(where, max(len(order) - 1, 0))], -1)


def mix(values: Hashes) -> Hashes:
    """Scramble 64-bit integers (the finalizer of SplitMix64, Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        x = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def hash_rows(rows: npt.NDArray[Any]) -> Hashes:
    """Hash the bits of every row, negative zero as zero; a few MiB of scratch at a time.

    A row with a NaN equals no other row, so its hash is its own.
    """
    number, width = rows.shape
    result = np.zeros(number, np.uint64)
    factors = np.random.default_rng(0x5EED).integers(1, 2**63, size=max(width, 1), dtype=np.uint64) * np.uint64(
        2
    ) + np.uint64(1)
    unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[rows.dtype.itemsize]
    step = max(1, CHUNK // max(width, 1))
    with np.errstate(over="ignore"):
        for start in range(0, number, step):
            block = np.ascontiguousarray(rows[start : start + step])
            broken = np.zeros(0, np.int64)
            if block.dtype.kind == "f":
                block = block + np.zeros((), block.dtype)
                broken = np.flatnonzero(np.isnan(block).any(axis=1))
            bits = block.view(unsigned).astype(np.uint64)
            result[start : start + step] = (bits * factors[:width]).sum(axis=1, dtype=np.uint64)
            result[start + broken] = ~(start + broken).astype(np.uint64)
    return mix(result)
