"""What bounds of its current prove about a neuron: that it never fires, or fires at every step.

*Never.* Before its first spike no reset has acted, so the membrane stays below that of the recurrence without reset,
driven by the largest current. *Always.* If it fired at every step so far, the membrane is at least that of the
recurrence with the reset, driven by the smallest current. Where the number of steps is open, the bound is a value
that one more step cannot pass: it is proposed by the fixed point of the recurrence and then checked in interval
arithmetic, so that nothing depends on how it was found. Both are T1 and T2 of the project's theory; see also
docs/explanation/bounds.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from snn_optimizer import ops
from snn_optimizer.certificates.intervals import UNIT, Ends, outward, product
from snn_optimizer.certificates.network import Array

__all__ = ["Judged", "Neuron", "judge"]

_ROUNDINGS: Final = 8  # of one step, for every order of its operations, with room
_LEAST: Final = 2.0**-120
_LONGEST: Final = 4096  # steps that are followed one by one


@dataclass(frozen=True, slots=True, eq=False)
class Neuron:
    """A population in the terms of the field, with bounds of its parameters, one per unit or one for all.

    Attributes
    ----------
    reset : {"subtract", "to-value", "none", "other"}
    fire : {"gt", "ge"}
    delayed : bool
        Whether the reset acts one step later.
    spikes : int
        Most spikes of a step; 0 for no limit.
    monotone : bool
        Whether every operation of a step is monotone in the membrane and the current.
    beta, gain, offset, start : Ends
        ``v' = beta v + gain current + offset``.
    threshold, resting : Ends
    alpha, start_current : Ends, optional
        Of a synaptic current ``i' = alpha i + current`` that takes the place of the current.
    carried, synaptic_gain, synaptic_offset : Ends, optional
        Of one that is written out: ``i' = alpha i + synaptic_gain current + synaptic_offset``, and ``carried i`` is
        added to what charges the membrane.
    """

    reset: str
    fire: str
    delayed: bool
    spikes: int
    monotone: bool
    beta: Ends
    gain: Ends
    offset: Ends
    start: Ends
    threshold: Ends
    resting: Ends
    alpha: Ends | None = None
    start_current: Ends | None = None
    carried: Ends | None = None
    synaptic_gain: Ends | None = None
    synaptic_offset: Ends | None = None

    @classmethod
    def read(cls, variant: ops.NeuronVariant, given: Mapping[str, Ends], exact: Mapping[str, Array]) -> Neuron | None:
        """Read a population; None for one that is not understood or does not spike.

        Parameters
        ----------
        given : mapping
            Bounds of states and parameters by name, each one per unit or one for all.
        exact : mapping
            Those that are constants with one number per unit or one for all.
        """
        if not variant.spiking:
            return None
        zero, one = Ends.of(0.0, 0.0), Ends.of(1.0, 1.0)
        start = given.get("v0", given.get("v", zero))
        if not variant.written:
            cuba = variant.operator == "CubaLIF"
            gain, beta = given.get("gain", one), given.get("beta", one)
            if variant.arithmetic == "relax":
                beta = Ends.of(1 - gain.high, 1 - gain.low)
            return cls(
                variant.reset, variant.fire, bool(variant.reset_delay), variant.max_spikes,
                variant.arithmetic == "decay", beta, gain, zero, start, given["v_threshold"],
                given.get("v_reset", zero),
                given["alpha"] if cuba else None, given.get("i0", given.get("i", zero)) if cuba else None,
            )  # fmt: skip
        return cls._written(variant, start, given, exact)

    @classmethod
    def _written(
        cls, variant: ops.NeuronVariant, start: Ends, given: Mapping[str, Ends], exact: Mapping[str, Array]
    ) -> Neuron | None:
        try:
            meaning = ops.meaning(variant.program, {name: exact[name] for name in variant.program.parameters})
        except (KeyError, ops.NotUnderstood):
            return None
        synaptic = meaning.synaptic
        currents = {name for name in (*meaning.charge, *synaptic) if name not in ("v", "i", "1")}
        if meaning.operator not in ("LIF", "IF", "CubaLIF") or len(currents) > 1 or meaning.clamped:
            return None
        if np.any(synaptic.get("v", 0.0)) or ("i" in meaning.charge and not synaptic):
            return None
        if meaning.v_threshold is None or meaning.reset == "other":
            return None

        def both(number: Array | float) -> Ends:
            return Ends.of(np.asarray(number).reshape(-1), np.asarray(number).reshape(-1))

        signal = next(iter(currents), "")
        synapse: dict[str, Ends] = {}
        if synaptic:
            synapse = {
                "alpha": both(synaptic.get("i", 0.0)),
                "start_current": given.get("i0", given.get("i", Ends.of(0.0, 0.0))),
                "carried": both(meaning.charge.get("i", 0.0)),
                "synaptic_gain": both(synaptic.get(signal, 0.0)),
                "synaptic_offset": both(synaptic.get("1", 0.0)),
            }
        return cls(
            meaning.reset, meaning.fire, bool(meaning.reset_delay), meaning.max_spikes, False,
            both(meaning.beta), both(meaning.charge.get(signal, 0.0)), both(meaning.charge.get("1", 0.0)), start,
            both(meaning.v_threshold), both(0.0 if meaning.v_reset is None else meaning.v_reset), **synapse,
        )  # fmt: skip

    def units(self, current: Ends) -> int:
        """Return how many units the bounds tell apart."""
        parts = (
            self.beta, self.gain, self.offset, self.start, self.threshold, self.resting, current, self.alpha,
            self.start_current, self.carried, self.synaptic_gain, self.synaptic_offset,
        )  # fmt: skip
        return max(part.low.size for part in parts if part is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What is proved about the units of a population.

    Attributes
    ----------
    never, always : bool array
    highest : array
        The membrane stays at or below it before a first spike.
    lowest : array
        The membrane of a unit that has fired at every step so far stays at or above it.
    threshold : array
        The threshold each is compared with.
    """

    never: Array
    always: Array
    highest: Array
    lowest: Array
    threshold: Array

    def spread(self, units: int) -> Judged:
        """Return the same with one element per unit."""
        parts = (self.never, self.always, self.highest, self.lowest, self.threshold)
        return Judged(*(np.array(np.broadcast_to(part, (units,))) for part in parts))


