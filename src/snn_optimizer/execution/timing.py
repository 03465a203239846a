"""Timing calls side by side, and what the measurements say about their ratio.

Calls take turns, and each turn starts with another one, so that whatever slows the machine down slows all of them
and no one follows the same one every time. Ratios are formed within a turn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

__all__ = ["CONFIDENCE", "Ratio", "Seconds", "in_turns", "median_interval", "ratio_of", "summary"]

CONFIDENCE: Final = 0.95
SHORTEST: Final = 0.002  # seconds; a shorter call is repeated within one measurement
MOST_CALLS: Final = 200

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Seconds:
    """Median of the measurements, and the quarters of them that are faster and slower."""

    median: float
    lower: float
    upper: float

    def to_json(self) -> dict[str, float]:
        """Return a JSON-serializable form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Time of one call in the time of another.

    Attributes
    ----------
    median : float
        Of the ratios within the turns.
    low, high : float
        Interval that holds the true median at ``confidence``.
    confidence : float
        0.95 or more, less where there are too few turns for that: then the interval spans all of them.
    """

    median: float
    low: float
    high: float
    confidence: float

    def to_json(self) -> dict[str, float]:
        """Return a JSON-serializable form."""
        return asdict(self)


def in_turns(
    calls: Mapping[str, Call],
    *,
    rounds: int | None = None,
    seconds: float | None = None,
    fewest: int = 6,
    shortest: float = SHORTEST,
    warm_ups: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, list[float]]:
    """Return the seconds of every call in every turn.

    Parameters
    ----------
    calls : mapping from name to callable
    rounds : int, optional
        Turns.
    seconds : float, optional
        Instead of ``rounds``: go on for so long, but for ``fewest`` turns at least.
    shortest : float
        A call that takes less is repeated within a measurement.
    warm_ups : int
        Calls of each before anything is measured, at least one.
    """
    warm = {name: min(_timed(call, 1) for _ in range(warm_ups)) for name, call in calls.items()}
    repeats = {name: max(1, min(MOST_CALLS, round(shortest / max(each, 1e-7)))) for name, each in warm.items()}
    names = list(calls)
    found: dict[str, list[float]] = {name: [] for name in names}
    begin = time.perf_counter()
    turn = 0
    while _goes_on(turn, rounds, seconds, fewest, time.perf_counter() - begin):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            found[name].append(_timed(calls[name], repeats[name]))
        turn += 1
        if progress is not None and rounds is not None:
            progress(turn, rounds)
    return found


def _goes_on(turn: int, rounds: int | None, seconds: float | None, fewest: int, elapsed: float) -> bool:
    if seconds is not None:
        return turn < fewest or elapsed < seconds
    return turn < (rounds or fewest)


def _timed(call: Call, repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats


def summary(measured: Sequence[float]) -> Seconds:
    """Return the median and the quartiles."""
    lower, median, upper = np.quantile(np.asarray(measured), [0.25, 0.5, 0.75])
    return Seconds(float(median), float(lower), float(upper))


def ratio_of(measured: Sequence[float], reference: Sequence[float]) -> Ratio:
    """Return how long one takes in units of another that was measured in the same turns."""
    ratios = np.sort(np.asarray(measured) / np.asarray(reference))
    low, high, confidence = median_interval(len(ratios))
    return Ratio(float(np.median(ratios)), float(ratios[low]), float(ratios[high]), confidence)


def median_interval(number: int, confidence: float = CONFIDENCE) -> tuple[int, int, float]:
    """Return which two of ``number`` ordered observations enclose the true median, and how surely.

    How many observations lie below the median is binomial whatever their distribution, so the narrowest symmetric
    pair of order statistics that reaches ``confidence`` needs no assumption (David and Nagaraja, *Order Statistics*,
    section 7.1). Too few observations give the outermost pair and its lower confidence.
    """
    total = 2**number
    below = 0  # observations of 2^number that would leave the median outside on one side
    rank = 0
    reached = 1 - 2 / total
    while rank < (number - 1) // 2:
        wider = below + math.comb(number, rank)
        inside = (total - 2 * (wider + math.comb(number, rank + 1))) / total
        if inside < confidence:
            break
        below, rank, reached = wider, rank + 1, inside
    return rank, number - 1 - rank, max(reached, 0.0)
