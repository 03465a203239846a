"""Weights in eight bits: sums of spikes are exact, weights move by half a level, and what is no spike stays float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from snn_optimizer.api import Job, run_job
from snn_optimizer.errors import PassOptionError
from snn_optimizer.execution import Session
from snn_optimizer.ir import SNNGraph
from snn_optimizer.ops import NeuronVariant
from snn_optimizer.passes import registry
from snn_optimizer.pipeline.budget import Budget
from tests.support.models import conv, initializer, mlp, recurrent, spike_trains, with_initializer

PIPELINE = "quantize-weights{smallest=0}"


def quantized(model: onnx.ModelProto, pipeline: str = PIPELINE):
    graph, report = run_job(model, Job(pipeline=pipeline, verify=False))
    after = graph.to_onnx()
    onnx.checker.check_model(after, full_check=True)
    return after, report


def rules(report, kind: str) -> dict[str, str]:
    return {r.place: r.rule for r in report.remarks if r.kind == kind and r.pass_name == "quantize-weights"}  # noqa: S105


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_a_weight_moves_by_half_a_level_at_most() -> None:
    model = mlp((8, 24, 5))
    after, report = quantized(model)
    found = constants(after)
    levels, scale = found["fc2.weight_int8"], found["fc2.scale"]
    assert levels.dtype == np.int8
    assert np.abs(levels).max(axis=0).tolist() == [127] * 5
    weights = initializer(model, "fc2.weight")
    assert (np.abs(levels.T * scale[:, np.newaxis] - weights) <= scale[:, np.newaxis] / 2 * 1.0001).all()
    assert rules(report, "applied") == {"fc2": "eight-bits"}
    assert rules(report, "missed") == {"fc1": "real-valued-input"}


def test_weights_that_are_levels_already_change_no_spike() -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (5, 24)).astype(np.float32)
    weights[:, 0] = 127
    model = with_initializer(mlp((8, 24, 5)), "fc2.weight", weights / 512)
    after, _ = quantized(model)
    feeds = {"x": spike_trains(20, 60, 8)}
    (old,), (new,) = (Session(each).run(feeds).values() for each in (model, after))
    assert old.any()
    np.testing.assert_array_equal(new, old)


def test_a_neuron_without_synapses_keeps_its_zeros() -> None:
    weights = np.zeros((5, 24), np.float32)
    weights[1] = 0.2
    after, _ = quantized(with_initializer(mlp((8, 24, 5)), "fc2.weight", weights))
    levels = constants(after)["fc2.weight_int8"]
    assert not levels[:, [0, 2, 3, 4]].any()
    assert (levels[:, 1] == 127).all()


@pytest.mark.parametrize(
    ("model", "place", "rule"),
    [
        (mlp((8, 24, 5), variant=NeuronVariant("LIF", max_spikes=0)), "fc2", "real-valued-input"),
        (
            with_initializer(mlp((8, 24, 5)), "fc2.weight", np.full((5, 24), np.nan, np.float32)),
            "fc2",
            "weight-not-finite",
        ),
        (conv(), "conv1", "convolution"),
        (recurrent(), "recurrent1", "real-valued-input"),
    ],
)
def test_what_stays_in_float_says_why(model: onnx.ModelProto, place: str, rule: str) -> None:
    _, report = quantized(model)
    found = rules(report, "missed")
    assert rule in found.values()
    assert found.get(place, rule) == rule


def test_small_layers_stay_in_float_by_default() -> None:
    _, report = quantized(mlp((8, 24, 5)), "quantize-weights")
    assert rules(report, "missed") == {"fc1": "real-valued-input", "fc2": "too-small"}
    with pytest.raises(PassOptionError, match="smallest is -1"):
        registry.create("quantize-weights", {"smallest": -1})


def test_a_wide_network_within_the_budget(models: Path, tmp_path: Path) -> None:
    base = models / "digits_wide"
    graph, report = run_job(
        f"{base}.onnx",
        Job(
            pipeline="@O1,quantize-weights", calibration=f"{base}.calib.npz", test=f"{base}.test.npz",
            budget=Budget(accuracy_drop=0.01),
        ),
    )  # fmt: skip
    assert report.after.bytes < 0.35 * report.before.bytes
    assert (report.accuracy_before or 0) - (report.accuracy_after or 0) <= 0.01
    assert SNNGraph.from_onnx(f"{base}.onnx").total_neurons == graph.total_neurons
    (remark,) = [r for r in report.remarks if r.rule == "eight-bits"]
    assert 0 < float(str(remark.arguments["membrane_bound"])) < 20
    graph.save(tmp_path / "small.onnx")
    Session(tmp_path / "small.onnx", optimize=True)
    assert [layer.n_inputs for layer in SNNGraph.from_onnx(tmp_path / "small.onnx").layers] == [64, 1000, 1000]


def test_a_budget_that_allows_nothing_leaves_the_layer(models: Path) -> None:
    data = {"x": np.load(models / "digits_mlp.calib.npz")["x"]}
    graph, report = run_job(
        models / "digits_mlp.onnx", Job(pipeline=PIPELINE, calibration=data, budget=Budget(spike_change=0.0))
    )
    found = rules(report, "missed")
    quantized_now = any(node.op == "MatMulInteger" for node in graph.module.graph.nodes)
    assert quantized_now == ("over-budget" not in found.values())
