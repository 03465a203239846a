"""Labels: which unit every position of an axis belongs to.

A *unit* is one neuron, one channel, or one row of a weight: the smallest thing
that can be cut out of a network. Every axis of every value carries either
nothing, or one integer per position, the unit that position belongs to (-1 for
none). Two positions that must live or die together are *unified*; a position
that must not be cut is *fixed*, with a reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from snn_optimizer.ir import Use

__all__ = ["NO_UNIT", "Axes", "LabelTable", "Labels", "Role", "Site"]

Labels = npt.NDArray[np.int64]
Axes = list["Labels | None"]
NO_UNIT = -1


class Role(StrEnum):
    """What a constant means to the units along one of its axes."""

    ROW = "row"  # incoming weights of the unit
    BIAS = "bias"  # bias of the unit's current
    COLUMN = "column"  # outgoing weights of the unit
    PARAMETER = "parameter"  # neuron parameter, batch norm, elementwise operand
    STATE = "state"  # initial state
    SHAPE = "shape"  # an entry of a shape vector counts the units
    GROUPS = "groups"  # the `group` attribute of a depthwise convolution counts the units
    INDEX = "index"  # entries of a Gather's index vector are the units


@dataclass(frozen=True, slots=True)
class Site:
    """One place that is cut when units go.

    Attributes
    ----------
    use : Use
        The node and input slot that reads the constant.
    axis : int
        Axis of the constant; for ``SHAPE`` the position of the entry.
    labels : array of int64
        Unit of each position along the axis.
    reader : Use, optional
        For ``SHAPE`` who takes the vector as a shape; others may read the same vector.
    """

    use: Use
    axis: int
    labels: Labels
    role: Role
    reader: Use | None = None


def _components(count: int, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the smallest member of each unit's connected component.

    Hooking and pointer jumping (Shiloach and Vishkin, J. Algorithms 3, 1982): a logarithmic number of
    rounds over whole arrays. scipy has this too, and takes a third of a second to import.
    """
    root = np.arange(count, dtype=np.int64)
    while True:
        low, high = np.minimum(root[first], root[second]), np.maximum(root[first], root[second])
        if (low == high).all():
            return root
        np.minimum.at(root, high, low)
        while not np.array_equal(jumped := root[root], root):
            root = jumped


class LabelTable:
    """Hands out units, and collects unifications, fixings and sites."""

    def __init__(self) -> None:
        self.count = 0
        self.sites: list[Site] = []
        self._pairs: list[tuple[Labels, Labels]] = []
        self._fixed: list[tuple[Labels, str]] = []

    def fresh(self, size: int) -> Labels:
        """Return ``size`` new units."""
        labels = np.arange(self.count, self.count + size, dtype=np.int64)
        self.count += size
        return labels

    def fix(self, labels: Labels | None, reason: str) -> None:
        """Forbid cutting these units."""
        if labels is not None:
            self._fixed.append((labels, reason))

    def unify(self, first: Labels | None, second: Labels | None, reason: str) -> None:
        """Positions correspond one to one; a partner without a unit fixes the other."""
        if first is None or second is None:
            self.fix(first if second is None else second, reason)
        elif first is second:
            return
        elif len(first) != len(second):
            self.fix(first, reason)
            self.fix(second, reason)
        else:
            both = (first != NO_UNIT) & (second != NO_UNIT)
            self._pairs.append((first[both], second[both]))
            if not both.all():
                self.fix(first[~both], reason)
                self.fix(second[~both], reason)

    def site(self, use: Use, axis: int, labels: Labels, role: Role, reader: Use | None = None) -> None:
        """Record a place to cut."""
        self.sites.append(Site(use, axis, labels, role, reader))

    def classes(self) -> tuple[int, npt.NDArray[np.int64]]:
        """Return the number of closed classes and the class of every unit."""
        if not self.count:
            return 0, np.zeros(0, np.int64)
        first = np.concatenate([a for a, _ in self._pairs]) if self._pairs else np.zeros(0, np.int64)
        second = np.concatenate([b for _, b in self._pairs]) if self._pairs else np.zeros(0, np.int64)
        root = _components(self.count, first, second)
        smallest, labels = np.unique(root, return_inverse=True)
        return len(smallest), labels.astype(np.int64)

    def fixed_classes(self, number: int, class_of: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Return per class an index into the reasons, -1 when the class may be cut."""
        reasons: list[str] = []
        index: dict[str, int] = {}
        fixed = np.full(number, -1, np.int64)
        for labels, reason in reversed(self._fixed):  # the first recorded reason wins
            where = index.setdefault(reason, len(index))
            if where == len(reasons):
                reasons.append(reason)
            units = labels[labels != NO_UNIT]
            fixed[class_of[units]] = where
        return fixed, reasons
