"""What is exposed, that it is right to the last bit, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from snn_optimizer.errors import UnsupportedModelError
from snn_optimizer.execution import Exposed, Observer, Session, instrument
from snn_optimizer.ops import NeuronVariant
from tests.support import models

VARIANTS = [
    NeuronVariant("LIF"),
    NeuronVariant("LIF", fire="ge", reset="to-value", arithmetic="relax"),
    NeuronVariant("LIF", reset="subtract", reset_delay=1),
    NeuronVariant("IF", reset="none"),
    NeuronVariant("IF", max_spikes=0, fire="ge"),
    NeuronVariant("CubaLIF", max_spikes=3),
    NeuronVariant("CubaLIF", reset="to-value", reset_delay=1),
]


def expected_spikes(variant: NeuronVariant, potential: np.ndarray, threshold) -> np.ndarray:
    if variant.max_spikes == 1:
        return potential > threshold if variant.fire == "gt" else potential >= threshold
    level = np.ceil(potential / threshold) - 1 if variant.fire == "gt" else np.floor(potential / threshold)
    return np.clip(level, 0, variant.max_spikes or np.inf)


def check_potentials(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[str]:
    """The potential at the threshold test must predict every spike of the runtime exactly."""
    observer = Observer(model)
    seen = []
    for tap, observation in zip(observer.taps, observer.observe(feeds), strict=True):
        spikes = expected_spikes(tap.variant, observation.potential, observation.threshold)
        np.testing.assert_array_equal(spikes, observation.spikes)
        assert observation.spikes.any()
        seen.append(observation.population)
    return seen


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda each: each.op_type)
class TestPotentials:
    def test_sequence(self, variant):
        model = models.mlp(variant=variant)
        assert check_potentials(model, {"x": models.spike_trains(12, 6, 8)}) == ["lif1", "lif2"]

    def test_loop(self, variant):
        model = models.recurrent(variant=variant)
        assert check_potentials(model, {"x": models.spike_trains(12, 6, 6)}) == ["lif1"]

    def test_one_step(self, variant):
        model = models.streaming(variant=variant)
        generator = np.random.default_rng(1)
        feeds = {
            port.name: generator.uniform(0, 1, (6, port.shape[1])).astype(np.float32) for port in Session(model).inputs
        }
        assert check_potentials(model, feeds) == ["lif1", "lif2"]


def test_thresholds_per_channel():
    assert check_potentials(models.conv(), {"x": models.spike_trains(6, 4, 1, 6, 6)}) == ["lif1", "lif2"]


def test_readout_potential_is_its_output():
    observer = Observer(models.mlp(readout=NeuronVariant("LI")))
    *_, readout = observer.observe({"x": models.spike_trains(5, 3, 8)})
    assert not readout.spiking
    assert readout.distance is None
    np.testing.assert_array_equal(readout.potential, readout.spikes)


@pytest.mark.parametrize("build", [models.mlp, models.recurrent, models.conv], ids=lambda each: each.__name__)
def test_the_model_itself_and_its_outputs_stay(build):
    model = build()
    before = model.SerializeToString()
    instrumented, taps = instrument(model)
    assert model.SerializeToString() == before
    assert taps
    plain, watched = Session(model), Session(instrumented)
    assert watched.outputs[: len(plain.outputs)] == plain.outputs
    sizes = [6 if isinstance(size, str) else size for size in plain.inputs[0].shape]
    feeds = {"x": models.spike_trains(*sizes)}
    np.testing.assert_array_equal(plain.run(feeds)["spikes"], watched.run(feeds)["spikes"])


def test_names_are_unique_whatever_the_model_calls_its_values():
    builder = models.ModelBuilder()
    x = builder.input("x", ("T", "batch", 3))
    copy = builder.node("Identity", [x], "x.tap")
    first = builder.neuron("spikes", models.LIF, x)
    second = builder.neuron("lif", models.LIF, copy)
    both = builder.node("Add", [first[0], second[0]], "both")
    call = onnx.helper.make_node(models.LIF.op_type, [both, *builder.nodes[-2].input[1:]], ["spikes", "v"])
    call.domain = "ai.snn"
    call.attribute.extend(builder.nodes[-2].attribute)
    builder.nodes.append(call)  # without a name, called like its output, which is taken
    builder.output("spikes", ("T", "batch", 3))
    model = builder.build()
    instrumented, taps = instrument(model)
    assert [tap.population for tap in taps] == ["spikes", "lif", "spikes#2"]
    names = [output.name for output in instrumented.graph.output]
    assert len(names) == len(set(names))
    assert check_potentials(model, {"x": 2 * models.spike_trains(5, 4, 3)}) == ["spikes", "lif", "spikes#2"]


def test_constants_are_held_and_computed_operands_exposed():
    builder = models.ModelBuilder()
    builder.input("x", ("T", "batch", 3))
    builder.input("v0", ("batch", 3))
    builder.input("level", (1,))
    threshold = builder.node("Add", ["level", builder.constant("offset", [0.5])], "threshold")
    builder.neuron("lif", models.LIF, "x", states=("v0",), outputs=("spikes", "v"), v_threshold=threshold)
    builder.output("spikes", ("T", "batch", 3))
    model = builder.build()
    (tap,) = Observer(model).taps
    assert tap.states == (Exposed("v0.tap", "v0", stacked=False),)
    assert isinstance(tap.parameter("beta"), np.ndarray)
    assert tap.parameter("v_threshold") == Exposed("threshold", "threshold", stacked=False)
    assert tap.parameter("tau") is None
    feeds = {"x": models.spike_trains(5, 4, 3), "v0": models.spike_trains(4, 3), "level": np.array([0.2], np.float32)}
    check_potentials(model, feeds)


def test_an_initializer_that_callers_may_override_is_no_constant():
    model = models.mlp((8, 4))
    name = "lif1.v_threshold"
    model.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, []))
    (tap,) = Observer(model).taps
    assert isinstance(tap.parameter("v_threshold"), Exposed)


def test_parameters_that_change_from_step_to_step():
    builder = models.ModelBuilder()
    threshold = builder.node("Add", ["fatigue", builder.constant("half", 0.5)], "threshold")
    cell = models.LIF.as_form("cell")
    builder.neuron("lif", cell, "x_step", states=("v",), outputs=("s", "v_next"), v_threshold=threshold)
    total = builder.node("ReduceMean", ["s"], "mean", keepdims=0)
    builder.node("Add", ["fatigue", total], "fatigue_next")
    builder.node("Identity", ["s"], "s_out")
    body = onnx.helper.make_graph(
        builder.nodes,
        "step",
        [
            onnx.helper.make_tensor_value_info("fatigue", onnx.TensorProto.FLOAT, []),
            onnx.helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, ["b", 3]),
            onnx.helper.make_tensor_value_info("x_step", onnx.TensorProto.FLOAT, ["b", 3]),
        ],
        [
            onnx.helper.make_tensor_value_info("fatigue_next", onnx.TensorProto.FLOAT, []),
            onnx.helper.make_tensor_value_info("v_next", onnx.TensorProto.FLOAT, ["b", 3]),
            onnx.helper.make_tensor_value_info("s_out", onnx.TensorProto.FLOAT, ["b", 3]),
        ],
    )
    builder.nodes = [
        onnx.helper.make_node(
            "Scan",
            ["fatigue0", "v0", "x"],
            ["fatigueT", "vT", "spikes"],
            num_scan_inputs=1,
            body=body,
            scan_output_axes=[0],
            scan_output_directions=[0],
        )
    ]
    builder.constant("fatigue0", 0.0)
    builder.input("x", ("T", "batch", 3))
    builder.input("v0", ("batch", 3))
    builder.output("spikes", ("T", "batch", 3))
    model = builder.build()
    (tap,) = Observer(model).taps
    assert tap.parameter("v_threshold").stacked
    feeds = {"x": models.spike_trains(9, 4, 3), "v0": np.zeros((4, 3), np.float32)}
    assert check_potentials(model, feeds) == ["lif"]


def test_a_call_that_contradicts_itself_is_named():
    model = models.mlp((8, 4))
    node = next(each for each in model.graph.node if each.domain)
    next(each for each in node.attribute if each.name == "fire").s = b"ge"
    with pytest.raises(UnsupportedModelError, match="node 'lif1'"):
        instrument(model)


def test_recordings_survive_an_external_weight_file(tmp_path):
    path = tmp_path / "network.onnx"
    onnx.save_model(models.mlp(), path, save_as_external_data=True, location="weights", size_threshold=100)
    x = models.spike_trains(5, 3, 8)
    inside, outside = (list(Observer(source).observe({"x": x})) for source in (models.mlp(), path))
    for left, right in zip(inside, outside, strict=True):
        np.testing.assert_array_equal(left.potential, right.potential)
