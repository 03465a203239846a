"""Cut a graph at its values: what is no longer computed becomes an input, what is no longer read an output."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import onnx
from onnx import TensorProto, helper

from snn_optimizer.reduction.candidate import graphs_of

__all__ = ["Typed", "bypassed", "first_outputs", "opened_loop", "without_unused"]

FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16})


@dataclass(frozen=True, slots=True)
class Typed:
    """A model and the types of its values, as far as shape inference finds them."""

    model: onnx.ModelProto
    types: Mapping[str, onnx.TypeProto]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Typed:
        """Infer the types of the values of the main graph."""
        try:
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        except (RuntimeError, onnx.shape_inference.InferenceError):
            inferred = model
        graph = inferred.graph
        types = {info.name: info.type for info in (*graph.value_info, *graph.input, *graph.output)}
        return cls(model, types)

    def shape(self, name: str) -> tuple[int | str | None, ...] | None:
        """Return the sizes of a value, None where not even the rank is known."""
        found = self.types.get(name)
        if found is None or not found.tensor_type.HasField("shape"):
            return None
        return tuple(_size(dim) for dim in found.tensor_type.shape.dim)

    def is_float(self, name: str) -> bool:
        """Tell whether a value holds real numbers and its rank is known: it may become an input."""
        found = self.types.get(name)
        return found is not None and found.tensor_type.elem_type in FLOATS and self.shape(name) is not None

    def keeping(self, wanted: Collection[str]) -> tuple[onnx.ModelProto, list[str]] | None:
        """Return the model with the nodes of these first outputs, and its new inputs.

        A node that computes something else than real numbers, a shape for example, stays where it is needed.
        Of a node nothing reads, one output becomes an output of the model. None where nothing is left.
        """
        graph = self.model.graph
        makers = {name: node for node in graph.node for name in node.output if name}
        given = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
        kept = {first_output(node) for node in graph.node} & set(wanted)
        new_inputs: dict[str, None] = {}
        pending = [node for node in graph.node if first_output(node) in kept]
        while pending:
            for name in reads_of_node(pending.pop()):
                maker = makers.get(name)
                if name in given or maker is None or first_output(maker) in kept:
                    continue
                if self.is_float(name):
                    new_inputs[name] = None
                else:
                    kept.add(first_output(maker))
                    pending.append(maker)
        nodes = [node for node in graph.node if first_output(node) in kept]
        if not nodes:
            return None
        made = {name for node in nodes for name in node.output if name}
        fresh = [name for name in new_inputs if name not in made]
        outputs = [info.name for info in graph.output if info.name in made]
        read = {name for node in nodes for name in reads_of_node(node)}
        for node in nodes:
            own = [name for name in node.output if name]
            if not any(name in read or name in outputs for name in own):
                outputs.append(own[0])
        inputs = [info.name for info in graph.input] + fresh
        return without_unused(self._assembled(nodes, inputs, outputs)), fresh

    def with_outputs(self, outputs: Collection[str]) -> onnx.ModelProto:
        """Return the model with other outputs, and with the nodes that these need only."""
        graph = self.model.graph
        needed = set(outputs)
        nodes = []
        for node in reversed(graph.node):
            if needed.intersection(node.output):
                nodes.append(node)
                needed.update(reads_of_node(node))
        return without_unused(self._assembled(nodes[::-1], [info.name for info in graph.input], outputs))

    def _assembled(
        self, nodes: Iterable[onnx.NodeProto], inputs: Iterable[str], outputs: Iterable[str]
    ) -> onnx.ModelProto:
        old = self.model.graph
        graph = onnx.GraphProto(name=old.name)
        graph.node.extend(nodes)
        graph.initializer.extend(old.initializer)
        graph.sparse_initializer.extend(old.sparse_initializer)
        declared = {info.name: info for info in (*old.input, *old.output)}
        for names, target in ((inputs, graph.input), (outputs, graph.output)):
            target.extend(declared.get(name) or self._info(name) for name in names)
        graph.value_info.extend(old.value_info)
        return with_graph(self.model, graph)

    def _info(self, name: str) -> onnx.ValueInfoProto:
        info = onnx.ValueInfoProto(name=name)
        info.type.CopyFrom(self.types.get(name) or helper.make_tensor_type_proto(TensorProto.FLOAT, None))
        return info


def with_graph(model: onnx.ModelProto, graph: onnx.GraphProto) -> onnx.ModelProto:
    """Return a model that differs in its main graph; weights of the old one are not copied on the way."""
    found = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    found.opset_import.extend(model.opset_import)
    found.functions.extend(model.functions)
    found.metadata_props.extend(model.metadata_props)
    found.graph.CopyFrom(graph)
    return found


def without_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop, in place, inputs, constants, value infos and functions that nothing reads; return the model."""
    graph = model.graph
    read = {name for node in graph.node for name in reads_of_node(node)} | {info.name for info in graph.output}
    made = {name for node in graph.node for name in node.output}
    known = read | made
    _keep(graph.input, lambda info: info.name in read)
    _keep(graph.initializer, lambda tensor: tensor.name in read)
    _keep(graph.sparse_initializer, lambda tensor: tensor.values.name in read)
    ends = {info.name for info in (*graph.input, *graph.output)}
    _keep(graph.value_info, lambda info: info.name in known and info.name not in ends)
    calls: set[tuple[str, str]] = set()
    pending = [node for one in graphs_of(graph) for node in one.node]
    functions = {(function.domain, function.name): function for function in model.functions}
    while pending:
        node = pending.pop()
        key = (node.domain, node.op_type)
        if key in functions and key not in calls:
            calls.add(key)
            pending.extend(functions[key].node)
    _keep(model.functions, lambda function: (function.domain, function.name) in calls)
    return model


