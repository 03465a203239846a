"""The front is what a search over all pairs finds."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.sweep.front import pareto_front


def beaten(merit: np.ndarray, cost: np.ndarray, which: int) -> bool:
    for other in range(len(merit)):
        as_good = merit[other] >= merit[which] and cost[other] <= cost[which]
        if as_good and (merit[other] > merit[which] or cost[other] < cost[which]):
            return True
    return False


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_nothing_beats(seed: int) -> None:
    rng = np.random.default_rng(seed)
    merit, cost = rng.integers(0, 8, 40).astype(float), rng.integers(0, 8, 40).astype(float)
    found = pareto_front(merit, cost)
    assert found.tolist() == [not beaten(merit, cost, i) for i in range(40)]
    assert 0 < found.sum() < 40


def test_equal_points_stand_together() -> None:
    assert pareto_front([0.9, 0.9, 0.8, 0.8], [5, 5, 3, 4]).tolist() == [True, True, True, False]


def test_the_unknown_is_not_on_the_front_and_beats_none() -> None:
    nan = float("nan")
    assert pareto_front([0.9, nan, 1.0], [5, 1, nan]).tolist() == [True, False, False]
    assert pareto_front([], []).tolist() == []
