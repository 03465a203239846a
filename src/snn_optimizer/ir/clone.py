"""Copy graphs with their records; the library's own copy loses types and mixes up names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from snn_optimizer.ir.objects import building, new_constant, new_node, new_variable
from snn_optimizer.ir.sidecar import GraphRecord, Sidecar
from snn_optimizer.ir.tensors import HeldTensor
from snn_optimizer.ir.types import Function, Graph, Node, Value

__all__ = ["clone_model"]


def clone_model(
    graph: Graph, functions: Iterable[Function], sidecar: Sidecar, *, share_weights: bool
) -> tuple[Graph, list[Function], Sidecar]:
    """Copy a main graph, its functions and their records.

    Messages of the records are shared, they are never written to; so are the arrays of
    constants when ``share_weights``.
    """
    cloner = _Cloner(sidecar, share_weights=share_weights)
    twin_functions: list[Function] = []
    twin_graph: Graph = gs.Graph(name=graph.name)
    with building():
        for function in functions:
            twin: Function = gs.Function(function.name, domain=function.domain)
            cloner.fill(function, twin)
            twin_functions.append(twin)
        cloner.fill(graph, twin_graph)
    for part in (twin_graph, *twin_functions):
        part._functions = twin_functions  # type: ignore[attr-defined]  # noqa: SLF001 -- one list per model
    return twin_graph, twin_functions, cloner.twin


class _Cloner:
    def __init__(self, sidecar: Sidecar, *, share_weights: bool) -> None:
        self.source = sidecar
        self.twin = Sidecar(sidecar.header)
        self.share_weights = share_weights
        self.values: dict[int, tuple[Value, Value]] = {}

    def fill(self, graph: Graph, twin: Graph) -> None:
        twin.inputs.extend(map(self.value, graph.inputs))
        for node in graph.nodes:
            twin.nodes.append(self.node(node))
        twin.outputs.extend(map(self.value, graph.outputs))
        self.twin.set_record(twin, self.record(self.source.record(graph)))

    def record(self, record: GraphRecord) -> GraphRecord:
        return replace(
            record,
            initializers=list(map(self.value, record.initializers)),
            declared_inputs=list(map(self.value, record.declared_inputs)),
            inputs=self.rekey(record.inputs),
            outputs=self.rekey(record.outputs),
            value_info=[(None if v is None else self.value(v), proto) for v, proto in record.value_info],
            defaults=self.rekey(record.defaults),
        )

    def rekey(self, entries: dict[int, tuple[Value, Any]]) -> dict[int, tuple[Value, Any]]:
        twins = ((self.value(value), held) for value, held in entries.values())
        return {id(value): (value, held) for value, held in twins}

    def node(self, node: Node) -> Node:
        twin = new_node(
            (node.domain or "", node.op),
            node.name,
            {name: self.attribute(value) for name, value in node.attrs.items()},
            list(map(self.value, node.inputs)),
            list(map(self.value, node.outputs)),
        )
        origin = self.source.origin(node)
        if origin is not None:
            self.twin.set_origin(twin, origin)
        return twin

    def attribute(self, value: Any) -> Any:
        if isinstance(value, gs.Graph):
            body: Graph = gs.Graph(name=value.name)
            self.fill(value, body)
            return body
        if isinstance(value, gs.Constant):
            return self.value(value)
        return list(map(self.attribute, value)) if isinstance(value, list) else value

    def value(self, value: Value) -> Value:
        entry = self.values.get(id(value))
        if entry is None:
            entry = self.values[id(value)] = (value, self.new_value(value))
        return entry[1]

    def new_value(self, value: Value) -> Value:
        if isinstance(value, gs.Constant):
            twin = new_constant(value.name, self.held(value._values))  # noqa: SLF001 -- `values` would load it
            note = self.source.note(value)
            if note is not None:
                self.twin.set_note(twin, note)
            return twin
        shape = value.shape
        kind: str = getattr(value, "type", "tensor_type")
        return new_variable(value.name, value.dtype, None if shape is None else list(shape), kind)

    def held(self, held: Any) -> Any:
        if self.share_weights:
            return held
        return np.array(held.load() if isinstance(held, HeldTensor) else held)
