"""Places where a pass that looks at one layer only would break the network around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from snn_optimizer.errors import SnnOptimizerError
from snn_optimizer.ir import InputDomain
from snn_optimizer.ops import NeuronVariant
from tests.support.models import ModelBuilder, initializer
from tests.support.planting import assert_same_bits, run_pass

LIF = NeuronVariant("LIF")
STRUCTURE = (
    "layer-fusion",
    "redundant-connection-removal",
    "dead-neuron-elimination",
    "constant-neuron-folding",
    "redundancy-elimination",
)
DEAD, ALWAYS = -64.0, 64.0


class Net(ModelBuilder):
    """Dense layers on a coarse grid, every unit able to fire and not to."""

    def grid(self, units: int, inputs: int) -> np.ndarray:
        weight = self.generator.integers(-2, 4, (units, inputs)) / 4
        for row in weight:
            row[self.generator.choice(inputs, min(inputs, 2), replace=False)] += 0.75
        return weight.astype(np.float32)

    def start(self, features: int = 4, *, steps: int | str = "T") -> str:
        self.features, self.steps = features, steps
        return self.input("x", (steps, "batch", features))

    def layer(
        self,
        name: str,
        value: str,
        weight: np.ndarray,
        bias: Sequence[float] | None = None,
        *,
        product: bool = True,
        population: bool = True,
        variant: NeuronVariant = LIF,
        outputs: Sequence[str] = (),
        **parameters,
    ) -> str:
        """A MatMul (or Gemm) layer over [T, B, inputs] with its population."""
        current = self.node("MatMul", [value, self.constant(f"{name}.weight", weight.T)], f"{name}.out", name=name)
        if bias is not None:
            current = self.node("Add", [current, self.constant(f"{name}.bias", bias)], f"{name}.x")
        if not population:
            return current
        return self.neuron(f"{name}.pop", variant, current, outputs=outputs, **({"beta": 0.5} | parameters))[0]

    def finish(self, value: str, units: int = 3) -> onnx.ModelProto:
        width = {"x": self.features}.get(value, self.width)
        self.layer("last", value, self.grid(units, width), outputs=("spikes", "last.v"))
        self.output("spikes", (self.steps, "batch", units))
        return self.build()

    width = 6


def bias_of(units: int, **special: float) -> np.ndarray:
    values = np.zeros(units, np.float32)
    for name, value in special.items():
        values[int(name[1:])] = value
    return values


# -- outputs of the model ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["constant-neuron-folding", "layer-fusion"])
def test_a_bias_is_not_lost_behind_a_product_that_is_an_output(name: str) -> None:
    net = Net()
    value = net.layer("first", net.start(), net.grid(6, 4), bias_of(6, u1=ALWAYS, u4=ALWAYS))
    if name == "layer-fusion":
        value = net.reshape(value, "rows", (-1, 6))
        statistics = [
            net.constant(f"bn.{n}", np.full(6, v)) for n, v in zip("gbmv", (0.5, 0.25, 0.5, 4.0), strict=True)
        ]
        value = net.node("BatchNormalization", [value, *statistics], "bn", epsilon=0.0)
    net.node("MatMul", [value, net.constant("head.weight", net.grid(3, 6).T)], "logits", name="head")
    net.output("logits", ("rows", 3) if name == "layer-fusion" else ("T", "batch", 3))
    model = net.build()
    ran = run_pass(name, model)
    assert ran.outcome.changes
    assert_same_bits(model, ran.after)


def test_an_output_that_is_read_inside_too_keeps_its_bias() -> None:
    net = Net()
    value = net.layer("first", net.start(), net.grid(6, 4), bias_of(6, u0=ALWAYS))
    current = net.layer("second", value, net.grid(6, 6), population=False)
    net.output(current, ("T", "batch", 6))
    shifted = net.node("Add", [current, net.constant("offset", np.full(6, 0.25))], "shifted")
    spikes = net.neuron("pop", LIF, shifted, beta=0.5)[0]
    model = net.finish(spikes)
    ran = run_pass("constant-neuron-folding", model)
    assert ran.outcome.changes == 1
    assert_same_bits(model, ran.after)


@pytest.mark.parametrize("name", STRUCTURE)
def test_units_that_are_outputs_stay(name: str) -> None:
    net = Net()
    weight = net.grid(6, 4)
    weight[5] = weight[4]
    spikes = net.layer("first", net.start(), weight, bias_of(6, u1=DEAD, u2=ALWAYS))
    net.output(spikes, ("T", "batch", 6))
    after = net.grid(3, 6)
    after[:, 0] = 0
    net.layer("last", spikes, after, outputs=("spikes", "v"))
    net.output("spikes", ("T", "batch", 3))
    model = net.build()
    ran = run_pass(name, model)
    assert initializer(ran.after, "first.weight").shape == (4, 6)
    assert_same_bits(model, ran.after)


@pytest.mark.parametrize("name", STRUCTURE)
def test_a_final_state_that_is_an_output_keeps_its_units(name: str) -> None:
    net = Net()
    weight = net.grid(6, 4)
    weight[5] = weight[4]
    spikes = net.layer("first", net.start(), weight, bias_of(6, u1=DEAD, u2=ALWAYS))
    net.output("first.pop.vt", ("batch", 6))
    model = net.finish(spikes)
    ran = run_pass(name, model)
    assert initializer(ran.after, "first.weight").shape == (4, 6)
    assert_same_bits(model, ran.after)


# -- shared tensors ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRUCTURE)
def test_a_weight_that_two_layers_share_is_cut_in_one_of_them(name: str) -> None:
    net = Net()
    weight = net.grid(6, 6)
    first = net.layer("first", net.start(6), weight, bias_of(6, u1=DEAD, u2=ALWAYS))
    second = net.layer("second", first, weight, bias_of(6, u3=-0.25))
    net.nodes[-3].input[1] = "first.weight"
    del net.constants["second.weight"]
    model = net.finish(second)
    ran = run_pass(name, model)
    if name in {"dead-neuron-elimination", "constant-neuron-folding"}:
        assert ran.outcome.changes == 1
        shapes = {tuple(t.dims) for t in ran.after.graph.initializer if t.name.startswith("first.weight")}
        assert shapes == {(6, 5), (5, 6)}
    assert_same_bits(model, ran.after)


def test_equal_cuts_of_a_shared_tensor_leave_it_shared() -> None:
    net = Net()
    net.constant("threshold", np.full(6, 1.0))
    parameters = {"beta": "threshold", "v_threshold": "threshold"}
    spikes = net.layer("first", net.start(), net.grid(6, 4), bias_of(6, u1=DEAD), **parameters)
    model = net.finish(spikes)
    ran = run_pass("dead-neuron-elimination", model)
    assert [tuple(t.dims) for t in ran.after.graph.initializer if t.name.startswith("threshold")] == [(5,)]
    assert_same_bits(model, ran.after)


@pytest.mark.parametrize("indirect", [False, True])
def test_layers_of_one_width_may_share_the_computation_of_their_shape(*, indirect: bool) -> None:
    net = Net()
    net.start()
    lead = net.node("Shape", ["x"], "lead", start=0, end=2)
    target = net.node("Concat", [lead, net.constant("width", [6], np.int64)], "target", axis=0)
    if indirect:
        target = net.node("Cast", [target], "cast", to=TensorProto.INT64)
    value, width = "x", 4
    for index, special in enumerate(({"u1": DEAD, "u2": DEAD}, {"u0": DEAD}, {})):
        rows = net.reshape(value, f"rows{index}", (-1, width))
        current = net.linear(f"fc{index}", rows, net.grid(6, width), bias_of(6, **special))
        steps = net.node("Reshape", [current, target], f"steps{index}")
        value, width = net.neuron(f"pop{index}", LIF, steps, beta=0.5)[0], 6
    model = net.finish(value)
    ran = run_pass("dead-neuron-elimination", model)
    assert ran.outcome.changes == 3
    assert_same_bits(model, ran.after)


def test_a_size_that_is_computed_with_does_not_change() -> None:
    """The mean over a population divides by the number of its units, read from its shape."""
    net = Net()
    spikes = net.layer("first", net.start(), net.grid(6, 4), np.zeros(6))
    size = net.node("Shape", [spikes], "size", start=2, end=3)
    number = net.node("Cast", [size], "number", to=TensorProto.FLOAT)
    scaled = net.node("Div", [spikes, number], "scaled")
    weight = net.grid(6, 6) * 8
    weight[:, 2] = 0
    current = net.node("MatMul", [scaled, net.constant("second.weight", weight.T)], "second.out", name="second")
    model = net.finish(net.neuron("pop", LIF, current, beta=0.5)[0])
    ran = run_pass("redundant-connection-removal", model)
    assert ran.outcome.changes == 0
    assert_same_bits(model, ran.after)


# -- populations of one unit -----------------------------------------------------------------------


@pytest.mark.parametrize("name", STRUCTURE)
def test_a_bottleneck_of_one_unit_passes_on_what_it_reads(name: str) -> None:
    net = Net()
    value = net.layer("first", net.start(), net.grid(6, 4), np.zeros(6))
    value = net.layer("neck", value, net.grid(1, 6), [0.25])
    net.width = 1
    model = net.finish(value)
    ran = run_pass(name, model)
    assert ran.outcome.changes == 0
    assert_same_bits(model, ran.after)


@pytest.mark.parametrize("name", STRUCTURE)
def test_one_unit_may_be_added_to_many(name: str) -> None:
    net = Net()
    x = net.start()
    gate = net.layer("gate", net.layer("before", x, net.grid(6, 4), np.zeros(6)), net.grid(1, 6), [0.25])
    many = net.layer("many", x, net.grid(6, 4), np.zeros(6))
    model = net.finish(net.node("Add", [many, gate], "sum"))
    ran = run_pass(name, model)
    assert ran.outcome.changes == 0
    assert_same_bits(model, ran.after)


def test_a_population_may_start_another() -> None:
    """The initial state of a population is computed from spikes of another one, of the same or of one unit."""
    for units in (1, 6):
        net = Net()
        x = net.start()
        before = net.layer("before", x, net.grid(6, 4), np.zeros(6))
        spikes = net.layer("starter", before, net.grid(units, 6), np.zeros(units))
        last = net.node("ReduceMax", [spikes, net.constant("axes", [0], np.int64)], "seen", keepdims=0)
        current = net.layer("first", x, net.grid(6, 4), np.zeros(6), population=False)
        value = net.neuron("pop", LIF, current, states=[last], beta=0.5)[0]
        model = net.finish(value)
        for name in STRUCTURE:
            ran = run_pass(name, model)
            assert ran.outcome.changes == 0
            assert_same_bits(model, ran.after)


# -- what looks like a scaled duplicate ---------------------------------------------------------------


def scaled_pair(net: Net) -> tuple[np.ndarray, np.ndarray]:
    """Rows and thresholds of units of which the second is twice the first."""
    weight = net.grid(6, 4)
    weight[1] = 2 * weight[0]
    threshold = np.ones(6, np.float32)
    threshold[1] = 2
    return weight, threshold


def through(net: Net, op: str, current: str) -> str:
    """A node between synapses and population."""
    match op:
        case "Sigmoid" | "Relu" | "Abs" | "Floor":
            return net.node(op, [current], "through")
        case "Clip":
            return net.node(op, [current, net.constant("low", -1.0), net.constant("high", 1.5)], "through")
        case "scalar-bias":
            return net.node("Add", [current, net.constant("offset", [0.25])], "through")
        case "scalar-factor":
            return net.node("Mul", [net.constant("factor", 0.5), current], "through")
        case "unit-factor":
            return net.node("Mul", [current, net.constant("factor", np.full(6, 0.5))], "through")
        case "reciprocal":
            return net.node("Div", [net.constant("one", 1.0), current], "through")
        case _:
            shared = net.node("ReduceMax", ["x", net.constant("axes", [2], np.int64)], "shared", keepdims=1)
            return net.node("Add", [current, shared], "through")


@pytest.mark.parametrize(
    ("op", "scales"),
    [
        ("Relu", True), ("scalar-factor", True), ("unit-factor", True), ("Sigmoid", False), ("Floor", False),
        ("Clip", False), ("scalar-bias", False), ("reciprocal", False), ("shared-signal", False),
    ],
)  # fmt: skip
def test_scaling_must_pass_everything_between_synapse_and_membrane(op: str, *, scales: bool) -> None:
    net = Net()
    net.start()
    weight, threshold = scaled_pair(net)
    current = through(net, op, net.layer("first", "x", weight, population=False))
    value = net.neuron("pop", LIF, current, beta=0.5, v_threshold=threshold)[0]
    model = net.finish(value)
    ran = run_pass("redundancy-elimination", model)
    assert ran.outcome.changes == int(scales)
    assert_same_bits(model, ran.after)


def test_a_bias_of_one_number_does_not_scale() -> None:
    for shape in ((), (1,), (1, 1)):
        net = Net()
        weight, threshold = scaled_pair(net)
        rows = net.reshape(net.start(steps=5), "rows", (-1, 4))
        operands = [rows, net.constant("w", weight), net.constant("b", np.full(shape, 0.25))]
        current = net.reshape(net.node("Gemm", operands, "out", transB=1), "steps", (5, -1, 6))
        model = net.finish(net.neuron("pop", LIF, current, beta=0.5, v_threshold=threshold)[0])
        assert run_pass("redundancy-elimination", model).outcome.changes == 0


def test_what_is_added_to_spikes_is_not_part_of_the_scale() -> None:
    net = Net()
    net.start()
    weight, threshold = scaled_pair(net)
    spikes = net.layer("first", "x", weight, v_threshold=threshold)
    offset = np.full(6, 0.25, np.float32)
    offset[1] = 0.5
    model = net.finish(net.node("Add", [spikes, net.constant("offset", offset)], "shifted"))
    assert run_pass("redundancy-elimination", model).outcome.changes == 0


@pytest.mark.parametrize("start", ["fill", "spread", "zero-fill"])
def test_a_carried_state_that_all_units_share_scales_only_from_zero(start: str) -> None:
    net = Net()
    net.start()
    weight, threshold = scaled_pair(net)
    current = net.layer("first", "x", weight, population=False)
    outer, net.nodes = net.nodes, []
    net.neuron(
        "pop", LIF.as_form("cell"), "x_step", states=["v"], outputs=("s", "v_next"), beta=0.5, v_threshold=threshold
    )
    net.node("Identity", ["s"], "s_out")
    body = net.body("step", ("v", "x_step"), ("v_next", "s_out"), ("batch", 6))
    net.nodes = outer
    batch = net.node("Shape", ["x"], "size", start=1, end=2)
    shape = net.node("Concat", [batch, net.constant("width", [6], np.int64)], "shape", axis=0)
    if start == "spread":
        net.node("Expand", [net.constant("half", [[0.5]]), shape], "v_start")
    else:
        filled = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.5 if start == "fill" else 0.0])
        net.node("ConstantOfShape", [shape], "v_start", value=filled)
    net.nodes.append(
        helper.make_node("Scan", ["v_start", current], ["v_last", "train"], "loop", body=body, num_scan_inputs=1)
    )
    model = net.finish("train")
    ran = run_pass("redundancy-elimination", model)
    assert ran.outcome.changes == int(start == "zero-fill")
    assert_same_bits(model, ran.after)


def test_a_state_that_is_clamped_between_steps_does_not_scale() -> None:
    net = Net()
    net.start()
    weight, threshold = scaled_pair(net)
    weight[:, 2:] *= -2
    current = net.layer("first", "x", weight, population=False)
    outer, net.nodes = net.nodes, []
    net.neuron(
        "pop", LIF.as_form("cell"), "x_step", states=["v"], outputs=("s", "free"), beta=0.5, v_threshold=threshold
    )
    net.node("Max", ["free", net.constant("floor", -0.25)], "v_next")
    net.node("Identity", ["s"], "s_out")
    body = net.body("step", ("v", "x_step"), ("v_next", "s_out"), ("batch", 6))
    net.nodes = outer
    batch = net.node("Shape", ["x"], "size", start=1, end=2)
    shape = net.node("Concat", [batch, net.constant("width", [6], np.int64)], "shape", axis=0)
    net.node("ConstantOfShape", [shape], "v_start")
    net.nodes.append(
        helper.make_node("Scan", ["v_start", current], ["v_last", "train"], "loop", body=body, num_scan_inputs=1)
    )
    model = net.finish("train")
    ran = run_pass("redundancy-elimination", model)
    assert ran.outcome.changes == 0


def test_duplicates_that_appear_when_their_inputs_are_merged() -> None:
    """Units 2 and 5 of the second layer weigh the twins of the first one differently, but their sum alike."""
    net = Net()
    first, second, third = net.grid(6, 4), net.grid(6, 6), net.grid(6, 6)
    first[4] = first[1]
    second[5] = second[2]
    second[2, [1, 4]] = 0.75, 0.25
    second[5, [1, 4]] = -0.5, 1.5
    third[3] = third[0]
    third[0, [2, 5]], third[3, [2, 5]] = (1.0, 0.0), (0.25, 0.75)
    value = net.layer("first", net.start(), first, np.zeros(6))
    value = net.layer("second", value, second, np.zeros(6))
    value = net.layer("third", value, third, np.zeros(6))
    model = net.finish(value)
    ran = run_pass("redundancy-elimination", model)
    assert ran.outcome.changes == 3
    kept = np.delete(np.arange(6), 4)
    expected = second[:, kept]
    expected[:, 1] += second[:, 4]
    np.testing.assert_array_equal(initializer(ran.after, "second.weight").T, np.delete(expected, 5, axis=0))
    assert_same_bits(model, ran.after)


# -- loops and streaming ---------------------------------------------------------------------------


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", STRUCTURE)
def test_a_streaming_step_proves_nothing_about_its_state(name: str, *, flat: bool) -> None:
    net = Net()
    net.input("x", ("batch", 4))
    state = net.input("v", ("batch", 1, 6) if flat else ("batch", 6))
    if flat:
        state = net.reshape(net.node("Mul", [state, net.constant("decay", 0.5)], "leaky"), "v_flat", (-1, 6))
    rows = net.linear("fc", "x", -np.abs(net.grid(6, 4)), np.full(6, -1.0))
    cell = LIF.as_form("cell")
    spikes, _ = net.neuron("pop", cell, rows, states=[state], outputs=("s", "v_next"), beta=0.5)
    net.output("v_next", ("batch", 6))
    head = net.node("Gemm", [spikes, net.constant("w", net.grid(3, 6))], "head", transB=1)
    net.node("Neg", [head], "logits")
    net.output("logits", ("batch", 3))
    assert run_pass(name, net.build()).outcome.changes == 0


def test_a_declared_state_range_is_a_premise() -> None:
    net = Net()
    net.input("x", ("batch", 4))
    net.input("v", ("batch", 6))
    rows = net.linear("fc", "x", -np.abs(net.grid(6, 4)), np.full(6, -1.0))
    spikes, _ = net.neuron("pop", LIF.as_form("cell"), rows, states=["v"], outputs=("s", "v_next"), beta=0.5)
    net.node(
        "Neg", [net.node("Gemm", [spikes, net.constant("w", net.grid(3, 6))], "head", name="head", transB=1)], "logits"
    )
    net.output("logits", ("batch", 3))
    domain = InputDomain(named={"v": (-2.0, 1.0)})
    ran = run_pass("layer-fusion", net.build(), domain=domain)
    assert ran.outcome.changes == 1


def test_a_parameter_that_the_caller_gives_is_unknown() -> None:
    """The default range of inputs is that of spikes; a threshold, with a default value or without, is no spike."""
    for has_default in (False, True):
        net = Net()
        net.start(steps=5)
        if has_default:
            net.constant("threshold", -5.0)
        spikes = net.layer("first", "x", -np.abs(net.grid(6, 4)), np.full(6, -0.5), v_threshold="threshold")
        net.input("threshold", ())
        model = net.finish(spikes)
        for name in ("dead-neuron-elimination", "layer-fusion"):
            assert run_pass(name, model).outcome.changes == 0


def test_a_weight_that_the_caller_may_replace_is_left_alone() -> None:
    net = Net()
    net.start()
    weight = net.grid(6, 4)
    weight[1] = weight[0]
    spikes = net.layer("first", "x", weight, bias_of(6, u2=DEAD))
    model = net.finish(spikes)
    model.graph.input.append(helper.make_tensor_value_info("first.weight", TensorProto.FLOAT, [4, 6]))
    for name in STRUCTURE:
        try:
            ran = run_pass(name, model)
        except SnnOptimizerError:
            continue
        assert ran.outcome.changes == 0


def test_a_loop_that_needs_many_rounds_is_not_believed_too_early() -> None:
    """A carried counter passes 100 after 100 steps; what it then switches on is not silent."""
    net = Net()
    net.input("x", ("T", "batch", 4))
    outer, net.nodes = net.nodes, []
    net.node("Add", ["count", net.constant("one", 1.0)], "count_next")
    net.node("Sub", ["count_next", net.constant("late", 100.0)], "over")
    net.node("Clip", ["over", net.constant("low", 0.0), net.constant("high", 1.0)], "gate_next")
    net.node("Gemm", ["gate", net.constant("w", np.full((6, 6), 2.0))], "drive")
    net.neuron("pop", LIF.as_form("cell"), "drive", states=["v"], outputs=("s", "v_next"), beta=0.5)
    net.node("Add", ["s", "x_step"], "s_out")
    body = net.body(
        "step", ("count", "gate", "v", "x_step"), ("count_next", "gate_next", "v_next", "s_out"), ("batch", 6)
    )
    net.nodes = outer
    current = net.node("MatMul", ["x", net.constant("in", np.zeros((4, 6)))], "current")
    batch = net.node("Shape", ["x"], "size", start=1, end=2)
    shape = net.node("Concat", [batch, net.constant("width", [6], np.int64)], "shape", axis=0)
    net.node("ConstantOfShape", [shape], "zeros")
    ends = ["zeros"] * 3 + [current]
    outs = ["count_last", "gate_last", "v_last", "train"]
    net.nodes.append(helper.make_node("Scan", ends, outs, "loop", body=body, num_scan_inputs=1))
    net.node("MatMul", ["train", net.constant("head", np.ones((6, 3)))], "logits", name="head")
    net.output("logits", ("T", "batch", 3))
    model = net.build()
    for name in STRUCTURE:
        ran = run_pass(name, model)
        assert_same_bits(model, ran.after, steps=120, batch=1)


def test_projections_that_meet_in_an_output_of_a_loop_body_stay() -> None:
    net = Net()
    net.input("x", ("T", "batch", 4))
    outer, net.nodes = net.nodes, []
    for index in (1, 2):
        net.node("Gemm", ["x_step", net.constant(f"w{index}", net.grid(4, 4))], f"p{index}", name=f"p{index}", transB=1)
    net.node("Add", ["p1", "p2"], "sum")
    net.neuron("pop", LIF.as_form("cell"), "sum", states=["v"], outputs=("s", "v_next"), beta=0.5)
    net.node("Identity", ["s"], "s_out")
    body = net.body("step", ("v", "x_step"), ("v_next", "s_out", "sum"), ("batch", 4))
    net.nodes = outer
    net.node("ConstantOfShape", [net.node("Shape", ["x"], "shape", start=1)], "zeros")
    scan = helper.make_node(
        "Scan", ["zeros", "x"], ["v_last", "spikes", "currents"], "loop", body=body, num_scan_inputs=1
    )
    net.nodes.append(scan)
    net.output("spikes", ("T", "batch", 4))
    net.output("currents", ("T", "batch", 4))
    model = net.build()
    ran = run_pass("redundant-connection-removal", model)
    assert ran.refused("is-output")
    assert_same_bits(model, ran.after)


@pytest.mark.parametrize("same", [True, False])
def test_a_shared_weight_is_not_copied_for_one_batch_norm(*, same: bool) -> None:
    builder = ModelBuilder()
    builder.input("x", (5, "batch", 6))
    rows = builder.reshape("x", "rows", (-1, 6))
    weight = builder.constant("weight", builder.weights(8, 6, scale=3.0))
    statistics = [
        builder.constant(f"bn.{role}", np.full(8, value))
        for role, value in zip("abmv", (1.5, 0.25, 0.5, 4), strict=True)
    ]
    other = builder.node("Neg", [rows], "other")
    results = []
    for name, source in (("first", rows), ("second", other)):
        result = builder.node("Gemm", [source, weight], f"{name}.out", name=name, transB=1)
        if same or name == "first":
            result = builder.node("BatchNormalization", [result, *statistics], f"{name}.bn", epsilon=0.0)
        results.append(result)
    current = builder.reshape(builder.node("Concat", results, "all", axis=1), "current", (5, -1, 16))
    builder.neuron("lif", NeuronVariant("LIF"), current, outputs=("spikes", "final"))
    builder.output("spikes", (5, "batch", 16))
    ran = run_pass("layer-fusion", builder.build())
    norms = sum(node.op_type == "BatchNormalization" for node in ran.after.graph.node)
    assert norms == (0 if same else 1)
