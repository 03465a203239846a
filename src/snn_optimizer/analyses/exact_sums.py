"""Which linear layers sum without rounding, in any order.

A layer that reads whole numbers up to ``h`` and whose weights and biases are all multiples of ``2^-k`` has partial
sums that are multiples of ``2^-k`` of size at most ``h sum |w| + |b|``. Below ``2^(24-k)`` these are float32 numbers:
no sum of any subset, in any order, fused or blocked, is ever rounded. Removing zeros from it, permuting it or adding
columns that always fire together changes no bit.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses.manager import AnalysisManager
from snn_optimizer.analyses.rows import contraction_matrix
from snn_optimizer.analyses.unit_groups import Contraction, UnitGroups
from snn_optimizer.analyses.whole_values import WholeValues
from snn_optimizer.ir import Module, array_of, is_unscaled

__all__ = ["SIGNIFICANT", "ExactSums", "grid_exponent", "largest_sum"]

SIGNIFICANT: Final = 24  # bits of a float32
_FINEST: Final = 149  # of the smallest float32


@dataclass(frozen=True, slots=True)
class ExactSums:
    """Linear nodes whose sums are exact for every input.

    Attributes
    ----------
    nodes : set of int
        By ``id``.
    """

    nodes: AbstractSet[int]

    @classmethod
    def compute(cls, module: Module, analyses: AnalysisManager) -> ExactSums:
        """Look at every linear node that reads whole numbers; cost O(weights)."""
        whole = analyses.get(WholeValues)
        contractions = analyses.get(UnitGroups).contractions
        return cls({id(each.node) for each in contractions if _is_exact(each, whole.of(each.source))})

    def touched_only(self, groups: UnitGroups, selected: npt.NDArray[np.bool_]) -> bool:
        """Tell whether every linear node that a cut of the selected classes touches is exact."""
        return all(
            id(each.node) in self.nodes
            for each in groups.contractions
            if groups.mask_at(each.labels_in, selected).any() or groups.mask_at(each.labels_out, selected).any()
        )


def _is_exact(contraction: Contraction, largest: int | None) -> bool:
    node, slot = contraction.node, contraction.bias_slot
    weights = contraction_matrix(contraction)
    if largest is None or weights.dtype != np.float32 or not np.isfinite(weights).all():
        return False
    if not is_unscaled(node):
        return False
    bias: npt.NDArray[Any] = np.zeros(1, np.float32)
    if slot is not None and len(node.inputs) > slot and node.inputs[slot].name:
        found = array_of(node.inputs[slot])
        if found is None or not np.isfinite(found).all():
            return False
        bias = found
    exponent = max(grid_exponent(weights), grid_exponent(bias))
    return largest_sum(weights, bias, largest) < 2.0 ** (SIGNIFICANT - exponent)


def largest_sum(weights: npt.NDArray[Any], bias: npt.NDArray[Any] | None, largest: int = 1) -> float:
    """Return how large a partial sum can be of inputs up to ``largest``; weights are (rows, presynaptic, kernel)."""
    most = largest * np.abs(weights.astype(np.float64)).sum(axis=(1, 2)).max(initial=0.0)
    return float(most + (0.0 if bias is None else np.abs(bias.astype(np.float64)).max(initial=0.0)))


def grid_exponent(array: npt.NDArray[Any]) -> int:
    """Return the smallest k for which all elements are multiples of ``2^-k``; at least 0."""
    wide = np.abs(array.astype(np.float64))
    low, high = 0, _FINEST
    while low < high:
        middle = (low + high) // 2
        if (np.ldexp(wide, middle) % 1 == 0).all():
            high = middle
        else:
            low = middle + 1
    return low
