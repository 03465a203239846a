"""Decisions by count, by first spike, by membrane."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.verification.decision_rules import (
    UNDECIDED,
    Agreement,
    decide,
    decide_by_first_spike,
    decision_rules,
)

TRAINS = np.zeros((4, 4, 3))
TRAINS[3, 0, 1] = TRAINS[1, 0, 2] = 1  # sample 0: class 2 fires first, 1 and 2 as often
TRAINS[2:, 1, 0] = TRAINS[0, 1, 1] = 1  # sample 1: class 0 more often, 1 first
TRAINS[1, 2, 1:] = 1  # sample 2: two at the same step
# sample 3: silent


def test_the_first_spike_and_the_count_decide_differently():
    np.testing.assert_array_equal(decide_by_first_spike(TRAINS), [2, 1, 1, UNDECIDED])
    np.testing.assert_array_equal(decide("first-spike", TRAINS, (0, 1)), [2, 1, 1, UNDECIDED])
    np.testing.assert_array_equal(decide("count", TRAINS, (0, 1)), [1, 0, 1, 0])


def test_axes_in_another_order_and_classes_in_several():
    turned = np.moveaxis(TRAINS, [0, 1, 2], [1, 0, 2])
    np.testing.assert_array_equal(decide("first-spike", turned, (1, 0)), [2, 1, 1, UNDECIDED])
    np.testing.assert_array_equal(decide("count", TRAINS[..., np.newaxis], (0, 1)), [1, 0, 1, 0])
    np.testing.assert_array_equal(decide("count", TRAINS.sum(axis=0), (None, 0)), [1, 0, 1, 0])


def test_membranes_decide_at_the_end_or_by_their_peak():
    membranes = np.array([[[0.1, 2.0]], [[0.5, 0.2]]])
    assert decide("membrane-last", membranes, (0, 1)) == [0]
    assert decide("membrane-max", membranes, (0, 1)) == [1]
    assert decide("membrane-last", membranes[1], (None, 0)) == [0]


def test_rules_go_with_the_outputs():
    axes = {"s": (0, 1), "v": (0, 1), "loss": (None, None), "last": (None, 0)}
    spiking = {"s": True, "v": False, "loss": False, "last": False}
    assert decision_rules(axes, spiking) == [
        ("count", "s"),
        ("first-spike", "s"),
        ("membrane-last", "v"),
        ("membrane-max", "v"),
    ]
    assert decision_rules({"last": (None, 0)}, spiking) == [("membrane-last", "last")]
    assert decision_rules({"s": (None, 0)}, spiking) == [("count", "s")]
    assert decision_rules({"loss": (None, None)}, spiking) == []


def test_agreement():
    found = Agreement("count", "s").with_more(np.array([1, 2, 3]), np.array([1, 0, 3]))
    assert found.with_more(np.array([1]), np.array([1])).to_json() == {
        "rule": "count",
        "output": "s",
        "samples": 4,
        "agreeing": 3,
        "share": pytest.approx(0.75),
    }
    assert Agreement("count", "s").share == 1
