"""Merge neurons that always fire together.

Before: units i and j with equal incoming weights, bias, parameters and initial state,
        up to a positive scale
After:  j is gone and its outgoing columns are added to those of i

Sound because both receive the same current up to the scale, so their membranes stay in
that ratio and cross their thresholds in the same steps (induction over time); then
``W[:, i] s_i + W[:, j] s_j = (W[:, i] + W[:, j]) s_i``. The sum is regrouped, hence
ALGEBRAIC. With ``correlation_threshold`` below one, units that are only similar are
merged and the outgoing weights refitted by least squares on measured spikes: LOSSY.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses import NO_UNIT, Contraction, Duplicates, Population, UnitGroups
from snn_optimizer.analyses.exact_sums import ExactSums
from snn_optimizer.analyses.rows import position_ranks, positions_of
from snn_optimizer.analyses.similarity import near_pairs, scaled_pairs, unit_vectors
from snn_optimizer.ir import Rewriter, SNNGraph
from snn_optimizer.passes.admission import admitted
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.passes.unit_surgery import Mask, Surgeon

__all__ = ["RedundancyElimination"]

Keeper = npt.NDArray[np.int64]
RIDGE = 1e-6


@dataclass(frozen=True, slots=True)
class RedundancyElimination(Pass):
    """Merge duplicate neurons: exact ones, ones that differ by a positive scale, and near ones on request.

    Attributes
    ----------
    correlation_threshold : float
        Similarity from which neurons are merged; 1 merges duplicates only.
    """

    name: ClassVar[str] = "redundancy-elimination"
    aliases: ClassVar[tuple[str, ...]] = ("merge", "redundancy_elimination", "eliminate_redundant")
    exactness: ClassVar[Exactness] = Exactness.ALGEBRAIC

    correlation_threshold: float = 1.0

    @property
    def claim(self) -> Exactness:
        """LOSSY when similar units are merged too."""
        return Exactness.ALGEBRAIC if self.correlation_threshold >= 1 else Exactness.LOSSY

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Merge exact and scaled duplicates, then near ones."""
        groups = context.analyses.get(UnitGroups)
        outcome = Outcome()
        if not groups.classes:
            return outcome
        keeper = context.analyses.get(Duplicates).keeper.copy()
        exact = keeper != np.arange(groups.classes)
        scaled = np.zeros_like(exact)
        near = np.zeros_like(exact)
        for population in groups.populations:
            units = unit_vectors(groups, population)
            if units is None:
                continue
            for first, second in scaled_pairs(units):
                if _join(groups, keeper, int(units.classes[first]), int(units.classes[second])):
                    scaled[units.classes[[first, second]]] = True
            if self.correlation_threshold < 1:
                for first, second in near_pairs(units, self.correlation_threshold):
                    if _join(groups, keeper, int(units.classes[first]), int(units.classes[second])):
                        near[units.classes[[first, second]]] = True
        keeper = _resolve(keeper)
        merged = admitted(context, "duplicate-units", groups, keeper != np.arange(groups.classes))
        keeper = np.where(merged, keeper, np.arange(groups.classes))
        if not merged.any():
            return outcome
        sums_exact = context.analyses.get(ExactSums).touched_only(groups, merged)
        rewriter = Rewriter(graph.module)
        surgeon = Surgeon(graph, groups, rewriter)
        for contraction in groups.contractions:
            self._redirect(graph, context, surgeon, contraction, keeper, near)
        for population in groups.populations:
            _remark(context, groups, population, merged, exact, scaled, near)
        outcome.count("exact", int((merged & exact).sum()))
        outcome.count("scaled", int((merged & scaled & ~exact & ~near).sum()))
        outcome.count("near", int((merged & near).sum()))
        outcome.neurons_removed = surgeon.cut(merged)
        outcome.changes = int(merged.sum())
        if (merged & near).any():
            outcome.claim = Exactness.LOSSY
        else:
            alike = bool((merged <= exact).all())
            outcome.claim = Exactness.BITWISE if sums_exact and alike else Exactness.ALGEBRAIC
        rewriter.finish()
        return outcome

    def _redirect(
        self,
        graph: SNNGraph,
        context: PassContext,
        surgeon: Surgeon,
        contraction: Contraction,
        keeper: Keeper,
        near: Mask,
    ) -> None:
        """Add the columns of merged units to those of their keepers, refitted where they are only similar."""
        groups = surgeon.groups
        classes = groups.classes_at(contraction.labels_in)
        known = classes != NO_UNIT
        moved = np.flatnonzero(known & (keeper[classes] != classes))
        if not len(moved):
            return
        ranks = position_ranks(classes)
        target = positions_of(classes, keeper[classes[moved]], ranks[moved])
        columns = surgeon.columns(contraction)
        sums = columns.astype(np.float64)
        np.add.at(sums, target, columns[moved].astype(np.float64))
        if near[classes[moved]].any():
            sums, shift = _refit(graph, context, groups, contraction, columns, moved, sums)
            if shift is not None and np.any(shift):
                surgeon.add_to_bias(contraction, shift)
        surgeon.set_columns(contraction, sums.astype(columns.dtype))


