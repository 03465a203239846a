"""Which neurons can never fire, and which fire at every step.

What is said here holds for currents of one range at all steps; ``analyses/temporal_facts.py`` goes on from here
where more is known about the spikes behind them.

The claims and their proofs, for a neuron with decay ``beta >= 0`` whose current
stays in ``[low, high]``:

*Never.* Before its first spike no reset has acted, so the membrane is at most
that of the reset-free recurrence driven by ``high``. If that never passes the
threshold there is no first spike, whatever the reset. Exact when the inputs are
free, sound always.

*Always.* Under the hypothesis that it fired at every step so far the membrane
is at least that of the recurrence with the actual reset driven by ``low``. If
every term passes the threshold, the hypothesis is true by induction.

Every step of both recurrences is opened by the rounding of the arithmetic the
model runs in, so the claims hold for the floats, not only for the reals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses.intervals import Array, Range
from snn_optimizer.analyses.spike_trains import LONGEST_RUN, Train
from snn_optimizer.ops import NeuronVariant

__all__ = ["Mask", "MembraneRun", "NeuronFacts", "neuron_facts", "never_fires", "product"]

Mask = npt.NDArray[np.bool_]
OPERATIONS = 8  # roundings of one step, of every arithmetic order, with slack


@dataclass(frozen=True, slots=True)
class NeuronFacts:
    """What holds at every step, for every input of the declared domain.

    Attributes
    ----------
    never, always : bool arrays, one element per neuron (or channel)
    highest : array
        Upper bound of the membrane before a first spike; the witness of ``never``.
    lowest : array
        Lower bound of the membrane of a neuron that fires always; its witness.
    membrane : Range
        Bounds of the reset-free membrane, the output of a readout neuron.
    train : Train, optional
        What is known about the spikes over time.
    """

    never: Mask
    always: Mask
    highest: Array
    lowest: Array
    membrane: Range
    train: Train | None = None


Refinement = Callable[["MembraneRun", NeuronFacts], NeuronFacts]


def neuron_facts(
    variant: NeuronVariant,
    current: Range,
    parameters: Mapping[str, Range],
    steps: int | None,
    roundoff: float,
    *,
    ordered: bool = True,
    refine: Refinement | None = None,
) -> NeuronFacts:
    """Bound a population; parameters are ranges of constants or unknown.

    Without ``ordered`` the operations of a step may come in any order, and roundings at both ends
    of the range count. ``refine`` may add what it knows of spiking neurons.
    """
    run = MembraneRun(variant, current, parameters, steps, roundoff, ordered=ordered and variant.arithmetic != "relax")
    with np.errstate(all="ignore"):
        low, high = run.reset_free()
        lowest = run.always_firing()
    threshold = parameters.get("v_threshold")
    shape = np.broadcast_shapes(low.shape, lowest.shape, *(r.low.shape for r in parameters.values()))
    low, high, lowest = (np.broadcast_to(a, shape) for a in (low, high, lowest))
    if threshold is None:
        nothing = np.zeros(shape, np.bool_)
        return NeuronFacts(nothing, nothing, high, lowest, Range.of(low, high, run.steady()))
    never = never_fires(run, high)
    always = lowest > threshold.high if variant.fire == "gt" else lowest >= threshold.high
    always &= np.isfinite(lowest)
    facts = NeuronFacts(never, always, high, lowest, Range.unknown(low.ndim))
    return facts if refine is None else refine(run, facts)


def never_fires(run: MembraneRun, highest: Array) -> Mask:
    """Tell which neurons do not fire while their reset-free membrane stays at or below a bound."""
    threshold = run.parameters["v_threshold"]
    # a reset that acts one step later looks at the potential a run starts with, any other only at charged ones
    reached = np.maximum(highest, run.start.high) if run.variant.reset_delay else highest
    never = reached <= threshold.low if run.variant.fire == "gt" else reached < threshold.low
    if run.variant.max_spikes != 1:  # the count is a quotient, which is a threshold test only for positive thresholds
        never &= threshold.low > 0
    return np.asarray(never & np.isfinite(highest))


class MembraneRun:
    """The two recurrences of one population."""

    def __init__(
        self,
        variant: NeuronVariant,
        current: Range,
        parameters: Mapping[str, Range],
        steps: int | None,
        roundoff: float,
        *,
        ordered: bool,
    ) -> None:
        self.ordered = ordered
        self.variant = variant
        self._largest: Array | None = None
        self.parameters = parameters
        self.steps = steps if steps is not None and steps <= LONGEST_RUN else None
        self.unit = OPERATIONS * roundoff
        one = Range.constant(np.ones((1,) * current.rank))
        self.start = parameters.get("v0") or Range.constant(np.zeros((1,) * current.rank))
        self.gain = parameters.get("gain") or one
        beta = parameters.get("beta") or one
        if variant.arithmetic == "relax":  # v + gain * (j - v): the decay that acts is 1 - gain
            beta = Range.of(1 - self.gain.high, 1 - self.gain.low, self.gain.fixed)
        self.known = _is_decay(beta)
        self.beta = beta
        self.current = current
        self.drive = self._drive(current)

    def steady(self) -> npt.NDArray[np.bool_]:
        """A readout without input and state is constant only when nothing drives it."""
        still = (self.drive.low == 0) & (self.drive.high == 0) & (self.start.low == 0) & (self.start.high == 0)
        return np.asarray(still)

    def _drive(self, current: Range) -> Range:
        """Bounds of gain * j that hold at every step, the synaptic filter of CubaLIF included."""
        if self.variant.operator == "CubaLIF":
            alpha, start = self.parameters["alpha"], self.parameters["i0"]
            with np.errstate(all="ignore"):
                low, high = self.extremes(alpha, Range.of(current.low, current.high), start)
            usable = _is_decay(alpha)
            current = Range.of(np.where(usable, low, -np.inf), np.where(usable, high, np.inf))
        return Range.of(*product(self.gain, current))

    def reset_free(self) -> tuple[Array, Array]:
        """Hull over all steps of the membrane before any reset."""
        if self.variant.operator == "CubaLIF" and self.steps is not None:
            low, high = self._joint(self.steps)
        else:
            low, high = self.extremes(self.beta, self.drive, self.start)
        return np.where(self.known, low, -np.inf), np.where(self.known, high, np.inf)

    def _joint(self, steps: int) -> tuple[Array, Array]:
        """Step synaptic current and membrane together: the current of step t drives the membrane of step t."""
        alpha, start = self.parameters["alpha"], self.parameters["i0"]
        usable = _is_decay(alpha)
        signal = Range.of(self.current.low, self.current.high)
        current_low, current_high, low, high = start.low, start.high, self.start.low, self.start.high
        lowest, highest = np.asarray(np.inf), np.asarray(-np.inf)
        for _ in range(steps):
            current_low, current_high = self.step(alpha, signal, current_low, current_high)
            drive = Range.of(*product(self.gain, Range.of(current_low, current_high)))
            low, high = self.step(self.beta, drive, low, high)
            lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
        return np.where(usable, lowest, -np.inf), np.where(usable, highest, np.inf)

    def extremes(self, decay: Range, drive: Range, start: Range) -> tuple[Array, Array]:
        """Hull over steps 1, 2, ... of v' = decay * v + drive, opened by rounding at each step."""
        low, high = self.step(decay, drive, start.low, start.high)
        if self.steps is not None:
            lowest, highest = low, high
            for _ in range(self.steps - 1):
                low, high = self.step(decay, drive, low, high)
                lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
            return lowest, highest
        return self._unbounded(decay, drive, start, low, high)

    def step(self, decay: Range, drive: Range, low: Array, high: Array) -> tuple[Array, Array]:
        """Return the ends of decay * v + drive for v between two ends, opened by the rounding of one step."""
        slack_low, slack_high = self.slack(np.abs(low), np.abs(high), decay, drive)
        lower = np.minimum(decay.low * low, decay.high * low) + drive.low - slack_low
        upper = np.maximum(decay.low * high, decay.high * high) + drive.high + slack_high
        return lower, upper

    def slack(self, size_low: Array, size_high: Array, decay: Range, drive: Range) -> tuple[Array, Array]:
        """Rounding of one step at the lower and at the upper end, for membranes of these sizes.

        Every operation of ``decay * v + gain * j`` is monotone and so is rounding: the float at the
        upper end bounds all others, and only its own rounding counts. ``v + gain * (j - v)`` is not
        monotone operation by operation, so there both ends count.
        """
        grown = np.maximum(decay.high, 1)
        at_low = self.unit * (size_low * grown + np.abs(drive.low))
        at_high = self.unit * (size_high * grown + np.abs(drive.high))
        if not self.ordered:
            at_low = at_high = np.maximum(at_low, at_high) * 2
        return at_low, at_high

    def _unbounded(self, decay: Range, drive: Range, start: Range, low: Array, high: Array) -> tuple[Array, Array]:
        """The affine recurrence is monotone, so its extremes are the first step and the limit."""
        room = 1 - decay.high * (1 + 4 * self.unit)
        open_room = np.where(room > 0, room, np.nan)
        reach_low = np.maximum(np.abs(start.low), np.abs(drive.low) / open_room)
        reach_high = np.maximum(np.abs(start.high), np.abs(drive.high) / open_room)
        slack_low, slack_high = self.slack(2 * reach_low, 2 * reach_high, decay, drive)
        limit_low = _limit(drive.low - slack_low, decay, upper=False)
        limit_high = _limit(drive.high + slack_high, decay, upper=True)
        lower = np.where(room > 0, np.minimum(low, limit_low), -np.inf)
        upper = np.where(room > 0, np.maximum(high, limit_high), np.inf)
        # without decay the membrane moves one way only when the drive has one sign: fl(v + d) <= v for d <= 0
        exact = (decay.low == 1) & (decay.high == 1) & self.ordered
        upper = np.where(exact & (drive.high <= 0), np.maximum(start.high, high), upper)
        lower = np.where(exact & (drive.low >= 0), np.minimum(start.low, low), lower)
        return lower, upper

    def always_firing(self, drives: Sequence[Range] | None = None) -> Array:
        """Lower bound of the membrane over all steps if it fired at each; -inf when that cannot be shown.

        Parameters
        ----------
        drives : sequence of Range, optional
            What drives each step, instead of the same at all.
        """
        each = drives or [self.drive] * (self.steps or 1)
        known = (self.drive, each[0], *self.parameters.values())
        shape = np.broadcast_shapes(*(one.low.shape for one in known))
        threshold = self.parameters.get("v_threshold")
        if threshold is None or self.variant.max_spikes != 1:
            return np.full(shape, -np.inf)
        low = np.broadcast_to(self._charge_low(self.start.low, each[0]), shape)
        lowest = low
        if self.steps is not None:
            for drive in each[1:]:
                low = self._following(low, threshold, drive)
                lowest = np.minimum(lowest, low)
        else:
            # the step map is affine but for rounding: try its fixed point, then check that one step keeps it
            origin = self._following(np.zeros(shape), threshold, self.drive)
            room = 1 - self.beta.high
            limit = np.where(room > 0, origin / np.where(room > 0, room, 1), np.inf)
            guess = np.where(room > 0, np.minimum(low, limit - 1e-6 * np.maximum(1, np.abs(limit))), low)
            if self.variant.reset == "to-value":  # every later step starts from the same potential
                guess = np.minimum(low, origin)
            lowest = np.where(self._following(guess, threshold, self.drive) >= guess, guess, -np.inf)
        if self.variant.reset_delay:  # the first step must not start with a reset
            quiet = self.start.high <= threshold.low if self.variant.fire == "gt" else self.start.high < threshold.low
            lowest = np.where(quiet, lowest, -np.inf)
        return np.where(self.known, lowest, -np.inf)

    def _following(self, charged: Array, threshold: Range, drive: Range) -> Array:
        """Lower bound of the next charged membrane, after a spike of the present one."""
        if not self.variant.reset_delay:
            return self._charge_low(self._after_reset(charged, threshold), drive)
        before = charged
        if self.variant.reset == "to-value":
            before = np.broadcast_to(self.parameters["v_reset"].low, charged.shape)
        following = self._charge_low(before, drive)
        if self.variant.reset == "subtract":
            loss = threshold.high + self.unit * (np.abs(following) + np.abs(threshold.high))
            following = following - loss
        return following

    def _charge_low(self, before: Array, drive: Range) -> Array:
        size = np.abs(before) * np.maximum(self.beta.high, 1)
        if not self.ordered:  # rounding grows with the membrane's upper end too
            size = np.maximum(size, self._reach())
        margin = self.unit * (size + np.maximum(np.abs(drive.low), np.abs(drive.high)))
        return np.minimum(self.beta.low * before, self.beta.high * before) + drive.low - margin

    def _reach(self) -> Array:
        """Largest size of the membrane; resets only lower it when the threshold is not negative."""
        if self._largest is None:
            low, high = self.reset_free()
            reach = np.maximum(np.abs(low), np.abs(high))
            threshold = self.parameters["v_threshold"]
            if "v_reset" in self.parameters:
                ends = self.parameters["v_reset"]
                reach = np.maximum(reach, np.maximum(np.abs(ends.low), np.abs(ends.high)))
            self._largest = np.where(threshold.low >= 0, reach + threshold.high, np.inf)
        return self._largest

    def _after_reset(self, charged: Array, threshold: Range) -> Array:
        if self.variant.reset == "subtract":
            return charged - threshold.high - self.unit * (np.abs(charged) + np.abs(threshold.high))
        if self.variant.reset == "to-value":
            return np.broadcast_to(self.parameters["v_reset"].low, charged.shape)
        return charged


def _is_decay(factor: Range) -> Mask:
    """Tell where a factor is known, finite and not negative, which makes the recurrence monotone."""
    return np.asarray((factor.low >= 0) & np.isfinite(factor.high))


def _limit(drive: Array, decay: Range, *, upper: bool) -> Array:
    """Extreme of drive / (1 - decay) over the decay's interval."""
    slow, fast = drive / (1 - decay.high), drive / (1 - decay.low)
    return np.where((drive >= 0) == upper, slow, fast)


def product(first: Range, second: Range) -> tuple[Array, Array]:
    """Interval product; zero times infinity is zero here because zero factors are exact."""
    with np.errstate(invalid="ignore"):
        ends = [np.nan_to_num(a * b, nan=0.0, posinf=np.inf, neginf=-np.inf)
                for a in (first.low, first.high) for b in (second.low, second.high)]  # fmt: skip
    low, high = ends[0], ends[0]
    for end in ends[1:]:
        low, high = np.minimum(low, end), np.maximum(high, end)
    return low, high
