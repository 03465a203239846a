"""Units planted into trained networks are found, exactly those, and the spikes stay the same.

The networks are the trained samples: dense (Gemm and MatMul), convolutional with pooling, residual, recurrent, and
current-based with a readout. None of them has such units by itself, which the first test states.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from snn_optimizer import SNNGraph
from snn_optimizer.analyses import AnalysisManager
from snn_optimizer.execution import Session
from snn_optimizer.ir import LayerNode, Rewriter, Use
from snn_optimizer.passes import registry
from snn_optimizer.passes.base import Outcome, PassContext
from snn_optimizer.verification import verify

SAMPLES = 30


@dataclass(frozen=True)
class Place:
    """A hidden layer of a sample network; of a residual sum the layers that go together."""

    model: str
    layers: tuple[str, ...]
    positions: int  # neurons of one unit

    def __str__(self) -> str:
        return f"{self.model}-{'+'.join(self.layers)}"


PLACES = [
    Place("digits_mlp", ("lif1",), 1),
    Place("digits_conv", ("lif1",), 64),
    Place("digits_conv", ("lif2",), 16),
    Place("digits_residual", ("lif2",), 64),
    Place("digits_residual", ("lif1", "lif3"), 64),
    Place("digits_recurrent", ("lif1",), 1),
    Place("digits_cuba", ("cuba1",), 1),
]
SINGLE = [place for place in PLACES if len(place.layers) == 1]


def load(models: Path, place: Place) -> SNNGraph:
    graph = SNNGraph.from_onnx(models / f"{place.model}.onnx")
    run(graph, "layer-fusion")  # batch norms would hide the biases
    return graph


def run(graph: SNNGraph, name: str, **options: object) -> Outcome:
    one = registry.create(name, options)
    return one.run(graph, PassContext(AnalysisManager(graph.module), pass_name=name))


def assert_same(models: Path, place: Place, before: SNNGraph, after: SNNGraph) -> None:
    """Trained inputs, generated trains, and inputs sought so that membranes land on thresholds."""
    data = np.load(models / f"{place.model}.test.npz")
    feeds = {"x": data["x"][:, :SAMPLES]}
    old = Session(before.to_onnx()).run(feeds)
    new = Session(after.to_onnx()).run(feeds)
    for name, array in old.items():
        if name == "spikes":
            np.testing.assert_array_equal(new[name], array)
        else:
            np.testing.assert_allclose(new[name], array, rtol=1e-4, atol=1e-4)
    found = verify(before.to_onnx(), after.to_onnx(), batch=8)
    assert found.verdict == "EQUIVALENT", found.reason


def rows(layer: LayerNode, unit: int) -> list[np.ndarray]:
    """Writable rows of a unit in all projections that feed its layer."""
    graph = layer._binding.graph
    return [p.as_matrix(graph.writable(p.weight_use))[unit] for p in layer.projections]


def biases(layer: LayerNode) -> list[np.ndarray]:
    graph = layer._binding.graph
    return [graph.writable(p.bias).reshape(-1) for p in layer.projections if p.bias is not None]


def per_neuron_threshold(layer: LayerNode, graph: SNNGraph) -> np.ndarray:
    """Give a layer one threshold per unit and return them."""
    units = layer.weights.shape[0]
    slot = layer.variant.inputs.index("v_threshold")
    values = np.broadcast_to(layer.threshold.reshape(-1), (units,)).copy()
    trailing = 2 if layer.n_neurons != units else 0
    graph.edit(Use(layer._binding.neuron, slot), values.reshape(units, *[1] * trailing))
    return graph.writable(Use(layer._binding.neuron, slot)).reshape(-1)


def kept(before: np.ndarray, after: np.ndarray, gone: list[int]) -> None:
    np.testing.assert_array_equal(after, np.delete(before, gone, axis=0))


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_nothing_is_found_where_nothing_was_planted(models: Path, place: Place) -> None:
    graph = load(models, place)
    for name in (
        "dead-neuron-elimination",
        "constant-neuron-folding",
        "redundancy-elimination",
        "redundant-connection-removal",
    ):
        assert run(graph, name).changes == 0


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("how", ["bias", "weights", "threshold"])
def test_dead_units_go(models: Path, place: Place, how: str) -> None:
    graph = load(models, place)
    planted = [2, 5]
    for name in place.layers:
        layer = graph.layer(name)
        thresholds = per_neuron_threshold(layer, graph) if how == "threshold" else None
        for unit in planted:
            if how == "bias":
                biases(layer)[0][unit] = -1000.0
            elif how == "threshold":
                thresholds[unit] = 1e6
            else:
                for row in rows(layer, unit):
                    np.minimum(row, 0, out=row)
                for bias in biases(layer):
                    bias[unit] = min(float(bias[unit]), 0.0)
    before = graph.copy()
    weights = [graph.layer(name).weights.copy() for name in place.layers]
    outcome = run(graph, "dead-neuron-elimination")
    assert outcome.neurons_removed == 2 * place.positions * len(place.layers)
    for name, old in zip(place.layers, weights, strict=True):
        new = graph.layer(name).weights
        if new.shape[1] == old.shape[1]:  # fed by nothing that was cut too
            kept(old, new, planted)
        assert new.shape[0] == old.shape[0] - 2
    assert_same(models, place, before, graph)
    assert run(graph, "dead-neuron-elimination").changes == 0


@pytest.mark.parametrize("place", SINGLE, ids=str)
def test_units_that_always_fire_become_a_bias(models: Path, place: Place) -> None:
    graph = load(models, place)
    layer = graph.layer(place.layers[0])
    for unit in (1, 4):
        biases(layer)[0][unit] = 1000.0
    before = graph.copy()
    weights = layer.weights.copy()
    outcome = run(graph, "constant-neuron-folding")
    padded = place == Place("digits_conv", ("lif1",), 64) or place.model == "digits_residual"
    late = place.model == "digits_recurrent"
    # zeros around a map are not ones: the border would see another bias; and the loop starts from no spike at all
    if padded or late:
        assert outcome.changes == 0
        return
    assert outcome.neurons_removed == 2 * place.positions
    kept(weights, graph.layer(place.layers[0]).weights, [1, 4])
    assert_same(models, place, before, graph)


@pytest.mark.parametrize("place", SINGLE, ids=str)
@pytest.mark.parametrize("scale", [1.0, 0.5, 3.0])
def test_duplicates_and_scaled_duplicates_are_merged(models: Path, place: Place, scale: float) -> None:
    graph = load(models, place)
    layer = graph.layer(place.layers[0])
    thresholds = per_neuron_threshold(layer, graph)
    pairs = [(0, 3), (6, 7)]
    for source, copy in pairs:
        thresholds[copy] = thresholds[source] * scale
        for row, other in zip(rows(layer, copy), rows(layer, source), strict=True):
            row[:] = other * np.float32(scale)
        for bias in biases(layer):
            bias[copy] = bias[source] * np.float32(scale)
        for name in ("alpha", "beta"):
            values = layer.parameter(name) if name in layer.variant.inputs else None
            if values is not None and values.size > 1:
                changed = values.copy()
                changed[copy] = changed[source]
                layer.set_parameter(name, changed)
    before = graph.copy()
    weights = layer.weights.copy()
    outcome = run(graph, "redundancy-elimination")
    assert outcome.neurons_removed == 2 * place.positions
    if place.model != "digits_recurrent":
        kept(weights, graph.layer(place.layers[0]).weights, [3, 7])
    assert_same(models, place, before, graph)
    assert run(graph, "redundancy-elimination").changes == 0


@pytest.mark.parametrize("place", SINGLE, ids=str)
def test_what_only_looks_like_a_duplicate_stays(models: Path, place: Place) -> None:
    graph = load(models, place)
    layer = graph.layer(place.layers[0])
    for row, other in zip(rows(layer, 3), rows(layer, 0), strict=True):
        row[:] = other * 10
    for row, other in zip(rows(layer, 5), rows(layer, 4), strict=True):
        row[:] = other
    biases(layer)[0][5] = biases(layer)[0][4] + 0.25
    assert run(graph, "redundancy-elimination").changes == 0


@pytest.mark.parametrize("place", SINGLE, ids=str)
def test_units_without_effect_go_whatever_they_do(models: Path, place: Place) -> None:
    graph = load(models, place)
    layer = graph.layer(place.layers[0])
    units = layer.weights.shape[0]
    following = graph.layers[[x.name for x in graph.layers].index(place.layers[0]) + 1]
    matrix = following.weights
    block = matrix.shape[1] // units
    if place.model == "digits_recurrent":
        for projection in layer.projections:
            if projection.shape == (units, units):
                graph.writable(projection.weight_use)[:, 2] = 0
    matrix[:, 2 * block : 3 * block] = 0
    before = graph.copy()
    outcome = run(graph, "redundant-connection-removal")
    assert outcome.neurons_removed == place.positions
    assert_same(models, place, before, graph)


def test_a_unit_whose_rivals_in_a_residual_sum_live_stays(models: Path) -> None:
    place = Place("digits_residual", ("lif1", "lif3"), 64)
    graph = load(models, place)
    biases(graph.layer("lif3"))[0][2] = -1000.0
    assert run(graph, "dead-neuron-elimination").changes == 0


def test_a_zero_row_with_a_bias_that_fires_is_not_dead(models: Path) -> None:
    graph = load(models, PLACES[0])
    layer = graph.layer("lif1")
    rows(layer, 2)[0][:] = 0
    biases(layer)[0][2] = 0.3  # fires every few steps, whatever the input
    before = graph.copy()
    assert run(graph, "dead-neuron-elimination").changes == 0
    assert run(graph, "constant-neuron-folding").changes == 0
    biases(layer)[0][2] = 0.05  # never gets there
    assert run(graph, "dead-neuron-elimination").changes == 1
    assert before.total_neurons == graph.total_neurons + 1


def test_duplicates_that_feed_each_other_are_merged(models: Path) -> None:
    place = Place("digits_recurrent", ("lif1",), 1)
    graph = load(models, place)
    layer = graph.layer("lif1")
    for row, other in zip(rows(layer, 9), rows(layer, 8), strict=True):
        row[:] = other
    for bias in biases(layer):
        bias[9] = bias[8]
    recurrent = next(p for p in layer.projections if p.shape[0] == p.shape[1])
    matrix = recurrent.as_matrix(graph.writable(recurrent.weight_use))
    matrix[8, 8], matrix[8, 9], matrix[9, 8], matrix[9, 9] = 0.25, 0.125, 0.125, 0.25  # equal only as a pair
    before = graph.copy()
    assert run(graph, "redundancy-elimination").neurons_removed == 1
    assert_same(models, place, before, graph)


def test_parallel_projections_become_one(models: Path) -> None:
    graph = load(models, PLACES[0])
    gemm = next(n for n in graph.module.graph.nodes if n.name == "fc1")
    rewriter = Rewriter(graph.module)
    weight = rewriter.constant("parallel.weight", (np.eye(128, 64) * 0.125).astype(np.float32))
    other = rewriter.value("parallel", np.float32, [None, 128])
    rewriter.add(graph.module.graph, "Gemm", [gemm.inputs[0], weight], [other], {"transB": 1}, name_hint="parallel")
    total = rewriter.value("total", np.float32, [None, 128])
    rewriter.replace_uses(gemm.outputs[0], total)
    rewriter.add(graph.module.graph, "Add", [gemm.outputs[0], other], [total], name_hint="sum")
    rewriter.finish()
    before = graph.copy()
    outcome = run(graph, "redundant-connection-removal")
    assert outcome.details["projections-merged"] == 1
    assert before.total_params - graph.total_params == 128 * 64
    assert_same(models, PLACES[0], before, graph)


def test_unread_inputs_are_skipped(models: Path) -> None:
    graph = load(models, PLACES[0])
    graph.layer("lif1").weights[:, [0, 8, 16, 24, 32, 40]] = 0
    before = graph.copy()
    outcome = run(graph, "redundant-connection-removal")
    assert outcome.details["inputs-skipped"] == 6
    assert before.total_params - graph.total_params == 6 * 128
    assert_same(models, PLACES[0], before, graph)


def test_cutting_one_reader_of_a_shared_weight_leaves_the_other(models: Path) -> None:
    rng = np.random.default_rng(0)
    from snn_optimizer import LayerNode as Layer

    shared = rng.normal(0.3, 0.4, (10, 10))
    first = Layer("a", 10, 10, shared, bias=np.r_[np.full(2, -50.0), np.zeros(8)])
    graph = SNNGraph(layers=[first, Layer("b", 10, 10, shared), Layer("c", 10, 4, rng.normal(0.2, 0.4, (4, 10)))])
    nodes = [n for n in graph.module.graph.nodes if n.op == "MatMul"]
    rewriter = Rewriter(graph.module)
    rewriter.set_input(nodes[1], 1, nodes[0].inputs[1])
    rewriter.finish()
    x = {"x": (rng.random((12, 20, 10)) < 0.5).astype(np.float32)}
    old = Session(graph.to_onnx()).run(x)["spikes"]
    assert old.any()
    assert run(graph, "dead-neuron-elimination").neurons_removed == 2
    assert [layer.weights.shape for layer in graph.layers] == [(8, 10), (10, 8), (4, 10)]
    np.testing.assert_array_equal(Session(graph.to_onnx()).run(x)["spikes"], old)
