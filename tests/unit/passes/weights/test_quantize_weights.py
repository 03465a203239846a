"""Weights in few bits: what is computed is the network of the rounded weights, and what cannot be rounded says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from snn_optimizer.api import Job, run_job
from snn_optimizer.errors import InputError, PassOptionError
from snn_optimizer.execution import Dataset, Session
from snn_optimizer.ir import SNNGraph, weights_of
from snn_optimizer.ops import NeuronVariant
from snn_optimizer.passes import registry
from snn_optimizer.pipeline.budget import Budget
from snn_optimizer.report.costs import measure_costs
from tests.support.models import (
    LIF,
    ModelBuilder,
    conv,
    initializer,
    mlp,
    recurrent,
    spike_trains,
    streaming,
    with_initializer,
)

READOUT = NeuronVariant("LI")


def quantized(model: onnx.ModelProto, options: str = "smallest=0"):
    graph, report = run_job(model, Job(pipeline=f"quantize-weights{{{options}}}", verify=False))
    after = graph.to_onnx()
    onnx.checker.check_model(after, full_check=True)
    return after, report


def rules(report, kind: str) -> dict[str, str]:
    return {r.place: r.rule for r in report.remarks if r.kind == kind and r.pass_name == "quantize-weights"}  # noqa: S105


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def run(model: onnx.ModelProto, feeds, *, optimize: bool = False) -> np.ndarray:
    return next(iter(Session(model, optimize=optimize).run(feeds).values()))


def decoded(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The weights that linear nodes read, as the nodes in front of them compute them."""
    graph = SNNGraph.from_onnx(model)
    nodes = [node for scope in graph.module.scopes() for node in scope.graph.nodes]
    return {node.name: weights_of(node.inputs[1]) for node in nodes if node.op in ("Conv", "Gemm", "MatMulInteger")}


def with_rounded(model: onnx.ModelProto, after: onnx.ModelProto) -> onnx.ModelProto:
    """The float model with the weights that the quantized one computes."""
    found = decoded(after)
    graphs = [model.graph, *(a.g for node in model.graph.node for a in node.attribute if a.HasField("g"))]
    for node in [node for graph in graphs for node in graph.node]:
        if node.op_type in ("Conv", "Gemm"):
            model = with_initializer(model, node.input[1], found[node.name])
    return model


# -- what is stored ------------------------------------------------------------------------


def test_a_weight_moves_by_half_a_level_at_most() -> None:
    model = mlp((8, 24, 16))
    after, report = quantized(model, "smallest=0 arithmetic=integer")
    levels, scale = constants(after)["fc2.weight_int8"], constants(after)["lif2.gain"]
    assert levels.dtype == np.int8
    assert np.abs(levels).max(axis=0).tolist() == [127] * 16
    weights = initializer(model, "fc2.weight")
    assert (np.abs(levels.T * scale[:, np.newaxis] - weights) <= scale[:, np.newaxis] / 2 * 1.0001).all()
    assert rules(report, "applied") == {"fc2": "eight-bits"}
    assert rules(report, "missed") == {"fc1": "real-valued-input"}


def test_weights_that_are_levels_already_change_no_spike() -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (16, 24)).astype(np.float32)
    weights[:, 0] = 127
    model = with_initializer(mlp((8, 24, 16)), "fc2.weight", weights / 512)
    after, _ = quantized(model, "smallest=0 arithmetic=integer")
    feeds = {"x": spike_trains(20, 60, 8)}
    assert run(model, feeds).any()
    np.testing.assert_array_equal(run(after, feeds), run(model, feeds))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("arithmetic", ["float", "integer"])
def test_a_neuron_without_synapses_keeps_its_zeros(bits: int, arithmetic: str) -> None:
    weights = np.zeros((40, 64), np.float32)
    weights[1] = 0.2
    model = mlp((8, 64, 40), biases=[np.full(n, 0.4, np.float32) for n in (64, 40)])
    model = with_initializer(model, "fc2.weight", weights)
    after, _ = quantized(model, f"smallest=0 bits={bits} arithmetic={arithmetic}")
    feeds = {"x": spike_trains(9, 7, 8)}
    unchanged = np.arange(40) != 1
    assert run(model, feeds)[..., unchanged].any()
    np.testing.assert_array_equal(run(after, feeds)[..., unchanged], run(model, feeds)[..., unchanged])


