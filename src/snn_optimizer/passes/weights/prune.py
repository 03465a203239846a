"""Remove weights or whole units that contribute least.

Before: dense weights
After:  the smallest are zero (by magnitude, or by contribution: magnitude times the rate of
        the presynaptic neuron), or whole units are gone and their mean is in the bias

LOSSY: how much is removed is the caller's choice (``sparsity``, ``threshold``, ``pattern``)
or, with ``budget``, the largest amount for which the results stay within the caller's budget.

With ``method=membrane`` a weight is measured by what the membranes it drives lose when the others take over
(optimal brain surgeon on calibration data), and what is left is refitted so that they do; layers get the sparsity
that this measure, a share of the energy of each layer's drive, gives them.

Units are ranked by ``r (1 - r) sum w^2``: with its mean rate ``r`` moved into the consumers'
bias, that is the variance their current loses (a Bernoulli train has variance r (1 - r)).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses import NO_UNIT, Contraction, UnitGroups
from snn_optimizer.analyses.rows import contraction_matrix
from snn_optimizer.errors import PassOptionError
from snn_optimizer.ir import Rewriter, SNNGraph, Use, Value, shape_of_constant
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext, Refusal, rates_by_unit
from snn_optimizer.passes.unit_surgery import Mask, Surgeon, first_of_axis
from snn_optimizer.passes.weights.compensation import saliences, with_ridge
from snn_optimizer.passes.weights.drives import drive_weights
from snn_optimizer.passes.weights.shrinking import Shrinker
from snn_optimizer.remarks import Remark

__all__ = ["Prune"]

BISECTIONS = 7
RIDGE = 1e-3  # pull of the old weights in the refit, as a share of the signals' mean second moment
Scores = npt.NDArray[np.float64]
Trial = tuple[SNNGraph, Outcome, list[Remark]]
Attempt = Callable[[float], Trial]


@dataclass(frozen=True, slots=True)
class Prune(Pass):
    """Zero the weights, or remove the units, that contribute least to the network's currents.

    Attributes
    ----------
    sparsity : float
        Fraction of the weights (or units) to remove; 0 means: decide by ``threshold``.
    threshold : float
        Weights below this size (times the rate, with ``method=contribution``) are zeroed.
    method : str
        Measure of a weight: its size; its size times the rate of its presynaptic neuron; or what the membranes lose
        when the other weights take over, which they then do (needs samples).
    scope : str
        Rank over the whole network, or within each layer.
    pattern : str
        ``"N:M"`` keeps the N largest of every M consecutive inputs.
    units : bool
        Remove whole units instead of single weights; needs measured rates.
    budget : bool
        Search for the largest amount within the caller's budget.
    """

    name: ClassVar[str] = "prune"
    aliases: ClassVar[tuple[str, ...]] = ("weight-pruning", "weight_pruning")
    exactness: ClassVar[Exactness] = Exactness.LOSSY

    sparsity: float = 0.0
    threshold: float = 0.01
    method: Literal["magnitude", "contribution", "membrane"] = "magnitude"
    scope: Literal["global", "local"] = "global"
    pattern: str = ""
    units: bool = False
    budget: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise PassOptionError(f"prune: sparsity is {self.sparsity:g}; it must be at least 0 and below 1")
        if self.threshold < 0:
            raise PassOptionError(f"prune: threshold is {self.threshold:g}; it must not be negative")
        if self.pattern and not re.fullmatch(r"[1-9]\d*:[1-9]\d*", self.pattern):
            raise PassOptionError(f"prune: pattern is '{self.pattern}'; write N:M, for example 2:4")
        if self.pattern and (self.units or int(self.pattern.split(":")[0]) > int(self.pattern.split(":")[1])):
            raise PassOptionError(f"prune: pattern {self.pattern} needs N <= M and no 'units'")
        if self.method == "membrane" and (self.units or not (self.sparsity or self.pattern or self.budget)):
            raise PassOptionError(
                "prune: method=membrane needs sparsity, pattern or budget; for units use compress-units"
            )

    @property
    def fits(self) -> bool:
        """The membrane method refits what is left."""
        return self.method == "membrane"

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Remove the asked amount, or search for the largest one within the budget."""
        if self.method == "membrane":
            if context.activity is None:
                context.missed(Refusal("no-data", "its refit needs samples; give --calib DATA.npz"), "model")
                return Outcome()
            shrinker = Shrinker(graph, context, context.activity, RIDGE)
            attempt: Attempt = partial(self._refitted, shrinker, _saliences(shrinker), context)
        else:
            attempt = partial(self._applied, graph, context)
        if not self.budget or self.pattern:
            return self._take(graph, context, attempt(self.sparsity))
        if context.accept is None:
            context.missed(
                Refusal("no-budget", "no budget to stay within; give --max-accuracy-drop, or sparsity="),
                "model",
            )
            return Outcome()
        low, high = 0.0, 1.0
        best: Trial | None = None
        for _ in range(BISECTIONS):
            amount = (low + high) / 2
            trial = attempt(amount)
            found = context.accept(trial[0])
            context.note("frontier", "model", f"{amount:.1%} removed: {found}", amount=amount, **found.numbers())
            if found:
                low, best = amount, trial
            else:
                high = amount
        if best is None or not best[1].changes:
            context.missed(Refusal("over-budget", f"even {high:.1%} exceeds the budget"), "model")
            return Outcome()
        outcome = self._take(graph, context, best)
        context.applied("within-budget", "model", f"removed {low:.1%}; {high:.1%} exceeds the budget", amount=low)
        return outcome

    @staticmethod
    def _take(graph: SNNGraph, context: PassContext, trial: Trial) -> Outcome:
        candidate, outcome, remarks = trial
        if outcome.changes:
            graph.become(candidate)
        context.remarks.extend(remarks)
        return outcome

    def _applied(self, graph: SNNGraph, context: PassContext, amount: float) -> Trial:
        """Return a copy with the given amount removed."""
        candidate = graph.copy(share_weights=True)
        trial = context.trial(candidate)
        asked = replace(self, sparsity=amount)
        outcome = (
            _prune_units(candidate, trial, amount, self.scope) if self.units else asked._prune_weights(candidate, trial)  # noqa: SLF001 - the same class
        )
        return candidate, outcome, trial.remarks

    def _refitted(self, shrinker: Shrinker, scores: list[Scores], context: PassContext, amount: float) -> Trial:
        """Return a copy with the given amount removed and the rest refitted."""
        trial = replace(context, remarks=[])
        numbers = sorted(shrinker.readings)
        contractions = [shrinker.groups.contractions[number] for number in numbers]
        masks = replace(self, sparsity=amount)._masks(scores)  # noqa: SLF001 - the same class
        outcome = Outcome()
        for contraction, mask in zip(contractions, masks, strict=True):
            number = int((mask & (contraction_matrix(contraction) != 0)).sum())
            outcome.changes += number
            outcome.count("weights-zeroed", number)
            if number:
                message = f"set {number} of {mask.size} weights to zero and refitted the others (membrane)"
                trial.applied("least-missed", contraction.node.name, message)
        flat = {number: mask.reshape(len(mask), -1) for number, mask in zip(numbers, masks, strict=True)}
        return shrinker.masked(flat) if outcome.changes else shrinker.graph, outcome, trial.remarks

    # -- single weights --------------------------------------------------------------------

    def _prune_weights(self, graph: SNNGraph, context: PassContext) -> Outcome:
        outcome = Outcome()
        groups = context.analyses.get(UnitGroups)
        rewriter = Rewriter(graph.module)
        tensors = _by_tensor(groups)
        scores = [self._scores(graph, groups, uses[0]) for uses in tensors]
        cut = self._masks(scores)
        for uses, mask in zip(tensors, cut, strict=True):
            matrix = contraction_matrix(uses[0])
            doomed = mask & (matrix != 0)
            number = int(doomed.sum())
            if not number:
                continue
            pruned = np.where(doomed, 0, matrix).astype(matrix.dtype)
            rewriter.edit_constant([Use(c.node, c.weight_slot) for c in uses], _stored(uses[0], pruned))
            outcome.changes += number
            outcome.count("weights-zeroed", number)
            context.applied(
                "small-weights",
                uses[0].node.name,
                f"set {number} of {matrix.size} weights to zero ({self.method})",
            )
        if rewriter.changes:
            rewriter.finish()
        return outcome

    def _scores(self, graph: SNNGraph, groups: UnitGroups, contraction: Contraction) -> Scores:
        scores = np.abs(contraction_matrix(contraction).astype(np.float64))
        if self.method == "contribution":
            scores = scores * column_rates(graph, groups, contraction)[None, :, None]
        return np.where(np.isnan(scores), np.inf, scores)

    def _masks(self, scores: list[Scores]) -> list[Mask]:
        if self.pattern:
            keep, of = (int(n) for n in self.pattern.split(":"))
            return [_smallest_of_each(s, keep, of) for s in scores]
        if not self.sparsity:
            return [s < self.threshold for s in scores]
        if self.scope == "local":
            return [_smallest(s.reshape(-1), self.sparsity).reshape(s.shape) for s in scores]
        flat = (
            _smallest(np.concatenate([s.reshape(-1) for s in scores]), self.sparsity)
            if scores
            else np.zeros(0, np.bool_)
        )
        parts = np.split(flat, np.cumsum([s.size for s in scores])[:-1]) if scores else []
        return [part.reshape(s.shape) for part, s in zip(parts, scores, strict=True)]


