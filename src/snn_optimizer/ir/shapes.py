"""Static shapes of every value, found by ONNX shape inference.

Inference runs on the skeleton of the model, where large weights are only
dimensions, so its cost and the 2 GiB limit of protobuf do not depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from snn_optimizer import ops
from snn_optimizer.ir.module import Module
from snn_optimizer.ir.reshapes import Reshapes
from snn_optimizer.ir.types import Dimension, Graph, Value, bodies_of, is_constant, shape_of_constant

__all__ = ["Shape", "Shapes"]

Shape = tuple[Dimension, ...]
_ROUNDS = 64  # of inference; a layer that folds time into the batch takes two


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
        if not declared:
            inferred = _followed(proto, inferred)
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


def _followed(proto: onnx.ModelProto, inferred: onnx.ModelProto) -> onnx.ModelProto:
    """Infer again with what reshapes leave of the symbols of the inputs, until nothing new is found."""
    reshapes = Reshapes(proto)
    if not reshapes.products:
        return inferred
    for _ in range(_ROUNDS):
        infos = (*inferred.graph.input, *inferred.graph.value_info)
        known = {info.name: shape for info in infos if (shape := _read(info.type)) is not None}
        if not reshapes.resolve(known, {info.name: info.type.tensor_type.elem_type for info in infos}):
            break
        inferred = _infer(proto)
    return inferred


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
