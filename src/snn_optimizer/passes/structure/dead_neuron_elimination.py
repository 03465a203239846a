"""Remove neurons that never fire.

Before: a population with a neuron whose membrane cannot reach its threshold, or
        (with ``measured``) whose measured rate is at or below ``threshold``
After:  its row, bias, parameters, state and outgoing columns are gone everywhere

Sound because a train of zeros adds nothing: the outgoing columns multiply zeros.
What batch norms and the like make of the zero is folded into the consumers' bias.
The proof that a neuron never fires is in ``analyses/neuron_bounds.py``; removing
columns regroups the sums of the consumers, hence ALGEBRAIC, and BITWISE where these sums are exact
(``analyses/exact_sums.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from snn_optimizer.analyses import NO_UNIT, Population, UnitGroups, ValueRanges
from snn_optimizer.analyses.exact_sums import ExactSums
from snn_optimizer.ir import Rewriter, SNNGraph
from snn_optimizer.passes.admission import admitted
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext, Refusal, rates_by_unit
from snn_optimizer.passes.unit_surgery import Mask, Surgeon, first_of_axis

__all__ = ["DeadNeuronElimination", "rate_bound"]


@dataclass(frozen=True, slots=True)
class DeadNeuronElimination(Pass):
    """Remove neurons that never fire: proved, or with ``measured`` at most ``threshold`` spikes per step.

    A unit that is a graph output, or that something outside the network can see,
    is never removed. The last unit of a population stays; ``layer-fusion``
    replaces a population that is silent as a whole.

    Attributes
    ----------
    threshold : float
        Measured spikes per step up to which a neuron counts as silent.
    measured : bool
        Also remove neurons whose known rates say so.
    spare : bool
        Keep those of them for which an input of the declared domain was found that makes them fire.
    """

    name: ClassVar[str] = "dead-neuron-elimination"
    aliases: ClassVar[tuple[str, ...]] = ("eliminate_dead", "eliminate-dead", "dead_neuron_elimination")
    exactness: ClassVar[Exactness] = Exactness.ALGEBRAIC

    threshold: float = 0.001
    measured: bool = False
    spare: bool = False

    @property
    def claim(self) -> Exactness:
        """PROFILED when measured rates decide."""
        return Exactness.PROFILED if self.measured else Exactness.ALGEBRAIC

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Find silent units, check that nothing else sees them, cut."""
        groups = context.analyses.get(UnitGroups)
        ranges = context.analyses.get(ValueRanges)
        outcome = Outcome()
        silent: dict[int, Mask] = {}
        proved_units: dict[int, Mask] = {}
        for population in groups.populations:
            proved = _proved(population, ranges)
            observed = self._observed(population, graph) if self.measured else np.zeros_like(proved)
            proved_units[id(population.node)] = proved
            silent[id(population.node)] = proved | observed
        witnessed = _witnessed(graph, context, groups, silent, proved_units) if self.measured else {}
        if self.spare:
            silent = {key: mask & ~witnessed.get(key, np.zeros_like(mask)) for key, mask in silent.items()}
        candidates = _candidate_classes(groups, silent)
        if not candidates.any():
            return outcome
        if self.measured:
            ranges = ValueRanges.assuming(graph.module, context.analyses, silent)
        rewriter = Rewriter(graph.module)
        surgeon = Surgeon(graph, groups, rewriter)
        selected, refusals = surgeon.foldable(candidates, ranges)
        selected, emptied = first_of_axis(groups, selected)
        for name in emptied:
            context.missed(Refusal("last-unit", "the whole population is silent; layer-fusion replaces it"), name)
        selected = admitted(context, "silent-units", groups, selected)
        _remark(groups, context, candidates, selected, proved_units, witnessed, refusals, graph.rate_samples)
        if not selected.any():
            return outcome
        exact = context.analyses.get(ExactSums).touched_only(groups, selected)
        folded = surgeon.fold(selected, ranges)
        outcome.count("biases-folded", folded)
        outcome.neurons_removed = surgeon.cut(selected)
        outcome.changes = int(selected.sum())
        if _is_observed(groups, selected, proved_units):
            outcome.claim = Exactness.PROFILED
        else:
            outcome.claim = Exactness.BITWISE if exact and not folded else Exactness.ALGEBRAIC
        rewriter.finish()
        return outcome

    def _observed(self, population: Population, graph: SNNGraph) -> Mask:
        units = len(population.labels)
        rates = rates_by_unit(graph.firing_rates, population.name, units) if population.variant.spiking else None
        return np.zeros(units, np.bool_) if rates is None else rates <= self.threshold


