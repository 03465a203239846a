"""Read ONNX models into graphs of the graph library, losing nothing.

The library's own importer drops or damages much of a file, so its objects are built here
directly; what they cannot hold goes to the :class:`~snn_optimizer.ir.sidecar.Sidecar`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx_graphsurgeon as gs
from google.protobuf.message import DecodeError, EncodeError
from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto, SparseTensorProto, TensorProto

from snn_optimizer.errors import ModelLoadError, UnsupportedModelError
from snn_optimizer.ir.attributes import decode_plain, is_plain
from snn_optimizer.ir.files import ExternalData, MemoryFile, open_source
from snn_optimizer.ir.mutation import CycleError, sort_stable
from snn_optimizer.ir.sidecar import CONSTANTS_DECLARED_BEFORE, GraphRecord, Sidecar
from snn_optimizer.ir.tensors import LazyTensor, Region, Source, SparseTensor, region_of
from snn_optimizer.ir.types import Function, Graph, Node, Value
from snn_optimizer.ir.valueinfo import declared_type, type_kind
from snn_optimizer.ir.wire import WireError, extract, read_marker

__all__ = ["Loaded", "read_function", "read_model"]

_THRESHOLD: Final = 4096  # bytes of a tensor that stays in the file


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that was read."""

    graph: Graph
    functions: list[Function]
    sidecar: Sidecar
    path: Path | None
    external: bool


def read_model(source: str | os.PathLike[str] | ModelProto) -> Loaded:
    """Read a model from a file or from a message, which is not modified.

    Raises
    ------
    ModelLoadError
        If the file is not a valid ONNX model, or its data is missing.
    UnsupportedModelError
        If the model uses something that cannot be kept.
    """
    path: Path | None = None
    data: Source
    if isinstance(source, ModelProto):
        label = f"model '{source.graph.name}'"
        try:
            data = MemoryFile(source.SerializeToString())
        except (EncodeError, ValueError) as error:
            raise UnsupportedModelError(f"{label}: larger than 2 GiB; save it and pass the path") from error
    else:
        path = Path(source)
        label = f"'{path}'"
        data = open_source(path, label)
        if not len(data.view):
            raise ModelLoadError(f"{label}: the file is empty")
    importer = _Importer(label, data, ExternalData(path.parent if path else None, label))
    try:
        return importer.model(path)
    except CycleError as error:
        raise ModelLoadError(f"{label}: {error}") from error
    except RecursionError as error:
        raise ModelLoadError(f"{label}: bodies are nested too deeply") from error


def read_function(source: FunctionProto, sidecar: Sidecar) -> Function:
    """Read one function into the records of an existing module."""
    label = f"function '{source.domain}::{source.name}'"
    proto = FunctionProto()
    proto.CopyFrom(source)
    importer = _Importer(label, MemoryFile(b""), ExternalData(None, label), sidecar)
    try:
        return importer.function(proto)
    except CycleError as error:
        raise ModelLoadError(f"{label}: {error}") from error


def _text(text: Any, what: str) -> str:
    """Return a name of the file; the protobuf library hands out bytes when it is not UTF-8."""
    if isinstance(text, str):
        return text
    raise ModelLoadError(f"{what} {text!r} is not UTF-8 text")


class _Names:
    """The values of one scope by name, and the scope around it."""

    def __init__(self, outer: _Names | None) -> None:
        self.values: dict[str, Value] = {}
        self._outer = outer

    def find(self, name: str) -> Value | None:
        scope: _Names | None = self
        while scope is not None:
            if (value := scope.values.get(name)) is not None:
                return value
            scope = scope._outer
        return None


