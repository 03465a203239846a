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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from snn_optimizer.analyses import UnitGroups
from snn_optimizer.errors import PassOptionError
from snn_optimizer.ir import SNNGraph
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.passes.weights.input_units import close_inputs, open_inputs
from snn_optimizer.passes.weights.shrinking import Shrinker
from snn_optimizer.passes.weights.unit_order import UnitOrder, unit_orders
from snn_optimizer.passes.weights.unit_search import Smaller, UnitSearch, smaller

__all__ = ["CompressUnits"]


@dataclass(frozen=True, slots=True)
class CompressUnits(Pass):
    """Remove whole units by their cost for the membranes they drive, and refit what read them.

    Attributes
    ----------
    fraction : float
        Share of each layer's removable units to remove; 0 means: as many as the budget allows.
    ridge : float
        Pull of the old weights in the refit, as a share of the signals' mean second moment.
    inputs : bool
        Whether elements of the model's inputs count as units: those that the first layers can do without are not
        read any more, where that makes the network clearly smaller. The interface stays. Not with ``fraction``.
    """

    name: ClassVar[str] = "compress-units"
    exactness: ClassVar[Exactness] = Exactness.LOSSY

    fraction: float = 0.0
    ridge: float = 1e-3
    inputs: bool = True

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
        work = graph.copy(share_weights=True)
        opened = (
            {} if self.fraction or not self.inputs else open_inputs(work, context.trial(work).analyses.get(UnitGroups))
        )
        shrinker = Shrinker(work, context.trial(work), context.activity, self.ridge)
        orders, left = unit_orders(shrinker.groups, shrinker.readings, self.ridge)
        for name, reason in left:
            context.missed(Refusal("not-measured", reason), name)
        if not orders:
            return Outcome()
        if self.fraction:
            counts = [round(self.fraction * len(order.classes)) for order in orders]
        else:
            counts = UnitSearch(shrinker, orders, context, opened).counts()
        if not sum(counts):
            return Outcome()
        found = smaller(shrinker, orders, counts)
        close_inputs(found.graph, opened)
        return _take(graph, orders, found, context, opened)


def _take(
    graph: SNNGraph, orders: Sequence[UnitOrder], found: Smaller, context: PassContext, opened: Mapping[str, int]
) -> Outcome:
    outcome = Outcome(neurons_removed=found.neurons)
    for order, count in zip(orders, found.counts, strict=True):
        if count and order.name in opened:
            context.applied(
                "least-missed", order.name,
                f"skips {count} of {len(order.classes)} inputs; "
                f"without the refit's errors {order.costs[count - 1]:.2%} of the drive's energy is lost",
                inputs=count, lost=float(order.costs[count - 1]),
            )  # fmt: skip
            outcome.count("inputs-skipped", count)
        elif count:
            lost = order.costs[count - 1]
            context.applied(
                "least-missed", order.name,
                f"removed {count} of {len(order.classes)} units and refitted their readers; "
                f"without the refit's errors {lost:.2%} of the drive's energy is lost",
                units=count, lost=float(lost),
            )  # fmt: skip
            outcome.count("units-removed", count)
    graph.become(found.graph)
    outcome.changes = sum(found.counts)
    return outcome