def judge(neuron: Neuron, current: Ends, steps: int | None) -> Judged:
    """Bound the membranes of a population whose current stays within bounds at all steps."""
    usable = (neuron.beta.low >= 0) & np.isfinite(neuron.beta.high)
    with np.errstate(all="ignore"):
        drives = _Drives(neuron, current, steps)
        highest = np.where(usable, _highest(neuron, drives, steps), np.inf)
        lowest = np.where(usable, _lowest(neuron, drives, steps), -np.inf)
    units = neuron.units(current)
    lowest, highest = outward(np.where(np.isnan(lowest), -np.inf, lowest), np.where(np.isnan(highest), np.inf, highest))
    lowest, highest = np.broadcast_to(lowest, (units,)), np.broadcast_to(highest, (units,))
    under, over = (np.broadcast_to(end, (units,)) for end in (neuron.threshold.low, neuron.threshold.high))
    reached = np.maximum(highest, neuron.start.high) if neuron.delayed else highest
    never = (reached <= under) if neuron.fire == "gt" else (reached < under)
    if neuron.spikes != 1:
        never = never & (under > 0)
    always = (lowest > over) if neuron.fire == "gt" else (lowest >= over)
    return Judged(never & np.isfinite(reached), always & np.isfinite(lowest), reached, lowest, under)


class _Drives:
    """What charges the membrane at each step: ``gain * current + offset``, behind a synapse if there is one."""

    def __init__(self, neuron: Neuron, current: Ends, steps: int | None) -> None:
        self.neuron = neuron
        if neuron.carried is not None:
            self.first = self.later = self._with_synapse(neuron.carried, current, steps)
            return
        self.first = self._charging(self._after_synapse(current, 1))
        self.later = self._charging(self._after_synapse(current, steps))

    def _charging(self, current: Ends) -> Ends:
        return product(self.neuron.gain, current).plus(self.neuron.offset)

    def _with_synapse(self, carried: Ends, current: Ends, steps: int | None) -> Ends:
        """Bound what charges the membrane at any step where the synapse is written out, its start included."""
        neuron = self.neuron
        alpha, start, gain, offset = neuron.alpha, neuron.start_current, neuron.synaptic_gain, neuron.synaptic_offset
        if alpha is None or start is None or gain is None or offset is None:
            return Ends.unknown()
        if not bool(((alpha.low >= 0) & np.isfinite(alpha.high)).all()):
            return Ends.unknown()
        driven = product(gain, current).plus(offset)
        # operations come in any order, so the rounding of each end grows with the size of both
        size = _following(
            start.size,
            lambda m: _stepped(m, alpha, driven.size, upper=True, both=m),
            steps,
            upper=True,
            with_start=True,
        )
        both = size + driven.size

        def low(value: Array) -> Array:
            return _stepped(value, alpha, driven.low, upper=False, both=both)

        def high(value: Array) -> Array:
            return _stepped(value, alpha, driven.high, upper=True, both=both)

        synaptic = Ends.of(
            _following(start.low, low, steps, upper=False, with_start=True),
            _following(start.high, high, steps, upper=True, with_start=True),
        )
        return product(carried, synaptic).plus(product(neuron.gain, current)).plus(neuron.offset)

    def _after_synapse(self, current: Ends, steps: int | None) -> Ends:
        """Bound the synaptic current over some steps, from the one it starts with."""
        alpha, start = self.neuron.alpha, self.neuron.start_current
        if alpha is None or start is None:
            return current
        if not bool(((alpha.low >= 0) & np.isfinite(alpha.high)).all()):
            return Ends.unknown()

        def low(value: Array) -> Array:
            return _stepped(value, alpha, current.low, upper=False, both=None)

        def high(value: Array) -> Array:
            return _stepped(value, alpha, current.high, upper=True, both=None)

        return Ends.of(_following(start.low, low, steps, upper=False), _following(start.high, high, steps, upper=True))


