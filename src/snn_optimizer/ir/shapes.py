"""Static shapes of every value, found by ONNX shape inference.

Inference runs on the skeleton of the model, where large weights are only
dimensions, so its cost and the 2 GiB limit of protobuf do not depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import onnx

from snn_optimizer import ops
from snn_optimizer.ir.module import Module
from snn_optimizer.ir.types import Dimension, Graph, Value, bodies_of, is_constant, shape_of_constant

__all__ = ["Shape", "Shapes"]

Shape = tuple[Dimension, ...]


@dataclass(frozen=True, slots=True)
class Shapes:
    """Shape of each value, by identity; ``None`` where the rank is unknown."""

    of_value: Mapping[int, Shape | None]

    @classmethod
    def compute(cls, module: Module, *, declared: bool = True) -> Shapes:
        """Infer all shapes of ``module``; cost O(nodes), weights are not read.

        Parameters
        ----------
        module : Module
        declared : bool
            Start from the shapes that the file declares for inner values. Without them
            symbols of the inputs reach further: files declare new symbols for each value.
        """
        proto = module.skeleton()
        if not declared:
            proto.graph.ClearField("value_info")
        inferred = _infer(proto)
        if not declared and _resolve_reshapes(proto, inferred):
            inferred = _infer(proto)
        found: dict[int, Shape | None] = {}
        _collect(module.graph, inferred.graph, {}, found)
        if not declared:
            _complete_declared(module.graph, found)
        return cls(found)

    def shape(self, value: Value) -> Shape | None:
        """Return the shape of ``value``; integers, symbols or ``None`` per axis."""
        if is_constant(value):
            return shape_of_constant(value)
        return self.of_value.get(id(value))

    def rank(self, value: Value) -> int | None:
        """Return the number of axes, ``None`` when unknown."""
        shape = self.shape(value)
        return None if shape is None else len(shape)


def _infer(proto: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception:  # noqa: BLE001 - inference gives up on foreign operators in many ways; declared shapes remain
        return proto


def _resolve_reshapes(proto: onnx.ModelProto, inferred: onnx.ModelProto) -> bool:
    """Declare the results of reshapes that keep a symbolic first axis, which inference loses; tell whether any."""
    known = {info.name: _read(info.type) for info in (*inferred.graph.input, *inferred.graph.value_info)}
    targets = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.output and node.attribute and node.attribute[0].name == "value":
            targets[node.output[0]] = node.attribute[0].t
    symbols = {size for info in proto.graph.input for size in _read(info.type) or () if isinstance(size, str)}
    resolved = False
    for node in proto.graph.node:
        if node.op_type != "Reshape" or node.domain or node.input[1] not in targets:
            continue
        given = known.get(node.input[0])
        after = known.get(node.output[0])
        tensor = targets[node.input[1]]
        if not given or not after or given[0] not in symbols or after[0] in symbols or tensor.external_data:
            continue
        target = [int(n) for n in onnx.numpy_helper.to_array(tensor)]
        rest = given[1:]
        sizes = [n for n in rest if isinstance(n, int)]
        keeps = len(sizes) == len(rest) and all(n > 0 for n in target[1:]) and prod(sizes) == prod(target[1:])
        if target and target[0] == -1 and keeps:
            info = proto.graph.value_info.add(name=node.output[0])
            info.CopyFrom(onnx.helper.make_tensor_value_info(node.output[0], 1, [given[0], *target[1:]]))
            known[node.output[0]] = (given[0], *target[1:])
            resolved = True
    return resolved


def _complete_declared(graph: Graph, found: dict[int, Shape | None]) -> None:
    """Take what the file declares where inference found nothing."""
    for node in graph.nodes:
        for value in node.outputs:
            if found.get(id(value)) is None and value.shape is not None:
                found[id(value)] = tuple(value.shape)


def _collect(graph: Graph, proto: Any, outer: Mapping[str, Shape | None], found: dict[int, Shape | None]) -> None:
    names = dict(outer)
    for info in (*proto.input, *proto.value_info, *proto.output):
        shape = _read(info.type)
        if shape is not None or info.name not in names:
            names[info.name] = shape
    for value in (*graph.inputs, *graph.outputs):
        found[id(value)] = names.get(value.name)
    for node, node_proto in zip(graph.nodes, proto.node, strict=True):
        for value in node.inputs:
            if not is_constant(value) and id(value) not in found:
                found[id(value)] = names.get(value.name)
        for value in node.outputs:
            found[id(value)] = names.get(value.name)
        _complete_neuron(node, found, names)
        inner = {a.name: a.g for a in node_proto.attribute if a.type == onnx.AttributeProto.GRAPH}
        for name, body in bodies_of(node):
            if name in inner:
                _collect(body, inner[name], names, found)


def _complete_neuron(node: Any, found: dict[int, Shape | None], names: dict[str, Shape | None]) -> None:
    """Fill in what inference does not see through a neuron's function body: spikes have the signal's shape."""
    if not ops.is_neuron(node.domain or "", node.op):
        return
    signal = found.get(id(node.inputs[0]))
    variant = ops.NeuronVariant.parse(node.op, node.attrs)
    if signal is None:
        return
    state = {"sequence": signal[1:], "cell": signal, "flat": (None, *signal[1:])}[variant.form]
    for value, declared in zip(node.outputs, variant.schema.outputs, strict=True):
        known = found.get(id(value))
        shape = signal if declared.role == "signal" else state
        if known is None or sum(isinstance(n, int) for n in known) < sum(isinstance(n, int) for n in shape):
            found[id(value)] = shape
            names[value.name] = shape


def _read(type_proto: Any) -> Shape | None:
    if not type_proto.HasField("tensor_type") or not type_proto.tensor_type.HasField("shape"):
        return None
    dims: list[Dimension] = []
    for dim in type_proto.tensor_type.shape.dim:
        if dim.HasField("dim_value"):
            dims.append(int(dim.dim_value))
        elif dim.HasField("dim_param") and dim.dim_param:
            dims.append(str(dim.dim_param))
        else:
            dims.append(None)
    return tuple(dims)
