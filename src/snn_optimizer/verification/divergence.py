"""Where two models part: the first population, step and neuron inside that differ on one input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.execution.observe import Observation, Observer

__all__ = ["Divergence", "first_divergence"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first value inside that differs.

    Attributes
    ----------
    population : str
    step, sample : int
    neuron : tuple of int
        Its index in the population.
    what : str
        ``"spikes"`` where the neuron fires otherwise, ``"potential"`` where no spike inside differs.
    spikes_before, spikes_after : float or None
        None for a population that does not spike.
    potential_before, potential_after : float
        At the threshold test.
    threshold_before, threshold_after : float or None
    """

    population: str
    step: int
    sample: int
    neuron: tuple[int, ...]
    what: str
    spikes_before: float | None
    spikes_after: float | None
    potential_before: float
    potential_after: float
    threshold_before: float | None
    threshold_after: float | None

    def __str__(self) -> str:
        neuron = ", ".join(str(index) for index in self.neuron)
        text = f"step {self.step}, layer '{self.population}', neuron {neuron}: "
        potential = _change("potential", self.potential_before, self.potential_after)
        if self.spikes_before is None or self.spikes_after is None:
            return text + potential
        thresholds = _change("threshold", self.threshold_before, self.threshold_after)
        return text + f"{_change('spikes', self.spikes_before, self.spikes_after)} ({potential}, {thresholds})"

    def to_json(self) -> dict[str, object]:
        """Return the values in JSON types; what is not finite as None."""
        named = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name, value in named.items():
            if isinstance(value, float) and not np.isfinite(value):
                named[name] = None
        return {**named, "neuron": list(self.neuron)}


def first_divergence(before: Observer, after: Observer, feeds: Mapping[str, npt.ArrayLike]) -> Divergence | None:
    """Run both models once and compare the populations they share, by name and shape.

    The earliest step counts, then the order of the nodes. A changed spike counts before a potential that
    only moved: after a rewriting that rounds otherwise all potentials may have.

    Raises
    ------
    ExecutionError
        If a model does not run.
    """
    taps = [(tap, other) for tap in before.taps if (other := after.tap(tap.population)) is not None]
    if not taps:
        return None
    left = list(before.observe(feeds, [tap for tap, _ in taps]))
    right = list(after.observe(feeds, [tap for _, tap in taps]))
    pairs = [(old, new) for old, new in zip(left, right, strict=True) if old.potential.shape == new.potential.shape]
    spiking = [(old, new) for old, new in pairs if old.spiking and new.spiking]
    return _first([(old.spikes, new.spikes, old, new) for old, new in spiking], "spikes") or _first(
        [(old.potential, new.potential, old, new) for old, new in pairs], "potential"
    )


def _first(candidates: list[tuple[Array, Array, Observation, Observation]], what: str) -> Divergence | None:
    best: tuple[int, Array, Observation, Observation] | None = None
    for old, new, before, after in candidates:
        differs = (old != new) & ~(np.isnan(old) & np.isnan(new))
        steps = differs.reshape(len(differs), -1).any(axis=1)
        if steps.any() and (best is None or int(steps.argmax()) < best[0]):
            best = int(steps.argmax()), differs, before, after
    if best is None:
        return None
    step, differs, before, after = best
    sample, *neuron = (int(index) for index in np.unravel_index(int(differs[step].argmax()), differs.shape[1:]))
    place = (step, sample, *neuron)
    spikes = before.spiking and after.spiking
    return Divergence(
        population=before.population,
        step=step,
        sample=sample,
        neuron=tuple(neuron),
        what=what,
        spikes_before=float(before.spikes[place]) if spikes else None,
        spikes_after=float(after.spikes[place]) if spikes else None,
        potential_before=float(before.potential[place]),
        potential_after=float(after.potential[place]),
        threshold_before=_threshold(before, place),
        threshold_after=_threshold(after, place),
    )


def _threshold(seen: Observation, place: tuple[int, ...]) -> float | None:
    if seen.threshold is None:
        return None
    return float(np.broadcast_to(seen.threshold, seen.potential.shape)[place])


def _change(name: str, before: float | None, after: float | None) -> str:
    old, new = ("none" if value is None else f"{value:.9g}" for value in (before, after))
    return f"{name} {old}" if before == after else f"{name} {old} became {new}"
