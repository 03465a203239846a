"""What a witness refutes is refuted: the neuron fires on it. What cannot fire has none."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.execution import Session
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.observe import Observer
from snn_optimizer.execution.witnesses import find_witnesses
from tests.support.models import mlp, recurrent, spike_trains


def dataset(model, trains) -> Dataset:
    return Dataset.from_arrays({"x": trains}, Session(model).inputs)


def silent_units(model, trains, population: str) -> np.ndarray:
    return ~Observer(model).trains({"x": trains})[population].any(axis=(0, 1))


def test_a_neuron_that_needs_every_input_at_once_is_made_to_fire() -> None:
    weights = np.zeros((4, 10), np.float32)
    weights[0] = 0.031  # nearly all inputs at nearly all steps: the membrane holds at most 3.6 steps' worth
    weights[1] = np.where(np.arange(10) % 2, 0.15, -1.5)  # the odd ones without any of the even ones
    weights[2] = 0.04
    weights[3] = 0.01  # never
    model = mlp((10, 4, 3), weights=[weights, np.eye(3, 4, dtype=np.float32)])
    trains = spike_trains(8, 20, 10, rate=0.3)
    silent = silent_units(model, trains, "lif1")
    assert silent.tolist() == [True, True, True, True]
    found = find_witnesses(model, {"lif1": silent}, dataset(model, trains), {"x": (0.0, 1.0)})["lif1"]
    assert found.tolist() == [True, True, True, False]


def test_only_wanted_units_are_tried() -> None:
    model = mlp()
    wanted = np.zeros(16, np.bool_)
    wanted[3] = True
    found = find_witnesses(model, {"lif1": wanted}, dataset(model, spike_trains(6, 30, 8)), {"x": (0.0, 1.0)})
    assert not found["lif1"][~wanted].any()


@pytest.mark.parametrize("model", [mlp((8, 40, 4), v_threshold=2.5), recurrent(v_threshold=2.0)])
def test_without_a_domain_only_the_data_counts(model) -> None:
    trains = spike_trains(5, 30, Session(model).inputs[0].shape[2], rate=0.1)
    for name in (tap.population for tap in Observer(model).taps):
        silent = silent_units(model, trains, name)
        found = find_witnesses(model, {name: silent}, dataset(model, trains), {})
        assert not found[name].any()


def test_unknown_populations_and_nothing_wanted() -> None:
    model = mlp()
    data = dataset(model, spike_trains(6, 10, 8))
    found = find_witnesses(model, {"nobody": np.ones(3, np.bool_), "lif1": np.zeros(16, np.bool_)}, data, {})
    assert not any(mask.any() for mask in found.values())


def test_witnesses_have_no_more_active_entries_than_declared() -> None:
    """Neuron 0 needs all inputs together, neuron 1 two certain ones, of which none fires in the data."""
    weights = np.zeros((2, 10), np.float32)
    weights[0] = 0.04
    weights[1, [2, 7]] = 0.15
    model = mlp((10, 2, 2), weights=[weights, np.eye(2, dtype=np.float32)])
    trains = np.zeros((8, 12, 10), np.float32)
    trains[:, np.arange(12), np.arange(12) % 10] = 1
    silent = silent_units(model, trains, "lif1")
    assert silent.all()
    data, ends = dataset(model, trains), {"x": (0.0, 1.0)}
    assert find_witnesses(model, {"lif1": silent}, data, ends)["lif1"].tolist() == [True, True]
    assert find_witnesses(model, {"lif1": silent}, data, ends, limits={"x": 2})["lif1"].tolist() == [False, True]
