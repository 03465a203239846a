"""Fusion of linear maps, silent layers, parallel projections and unread inputs: what goes, and what must stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from snn_optimizer.ir import InputDomain, SNNGraph
from snn_optimizer.ops import NeuronVariant
from tests.support.models import ModelBuilder, initializer
from tests.support.planting import Ran, assert_same_bits, run_pass

LIF = NeuronVariant("LIF")


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type.split("__")[0] for node in model.graph.node]


class Net(ModelBuilder):
    """Parts of networks with numbers that are exact in every order."""

    steps = 5

    def start(self, *shape: int) -> str:
        return self.input("x", (self.steps, "batch", *shape))

    def frames(self, value: str, *shape: int) -> str:
        return self.reshape(value, f"{value}.frames", (-1, *shape))

    def population(self, rows: str, *shape: int, output: str = "", **parameters) -> str:
        current = self.reshape(rows, f"{rows}.steps", (self.steps, -1, *shape))
        outputs = (output, f"{output}.v") if output else ()
        return self.neuron(f"{rows}.pop", LIF, current, outputs=outputs, **({"beta": 0.5} | parameters))[0]

    def numbers(self, *shape: int) -> np.ndarray:
        weight = self.generator.integers(-3, 5, shape) / 4
        weight.reshape(shape[0], -1)[:, 0] = 1.5
        return weight.astype(np.float32)

    def norm(self, value: str, channels: int, *, shift: bool = True, name: str = "bn") -> str:
        pick = self.generator.choice
        statistics = {
            "scale": pick([0.5, 1.0, 2.0], channels),
            "shift": pick([0.25, -0.5], channels) if shift else np.zeros(channels),
            "mean": pick([0.5, -0.25], channels) if shift else np.zeros(channels),
            "var": pick([1.0, 4.0, 0.25], channels),
        }
        operands = [self.constant(f"{name}.{role}", array) for role, array in statistics.items()]
        return self.node("BatchNormalization", [value, *operands], f"{name}.out", name=name, epsilon=0.0)

    def gemm(self, name: str, value: str, units: int, inputs: int, *, bias: bool = True) -> str:
        return self.linear(name, value, self.numbers(units, inputs), self.numbers(units, 1)[:, 0] if bias else None)

    def conv(
        self, name: str, value: str, units: int, inputs: int, *, bias: bool = True, kernel: int = 2, **attributes
    ) -> str:
        operands = [value, self.constant(f"{name}.weight", self.numbers(units, inputs, kernel, kernel))]
        operands += [self.constant(f"{name}.bias", self.numbers(units, 1)[:, 0])] if bias else []
        return self.node("Conv", operands, f"{name}.out", name=name, **attributes)

    def finish(self, rows: str, *shape: int, **parameters) -> onnx.ModelProto:
        self.population(rows, *shape, output="spikes", **parameters)
        self.output("spikes", (self.steps, "batch", *shape))
        self.output("spikes.v", ("batch", *shape))
        return self.build()


def fuse(model: onnx.ModelProto, gone: str, *, exact: bool = True, **options) -> Ran:
    ran = run_pass("layer-fusion", model, **options)
    assert ran.outcome.changes == ran.outcome.layers_fused == 1
    assert gone not in operators(ran.after)
    if exact:
        assert_same_bits(model, ran.after)
    return ran


# -- batch norm and scale ------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_behind_a_convolution(*, bias: bool) -> None:
    net = Net()
    frames = net.frames(net.start(2, 4, 4), 2, 4, 4)
    current = net.norm(net.conv("conv", frames, 3, 2, bias=bias, pads=[1, 1, 1, 1]), 3)
    ran = fuse(net.finish(current, 3, 5, 5), "BatchNormalization")
    assert "conv.bias" in {t.name for t in ran.after.graph.initializer}


@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_behind_a_linear_map(*, bias: bool) -> None:
    net = Net()
    rows = net.frames(net.start(4), 4)
    fuse(net.finish(net.norm(net.gemm("fc", rows, 3, 4, bias=bias), 3), 3), "BatchNormalization")


def test_batch_norm_behind_a_product_without_a_bias_slot() -> None:
    net = Net()
    rows = net.frames(net.start(4), 4)
    product = net.node("MatMul", [rows, net.constant("w", net.numbers(3, 4).T)], "product", name="fc")
    fuse(net.finish(net.norm(product, 3), 3), "BatchNormalization")


def test_batch_norm_behind_a_scaled_gemm() -> None:
    net = Net()
    rows = net.frames(net.start(4), 4)
    current = net.gemm("fc", rows, 3, 4)
    net.nodes[-1].attribute.extend([helper.make_attribute("alpha", 0.5), helper.make_attribute("beta", 2.0)])
    fuse(net.finish(net.norm(current, 3), 3), "BatchNormalization")


def test_batch_norm_before_a_linear_map() -> None:
    net = Net()
    rows = net.norm(net.frames(net.start(4), 4), 4)
    fuse(net.finish(net.gemm("fc", rows, 3, 4, bias=False), 3), "BatchNormalization")


def test_batch_norm_before_a_convolution_without_padding() -> None:
    net = Net()
    frames = net.norm(net.frames(net.start(2, 4, 4), 2, 4, 4), 2)
    fuse(net.finish(net.conv("conv", frames, 3, 2), 3, 3, 3), "BatchNormalization")


@pytest.mark.parametrize("attributes", [{"pads": [0, 0, 0, 1]}, {"auto_pad": "SAME_UPPER"}])
def test_batch_norm_with_a_shift_before_a_padded_convolution_stays(attributes: dict) -> None:
    net = Net()
    frames = net.norm(net.frames(net.start(2, 4, 4), 2, 4, 4), 2)
    width = 4 if "auto_pad" in attributes else 3
    height = 4 if "auto_pad" in attributes else 3
    if "pads" in attributes:
        width = 4
    model = net.finish(net.conv("conv", frames, 3, 2, **attributes), 3, height, width)
    ran = run_pass("layer-fusion", model)
    assert ran.outcome.changes == 0
    assert ran.refused("padding-mixes-shift")


def test_batch_norm_without_a_shift_before_a_padded_convolution() -> None:
    net = Net()
    frames = net.norm(net.frames(net.start(2, 4, 4), 2, 4, 4), 2, shift=False)
    fuse(net.finish(net.conv("conv", frames, 3, 2, pads=[1, 1, 1, 1]), 3, 5, 5), "BatchNormalization")


def test_batch_norms_on_both_sides() -> None:
    net = Net()
    rows = net.norm(net.frames(net.start(4), 4), 4, name="front")
    current = net.norm(net.gemm("fc", rows, 3, 4), 3, name="back")
    model = net.finish(current, 3)
    ran = run_pass("layer-fusion", model)
    assert ran.outcome.layers_fused == 2
    assert "BatchNormalization" not in operators(ran.after)
    assert_same_bits(model, ran.after)


def test_a_batch_norm_that_two_readers_see_stays() -> None:
    net = Net()
    rows = net.norm(net.frames(net.start(4), 4), 4)
    first, second = net.gemm("first", rows, 3, 4), net.gemm("second", rows, 3, 4)
    spikes = net.population(first, 3)
    net.output(spikes, (net.steps, "batch", 3))
    assert run_pass("layer-fusion", net.finish(second, 3)).outcome.changes == 0


def test_a_shared_weight_is_normed_for_one_reader_only() -> None:
    net = Net()
    rows = net.frames(net.start(4), 4)
    first, second = net.gemm("first", rows, 3, 4), net.gemm("second", rows, 3, 4)
    for name in ("weight", "bias"):
        del net.constants[f"second.{name}"]
    net.nodes[-1].input[1:] = ["first.weight", "first.bias"]
    spikes = net.population(net.norm(first, 3), 3)
    net.output(spikes, (net.steps, "batch", 3))
    fuse(net.finish(second, 3), "BatchNormalization")


@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 3)])
@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_a_scale_behind_a_linear_map(shape: tuple[int, ...], op: str) -> None:
    net = Net()
    current = net.gemm("fc", net.frames(net.start(4), 4), 3, 4)
    factor = net.constant("factor", net.generator.choice([0.5, 2.0, -1.0], shape))
    fuse(net.finish(net.node(op, [current, factor], "scaled"), 3), op)


def test_a_scale_that_differs_between_rows_is_no_scale_of_units() -> None:
    net = Net()
    net.steps = 3
    rows = net.reshape(net.input("x", (3, 1, 4)), "rows", (3, 4))
    current = net.gemm("fc", rows, 3, 4)
    scaled = net.node("Mul", [current, net.constant("factor", [[0.5], [1.0], [2.0]])], "scaled")
    net.neuron("pop", LIF, net.reshape(scaled, "steps", (3, 1, 3)), outputs=("spikes", "v"), beta=0.5)
    net.output("spikes", (3, 1, 3))
    assert run_pass("layer-fusion", net.build()).outcome.changes == 0


def test_a_bias_that_differs_between_rows_is_no_bias_of_units() -> None:
    """As many rows as units: only its shape tells which one the bias of a Gemm counts."""
    net = Net()
    rows = net.reshape(net.input("x", (3, 1, 4)), "rows", (3, 4))
    bias = net.constant("bias", [[4.0], [-64.0], [-64.0]])
    product = net.node("Gemm", [rows, net.constant("w", net.numbers(3, 4)), bias], "out", name="fc", transB=1)
    spikes = net.neuron("pop", LIF, net.reshape(product, "steps", (3, 1, 3)), beta=0.5)[0]
    current = net.gemm("last", net.reshape(spikes, "again", (3, 3)), 2, 3)
    net.neuron("end", LIF, net.reshape(current, "ends", (3, 1, 2)), outputs=("spikes", "v"), beta=0.5)
    net.output("spikes", (3, 1, 2))
    model = net.build()
    for name in ("layer-fusion", "dead-neuron-elimination", "constant-neuron-folding", "redundancy-elimination"):
        ran = run_pass(name, model)
        assert ran.outcome.changes == 0


# -- linear maps in a row --------------------------------------------------------------------------


def test_two_linear_maps_become_one() -> None:
    net = Net()
    rows = net.frames(net.start(4), 4)
    model = net.finish(net.gemm("second", net.gemm("first", rows, 5, 4), 3, 5), 3)
    ran = run_pass("layer-fusion", model)
    assert operators(ran.after).count("Gemm") == 1
    assert_same_bits(model, ran.after)


def test_three_products_with_biases_become_one() -> None:
    net = Net()
    value, width = net.start(4), 4
    for index, units in enumerate((5, 6, 3)):
        weight = net.constant(f"w{index}", net.numbers(units, width).T)
        product = net.node("MatMul", [value, weight], f"p{index}", name=f"fc{index}")
        value, width = (
            net.node("Add", [product, net.constant(f"b{index}", net.numbers(units, 1)[:, 0])], f"y{index}"),
            units,
        )
    net.neuron("pop", LIF, value, outputs=("spikes", "v"), beta=0.5)
    net.output("v", ("batch", 3))
    model = net.build()
    ran = run_pass("layer-fusion", model)
    assert operators(ran.after).count("MatMul") == 1
    assert operators(ran.after).count("Add") == 1
    assert_same_bits(model, ran.after)


def test_a_bottleneck_of_linear_maps_stays() -> None:
    net = Net()
    rows = net.frames(net.start(8), 8)
    ran = run_pass("layer-fusion", net.finish(net.gemm("second", net.gemm("first", rows, 1, 8), 6, 1), 6))
    assert ran.outcome.changes == 0
    assert ran.refused("would-grow")


def test_a_linear_map_that_is_read_twice_stays() -> None:
    net = Net()
    first = net.gemm("first", net.frames(net.start(4), 4), 5, 4)
    net.output(net.population(first, 5), (net.steps, "batch", 5))
    assert run_pass("layer-fusion", net.finish(net.gemm("second", first, 3, 5), 3)).outcome.changes == 0


# -- silent layers -----------------------------------------------------------------------------------


def silent_net(kind: str) -> onnx.ModelProto:
    """A population that no input makes fire, between layers of several forms."""
    net = Net()
    if kind.startswith("conv"):
        frames = net.frames(net.start(2, 4, 4), 2, 4, 4)
        spikes = net.population(net.conv("first", frames, 3, 2), 3, 3, 3, v_threshold=512.0)
        frames = net.frames(spikes, 3, 3, 3)
        if kind == "conv-conv":
            return net.finish(net.conv("last", frames, 2, 3), 2, 2, 2, v_threshold=0.5)
        if kind == "conv-pool-flatten":
            frames = net.node("MaxPool", [frames], "pool", kernel_shape=[2, 2], strides=[1, 1])
            flat = net.node("Flatten", [frames], "flat")
            return net.finish(net.gemm("last", flat, 2, 12), 2, v_threshold=0.5)
        return net.finish(net.gemm("last", net.node("Flatten", [frames], "flat"), 2, 27), 2, v_threshold=0.5)
    if kind == "gemm-gemm":
        spikes = net.population(net.gemm("first", net.frames(net.start(4), 4), 3, 4), 3, v_threshold=512.0)
        return net.finish(net.gemm("last", net.frames(spikes, 3), 2, 3), 2, v_threshold=0.5)
    product = net.node(
        "MatMul", [net.start(4), net.constant("first.weight", net.numbers(3, 4).T)], "current", name="first"
    )
    spikes = net.neuron("pop", LIF, product, beta=0.5, v_threshold=512.0)[0]
    if kind == "matmul-gemm":
        return net.finish(net.gemm("last", net.frames(spikes, 3), 2, 3), 2, v_threshold=0.5)
    product = net.node("MatMul", [spikes, net.constant("last.weight", net.numbers(2, 3).T)], "last.out", name="last")
    current = net.node("Add", [product, net.constant("last.bias", [0.75, 0.5])], "last.x")
    net.neuron("end", LIF, current, outputs=("spikes", "v"), beta=0.5)
    net.output("spikes", (net.steps, "batch", 2))
    return net.build()


@pytest.mark.parametrize("kind", ["gemm-gemm", "matmul-matmul", "conv-flatten", "conv-conv", "conv-pool-flatten"])
def test_a_silent_layer_leaves_the_bias_of_its_reader(kind: str) -> None:
    model = silent_net(kind)
    ran = run_pass("layer-fusion", model)
    assert ran.outcome.layers_fused == 1
    assert sum(name == "LIF" for name in operators(ran.after)) == 1
    assert not {"first.weight", "last.weight"} & {t.name for t in ran.after.graph.initializer}
    assert_same_bits(model, ran.after)


def test_where_nothing_tells_the_number_of_rows_a_silent_layer_stays() -> None:
    """The first layer counts steps and samples apart, the second one together."""
    model = silent_net("matmul-gemm")
    ran = run_pass("layer-fusion", model)
    assert ran.outcome.changes == 0
    assert ran.refused("no-shape")


def test_a_layer_that_fires_once_is_not_silent() -> None:
    net = Net()
    spikes = net.population(net.gemm("first", net.frames(net.start(4), 4), 3, 4), 3, v_threshold=[512.0, 512.0, 4.0])
    assert run_pass("layer-fusion", net.finish(net.gemm("last", net.frames(spikes, 3), 2, 3), 2)).outcome.changes == 0


def test_a_layer_that_was_never_seen_to_fire_is_silent_when_that_counts() -> None:
    net = Net()
    spikes = net.population(net.gemm("first", net.frames(net.start(4), 4), 3, 4), 3)
    model = net.finish(net.gemm("last", net.frames(spikes, 3), 2, 3), 2)

    def measured(graph: SNNGraph) -> None:
        graph.firing_rates["first.out.pop"] = np.zeros(3)

    assert run_pass("layer-fusion", model, prepare=measured).outcome.changes == 0
    assert run_pass("layer-fusion", model, prepare=measured, measured=True).outcome.layers_fused == 1


def test_constant_spikes_pass_an_unpadded_convolution_only() -> None:
    """Beside the border a padded convolution sees zeros where the constant ones would be."""
    for padding in ({}, {"pads": [1, 1, 1, 1]}, {"auto_pad": "SAME_UPPER"}):
        net = Net()
        frames = net.frames(net.start(2, 4, 4), 2, 4, 4)
        current = net.conv("first", frames, 3, 2)
        net.constant("first.bias", [64.0, 64.0, 64.0])
        spikes = net.population(current, 3, 3, 3)
        size = 2 if not padding else 4 if "pads" in padding else 3
        model = net.finish(
            net.conv("last", net.frames(spikes, 3, 3, 3), 2, 3, **padding), 2, size, size, v_threshold=4.0
        )
        ran = run_pass("layer-fusion", model)
        assert ran.outcome.changes == int(not padding)
        folded = run_pass("constant-neuron-folding", model)
        assert folded.outcome.changes == (0 if padding else 2)
        assert_same_bits(model, ran.after, must_bite=False)
        assert_same_bits(model, folded.after, must_bite=False)


# -- parallel projections ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gemm", "conv", "matmul", "matmul-one-bias"])
@pytest.mark.parametrize("bias", [(True, True), (True, False), (False, True)])
def test_projections_side_by_side_become_one(kind: str, bias: tuple[bool, bool]) -> None:
    net = Net()
    if kind == "conv":
        frames = net.frames(net.start(2, 4, 4), 2, 4, 4)
        parts = [net.conv(f"p{i}", frames, 3, 2, bias=b) for i, b in enumerate(bias)]
        shape: tuple[int, ...] = (3, 3, 3)
    else:
        rows = net.frames(net.start(4), 4)
        shape = (3,)
        if kind == "gemm":
            parts = [net.gemm(f"p{i}", rows, 3, 4, bias=b) for i, b in enumerate(bias)]
        else:
            parts = []
            for index, has_bias in enumerate(bias):
                weight = net.constant(f"p{index}.weight", net.numbers(3, 4).T)
                part = net.node("MatMul", [rows, weight], f"p{index}", name=f"p{index}")
                if has_bias:
                    part = net.node("Add", [net.constant(f"p{index}.bias", net.numbers(3, 1)[:, 0]), part], f"y{index}")
                parts.append(part)
    model = net.finish(net.node("Add", parts, "sum"), *shape)
    ran = run_pass("redundant-connection-removal", model)
    assert ran.outcome.details == {"projections-merged": 1}
    names = operators(ran.after)
    assert sum(name in {"Gemm", "Conv", "MatMul"} for name in names) == 1
    assert_same_bits(model, ran.after)


def test_two_projections_with_one_weight_become_one() -> None:
    net = Net()
    rows = net.frames(net.start(4), 4)
    first, second = net.gemm("first", rows, 3, 4), net.gemm("second", rows, 3, 4)
    del net.constants["second.weight"]
    net.nodes[-1].input[1] = "first.weight"
    third = net.population(net.gemm("third", rows, 3, 4), 3)
    net.nodes[-3].input[1] = "first.weight"
    net.output(third, (net.steps, "batch", 3))
    model = net.finish(net.node("Add", [first, second], "sum"), 3)
    ran = run_pass("redundant-connection-removal", model)
    assert ran.outcome.details == {"projections-merged": 1}
    assert_same_bits(model, ran.after)


def test_a_projection_that_is_read_elsewhere_too_stays() -> None:
    net = Net()
    rows = net.frames(net.start(4), 4)
    first, second = net.gemm("first", rows, 3, 4), net.gemm("second", rows, 3, 4)
    net.output(net.population(first, 3), (net.steps, "batch", 3))
    model = net.finish(net.node("Add", [first, second], "sum"), 3)
    assert run_pass("redundant-connection-removal", model).outcome.changes == 0


def test_convolutions_of_other_strides_are_not_parallel() -> None:
    net = Net()
    frames = net.frames(net.start(2, 4, 4), 2, 4, 4)
    first = net.conv("first", frames, 3, 2, kernel=1, strides=[2, 2])
    second = net.conv("second", frames, 3, 2, kernel=1, strides=[2, 2], dilations=[1, 1])
    model = net.finish(net.node("Add", [first, second], "sum"), 3, 2, 2)
    assert run_pass("redundant-connection-removal", model).outcome.changes == 0


# -- inputs that nobody reads ---------------------------------------------------------------------------


def wide_net(*, transposed: bool, unread: int) -> tuple[onnx.ModelProto, np.ndarray]:
    net = Net()
    weight = net.numbers(40, 30)
    weight[:, :unread] = 0
    rows = net.frames(net.start(30), 30)
    stored = net.constant("fc.weight", weight if transposed else weight.T)
    net.node("Gemm", [rows, stored], "out", name="fc", transB=int(transposed))
    return net.finish("out", 40), weight


@pytest.mark.parametrize("transposed", [True, False])
def test_inputs_that_no_weight_reads_are_skipped(*, transposed: bool) -> None:
    model, weight = wide_net(transposed=transposed, unread=12)
    ran = run_pass("redundant-connection-removal", model)
    assert ran.outcome.details == {"inputs-skipped": 12}
    kept = initializer(ran.after, "fc.weight")
    np.testing.assert_array_equal(kept if transposed else kept.T, weight[:, 12:])
    assert_same_bits(model, ran.after)


def test_inputs_that_are_declared_silent_are_skipped() -> None:
    model, weight = wide_net(transposed=True, unread=0)
    high = np.ones(30)
    high[5:20] = 0
    ran = run_pass("redundant-connection-removal", model, domain=InputDomain(named={"x": (np.zeros(30), high)}))
    assert ran.outcome.details == {"inputs-skipped": 15}
    np.testing.assert_array_equal(initializer(ran.after, "fc.weight"), weight[:, high > 0])


def test_few_unread_inputs_are_not_worth_a_node() -> None:
    model, _ = wide_net(transposed=True, unread=1)
    ran = run_pass("redundant-connection-removal", model)
    assert ran.outcome.changes == 0
    assert ran.refused("not-worth-a-gather")
