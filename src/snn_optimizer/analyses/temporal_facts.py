"""Facts about neurons from what is proved about the spikes they receive.

*First spike.* Up to its first spike the membrane of a neuron is that of the reset-free recurrence, here driven at
every step by the largest current of that step. The first step at which it can pass the threshold is the earliest
spike; where there is none the neuron is silent.

*Discounted current.* The same membrane is the discounted sum of its currents. Spikes that are rare add up to less
than spikes at every step, so this bound may be the smaller one. Both hold, the smaller counts.

*Interval.* After a reset the membrane starts from a bounded potential and has to climb again; the steps this takes
at the largest current are the least from one spike to the next.

*Cap.* Let ``U_k`` be the reset-free membrane under the same currents. Every spike takes at least ``m`` off, and
right after the last one at ``k`` at least ``r`` is left, so ``m D_k <= U_k - r`` for the discounted number of spikes
``D``, which only decays afterwards. Where a reset of ``subtract`` acts one step later, ``theta`` is taken off after
the decay instead of before, and ``D_k <= decay U_k / theta + 1 - decay``.

*Limit.* A neuron that spikes has passed its threshold, so the number that spike in one step is at most the sum of
all positive membranes in units of the thresholds. Few active inputs limit that sum. They limit the discounted
spikes of all neurons together in the same way: each of them takes its share off what came in.

None of this looks ahead: a claim about a step follows from claims about currents up to that step, hence from
claims about spikes of the same step earlier in the graph or of earlier steps. Claims that imply themselves in a
loop are therefore true, by induction over the steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from snn_optimizer.analyses.incoming import Incoming
from snn_optimizer.analyses.intervals import Array, Range
from snn_optimizer.analyses.neuron_bounds import Mask, MembraneRun, NeuronFacts, never_fires, product
from snn_optimizer.analyses.spike_trains import Clock, Train, discounted_sum

__all__ = ["temporal_facts"]

LONGEST_INTERVAL = 32  # steps between spikes that are told apart


def temporal_facts(run: MembraneRun, facts: NeuronFacts, incoming: Incoming) -> NeuronFacts:
    """Return what more is known about a population, and the facts about its spikes for those who read them."""
    if not run.variant.spiking:
        return facts
    with np.errstate(all="ignore"):
        course = _course(run, facts, incoming)
        lowest = facts.lowest
        if incoming.speaks and run.steps is not None and run.variant.operator != "CubaLIF":
            lowest = np.maximum(
                lowest, run.always_firing([course.drives[v] for v in _segment_of_steps(incoming.clock)])
            )
        highest = np.minimum(facts.highest, course.highs.max(axis=0))
        never = facts.never | never_fires(run, highest)
        first = np.where(never, np.inf, np.where(_eligible(run), course.first, 1.0))
        threshold = run.parameters["v_threshold"]
        passes = lowest > threshold.high if run.variant.fire == "gt" else lowest >= threshold.high
        always = facts.always | (passes & np.isfinite(lowest))
        train = _Spikes(run, incoming, highest, course.highs, np.broadcast_to(first, never.shape)).train()
    never, always, highest, lowest = np.broadcast_arrays(never, always, highest, lowest)
    return replace(facts, never=never, always=always, highest=highest, lowest=lowest, train=train)


@dataclass(frozen=True, slots=True)
class _Course:
    """The reset-free membrane: its largest value in every segment, the first step past the threshold, the drives."""

    highs: Array
    first: Array
    drives: list[Range]


def _segment_of_steps(clock: Clock) -> list[int]:
    """Return the segment of every step but those of a last one without end."""
    last = int(clock.ends[-1] if not clock.unbounded else clock.ends[-2])
    return [int(v) for v in np.searchsorted(clock.ends, np.arange(1, last + 1))]


def _eligible(run: MembraneRun) -> Mask:
    """Tell for which neurons staying below the threshold means not firing."""
    return never_fires(run, np.full((), np.finfo(np.float64).min)) & run.known


def _course(run: MembraneRun, facts: NeuronFacts, incoming: Incoming) -> _Course:
    clock, plain = incoming.clock, incoming.current(None)
    shape = np.broadcast_shapes(facts.never.shape, plain.low.shape[1:])
    synaptic = run.variant.operator == "CubaLIF"
    decay = run.parameters["alpha"] if synaptic else run.beta
    signals = [Range.of(plain.low[v], plain.high[v]) for v in range(len(clock.ends))]
    drives = [Range.of(*product(run.gain, signal)) for signal in signals]
    cap = _discounted_bound(run, incoming, decay, synaptic=synaptic)
    highs = np.full((len(clock.ends), *shape), -np.inf)
    first = np.full(shape, np.inf)
    low, high = (np.broadcast_to(end, shape) for end in (run.start.low, run.start.high))
    filtered = run.parameters["i0"] if synaptic else run.start
    for step, v in enumerate(_segment_of_steps(clock), start=1):
        drive = drives[v]
        if synaptic:
            ends = run.step(decay, signals[v], filtered.low, filtered.high)
            filtered = Range.of(ends[0], np.minimum(ends[1], cap[v]))
            drive = Range.of(*product(run.gain, filtered))
        low, high = run.step(run.beta, drive, low, high)
        high = _known(run, high if synaptic else np.minimum(high, cap[v]))
        highs[v] = np.maximum(highs[v], high)
        first = np.where(np.isinf(first) & _may_fire(run, high), step, first)
    if clock.unbounded:
        drive = drives[-1]
        if synaptic:
            ends = run.extremes(decay, signals[-1], filtered)
            drive = Range.of(*product(run.gain, Range.of(ends[0], np.minimum(ends[1], cap[-1]))))
        high = run.extremes(run.beta, drive, Range.of(low, high))[1]
        high = _known(run, high if synaptic else np.minimum(high, cap[-1]))
        highs[-1] = np.maximum(highs[-1], high)
        first = np.where(np.isinf(first) & _may_fire(run, high), clock.starts[-1], first)
    return _Course(highs, first, drives)


def _known(run: MembraneRun, high: Array) -> Array:
    return np.where(run.known & ~np.isnan(high), high, np.inf)


def _may_fire(run: MembraneRun, high: Array) -> Mask:
    threshold = run.parameters["v_threshold"].low
    return np.asarray(~(high <= threshold) if run.variant.fire == "gt" else ~(high < threshold))


def _discounted_bound(run: MembraneRun, incoming: Incoming, decay: Range, *, synaptic: bool) -> Array:
    """Bound the reset-free state in every segment by the discounted sum of what drives it."""
    least, most = float(decay.low.min()), float(decay.high.max())
    if not incoming.speaks or not 0 <= least <= most <= 1:
        return np.full((len(incoming.clock.ends), *(1,) * incoming.rank), np.inf)
    view = incoming.current((least, most))
    start = run.parameters["i0"] if synaptic else run.start
    drive = run.current if synaptic else run.drive
    if not synaptic:
        view = Range.of(*product(run.gain, view))
    reach = np.maximum(*(np.abs(end) for end in run.extremes(decay, drive, start)))
    error = 2 * np.maximum(*run.slack(reach, reach, decay, drive))
    counts = incoming.clock.sums(least, most)[1].reshape(-1, *(1,) * incoming.rank)
    bound = view.high + np.maximum(start.high, 0) + error * counts
    return np.where(np.isnan(bound), np.inf, bound)


class _Spikes:
    """How often the neurons of one population can fire."""

    def __init__(self, run: MembraneRun, incoming: Incoming, highest: Array, highs: Array, first: Array) -> None:
        self.run = run
        self.incoming = incoming
        self.first = first
        self.shape = first.shape
        self.peak = highest
        self.highs = highs
        self.threshold = run.parameters["v_threshold"]
        self.delayed = run.variant.reset == "subtract" and bool(run.variant.reset_delay)
        self.rest = run.parameters["v_reset"] if run.variant.reset == "to-value" else Range.constant(np.zeros(()))
        self.error = self._error()

    def train(self) -> Train:
        """Return the facts."""
        valid = self._valid()
        clock = self.incoming.clock
        caps = np.where(valid, self._caps(), np.inf)
        limit, totals = self._limits(valid)
        return Train(
            clock=clock,
            steps=self.incoming.steps,
            inside=self.incoming.inside,
            size=self.incoming.size,
            first=self.first,
            interval=np.where(valid, self._interval(), 1.0),
            decay=np.broadcast_to(self.run.beta.high, self.shape),
            caps=np.broadcast_to(np.where(np.isnan(caps), np.inf, caps), (len(clock.ends), *self.shape)),
            limit=limit,
            totals=totals,
        )

    def _valid(self) -> Mask:
        """Tell where resets lower the membrane by at least a positive amount, and decay is a decay."""
        run, threshold = self.run, self.threshold
        if run.variant.max_spikes != 1 or run.variant.reset not in {"subtract", "to-value"}:
            return np.zeros(self.shape, np.bool_)
        lowers = (threshold.low > 0) & np.isfinite(threshold.high) & (self.rest.high < threshold.low)
        decays = run.known & (run.beta.high <= 1) & (run.beta.low == run.beta.high)
        return np.broadcast_to(
            lowers & decays & np.isfinite(self.error) & (run.start.high <= threshold.high), self.shape
        )

    def _error(self) -> Array:
        """Bound the rounding of one step, reset included."""
        run, threshold = self.run, self.threshold
        taken = (1 - run.beta.low) * threshold.high if self.delayed else np.zeros(())
        floor = np.minimum(run.start.low, np.minimum(self.rest.low, 0) - 4 * run.unit * threshold.high)
        drive = Range.of(run.drive.low - np.maximum(taken, 0), run.drive.high)
        lowest = run.extremes(run.beta, drive, Range.of(floor, np.maximum(run.start.high, floor)))[0]
        reach = np.maximum(np.abs(lowest), np.abs(self.peak)) + threshold.high
        return np.asarray(2 * np.maximum(*run.slack(reach, reach, run.beta, drive)) + 4 * run.unit * reach)

    def _caps(self) -> Array:
        run = self.run
        ends: Array = self.incoming.clock.ends.reshape(-1, *(1,) * len(self.shape))
        counts = discounted_sum(np.broadcast_to(run.beta.high, self.shape)[np.newaxis], ends)
        reached = np.maximum.accumulate(np.maximum(self.highs, 0), axis=0) + self.error * (counts + 1)
        if self.delayed:
            return np.asarray(run.beta.high * reached / self.threshold.low + 1 - run.beta.high)
        return np.asarray(np.maximum(reached - self.rest.low, 0) / (self.threshold.low - self.rest.high))

    def _interval(self) -> Array:
        """Return the least number of steps from a spike to the next one."""
        potential = self._after_spike()
        interval = np.full(self.shape, np.inf)
        for step in range(1, LONGEST_INTERVAL + 1):
            if step > 1 or not self.delayed:
                potential = self._charged(potential)
            interval = np.where(np.isinf(interval) & _may_fire(self.run, potential), step, interval)
            if not np.isinf(interval).any():
                break
        return np.asarray(np.minimum(interval, LONGEST_INTERVAL))

    def _charged(self, potential: Array) -> Array:
        beta = self.run.beta
        return np.asarray(np.maximum(beta.low * potential, beta.high * potential) + self.run.drive.high + self.error)

    def _after_spike(self) -> Array:
        """Bound the potential right after a spike; of a delayed ``subtract`` that of the step after it.

        A neuron that did not fire was at most at its threshold, so it fires from at most one step above. If what is
        left then is no more than the threshold again, this holds forever.
        """
        threshold = self.threshold
        above = self._charged(threshold.high)
        if self.run.variant.reset == "to-value":
            return np.broadcast_to(self.rest.high, self.shape)
        if self.delayed:
            returns = self._charged(above) - threshold.low <= above
            peak = np.where(returns, np.minimum(above, self.peak), self.peak)
            return self._charged(peak) - threshold.low
        returns = above - threshold.low + self.error <= threshold.high
        return np.where(returns, np.minimum(above, self.peak), self.peak) - threshold.low + self.error

    def _limits(self, valid: Mask) -> tuple[int | None, Array | None]:
        """Return how many neurons can spike in one step, and bounds of their discounted sums together."""
        run = self.run
        alive = np.broadcast_to(np.isfinite(self.first), (self.incoming.size,)) if len(self.shape) == 1 else None
        if alive is None or run.variant.operator == "CubaLIF" or not alive.any() or (alive & ~valid).any():
            return None, None
        if (run.start.high > 0).any() or (self.rest.high > 0).any() or (run.gain.low < 0).any():
            return None, None
        share = np.where(alive, 1 / self.threshold.low, 0.0)
        total = self.incoming.total(share * np.broadcast_to(run.gain.high, share.shape))
        if total is None:
            return None, None
        rounded = float(np.sum(share * self.error))
        counts = discounted_sum(float(run.beta.high.max()), self.incoming.clock.ends)
        most = float(counts[-1]) * (total + rounded) * (1 + 1e-9)
        limit = max(1, int(most)) if np.isfinite(most) and most < int(alive.sum()) else None
        # a reset takes theta - v_reset >= theta off, and leaves v_reset <= 0
        left = float(np.sum(np.where(alive, -np.broadcast_to(self.rest.low, share.shape) * share, 0.0)))
        totals = counts * (total + rounded) + rounded + left
        if self.delayed:
            totals = totals + float(np.sum(alive * (1 - np.broadcast_to(run.beta.low, share.shape))))
        return limit, np.where(np.isnan(totals), np.inf, totals * (1 + 1e-9))
