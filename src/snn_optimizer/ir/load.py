"""Read ONNX models into graphs of the graph library, losing nothing.

The library's own importer drops or damages much of a file, so its objects are built here
directly; what they cannot hold goes to the :class:`~snn_optimizer.ir.sidecar.Sidecar`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import onnx_graphsurgeon as gs
from google.protobuf.message import DecodeError, EncodeError
from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto

from snn_optimizer.errors import ModelLoadError, UnsupportedModelError
from snn_optimizer.ir.attributes import decode_plain, is_plain
from snn_optimizer.ir.files import ExternalData, MemoryFile, open_source
from snn_optimizer.ir.mutation import CycleError, sort_stable, with_bodies
from snn_optimizer.ir.objects import building, missing, new_constant, new_node, new_variable
from snn_optimizer.ir.sidecar import CONSTANTS_DECLARED_BEFORE, GraphRecord, Sidecar
from snn_optimizer.ir.stored import TensorReader
from snn_optimizer.ir.tensors import LazyTensor, Source, SparseTensor
from snn_optimizer.ir.types import Function, Graph, Value
from snn_optimizer.ir.valueinfo import declared_type, type_kind
from snn_optimizer.ir.wire import WireError, extract

__all__ = ["Loaded", "read_function", "read_model"]

_HDF5: Final = b"\x89HDF\r\n\x1a\n"
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
    token = os.urandom(16)
    external = ExternalData(path.parent if path else None)
    importer = _Importer(label, TensorReader(data, token, external), Sidecar(ModelProto()))
    try:
        proto = ModelProto.FromString(extract(data.view, token, _THRESHOLD))
        with building():
            graph, functions = importer.model(proto)
    except (WireError, DecodeError) as error:
        if bytes(data.view[: len(_HDF5)]) == _HDF5:
            raise ModelLoadError(
                f"{label}: a NIR (HDF5) file, not an ONNX model; make one of it: "
                "snnopt convert NET.nir NET.onnx --dt SECONDS"
            ) from error
        raise ModelLoadError(f"{label}: not an ONNX model, or cut off ({error})") from error
    except CycleError as error:
        raise ModelLoadError(f"{label}: {error}") from error
    except RecursionError as error:
        raise ModelLoadError(f"{label}: bodies are nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ModelLoadError(f"{label}: holds text that is not UTF-8: {error.object!r:.80}") from error
    return Loaded(graph, functions, importer.sidecar, path, external.count > 0)


def read_function(source: FunctionProto, sidecar: Sidecar) -> Function:
    """Read one function into the records of an existing module."""
    label = f"function '{source.domain}::{source.name}'"
    proto = FunctionProto()
    proto.CopyFrom(source)
    reader = TensorReader(MemoryFile(b""), os.urandom(16), ExternalData(None))
    try:
        return _Importer(label, reader, sidecar).function(proto)
    except CycleError as error:
        raise ModelLoadError(f"{label}: {error}") from error


def _text(text: Any, what: str) -> str:
    """Return a name of the file; the protobuf library hands out bytes when it is not UTF-8."""
    if isinstance(text, str):
        return text
    raise ModelLoadError(f"{what} {text!r} is not UTF-8 text")


@dataclass(slots=True)
class _Scope:
    """One graph while it is read.

    Attributes
    ----------
    where : str
        Starts messages.
    outer : _Scope or None
    values : dict of str to Value
    declared : dict of str to list of ValueInfoProto
        What the graph says of each value, most binding first.
    """

    where: str
    outer: _Scope | None
    values: dict[str, Value] = field(default_factory=dict)
    declared: dict[str, list[Any]] = field(default_factory=dict)

    def declare(self, *groups: Iterable[Any]) -> None:
        for group in groups:
            for entry in group:
                self.declared.setdefault(entry.name, []).append(entry)

    def find(self, name: str) -> Value | None:
        scope: _Scope | None = self
        while scope is not None:
            if (value := scope.values.get(name)) is not None:
                return value
            scope = scope.outer
        return None

    def variable(self, name: str) -> Value:
        entries = self.declared.get(name)
        if not entries:
            return new_variable(name)
        dtype, shape = declared_type(entries)
        return new_variable(name, dtype, shape, type_kind(entries[0].type))

    def new_name(self, name: Any, what: str, taken: Iterable[str]) -> str:
        """Check a name that must be the only one."""
        text = _text(name, f"{self.where}{what}")
        if not text:
            raise ModelLoadError(f"{self.where}{what} has no name")
        if text in taken:
            raise ModelLoadError(f"{self.where}{what} '{text}' is defined twice")
        return text

    def output(self, name: Any) -> Value:
        value = self.find(_text(name, f"{self.where}output"))
        if value is None:
            raise ModelLoadError(f"{self.where}output '{name}' is produced by no node")
        return value


class _Importer:
    def __init__(self, label: str, tensors: TensorReader, sidecar: Sidecar) -> None:
        self.label = label
        self.tensors = tensors
        self.sidecar = sidecar
        self.constants_declared = False

    def model(self, proto: ModelProto) -> tuple[Graph, list[Function]]:
        if not proto.HasField("graph"):
            raise ModelLoadError(f"{self.label}: not an ONNX model: it has no graph")
        self.constants_declared = proto.ir_version < CONSTANTS_DECLARED_BEFORE
        for entry in proto.opset_import:
            _text(entry.domain, f"{self.label}: imported domain")
        graph = self.graph(proto.graph, None, f"{self.label}: ")
        functions = [self.function(function) for function in proto.functions]
        for part in (graph, *functions):
            part._functions = functions  # type: ignore[attr-defined]  # noqa: SLF001 -- one list per model
        self.check_functions(functions)
        proto.ClearField("graph")
        proto.ClearField("functions")
        self.sidecar.header = proto
        return graph, functions

    def check_functions(self, functions: list[Function]) -> None:
        """Refuse functions defined twice and functions that call themselves."""
        calls: dict[tuple[str, str, str], set[tuple[str, str, str]]] = {}
        for function in functions:
            header = self.sidecar.record(function).header
            key = (header.domain, header.name, header.overload)
            if key in calls:
                raise ModelLoadError(f"{self.label}: function '{key[0]}::{key[1]}' is defined twice")
            origins = map(self.sidecar.origin, with_bodies(function.nodes))
            calls[key] = {(one.domain, one.op_type, one.overload) for one in origins if one is not None}
        while leaves := [key for key, called in calls.items() if calls.keys().isdisjoint(called)]:
            for key in leaves:
                del calls[key]
        if calls:
            names = ", ".join(f"'{domain}::{name}'" for domain, name, _ in calls)
            raise ModelLoadError(f"{self.label}: functions call themselves: {names}")

    # ------------------------------------------------------------------ graphs

    def graph(self, proto: Any, outer: _Scope | None, where: str) -> Graph:
        scope = _Scope(where, outer)
        scope.declare(proto.input, proto.output, proto.value_info)
        record = GraphRecord(header=proto)
        graph: Graph = gs.Graph(name=_text(proto.name, f"{where}graph name"))
        self.inputs(graph, proto, record, scope)
        self.node_outputs(proto.node, scope)
        self.nodes(graph, proto.node, scope)
        for entry in proto.output:
            value = scope.output(entry.name)
            graph.outputs.append(value)
            record.outputs[id(value)] = (value, entry)
        self.value_info(proto, record, scope)
        record.quantized = frozenset(
            entry.tensor_name for entry in proto.quantization_annotation if scope.find(entry.tensor_name)
        )
        for name in ("node", "initializer", "sparse_initializer", "input", "output", "value_info"):
            proto.ClearField(name)
        self.sidecar.set_record(graph, record)
        sort_stable(graph)
        return graph

    def inputs(self, graph: Graph, proto: Any, record: GraphRecord, scope: _Scope) -> None:
        stored: dict[str, LazyTensor | SparseTensor] = {}
        for tensor in proto.initializer:
            name = scope.new_name(tensor.name, "initializer", stored)
            stored[name] = self.tensors.dense(tensor, f"{scope.where}initializer '{name}'")
        for sparse in proto.sparse_initializer:
            name = scope.new_name(sparse.values.name, "initializer", stored)
            stored[name] = self.tensors.sparse(sparse, f"{scope.where}initializer '{name}'")
        for entry in proto.input:
            name = scope.new_name(entry.name, "input", scope.values)
            default = stored.get(name)
            if default is not None and (self.constants_declared or isinstance(default, SparseTensor)):
                value = self.constant(name, default)
            else:
                value = scope.variable(name)
                graph.inputs.append(value)
            scope.values[name] = value
            record.declared_inputs.append(value)
            record.inputs[id(value)] = (value, entry)
        for name, default in stored.items():
            known = scope.values.get(name)
            if known is None:
                known = scope.values[name] = self.constant(name, default)
            record.initializers.append(known)
            if isinstance(default, LazyTensor) and not isinstance(known, gs.Constant):
                record.defaults[id(known)] = (known, default)

    def value_info(self, proto: Any, record: GraphRecord, scope: _Scope) -> None:
        for entry in proto.value_info:
            record.value_info.append((scope.values.get(entry.name), entry))

    def constant(self, name: str, held: LazyTensor | SparseTensor) -> Value:
        value = new_constant(name, held)
        meta = held.meta if isinstance(held, LazyTensor) else held.values.meta
        if meta.doc_string or meta.metadata_props:
            self.sidecar.set_note(value, meta)
        return value

    # ------------------------------------------------------------------- nodes

    def node_outputs(self, protos: Iterable[NodeProto], scope: _Scope) -> None:
        """Make the outputs of all nodes first: bodies may read what comes later in the file."""
        values = scope.values
        for proto in protos:
            for name in proto.output:
                if not name:
                    continue
                if name in values or not isinstance(name, str):
                    scope.new_name(name, f"output of {_label(proto)}", values)
                values[name] = scope.variable(name)

    def nodes(self, graph: Graph, protos: Iterable[NodeProto], scope: _Scope) -> None:
        values, where = scope.values, scope.where
        for proto in protos:
            inputs: list[Value] = []
            for name in proto.input:
                value = scope.find(name) if name else missing()
                if value is None:
                    raise ModelLoadError(f"{where}input '{name}' of {_label(proto)} is produced by nobody")
                inputs.append(value)
            outputs = [values[name] if name else missing() for name in proto.output]
            domain, op, name = proto.domain, proto.op_type, proto.name
            if not (isinstance(op, str) and isinstance(name, str) and isinstance(domain, str)):
                raise ModelLoadError(f"{where}the text of {_label(proto)} is not UTF-8")
            attributes = self.attributes(proto, scope) if proto.attribute else {}
            key = ("" if domain == "ai.onnx" else domain, op)
            node = new_node(key, name, attributes, inputs, outputs)
            graph.nodes.append(node)
            self.sidecar.set_origin(node, proto)

    def attributes(self, proto: NodeProto, scope: _Scope) -> dict[str, Any]:
        decoded: dict[str, Any] = {}
        for attribute in proto.attribute:
            if attribute.ref_attr_name or is_plain(attribute.type):
                value = decode_plain(attribute)
            else:
                label = f"{scope.where}attribute '{attribute.name}' of {_label(proto)}"
                value = self.object_attribute(attribute, scope, label)
            name = attribute.name
            if name in decoded or not isinstance(name, str):
                scope.new_name(name, f"attribute of {_label(proto)}", decoded)
            decoded[name] = value
        return decoded

    def object_attribute(self, attribute: AttributeProto, scope: _Scope, label: str) -> Any:
        """Read an attribute of tensors or graphs and take them out of the message."""

        def dense(tensor: Any) -> Value:
            return self.constant(_text(tensor.name, label), self.tensors.dense(tensor, label))

        def sparse(tensor: Any) -> Value:
            return self.constant(_text(tensor.values.name, label), self.tensors.sparse(tensor, label))

        def body(graph: Any) -> Graph:
            return self.graph(graph, scope, f"{label}: ")

        result: Any
        match attribute.type:
            case AttributeProto.TENSOR:
                result = dense(attribute.t)
            case AttributeProto.TENSORS:
                result = list(map(dense, attribute.tensors))
            case AttributeProto.SPARSE_TENSOR:
                result = sparse(attribute.sparse_tensor)
            case AttributeProto.SPARSE_TENSORS:
                result = list(map(sparse, attribute.sparse_tensors))
            case AttributeProto.GRAPH:
                result = body(attribute.g)
            case AttributeProto.GRAPHS:
                result = list(map(body, attribute.graphs))
            case kind:
                raise UnsupportedModelError(f"{label} has type {kind}, which this version does not know")
        for name in ("t", "tensors", "sparse_tensor", "sparse_tensors", "g", "graphs"):
            attribute.ClearField(name)
        return result

    # --------------------------------------------------------------- functions

    def function(self, proto: FunctionProto) -> Function:
        name, domain = proto.name, proto.domain
        for text in (name, domain, proto.overload, *(entry.domain for entry in proto.opset_import)):
            _text(text, f"{self.label}: function")
        scope = _Scope(f"{self.label}: function '{domain}::{name}': ", None)
        scope.declare(proto.value_info)
        record = GraphRecord(header=proto)
        function: Function = gs.Function(name, domain=domain)
        for entry in proto.input:
            value = scope.values[scope.new_name(entry, "input", scope.values)] = scope.variable(entry)
            function.inputs.append(value)
        self.node_outputs(proto.node, scope)
        self.nodes(function, proto.node, scope)
        function.outputs.extend(map(scope.output, proto.output))
        self.value_info(proto, record, scope)
        for cleared in ("node", "input", "output", "value_info"):
            proto.ClearField(cleared)
        self.sidecar.set_record(function, record)
        sort_stable(function)
        return function


def _label(proto: NodeProto) -> str:
    """Name a node for a message."""
    if proto.name:
        return f"node '{proto.name}' ({proto.op_type})"
    output = next((name for name in proto.output if name), "")
    return f"node {proto.op_type} that makes '{output}'"