def _join(groups: UnitGroups, keeper: Keeper, first: int, second: int) -> bool:
    """Record a pair; a class that must stay is the keeper, two of them stay both."""
    first, second = _root(keeper, first), _root(keeper, second)
    if first == second:
        return False
    if groups.fixed[second] >= 0:
        first, second = second, first
    if groups.fixed[second] >= 0:
        return False
    keeper[second] = first
    return True


def _root(keeper: Keeper, number: int) -> int:
    """Return the class that stands for a class in the end."""
    while keeper[number] != number:
        number = int(keeper[number])
    return number


def _resolve(keeper: Keeper) -> Keeper:
    """Follow chains of keepers to their end."""
    while not np.array_equal(keeper, following := keeper[keeper]):
        keeper = following
    return keeper


def _refit(
    graph: SNNGraph,
    context: PassContext,
    groups: UnitGroups,
    contraction: Contraction,
    columns: npt.NDArray[np.generic],
    moved: npt.NDArray[np.int64],
    sums: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
    """Fit the kept columns to the old current on measured spikes (ridge toward the plain sums)."""
    population = _source_population(groups, contraction)
    gram = None if population is None or context.activity is None else context.activity.gram(graph, population.name)
    number = len(contraction.labels_in)
    if gram is None or columns.ndim != 2 or gram.shape != (number + 1, number + 1):
        context.missed(
            Refusal("no-activity", "no measured spikes to refit the outgoing weights on; they are summed"),
            contraction.node.name,
        )
        return sums, None
    kept = np.setdiff1d(np.arange(number + 1), moved)
    inner = gram[np.ix_(kept, kept)]
    scale = RIDGE * max(float(np.trace(inner)) / len(kept), 1e-12)
    old = np.concatenate([columns.astype(np.float64), np.zeros((1, columns.shape[1]))])
    start = np.concatenate([sums, np.zeros((1, columns.shape[1]))])[kept]
    right = gram[kept] @ old - inner @ start
    correction = np.linalg.solve(inner + scale * np.eye(len(kept)), right)
    fitted = start + correction
    result = sums.copy()
    result[kept[:-1]] = fitted[:-1]
    return result, fitted[-1]


def _source_population(groups: UnitGroups, contraction: Contraction) -> Population | None:
    """Return the dense population whose spikes a contraction reads one to one."""
    for population in groups.populations:
        if not population.spatial and np.array_equal(population.labels, contraction.labels_in):
            return population
    return None


def _remark(
    context: PassContext,
    groups: UnitGroups,
    population: Population,
    merged: Mask,
    exact: Mask,
    scaled: Mask,
    near: Mask,
) -> None:
    classes = groups.classes_at(population.labels)
    inside: Sequence[int] = classes[classes != NO_UNIT].tolist()
    gone = [c for c in inside if merged[c]]
    if not gone:
        return
    numbers = {
        "exact": sum(bool(exact[c]) for c in gone),
        "near": sum(bool(near[c]) for c in gone),
    }
    numbers["scaled"] = len(gone) - numbers["exact"] - numbers["near"] if scaled[gone].any() else 0
    context.applied(
        "duplicate-units", population.name,
        f"merged {len(gone)} of {len(inside)} units: {numbers['exact']} exact, {numbers['scaled']} scaled, "
        f"{numbers['near']} similar",
        **numbers,
    )  # fmt: skip