class _Importer:
    def __init__(
        self, label: str, source: Source, external: ExternalData, sidecar: Sidecar | None = None
    ) -> None:
        self.label = label
        self.source = source
        self.external = external
        self.token = os.urandom(16)
        self.sidecar = Sidecar(ModelProto()) if sidecar is None else sidecar
        self.constants_declared = False

    def model(self, path: Path | None) -> Loaded:
        try:
            proto = ModelProto.FromString(extract(self.source.view, self.token, _THRESHOLD))
        except (WireError, DecodeError) as error:
            raise ModelLoadError(f"{self.label}: not an ONNX model, or cut off ({error})") from error
        if not proto.HasField("graph"):
            raise ModelLoadError(f"{self.label}: not an ONNX model: it has no graph")
        self.constants_declared = proto.ir_version < CONSTANTS_DECLARED_BEFORE
        for entry in (*proto.opset_import, *(e for f in proto.functions for e in f.opset_import)):
            _text(entry.domain, f"{self.label}: domain")
        graph = self.graph(proto.graph, None, f"{self.label}: ")
        functions = [self.function(function) for function in proto.functions]
        for part in (graph, *functions):
            part._functions = functions  # type: ignore[attr-defined]  # noqa: SLF001 -- one list per model
        self.check_functions(functions)
        proto.ClearField("graph")
        proto.ClearField("functions")
        self.sidecar.header = proto
        return Loaded(graph, functions, self.sidecar, path, self.external.count > 0)

    def check_functions(self, functions: list[Function]) -> None:
        seen: set[tuple[str, str, str]] = set()
        for function in functions:
            header = self.sidecar.record(function).header
            key = (header.domain, header.name, header.overload)
            if key in seen:
                raise ModelLoadError(f"{self.label}: function '{header.domain}::{header.name}' is defined twice")
            seen.add(key)

    # ------------------------------------------------------------------ graphs

    def graph(self, proto: Any, outer: _Names | None, where: str) -> Graph:
        names = _Names(outer)
        record = GraphRecord(header=proto)
        info = _by_name((*proto.input, *proto.output, *proto.value_info))
        graph: Graph = gs.Graph(name=_text(proto.name, f"{where}graph name"), doc_string="")
        self.inputs(graph, proto, record, names, info, where)
        self.outputs_of_nodes(proto.node, names, info, where)
        self.nodes(graph, proto.node, names, where)
        for entry in proto.output:
            value = names.find(_text(entry.name, f"{where}output name"))
            if value is None:
                raise ModelLoadError(f"{where}output '{entry.name}' is produced by no node")
            graph.outputs.append(value)
            record.outputs[id(value)] = (value, entry)
        self.value_info(proto, record, names)
        record.quantized = frozenset(
            entry.tensor_name for entry in proto.quantization_annotation if names.find(entry.tensor_name)
        )
        for field in ("node", "initializer", "sparse_initializer", "input", "output", "value_info"):
            proto.ClearField(field)
        self.sidecar.set_record(graph, record)
        sort_stable(graph)
        return graph

    def inputs(
        self,
        graph: Graph,
        proto: Any,
        record: GraphRecord,
        names: _Names,
        info: dict[str, list[Any]],
        where: str,
    ) -> None:
        held: dict[str, LazyTensor | SparseTensor] = {}
        for tensor in proto.initializer:
            label = f"{where}initializer '{_text(tensor.name, where + 'initializer name')}'"
            self.unique(tensor.name, held, label)
            held[tensor.name] = self.tensor(tensor, label)
        for sparse in proto.sparse_initializer:
            label = f"{where}initializer '{_text(sparse.values.name, where + 'initializer name')}'"
            self.unique(sparse.values.name, held, label)
            held[sparse.values.name] = self.sparse(sparse, label)
        for entry in proto.input:
            name = _text(entry.name, f"{where}input name")
            self.unique(name, names.values, f"{where}input '{name}'")
            default = held.get(name)
            if default is not None and (self.constants_declared or isinstance(default, SparseTensor)):
                value = self.constant(name, default)
            else:
                value = self.variable(name, info.get(name, ()))
                graph.inputs.append(value)
            names.values[name] = value
            record.declared_inputs.append(value)
            record.inputs[id(value)] = (value, entry)
        for name, default in held.items():
            known = names.values.get(name)
            if known is None:
                known = names.values[name] = self.constant(name, default)
            if isinstance(known, gs.Constant):
                record.initializers.append(known)
            elif isinstance(default, LazyTensor):
                record.defaults[id(known)] = (known, default)

    def unique(self, name: str, taken: Iterable[str], label: str) -> None:
        if not name:
            raise ModelLoadError(f"{label} has no name")
        if name in taken:
            raise ModelLoadError(f"{label} is defined twice")

    def value_info(self, proto: Any, record: GraphRecord, names: _Names) -> None:
        for entry in proto.value_info:
            value = names.values.get(entry.name)
            if value is None or id(value) in record.value_info:
                record.loose_value_info.append(entry)
            else:
                record.value_info[id(value)] = (value, entry)

    def variable(self, name: str, entries: Sequence[Any]) -> Value:
        value: Value = gs.Variable(name)
        if entries:
            value.dtype, value.shape = declared_type(entries)
            value.type = type_kind(entries[0].type)  # type: ignore[attr-defined]  # the library's own attribute
        return value

    def constant(self, name: str, held: LazyTensor | SparseTensor) -> Value:
        value: Value = gs.Constant(name, held)
        meta = held.meta if isinstance(held, LazyTensor) else held.values.meta
        if meta.doc_string or meta.metadata_props:
            self.sidecar.set_note(value, meta)
        return value

    # ------------------------------------------------------------------- nodes

    def outputs_of_nodes(
        self, protos: Iterable[NodeProto], names: _Names, info: dict[str, list[Any]], where: str
    ) -> None:
        for proto in protos:
            for name in proto.output:
                if not name:
                    continue
                if name in names.values:
                    text = _text(name, f"{where}output name")
                    raise ModelLoadError(f"{where}'{text}' is produced twice, the second time by {_label(proto)}")
                names.values[name] = self.variable(_text(name, f"{where}output name"), info.get(name, ()))

    def nodes(self, graph: Graph, protos: Iterable[NodeProto], names: _Names, where: str) -> None:
        for proto in protos:
            inputs: list[Value] = []
            for name in proto.input:
                value = names.find(name) if name else gs.Variable.empty()
                if value is None:
                    raise ModelLoadError(f"{where}input '{name}' of {_label(proto)} is produced by nobody")
                inputs.append(value)
            outputs = [names.values[name] if name else gs.Variable.empty() for name in proto.output]
            domain = _text(proto.domain, f"{where}domain of {_label(proto)}")
            node: Node = gs.Node(
                op=_text(proto.op_type, f"{where}operator"),
                name=_text(proto.name, f"{where}node name"),
                attrs=self.attributes(proto, names, where) if proto.attribute else {},
                inputs=inputs,
                outputs=outputs,
                domain="" if domain == "ai.onnx" else domain,
            )
            graph.nodes.append(node)
            self.sidecar.set_origin(node, proto)

    def attributes(self, proto: NodeProto, names: _Names, where: str) -> dict[str, Any]:
        decoded: dict[str, Any] = {}
        for attribute in proto.attribute:
            name = _text(attribute.name, f"{where}attribute of {_label(proto)}")
            label = f"{where}attribute '{name}' of {_label(proto)}"
            if name in decoded:
                raise ModelLoadError(f"{label} is given twice")
            decoded[name] = self.attribute(attribute, names, label)
        return decoded

    def attribute(self, attribute: AttributeProto, names: _Names, label: str) -> Any:
        kind = attribute.type
        inner = f"{label}: "
        result: Any
        if attribute.ref_attr_name or is_plain(kind):
            return decode_plain(attribute)
        if kind == AttributeProto.TENSOR:
            result = self.constant(_text(attribute.t.name, label), self.tensor(attribute.t, label))
        elif kind == AttributeProto.TENSORS:
            result = [self.constant(_text(t.name, label), self.tensor(t, label)) for t in attribute.tensors]
        elif kind == AttributeProto.SPARSE_TENSOR:
            sparse = attribute.sparse_tensor
            result = self.constant(_text(sparse.values.name, label), self.sparse(sparse, label))
        elif kind == AttributeProto.SPARSE_TENSORS:
            result = [
                self.constant(_text(s.values.name, label), self.sparse(s, label)) for s in attribute.sparse_tensors
            ]
        elif kind == AttributeProto.GRAPH:
            result = self.graph(attribute.g, names, inner)
        elif kind == AttributeProto.GRAPHS:
            result = [self.graph(body, names, inner) for body in attribute.graphs]
        else:
            raise UnsupportedModelError(f"{label} has type {kind}, which this version does not know")
        for field in ("t", "tensors", "sparse_tensor", "sparse_tensors", "g", "graphs"):
            attribute.ClearField(field)
        return result

    # --------------------------------------------------------------- functions

    def function(self, proto: Any) -> Function:
        name, domain = _text(proto.name, "function name"), _text(proto.domain, "function domain")
        where = f"{self.label}: function '{domain}::{name}': "
        names = _Names(None)
        record = GraphRecord(header=proto)
        function: Function = gs.Function(name, domain=domain)
        for entry in proto.input:
            self.unique(_text(entry, f"{where}input name"), names.values, f"{where}input '{entry}'")
            names.values[entry] = self.variable(entry, ())
            function.inputs.append(names.values[entry])
        info = _by_name(proto.value_info)
        self.outputs_of_nodes(proto.node, names, info, where)
        self.nodes(function, proto.node, names, where)
        for entry in proto.output:
            value = names.find(entry)
            if value is None:
                raise ModelLoadError(f"{where}output '{entry}' is produced by no node")
            function.outputs.append(value)
        self.value_info(proto, record, names)
        for field in ("node", "input", "output", "value_info"):
            proto.ClearField(field)
        self.sidecar.set_record(function, record)
        sort_stable(function)
        return function

    # ----------------------------------------------------------------- tensors

    def tensor(self, proto: TensorProto, label: str) -> LazyTensor:
        region: Region | None = None
        if proto.data_location == TensorProto.EXTERNAL:
            region = self.external.region(proto)
            for field in ("external_data", "data_location", "raw_data"):
                proto.ClearField(field)
        elif proto.HasField("raw_data"):
            raw = proto.raw_data
            place = read_marker(raw, self.token)
            region = region_of(raw) if place is None else Region(self.source, *place)
            proto.ClearField("raw_data")
        return LazyTensor(proto, region, label)

    def sparse(self, proto: SparseTensorProto, label: str) -> SparseTensor:
        values = self.tensor(proto.values, f"{label} values")
        indices = self.tensor(proto.indices, f"{label} indices")
        return SparseTensor(values, indices, tuple(int(size) for size in proto.dims), label)


def _by_name(entries: Iterable[Any]) -> dict[str, list[Any]]:
    named: dict[str, list[Any]] = {}
    for entry in entries:
        named.setdefault(entry.name, []).append(entry)
    return named


def _label(proto: NodeProto) -> str:
    """Name a node for a message."""
    if proto.name:
        return f"node '{proto.name}' ({proto.op_type})"
    output = next((name for name in proto.output if name), "")
    return f"node {proto.op_type} that makes '{output}'"
