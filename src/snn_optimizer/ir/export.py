"""Write graphs of the graph library back to ONNX messages.

Every node starts from the message it was read from; only what changed is overwritten.
Each constant is stored once, by the graph that owns it; constants nobody owns belong to
the main graph, those of functions become ``Constant`` nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    ValueInfoProto,
    numpy_helper,
)

from snn_optimizer.ir.attributes import decode_plain, encode_plain, is_plain, kind_of, same_value
from snn_optimizer.ir.elements import element_bits, onnx_dtype, pack
from snn_optimizer.ir.sidecar import CONSTANTS_DECLARED_BEFORE, GraphRecord, Sidecar
from snn_optimizer.ir.tensors import LazyTensor, Region, SparseTensor, region_of
from snn_optimizer.ir.types import Function, Graph, Node, Value, bodies_of
from snn_optimizer.ir.valueinfo import write_value_info

__all__ = ["Exporter", "Payload", "Sink", "payload_size", "unowned_constants"]

Declarations: TypeAlias = dict[int, list[ValueInfoProto]]

Payload: TypeAlias = "Region | NDArray[Any]"
"""The bytes of ``raw_data``: a region of a file, or a little-endian contiguous array."""


class Sink(Protocol):
    """Decides where the bytes of a tensor go."""

    def __call__(self, tensor: TensorProto, payload: Payload) -> None:
        """Put the payload into ``tensor``, or a reference to it."""


def payload_size(payload: Payload) -> int:
    """Return the size of a payload in bytes."""
    return payload.length if isinstance(payload, Region) else int(payload.nbytes)


def unowned_constants(graph: Graph, owned: set[int]) -> list[Value]:
    """Return the constants that a graph and its bodies read and no graph in it stores.

    In order of first reading; ``owned`` holds ids and grows by those of the result.
    """
    found: list[Value] = []
    for node in graph.nodes:
        for value in node.inputs:
            if isinstance(value, gs.Constant) and id(value) not in owned:
                owned.add(id(value))
                found.append(value)
        if node.attrs:
            for _, body in bodies_of(node):
                found += unowned_constants(body, owned)
    for value in graph.outputs:
        if isinstance(value, gs.Constant) and id(value) not in owned:
            owned.add(id(value))
            found.append(value)
    return found


def _owned(graph: Graph, sidecar: Sidecar) -> set[int]:
    owned = {id(value) for value in sidecar.record(graph).initializers}
    for node in graph.nodes:
        if node.attrs:
            for _, body in bodies_of(node):
                owned |= _owned(body, sidecar)
    return owned


class Exporter:
    """Builds the message of one module.

    Parameters
    ----------
    sidecar : Sidecar
    sink : Sink
        Where the bytes of tensors go.
    """

    def __init__(self, sidecar: Sidecar, sink: Sink) -> None:
        self._sidecar = sidecar
        self._sink = sink

    def model(
        self,
        graph: Graph,
        functions: Iterable[Function],
        edit_header: Callable[[ModelProto], None],
    ) -> ModelProto:
        """Return the complete model; ``edit_header`` sets the fields around the graph."""
        model = ModelProto()
        model.CopyFrom(self._sidecar.header)
        edit_header(model)
        constants = unowned_constants(graph, _owned(graph, self._sidecar))
        self._graph(graph, model.graph, constants, declare=model.ir_version < CONSTANTS_DECLARED_BEFORE)
        for function in functions:
            self._function(function, model.functions.add())
        return model

    # ------------------------------------------------------------------ graphs

    def _graph(self, graph: Graph, target: Any, more: list[Value], *, declare: bool = False) -> None:
        record = self._sidecar.record(graph)
        target.CopyFrom(record.header)
        target.name = graph.name
        for node in graph.nodes:
            self._node(node, target.node.add())
        initializers = [*record.initializers, *more]
        inputs = {id(value) for value in graph.inputs}
        for value in initializers:
            if not _is_variable(value):
                self._initializer(value, target)
            elif id(value) in inputs:
                self._tensor(value.name, record.defaults[id(value)][1], None, target.initializer.add())
        declared = record.declarations()
        for value in self._declared(graph, record, initializers if declare else []):
            _declare(value, record.inputs.get(id(value)), declared, target.input.add())
        for value in graph.outputs:
            _declare(value, record.outputs.get(id(value)), declared, target.output.add())
        self._value_info(graph, record, declared, target)
        self._quantization(graph, record, target)

    def _declared(self, graph: Graph, record: GraphRecord, constants: list[Value]) -> list[Value]:
        """Return the inputs to declare: before IR version 4 with the initializers."""
        stored = {id(value) for value in constants}
        kept = [value for value in record.declared_inputs if id(value) in stored or _is_variable(value)]
        variables = [value for value in kept if _is_variable(value)]
        if len(variables) == len(graph.inputs) and all(
            ours is theirs for ours, theirs in zip(variables, graph.inputs, strict=True)
        ):
            declared = kept
        else:
            declared = list(graph.inputs)
        known = {id(value) for value in declared}
        return declared + [value for value in constants if id(value) not in known]

    def _initializer(self, constant: Value, target: Any) -> None:
        held = constant._values  # type: ignore[attr-defined]  # noqa: SLF001 -- `values` would load it
        if isinstance(held, SparseTensor):
            self._sparse(constant, held, target.sparse_initializer.add())
        else:
            self._tensor(constant.name, held, self._sidecar.note(constant), target.initializer.add())

    def _value_info(self, graph: Graph, record: GraphRecord, declared: Declarations, target: Any) -> None:
        produced = {id(value): value for node in graph.nodes for value in node.outputs if value.name}
        local = produced.keys() | {id(value) for value in (*graph.inputs, *record.initializers)}
        known = {id(value) for value in graph.outputs}
        for value, origin in record.value_info:
            if value is None:
                target.value_info.add().CopyFrom(origin)
            elif id(value) in local:
                known.add(id(value))
                _declare(value, (value, origin), declared, target.value_info.add())
        for key, value in produced.items():
            if value.dtype is not None and key not in known:
                _declare(value, None, declared, target.value_info.add())

    def _quantization(self, graph: Graph, record: GraphRecord, target: Any) -> None:
        """Drop annotations of tensors that are gone."""
        if not record.quantized:
            return
        names = {value.name for node in graph.nodes for value in (*node.inputs, *node.outputs)}
        names.update(value.name for value in (*graph.inputs, *record.initializers))
        kept = [
            entry
            for entry in record.header.quantization_annotation
            if entry.tensor_name in names or entry.tensor_name not in record.quantized
        ]
        target.ClearField("quantization_annotation")
        target.quantization_annotation.extend(kept)

    def _function(self, function: Function, target: Any) -> None:
        record = self._sidecar.record(function)
        target.CopyFrom(record.header)
        target.name = function.name
        target.domain = function.domain
        target.input.extend(value.name for value in function.inputs)
        target.output.extend(value.name for value in function.outputs)
        for constant in unowned_constants(function, _owned(function, self._sidecar)):
            node = target.node.add(op_type="Constant", output=[constant.name])
            held = constant._values  # type: ignore[attr-defined]  # noqa: SLF001 -- `values` would load it
            attribute = node.attribute.add(name="value", type=AttributeProto.TENSOR)
            self._tensor("", held, None, attribute.t)
        for one in function.nodes:
            self._node(one, target.node.add())
        self._value_info(function, record, record.declarations(), target)

    # ------------------------------------------------------------------- nodes

    def _node(self, node: Node, target: NodeProto) -> None:
        origin = self._sidecar.origin(node)
        inputs = [value.name for value in node.inputs]
        outputs = [value.name for value in node.outputs]
        if origin is None:
            target.op_type = node.op
            target.name = node.name
            if node.domain:
                target.domain = node.domain
            target.input.extend(inputs)
            target.output.extend(outputs)
            for name, value in node.attrs.items():
                self._attribute(name, value, None, target.attribute.add())
            return
        target.CopyFrom(origin)
        domain = "" if origin.domain == "ai.onnx" else origin.domain
        if node.op != origin.op_type or (node.domain or "") != domain:
            target.op_type = node.op
            target.domain = node.domain or ""
            target.ClearField("overload")
        if node.name != origin.name:
            target.name = node.name
        _replace(target.input, inputs)
        _replace(target.output, outputs)
        if node.attrs or origin.attribute:
            self._attributes(node, origin, target)

    def _attributes(self, node: Node, origin: NodeProto, target: NodeProto) -> None:
        origins = {attribute.name: attribute for attribute in origin.attribute}
        target.ClearField("attribute")
        for name, value in node.attrs.items():
            self._attribute(name, value, origins.get(name), target.attribute.add())

    def _attribute(self, name: str, value: Any, origin: AttributeProto | None, target: AttributeProto) -> None:
        if isinstance(value, AttributeProto):
            target.CopyFrom(value)
            target.name = name
            return
        if origin is not None:
            if is_plain(origin.type) and not origin.ref_attr_name and same_value(decode_plain(origin), value):
                target.CopyFrom(origin)
                return
            if not is_plain(origin.type):  # its tensors and graphs were taken out
                target.CopyFrom(origin)
            else:
                target.doc_string = origin.doc_string
        kind = kind_of(name, value, None if origin is None else origin.type)
        target.name = name
        target.type = kind
        if is_plain(kind):
            encode_plain(target, kind, value)
        else:
            self._attribute_objects(kind, value if isinstance(value, (list, tuple)) else [value], target)

    def _attribute_objects(self, kind: int, values: Iterable[Any], target: AttributeProto) -> None:
        for value in values:
            if kind == AttributeProto.GRAPH:
                self._graph(value, target.g, [])
            elif kind == AttributeProto.GRAPHS:
                self._graph(value, target.graphs.add(), [])
            elif kind == AttributeProto.SPARSE_TENSOR:
                self._sparse(value, value._values, target.sparse_tensor)  # noqa: SLF001 -- `values` would load it
            elif kind == AttributeProto.SPARSE_TENSORS:
                self._sparse(value, value._values, target.sparse_tensors.add())  # noqa: SLF001 -- see above
            else:
                tensor = target.t if kind == AttributeProto.TENSOR else target.tensors.add()
                if isinstance(value, np.ndarray):
                    self._tensor("", value, None, tensor)
                else:
                    self._tensor(value.name, value._values, self._sidecar.note(value), tensor)  # noqa: SLF001 -- see above

    # ----------------------------------------------------------------- tensors

    def _tensor(self, name: str, held: Any, note: TensorProto | None, target: TensorProto) -> None:
        if isinstance(held, LazyTensor):
            target.CopyFrom(held.meta)
            if held.data is not None:
                self._sink(target, held.data)
        else:
            array = np.asarray(held.load() if isinstance(held, SparseTensor) else held)
            self._array(array, target)
            if note is not None:
                target.doc_string = note.doc_string
                target.metadata_props.extend(note.metadata_props)
        if name or target.name:
            target.name = name

    def _array(self, array: NDArray[Any], target: TensorProto) -> None:
        data_type = onnx_dtype(array.dtype)
        if data_type == TensorProto.STRING:
            target.CopyFrom(numpy_helper.from_array(np.asarray(array, dtype=object)))
            return
        target.data_type = data_type
        target.dims.extend(array.shape)
        if (bits := element_bits(data_type)) % 8:
            self._sink(target, region_of(pack(array, bits)))
        else:
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            self._sink(target, np.ascontiguousarray(little).reshape(-1).view(np.uint8))

    def _sparse(self, constant: Value, held: SparseTensor, target: SparseTensorProto) -> None:
        self._tensor(constant.name, held.values, None, target.values)
        self._tensor(held.indices.meta.name, held.indices, None, target.indices)
        target.dims.extend(held.shape)


def _declare(
    value: Value,
    origin: tuple[Value, ValueInfoProto] | None,
    declared: Declarations,
    target: ValueInfoProto,
) -> None:
    write_value_info(value, None if origin is None else origin[1], declared.get(id(value), ()), target)


def _is_variable(value: Value) -> bool:
    return not isinstance(value, gs.Constant)


def _replace(field: Any, names: list[str]) -> None:
    if field != names:
        del field[:]
        field.extend(names)
