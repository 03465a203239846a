"""Writes trained layers and populations into one ONNX file with the `ai.snn` functions it needs.

Naming: node `fc1` owns `fc1.weight` and `fc1.bias` and writes `fc1.output`; population `lif1` owns
`lif1.beta`, `lif1.v_threshold`, ..., reads `lif1.current` and writes `lif1.spikes`.
"""

from collections.abc import Sequence

import numpy as np
import onnx
import torch
from digits_data import STEPS
from onnx import TensorProto, helper, numpy_helper
from spiking_training import Population
from torch import Tensor, nn

from snn_optimizer.ops import DOMAIN, VERSION, NeuronVariant, function_proto

OPSET = 18
IR_VERSION = 10
GAIN = 1.0
RESET_VALUE = 0.0

Shape = Sequence[int | str]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy().astype(np.float32)


def _variant(population: Population, form: str) -> NeuronVariant:
    dynamics = population.dynamics
    if dynamics.operator == "LI":
        return NeuronVariant(operator="LI", form=form)
    return NeuronVariant(
        operator=dynamics.operator,
        form=form,
        reset=dynamics.reset,
        reset_delay=dynamics.reset_delay,
        fire=dynamics.fire,
    )


class ModelBuilder:
    """Collects nodes and initializers in the order in which the network is walked through."""

    def __init__(self, name: str):
        self.name = name
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.functions: dict[str, onnx.FunctionProto] = {}

    def input(self, name: str, shape: Shape) -> str:
        """Declare a graph input."""
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def output(self, name: str, shape: Shape, value: str) -> None:
        """Declare a graph output: `value`, which nothing else reads, takes its name."""
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        for node in self.nodes:
            for slot, written in enumerate(node.output):
                if written == value:
                    node.output[slot] = name

    def constant(self, name: str, array: np.ndarray) -> str:
        """Store an initializer."""
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def node(self, name: str, op_type: str, inputs: list[str], output: str, **attributes) -> str:
        """Append a node with one output."""
        self.nodes.append(helper.make_node(op_type, inputs, [output], name, **attributes))
        return output

    def fold_time(self, name: str, value: str, *features: int) -> str:
        """Reshape [T, B, features] to [T * B, features]."""
        shape = self.constant(f"{name}.shape", np.array([-1, *features], np.int64))
        return self.node(name, "Reshape", [value, shape], f"{name}.output")

    def unfold_time(self, population: str, value: str, *features: int) -> str:
        """Reshape [T * B, features] to the currents [T, B, features] of a population."""
        name = f"{population}_steps"
        shape = self.constant(f"{name}.shape", np.array([STEPS, -1, *features], np.int64))
        return self.node(name, "Reshape", [value, shape], f"{population}.current")

    def linear(self, name: str, value: str, layer: nn.Linear) -> str:
        """Append a fully connected layer over rows."""
        return self.product(name, value, self._weight_and_bias(name, layer))

    def product(self, name: str, value: str, weight_and_bias: list[str]) -> str:
        """Append a fully connected layer whose constants some scope already owns."""
        return self.node(name, "Gemm", [value, *weight_and_bias], f"{name}.output", transB=1)

    def time_distributed_linear(self, name: str, value: str, layer: nn.Linear, output: str) -> str:
        """Append a fully connected layer over [T, B, features]; the weight is inputs x outputs."""
        weight = self.constant(f"{name}.weight", _array(layer.weight).T)
        bias = self.constant(f"{name}.bias", _array(layer.bias))
        product = self.node(name, "MatMul", [value, weight], f"{name}.product")
        return self.node(f"{name}_bias", "Add", [product, bias], output)

    def convolution(self, name: str, value: str, layer: nn.Conv2d) -> str:
        """Append a convolution."""
        return self.node(
            name,
            "Conv",
            [value, *self._weight_and_bias(name, layer)],
            f"{name}.output",
            kernel_shape=list(layer.kernel_size),
            pads=[*layer.padding, *layer.padding],
        )

    def batch_normalization(self, name: str, value: str, layer: nn.BatchNorm2d) -> str:
        """Append a batch normalisation with its trained statistics, not folded into anything."""
        inputs = [
            self.constant(f"{name}.{field}", _array(getattr(layer, field)))
            for field in ("weight", "bias", "running_mean", "running_var")
        ]
        return self.node(name, "BatchNormalization", [value, *inputs], f"{name}.output", epsilon=layer.eps)

    def pool(self, name: str, value: str, op_type: str) -> str:
        """Append a 2 x 2 pooling without overlap."""
        return self.node(name, op_type, [value], f"{name}.output", kernel_shape=[2, 2], strides=[2, 2])

    def flatten(self, name: str, value: str) -> str:
        """Append a Flatten of everything but the leading axis."""
        return self.node(name, "Flatten", [value], f"{name}.output", axis=1)

    def population(self, name: str, value: str, population: Population) -> str:
        """Append a population in sequence form that starts from scalar zero states."""
        variant = _variant(population, "sequence")
        states = {variant.inputs[slot] for slot, _ in variant.states}
        inputs = [
            self.constant(f"{name}.{role}", np.zeros((), np.float32))
            if role in states
            else self._neuron_parameter(name, role, population)
            for role in variant.inputs[1:]
        ]
        emitted = f"{name}.spikes" if variant.spiking else f"{name}.membrane"
        finals = [f"{name}.{final}" for final in variant.outputs[1:]]
        self.call(name, variant, [value, *inputs], [emitted, *finals])
        return emitted

    def recurrent_population(
        self, name: str, value: str, population: Population, feedback: str, layer: nn.Linear
    ) -> str:
        """Append a population that reads its own last spikes through `layer`, as a Scan over its cell.

        The constant initial states have one row, which `Expand` copies for every sample of the batch.
        """
        variant = _variant(population, "cell")
        batch = self.node(f"{name}_batch", "Shape", ["x"], f"{name}.batch", start=1, end=2)
        one = self.constant(f"{name}.one", np.array([1], np.int64))
        rows = self.node(f"{name}_rows", "Concat", [batch, one], f"{name}.rows", axis=0)
        states = []
        for state in ("v0", "s0"):
            row = self.constant(f"{name}.{state}", np.zeros((1, layer.out_features), np.float32))
            states.append(self.node(f"{name}_{state}", "Expand", [row, rows], f"{name}.{state}_rows"))
        body = self._recurrent_step(name, variant, population, feedback, layer)
        emitted = f"{name}.spikes"
        scan = helper.make_node(
            "Scan",
            [*states, value],
            [f"{name}.v_final", f"{name}.s_final", emitted],
            f"{name}_loop",
            body=body.graph(),
            num_scan_inputs=1,
        )
        self.nodes.append(scan)
        self.functions |= body.functions
        return emitted

    def _recurrent_step(
        self, name: str, variant: NeuronVariant, population: Population, feedback: str, layer: nn.Linear
    ) -> "ModelBuilder":
        shape = ("batch", layer.out_features)
        body = ModelBuilder(f"{name}_step")
        membrane, fired_before, current = (body.input(f"{name}.{role}", shape) for role in ("v", "s", "x"))
        # The loop body captures its constants: all of them are stored in the main graph.
        constants = self._weight_and_bias(feedback, layer)
        parameters = [self._neuron_parameter(name, role, population) for role in variant.inputs[2:]]
        back = body.product(feedback, fired_before, constants)
        drive = body.node(f"{name}_drive", "Add", [current, back], f"{name}.drive")
        fired, charged = f"{name}.fired", f"{name}.v_next"
        body.call(name, variant, [drive, membrane, *parameters], [fired, charged])
        carried = body.node(f"{name}_carry", "Identity", [fired], f"{name}.s_next")
        for written in (charged, carried, fired):
            body.outputs.append(helper.make_tensor_value_info(written, TensorProto.FLOAT, shape))
        return body

    def call(self, name: str, variant: NeuronVariant, inputs: list[str], outputs: list[str]) -> None:
        """Append the call of a neuron and keep the function it calls."""
        node = helper.make_node(variant.op_type, inputs, outputs, name, domain=DOMAIN, **variant.attributes())
        self.nodes.append(node)
        self.functions.setdefault(variant.op_type, function_proto(variant, opset=OPSET))

    def _weight_and_bias(self, name: str, layer: nn.Linear | nn.Conv2d) -> list[str]:
        constants = [self.constant(f"{name}.weight", _array(layer.weight))]
        if layer.bias is not None:
            constants.append(self.constant(f"{name}.bias", _array(layer.bias)))
        return constants

    def _neuron_parameter(self, name: str, role: str, population: Population) -> str:
        values = {
            "alpha": population.alpha,
            "beta": population.beta,
            "gain": torch.tensor(GAIN),
            "v_threshold": population.threshold,
            "v_reset": torch.tensor(RESET_VALUE),
        }
        return self.constant(f"{name}.{role}", _array(values[role]))

    def graph(self) -> onnx.GraphProto:
        """Return what was collected."""
        return helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, list(self.initializers.values()))

    def model(self, doc_string: str) -> onnx.ModelProto:
        """Return the complete file."""
        return helper.make_model(
            self.graph(),
            functions=list(self.functions.values()),
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)],
            ir_version=IR_VERSION,
            producer_name="make_models.py",
            doc_string=doc_string,
        )
