"""Where two models part, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.execution import Observer
from snn_optimizer.ops import NeuronVariant
from snn_optimizer.verification.divergence import first_divergence
from tests.support import models


def between(before, after, feeds=None):
    feeds = {"x": models.spike_trains(10, 3, 8)} if feeds is None else feeds
    return first_divergence(Observer(before), Observer(after), feeds)


def test_the_first_spike_that_changed():
    model = models.mlp((8, 16, 4))
    threshold = np.ones(16, np.float32)
    threshold[5] = 1e6  # neuron 5 falls silent
    after = models.with_initializer(model, "lif1.v_threshold", threshold)
    feeds = {"x": models.spike_trains(10, 3, 8)}
    spikes = next(iter(Observer(model).observe(feeds))).spikes[..., 5]
    step = int(spikes.any(axis=1).argmax())
    found = between(model, after, feeds)
    assert (found.population, found.what, found.step, found.neuron) == ("lif1", "spikes", step, (5,))
    assert found.sample == int(spikes[step].argmax())
    assert (found.spikes_before, found.spikes_after) == (1, 0)
    assert (found.threshold_before, found.threshold_after) == (1, 1e6)
    assert found.potential_before == found.potential_after > 1
    assert str(found).startswith(f"step {step}, layer 'lif1', neuron 5: spikes 1 became 0 (potential ")
    assert str(found).endswith("threshold 1 became 1000000)")
    assert found.to_json()["neuron"] == [5]


def test_a_potential_where_no_spike_changed():
    model = models.mlp((8, 16, 4), readout=NeuronVariant("LI"))
    after = models.with_initializer(model, "fc2.bias", np.float32([0.1, 0.1, 0.3, 0.1]))
    found = between(model, after)
    assert (found.population, found.what, found.step, found.neuron) == ("lif2", "potential", 0, (2,))
    assert found.potential_after - found.potential_before == pytest.approx(0.2)
    assert found.spikes_before is found.threshold_before is None
    assert "spikes" not in str(found)


def test_a_changed_spike_counts_before_an_earlier_rounding():
    model = models.mlp((8, 16, 4))
    weight = models.initializer(model, "fc1.weight") + np.float32(1e-7)
    threshold = np.ones(4, np.float32)
    threshold[0] = 1e6
    rounded = models.with_initializer(model, "fc1.weight", weight)
    assert between(model, rounded).what == "potential"
    found = between(model, models.with_initializer(rounded, "lif2.v_threshold", threshold))
    assert (found.population, found.what, found.neuron) == ("lif2", "spikes", (0,))


def test_equal_models_and_populations_of_other_sizes():
    model = models.mlp((8, 16, 4))
    assert between(model, model) is None
    assert between(model, models.mlp((8, 12, 4), seed=3)).population == "lif2"
