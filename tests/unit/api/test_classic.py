"""The classic programming interface: names, signatures, defaults, in-place behaviour, warnings."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import snn_optimizer
from snn_optimizer import (
    LayerNode,
    OptimizationReport,
    PassResult,
    SNNGraph,
    SNNOptimizer,
    dead_neuron_elimination,
    layer_fusion,
    optimize,
    redundancy_elimination,
)
from snn_optimizer.errors import InputError
from snn_optimizer.execution import Session

RNG_SEED = 7


def network(rates: np.ndarray | None = None, *, bias: np.ndarray | None = None) -> SNNGraph:
    rng = np.random.default_rng(RNG_SEED)
    hidden = LayerNode("hidden", 12, 20, rng.normal(0.2, 0.4, (20, 12)), firing_rates=rates, bias=bias)
    readout = LayerNode("readout", 20, 5, rng.normal(0.1, 0.4, (5, 20)))
    return SNNGraph(layers=[hidden, readout])


def spikes(graph: SNNGraph, seed: int = 0) -> np.ndarray:
    x = (np.random.default_rng(seed).random((16, 8, 12)) < 0.4).astype(np.float32)
    return Session(graph.to_onnx()).run({"x": x})["spikes"]


def test_public_names_are_exactly_those_exported() -> None:
    assert snn_optimizer.__all__ == sorted(snn_optimizer.__all__)
    for name in snn_optimizer.__all__:
        assert getattr(snn_optimizer, name) is not None


def test_signatures_and_defaults() -> None:
    assert inspect.signature(dead_neuron_elimination).parameters["threshold"].default == 0.001
    assert inspect.signature(redundancy_elimination).parameters["correlation_threshold"].default == 0.99
    positional = list(inspect.signature(LayerNode).parameters)[:6]
    assert positional == ["name", "n_inputs", "n_neurons", "weights", "neuron_type", "firing_rates"]


def test_a_graph_from_layers_counts_and_runs() -> None:
    graph = network()
    assert graph.total_neurons == 25
    assert graph.total_params == 12 * 20 + 20 * 5
    assert [layer.name for layer in graph.layers] == ["hidden", "readout"]
    assert (graph.layers[0].n_inputs, graph.layers[0].n_neurons) == (12, 20)
    assert graph.layers[0].neuron_type == "LIF"
    assert spikes(graph).sum() > 0


def test_rates_given_by_hand_remove_neurons_in_place() -> None:
    rates = np.full(20, 0.2)
    rates[[3, 11]] = 0.0
    rates[5] = 0.001
    graph = network(rates)
    rows = graph.layers[0].weights.copy()
    result = dead_neuron_elimination(graph)
    assert isinstance(result, PassResult)
    assert (result.name, result.neurons_removed) == ("dead-neuron-elimination", 3)
    assert (result.params_before, result.params_after) == (340, 340 - 3 * 17)
    assert graph.layers[0].n_neurons == 17
    np.testing.assert_array_equal(graph.layers[0].weights, np.delete(rows, [3, 5, 11], axis=0))
    np.testing.assert_array_equal(graph.layers[0].firing_rates, np.delete(rates, [3, 5, 11]))


def test_rates_assigned_to_a_view_reach_the_pass() -> None:
    graph = network()
    graph.layers[0].firing_rates = np.r_[np.zeros(4), np.full(16, 0.3)]
    assert dead_neuron_elimination(graph, threshold=0.0).neurons_removed == 4
    graph.layers[0].firing_rates = np.full(16, 0.01)
    assert dead_neuron_elimination(graph, threshold=0.02).neurons_removed == 15  # the last unit stays


def test_output_neurons_are_never_removed() -> None:
    graph = network()
    graph.layers[1].firing_rates = np.zeros(5)
    assert dead_neuron_elimination(graph).neurons_removed == 0
    assert graph.layers[1].n_neurons == 5


def test_without_rates_only_proved_neurons_go() -> None:
    bias = np.zeros(20, np.float32)
    bias[[2, 9]] = -20.0
    graph = network(bias=bias)
    before = spikes(graph)
    assert dead_neuron_elimination(graph).neurons_removed == 2
    np.testing.assert_array_equal(spikes(graph), before)


def test_exact_duplicates_are_merged_and_their_columns_summed() -> None:
    graph = network()
    layer = graph.layers[0]
    layer.weights[7] = layer.weights[2]
    before = spikes(graph)
    columns = graph.layers[1].weights.copy()
    result = redundancy_elimination(graph, correlation_threshold=1.0)
    assert result.neurons_removed == 1
    expected = columns.copy()
    expected[:, 2] += expected[:, 7]
    np.testing.assert_array_equal(graph.layers[1].weights, np.delete(expected, 7, axis=1))
    np.testing.assert_array_equal(spikes(graph), before)


def test_near_duplicates_need_a_threshold_and_scale_is_not_similarity() -> None:
    graph = network()
    layer = graph.layers[0]
    layer.weights[7] = layer.weights[2] * 1.001
    layer.weights[8] = layer.weights[4] * 10
    assert redundancy_elimination(graph.copy(), correlation_threshold=1.0).neurons_removed == 0
    assert redundancy_elimination(graph).neurons_removed == 1


def test_copy_is_independent() -> None:
    graph = network()
    twin = graph.copy()
    twin.layers[0].weights[:] = 0
    assert graph.layers[0].weights.any()
    twin.layers[0].firing_rates = np.zeros(20)
    assert graph.layers[0].firing_rates is None


def test_optimize_leaves_its_input_untouched_and_reports() -> None:
    bias = np.zeros(20, np.float32)
    bias[[2, 9]] = -20.0
    graph = network(bias=bias)
    optimized, report = optimize(graph)
    assert isinstance(report, OptimizationReport)
    assert graph.total_neurons == 25
    assert optimized.total_neurons == 23
    assert (report.neurons_before, report.neurons_after) == (25, 23)
    assert (report.params_before, report.params_after) == (graph.total_params, optimized.total_params)
    assert report.compression_ratio == pytest.approx(report.params_before / report.params_after)
    assert [r.name for r in report.pass_results] == [
        "dead-neuron-elimination",
        "redundancy-elimination",
        "layer-fusion",
    ]
    assert report.evidence.verdict == "EQUIVALENT"
    assert "23" in report.summary()


def test_unknown_passes_are_ignored_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="unknown pass 'frobnicate'"):
        _, report = optimize(network(), passes=["frobnicate", "eliminate_dead"])
    assert [r.name for r in report.pass_results] == ["dead-neuron-elimination"]
    assert report.warnings


def test_optimizer_keeps_its_report() -> None:
    opt = SNNOptimizer()
    assert opt.report is None
    optimized = opt.optimize(network(), passes=["prune", "fuse", "eliminate_dead"])
    assert [r.name for r in opt.report.pass_results] == ["prune", "layer-fusion", "dead-neuron-elimination"]
    np.testing.assert_array_equal(spikes(optimized), spikes(network()))


def test_the_classic_fusion_rule_is_direct_only_and_guarded_elsewhere() -> None:
    rates = np.full(20, 0.005)
    graph = network(rates)
    kept, report = optimize(graph, passes=["fuse"])
    assert len(kept.layers) == 2
    assert report.pass_results[0].layers_fused == 0
    result = layer_fusion(graph)
    assert result.layers_fused == 1
    assert [layer.name for layer in graph.layers] == ["readout"]
    assert graph.layers[0].n_inputs == 12
    _, guarded = optimize(network(rates), pipeline="layer-fusion{classic}")
    assert guarded.pass_results[0].status == "rolled back"


def test_a_silent_layer_becomes_its_readers_bias() -> None:
    graph = network(np.zeros(20), bias=np.full(20, -30.0))
    before = spikes(graph)
    assert layer_fusion(graph).layers_fused == 1
    assert [layer.name for layer in graph.layers] == ["readout"]
    np.testing.assert_array_equal(spikes(graph), before)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LayerNode("a", 3, 2, np.zeros((3, 2))), "n_neurons, n_inputs"),
        (lambda: LayerNode("a", 3, 2, np.zeros((2, 3)), "Izhikevich"), "unknown neuron type"),
        (lambda: LayerNode("a", 3, 2, np.zeros((2, 3)), firing_rates=[0.1]), "firing_rates"),
        (lambda: LayerNode("a", 3, 2, np.zeros((2, 3)), firing_rates=[0.1, np.nan]), "finite"),
        (lambda: LayerNode("a", 3, 2, np.zeros((2, 3)), reset="hard"), "reset"),
        (lambda: SNNGraph(layers=[]), "at least one layer"),
        (SNNGraph, "layers"),
        (lambda: SNNGraph(layers=[LayerNode("a", 3, 2, np.zeros((2, 3)))] * 2), "named 'a'"),
        (
            lambda: SNNGraph(layers=[LayerNode("a", 3, 2, np.zeros((2, 3))), LayerNode("b", 3, 1, np.zeros((1, 3)))]),
            "takes 3 inputs but 'a' has 2",
        ),
        (lambda: SNNOptimizer(calibratoin=1), "did you mean 'calibration'"),
        (lambda: optimize(network(), level="O9"), "O9"),
        (lambda: network().layer("hiden"), "no layer 'hiden'"),
    ],
)
def test_mistakes_are_input_errors_in_one_line(build, message) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_neuron_kinds_and_parameters_reach_the_model() -> None:
    rng = np.random.default_rng(1)
    layers = [
        LayerNode("a", 6, 8, rng.normal(0.3, 0.3, (8, 6)), "CubaLIF", alpha=0.5, threshold=np.linspace(0.5, 1, 8)),
        LayerNode("b", 8, 7, rng.normal(0.3, 0.3, (7, 8)), "IF", reset="to-value", v_reset=0.1, fire="ge"),
        LayerNode("c", 7, 3, rng.normal(0.3, 0.3, (3, 7)), "LI", beta=0.8),
    ]
    graph = SNNGraph(layers=layers)
    assert [layer.neuron_type for layer in graph.layers] == ["CubaLIF", "IF", "LI"]
    np.testing.assert_allclose(graph.layers[0].threshold, np.linspace(0.5, 1, 8, dtype=np.float32))
    x = (rng.random((10, 4, 6)) < 0.5).astype(np.float32)
    assert Session(graph.to_onnx()).run({"x": x})["membrane"].any()
    graph.layers[2].beta = 0.5
    assert float(graph.layers[2].beta) == 0.5
    assert "0.5 v" in str(graph)
