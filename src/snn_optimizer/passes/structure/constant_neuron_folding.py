"""Turn neurons that fire at every step into a bias.

Before: a neuron whose membrane passes its threshold at every step, whatever the input
After:  its outgoing column is added to its consumers' bias; the neuron is gone

Sound because its train is the constant 1 (``analyses/neuron_bounds.py`` proves it by
induction over the steps), so ``W s + b`` is ``W' s' + (b + W[:, j])``. The sum is
regrouped, hence ALGEBRAIC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from snn_optimizer.analyses import NO_UNIT, UnitGroups, ValueRanges
from snn_optimizer.ir import Rewriter, SNNGraph
from snn_optimizer.passes.admission import admitted
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.passes.unit_surgery import Mask, Surgeon, first_of_axis

__all__ = ["ConstantNeuronFolding"]


@dataclass(frozen=True, slots=True)
class ConstantNeuronFolding(Pass):
    """Fold neurons that provably fire at every step into their consumers' bias."""

    name: ClassVar[str] = "constant-neuron-folding"
    aliases: ClassVar[tuple[str, ...]] = ("constant_neuron_folding",)
    exactness: ClassVar[Exactness] = Exactness.ALGEBRAIC

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Find units that are constant, check that every reader can take a bias, cut."""
        groups = context.analyses.get(UnitGroups)
        ranges = context.analyses.get(ValueRanges)
        outcome = Outcome()
        candidates = _always_firing(groups, ranges)
        if not candidates.any():
            return outcome
        rewriter = Rewriter(graph.module)
        surgeon = Surgeon(graph, groups, rewriter)
        selected, refusals = surgeon.foldable(candidates, ranges)
        selected, emptied = first_of_axis(groups, selected)
        for name in emptied:
            context.missed(Refusal("last-unit", "every unit of the population is constant"), name)
        selected = admitted(context, "always-firing", groups, selected)
        for population in groups.populations:
            classes = groups.classes_at(population.labels)
            gone = np.flatnonzero(selected[classes])
            if len(gone):
                context.applied(
                    "always-firing", population.name,
                    f"folded {len(gone)} of {len(classes)} units that fire at every step into their consumers' bias",
                    units=gone.tolist()[:64],
                )  # fmt: skip
            for refusal in {refusals[int(c)] for c in classes[candidates[classes]] if int(c) in refusals}:
                context.missed(refusal, population.name)
        if not selected.any():
            return outcome
        outcome.count("biases-folded", surgeon.fold(selected, ranges))
        outcome.neurons_removed = surgeon.cut(selected)
        outcome.changes = int(selected.sum())
        rewriter.finish()
        return outcome


def _always_firing(groups: UnitGroups, ranges: ValueRanges) -> Mask:
    """Return the classes whose populations' units are all constant, at least one of them always on."""
    touched = np.zeros(groups.classes, np.bool_)
    blocked = np.zeros(groups.classes, np.bool_)
    for population in groups.populations:
        facts = ranges.facts.get(id(population.node))
        classes = groups.classes_at(population.labels)
        inside = classes != NO_UNIT
        if facts is None:
            blocked[classes[inside]] = True
            continue
        rank = 1 + len(population.spatial)
        shape = (len(classes), *population.spatial)
        always, never = (
            np.broadcast_to(m.reshape(m.shape[-rank:]), shape).reshape(len(classes), -1).all(axis=1)
            for m in (facts.always, facts.never)
        )
        touched[classes[inside & always]] = True
        blocked[classes[inside & ~(always | never)]] = True
    return touched & ~blocked
