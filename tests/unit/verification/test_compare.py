"""Element comparison at each level."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.verification import Level, compare_outputs
from snn_optimizer.verification.compare import Comparison, is_spike_valued, same_bits
from tests.support import models

SEQUENCE = {"y": (0, 1)}


def compared(old, new, level="algebraic", axes=(0, 1), **options) -> Comparison:
    return compare_outputs(
        {"y": np.asarray(old)}, {"y": np.asarray(new)}, level=Level(level), axes={"y": axes}, **options
    )


def spikes() -> np.ndarray:
    return models.spike_trains(6, 4, 3)


def test_equal_outputs():
    found = compared(spikes(), spikes(), "bitwise")
    assert (found.values_compared, found.spikes_compared, found.differing) == (72, 72, 0)
    assert found.spikes_seen == spikes().sum()
    assert found.identical
    assert found.first is None
    assert found.first_steps == {}


def test_the_first_difference_is_the_earliest_step():
    changed = spikes()
    for place in ((4, 0, 2), (2, 3, 1), (3, 1, 0)):
        changed[place] = 1 - changed[place]
    found = compared(spikes(), changed, first_sample=10)
    assert found.differing == found.spikes_differing == 3
    assert (found.first.step, found.first.sample, found.first.index) == (2, 13, (1,))
    assert (found.first.before, found.first.after) == (spikes()[2, 3, 1], changed[2, 3, 1])
    assert found.first_steps == {10: 4, 11: 3, 13: 2}
    assert str(found.first).startswith("output 'y', step 2, sample 13, element [1]: ")


def test_outputs_without_steps_or_samples():
    before, after = np.zeros((4, 3)), np.zeros((4, 3))
    after[2, 1] = 1
    found = compared(before, after, axes=(None, 0))
    assert found.first_steps == {2: None}
    assert (found.first.step, found.first.sample, found.first.index) == (None, 2, (1,))
    found = compared(before, after, axes=(None, None))
    assert found.first_steps == {None: None}
    assert found.first.index == (2, 1)


def test_ignored_samples_do_not_count():
    changed = spikes()
    changed[0, 1] += 1
    changed[3, 2] += 1
    found = compared(spikes(), changed, ignored={1})
    assert found.first.sample == 2
    assert found.differing == 3
    assert compared(spikes(), changed, axes=(None, None), ignored={None}).differing == 0


@pytest.mark.parametrize(
    ("old", "new", "bitwise", "algebraic"),
    [
        (0.0, -0.0, 1, 0),
        (np.nan, np.nan, 0, 0),
        (np.nan, -np.nan, 0, 0),
        (np.nan, 1.0, 1, 1),
        (np.inf, np.inf, 0, 0),
        (np.inf, -np.inf, 1, 1),
        (np.inf, 1.5, 1, 1),
        (0.5, 0.50001, 1, 0),
        (0.5, 0.501, 1, 1),
        (1.0, 1.00001, 1, 0),  # no spike in both, so within tolerance
        (1.0, 2.0, 1, 1),
        (0.0, 1.0, 1, 1),
    ],
)
def test_levels(old, new, bitwise, algebraic):
    shape = np.ones((1, 1, 1), np.float32)
    assert compared(shape * np.float32(old), shape * np.float32(new), "bitwise").differing == bitwise
    found = compared(shape * np.float32(old), shape * np.float32(new), scales={"y": 1.0})
    assert found.differing == algebraic


@pytest.mark.parametrize("level", list(Level))
def test_spikes_are_exact_at_every_level(level):
    changed = spikes()
    changed[5, 3, 2] = 1 - changed[5, 3, 2]
    assert compared(spikes(), changed, level, tolerance=100.0).spikes_differing == 1


def test_tolerance_is_relative_to_the_output():
    old = np.array([[[100.0, 0.3]]], np.float32)
    assert compared(old, old + np.float32(0.005)).differing == 0
    assert compared(old, old + np.float32(0.005), scales={"y": 1.0}).differing == 2
    assert compared(old, old + np.float32(0.005)).max_abs_difference == pytest.approx(0.005, rel=1e-2)


def test_silence_is_only_spike_valued_where_it_may_be():
    zeros = np.zeros((2, 1, 3), np.float32)
    assert compared(zeros, zeros).spikes_compared == 6
    assert compared(zeros, zeros, spike_outputs=[]).spikes_compared == 0


def test_another_shape_differs_in_every_element():
    found = compared(np.zeros((2, 3, 4)), np.zeros((2, 3, 5)))
    assert found.differing == 24
    assert not found.identical
    assert (found.first.before, found.first.after) == ("shape (2, 3, 4)", "shape (2, 3, 5)")
    assert found.max_abs_difference == np.inf


def test_integers_booleans_and_text_are_compared_exactly():
    assert compared([[[3, -4]]], [[[3, -5]]]).differing == 1
    assert compared([[[True, False]]], [[[True, True]]]).spikes_differing == 1
    assert compared(np.array([[["a", "b"]]], object), np.array([[["a", "c"]]], object)).differing == 1


def test_empty_outputs_compare_nothing():
    found = compared(np.zeros((0, 3, 4)), np.zeros((0, 3, 4)))
    assert (found.values_compared, found.differing, found.max_abs_difference) == (0, 0, 0.0)


def test_sums_keep_the_earlier_difference():
    late, early = spikes(), spikes()
    late[4, 2] += 1
    early[1, 3] += 1
    total = compared(spikes(), late) + compared(spikes(), early)
    assert total.first.step == 1
    assert total.first_steps == {2: 4, 3: 1}
    assert total.values_compared == 144
    earliest = spikes()
    earliest[0, 2] += 1
    assert (total + compared(spikes(), earliest)).first_steps == {2: 0, 3: 1}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0.0, 3.0]), True),
        (np.array([0.0, 0.5]), False),
        (np.array([-1.0]), False),
        (np.array([np.nan]), False),
        (np.array([np.inf]), False),
        (np.array([True]), True),
        (np.array([2, 0]), True),
        (np.array([-2]), False),
        (np.array(["a"]), False),
    ],
)
def test_spike_valued(values, expected):
    assert is_spike_valued(values) is expected


def test_same_bits() -> None:
    old = {"y": np.array([0.0, np.nan], np.float32)}
    assert same_bits(old, {"y": old["y"].copy()})
    assert not same_bits(old, {"y": np.array([-0.0, np.nan], np.float32)})
    assert not same_bits(old, {"y": old["y"].astype(np.float64)})
    assert not same_bits(old, {"y": old["y"][None]})
    text = {"y": np.array(["a"], object)}
    assert not same_bits(text, text)
