"""Small spiking networks in `ai.snn` form, seeded, for tests of anything that reads, runs or rewrites one.

Every builder returns a checked `onnx.ModelProto`. Weights are drawn so that each population fires often but
not always on binary input. `ModelBuilder` assembles other networks node by node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from snn_optimizer.ops import DOMAIN, VERSION, NeuronVariant, function_proto

OPSET = 18
LIF = NeuronVariant("LIF")
IR_VERSION = 10

Dimension = int | str


class ModelBuilder:
    """Collects nodes, constants and the functions of the neurons in use; names are what the caller gives."""

    def __init__(self, seed: int = 0):
        self.generator = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.variants: dict[str, NeuronVariant] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Sequence[Dimension], dtype=np.float32) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape))
        return name

    def output(self, name: str, shape: Sequence[Dimension], dtype=np.float32) -> str:
        self.outputs.append(
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
        )
        return name

    def constant(self, name: str, value, dtype=np.float32) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
        return name

    def weights(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        """Normally distributed, of `scale / sqrt(inputs)`; the first axis counts units."""
        inputs = int(np.prod(shape[1:]))
        return (self.generator.normal(0, scale / np.sqrt(inputs), shape)).astype(np.float32)

    def node(
        self, op: str, inputs: Sequence[str], output: str, *, name: str = "", domain: str = "", **attributes
    ) -> str:
        self.nodes.append(
            helper.make_node(op, inputs, [output], name=name or f"{output}.{op}", domain=domain, **attributes)
        )
        return output

    def reshape(self, value: str, output: str, shape: Sequence[int]) -> str:
        return self.node("Reshape", [value, self.constant(f"{output}.shape", shape, np.int64)], output)

    def linear(self, name: str, value: str, weight: np.ndarray, bias: np.ndarray | None = None) -> str:
        """Gemm over rows: `value` has two axes, `weight` is units x inputs."""
        operands = [value, self.constant(f"{name}.weight", weight)]
        if bias is not None:
            operands.append(self.constant(f"{name}.bias", bias))
        return self.node("Gemm", operands, f"{name}.out", name=name, transB=1)

    def neuron(
        self,
        name: str,
        variant: NeuronVariant,
        signal: str,
        *,
        states: Sequence[str] = (),
        outputs: Sequence[str] = (),
        **parameters,
    ) -> tuple[str, ...]:
        """Call a neuron; states default to zero, parameters to `PARAMETERS`, outputs to `<name>.s`, `<name>.v`."""
        given = PARAMETERS | parameters
        operands = [signal]
        names = iter(states)
        before = {index for index, _ in variant.states}
        for index, formal in enumerate(variant.inputs[1:], start=1):
            if index in before:
                operands.append(next(names) if states else self.constant(f"{name}.{formal}", 0.0))
            else:
                value = given[formal]
                operands.append(value if isinstance(value, str) else self.constant(f"{name}.{formal}", value))
        results = tuple(outputs) or tuple(f"{name}.{formal.lower()}" for formal in variant.outputs)
        node = helper.make_node(variant.op_type, operands, results, name=name, domain=DOMAIN, **variant.attributes())
        self.nodes.append(node)
        self.variants[variant.op_type] = variant
        return results

    def body(
        self, name: str, inputs: Sequence[str], outputs: Sequence[str], shape: Sequence[Dimension]
    ) -> onnx.GraphProto:
        """Take the nodes collected so far as the body of a loop, all of its ends floats of one shape."""
        ends = [
            [helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, shape) for end in side]
            for side in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, name, *ends)
        self.nodes = []
        return graph

    def build(self, name: str = "network", metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes, name, self.inputs, self.outputs, initializer=list(self.constants.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)],
            functions=[function_proto(variant, OPSET) for variant in self.variants.values()],
            ir_version=IR_VERSION,
            producer_name="tests",
        )
        helper.set_model_props(model, dict(metadata or {}))
        onnx.checker.check_model(model)
        return model


PARAMETERS = {"alpha": 0.8, "beta": 0.75, "gain": 1.0, "v_threshold": 1.0, "v_reset": 0.0}


def mlp(
    sizes: Sequence[int] = (8, 16, 4),
    *,
    steps: Dimension = "T",
    batch: Dimension = "batch",
    variant: NeuronVariant = LIF,
    readout: NeuronVariant | None = None,
    weights: Sequence[np.ndarray] | None = None,
    biases: Sequence[np.ndarray] | None = None,
    seed: int = 0,
    **parameters,
) -> onnx.ModelProto:
    """Fully connected layers `fc1`, `lif1`, ...: input `x` [T, batch, inputs], output `spikes`.

    `readout` is the variant of the last population; its output keeps the name `spikes`.
    """
    builder = ModelBuilder(seed)
    value = builder.input("x", (steps, batch, sizes[0]))
    last = len(sizes) - 1
    for index in range(1, len(sizes)):
        inputs, units = sizes[index - 1], sizes[index]
        weight = builder.weights(units, inputs, scale=2.0) if weights is None else weights[index - 1]
        bias = np.full(units, 0.1, np.float32) if biases is None else biases[index - 1]
        rows = builder.reshape(value, f"fc{index}.rows", (-1, inputs))
        current = builder.linear(f"fc{index}", rows, weight, bias)
        current = _unfold(builder, current, f"lif{index}.x", steps, batch, units)
        chosen = readout if readout is not None and index == last else variant
        outputs = ("spikes", *(f"lif{index}.{state}" for state in chosen.outputs[1:])) if index == last else ()
        value = builder.neuron(f"lif{index}", chosen, current, outputs=outputs, **parameters)[0]
    builder.output("spikes", (steps, batch, sizes[-1]))
    return builder.build()


def _unfold(builder: ModelBuilder, rows: str, output: str, steps: Dimension, batch: Dimension, *units: int) -> str:
    """Rows back to [T, B, ...]; sizes that are not fixed are read from the input `x`."""
    if isinstance(steps, int):
        return builder.reshape(rows, output, (steps, -1, *units))
    if isinstance(batch, int):
        return builder.reshape(rows, output, (-1, batch, *units))
    if "x.lead" not in {result for node in builder.nodes for result in node.output}:
        builder.node("Shape", ["x"], "x.lead", start=0, end=2)
    tail = builder.constant(f"{output}.units", units, np.int64)
    shape = builder.node("Concat", ["x.lead", tail], f"{output}.shape", axis=0)
    return builder.node("Reshape", [rows, shape], output)


def conv(*, steps: int = 6, channels: int = 4, classes: int = 3, seed: int = 0, **parameters) -> onnx.ModelProto:
    """`conv1`, `lif1` with one threshold per channel, a 2 x 2 average, `fc2`, `lif2`: `x` [6, batch, 1, 6, 6]."""
    builder = ModelBuilder(seed)
    builder.input("x", (steps, "batch", 1, 6, 6))
    frames = builder.reshape("x", "conv1.frames", (-1, 1, 6, 6))
    kernel = builder.constant("conv1.weight", builder.weights(channels, 1, 3, 3, scale=2.0))
    bias = builder.constant("conv1.bias", np.full(channels, 0.1))
    current = builder.node("Conv", [frames, kernel, bias], "conv1.out", name="conv1", pads=[1, 1, 1, 1])
    current = builder.reshape(current, "lif1.x", (steps, -1, channels, 6, 6))
    threshold = np.linspace(0.6, 1.0, channels, dtype=np.float32).reshape(channels, 1, 1)
    spikes = builder.neuron("lif1", LIF, current, **({"v_threshold": threshold} | parameters))[0]
    frames = builder.reshape(spikes, "pool.frames", (-1, channels, 6, 6))
    pooled = builder.node("AveragePool", [frames], "pool.out", name="pool", kernel_shape=[2, 2], strides=[2, 2])
    flat = builder.node("Flatten", [pooled], "flat", name="flatten")
    current = builder.linear("fc2", flat, builder.weights(classes, channels * 9, scale=4.0), np.full(classes, 0.1))
    current = builder.reshape(current, "lif2.x", (steps, -1, classes))
    builder.neuron("lif2", LIF, current, outputs=("spikes", "lif2.v"), **parameters)
    builder.output("spikes", (steps, "batch", classes))
    return builder.build()


def recurrent(
    *,
    inputs: int = 6,
    units: int = 8,
    steps: Dimension = "T",
    variant: NeuronVariant = LIF,
    seed: int = 0,
    **parameters,
) -> onnx.ModelProto:
    """One layer that reads its own last spikes, as a `Scan` with a cell in the body: `x` [T, batch, inputs]."""
    builder = ModelBuilder(seed)
    cell = variant.as_form("cell")
    drive = builder.linear("fc1", "x_step", builder.weights(units, inputs, scale=2.0), np.full(units, 0.1))
    feedback = builder.node(
        "Gemm", ["s", builder.constant("fc1.recurrent", builder.weights(units, units)), drive], "lif1.x", transB=1
    )
    before = [cell.inputs[index] for index, _ in cell.states]
    after = [cell.outputs[index] for _, index in cell.states]
    builder.neuron("lif1", cell, feedback, states=before, outputs=("s_next", *after), **parameters)
    builder.node("Identity", ["s_next"], "s_out")
    body = builder.body("step", ("s", *before, "x_step"), ("s_next", *after, "s_out"), ("batch", None))
    builder.input("x", (steps, "batch", inputs))
    batch = builder.node("Shape", ["x"], "x.batch", start=1, end=2)
    width = builder.constant("units", [units], np.int64)
    shape = builder.node("Concat", [batch, width], "state.shape", axis=0)
    builder.node("ConstantOfShape", [shape], "state")
    finals = [f"{state}.final" for state in ("s", *before)]
    builder.nodes.append(
        helper.make_node(
            "Scan",
            ["state"] * (1 + len(before)) + ["x"],
            [*finals, "spikes"],
            name="loop",
            num_scan_inputs=1,
            body=body,
        )
    )
    builder.output("spikes", (steps, "batch", units))
    return builder.build()


def directly_fed(steps: int = 5) -> onnx.ModelProto:
    """A network that is shown one input, without a time axis, at all of its steps."""
    builder = ModelBuilder(3)
    builder.input("x", ("batch", 8))
    current = builder.linear("fc1", "x", builder.weights(12, 8, scale=3.0), np.full(12, 0.1))
    one = builder.node("Unsqueeze", [current, builder.constant("first", [0], np.int64)], "one")
    held = builder.node("Expand", [one, builder.constant("steps", [steps, 1, 1], np.int64)], "held")
    spikes = builder.neuron("lif1", LIF, held)[0]
    rows = builder.reshape(spikes, "fc2.rows", (-1, 12))
    current = builder.linear("fc2", rows, builder.weights(4, 12, scale=2.0), np.full(4, 0.1))
    builder.neuron("lif2", LIF, builder.reshape(current, "lif2.x", (steps, -1, 4)), outputs=("spikes", "lif2.v"))
    builder.output("spikes", (steps, "batch", 4))
    return builder.build()


def streaming(
    sizes: Sequence[int] = (8, 16, 4), *, variant: NeuronVariant = LIF, seed: int = 0, **parameters
) -> onnx.ModelProto:
    """The network of `mlp`, one step per call: `x` and `v1`, ... in, `spikes` and `v1_next`, ... out."""
    builder = ModelBuilder(seed)
    cell = variant.as_form("cell")
    value = builder.input("x", ("batch", sizes[0]))
    after: list[tuple[str, int]] = []
    for index in range(1, len(sizes)):
        inputs, units = sizes[index - 1], sizes[index]
        current = builder.linear(
            f"fc{index}", value, builder.weights(units, inputs, scale=2.0), np.full(units, 0.1, np.float32)
        )
        states = [builder.input(f"{cell.inputs[position]}{index}", ("batch", units)) for position, _ in cell.states]
        spikes = "spikes" if index == len(sizes) - 1 else f"lif{index}.s"
        finals = [f"{state}_next" for state in states]
        value = builder.neuron(f"lif{index}", cell, current, states=states, outputs=(spikes, *finals), **parameters)[0]
        after += [(final, units) for final in finals]
    builder.output("spikes", ("batch", sizes[-1]))
    for final, units in after:
        builder.output(final, ("batch", units))
    return builder.build()


def spike_trains(*shape: int, rate: float = 0.4, seed: int = 0) -> np.ndarray:
    """Independent binary spikes."""
    return (np.random.default_rng(seed).random(shape) < rate).astype(np.float32)


def initializer(model: onnx.ModelProto, name: str) -> np.ndarray:
    """A copy of a constant of the main graph."""
    return np.array(numpy_helper.to_array(next(each for each in model.graph.initializer if each.name == name)))


def with_initializer(model: onnx.ModelProto, name: str, value) -> onnx.ModelProto:
    """A copy of a model in which a constant has another value."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensor = next(each for each in changed.graph.initializer if each.name == name)
    old = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(value, old.dtype).reshape(np.shape(value)), name))
    return changed
