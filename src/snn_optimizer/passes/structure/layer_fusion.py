"""Fuse consecutive linear maps, and replace layers that never say anything.

Before: Linear-BatchNorm, BatchNorm-Linear, Linear-scale, scale-Linear, Linear-Linear with
        no neuron between; a population that never fires, and what reads it
After:  one linear map; the readers of the silent population keep their bias only

Sound because affine maps compose: ``g (W x + b - m) / sqrt(v + e) + h`` is ``W' x + b'`` with
``W' = g W / sqrt(v + e)`` and ``b' = g (b - m) / sqrt(v + e) + h``; a batch norm before a
convolution folds only where no padding mixes its shift with zeros; a silent population
contributes nothing, so its readers see their bias. Products are rounded anew: ALGEBRAIC.
Silence that was only measured is PROFILED.

``classic`` adds the well-known rule "two adjacent layers of one neuron type, the first
firing below one per cent, become W2 @ W1". It is wrong in general, because a silent layer
emits zero and not W1 x, and is LOSSY.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from snn_optimizer.ir import SNNGraph
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext
from snn_optimizer.passes.structure.classic_fusion import fuse_quiet_layers
from snn_optimizer.passes.structure.linear_fusion import fuse_linear_maps
from snn_optimizer.passes.structure.silent_layers import replace_silent_layers

__all__ = ["LayerFusion"]


@dataclass(frozen=True, slots=True)
class LayerFusion(Pass):
    """Fuse consecutive linear maps and batch norms; replace silent layers by the constant zero.

    Attributes
    ----------
    measured : bool
        A layer whose known rates are all zero counts as silent.
    classic : bool
        Also multiply quiet layers away, which changes results.
    rate_threshold : float
        Mean spikes per step below which ``classic`` calls a layer quiet.
    """

    name: ClassVar[str] = "layer-fusion"
    aliases: ClassVar[tuple[str, ...]] = ("fuse", "layer_fusion", "fusion")
    exactness: ClassVar[Exactness] = Exactness.ALGEBRAIC

    measured: bool = False
    classic: bool = False
    rate_threshold: float = 0.01

    @property
    def claim(self) -> Exactness:
        """PROFILED with measured rates, LOSSY with the classic rule."""
        if self.classic:
            return Exactness.LOSSY
        return Exactness.PROFILED if self.measured else Exactness.ALGEBRAIC

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Apply the rules until none applies."""
        outcome = Outcome(claim=Exactness.ALGEBRAIC)
        while fuse_linear_maps(graph, context, outcome):
            context.analyses.invalidate()
        while replace_silent_layers(graph, context, outcome, measured=False):
            context.analyses.invalidate()
        while self.measured and replace_silent_layers(graph, context, outcome, measured=True):
            outcome.claim = Exactness.PROFILED
            context.analyses.invalidate()
        while self.classic and fuse_quiet_layers(graph, context, outcome, self.rate_threshold):
            outcome.claim = Exactness.LOSSY
            context.analyses.invalidate()
        return outcome
