"""How far a path goes when what it costs is measured with noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snn_optimizer.passes.base import Spending
from snn_optimizer.passes.weights.frontier import furthest, never_falling


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=25))
def test_the_fit_never_falls_and_is_the_closest_that_does(series: list[float]) -> None:
    values = np.array(series)
    fit = never_falling(values)
    assert (np.diff(fit) >= -1e-9).all()
    assert fit.mean() == pytest.approx(values.mean(), abs=1e-9)
    # blocks of equal values are means of what they replace, and no split of a block would be closer
    for value in np.unique(fit.round(9)):
        block = values[np.isclose(fit, value, atol=1e-8)]
        assert block.mean() == pytest.approx(value, abs=1e-7)
        starts = np.cumsum(block) / np.arange(1, len(block) + 1)
        assert (starts >= block.mean() - 1e-7).all()


def test_a_series_that_rises_is_its_own_fit() -> None:
    np.testing.assert_allclose(never_falling(np.array([0.0, 1.0, 1.0, np.inf])), [0, 1, 1, np.inf])


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("limit", [0, 1, 17, 60, 100])
def test_without_noise_the_limit_is_found(limit: int, near: bool) -> None:
    asked: list[int] = []

    def measure(point: int) -> Spending:
        asked.append(point)
        share = 1.0 if point == limit else point / max(limit, 0.5)
        return Spending(share <= 1, "", (share,))

    found = furthest(measure, 100, near=near)
    assert found <= limit
    assert found >= limit - max(2, (100 - limit) // 20)  # points lie apart
    assert len(asked) == len(set(asked)) <= 25
    assert 0 not in asked


def test_luck_is_not_taken() -> None:
    """Half the points beyond the limit look free; the furthest of them is far beyond."""
    taken = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        noise = rng.choice([-1.0, 1.0], 101)

        def measure(point: int, noise: np.ndarray = noise) -> Spending:
            shares = (point / 50 + noise[point] * 0.6, point / 50)
            return Spending(max(shares) <= 1, "", shares)

        taken.append(furthest(measure, 100))
    assert max(taken) <= 50
    assert np.mean(taken) > 20


def test_what_cannot_be_measured_is_not_taken() -> None:
    assert furthest(lambda _: Spending(False, "it does not run"), 10) == 0


def test_less_than_the_budget_can_be_asked_for() -> None:
    assert furthest(lambda point: Spending(point <= 50, "", (point / 50,)), 100, limit=0.5) in range(22, 26)


def test_what_is_near_is_found_with_few_measurements() -> None:
    asked: list[int] = []

    def measure(point: int) -> Spending:
        asked.append(point)
        return Spending(point < 3, "", (0.1 if point < 3 else 9.0,))

    assert furthest(measure, 1000, around=0, near=True) == 0
    assert len(asked) <= 3
