"""Calls take turns; the interval of a median holds it as often as it says."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from snn_optimizer.execution.timing import CONFIDENCE, in_turns, median_interval, ratio_of, summary


def test_calls_take_turns_and_each_begins_some() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    times = in_turns(calls, rounds=6, shortest=0, warm_ups=1)
    assert {name: len(each) for name, each in times.items()} == {"a": 6, "b": 6, "c": 6}
    measured = order[3:]  # after the warm-up
    turns = ["".join(measured[i : i + 3]) for i in range(0, 18, 3)]
    assert turns == ["abc", "bca", "cab"] * 2


def test_short_calls_are_repeated_within_a_measurement() -> None:
    count = 0

    def call() -> None:
        nonlocal count
        count += 1

    in_turns({"": call}, rounds=2, shortest=0.001)
    assert count > 20


def test_time_instead_of_rounds_has_a_least_number() -> None:
    assert len(in_turns({"": int}, seconds=1e-9, fewest=4, shortest=0)[""]) == 4
    assert len(in_turns({"": int}, seconds=0.01, fewest=4, shortest=0)[""]) > 4


def test_progress_counts_rounds() -> None:
    seen = []
    in_turns({"": int}, rounds=3, shortest=0, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("number", [1, 2, 5, 6, 7, 10, 29, 30, 101, 2000])
def test_the_interval_is_the_narrowest_symmetric_one(number: int) -> None:
    low, high, confidence = median_interval(number)
    assert low + high == number - 1

    def inside(rank: int) -> float:  # that the median lies between ordered observations rank and number - 1 - rank
        return 1 - 2 * sum(math.comb(number, k) for k in range(rank + 1)) / 2**number

    assert confidence == pytest.approx(max(inside(low), 0))
    assert confidence >= CONFIDENCE or low == 0
    assert low + 1 > (number - 1) // 2 or inside(low + 1) < CONFIDENCE


def test_the_interval_holds_the_median() -> None:
    generator = np.random.default_rng(0)
    low, high, confidence = median_interval(15)
    samples = np.sort(generator.exponential(size=(20_000, 15)), axis=1)
    held = ((samples[:, low] <= np.log(2)) & (np.log(2) <= samples[:, high])).mean()
    assert held == pytest.approx(confidence, abs=0.005)


def test_ratios_are_formed_within_turns() -> None:
    reference = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])  # a machine that gets slower and slower
    found = ratio_of(reference / 2, reference)
    assert (found.median, found.low, found.high) == (0.5, 0.5, 0.5)
    shown = summary(list(map(float, range(1, 6))))
    assert (shown.lower, shown.median, shown.upper) == (2, 3, 4)
    assert all(a < b for a, b in pairwise((shown.lower, shown.median, shown.upper)))
