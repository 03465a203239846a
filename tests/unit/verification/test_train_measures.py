"""Measures of spike trains: against elephant, against brute force, and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from elephant import spike_train_dissimilarity as elephant
from neo import SpikeTrain
from quantities import Hz, s

from snn_optimizer.verification.train_measures import (
    TrainComparison,
    coincidence_factor,
    compare_trains,
    van_rossum_distance,
    victor_purpura_distance,
)

STEPS = 20


def trains(seed: int, pairs: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of every kind: silent, dense, several spikes a step, the second a disturbed first."""
    generator = np.random.default_rng(seed)
    rates = np.linspace(0, 0.9, pairs)
    before = (generator.random((STEPS, pairs)) < rates).astype(np.float32)
    after = np.where(generator.random(before.shape) < 0.3, np.roll(before, 1, axis=0), before)
    before[3, -3:] = 3
    after[:, 2] = 0
    return before, after


def as_neo(train: np.ndarray) -> SpikeTrain:
    return SpikeTrain(np.repeat(np.arange(STEPS), train.astype(int)) * s, t_stop=STEPS * s)


@pytest.mark.parametrize("time_scale", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_victor_purpura_is_that_of_elephant(seed, time_scale):
    before, after = trains(seed)
    found = victor_purpura_distance(before, after, time_scale=time_scale)
    for pair in range(before.shape[1]):
        both = [as_neo(before[:, pair]), as_neo(after[:, pair])]
        expected = elephant.victor_purpura_distance(both, cost_factor=1 / time_scale * Hz)[0, 1]
        assert found[pair] == pytest.approx(expected, abs=1e-9)
    assert found.max() > 1


@pytest.mark.parametrize("time_scale", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_van_rossum_is_that_of_elephant(seed, time_scale):
    before, after = trains(seed)
    found = van_rossum_distance(before, after, time_scale=time_scale)
    for pair in range(before.shape[1]):
        both = [as_neo(before[:, pair]), as_neo(after[:, pair])]
        expected = elephant.van_rossum_distance(both, time_constant=time_scale * s)[0, 1]
        assert found[pair] == pytest.approx(float(expected), abs=1e-6)
    assert found.max() > 1


def most_coincidences(before: np.ndarray, after: np.ndarray, reach: int) -> int:
    """The largest one-to-one matching, by trying all."""
    left, right = np.flatnonzero(before), np.flatnonzero(after)
    if len(left) > len(right):
        left, right = right, left
    choices = itertools.permutations(right, len(left))
    return max(int((np.abs(left - np.array(chosen)) <= reach).sum()) for chosen in choices)


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_coincidences_are_the_largest_matching(reach):
    generator = np.random.default_rng(4)
    before, after = ((generator.random((12, 40)) < 0.25).astype(float) for _ in range(2))
    before[:, before.sum(axis=0) > 4] = 0
    after[:, after.sum(axis=0) > 5] = 0
    factor = coincidence_factor(before, after, time_scale=reach)
    checked = 0
    for pair in range(40):
        counts = before[:, pair].sum(), after[:, pair].sum()
        chance = (2 * reach + 1) * counts[1] / 12
        if sum(counts) == 0 or chance >= 1:
            assert np.isnan(factor[pair])
            continue
        found = most_coincidences(before[:, pair], after[:, pair], reach)
        assert factor[pair] == pytest.approx((found - chance * counts[0]) / ((1 - chance) * sum(counts) / 2))
        checked += 1
    assert checked > 10


def test_the_coincidence_factor_is_one_for_equal_and_nothing_for_independent_trains():
    generator = np.random.default_rng(0)
    before, after = ((generator.random((4000, 50)) < 0.05).astype(float) for _ in range(2))
    np.testing.assert_allclose(coincidence_factor(before, before), 1)
    assert abs(coincidence_factor(before, after, time_scale=0).mean()) < 0.01
    shifted = np.roll(before, 1, axis=0)
    assert coincidence_factor(before, shifted, time_scale=0).mean() < 0.05
    assert coincidence_factor(before, shifted, time_scale=1).mean() > 0.95


def test_one_spike_more_and_one_spike_later():
    train = np.zeros((10, 1))
    one, later = train.copy(), train.copy()
    one[4], later[6] = 1, 1
    assert victor_purpura_distance(train, one) == [1]
    assert van_rossum_distance(train, one) == [1]
    assert victor_purpura_distance(one, later, time_scale=4) == [0.5]
    assert victor_purpura_distance(one, later, time_scale=0.5) == [2]
    assert van_rossum_distance(one, later, time_scale=2) == pytest.approx(np.sqrt(2 - 2 * np.exp(-1)))
    assert np.isnan(coincidence_factor(train, train))


def test_a_comparison_of_many_is_the_sum_of_its_parts(monkeypatch):
    before, after = (side.reshape(STEPS, 3, 4) for side in trains(7))
    whole = compare_trains(before, after)
    monkeypatch.setattr("snn_optimizer.verification.train_measures._PAIRS", 2)
    parts = sum((compare_trains(before[:, k], after[:, k]) for k in range(3)), TrainComparison())
    for name, value in whole.to_json().items():
        assert parts.to_json()[name] == pytest.approx(value), name
    assert whole.trains == 12
    assert 0 < whole.equal < 12
    factors = coincidence_factor(before, after)
    assert whole.coincidence == pytest.approx(np.nanmean(factors))
    assert whole.rated == np.isfinite(factors).sum()
    assert whole.victor_purpura == pytest.approx(victor_purpura_distance(before, after).mean())
    assert whole.van_rossum_max == pytest.approx(van_rossum_distance(before, after).max())


def test_nothing_to_compare():
    empty = compare_trains(np.zeros((0, 4)), np.zeros((0, 4)))
    assert (empty.trains, empty.exact_match, empty.coincidence) == (4, 1.0, None)
    assert compare_trains(np.zeros((5, 0)), np.zeros((5, 0))).to_json()["victor_purpura_mean"] == 0