def _keep(items: object, wanted: Callable[..., bool]) -> None:
    kept = [item for item in items if wanted(item)]  # type: ignore[attr-defined]  # a repeated field
    if len(kept) != len(items):  # type: ignore[arg-type]
        copies = [type(item).FromString(item.SerializeToString()) for item in kept]
        del items[:]  # type: ignore[attr-defined]
        items.extend(copies)  # type: ignore[attr-defined]


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param) or None


def first_output(node: onnx.NodeProto) -> str:
    """Return the name a node is known by: that of its first output."""
    return next((name for name in node.output if name), "")


def first_outputs(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes of the main graph, in order."""
    return [first_output(node) for node in model.graph.node]


def reads_of_node(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what a node reads, its bodies included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for body in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            own = {name for one in body.node for name in one.output}
            own |= {info.name for info in body.input} | {tensor.name for tensor in body.initializer}
            for one in body.node:
                yield from (name for name in reads_of_node(one) if name not in own)
            yield from (info.name for info in body.output if info.name not in own)


def bypassed(typed: Typed, name: str) -> Iterator[onnx.ModelProto]:
    """Yield the models in which a node is replaced by one of its inputs of the same type and shape."""
    node = next((one for one in typed.model.graph.node if first_output(one) == name), None)
    if node is None:
        return
    shape, kind = typed.shape(name), typed.types.get(name)
    for operand in dict.fromkeys(node.input):
        other = typed.types.get(operand)
        if kind is None or other is None or shape is None or typed.shape(operand) != shape:
            continue
        if other.tensor_type.elem_type != kind.tensor_type.elem_type:
            continue
        graph = onnx.GraphProto()
        graph.CopyFrom(typed.model.graph)
        _keep(graph.node, lambda one: first_output(one) != name)
        _rename(graph, name, operand)
        names = dict.fromkeys(operand if info.name == name else info.name for info in typed.model.graph.output)
        inputs = {info.name for info in graph.input}
        outputs = [one for one in names if one not in inputs]
        if outputs:
            yield Typed(with_graph(typed.model, graph), typed.types).with_outputs(outputs)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for one in graphs_of(graph):
        for node in one.node:
            for slot, value in enumerate(node.input):
                if value == old:
                    node.input[slot] = new
    for body in list(graphs_of(graph))[1:]:
        for info in body.output:
            if info.name == old:
                info.name = new


def opened_loop(model: onnx.ModelProto, name: str) -> onnx.ModelProto | None:
    """Return the model with the body of a ``Scan`` in its place: its first step, without a loop."""
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    index = next((i for i, node in enumerate(graph.node) if first_output(node) == name), None)
    if index is None or graph.node[index].op_type != "Scan" or graph.node[index].domain:
        return None
    scan = graph.node[index]
    attributes = {one.name: helper.get_attribute_value(one) for one in scan.attribute}
    if set(attributes) - {"body", "num_scan_inputs"}:
        return None
    body, states = attributes["body"], len(scan.input) - attributes["num_scan_inputs"]
    zero, front = f"{name}.first_step", f"{name}.step_axis"
    graph.initializer.extend(
        [
            helper.make_tensor(zero, TensorProto.INT64, [], [0]),
            helper.make_tensor(front, TensorProto.INT64, [1], [0]),
        ]
    )
    nodes = []
    for i, (info, outer) in enumerate(zip(body.input, scan.input, strict=True)):
        made = info.name
        nodes.append(
            helper.make_node("Identity", [outer], [made])
            if i < states
            else helper.make_node("Gather", [outer, zero], [made], axis=0)
        )
    nodes.extend(body.node)
    for i, (info, outer) in enumerate(zip(body.output, scan.output, strict=True)):
        if outer:
            operands = [info.name] if i < states else [info.name, front]
            nodes.append(helper.make_node("Identity" if i < states else "Unsqueeze", operands, [outer]))
    graph.initializer.extend(body.initializer)
    around = [*graph.node[:index], *nodes, *graph.node[index + 1 :]]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in around]
    del graph.node[:]
    graph.node.extend(copies)
    del graph.value_info[:]
    return without_unused(with_graph(model, graph))
