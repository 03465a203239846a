"""Remove the units that the network can best do without, and let the others take over what they did.

Before: populations with more units than the task needs
After:  fewer units; the weights and biases that read them are refitted, so that the membranes of
        the next layer move as before on the calibration data

LOSSY: units go as long as the results on samples that the refit never saw stay within the caller's budget.

The order within a layer is that of the optimal brain surgeon on the membranes the layer drives
(``compensation``), over all readers of a unit; layers are compared by the share of the drive's energy that is
lost. After the cut every reader is refitted in the order of computation, regressing the drive of the
*original* network on the signals of the smaller one, so that errors do not pile up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from snn_optimizer.errors import PassOptionError
from snn_optimizer.ir import SNNGraph
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.passes.unit_surgery import Mask, first_of_axis
from snn_optimizer.passes.weights.shrinking import Shrinker
from snn_optimizer.passes.weights.unit_order import UnitOrder, unit_orders

__all__ = ["CompressUnits"]

_PUSHES: Final = 3  # rounds in which each layer alone is tried for more


@dataclass(frozen=True, slots=True)
class CompressUnits(Pass):
    """Remove whole units by their cost for the membranes they drive, and refit what read them.

    Attributes
    ----------
    fraction : float
        Share of each layer's removable units to remove; 0 means: as many as the budget allows.
    ridge : float
        Pull of the old weights in the refit, as a share of the signals' mean second moment.
    """

    name: ClassVar[str] = "compress-units"
    exactness: ClassVar[Exactness] = Exactness.LOSSY

    fraction: float = 0.0
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 <= self.fraction < 1:
            raise PassOptionError(f"compress-units: fraction is {self.fraction:g}; it must be at least 0 and below 1")
        if self.ridge <= 0:
            raise PassOptionError(f"compress-units: ridge is {self.ridge:g}; it must be above 0")

    @property
    def fits(self) -> bool:
        """Readers are refitted."""
        return True

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Order the units, and remove the cheapest as far as allowed."""
        if context.activity is None:
            context.missed(
                Refusal(
                    "no-data", "its refit needs samples beside those the budget is measured on; give --calib DATA.npz"
                ),
                "model",
            )
            return Outcome()
        if not self.fraction and context.accept is None:
            context.missed(Refusal("no-budget", "no budget to stay within; give --max-accuracy-drop"), "model")
            return Outcome()
        shrinker = Shrinker(graph, context, context.activity, self.ridge)
        orders, left = unit_orders(shrinker.groups, shrinker.readings, self.ridge)
        for name, reason in left:
            context.missed(Refusal("not-measured", reason), name)
        if not orders:
            return Outcome()
        if self.fraction:
            counts = [round(self.fraction * len(order.classes)) for order in orders]
            found: _Trial | None = _Trial(counts, *shrinker.without(_selected(shrinker, orders, counts)))
        else:
            found = _search(shrinker, orders, context)
        if found is None or not sum(found.counts):
            return Outcome()
        return _take(graph, orders, found, context)


@dataclass(frozen=True, slots=True)
class _Trial:
    """A smaller network: how many units of each layer are gone, and how many neurons."""

    counts: Sequence[int]
    graph: SNNGraph
    neurons: int


def _selected(shrinker: Shrinker, orders: Sequence[UnitOrder], counts: Sequence[int]) -> Mask:
    selected = np.zeros(shrinker.groups.classes, np.bool_)
    for order, count in zip(orders, counts, strict=True):
        selected[order.classes[:count]] = True
    selected, _ = first_of_axis(shrinker.groups, selected)
    return selected


def _search(shrinker: Shrinker, orders: Sequence[UnitOrder], context: PassContext) -> _Trial | None:
    """Return the smallest network found within the budget.

    First all layers together, up to one common cost; then each layer alone, as far as it goes further.
    """
    assert context.accept is not None  # the caller looked
    tried: dict[tuple[int, ...], _Trial | None] = {}

    def attempt(counts: Sequence[int]) -> _Trial | None:
        key = tuple(counts)
        if key not in tried:
            trial = _Trial(key, *shrinker.without(_selected(shrinker, orders, key)))
            found = context.accept(trial.graph) if context.accept is not None else False
            parameters = trial.graph.total_params
            context.note(
                "frontier", "model", f"{parameters:,} parameters, {sum(key)} units gone: {found}", units=sum(key)
            )
            tried[key] = trial if found else None
        return tried[key]

    prices = np.sort(np.concatenate([order.costs for order in orders]))

    def up_to(number: int) -> list[int]:
        limit = prices[number - 1] if number else -1.0
        return [int(np.searchsorted(order.costs, limit, side="right")) for order in orders]

    best, low, high = None, 0, len(prices)
    while low < high:
        middle = (low + high + 1) // 2
        trial = attempt(up_to(middle))
        if trial is not None:
            best, low = trial, middle
        else:
            high = middle - 1
    counts = list(up_to(low))
    for _ in range(_PUSHES):
        moved = False
        for layer, order in enumerate(orders):
            step = (len(order.classes) - counts[layer]) // 2
            while step:
                trial = attempt([*counts[:layer], counts[layer] + step, *counts[layer + 1 :]])
                if trial is not None:
                    counts[layer] += step
                    best, moved = trial, True
                step //= 2
        if not moved:
            break
    return best


def _take(graph: SNNGraph, orders: Sequence[UnitOrder], found: _Trial, context: PassContext) -> Outcome:
    for order, count in zip(orders, found.counts, strict=True):
        if count:
            lost = order.costs[count - 1]
            context.applied(
                "least-missed", order.name,
                f"removed {count} of {len(order.classes)} units and refitted their readers; "
                f"without the refit's errors {lost:.2%} of the drive's energy is lost",
                units=count, lost=float(lost),
            )  # fmt: skip
    graph.become(found.graph)
    outcome = Outcome(changes=sum(found.counts), neurons_removed=found.neurons)
    outcome.count("units-removed", sum(found.counts))
    return outcome