def _saliences(shrinker: Shrinker) -> list[Scores]:
    """Return what the weights of each contraction that can be refitted cost, (post, pre, kernel)."""
    scores = []
    for number in sorted(shrinker.readings):
        contraction = shrinker.groups.contractions[number]
        found = saliences(with_ridge(shrinker.readings[number].moments, RIDGE), drive_weights(contraction))
        scores.append(found.reshape(contraction_matrix(contraction).shape))
    return scores


def _by_tensor(groups: UnitGroups) -> list[list[Contraction]]:
    """Group contractions that read one tensor, so that sharing survives."""
    found: dict[int, list[Contraction]] = {}
    for contraction in groups.contractions:
        value: Value = contraction.node.inputs[contraction.weight_slot]
        found.setdefault(id(value), []).append(contraction)
    return list(found.values())


def _stored(contraction: Contraction, matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (post, pre, kernel) weights in the layout of the file."""
    shape = shape_of_constant(contraction.node.inputs[contraction.weight_slot])
    assert shape is not None
    order = [contraction.axis_out, contraction.axis_in]
    order += [i for i in range(len(shape)) if i not in order]
    full = matrix.reshape([shape[i] for i in order])
    return np.ascontiguousarray(np.transpose(full, np.argsort(order)))


def _smallest(scores: Scores, fraction: float) -> Mask:
    """Mark the given fraction of the smallest scores, earlier positions first among equals."""
    number = round(fraction * scores.size)
    mask = np.zeros(scores.size, np.bool_)
    mask[np.argsort(scores, kind="stable")[:number]] = True
    return mask


def _smallest_of_each(scores: Scores, keep: int, of: int) -> Mask:
    """Mark all but the ``keep`` largest of every ``of`` consecutive presynaptic weights."""
    mask = np.zeros(scores.shape, np.bool_)
    whole = scores.shape[1] // of * of
    view = scores[:, :whole].reshape(scores.shape[0], -1, of, scores.shape[2])
    order = np.argsort(-view, axis=2, kind="stable")
    ranks = np.argsort(order, axis=2, kind="stable")
    mask[:, :whole] = (ranks >= keep).reshape(scores.shape[0], whole, scores.shape[2])
    return mask


def column_rates(graph: SNNGraph, groups: UnitGroups, contraction: Contraction) -> Scores:
    """Return the expected spikes per step of every presynaptic position; one where unknown."""
    rates = np.ones(len(contraction.labels_in))
    classes = groups.classes_at(contraction.labels_in)
    for population in groups.populations:
        known = graph.firing_rates.get(population.name)
        units = len(population.labels)
        if known is None or known.size == 0 or known.size % units:
            continue
        of_class = np.full(groups.classes + 1, np.nan)
        of_class[groups.classes_at(population.labels)] = known.reshape(units, -1).mean(axis=1)
        found = np.where(classes == NO_UNIT, np.nan, of_class[classes])
        rates = np.where(np.isnan(found), rates, found)
    return rates


# -- whole units -----------------------------------------------------------------------------


def _prune_units(graph: SNNGraph, context: PassContext, sparsity: float, scope: str) -> Outcome:
    outcome = Outcome()
    groups = context.analyses.get(UnitGroups)
    costs, means = _unit_costs(graph, groups, context)
    movable = (groups.fixed < 0) & np.isfinite(costs)
    selected = np.zeros(groups.classes, np.bool_)
    if scope == "global":
        order = np.flatnonzero(movable)[np.argsort(costs[movable], kind="stable")]
        selected[order[: round(sparsity * len(order))]] = True
    else:
        for population in groups.populations:
            classes = np.unique(groups.classes_at(population.labels))
            classes = classes[(classes != NO_UNIT) & movable[classes]]
            order = classes[np.argsort(costs[classes], kind="stable")]
            selected[order[: round(sparsity * len(order))]] = True
    selected, _ = first_of_axis(groups, selected)
    if not selected.any():
        return outcome
    rewriter = Rewriter(graph.module)
    surgeon = Surgeon(graph, groups, rewriter)
    for contraction in groups.contractions:
        classes = groups.classes_at(contraction.labels_in)
        gone = groups.mask_at(contraction.labels_in, selected)
        values = np.where(gone, means[classes], 0)
        if values.any():
            weights = surgeon.columns(contraction).astype(np.float64)
            delta = np.tensordot(values, weights, axes=(0, 0))
            surgeon.add_to_bias(contraction, delta.sum(axis=tuple(range(1, delta.ndim))) if delta.ndim > 1 else delta)
    for population in groups.populations:
        gone_units = int(groups.mask_at(population.labels, selected).sum())
        if gone_units:
            context.applied("least-units", population.name, f"removed {gone_units} of {len(population.labels)} units")
    outcome.neurons_removed = surgeon.cut(selected)
    outcome.changes = int(selected.sum())
    rewriter.finish()
    return outcome


def _unit_costs(graph: SNNGraph, groups: UnitGroups, context: PassContext) -> tuple[Scores, Scores]:
    """Return per class the variance its readers would lose, and its mean rate; infinite cost where nothing is known."""
    rates = np.full(groups.classes, np.nan)
    for population in groups.populations:
        units = len(population.labels)
        highest = rates_by_unit(graph.firing_rates, population.name, units) if population.variant.spiking else None
        classes = groups.classes_at(population.labels)
        if highest is None:
            if (groups.fixed[classes] < 0).any():
                context.missed(Refusal("no-rates", "its firing rates are not known"), population.name)
            continue
        known = graph.firing_rates[population.name].reshape(units, -1).mean(axis=1)
        rates[classes] = np.fmax(rates[classes], 0) + known  # residual sums add up
    costs = np.zeros(groups.classes)
    for contraction in groups.contractions:
        classes = groups.classes_at(contraction.labels_in)
        weights = contraction_matrix(contraction).astype(np.float64)
        power = (weights**2).sum(axis=(0, 2))
        inside = classes != NO_UNIT
        np.add.at(costs, classes[inside], power[inside])
    variance = np.clip(rates * (1 - np.clip(rates, 0, 1)), 1e-9, None)
    return np.where(np.isnan(rates), np.inf, costs * variance), np.nan_to_num(rates)
