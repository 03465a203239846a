"""What inputs made of the neurons, on a network small enough to say by hand."""

from __future__ import annotations

import numpy as np

from snn_optimizer.execution import Observer
from snn_optimizer.ops import NeuronVariant
from snn_optimizer.verification.coverage import measure_coverage
from tests.support import models


def by_hand(**options):
    """Five neurons without memory, threshold 1, `>`: one input each for the first two, a bias for the others."""
    weight = np.zeros((5, 2), np.float32)
    weight[0, 0], weight[1, 1] = 2.0, 1.0  # fires when input 0 does; on the threshold when input 1 does
    bias = np.float32([0, 0, 3, 1 - 2e-6, 0.5])  # always; near; never, nowhere near
    return models.mlp((2, 5), weights=[weight], biases=[bias], beta=0.0, **options)


def covered(model, *inputs):
    runs = [{"x": np.asarray(each, np.float32).reshape(-1, 1, 2)} for each in inputs]
    return measure_coverage(Observer(model), runs).populations["lif1"]


def test_every_neuron_is_in_its_place():
    found = covered(by_hand(), [[0, 0], [1, 1], [0, 0]]).to_json()
    assert found == {
        "population": "lif1",
        "neurons": 5,
        "fired": [0, 2],
        "never_fired": [1, 3, 4],
        "always_fired": [2],
        "near_threshold": [1, 3],
        "on_threshold": [1],
        "untested": [4],
    }


def test_runs_add_up():
    model = by_hand()
    assert covered(model, [[0, 0]]).to_json()["fired"] == [2]
    assert covered(model, [[0, 0]], [[1, 0]]).to_json()["fired"] == [0, 2]
    assert covered(model, [[1, 0]], [[0, 0]]).to_json()["always_fired"] == [2]


def test_greater_or_equal_fires_on_the_threshold():
    found = covered(by_hand(variant=NeuronVariant("LIF", fire="ge")), [[1, 1]])
    assert found.to_json()["fired"] == [0, 1, 2]
    assert found.to_json()["on_threshold"] == [1]


def test_readouts_are_no_neurons_to_cover():
    model = models.mlp((2, 5, 3), readout=NeuronVariant("LI"))
    found = measure_coverage(Observer(model), [{"x": np.ones((4, 2, 2), np.float32)}])
    assert list(found.populations) == ["lif1"]
