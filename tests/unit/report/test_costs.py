"""Counted operations are those of a loop over every connection, for all kinds of linear layers."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper

from snn_optimizer.cli.main import cli
from snn_optimizer.execution import Session
from snn_optimizer.execution.data import Dataset
from snn_optimizer.ir import SNNGraph
from snn_optimizer.report.costs import Costs, measure_costs
from tests.support.models import conv, directly_fed, mlp, recurrent, spike_trains


def measured(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> Costs:
    return measure_costs(SNNGraph.from_onnx(model), Dataset.from_arrays(feeds, Session(model).inputs))


def test_a_dense_layer_counts_rows_of_active_inputs() -> None:
    weights = [np.ones((5, 3), np.float32), np.ones((2, 5), np.float32)]
    weights[0][:, 1] = 0
    weights[1][0, :3] = 0
    trains = spike_trains(6, 4, 3)
    found = measured(mlp((3, 5, 2), weights=weights), {"x": trains})
    assert found.layers[0].dense == 6 * 15
    assert found.layers[0].acs == trains[..., [0, 2]].sum() * 5 / 4
    assert found.layers[0].zeros == 5
    assert found.connection_sparsity == 8 / 25
    assert found.effective_macs == 0
    assert found.energy == pytest.approx(0.9 * found.effective_acs)


def test_inputs_that_are_no_spikes_are_multiplied() -> None:
    trains = spike_trains(6, 4, 8)
    found = measured(mlp(), {"x": trains * 0.5})
    assert found.layers[0].acs == 0
    assert found.layers[0].macs == trains.sum() * 16 / 4
    assert found.layers[1].macs == 0
    assert found.energy == pytest.approx(4.6 * found.effective_macs + 0.9 * found.effective_acs)


def connections(maps: np.ndarray, kernel: np.ndarray, strides, pads, dilations, group: int) -> int:
    """Every connection of a two-dimensional convolution, one by one."""
    samples, _, high, wide = maps.shape
    outputs, own, taps_y, taps_x = kernel.shape
    rows = (high + pads[0] + pads[2] - (taps_y - 1) * dilations[0] - 1) // strides[0] + 1
    columns = (wide + pads[1] + pads[3] - (taps_x - 1) * dilations[1] - 1) // strides[1] + 1
    total = 0
    for n, m, c, i, j in itertools.product(range(samples), range(outputs), range(own), range(taps_y), range(taps_x)):
        if kernel[m, c, i, j] == 0:
            continue
        channel = m // (outputs // group) * own + c
        for y, x in itertools.product(range(rows), range(columns)):
            at = y * strides[0] - pads[0] + i * dilations[0], x * strides[1] - pads[1] + j * dilations[1]
            inside = 0 <= at[0] < high and 0 <= at[1] < wide
            total += inside and maps[n, channel, at[0], at[1]] != 0
    return total


def test_one_input_for_the_whole_run_is_multiplied_once() -> None:
    costs = measured(directly_fed(steps=5), {"x": np.ones((70, 8), np.float32)})
    assert costs.steps == 5
    assert [layer.dense for layer in costs.layers] == [8 * 12, 5 * 12 * 4]


@pytest.mark.parametrize(
    ("strides", "pads", "dilations", "group"),
    [
        ([1, 1], [0, 0, 0, 0], [1, 1], 1),
        ([2, 1], [1, 0, 1, 2], [1, 1], 1),
        ([1, 2], [2, 2, 2, 2], [2, 2], 1),
        ([1, 1], [1, 1, 1, 1], [1, 1], 2),
    ],
)
def test_a_convolution_counts_every_connection(strides, pads, dilations, group: int) -> None:
    rng = np.random.default_rng(0)
    kernel = np.where(rng.random((4, 2 // group, 3, 3)) < 0.6, rng.normal(size=(4, 2 // group, 3, 3)), 0)
    attributes = {"strides": strides, "pads": pads, "dilations": dilations, "group": group}
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", **attributes)], "g",
        [helper.make_tensor_value_info("x", 1, ["N", 2, 6, 7])], [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(kernel.astype(np.float32), "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    maps = (rng.random((3, 2, 6, 7)) < 0.4).astype(np.float32)
    data = Dataset({"x": maps}, None, {"x": 0})
    found = measure_costs(SNNGraph.from_onnx(model), data).layers[0]
    assert found.acs == pytest.approx(connections(maps, kernel, strides, pads, dilations, group) / 3)
    everything = connections(np.ones_like(maps), np.ones_like(kernel), strides, pads, dilations, group)
    assert found.dense == pytest.approx(everything / 3)


def test_the_footprint_holds_what_is_computed_with(models: Path) -> None:
    """Weights, biases and five numbers a population; neither the shapes nor the literals of the functions."""
    network = SNNGraph.from_onnx(models / "digits_mlp.onnx")
    data = Dataset.from_arrays({"x": spike_trains(16, 2, 64)}, Session(models / "digits_mlp.onnx").inputs)
    found = measure_costs(network, data).footprint
    assert found == 4 * (128 * 64 + 128 + 10 * 128 + 10 + 2 * 5)
    assert found < network.module.initializer_bytes()


@pytest.mark.parametrize("model", [conv(), recurrent()])
def test_no_layer_is_left_out(model: onnx.ModelProto) -> None:
    shape = [5 if isinstance(size, str) else size for size in Session(model).inputs[0].shape or ()]
    found = measured(model, {"x": spike_trains(*shape)})
    assert len(found.layers) > 1
    assert all(layer.dense for layer in found.layers)
    assert 0 < found.effective_acs < found.dense
    assert 0 < found.activation_sparsity < 1


def test_an_export_costs_what_its_network_costs(models: Path) -> None:
    arguments = ["--data", str(models / "digits_mlp.test.npz"), "--json"]
    raw, plain = (
        json.loads(CliRunner().invoke(cli, ["costs", str(models / name), *arguments], standalone_mode=False).output)
        for name in ("exports/digits_unrolled.onnx", "digits_mlp.onnx")
    )
    assert raw["dense"] == plain["dense"]
    assert raw["effective_acs"] == pytest.approx(plain["effective_acs"], rel=1e-6)
    assert raw["activation_sparsity"] == pytest.approx(plain["activation_sparsity"], rel=1e-6)


def test_the_energies_are_the_callers(models: Path) -> None:
    arguments = ["costs", str(models / "digits_mlp.onnx"), "--data", str(models / "digits_mlp.test.npz"), "--json"]
    found = json.loads(CliRunner().invoke(cli, [*arguments, "--ac-energy", "2"], standalone_mode=False).output)
    assert found["energy"] == pytest.approx(2 * found["effective_acs"] + 4.6 * found["effective_macs"])
