"""Leaving inputs out costs what a new least-squares fit says, one after the other and in groups; zeros stay zeros."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.passes.weights.compensation import Elimination, refit, refit_weighted, saliences, with_ridge

Array = np.ndarray


def signals(seed: int, inputs: int, rows: int = 400) -> Array:
    rng = np.random.default_rng(seed)
    trains = (rng.random((rows, inputs)) < rng.uniform(0.1, 0.6, inputs)).astype(np.float64)
    trains[:, 1] = np.where(rng.random(rows) < 0.8, trains[:, 0], trains[:, 1])  # two that are alike
    return np.concatenate([trains, np.ones((rows, 1))], axis=1)


def smallest_error(rows: Array, weights: Array, gone: list[int]) -> float:
    """The error of the drive after a fit from scratch without some inputs."""
    drive = rows @ weights.T
    kept = np.delete(rows, gone, axis=1)
    fitted = np.linalg.lstsq(kept, drive, rcond=None)[0]
    return float(((kept @ fitted - drive) ** 2).sum() / len(rows))


@pytest.mark.parametrize("size", [1, 3])
def test_costs_are_those_of_a_fit_from_scratch(size: int) -> None:
    rows = signals(0, 24)
    weights = np.random.default_rng(1).normal(size=(5, 25))
    groups = [np.arange(start, start + size) for start in range(0, 24, size)]
    elimination = Elimination(with_ridge(rows.T @ rows / len(rows), 0.0), weights, groups)
    gone: list[int] = []
    total = 0.0
    for _ in range(len(groups) - 2):
        costs = elimination.costs()
        cheapest = int(np.argmin(costs))
        elimination.leave_out(cheapest)
        gone += groups[cheapest].tolist()
        total += costs[cheapest] * elimination.energy
        assert total == pytest.approx(smallest_error(rows, weights, gone), rel=1e-4, abs=1e-9)
    assert np.isinf(elimination.costs()).sum() == len(groups) - 2


def test_the_cheapest_is_the_one_another_stands_in_for() -> None:
    rows = signals(3, 10)
    rows[:, 4] = rows[:, 2] + rows[:, 7]
    weights = np.random.default_rng(4).normal(size=(3, 11))
    groups = [np.array([each]) for each in range(10)]
    costs = Elimination(with_ridge(rows.T @ rows / len(rows), 1e-9), weights, groups).costs()
    assert set(np.argsort(costs)[:3].tolist()) == {2, 4, 7}
    assert costs[[2, 4, 7]].max() < 1e-6 < np.delete(costs, [2, 4, 7]).min()


def test_a_group_that_nothing_reads_costs_nothing() -> None:
    rows = signals(5, 6)
    groups = [np.array([0]), np.zeros(0, np.int64), np.array([1, 2])]
    elimination = Elimination(with_ridge(rows.T @ rows, 1e-3), np.ones((2, 7)), groups)
    assert elimination.costs()[1] == 0
    elimination.leave_out(1)
    assert elimination.costs()[1] == np.inf


def test_a_refit_gives_back_the_drive_where_that_is_possible() -> None:
    rows = signals(6, 12)
    rows[:, 5] = rows[:, 0] - 0.5 * rows[:, 3] + 0.25
    weights = np.random.default_rng(7).normal(size=(4, 13))
    kept = np.delete(np.arange(13), 5)
    now = rows[:, kept]
    new = refit(now.T @ now, now.T @ rows, weights[:, kept], weights, 1e-10)
    np.testing.assert_allclose(now @ new.T, rows @ weights.T, atol=1e-5)


def test_a_refit_is_the_ridge_regression_towards_the_old_weights() -> None:
    rows = signals(8, 9)
    weights = np.random.default_rng(9).normal(size=(3, 10))
    kept = np.delete(np.arange(10), [2, 6])
    now, old = rows[:, kept], weights[:, kept]
    new = refit(now.T @ now, now.T @ rows, old, weights, 0.05)
    scale = np.mean(np.diagonal(now.T @ now)[:-1]) * 0.05
    pull = np.diag([np.sqrt(scale)] * (len(kept) - 1) + [0.0])
    stacked, wanted = np.concatenate([now, pull]), np.concatenate([rows @ weights.T, pull @ old.T])
    np.testing.assert_allclose(new, np.linalg.lstsq(stacked, wanted, rcond=None)[0].T, atol=1e-8)


@pytest.mark.parametrize("density", [0.1, 0.4])
def test_a_sparse_layer_keeps_its_zeros(density: float) -> None:
    rng = np.random.default_rng(10)
    rows = signals(11, 30)
    weights = np.where(rng.random((6, 31)) < density, rng.normal(size=(6, 31)), 0)
    kept = np.delete(np.arange(31), np.arange(0, 12))
    now, old = rows[:, kept], weights[:, kept]
    new = refit(now.T @ now, now.T @ rows, old, weights, 1e-3)
    assert not new[:, :-1][old[:, :-1] == 0].any()
    gap = ((now @ new.T - rows @ weights.T) ** 2).sum()
    assert gap < 0.75 * ((now @ old.T - rows @ weights.T) ** 2).sum()
    elimination = Elimination(with_ridge(rows.T @ rows, 1e-3), weights, [np.array([each]) for each in range(30)])
    before = int((weights[:, :-1] != 0).sum())
    elimination.leave_out(0)
    assert int((elimination.weights[:, :-1] != 0).sum()) <= before


def test_conjugate_gradients_find_what_a_direct_solution_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(12)
    rows = signals(13, 40)
    weights = rng.normal(size=(7, 41))
    old = np.where(rng.random((7, 41)) < 0.5, weights, 0)
    arguments = (rows.T @ rows, rows.T @ rows, old, weights, 1e-3)
    direct = refit(*arguments, sparse=True)
    monkeypatch.setattr("snn_optimizer.passes.weights.compensation._DIRECT", 0.0)
    turns = refit(*arguments, sparse=True)
    np.testing.assert_allclose(turns, direct, atol=1e-4)
    assert not turns[:, :-1][old[:, :-1] == 0].any()


def test_a_salience_is_the_error_of_a_fit_without_that_weight() -> None:
    rows = signals(14, 8)
    weights = np.random.default_rng(15).normal(size=(3, 9))
    moments = rows.T @ rows / len(rows)
    found = saliences(with_ridge(moments, 0.0), weights)
    energy = float(np.sum((weights @ moments) * weights))
    for row, column in ((0, 0), (1, 4), (2, 7)):
        error = smallest_error(rows, weights[row : row + 1], [column])
        assert found[row, column] * energy == pytest.approx(error, rel=1e-3)


def test_equal_weights_of_observations_are_no_weights() -> None:
    rng = np.random.default_rng(4)
    rows, weights = rng.normal(size=(90, 7)).astype(np.float32), rng.normal(size=(3, 7))
    kept = [0, 2, 3, 6]
    now, old = rows[:, kept], weights[:, kept]
    plain = refit(now.T @ now / 90, now.T @ rows / 90, old, weights, 1e-3)
    drive = np.asarray(rows @ weights.T, np.float64)
    even = np.full((90, 3), 0.25, np.float32)
    np.testing.assert_allclose(refit_weighted(now, drive, even, old, 1e-3, sparse=False), plain, atol=1e-5)


def test_observations_near_the_threshold_are_met_better() -> None:
    rng = np.random.default_rng(5)
    rows, weights = rng.normal(size=(200, 8)).astype(np.float32), rng.normal(size=(2, 8))
    now, old, drive = rows[:, [1, 2, 3, 7]], weights[:, [1, 2, 3, 7]], np.asarray(rows @ weights.T, np.float64)
    near = np.where(np.arange(200) < 40, 1.0, 0.01).astype(np.float32)[:, np.newaxis] * np.ones(2, np.float32)
    plain = refit(now.T @ now / 200, now.T @ rows / 200, old, weights, 1e-3)
    close = refit_weighted(now, drive, near, old, 1e-3, sparse=False)
    errors = [np.square(drive - now @ each.T)[:40].mean() for each in (close, plain)]
    assert errors[0] < errors[1]


def test_zeros_stay_zero_with_weighted_observations() -> None:
    rng = np.random.default_rng(6)
    rows, weights = rng.normal(size=(80, 9)).astype(np.float32), rng.normal(size=(4, 9))
    weights[:, :-1] *= rng.random((4, 8)) < 0.4
    even = rng.random((80, 4)).astype(np.float32)
    new = refit_weighted(rows, np.asarray(rows @ weights.T, np.float64), even, weights, 1e-3, sparse=True)
    assert not new[:, :-1][weights[:, :-1] == 0].any()