@pytest.mark.parametrize("sizes", [(33, 31, 3), (33, 31, 33)])
def test_four_bits_are_two_weights_to_a_byte(sizes) -> None:
    """An odd number of weights fills the last byte with a zero."""
    model = mlp(sizes, readout=READOUT)
    after, _ = quantized(model, "bits=4 arithmetic=float")
    held = {name: array for name, array in constants(after).items() if name.endswith("_int4")}
    assert held["fc1.weight_int4"].nbytes == (33 * 31 + 1) // 2
    feeds = {"x": spike_trains(5, 3, sizes[0])}
    np.testing.assert_array_equal(run(after, feeds), run(with_rounded(model, after), feeds))


# -- what is computed ----------------------------------------------------------------------


def streamed(batch: int) -> dict[str, np.ndarray]:
    rest = {"v1": np.zeros((batch, 64), np.float32), "v2": np.zeros((batch, 40), np.float32)}
    return {"x": spike_trains(batch, 30, rate=0.8)} | rest


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", ["mlp", "conv", "recurrent", "streaming"])
def test_the_float_form_is_the_network_of_the_rounded_weights(kind: str, bits: int, batch: int) -> None:
    """Bit for bit: with and without the runtime's own optimizer, in bodies of loops, for any number of samples."""
    model, feeds = {
        "mlp": (mlp((30, 64, 40)), {"x": spike_trains(7, batch, 30)}),
        "conv": (conv(channels=16, classes=10), {"x": spike_trains(6, batch, 1, 6, 6)}),
        "recurrent": (recurrent(inputs=40, units=40), {"x": spike_trains(7, batch, 40)}),
        "streaming": (streaming((30, 64, 40)), streamed(batch)),
    }[kind]
    after, report = quantized(model, f"bits={bits} arithmetic=float")
    assert set(rules(report, "applied").values()) == {"eight-bits" if bits == 8 else "four-bits"}
    expected = with_rounded(model, after)
    found = run(after, feeds)
    assert found.any()
    np.testing.assert_array_equal(found, run(expected, feeds))
    np.testing.assert_array_equal(run(after, feeds, optimize=True), run(expected, feeds, optimize=True))


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", ["mlp", "recurrent"])
def test_integer_sums_with_scales_of_powers_of_two_change_no_bit(kind: str, bits: int, batch: int) -> None:
    """Then the float sums are exact too, in any order, and so is what the gain takes over."""
    model = mlp((30, 64, 40), biases=[np.full(n, 0.125, np.float32) for n in (64, 40)])
    if kind == "recurrent":
        model = with_initializer(recurrent(inputs=40, units=40), "fc1.bias", np.full(40, 0.125))
    options = f"smallest=0 bits={bits} scales=power-of-two arithmetic="
    integer, report = quantized(model, options + "auto")
    real, _ = quantized(model, options + "float")
    assert "summed in integers" in " ".join(r.message for r in report.remarks)
    feeds = {"x": spike_trains(9, batch, 30 if kind == "mlp" else 40)}
    assert run(real, feeds).any()
    np.testing.assert_array_equal(run(integer, feeds), run(real, feeds))
    np.testing.assert_array_equal(run(integer, feeds, optimize=True), run(integer, feeds))


def test_spikes_that_a_loop_carries_are_summed_in_integers() -> None:
    after, report = quantized(recurrent(inputs=40, units=40))
    body = next(a.g for node in after.graph.node if node.op_type == "Scan" for a in node.attribute if a.name == "body")
    assert "MatMulInteger" in [node.op_type for node in body.node]
    messages = {r.place: r.message for r in report.remarks}
    assert any("summed in integers" in message for message in messages.values())


def test_a_carried_value_that_is_no_spike_is_summed_in_float() -> None:
    _, report = quantized(recurrent(inputs=40, units=40, variant=NeuronVariant("LIF", max_spikes=0)))
    assert not any("integers" in r.message for r in report.remarks if r.kind == "applied")


