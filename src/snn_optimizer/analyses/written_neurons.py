"""Bounds of neurons whose arithmetic is written out.

Such a neuron is bounded as the one it means: its decay, gain, threshold and reset are read off
the arithmetic, and the roundings of its own operations, in whatever order, are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from snn_optimizer.analyses.incoming import Incoming
from snn_optimizer.analyses.intervals import Array, Range
from snn_optimizer.analyses.neuron_bounds import OPERATIONS, NeuronFacts, neuron_facts
from snn_optimizer.analyses.temporal_facts import temporal_facts
from snn_optimizer.ops import Expression, Meaning, NeuronVariant, NotUnderstood, meaning

__all__ = ["written_facts"]

_EXACT = 1e-9


def written_facts(
    variant: NeuronVariant,
    currents: Sequence[Range],
    states: Mapping[str, Range],
    constants: Mapping[str, Array] | None,
    steps: int | None,
    roundoff: float,
    incoming: Incoming | None = None,
) -> NeuronFacts:
    """Bound a population; without constants for all parameters nothing is claimed.

    Parameters
    ----------
    variant : NeuronVariant
        With written arithmetic.
    currents : sequence of Range
    states : mapping
        Ranges of ``v0`` and ``i0``.
    constants : mapping or None
        The parameters.
    steps : int or None
    roundoff : float
        Of one operation, relative.
    incoming : Incoming, optional
        What is known of the currents over time.
    """
    shape = np.broadcast_shapes(*(one.low.shape for one in currents), *(s.low.shape for s in states.values()))
    nothing = np.zeros(shape, np.bool_)
    unknown = NeuronFacts(nothing, nothing, np.full(shape, np.inf), np.full(shape, -np.inf), Range.unknown(len(shape)))
    if constants is None:
        return unknown
    try:
        sense = meaning(variant.program, constants)
    except NotUnderstood:
        return unknown
    if sense.clamped or sense.reset == "other" or (sense.synaptic and not _filters(sense, states)):
        return unknown
    plain = NeuronVariant(
        sense.operator if sense.operator in ("LIF", "CubaLIF") else _plain_operator(sense),
        reset=sense.reset, reset_delay=sense.reset_delay, fire=sense.fire, max_spikes=sense.max_spikes,
    ) if sense.v_threshold is not None else NeuronVariant("LI")  # fmt: skip
    scale = roundoff * _amplification(variant, constants) * max(1.0, variant.program.count() / OPERATIONS)
    current = _drive(sense, variant, currents, OPERATIONS * scale)
    parameters = {
        "v0": states.get("v0", Range.constant(np.zeros((1,) * len(shape)))),
        "beta": _range(sense.beta, len(shape)),
    }
    if sense.synaptic:
        if not sense.v_threshold is not None:
            return unknown
        parameters |= {"alpha": _range(sense.synaptic["i"], len(shape)), "i0": states["i0"]}
    if sense.v_threshold is not None:
        parameters["v_threshold"] = _range(sense.v_threshold, len(shape))
    if sense.v_reset is not None:
        parameters["v_reset"] = _range(sense.v_reset, len(shape))
    refine = None
    if incoming is not None:
        gains = [_factor(sense, name) for name in variant.program.currents]
        combined = incoming.combined(gains, _factor(sense, "1"), OPERATIONS * scale)
        refine = lambda run, facts: temporal_facts(run, facts, combined)  # noqa: E731 - a sentence, not a subject
    return neuron_facts(plain, current, parameters, steps, scale, ordered=False, refine=refine)


def _plain_operator(sense: Meaning) -> str:
    return "LIF" if sense.operator == "IF" else sense.operator


def _range(values: Array, rank: int) -> Range:
    array = np.asarray(values, np.float64)
    return Range.constant(array.reshape((1,) * (rank - array.ndim) + array.shape))


def _factor(sense: Meaning, name: str) -> Array:
    return np.asarray(sense.charge.get(name, np.zeros(())), np.float64)


def _drive(sense: Meaning, variant: NeuronVariant, currents: Sequence[Range], unit: float) -> Range:
    """Return the range of all that a step adds to the decayed potential.

    Terms that cancel round by their own size, not by that of their sum.
    """
    rank = currents[0].low.ndim
    constant = _factor(sense, "1")
    low = high = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
    size = np.abs(low)
    with np.errstate(invalid="ignore"):
        for name, current in zip(variant.program.currents, currents, strict=True):
            gain = _factor(sense, name)
            gain = gain.reshape((1,) * (rank - gain.ndim) + gain.shape)
            ends = (
                np.nan_to_num(gain * current.low, nan=0.0, posinf=np.inf, neginf=-np.inf),
                np.nan_to_num(gain * current.high, nan=0.0, posinf=np.inf, neginf=-np.inf),
            )
            low, high = low + np.minimum(*ends), high + np.maximum(*ends)
            size = size + np.maximum(np.abs(ends[0]), np.abs(ends[1]))
        # of one term the rounding of the step is counted already
        margin = unit * size if len(currents) > 1 or constant.any() else np.zeros(())
        return Range.of(low - margin, high + margin)


def _filters(sense: Meaning, states: Mapping[str, Range]) -> bool:
    """Tell whether what reaches the membrane is one filter of the current, from zero."""
    names = [name for name in sense.charge if name.startswith("x")]
    start = states.get("i0")
    if len(names) != 1 or start is None or start.low.any() or start.high.any() or "i" not in sense.charge:
        return False
    name = names[0]
    through, direct = sense.charge["i"], sense.charge[name]
    decay, taken = sense.synaptic.get("i"), sense.synaptic.get(name)
    if decay is None or taken is None or np.any(sense.synaptic.get("1", np.zeros(())) != 0):
        return False
    return bool(np.allclose(through * taken, decay * direct, rtol=_EXACT * 1e3, atol=_EXACT))


def _amplification(variant: NeuronVariant, constants: Mapping[str, Array]) -> float:
    """Return by how much an operation of the step may enlarge what was rounded before."""
    factors = [1.0]

    def visit(expression: Expression) -> None:
        for position, operand in enumerate(expression.operands):
            size = _size(operand, constants)
            if size is not None and expression.operation == "mul":
                factors.append(size[1])
            if size is not None and expression.operation == "div" and position == 1:
                factors.append(1 / size[0] if size[0] else np.inf)
            visit(operand)

    for _, expression in variant.program.statements:
        visit(expression)
    return float(max(factors))


def _size(operand: Expression, constants: Mapping[str, Array]) -> tuple[float, float] | None:
    """Return the smallest and largest size of a factor that is constant."""
    if operand.operation == "number":
        return abs(operand.number), abs(operand.number)
    if operand.operation == "name" and operand.symbol in constants:
        sizes = np.abs(np.asarray(constants[operand.symbol], np.float64))
        return float(sizes.min()), float(sizes.max())
    return None
