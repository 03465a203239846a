"""In which order units leave, and what that costs: per layer, over everything that reads the units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses import NO_UNIT, Contraction, UnitGroups
from snn_optimizer.analyses.rows import contraction_matrix
from snn_optimizer.passes.weights.compensation import Elimination, with_ridge
from snn_optimizer.passes.weights.drives import Reading, drive_weights
from snn_optimizer.passes.weights.input_units import input_layers

__all__ = ["UnitOrder", "unit_orders"]

Costs = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class UnitOrder:
    """The units of one layer, the one that is missed least first.

    Attributes
    ----------
    name : str
        Populations of the layer, or the node that picks inputs.
    classes : array of int
    costs : array
        Share of the energy of the drives that is lost when the units up to each are gone; never falls.
    """

    name: str
    classes: Classes
    costs: Costs


def unit_orders(
    groups: UnitGroups, readings: Mapping[int, Reading], ridge: float
) -> tuple[list[UnitOrder], list[tuple[str, str]]]:
    """Order the units of every layer.

    Parameters
    ----------
    groups : UnitGroups
    readings : mapping
        What contractions read, by their position in ``groups.contractions``.
    ridge : float

    Returns
    -------
    list of UnitOrder
    list of (str, str)
        Populations that were left out, and why.
    """
    orders: list[UnitOrder] = []
    left: list[tuple[str, str]] = []
    blocked = _unmeasured(groups, readings)
    for names, classes in [*_layers(groups), *(([name], found) for name, found in input_layers(groups))]:
        movable = classes[(groups.fixed[classes] < 0) & ~blocked[classes]]
        if len(movable):
            order, costs = _ordered(groups, readings, movable, ridge)
            orders.append(UnitOrder(", ".join(names), order, costs))
        elif len(classes) and (groups.fixed[classes] < 0).any():
            left.append((", ".join(names), "what reads it could not be measured on the data"))
    return orders, left


def _unmeasured(groups: UnitGroups, readings: Mapping[int, Reading]) -> npt.NDArray[np.bool_]:
    blocked = np.zeros(groups.classes, np.bool_)
    for number, contraction in enumerate(groups.contractions):
        if number not in readings:
            classes = groups.classes_at(contraction.labels_in)
            blocked[classes[classes != NO_UNIT]] = True
    return blocked


def _layers(groups: UnitGroups) -> list[tuple[list[str], Classes]]:
    """Group populations that share units; return their names and classes."""
    layers: list[tuple[list[str], set[int]]] = []
    for population in groups.populations:
        if not population.variant.spiking:
            continue
        own = set(np.unique(groups.classes_at(population.labels)).tolist()) - {NO_UNIT}
        apart = [layer for layer in layers if own.isdisjoint(layer[1])]
        joined = [layer for layer in layers if not own.isdisjoint(layer[1])]
        names = [name for layer in joined for name in layer[0]] + [population.name]
        layers = [*apart, (names, own.union(*(layer[1] for layer in joined)))]
    return [(names, np.array(sorted(classes), np.int64)) for names, classes in layers]


def _ordered(
    groups: UnitGroups, readings: Mapping[int, Reading], classes: Classes, ridge: float
) -> tuple[Classes, Costs]:
    eliminations = []
    for number, reading in readings.items():
        where = _positions(groups, groups.contractions[number], classes)
        if any(len(each) for each in where):
            contraction = groups.contractions[number]
            eliminations.append(Elimination(with_ridge(reading.moments, ridge), drive_weights(contraction), where))
    order: list[int] = []
    costs: list[float] = []
    total = 0.0
    for _ in range(len(classes)):
        price = np.sum([each.costs() for each in eliminations], axis=0) if eliminations else np.zeros(len(classes))
        price[np.array(order, np.int64)] = np.inf
        cheapest = int(np.argmin(price))
        for each in eliminations:
            each.leave_out(cheapest)
        total += float(price[cheapest])
        order.append(cheapest)
        costs.append(total)
    return classes[np.array(order, np.int64)], np.array(costs)


def _positions(groups: UnitGroups, contraction: Contraction, classes: Classes) -> Sequence[npt.NDArray[np.int64]]:
    """Return which columns of the drive's weights each class is."""
    found = groups.classes_at(contraction.labels_in)
    kernel = contraction_matrix(contraction).shape[2]
    by_class = np.argsort(found, kind="stable")
    starts = np.searchsorted(found[by_class], classes, side="left")
    stops = np.searchsorted(found[by_class], classes, side="right")
    inside = np.arange(kernel)
    return [
        (by_class[start:stop, np.newaxis] * kernel + inside).reshape(-1)
        for start, stop in zip(starts, stops, strict=True)
    ]
