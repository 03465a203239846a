"""How far rounded weights can move a membrane while the spikes stay the same.

One step moves the current of neuron i by at most ``sum_j max(dw_ij l_j, dw_ij h_j) + db_i`` upward, with inputs between
``l_j`` and ``h_j``, and likewise downward. The membrane takes in ``gain`` of it and keeps ``beta`` per step, behind a
synapse that keeps ``alpha``: a factor of ``gain (1 + alpha + alpha^2 + ...)(1 + beta + beta^2 + ...)`` over the steps.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer import ops
from snn_optimizer.analyses import Contraction, Population, UnitGroups, ValueRanges
from snn_optimizer.ir import Value, array_of, bodies_of, is_standard
from snn_optimizer.passes.weights.rounding import Levels, blocks

__all__ = ["Drift", "drift"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Drift:
    """What rounding moves at most.

    Attributes
    ----------
    weight : float
        A single weight.
    membrane : float or None
        A membrane; None where no bound is known.
    """

    weight: float
    membrane: float | None


def drift(
    groups: UnitGroups, ranges: ValueRanges, readers: Sequence[Contraction], weights: npt.NDArray[Any], found: Levels
) -> Drift:
    """Return how far the levels of one weight, shape (rows, fan-in), move what its readers drive."""
    largest = 0.0
    inputs = [_ends(ranges, reader) for reader in readers]
    factors = [_factor(groups, reader) for reader in readers]
    bounds = [0.0] * len(readers)
    for rows in blocks(weights.shape):
        change = found.weights(rows).astype(weights.dtype).astype(np.float64) - weights[rows]
        largest = max(largest, float(np.abs(change).max(initial=0.0)))
        for number, (ends, factor) in enumerate(zip(inputs, factors, strict=True)):
            if ends is not None and factor is not None:
                moved = _current(change, found.bias[rows], *ends) * (factor[rows] if factor.ndim else factor)
                bounds[number] = max(bounds[number], float(moved.max(initial=0.0)))
    unknown = any(part is None for part in (*inputs, *factors))
    return Drift(largest, None if unknown else max(bounds))


def _current(change: Array, bias: Array, low: Array, high: Array) -> Array:
    """Return how far a change of the weights, shape (rows, fan-in), moves the current of a step, either way."""
    by_input = change.reshape(len(change), len(low), -1)
    rising, falling = np.maximum(by_input, 0).sum(axis=2), np.minimum(by_input, 0).sum(axis=2)
    up = rising @ high + falling @ low + bias
    down = rising @ low + falling @ high + bias
    return np.asarray(np.maximum(np.maximum(up, -down), 0))


def _ends(ranges: ValueRanges, contraction: Contraction) -> tuple[Array, Array] | None:
    """Return the smallest and largest value of each input, zero of padding included; None where one is unknown."""
    found = ranges.of(contraction.source)
    if found is None:
        return None
    axis = 1 if contraction.node.op == "Conv" else found.low.ndim - 1
    others = tuple(other for other in range(found.low.ndim) if other != axis)
    low, high = found.low.min(axis=others), found.high.max(axis=others)
    if not (np.isfinite(low).all() and np.isfinite(high).all()) or low.size not in (1, len(contraction.labels_in)):
        return None
    if contraction.node.op == "Conv":
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    shape = (len(contraction.labels_in),)
    return np.broadcast_to(low, shape), np.broadcast_to(high, shape)


def _factor(groups: UnitGroups, contraction: Contraction) -> Array | None:
    """Return by what a change of the current is multiplied in the membranes, one for all or one per row."""
    driven = _driven(groups, contraction.result)
    if not driven:
        return None
    steps = next((p.steps for p in groups.populations if p.steps is not None), None)
    rows = len(contraction.labels_out)
    found = []
    for population in driven:
        factor = _amplification(population, steps)
        whole = factor.size == rows and not population.spatial and factor.ndim == 1
        found.append(factor if whole else np.asarray(factor.max()))
    most = functools.reduce(np.maximum, found)
    return np.asarray(most) if np.isfinite(most).all() else None


def _driven(groups: UnitGroups, value: Value) -> list[Population]:
    """Return the populations whose current a value is part of; none where something else reads it."""
    populations = {id(population.node): population for population in groups.populations}
    found: list[Population] = []
    pending = [value]
    while pending:
        value = pending.pop()
        for node in value.outputs:
            if id(node) in populations:
                if not any(value is current for current in node.inputs[: populations[id(node)].variant.currents]):
                    return []
                found.append(populations[id(node)])
            elif is_standard(node, "Add", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"):
                pending.append(node.outputs[0])
            elif is_standard(node, "Scan"):
                (body,) = (body for _, body in bodies_of(node))
                entered = [inner for inner in body.inputs if groups.scanned.get(id(inner)) is value]
                if not entered:
                    return []
                pending.extend(entered)
            else:
                return []
    return found


def _amplification(population: Population, steps: int | None) -> Array:
    """Return by what a lasting change of the current is multiplied in the membranes; infinite when unknown."""
    variant, node = population.variant, population.node
    names = variant.inputs
    first = variant.currents + len(variant.states)
    constants = {name: array_of(value) for name, value in zip(names[first:], node.inputs[first:], strict=True)}
    known = {name: array.astype(np.float64) for name, array in constants.items() if array is not None}
    if len(known) != len(constants):
        return np.asarray(np.inf)
    none = np.zeros(())
    if variant.written:
        try:
            sense = ops.meaning(variant.program, known)
        except ops.NotUnderstood:
            return np.asarray(np.inf)
        currents = variant.program.currents
        direct = [np.abs(sense.charge.get(name, none)) for name in currents]
        through = [np.abs(sense.synaptic.get(name, none)) for name in currents]
        gain = functools.reduce(np.maximum, direct) + np.abs(sense.charge.get("i", none)) * functools.reduce(
            np.maximum, through
        )
        beta, synaptic = sense.beta, sense.synaptic.get("i", none)
    elif variant.arithmetic == "relax":
        gain, beta, synaptic = np.abs(known["gain"]), 1 - known["gain"], known.get("alpha", none)
    else:
        gain, synaptic = np.abs(known["gain"]), known.get("alpha", none)
        beta = np.ones(()) if variant.operator == "IF" else known["beta"]
    return np.asarray(gain * _sum(np.asarray(beta), steps) * _sum(np.asarray(synaptic), steps))


def _sum(decay: Array, steps: int | None) -> Array:
    """Return ``1 + d + d^2 + ...`` over the steps."""
    kept = np.abs(decay.astype(np.float64))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if steps is None:
            return np.where(kept < 1, 1 / (1 - kept), np.inf)
        return np.where(kept == 1, steps, (1 - kept**steps) / (1 - kept))
