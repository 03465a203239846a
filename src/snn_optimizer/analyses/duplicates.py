"""Duplicate units: classes that always emit the same train, by backward lumping.

Two classes are duplicates when their own parameters are equal and, for every
block of presynaptic duplicates, the sums of their weights from that block are
equal: then they receive the same current at every step and fire together
(induction over the steps). The search starts with the coarsest partition that
own parameters allow and refines it until nothing splits, so duplicates that feed
each other are found too. Rows are compared through 64-bit hashes and then
verified element by element, in time linear in the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses.labels import NO_UNIT, Role, Site
from snn_optimizer.analyses.manager import AnalysisManager
from snn_optimizer.analyses.rows import (
    contraction_matrix,
    hash_rows,
    mix,
    position_ranks,
    positions_of,
    site_rows,
)
from snn_optimizer.analyses.unit_groups import Contraction, UnitGroups
from snn_optimizer.ir import Module

__all__ = ["Duplicates"]

Classes = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
ROUNDS = 64


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Exact duplicates.

    Attributes
    ----------
    keeper : array, shape (classes,)
        The class that stands for each class; itself when it has no earlier duplicate.
    """

    keeper: Classes

    @classmethod
    def compute(cls, module: Module, analyses: AnalysisManager) -> Duplicates:
        """Partition the classes; cost O(weights) per round, depth + 1 rounds."""
        groups = analyses.get(UnitGroups)
        if not groups.classes:
            return cls(np.zeros(0, np.int64))
        blocks = _partition(groups)
        keeper = _keepers(groups, blocks)
        return cls(keeper if _verified(groups, blocks, keeper) else np.arange(groups.classes))

    @property
    def removable(self) -> npt.NDArray[np.bool_]:
        """Return which classes have a keeper other than themselves."""
        return np.asarray(self.keeper != np.arange(len(self.keeper)))


def _partition(groups: UnitGroups) -> Classes:
    own = _own_hashes(groups)
    _, blocks = np.unique(own, return_inverse=True)
    cache: dict[int, tuple[bytes, Hashes]] = {}
    number = int(blocks.max()) + 1
    for _ in range(ROUNDS):
        total = mix(blocks.astype(np.uint64))
        for index, contraction in enumerate(groups.contractions):
            total = total + _row_hashes(groups, contraction, index, blocks, cache)
        _, blocks = np.unique(total, return_inverse=True)
        if int(blocks.max()) + 1 == number:
            return blocks
        number = int(blocks.max()) + 1
    return np.arange(groups.classes)


def _own_hashes(groups: UnitGroups) -> Hashes:
    """Hash what a class is apart from its incoming weights: parameters, and how often it is read where."""
    total = np.zeros(groups.classes, np.uint64)
    for index, site in enumerate(groups.sites):
        classes = groups.classes_at(site.labels)
        inside = classes != NO_UNIT
        if site.role in {Role.COLUMN, Role.ROW, Role.SHAPE, Role.GROUPS}:
            rows = np.ones(len(classes), np.uint64)
        else:
            rows = hash_rows(site_rows(site))
        _scatter(total, classes[inside], rows[inside], salt=2 * index + 1)
    # a class that may not be cut and has no parameters of its own is like nothing else
    bare = total == 0
    total[bare] = mix(np.flatnonzero(bare).astype(np.uint64))
    return total


def _scatter(total: Hashes, classes: Classes, rows: Hashes, salt: int) -> None:
    ranks = position_ranks(classes).astype(np.uint64)
    np.add.at(total, classes, mix(rows ^ mix(ranks + np.uint64(salt << 32))))


def _row_hashes(
    groups: UnitGroups,
    contraction: Contraction,
    index: int,
    blocks: Classes,
    cache: dict[int, tuple[bytes, Hashes]],
) -> Hashes:
    columns = _column_blocks(groups, contraction, blocks)
    key = columns.tobytes()
    if index in cache and cache[index][0] == key:
        rows = cache[index][1]
    else:
        rows = hash_rows(_lumped(contraction, columns))
        cache[index] = (key, rows)
    total = np.zeros(groups.classes, np.uint64)
    classes = groups.classes_at(contraction.labels_out)
    inside = classes != NO_UNIT
    _scatter(total, classes[inside], rows[inside], salt=2 * (len(groups.sites) + index))
    return total


def _column_blocks(groups: UnitGroups, contraction: Contraction, blocks: Classes) -> Classes:
    """Number the blocks of the columns by first appearance; columns without a unit stand alone."""
    classes = groups.classes_at(contraction.labels_in)
    ranks = position_ranks(classes)
    alone = classes == NO_UNIT
    keys = np.where(alone, -1 - np.arange(len(classes)), blocks[classes] if len(blocks) else 0)
    pairs = np.stack([keys, np.where(alone, 0, ranks)], axis=1)
    _, first, inverse = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    return np.asarray(order[inverse.reshape(-1)], np.int64)


def _lumped(contraction: Contraction, columns: Classes) -> npt.NDArray[np.generic]:
    """Return rows of weights summed over the blocks of columns; the weights themselves when no block has two."""
    matrix = contraction_matrix(contraction)
    number = int(columns.max()) + 1 if len(columns) else 0
    if number == len(columns):
        return matrix.reshape(matrix.shape[0], -1)
    result = np.zeros((matrix.shape[0], number, matrix.shape[2]), np.float64)
    order = np.argsort(columns, kind="stable")
    starts = np.searchsorted(columns[order], np.arange(number))
    step = max(1, (1 << 22) // max(1, matrix.shape[1] * matrix.shape[2]))
    for start in range(0, matrix.shape[0], step):
        block = matrix[start : start + step][:, order].astype(np.float64)
        result[start : start + step] = np.add.reduceat(block, starts, axis=1)
    return result.reshape(matrix.shape[0], -1)


def _keepers(groups: UnitGroups, blocks: Classes) -> Classes:
    """Choose a keeper per block: a class that must stay if there is one, else the first."""
    order = np.lexsort((np.arange(len(blocks)), groups.fixed < 0, blocks))
    first = np.ones(len(blocks), np.bool_)
    first[1:] = blocks[order][1:] != blocks[order][:-1]
    leader = np.zeros(int(blocks.max()) + 1, np.int64)
    leader[blocks[order][first]] = order[first]
    keeper = leader[blocks]
    stays = groups.fixed >= 0
    return np.where(stays, np.arange(len(blocks)), keeper)


def _verified(groups: UnitGroups, blocks: Classes, keeper: Classes) -> bool:
    """Compare every removable class with its keeper element by element; NaN equals nothing."""
    removable = keeper != np.arange(len(keeper))
    if not removable.any():
        return True
    own: Sequence[Site] = [s for s in groups.incoming() if s.role is not Role.ROW]
    for site in own:
        if not _same_rows(groups, site.labels, site_rows(site), removable, keeper):
            return False
    return all(
        _same_rows(groups, c.labels_out, _lumped(c, _column_blocks(groups, c, blocks)), removable, keeper)
        for c in groups.contractions
    )


def _same_rows(
    groups: UnitGroups,
    labels: Classes,
    rows: npt.NDArray[np.generic],
    removable: npt.NDArray[np.bool_],
    keeper: Classes,
) -> bool:
    classes = groups.classes_at(labels)
    mine = np.flatnonzero((classes != NO_UNIT) & removable[classes])
    if not len(mine):
        return True
    theirs = positions_of(classes, keeper[classes[mine]], position_ranks(classes)[mine])
    return bool((theirs >= 0).all()) and bool((rows[mine] == rows[theirs]).all())
