"""What running two models shows: how many values were compared, and how many differ."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from snn_optimizer.certificates.network import Array, Network, same_numbers
from snn_optimizer.errors import ExecutionError, UnsupportedModelError
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.instrument import expose
from snn_optimizer.execution.ort import Session
from snn_optimizer.ir.domain import InputDomain
from snn_optimizer.verification.stimuli import generate

__all__ = ["Compared", "changed_bits", "compare", "compare_data", "rate_bound", "stimuli"]

_SEEDS: Final = 6  # rounds of all kinds of stimuli
_OF_BITS: Final = 8  # stimuli on which bits of currents are compared
_STEPS, _BATCHES = 16, (8, 1, 2, 3, 4)


@dataclass(frozen=True, slots=True)
class Compared:
    """Outputs of two models on the same inputs.

    Attributes
    ----------
    runs, values, nonzero : int
        Runs, values compared, and those of them that are not zero.
    differing : int
        Values of other bits.
    samples, changed : int
        Samples of the data, and those with a differing output; 0 where samples are not told apart.
    """

    runs: int
    values: int
    nonzero: int
    differing: int
    samples: int = 0
    changed: int = 0

    def to_json(self) -> dict[str, int]:
        """Return the numbers by name."""
        return asdict(self)


def stimuli(before: Network, after: Network, domain: Mapping[str, Any], seed: int) -> Iterator[dict[str, Array]]:
    """Yield inputs of every kind within the declared ranges that both models take, the same for the same seed.

    Raises
    ------
    UnsupportedModelError
        If no number of samples suits both.
    """
    ranges = InputDomain(
        default=tuple(domain["default"]), named={name: tuple(ends) for name, ends in domain["inputs"].items()}
    )
    sessions = before.session, after.session
    ports = sessions[0].inputs
    batch = next((size for size in _BATCHES if _suits(sessions, size)), None)
    if batch is None:
        raise UnsupportedModelError("the models run with no number of samples that was tried, or not alike")
    for number in range(_SEEDS):
        for stimulus in generate(ports, steps=_STEPS, batch=batch, seed=seed + number, ranges=ranges):
            yield dict(stimulus.feeds)


def _suits(sessions: Sequence[Session], batch: int) -> bool:
    """Tell whether models take so many samples: some declare any number and take one only, or spread one over more."""
    feeds = generate(sessions[0].inputs, steps=_STEPS, batch=batch, seed=0)[0].feeds
    try:
        first, *others = [{name: array.shape for name, array in each.run(feeds).items()} for each in sessions]
    except ExecutionError:
        return False
    return all(other == first for other in others)


def compare(before: Network, after: Network, domain: Mapping[str, Any], seed: int) -> Compared:
    """Run two models on stimuli and compare their outputs bit by bit."""
    runs = values = nonzero = differing = 0
    for each in stimuli(before, after, domain, seed):
        one, two = before.session.run(each), after.session.run(each)
        runs += 1
        for name, array in one.items():
            values += array.size
            nonzero += int(np.count_nonzero(array))
            differing += int(np.count_nonzero(_differs(array, two[name])))
    return Compared(runs, values, nonzero, differing)


def compare_data(before: Network, after: Network, data: Dataset) -> Compared:
    """Run two models over samples and count those with a differing output."""
    runs = values = nonzero = differing = changed = 0
    for batch in data.batches(64):
        one, two = before.session.run(batch.feeds), after.session.run(batch.feeds)
        runs += 1
        touched = np.zeros(batch.samples, np.bool_)
        for name, array in one.items():
            other = _differs(array, two[name])
            values += array.size
            nonzero += int(np.count_nonzero(array))
            differing += int(np.count_nonzero(other))
            axis = next((a for a in (1, 0) if other.ndim > a and other.shape[a] == batch.samples), None)
            if axis is None:
                touched |= other.any()
            else:
                touched |= other.any(axis=tuple(i for i in range(other.ndim) if i != axis))
        changed += int(touched.sum())
    return Compared(runs, values, nonzero, differing, data.samples, changed)


def changed_bits(
    before: Network, after: Network, left: Mapping[str, Array], domain: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """Count in how many currents of neurons the bits change: by the rewrite, and by onnxruntime's own optimizer."""
    populations = before.populations()
    currents = {name: made.inputs[0] for name, made in populations.items()}
    others = {name: made.inputs[0] for name, made in after.populations().items() if name in currents}
    currents = {name: currents[name] for name in others}
    if not currents:  # all neurons are in loops
        return {"currents": 0, "changed": 0, "currents_of_the_original": 0, "changed_by_onnxruntime": 0}
    exposed, places = expose(before.model, list(currents.values()))
    changed, theirs = expose(after.model, list(others.values()))
    plain, rewritten = before.session_of(exposed), after.session_of(changed)
    optimized = before.session_of(exposed, optimize=True)
    total = kept = ours = runtime = 0
    for each in itertools.islice(stimuli(before, after, domain, seed), _OF_BITS):
        names = [places[value].output for value in currents.values() if value in places]
        one, three = plain.run(each, names), optimized.run(each, names)
        two = rewritten.run(each, [theirs[value].output for value in others.values() if value in theirs])
        for name, value in currents.items():
            if value not in places or others[name] not in theirs:
                continue
            old, new = one[places[value].output], two[theirs[others[name]].output]
            total += old.size
            runtime += int(np.count_nonzero(_differs(old, three[places[value].output])))
            axis = before.variant(populations[name]).axes_before_units + places[value].stacked
            compared = old if name not in left else np.take(old, left[name], axis=axis)
            kept += compared.size
            ours += int(np.count_nonzero(_differs(compared, new)))
    return {"currents": kept, "changed": ours, "currents_of_the_original": total, "changed_by_onnxruntime": runtime}


def _differs(first: Array, second: Array) -> Array:
    if first.shape != second.shape:
        return np.ones(first.shape, np.bool_)
    return ~same_numbers(first, second)


def rate_bound(samples: int, changed: int, confidence: float = 0.95) -> float:
    """Return below which share of samples outputs change, with this confidence.

    The upper end of Clopper and Pearson's one-sided interval (Biometrika 26, 1934), found by bisection of the binomial
    distribution.
    """
    if changed >= samples:
        return 1.0

    def at_most(rate: float) -> float:
        """Return the probability of ``changed`` successes at most."""
        logs = [
            math.lgamma(samples + 1) - math.lgamma(k + 1) - math.lgamma(samples - k + 1)
            + k * math.log(rate) + (samples - k) * math.log1p(-rate)
            for k in range(changed + 1)
        ]  # fmt: skip
        return sum(math.exp(each) for each in logs)

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(middle) > 1 - confidence else (low, middle)
    return round(high, 9)