@pytest.mark.parametrize(
    ("variant", "absorbed"),
    [
        (LIF, True),
        (READOUT, True),
        (NeuronVariant("LIF", reset="to-value", fire="ge"), True),
        (NeuronVariant("LIF", arithmetic="relax"), False),  # its gain pulls the membrane too
        (NeuronVariant("CubaLIF"), False),  # its gain acts behind the synapse
    ],
)
def test_scales_go_into_the_gain_where_only_the_current_feels_it(variant: NeuronVariant, *, absorbed: bool) -> None:
    gain = np.linspace(0.5, 1.5, 40).astype(np.float32)
    model = mlp((30, 64, 40), readout=variant)
    name = next(
        n.input[variant.inputs.index("gain")]
        for n in model.graph.node
        if n.op_type == variant.op_type and n.name == "lif2"
    )
    model = with_initializer(model, name, gain)
    for node in model.graph.node:
        assert node.name == "lif2" or name not in node.input
    after, report = quantized(model, "smallest=0 scales=power-of-two")
    assert ("Mul" not in _made_of(after, "fc2")) == absorbed
    assert ("in the gain" in next(r.message for r in report.remarks if r.place == "fc2")) == absorbed
    real, _ = quantized(model, "arithmetic=float scales=power-of-two")
    feeds = {"x": spike_trains(9, 5, 30)}
    assert run(after, feeds).any()
    np.testing.assert_allclose(run(after, feeds), run(real, feeds), rtol=1e-5, atol=1e-5)


def _made_of(model: onnx.ModelProto, name: str) -> list[str]:
    """Operators from the product of a layer to its neurons."""
    values = {next(node.output[0] for node in model.graph.node if node.name == name)}
    found = []
    for node in model.graph.node:
        if values & set(node.input) and not node.domain:
            values |= set(node.output)
            found.append(node.op_type)
    return found


def test_a_current_that_is_read_twice_keeps_its_scale() -> None:
    model = mlp((30, 64, 40), steps=4, readout=READOUT)
    model.graph.output.append(helper.make_tensor_value_info("fc2.out", onnx.TensorProto.FLOAT, (None, 40)))
    after, _ = quantized(model, "smallest=0 scales=power-of-two")
    assert "Mul" in _made_of(after, "fc2")
    real, _ = quantized(model, "arithmetic=float scales=power-of-two")
    feeds = {"x": spike_trains(4, 5, 30)}
    expected, found = (Session(each).run(feeds) for each in (real, after))
    np.testing.assert_allclose(found["fc2.out"], expected["fc2.out"], atol=1e-6)


# -- what is left alone --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "place", "rule"),
    [
        (mlp((30, 64, 40), variant=NeuronVariant("LIF", max_spikes=0)), "arithmetic=integer", "fc2", "real-valued-input"),
        (
            with_initializer(mlp((30, 64, 40)), "fc2.weight", np.full((40, 64), np.nan, np.float32)),
            "smallest=0", "fc2", "weight-not-finite",
        ),
        (conv(channels=16), "arithmetic=integer smallest=0", "conv1", "convolution"),
        (mlp((30, 64, 40)), "arithmetic=integer", "fc2", "too-small"),
        (mlp((3, 4, 5)), "smallest=0", "fc2", "no-gain"),
    ],
)  # fmt: skip
def test_what_is_left_alone_says_why(model: onnx.ModelProto, options: str, place: str, rule: str) -> None:
    after, report = quantized(model, options)
    assert rules(report, "missed")[place] == rule
    assert any(name.startswith(place) for name in constants(after))


def test_a_scaled_product_is_summed_in_float() -> None:
    model = mlp((30, 64, 40))
    next(node for node in model.graph.node if node.name == "fc2").attribute.append(helper.make_attribute("alpha", 0.5))
    after, report = quantized(model)
    assert rules(report, "applied")["fc2"] == "eight-bits"
    assert "MatMulInteger" not in operators(after)
    feeds = {"x": spike_trains(9, 5, 30)}
    expected = with_rounded(model, after)
    np.testing.assert_array_equal(run(after, feeds), run(expected, feeds))
    _, report = quantized(model, "arithmetic=integer smallest=0")
    assert rules(report, "missed")["fc2"] == "scaled-product"


def bytes_model(inputs: int = 64, units: int = 40) -> onnx.ModelProto:
    """A layer that reads whole numbers up to 255."""
    builder = ModelBuilder(0)
    builder.input("x", (4, "batch", inputs), np.uint8)
    real = builder.node("Cast", ["x"], "real", to=1)
    rows = builder.reshape(real, "rows", (-1, inputs))
    weights = np.abs(builder.weights(units, inputs)) + np.float32(0.5)
    current = builder.linear("fc", rows, weights)
    builder.neuron("li", READOUT, builder.reshape(current, "li.x", (4, -1, units)), outputs=("y", "li.v"))
    builder.output("y", (4, "batch", units))
    return builder.build()