def _highest(neuron: Neuron, drives: _Drives, steps: int | None) -> Array:
    both = None
    if not neuron.monotone:  # the membrane without reset stays within this size
        both = _following(
            neuron.start.size,
            lambda m: _stepped(m, neuron.beta, drives.later.size, upper=True, both=m),
            steps,
            upper=True,
        )
        both = np.maximum(both, neuron.start.size) + drives.later.size
    return _following(
        neuron.start.high,
        lambda v: _stepped(v, neuron.beta, drives.later.high, upper=True, both=both),
        steps,
        upper=True,
    )


def _stepped(value: Array, decay: Ends, drive: Array, *, upper: bool, both: Array | None) -> Array:
    """Return the end of ``decay * value + drive``, opened by the rounding of one step.

    Rounding is monotone: the float at an end bounds all others, and only its own rounding counts. Where operations are
    not monotone, ``both`` is the size that membranes may have.
    """
    choose = np.maximum if upper else np.minimum
    moved = choose(decay.low * value, decay.high * value) + drive
    size = np.abs(value) * decay.high + np.abs(drive)
    if both is not None:
        size = 2 * (np.maximum(decay.high, 1) * np.maximum(np.abs(value), both) + np.abs(drive))
    slack = _ROUNDINGS * UNIT * size + np.where(size > 0, _LEAST, 0.0)
    return np.asarray(moved + slack if upper else moved - slack)


def _following(
    start: Array, step: Callable[[Array], Array], steps: int | None, *, upper: bool, with_start: bool = False
) -> Array:
    """Return the extreme of a recurrence over its steps; of the start too where that is asked for.

    With an open number of steps: an extreme that one step does not pass, or infinity.
    """
    extreme = np.maximum if upper else np.minimum
    value = step(start)
    if steps is not None and steps <= _LONGEST:
        found = extreme(start, value) if with_start else value
        for _ in range(steps - 1):
            value = step(value)
            found = extreme(found, value)
        return np.asarray(found)
    # proposals: zero, and a point a little beyond the fixed point of the affine step
    slope = step(np.ones_like(value)) - step(np.zeros_like(value))
    limit = step(np.zeros_like(value)) / (1 - slope)
    beyond = limit + (1 if upper else -1) * (1e-5 * np.abs(limit) + 1e-30)
    least = extreme(start, value) if with_start else value
    result = np.full_like(value, np.inf if upper else -np.inf)
    for point in (beyond, 0.0, value):
        proposal = np.asarray(extreme(least, point), np.float64)
        after = step(proposal)
        kept = (after <= proposal) if upper else (after >= proposal)
        result = np.where(kept & np.isfinite(proposal), proposal, result)
    return np.asarray(result)


def _lowest(neuron: Neuron, drives: _Drives, steps: int | None) -> Array:
    if neuron.spikes != 1 or neuron.reset == "other" or not neuron.monotone:
        return np.asarray(-np.inf)
    first = _stepped(neuron.start.low, neuron.beta, drives.first.low, upper=False, both=None)

    def later(charged: Array) -> Array:
        return _after_spike(neuron, charged, drives.later.low)

    # a run of one step has no later one
    found = (
        first
        if steps == 1
        else _following(first, later, None if steps is None else steps - 1, upper=False, with_start=True)
    )
    if neuron.delayed:  # the first step must not begin with a reset
        quiet = neuron.start.high <= neuron.threshold.low
        if neuron.fire == "ge":
            quiet = neuron.start.high < neuron.threshold.low
        found = np.where(quiet, found, -np.inf)
    return np.asarray(found)


def _after_spike(neuron: Neuron, charged: Array, drive: Array) -> Array:
    """Return the lower end of the next charged membrane of a unit that has just fired."""

    def less(value: Array) -> Array:
        slack = _ROUNDINGS * UNIT * (np.abs(value) + neuron.threshold.size) + _LEAST
        return np.asarray(value - neuron.threshold.high - slack)

    before = charged
    if neuron.reset == "to-value":
        before = np.broadcast_to(neuron.resting.low, charged.shape)
    elif neuron.reset == "subtract" and not neuron.delayed:
        before = less(charged)
    after = _stepped(before, neuron.beta, drive, upper=False, both=None)
    return less(after) if neuron.reset == "subtract" and neuron.delayed else after