def _proved(population: Population, ranges: ValueRanges) -> Mask:
    """Return which units provably never fire, at any of their positions."""
    units = len(population.labels)
    facts = ranges.facts.get(id(population.node))
    if facts is None or not population.variant.spiking:
        return np.zeros(units, np.bool_)
    flat = facts.never.reshape(facts.never.shape[0], -1).all(axis=1)
    return np.array(np.broadcast_to(flat, (units,)))


def _candidate_classes(groups: UnitGroups, silent: dict[int, Mask]) -> Mask:
    """Return the classes all of whose populations' units are silent."""
    touched = np.zeros(groups.classes, np.bool_)
    blocked = np.zeros(groups.classes, np.bool_)
    for population in groups.populations:
        classes = groups.classes_at(population.labels)
        mask = silent[id(population.node)]
        touched[classes[mask & (classes != NO_UNIT)]] = True
        blocked[classes[~mask & (classes != NO_UNIT)]] = True
    return touched & ~blocked


def _is_observed(groups: UnitGroups, selected: Mask, proved: dict[int, Mask]) -> bool:
    """Tell whether any removed unit was only seen, not proved, to be silent."""
    return any(bool((selected[groups.classes_at(p.labels)] & ~proved[id(p.node)]).any()) for p in groups.populations)


def rate_bound(samples: int, confidence: float = 0.95) -> float:
    """Return below which share of samples a neuron fires that fired on none of ``samples``, with this confidence.

    The upper end of Clopper and Pearson's one-sided interval (Biometrika 26, 1934), which has a closed form for no
    successes. A sample counts once, however many steps it has, because its steps are not independent.
    """
    return float(1 - (1 - confidence) ** (1 / samples))


def _honestly(observed: int, refuted: int, samples: int | None) -> str:
    if not observed or not samples:
        return ""
    found = f"; for {refuted} of these an input was found that makes them fire" if refuted else ""
    return f" (each fires on less than {rate_bound(samples):.2%} of samples, 95 % confidence from {samples}{found})"


def _witnessed(
    graph: SNNGraph, context: PassContext, groups: UnitGroups, silent: dict[int, Mask], proved: dict[int, Mask]
) -> dict[int, Mask]:
    """Search for inputs that make the units fire that were only observed to be silent."""
    if context.activity is None:
        return {}
    wanted = {p.name: silent[id(p.node)] & ~proved[id(p.node)] for p in groups.populations}
    wanted = {name: mask for name, mask in wanted.items() if mask.any()}
    found = context.activity.witnesses(graph, wanted, context.analyses.domain) if wanted else {}
    return {id(p.node): found[p.name] for p in groups.populations if p.name in found}


def _remark(
    groups: UnitGroups,
    context: PassContext,
    candidates: Mask,
    selected: Mask,
    proved: dict[int, Mask],
    witnessed: dict[int, Mask],
    refusals: dict[int, Refusal],
    samples: int | None,
) -> None:
    for population in groups.populations:
        classes = groups.classes_at(population.labels)
        gone = np.flatnonzero(selected[classes])
        sure = int(proved[id(population.node)][gone].sum())
        if len(gone):
            observed = len(gone) - sure
            refuted = int(witnessed[id(population.node)][gone].sum()) if id(population.node) in witnessed else 0
            context.applied(
                "silent-units", population.name,
                f"removed {len(gone)} of {len(classes)} units that never fire: "
                f"{sure} proved, {observed} only observed{_honestly(observed, refuted, samples)}",
                units=gone.tolist()[:64], proved=sure, observed=observed, witnessed=refuted,
                rate_bound=rate_bound(samples) if observed and samples else None,
            )  # fmt: skip
        left: dict[Refusal, int] = {}
        for c in classes[candidates[classes] & ~selected[classes]]:
            if int(c) in refusals:
                left[refusals[int(c)]] = left.get(refusals[int(c)], 0) + 1
        for refusal, number in left.items():
            context.missed(refusal, population.name, units=number)
