"""How many units of each layer to remove, so that the result stays within the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from snn_optimizer.analyses import UnitGroups
from snn_optimizer.ir import SNNGraph
from snn_optimizer.passes.base import PassContext, Spending
from snn_optimizer.passes.unit_surgery import first_of_axis
from snn_optimizer.passes.weights.frontier import furthest
from snn_optimizer.passes.weights.input_units import pays
from snn_optimizer.passes.weights.shrinking import Shrinker
from snn_optimizer.passes.weights.unit_order import UnitOrder

__all__ = ["Smaller", "UnitSearch", "smaller"]

_ROUNDS: Final = 2  # in which each layer alone is tried for more
_AROUND_LAYER: Final = 4
_SPENT: Final = 0.9  # share of the budget: what is the smallest of many tries on the same samples was lucky on them
_CLEARLY: Final = 0.85
_LEAST: Final = 0.5  # share of the budget that a layer alone may spend in any case


@dataclass(frozen=True, slots=True)
class Smaller:
    """A smaller network: how many units of each layer are gone, and how many neurons."""

    counts: Sequence[int]
    graph: SNNGraph
    neurons: int


def smaller(shrinker: Shrinker, orders: Sequence[UnitOrder], counts: Sequence[int]) -> Smaller:
    """Remove the first so many units of each layer, and refit."""
    selected = np.zeros(shrinker.groups.classes, np.bool_)
    for order, count in zip(orders, counts, strict=True):
        selected[order.classes[:count]] = True
    selected, _ = first_of_axis(shrinker.groups, selected)
    return Smaller(counts, *shrinker.without(selected))


@dataclass
class UnitSearch:
    """Looks for the smallest network within the budget.

    First all layers together, up to one common cost; then each layer alone, as far as that spends no more: with so
    many tries on the same samples, some would be within the budget by luck. At last inputs are read again where
    not reading them does not pay.

    Parameters
    ----------
    shrinker : Shrinker
    orders : sequence of UnitOrder
    context : PassContext
        With a budget.
    opened : mapping from name to int
        Gathers of inputs, and how many elements they picked.
    """

    shrinker: Shrinker
    orders: Sequence[UnitOrder]
    context: PassContext
    opened: Mapping[str, int]
    _spent: dict[tuple[int, ...], Spending] = field(default_factory=dict)
    _parameters: dict[tuple[int, ...], int] = field(default_factory=dict)

    def counts(self) -> list[int]:
        """Return how many units of each layer go.

        Not reading inputs is worth it only where that makes the network clearly smaller: what new samples would tell
        by inputs that were quiet so far, nothing measures.
        """
        layers = [i for i, order in enumerate(self.orders) if order.name not in self.opened]
        found = self._found(layers) if layers else [0] * len(self.orders)
        if len(layers) == len(self.orders):
            return found
        skipping = self._found(range(len(self.orders)))
        whole = self._parameters.get(tuple(found), self.shrinker.graph.total_params)  # nothing gone is not measured
        less = self._parameters.get(tuple(skipping), whole)
        return skipping if less <= _CLEARLY * whole else found

    def _found(self, layers: Sequence[int]) -> list[int]:
        """Return the counts of a search over some of the layers."""
        prices = np.sort(np.concatenate([self.orders[layer].costs for layer in layers]))

        def up_to(number: int) -> list[int]:
            limit = prices[number - 1] if number else -1.0
            return [
                int(np.searchsorted(order.costs, limit, side="right")) if i in layers else 0
                for i, order in enumerate(self.orders)
            ]

        counts = up_to(furthest(lambda number: self._measured(up_to(number)), len(prices), limit=_SPENT))
        for _ in range(_ROUNDS):
            before = list(counts)
            for layer in layers:
                counts = self._pushed(counts, layer)
            if counts == before:
                break
        return self._without_idle_picks(counts)

    def _pushed(self, counts: Sequence[int], layer: int) -> list[int]:
        def with_more(further: int) -> list[int]:
            return [*counts[:layer], counts[layer] + further, *counts[layer + 1 :]]

        left = len(self.orders[layer].classes) - counts[layer]
        spent = max(_LEAST, *self._measured(counts).shares) if any(counts) else _LEAST
        further = furthest(
            lambda number: self._measured(with_more(number)), left,
            around=_AROUND_LAYER, limit=min(spent, _SPENT), near=True,
        )  # fmt: skip
        return with_more(further)

    def _without_idle_picks(self, counts: list[int]) -> list[int]:
        picks = [i for i, order in enumerate(self.orders) if counts[i] and order.name in self.opened]
        for layer in picks:
            name = self.orders[layer].name
            found = smaller(self.shrinker, self.orders, counts)
            without = [*counts[:layer], 0, *counts[layer + 1 :]]
            groups = self.context.trial(found.graph).analyses.get(UnitGroups)
            if not pays(groups, name, self.opened[name]) and self._measured(without).holds:
                counts = without
        return counts

    def _measured(self, counts: Sequence[int]) -> Spending:
        key = tuple(counts)
        if key not in self._spent:
            assert self.context.accept is not None  # the caller looked
            found = smaller(self.shrinker, self.orders, key)
            self._parameters[key] = found.graph.total_params
            self._spent[key] = self.context.accept(found.graph)
            self.context.note(
                "frontier", "model",
                f"{self._parameters[key]:,} parameters, {sum(key)} units gone: {self._spent[key]}",
                units=sum(key), parameters=self._parameters[key], **self._spent[key].numbers(),
            )  # fmt: skip
        return self._spent[key]
