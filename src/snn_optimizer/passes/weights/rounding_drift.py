"""How far rounded weights can move a membrane while the spikes stay the same.

One step moves the current of neuron i by at most ``sum_j |dw_ij| |x_j| + |db_i|``, where ``|x_j|`` is the largest
value that input j can have. The membrane takes in ``gain`` of it and keeps ``beta`` per step, behind a synapse that
keeps ``alpha``: over the steps a factor of ``gain (1 + alpha + alpha^2 + ...)(1 + beta + beta^2 + ...)`` at most.
"""

from __future__ import annotations

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
    inputs = [_largest(ranges, reader) for reader in readers]
    factors = [_factor(groups, reader) for reader in readers]
    currents = [0.0] * len(readers)
    for rows in blocks(weights.shape):
        change = np.abs(found.weights(rows).astype(weights.dtype).astype(np.float64) - weights[rows])
        largest = max(largest, float(change.max(initial=0.0)))
        for number, most in enumerate(inputs):
            if most is not None and factors[number] is not None:
                by_input = change.reshape(len(change), len(most), -1).sum(axis=2)
                current = by_input @ most + np.abs(found.bias[rows])
                currents[number] = max(currents[number], float(current.max(initial=0.0)))
    if any(part is None for part in (*inputs, *factors)):
        return Drift(largest, None)
    return Drift(largest, max(c * f for c, f in zip(currents, factors, strict=True) if f is not None))


def _factor(groups: UnitGroups, contraction: Contraction) -> float | None:
    """Return by what a change of the current is multiplied in the membranes; None when there is no bound."""
    driven = _driven(groups, contraction.result)
    if not driven:
        return None
    steps = next((p.steps for p in groups.populations if p.steps is not None), None)
    most = max(_amplification(population, steps) for population in driven)
    return most if np.isfinite(most) else None


def _largest(ranges: ValueRanges, contraction: Contraction) -> npt.NDArray[np.float64] | None:
    """Return the largest absolute value of each input, None where one is unknown."""
    found = ranges.of(contraction.source)
    if found is None:
        return None
    most = np.maximum(np.abs(found.low), np.abs(found.high))
    axis = 1 if contraction.node.op == "Conv" else most.ndim - 1
    most = most.max(axis=tuple(other for other in range(most.ndim) if other != axis))
    if not np.isfinite(most).all() or most.size not in (1, len(contraction.labels_in)):
        return None
    return np.broadcast_to(most, (len(contraction.labels_in),))


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


def _amplification(population: Population, steps: int | None) -> float:
    """Return by what a lasting change of the current is multiplied in the membrane; infinite when unknown."""
    variant, node = population.variant, population.node
    names = variant.inputs
    first = variant.currents + len(variant.states)
    constants = {name: array_of(value) for name, value in zip(names[first:], node.inputs[first:], strict=True)}
    known = {name: array.astype(np.float64) for name, array in constants.items() if array is not None}
    if len(known) != len(constants):
        return np.inf
    synaptic: npt.NDArray[Any] | float
    if variant.written:
        try:
            sense = ops.meaning(variant.program, known)
        except ops.NotUnderstood:
            return np.inf
        currents = variant.program.currents
        beta, synaptic = sense.beta, np.asarray(sense.synaptic.get("i", 0.0))
        direct = [np.abs(sense.charge.get(name, np.zeros(()))).max() for name in currents]
        through = [np.abs(sense.synaptic.get(name, np.zeros(()))).max() for name in currents]
        gain = max(direct) + np.abs(sense.charge.get("i", np.zeros(()))).max() * max(through)
    elif variant.arithmetic == "relax":
        gain, beta, synaptic = np.abs(known["gain"]).max(), 1 - known["gain"], 0.0
    else:
        gain, synaptic = np.abs(known["gain"]).max(), known.get("alpha", np.zeros(()))
        beta = np.ones(()) if variant.operator == "IF" else known["beta"]
    return float(gain) * _sum(beta, steps) * _sum(synaptic, steps)


def _sum(decay: npt.ArrayLike, steps: int | None) -> float:
    """Return ``1 + d + d^2 + ...`` over the steps for the slowest decay."""
    slowest = float(np.abs(np.asarray(decay)).max(initial=0.0))
    if slowest < 1:
        return (1 - slowest**steps if steps is not None else 1) / (1 - slowest)
    if steps is None:
        return np.inf
    return float(steps) if slowest == 1 else float((slowest**steps - 1) / (slowest - 1))
