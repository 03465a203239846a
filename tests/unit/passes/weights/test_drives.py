"""What a regression on filtered signals predicts is what the neurons' membranes do before they reset."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper, parser

from snn_optimizer.analyses import AnalysisManager, UnitGroups
from snn_optimizer.execution import Observer, Session
from snn_optimizer.execution.activity import MeasuredActivity
from snn_optimizer.execution.data import Dataset
from snn_optimizer.ir import SNNGraph
from snn_optimizer.ops import NeuronVariant
from snn_optimizer.passes.weights.drives import Filters, Reading, closeness, drive_weights, filters_of, read
from tests.support.models import directly_fed, mlp


def test_filters_are_those_of_membrane_and_synapse() -> None:
    graph = SNNGraph.from_onnx(mlp((3, 4), variant=NeuronVariant("CubaLIF"), alpha=0.5, beta=0.75))
    groups = AnalysisManager(graph.module).get(UnitGroups)
    filters = filters_of(groups, groups.contractions[0])
    assert (filters.beta, filters.alpha) == pytest.approx((0.75, 0.5))


def test_rows_times_weights_are_the_filtered_drive() -> None:
    rng = np.random.default_rng(0)
    signals = (rng.random((6, 5, 3)) < 0.5).astype(np.float32)
    weights = rng.normal(size=(4, 3))
    graph = SNNGraph.from_onnx(_linear(weights))
    contraction = AnalysisManager(graph.module).get(UnitGroups).contractions[0]
    rows = read(contraction, signals, Filters(0.75, 0.5)).rows
    wanted = np.zeros((6, 5, 4))
    synapse = membrane = np.zeros((5, 4))
    ones = one = 0.0
    constants = []
    for step in range(6):
        synapse = 0.5 * synapse + signals[step] @ weights.T
        membrane = 0.75 * membrane + synapse
        wanted[step] = membrane
        ones = 0.5 * ones + 1
        one = 0.75 * one + ones
        constants.append(one)
    np.testing.assert_allclose(rows @ drive_weights(contraction).T, wanted.reshape(-1, 4), atol=1e-5)
    np.testing.assert_allclose(rows[:, -1], np.repeat(constants, 5), atol=1e-5)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 1, 1, 1]},
        {"strides": [2, 1], "pads": [0, 1, 2, 1]},
        {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
    ],
)
def test_patches_are_what_a_convolution_sums(attributes: dict[str, list[int]]) -> None:
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(4, 2, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", **attributes)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", 1, ["N", 2, 6, 6])],
        [helper.make_tensor_value_info("y", 1, None)], [numpy_helper.from_array(kernel, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    maps = rng.normal(size=(3, 2, 2, 6, 6)).astype(np.float32)
    (found,) = Session(model).run({"x": maps.reshape(6, 2, 6, 6)}).values()
    contraction = AnalysisManager(SNNGraph.from_onnx(model).module).get(UnitGroups).contractions[0]
    rows = read(contraction, maps, Filters()).rows
    wanted = np.moveaxis(found, 1, 3).reshape(-1, 4)
    np.testing.assert_allclose(rows @ drive_weights(contraction).T, wanted, atol=1e-4)


def test_signals_are_placed_in_time_whichever_axis_comes_first() -> None:
    text = {
        "time first": "g (float[T,B,2] x) => (float[N,2] y) <int64[2] s = {-1, 2}> { f = Reshape(x, s) y = Gemm(f, w) }",
        "batch first": "g (float[T,B,2] x) => (float[N,2] y) <int64[2] s = {-1, 2}> "
        "{ t = Transpose<perm = [1, 0, 2]>(x) f = Reshape(t, s) y = Gemm(f, w) }",
        "constant": "g (float[T,B,2] x) => (float[N,2] y) <int64[1] a = {0}> "
        "{ f = ReduceMean<keepdims = 0>(x, a) y = Gemm(f, w) }",
    }
    train = np.random.default_rng(2).random((4, 3, 2)).astype(np.float32)
    for name, graph in text.items():
        model = parser.parse_model('<ir_version: 10, opset_import: ["" : 18]> ' + graph)
        model.graph.initializer.append(numpy_helper.from_array(np.eye(2, dtype=np.float32), "w"))
        data = Dataset.from_arrays({"x": train}, Session(model).inputs)
        loaded = SNNGraph.from_onnx(model)
        gemm = next(node for node in loaded.module.graph.nodes if node.op == "Gemm")
        (found,) = MeasuredActivity(data).read_by(loaded, [gemm])
        wanted = np.broadcast_to(train.mean(axis=0), train.shape) if name == "constant" else train
        assert found is not None
        np.testing.assert_allclose(found, wanted, rtol=1e-6, err_msg=name)


def test_steps_that_only_the_network_knows() -> None:
    model = directly_fed(steps=5)
    current = np.random.default_rng(2).random((70, 8)).astype(np.float32)  # two runs, of 64 and of 6 samples
    data = Dataset.from_arrays({"x": current}, Session(model).inputs)
    loaded = SNNGraph.from_onnx(model)
    linear = [node for node in loaded.module.graph.nodes if node.op == "Gemm"]
    first, second = MeasuredActivity(data).read_by(loaded, linear)
    np.testing.assert_array_equal(first, np.broadcast_to(current, (5, 70, 8)))
    assert first.strides[0] == 0  # computed once
    spikes = Observer(model).trains({"x": current})["lif1"]
    np.testing.assert_array_equal(second, spikes)


def _linear(weights: np.ndarray):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="linear")
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", 1, ["T", "B", 3])],
        [helper.make_tensor_value_info("y", 1, ["T", "B", 4])],
        [numpy_helper.from_array(weights.T.astype(np.float32), "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_closeness_is_one_at_the_threshold_and_falls() -> None:
    distances = np.zeros((2, 3, 4), np.float32)
    distances[1, 2, 3], distances[0, 1, 0], distances[0, 0, 1] = 0.5, np.nan, np.inf
    at = tuple(np.unravel_index(np.arange(6), (2, 3)))
    found = closeness(Reading(np.zeros((6, 5), np.float32), at), distances, 4)
    assert found is not None
    assert found[5, 3] == pytest.approx(0.5)
    assert found[1, 0] == found[0, 1] == 0
    assert (np.delete(found.reshape(-1), [23, 4, 1]) == 1).all()


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 2, 4), (2, 3, 4, 2)])
def test_closeness_is_unknown_where_neurons_lie_otherwise(shape: tuple[int, ...]) -> None:
    at = tuple(np.unravel_index(np.arange(6), (2, 3)))
    assert closeness(Reading(np.zeros((6, 5), np.float32), at), np.zeros(shape, np.float32), 4) is None


def test_distances_to_the_threshold_of_a_population() -> None:
    model = mlp((3, 4))
    data = Dataset.from_arrays({"x": np.ones((5, 2, 3), np.float32)}, Session(model).inputs)
    graph = SNNGraph.from_onnx(model)
    activity = MeasuredActivity(data)
    name = graph.layers[0].name
    found = activity.distances(graph, name)
    assert found is not None
    assert found.shape == (5, 2, 4)
    assert (found >= 0).all()
    assert activity.distances(graph, "nobody") is None
