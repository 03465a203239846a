"""What a population receives over time: the currents behind it, in every view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from snn_optimizer.analyses.activity_limits import largest_total, limit_of, linear_map_of
from snn_optimizer.analyses.intervals import Array, Range, unit_roundoff
from snn_optimizer.analyses.spike_trains import Clock
from snn_optimizer.analyses.temporal_views import TemporalViews
from snn_optimizer.ir import Value

if TYPE_CHECKING:
    from snn_optimizer.analyses.bounds import RangePropagation

__all__ = ["Incoming"]


@dataclass(frozen=True, slots=True)
class Incoming:
    """The currents of a population.

    Attributes
    ----------
    p : RangePropagation
    currents : sequence of Value
    rank : int
        Axes of the population.
    size : int
        Its neurons.
    clock : Clock
    steps : int, str or None
        As declared; None where nothing is declared or known.
    inside : bool
        Whether a step of the population is a step of the loop it is in.
    gains : sequence of array
        What each current is multiplied with; the neuron's own gain not among them.
    constant : array
        What is added at every step.
    roundoff : float
        Of one operation of the sum of these, relative to its terms.
    """

    p: RangePropagation
    currents: Sequence[Value]
    rank: int
    size: int
    clock: Clock
    steps: int | str | None
    inside: bool
    gains: Sequence[Array] = ()
    constant: Array = field(default_factory=lambda: np.zeros(()))
    roundoff: float = 0.0

    def combined(self, gains: Sequence[Array], constant: Array, roundoff: float) -> Incoming:
        """Return the sum of the currents times gains, and a constant, as one current."""
        return replace(self, gains=gains, constant=constant, roundoff=roundoff)

    @property
    def speaks(self) -> bool:
        """Whether anything is known about the spikes behind the currents that their ranges do not say."""
        views = self._views(None)
        return any(views.speaks(value) for value in self.currents)

    def current(self, decays: tuple[float, float] | None) -> Range:
        """Return the range of the current, or of its discounted sum, in every segment."""
        views = self._views(decays)
        if not self.gains:
            return views.of(self.currents[0], self.rank)
        whole = views.scaled(Range.constant(self._shaped(self.constant)))
        low, high, size = whole.low, whole.high, np.maximum(np.abs(whole.low), np.abs(whole.high))
        with np.errstate(invalid="ignore"):
            for gain, value in zip(self.gains, self.currents, strict=True):
                bound, always = views.of(value, self.rank), views.always(value, self.rank)
                ends = [np.nan_to_num(self._shaped(gain) * end, nan=0.0, posinf=np.inf, neginf=-np.inf)
                        for end in (bound.low, bound.high, always.low, always.high)]  # fmt: skip
                low, high = low + np.minimum(*ends[:2]), high + np.maximum(*ends[:2])
                size = size + np.maximum(np.abs(ends[2]), np.abs(ends[3]))
            # of one term the rounding of the step is counted already
            margin = self.roundoff * size if len(self.gains) > 1 or self.constant.any() else np.zeros(())
            return Range.of(low - margin, high + margin)

    def total(self, scales: Array) -> float | None:
        """Bound the sum over all neurons of ``scales`` times their positive current, None when it is not limited.

        Only where few inputs of a matrix product can be active this says more than every neuron's own bound.
        """
        if len(self.currents) != 1 or self.rank != 1:
            return None
        one = linear_map_of(self.p, self.currents[0], self.size)
        limit = None if one is None else limit_of(self.p, one.source, one.weights.shape[1])
        if one is None or limit is None:
            return None
        gain = np.broadcast_to(self.gains[0] if self.gains else 1.0, (self.size,))
        if (gain < 0).any():
            return None
        constant = np.broadcast_to(np.maximum(self.constant, 0), (self.size,))
        weighting = np.asarray(np.broadcast_to(scales, (self.size,)) * gain, np.float64)
        bound = largest_total(one, limit, weighting, unit_roundoff(one.weights.dtype))
        return (bound + float(np.sum(scales * constant))) * (1 + 4 * self.roundoff)

    def _views(self, decays: tuple[float, float] | None) -> TemporalViews:
        return TemporalViews(self.p, self.clock, self.steps, decays, inside=self.inside)

    def _shaped(self, values: Array) -> Array:
        array = np.asarray(values, np.float64)
        return array.reshape((1,) * (self.rank - array.ndim) + array.shape)
