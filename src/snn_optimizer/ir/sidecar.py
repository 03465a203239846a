"""What the graph library cannot hold of a model, kept beside its objects.

Entries are keyed by identity and hold the object, so an ``id`` is never reused. The
protobuf messages in here are shared between copies of a module and are never written to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from snn_optimizer.ir.tensors import LazyTensor
from snn_optimizer.ir.types import Graph, Node, Value, bodies_of

__all__ = ["CONSTANTS_DECLARED_BEFORE", "GraphRecord", "Sidecar"]

CONSTANTS_DECLARED_BEFORE: Final = 4
"""IR versions before this one declare every initializer as an input, which is constant all the same."""


@dataclass(slots=True)
class GraphRecord:
    """What belongs to one graph.

    Attributes
    ----------
    header : GraphProto or FunctionProto
        The original message without nodes, tensors and values.
    initializers : list of Value
        What this graph stores, in file order: constants, and inputs with a default.
    declared_inputs : list of Value
        The inputs of the file, constants among them (before IR version 4 every
        initializer is declared as an input).
    inputs, outputs : dict from id to (Value, ValueInfoProto)
    value_info : list of (Value or None, ValueInfoProto)
        In file order; None for names that nothing has.
    defaults : dict from id to (Value, LazyTensor)
        Initial values of inputs that the caller may override.
    quantized : frozenset of str
        Tensor names with a quantization annotation that existed at load.
    """

    header: Any = field(default_factory=GraphProto)
    initializers: list[Value] = field(default_factory=list)
    declared_inputs: list[Value] = field(default_factory=list)
    inputs: dict[int, tuple[Value, ValueInfoProto]] = field(default_factory=dict)
    outputs: dict[int, tuple[Value, ValueInfoProto]] = field(default_factory=dict)
    value_info: list[tuple[Value | None, ValueInfoProto]] = field(default_factory=list)
    defaults: dict[int, tuple[Value, LazyTensor]] = field(default_factory=dict)
    quantized: frozenset[str] = frozenset()

    def declarations(self) -> dict[int, list[ValueInfoProto]]:
        """Return by id all that the file says of each value here, most binding first."""
        found: dict[int, list[ValueInfoProto]] = {}
        for value, proto in (*self.inputs.values(), *self.outputs.values(), *self.value_info):
            if value is not None:
                found.setdefault(id(value), []).append(proto)
        return found


class Sidecar:
    """The records of one module."""

    def __init__(self, header: ModelProto) -> None:
        self.header = header
        self._nodes: dict[int, tuple[Node, NodeProto]] = {}
        self._graphs: dict[int, tuple[Graph, GraphRecord]] = {}
        self._notes: dict[int, tuple[Value, TensorProto]] = {}

    def record(self, graph: Graph) -> GraphRecord:
        """Return the record of a graph, a new one for a graph not seen before."""
        entry = self._graphs.get(id(graph))
        if entry is None:
            entry = self._graphs[id(graph)] = (graph, GraphRecord())
        return entry[1]

    def set_record(self, graph: Graph, record: GraphRecord) -> None:
        """Attach a record to a graph."""
        self._graphs[id(graph)] = (graph, record)

    def origin(self, node: Node) -> NodeProto | None:
        """Return the message a node was read from, without its bodies and tensors."""
        entry = self._nodes.get(id(node))
        return None if entry is None else entry[1]

    def set_origin(self, node: Node, proto: NodeProto) -> None:
        """Remember the message a node was read from."""
        self._nodes[id(node)] = (node, proto)

    def note(self, constant: Value) -> TensorProto | None:
        """Return documentation and metadata of a constant, if it has any."""
        entry = self._notes.get(id(constant))
        return None if entry is None else entry[1]

    def set_note(self, constant: Value, meta: TensorProto | None) -> None:
        """Remember documentation and metadata of a constant; None forgets them."""
        if meta is None:
            self._notes.pop(id(constant), None)
        else:
            self._notes[id(constant)] = (constant, meta)

    def forget(self, nodes: Iterable[Node]) -> None:
        """Drop the records of nodes that are gone, and of their bodies."""
        for node in nodes:
            self._nodes.pop(id(node), None)
            for _, body in bodies_of(node):
                self._graphs.pop(id(body), None)

    def strip(self, graph: Graph, *, interface: bool) -> None:
        """Drop documentation and metadata of a graph, its nodes and its inner values.

        Those of its inputs and outputs stay when they are the ``interface`` of the model.
        """
        record = self.record(graph)
        record.header = _stripped(record.header)
        for node in graph.nodes:
            origin = self.origin(node)
            if origin is not None and (origin.doc_string or origin.metadata_props):
                self.set_origin(node, _stripped(origin))
        record.value_info = [(value, _stripped(proto)) for value, proto in record.value_info]
        if not interface:
            for ports in (record.inputs, record.outputs):
                ports.update((key, (value, _stripped(proto))) for key, (value, proto) in ports.items())


def _stripped(proto: Any) -> Any:
    bare = type(proto)()
    bare.CopyFrom(proto)
    bare.ClearField("doc_string")
    bare.ClearField("metadata_props")
    return bare
