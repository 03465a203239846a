"""Rounded weights that reproduce the drives of the original network from the spikes of the rounded one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from snn_optimizer.analyses import UnitGroups
from snn_optimizer.ir import Rewriter, SNNGraph
from snn_optimizer.passes.base import ActivityProvider, PassContext
from snn_optimizer.passes.unit_surgery import Surgeon
from snn_optimizer.passes.weights.compensation import refit
from snn_optimizer.passes.weights.drives import drive_weights, read
from snn_optimizer.passes.weights.rounding import Levels, Scales, compensated
from snn_optimizer.passes.weights.shrinking import Shrinker

__all__ = ["Fitter"]

_RIDGE: Final = 1e-3  # as a share of the signals' mean second moment


@dataclass
class Fitter:
    """Rounds layers of copies of one network, on the same data."""

    graph: SNNGraph
    context: PassContext
    activity: ActivityProvider
    _original: Shrinker = field(init=False)

    def __post_init__(self) -> None:
        self._original = Shrinker(self.graph, self.context, self.activity, _RIDGE)

    def levels(self, copy: SNNGraph, groups: UnitGroups, number: int, bits: int, kind: Scales) -> Levels | None:
        """Round a layer of a copy whose layers before it are done, and set its bias.

        Returns
        -------
        Levels or None
            None where what the layer reads cannot be measured.
        """
        then = self._original.readings.get(number)
        contraction = groups.contractions[number]
        (signals,) = self.activity.read_by(copy, [contraction.node]) if then is not None else (None,)
        if then is None or signals is None:
            return None
        now = read(contraction, signals, self._original.filters[number])
        wanted = drive_weights(self._original.groups.contractions[number])
        matched = refit(now.moments, now.cross(then), wanted, wanted, _RIDGE)
        if not np.isfinite(matched).all():
            return None
        found = compensated(matched, now.moments, bits, kind, _RIDGE)
        if found is not None and found.bias.any():
            rewriter = Rewriter(copy.module)
            Surgeon(copy, groups, rewriter).add_to_bias(contraction, found.bias)
            rewriter.finish()
        return found
