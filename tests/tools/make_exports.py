"""Write ``models/exports``: sample models as a framework's exporter would have written them.

    python tests/tools/make_exports.py

Both are the network of ``models/digits_mlp.onnx`` (trained weights, 64-128-10) in primitive operators of
ONNX, in the way ``torch.onnx`` writes snnTorch: ``digits_unrolled.onnx`` has all 16 time steps one after the
other, ``digits_step.onnx`` runs one step per call, with membranes as inputs and outputs. No framework is needed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
STEPS = 16
BETA, THRESHOLD = 0.9, 1.0


class Export:
    """Nodes with the names an exporter gives them."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def add(self, kind: str, *inputs: str, result: str = "", **attributes: object) -> str:
        name = f"/{kind}_{len(self.nodes)}"
        result = result or f"{name}_output_0"
        self.nodes.append(helper.make_node(kind, inputs, [result], name=name, **attributes))
        return result

    def neuron(self, current: str, membrane: str, result: str = "") -> tuple[str, str]:
        """Add a leaky neuron that subtracts its threshold after firing; return membrane and spikes."""
        after = self.add("Add", self.add("Mul", "beta", membrane), current)
        fired = self.add("Cast", self.add("Greater", self.add("Sub", after, "threshold"), "zero"), to=1)
        return self.add("Sub", after, self.add("Mul", fired, "threshold"), result=result), fired


def parts() -> tuple[list[onnx.TensorProto], list[str]]:
    """Return the trained weights and the constants of the neurons."""
    trained = onnx.load(ROOT / "models" / "digits_mlp.onnx")
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in trained.graph.initializer}
    synapses = [node for node in trained.graph.node if node.op_type == "Gemm"]
    tensors = []
    for number, node in enumerate(synapses, 1):
        weight = held[node.input[1]]
        if not any(a.name == "transB" and a.i for a in node.attribute):
            weight = weight.T.copy()
        tensors += [
            numpy_helper.from_array(weight, f"fc{number}.weight"),
            numpy_helper.from_array(held[node.input[2]], f"fc{number}.bias"),
        ]
    numbers = {"beta": BETA, "threshold": THRESHOLD, "zero": 0.0}
    tensors += [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in numbers.items()]
    return tensors, [f"fc{number}" for number in range(1, len(synapses) + 1)]


def info(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def save(name: str, export: Export, inputs: list, outputs: list, tensors: list) -> None:
    graph = helper.make_graph(export.nodes, "main_graph", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="make_exports")
    model.ir_version = 8
    onnx.checker.check_model(model)
    (ROOT / "models" / "exports").mkdir(exist_ok=True)
    (ROOT / "models" / "exports" / name).write_bytes(model.SerializeToString(deterministic=True))


def unrolled() -> None:
    tensors, layers = parts()
    export = Export()
    tensors.append(numpy_helper.from_array(np.array([0], np.int64), "axis"))
    membranes = [""] * len(layers)
    rows = []
    for step in range(STEPS):
        tensors.append(numpy_helper.from_array(np.array(step, np.int64), f"step{step}"))
        signal = export.add("Gather", "x", f"step{step}", axis=0)
        for number, layer in enumerate(layers):
            current = export.add("Gemm", signal, f"{layer}.weight", f"{layer}.bias", transB=1)
            if step == 0:
                membranes[number] = export.add("ConstantOfShape", export.add("Shape", current))
            membranes[number], signal = export.neuron(current, membranes[number])
        rows.append(export.add("Unsqueeze", signal, "axis"))
    export.add("Concat", *rows, result="spikes", axis=0)
    save("digits_unrolled.onnx", export, [info("x", STEPS, "batch", 64)], [info("spikes", STEPS, "batch", 10)], tensors)


def one_step() -> None:
    tensors, layers = parts()
    export = Export()
    signal = "x"
    inputs, outputs = [info("x", "batch", 64)], []
    for number, (layer, units) in enumerate(zip(layers, (128, 10), strict=True), 1):
        current = export.add("Gemm", signal, f"{layer}.weight", f"{layer}.bias", transB=1)
        _, signal = export.neuron(current, f"mem{number}", result=f"mem{number}_out")
        inputs.append(info(f"mem{number}", "batch", units))
        outputs.append(info(f"mem{number}_out", "batch", units))
    export.add("Identity", signal, result="spikes")
    save("digits_step.onnx", export, inputs, [info("spikes", "batch", 10), *outputs], tensors)


if __name__ == "__main__":
    unrolled()
    one_step()