def test_kernels_that_saturate_are_not_used() -> None:
    """Without VNNI instructions sums of two products above 32,767 saturate, and nobody says so."""
    model = bytes_model()
    _, report = quantized(model, "arithmetic=integer smallest=0")
    assert rules(report, "missed") == {"fc": "sums-too-large"}
    after, report = quantized(model, "arithmetic=integer smallest=0 bits=4 scales=power-of-two")
    assert rules(report, "applied") == {"fc": "four-bits"}
    real, _ = quantized(model, "arithmetic=float bits=4 scales=power-of-two")
    feeds = {"x": np.full((4, 3, 64), 255, np.uint8)}
    np.testing.assert_array_equal(run(after, feeds), run(real, feeds))


def test_weights_of_half_precision_are_stored_too() -> None:
    builder = ModelBuilder(0)
    builder.input("x", (4, "batch", 64), np.float16)
    rows = builder.reshape("x", "rows", (-1, 64))
    weight = builder.constant("fc.weight", builder.weights(40, 64), np.float16)
    builder.node("Gemm", [rows, weight], "y", name="fc", transB=1)
    builder.output("y", (None, 40), np.float16)
    model = builder.build()
    after, report = quantized(model)
    assert rules(report, "applied") == {"fc": "eight-bits"}
    feeds = {"x": spike_trains(4, 3, 64).astype(np.float16)}
    assert 0 < np.abs(run(after, feeds).astype(np.float32) - run(model, feeds)).max() < 0.05


def test_one_weight_of_two_layers_is_stored_once() -> None:
    model = mlp((40, 40, 40))
    for node in model.graph.node:
        if node.name == "fc2":
            node.input[1] = "fc1.weight"
    del model.graph.initializer[[t.name for t in model.graph.initializer].index("fc2.weight")]
    after, report = quantized(model, "smallest=0")
    assert len(rules(report, "applied")) == 1
    assert sum(array.dtype == np.int8 for array in constants(after).values()) == 1
    feeds = {"x": spike_trains(9, 5, 40)}
    np.testing.assert_array_equal(run(after, feeds), run(with_rounded(model, after), feeds))


@pytest.mark.parametrize("way", ["transposed", "output"])
def test_a_weight_that_is_read_in_another_way_stays(way: str) -> None:
    model = mlp((30, 64, 40))
    if way == "transposed":
        model.graph.node.append(helper.make_node("Transpose", ["fc2.weight"], ["seen"]))
        model.graph.output.append(helper.make_tensor_value_info("seen", onnx.TensorProto.FLOAT, (64, 40)))
    else:
        model.graph.output.append(helper.make_tensor_value_info("fc2.weight", onnx.TensorProto.FLOAT, (40, 64)))
    after, report = quantized(model)
    assert rules(report, "missed")["fc2"] == ("read-elsewhere" if way == "transposed" else "graph-output")
    feeds = {"x": spike_trains(9, 5, 30)}
    last = model.graph.output[-1].name
    np.testing.assert_array_equal(Session(after).run(feeds)[last], Session(model).run(feeds)[last])


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(PassOptionError, match="smallest is -1"):
        registry.create("quantize-weights", {"smallest": -1})
    with pytest.raises(PassOptionError, match="bits is 3; it must be 8 or 4"):
        registry.create("quantize-weights", {"bits": 3})


@pytest.mark.parametrize("options", ["smallest=0", "bits=4", "arithmetic=float"])
def test_a_second_run_changes_nothing(options: str) -> None:
    after, _ = quantized(mlp((30, 64, 40)), options)
    again, report = quantized(after, options)
    assert again == after
    assert not rules(report, "applied")


# -- how it is seen ------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [4, 8])
def test_layers_counts_and_costs_see_the_weights(tmp_path: Path, bits: int) -> None:
    model = mlp((30, 64, 40))
    before = SNNGraph.from_onnx(model)
    after, _ = quantized(model, f"bits={bits}")
    onnx.save(after, tmp_path / "small.onnx")
    graph = SNNGraph.from_onnx(tmp_path / "small.onnx")
    assert [(layer.n_inputs, layer.n_neurons) for layer in graph.layers] == [(30, 64), (64, 40)]
    assert graph.total_params == before.total_params + 64 + 40  # the scales
    np.testing.assert_allclose(graph.layers[0].weights, before.layers[0].weights, atol=0.2)
    with pytest.raises(InputError, match="stored in few bits"):
        graph.layers[0].weights = before.layers[0].weights
    dataset = Dataset({"x": spike_trains(5, 6, 30)}, None, {"x": 1})
    costs = measure_costs(graph, dataset)
    assert [layer.weights for layer in costs.layers] == [30 * 64, 64 * 40]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("variant", [READOUT, NeuronVariant("LI", arithmetic="relax")])
