"""Levels and scales: nearest levels, the best of a few scales, and rounding that the other inputs make up for."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.passes.weights.compensation import with_ridge
from snn_optimizer.passes.weights.rounding import blocks, compensated, nearest, scales_of

Array = np.ndarray


def traces(seed: int, inputs: int, rows: int = 600) -> Array:
    """Filtered spikes of a few hidden causes, and a constant."""
    rng = np.random.default_rng(seed)
    causes = rng.random((rows, 4)) < 0.3
    mixing = rng.random((4, inputs)) < 0.4
    trains = ((causes @ mixing) > 0) ^ (rng.random((rows, inputs)) < 0.1)
    found = trains.astype(np.float64)
    for row in range(1, rows):
        found[row] += 0.8 * found[row - 1]
    return np.concatenate([found, np.ones((rows, 1))], axis=1)


def missed(rows: Array, weights: Array, levels) -> float:
    """Mean squared error of the drive."""
    rounded = np.concatenate([levels.weights(slice(None)), (weights[:, -1] + levels.bias)[:, np.newaxis]], axis=1)
    return float((((rounded - weights) @ rows.T) ** 2).mean())


@pytest.mark.parametrize("bits", [4, 8])
def test_nearest_levels(bits: int) -> None:
    weights = np.random.default_rng(0).normal(size=(30, 50)).astype(np.float32)
    found = nearest(weights, bits, "free")
    most = 2 ** (bits - 1) - 1
    assert np.abs(found.levels).max() == most
    inside = np.abs(weights) <= most * found.scale[:, np.newaxis]
    error = np.abs(found.weights(slice(None)) - weights)
    assert (error[inside] <= (found.scale[:, np.newaxis] / 2 * 1.0001 * np.ones_like(weights))[inside]).all()
    assert inside.mean() > 0.95


def test_four_bits_choose_a_scale_that_is_nearer_on_the_whole() -> None:
    weights = np.random.default_rng(0).normal(size=(30, 500))
    largest = np.abs(weights).max(axis=1) / 7
    found = nearest(weights, 4, "free")
    assert (found.scale <= largest.astype(np.float32)).all()
    plain = np.rint(weights / largest[:, np.newaxis]) * largest[:, np.newaxis]
    errors = [((one - weights) ** 2).sum(axis=1) for one in (found.weights(slice(None)), plain)]
    assert (errors[0] <= errors[1] * 1.0001).all()
    assert errors[0].sum() < 0.8 * errors[1].sum()


@pytest.mark.parametrize("bits", [4, 8])
def test_powers_of_two(bits: int) -> None:
    weights = np.random.default_rng(0).normal(size=(30, 50)) * np.logspace(-6, 6, 30)[:, np.newaxis]
    weights[3] = 0
    weights[4] = 0.5 * (2 ** (bits - 1) - 1)  # fits a power of two exactly
    scale = scales_of(weights, bits, "power-of-two")
    fractions, _ = np.frexp(scale)
    assert (fractions == 0.5).all()
    assert scale[3] == 1
    assert scale[4] == 0.5
    most = 2 ** (bits - 1) - 1
    assert (np.abs(weights).max(axis=1) <= most * scale * 1.000001).all()
    assert (np.delete(np.abs(weights).max(axis=1) > most * scale / 2, 3)).all()


def test_numbers_that_float32_can_hardly_hold() -> None:
    weights = np.array([[1e-44, -1e-44], [3e38, -3e38], [0.0, 0.0], [1e-38, 2e-36]], np.float32)
    for bits in (4, 8):
        found = nearest(weights, bits, "free")
        assert np.isfinite(found.scale).all()
        assert (found.scale > 0).all()
        np.testing.assert_allclose(found.weights(slice(None))[1], weights[1], rtol=0.2)
        assert not found.levels[0].any()


def test_no_inputs_at_all() -> None:
    found = nearest(np.zeros((3, 0), np.float32), 8, "free")
    assert found.scale.tolist() == [1, 1, 1]
    assert found.levels.shape == (3, 0)


def test_blocks_cover_every_row_once() -> None:
    for shape in ((0, 5), (7, 0), (3, 10**7), (10_000, 100)):
        rows = np.concatenate([np.arange(shape[0])[block] for block in blocks(shape)] or [np.zeros(0)])
        np.testing.assert_array_equal(rows, np.arange(shape[0]))


@pytest.mark.parametrize("kind", ["free", "power-of-two"])
@pytest.mark.parametrize("inputs", [20, 300])  # less and more than a block
def test_the_others_make_up_for_rounding(kind: str, inputs: int) -> None:
    rows = traces(1, inputs, 1500)
    weights = np.random.default_rng(2).normal(size=(16, inputs + 1))
    weights[:, -1] = 0
    moments = rows.T @ rows / len(rows)
    alone = nearest(weights[:, :-1], 4, kind)
    found = compensated(weights, moments, 4, kind, 1e-3)
    assert found is not None
    assert missed(rows, weights, found) < 0.5 * missed(rows, weights, alone)


def test_one_input_at_a_time_by_the_book() -> None:
    """Against the plain form: round one, give the best least-squares change to those that are left."""
    rows = traces(3, 12)
    weights = np.random.default_rng(4).normal(size=(5, 13))
    moments = rows.T @ rows / len(rows)
    found = compensated(weights, moments, 4, "free", 1e-3)
    assert found is not None
    system = with_ridge(moments, 1e-3)
    order = np.argsort(-np.diagonal(system)[:-1], kind="stable")
    left = weights.copy()
    for place, column in enumerate(order):
        later = np.append(order[place + 1 :], 12)
        rounded = np.clip(np.rint(left[:, column] / found.scale), -7, 7) * found.scale
        change = rounded - left[:, column]
        left[:, column] = rounded
        inner = system[np.ix_(later, later)]
        left[:, later] -= np.linalg.solve(inner, np.outer(system[later, column], change)).T
    np.testing.assert_allclose(found.weights(slice(None)), left[:, :-1], atol=1e-5)
    np.testing.assert_allclose(found.bias, left[:, -1], atol=1e-6)


def test_zeros_of_a_sparse_layer_stay() -> None:
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(16, 41)) * (rng.random((16, 41)) < 0.2)
    rows = traces(6, 40)
    found = compensated(weights, rows.T @ rows / len(rows), 4, "free", 1e-3)
    assert found is not None
    assert not found.levels[weights[:, :-1] == 0].any()
    assert found.levels.any()


def test_inputs_that_never_fire_are_rounded_alone() -> None:
    rows = traces(7, 10)
    rows[:, 3] = 0
    weights = np.random.default_rng(8).normal(size=(6, 11))
    found = compensated(weights, rows.T @ rows / len(rows), 8, "free", 1e-3)
    assert found is not None
    assert np.abs(found.weights(slice(None))[:, 3] - weights[:, 3]).max() < 0.05


def test_moments_that_say_nothing() -> None:
    assert compensated(np.ones((2, 4)), np.full((4, 4), np.nan), 8, "free", 1e-3) is None
