"""Telling a rounding difference at a threshold from a wrong result.

An algebraic rewrite may round differently. Where a potential of the original lies
within rounding distance of its threshold, that alone can change a spike, and after
it everything. Only such a difference is excused, and only where nothing speaks
against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import SnnOptimizerError
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.observe import Observation, Observer
from snn_optimizer.execution.source import ModelSource

__all__ = ["ROUNDING", "NearTies"]

Array = npt.NDArray[Any]

ROUNDING = 1e-5
"""Distance to a threshold that rounding explains, relative to the threshold where that exceeds 1."""


class NearTies:
    """Judges differing samples of one candidate.

    A sample is excused if at or before its first differing step some potential of the
    original is within :data:`ROUNDING` of its threshold. Where the candidate has the
    same populations, or units of them that are known, this is not enough: the first spike that changed inside must be
    one of those, and its potential must have moved, but by no more than rounding
    does. An equal potential that fires differently is another comparison, not
    another rounding.

    Parameters
    ----------
    original : Observer or None
        None when the inside of the original cannot be seen; then nothing is excused.
    candidate : ModelProto, bytes or path
    left : mapping from population name to int array, optional
        Which units of the original a population of the candidate still has, where some are gone.
    """

    def __init__(
        self,
        original: Observer | None,
        candidate: ModelSource,
        left: Mapping[str, npt.NDArray[np.int64]] | None = None,
    ) -> None:
        self._original = original
        self._left = dict(left or {})
        self._source = candidate
        self._candidate: Observer | None = None
        self._opened = False

    def excused(self, batch: Dataset, first_steps: Mapping[int | None, int | None]) -> set[int | None]:
        """Return the samples of a run whose differences are near ties.

        Parameters
        ----------
        batch : Dataset
            The whole run: another batch would round differently.
        first_steps : mapping from sample to its first differing step
            Samples are numbered within the run; None stands for all of them.
        """
        if self._original is None:
            return set()
        before = [self._still_there(seen) for seen in self._original.observe(batch.feeds) if seen.spiking]
        distances = [_in_roundings(seen) for seen in before]
        after = self._observed(batch, before)
        excused: set[int | None] = set()
        for sample, step in first_steps.items():
            chosen = slice(None) if sample is None else slice(sample, sample + 1)
            if _is_near_tie(distances, chosen, step) and (
                after is None or _is_explained(before, after, distances, chosen, step)
            ):
                excused.add(sample)
        return excused

    def _still_there(self, seen: Observation) -> Observation:
        """Return what those units did that the candidate still has: ties of others explain nothing."""
        units = self._left.get(seen.population)
        if units is None or seen.potential.ndim < 3 or (len(units) and units.max() >= seen.potential.shape[2]):
            return seen
        return seen.of_units(units)

    def close(self, batch: Dataset, first_steps: Mapping[int | None, int | None]) -> set[int | None]:
        """Return the samples in which a potential of the original came near its threshold before they differed.

        For differences seen by another referee, in whose arithmetic no population can be watched.
        """
        if self._original is None:
            return set()
        distances = [_in_roundings(seen) for seen in self._original.observe(batch.feeds) if seen.spiking]
        chosen = {sample: slice(None) if sample is None else slice(sample, sample + 1) for sample in first_steps}
        return {sample for sample, step in first_steps.items() if _is_near_tie(distances, chosen[sample], step)}

    def _observed(self, batch: Dataset, before: Sequence[Observation]) -> list[Observation] | None:
        """Return the populations of the candidate in the order of the original's; None unless all are there."""
        if not self._opened:
            self._opened = True
            try:
                self._candidate = Observer(self._source)
            except SnnOptimizerError:
                self._candidate = None
        if self._candidate is None:
            return None
        taps = [self._candidate.tap(seen.population) for seen in before]
        known = [tap for tap in taps if tap is not None and tap.variant.spiking]
        if len(known) < len(before):
            return None
        after = list(self._candidate.observe(batch.feeds, known))
        shapes_agree = all(old.spikes.shape == new.spikes.shape for old, new in zip(before, after, strict=True))
        return after if shapes_agree else None


def _in_roundings(seen: Observation) -> Array:
    """Distance to the threshold in units of what rounding explains."""
    assert seen.distance is not None
    assert seen.threshold is not None
    with np.errstate(over="ignore"):  # so far away that it has no number
        return np.asarray(seen.distance / (ROUNDING * np.maximum(1, np.abs(seen.threshold))))


def _is_near_tie(distances: Sequence[Array], samples: slice, step: int | None) -> bool:
    """Tell whether some potential came within rounding distance of its threshold, up to a step."""
    end = None if step is None else step + 1
    return any(bool((each[:end, samples] <= 1).any()) for each in distances)


def _is_explained(
    before: Sequence[Observation],
    after: Sequence[Observation],
    distances: Sequence[Array],
    samples: slice,
    step: int | None,
) -> bool:
    """Look at the first spikes that changed inside: the earliest step, there the first population."""
    end = None if step is None else step + 1
    changed = [(old.spikes != new.spikes)[:end, samples] for old, new in zip(before, after, strict=True)]
    steps = [int(each.reshape(len(each), -1).any(axis=1).argmax()) if each.any() else None for each in changed]
    known = [each for each in steps if each is not None]
    if not known:
        return False  # the difference arose after the last spike
    position = steps.index(min(known))
    first = steps[position]
    mask = changed[position][first]
    old, new = (_at(side[position], samples, first) for side in (before, after))
    if (distances[position][first, samples][mask] > 1).any():
        return False
    potentials = old[0][mask], new[0][mask]
    thresholds = old[1][mask], new[1][mask]
    same = (potentials[0] == potentials[1]) & (thresholds[0] == thresholds[1])
    if same.any():
        return False
    with np.errstate(all="ignore"):
        scale = np.where(thresholds[0] == thresholds[1], 1.0, thresholds[0] / thresholds[1])
        moved = np.abs(potentials[1] * scale - potentials[0])
    allowed = 2 * ROUNDING * np.maximum(1, np.abs(thresholds[0]))
    return bool((~np.isfinite(scale) | (moved <= allowed)).all())


def _at(seen: Observation, samples: slice, step: int | None) -> tuple[Array, Array]:
    """Potential and threshold of one step."""
    assert seen.threshold is not None
    threshold = np.broadcast_to(seen.threshold, seen.potential.shape)
    return (
        seen.potential[step, samples].astype(np.float64),
        threshold[step, samples].astype(np.float64),
    )