def test_the_membrane_bound_holds(variant: NeuronVariant, bits: int) -> None:
    rng = np.random.default_rng(3)
    parameters = {"beta": rng.uniform(0.3, 0.95, 40).astype(np.float32)} if variant.arithmetic == "decay" else {}
    gain = rng.uniform(0.5, 2.0, 40) if variant.arithmetic == "decay" else rng.uniform(0.05, 1, 40)
    model = mlp((30, 40), readout=variant, gain=gain.astype(np.float32), **parameters)
    after, report = quantized(model, f"bits={bits}")
    bound = next(float(r.arguments["membrane_bound"]) for r in report.remarks if r.place == "fc1")
    change = SNNGraph.from_onnx(after).layers[0].weights - initializer(model, "fc1.weight")
    worst = 0.0
    for sign in (1, -1):  # for every neuron the input that moves it most, for ever
        trains = np.repeat((sign * change > 0).astype(np.float32)[np.newaxis], 60, axis=0)
        old, new = (run(each, {"x": trains}) for each in (model, after))
        worst = max(worst, float(np.abs(new - old).max()))
    assert worst <= bound * 1.0001
    assert worst > 0.9 * bound


# -- budgets and data ----------------------------------------------------------------------


def test_a_wide_network_within_the_budget(models: Path, tmp_path: Path) -> None:
    base = models / "digits_wide"
    graph, report = run_job(
        f"{base}.onnx",
        Job(
            pipeline="@O1,quantize-weights{bits=4}", calibration=f"{base}.calib.npz", test=f"{base}.test.npz",
            budget=Budget(accuracy_drop=0.01),
        ),
    )  # fmt: skip
    assert report.after.bytes < 0.14 * report.before.bytes
    assert (report.accuracy_before or 0) - (report.accuracy_after or 0) <= 0.01
    assert "weights fitted to" in report.split
    assert SNNGraph.from_onnx(f"{base}.onnx").total_neurons == graph.total_neurons
    found = {r.place: r.message for r in report.remarks if r.rule == "four-bits"}
    assert "summed in integers with the scales in the gain" in found["fc2"]
    assert "summed in float (what it reads is not proved to be spikes)" in found["fc1"]
    graph.save(tmp_path / "small.onnx")
    Session(tmp_path / "small.onnx", optimize=True)
    assert [layer.n_inputs for layer in SNNGraph.from_onnx(tmp_path / "small.onnx").layers] == [64, 1000, 1000]


@pytest.mark.parametrize("name", ["digits_conv", "digits_cuba"])
def test_compensation_keeps_results_nearer(models: Path, name: str) -> None:
    base = models / name
    tests = {"x": np.load(f"{base}.test.npz")["x"]}
    wanted = run(onnx.load(f"{base}.onnx"), tests)
    errors = {}
    for compensate in ("false", "true"):
        job = Job(
            pipeline=f"@O1,quantize-weights{{bits=4 compensate={compensate}}}", calibration=f"{base}.calib.npz", verify=False
        )  # fmt: skip
        graph, report = run_job(f"{base}.onnx", job)
        assert len(rules(report, "applied")) == 2
        errors[compensate] = float(np.sqrt(np.mean((run(graph.to_onnx(), tests) - wanted) ** 2)))
    assert errors["true"] < 0.85 * errors["false"]


def test_a_budget_that_allows_nothing_leaves_the_layers(models: Path) -> None:
    data = {"x": np.load(models / "digits_mlp.calib.npz")["x"]}
    graph, report = run_job(
        models / "digits_mlp.onnx",
        Job(pipeline="quantize-weights{bits=4}", calibration=data, budget=Budget(spike_change=0.0)),
    )
    assert rules(report, "missed") == {"fc1": "over-budget", "fc2": "over-budget"}
    assert operators(graph.to_onnx()) == operators(onnx.load(models / "digits_mlp.onnx"))
