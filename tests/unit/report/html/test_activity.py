"""What populations did before and after: which neuron is which, and every spike that changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from snn_optimizer import LayerNode, SNNGraph, optimize
from snn_optimizer.execution import Dataset, Session
from snn_optimizer.ir import InputDomain
from snn_optimizer.report.html import activity as module
from snn_optimizer.report.html.activity import Activity, measure_activity
from tests.support.models import spike_trains, streaming

SILENT = [0, 3, 4, 11]
TRAINS = spike_trains(9, 7, 6, rate=0.5)


def planted() -> SNNGraph:
    """Twelve neurons, of which four cannot fire, and a readout."""
    rng = np.random.default_rng(3)
    hidden = rng.normal(0.2, 0.6, (12, 6)).astype(np.float32)
    hidden[SILENT] = -np.abs(hidden[SILENT])
    out = LayerNode("out", 12, 3, rng.normal(0.2, 0.5, (3, 12)).astype(np.float32))
    return SNNGraph(layers=[LayerNode("hidden", 6, 12, hidden), out])


def measured(before: SNNGraph, after: SNNGraph, trains: np.ndarray | None = TRAINS) -> Activity:
    data = None if trains is None else Dataset.from_arrays({"x": trains}, Session(before.to_onnx()).inputs)
    return measure_activity(before, after, data, "data", domain=InputDomain())


def test_removed_neurons_are_known_by_their_numbers() -> None:
    graph = planted()
    after, _ = optimize(graph, passes=["eliminate_dead"])
    found = measured(graph, after).populations["hidden"]
    left = [number for number in range(12) if number not in SILENT]
    assert found.kept is not None
    assert found.kept.tolist() == left
    assert found.before is not None
    assert found.after is not None
    np.testing.assert_array_equal(found.before.rates[left], found.after.rates)
    np.testing.assert_array_equal(found.before.raster[left], found.after.raster)
    assert (found.compared, found.changed) == (9 * 7 * 8, 0)
    np.testing.assert_array_equal(after.unit_origins["hidden"], left)
    assert after.copy().unit_origins["hidden"].tolist() == left
    assert "hidden" not in graph.unit_origins


def test_numbers_stay_right_over_several_passes() -> None:
    graph = planted()
    once, _ = optimize(graph, passes=["eliminate_dead"])
    weights = np.array(once.layers[0].weights)
    weights[2] = -np.abs(weights[2])
    once.layers[0].weights = weights
    twice, _ = optimize(once, passes=["eliminate_dead"])
    assert twice.unit_origins["hidden"].tolist() == [1, 2, 6, 7, 8, 9, 10]


def test_channels_stand_for_all_their_neurons(models: Path) -> None:
    path = models / "digits_conv.onnx"
    graph = SNNGraph.from_onnx(path)
    layer = graph.layers[0]
    weights = np.array(layer.weights)
    bias = np.array(layer.bias)
    weights[1], bias[1] = -np.abs(weights[1]), -1.0
    layer.weights, layer.bias = weights, bias
    after, report = optimize(graph, pipeline="layer-fusion,dead-neuron-elimination")
    assert report.neurons_after < report.neurons_before
    found = measure_activity(graph, after, None, "", domain=InputDomain())
    changed = found.populations[layer.name]
    each = layer.n_neurons // len(weights)
    gone = set(range(layer.n_neurons)) - set(changed.kept.tolist())
    assert gone == set(range(each, 2 * each))
    assert changed.changed == 0
    assert changed.compared > 0


def test_every_changed_spike_is_counted() -> None:
    graph = planted()
    other = graph.copy()
    weights = np.array(other.layers[0].weights)
    weights[[1, 2]] *= 3
    other.layers[0].weights = weights
    found = measured(graph, other)
    first, second = (run(each) for each in (graph, other))
    differs = first != second
    assert differs.any()
    assert found.populations["out"].changed == differs.sum()
    assert found.populations["out"].compared == differs.size
    shown = found.sample
    hidden = found.populations["hidden"]
    assert hidden.changed > 0
    raster = (found.populations["out"].before.raster, found.populations["out"].after.raster)
    np.testing.assert_array_equal(raster[0], first[:, shown].T)
    np.testing.assert_array_equal(raster[1], second[:, shown].T)
    rates = first.mean(axis=(0, 1))
    np.testing.assert_allclose(found.populations["out"].before.rates, rates, rtol=1e-6)


def run(graph: SNNGraph) -> np.ndarray:
    return np.asarray(Session(graph.to_onnx()).run({"x": TRAINS})["spikes"])


def test_without_data_there_are_seeded_trains() -> None:
    graph = planted()
    found = measured(graph, graph, None)
    assert found.source == "generated spike trains (rates 0.05, 0.3, 0.7; seed 0): no data was given"
    assert (found.samples, found.steps) == (24, 25)
    again = measured(graph, graph, None)
    np.testing.assert_array_equal(found.populations["out"].before.raster, again.populations["out"].before.raster)
    np.testing.assert_array_equal(
        found.populations["hidden"].before.potentials, found.populations["hidden"].after.potentials
    )


def test_of_one_step_a_column_is_a_sample() -> None:
    graph = SNNGraph.from_onnx(streaming())
    found = measured(graph, graph, None)
    assert (found.sample, found.steps) == (-1, 1)
    for change in found.populations.values():
        assert change.before.raster.shape[1] == found.samples == 24


def test_large_weights_go_through_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGEST_MESSAGE", 1)
    graph = planted()
    found = measured(graph, graph)
    assert found.omitted == ""
    assert found.populations["out"].compared > 0


def test_what_cannot_run_is_said() -> None:
    graph = planted()
    found = measure_activity(
        graph, SNNGraph(layers=[LayerNode("hidden", 5, 3, np.ones((3, 5)))]), None, "", domain=InputDomain()
    )
    assert found.omitted.startswith("the models could not be watched: ")
    assert found.populations == {}
