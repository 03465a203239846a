"""Refuse models that nothing later can survive, and name the node.

Passes rely on what the ONNX operator schemas promise: that a ``Scan`` has a body, that a
``Gemm`` has its inputs, that two operands have one type. A file may break any of it, and no
runtime accepts it then. What is checked here costs one look at every node; shapes and values
are not looked at.

Unknown operators, unknown domains and operator sets newer than the installed ``onnx`` are let
through: nobody can say what they take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from onnx import AttributeProto, NodeProto, TensorProto, defs

from snn_optimizer.errors import ModelLoadError
from snn_optimizer.ir.sidecar import Sidecar
from snn_optimizer.ir.tensors import LazyTensor, SparseTensor
from snn_optimizer.ir.types import Function, Graph, Node, Value, bodies_of, describe

__all__ = ["admit"]

_FIRST_WITH_IMPORTS: Final = 3  # IR version; before it, operator sets could not be named
_FIRST_SCAN_OF_TODAY: Final = 9  # the one of 8 has a batch axis and takes the lengths of sequences
_MANY: Final = 2**31 - 1  # how a schema says "any number"
_OPERATORS: Final = "ai.snn"
_LARGEST_IR: Final = 2**31 - 1

Types = dict[int, int]
"""Element type, of ``TensorProto.DataType``, by the ``id`` of a value."""


@dataclass(frozen=True, slots=True)
class _Formal:
    """A parameter of an operator, as far as it is checked."""

    symbol: str
    allowed: frozenset[int]
    required: bool
    checked: bool


@dataclass(frozen=True, slots=True)
class _Signature:
    """What an operator takes and makes."""

    inputs: tuple[_Formal, ...]
    outputs: tuple[_Formal, ...]
    variadic: bool
    counts: tuple[int, int, int, int]  # least and most inputs, least and most outputs
    attributes: Mapping[str, int]
    required: tuple[str, ...]


_TYPE_NAMES: Final = {f"tensor({name.lower()})": number for name, number in TensorProto.DataType.items()}
_NAMES: Final = {number: name.lower() for name, number in TensorProto.DataType.items() if number}
_KINDS: Final = {name: number for name, number in AttributeProto.AttributeType.items() if name != "UNDEFINED"}


@cache
def _signature(op: str, version: int) -> _Signature | None:
    """Return the signature of an operator; None when it is not known."""
    try:
        schema = defs.get_schema(op, version, "")
    except defs.SchemaError:
        return None
    if schema.deprecated:
        return None
    several = defs.OpSchema.FormalParameterOption.Variadic
    variadic = bool(schema.inputs) and schema.inputs[-1].option == several
    limits = (schema.min_input, schema.max_input, schema.min_output, schema.max_output)
    attributes = {name: _KINDS[one.type.name] for name, one in schema.attributes.items() if one.type.name in _KINDS}
    required = tuple(sorted(name for name, one in schema.attributes.items() if one.required))
    return _Signature(
        tuple(map(_formal, schema.inputs)), tuple(map(_formal, schema.outputs)), variadic, limits, attributes, required
    )


def _formal(parameter: Any) -> _Formal:
    options = defs.OpSchema.FormalParameterOption
    allowed = frozenset(_TYPE_NAMES[name] for name in parameter.types if name in _TYPE_NAMES)
    checked = bool(allowed) and (parameter.option != options.Variadic or parameter.is_homogeneous)
    return _Formal(parameter.type_str, allowed, parameter.option == options.Single, checked)


def admit(graph: Graph, functions: Sequence[Function], sidecar: Sidecar, label: str) -> None:
    """Check every node of a model that was read.

    Raises
    ------
    ModelLoadError
        Names the node and what is wrong with it.
    """
    header = sidecar.header
    if not 0 <= header.ir_version <= _LARGEST_IR:
        raise ModelLoadError(f"{label}: the IR version is {header.ir_version}")
    if not header.opset_import and header.ir_version >= _FIRST_WITH_IMPORTS:
        raise ModelLoadError(f"{label}: names no operator set; opset_import is empty")
    bodies = {(one.domain, one.name): one for one in functions}
    checker = _Checker(sidecar, bodies, label)
    checker.part(graph, header.opset_import, f"{label}: ", main=True)
    for function in functions:
        imports = sidecar.record(function).header.opset_import
        where = f"{label}: function '{function.domain}::{function.name}': "
        checker.part(function, imports or header.opset_import, where, main=False)


class _Checker:
    def __init__(self, sidecar: Sidecar, functions: Mapping[tuple[str, str], Function], label: str) -> None:
        self.sidecar = sidecar
        self.functions = functions
        self.types: Types = {}
        self.versions: dict[str, int] = {}
        self.main = True
        self.seen: dict[tuple[str, tuple[int, ...], int], tuple[int, ...]] = {}

    def part(self, graph: Graph, imports: Sequence[Any], where: str, *, main: bool) -> None:
        """Check the main graph or a function."""
        self.main = main
        self.versions = {}
        self.seen = {}
        for entry in imports:
            domain = "" if entry.domain == "ai.onnx" else entry.domain
            if entry.version < 0 or (entry.version == 0 and not domain):
                raise ModelLoadError(f"{where}operator set '{entry.domain}' has version {entry.version}")
            self.versions[domain] = entry.version
        if main:
            for value, entry in self.sidecar.record(graph).inputs.values():
                self.types[id(value)] = entry.type.tensor_type.elem_type
        self.graph(graph, where)

    def graph(self, graph: Graph, where: str) -> None:
        for node in graph.nodes:
            origin = self.sidecar.origin(node) if node.attrs else None
            if origin is not None and self.main:
                self.references(node, origin, where)
            called = self.functions.get((node.domain or "", node.op)) if self.functions else None
            if called is not None:
                self.call(node, called, where)
            elif not node.domain:
                self.standard(node, origin, where)
            if node.attrs:
                for name, body in bodies_of(node):
                    self.graph(body, f"{where}'{name}' of {describe(node)}: ")

    def signature(self, node: Node) -> _Signature | None:
        version = self.versions.get("", 0)
        return _signature(node.op, version) if 0 < version <= defs.onnx_opset_version() else None

    def refuse(self, where: str, node: Node, reason: str) -> ModelLoadError:
        return ModelLoadError(f"{where}node {describe(node)}: {reason}")

    def references(self, node: Node, origin: NodeProto, where: str) -> None:
        for attribute in origin.attribute:
            if attribute.ref_attr_name:
                reason = f"attribute '{attribute.name}' refers to one of a function, and is in none"
                raise self.refuse(where, node, reason)

    def call(self, node: Node, function: Function, where: str) -> None:
        taken, made = len(function.inputs), len(function.outputs)
        few = node.domain == _OPERATORS and len(node.inputs) < taken
        if few or len(node.inputs) > taken:
            raise self.refuse(where, node, f"gives {len(node.inputs)} inputs to a function of {taken}")
        if len(node.outputs) > made:
            raise self.refuse(where, node, f"takes {len(node.outputs)} outputs of a function of {made}")

    def standard(self, node: Node, origin: NodeProto | None, where: str) -> None:
        """Check a call of a standard operator; of many alike without attributes only the first."""
        types = tuple(map(self.type_of, node.inputs))
        alike = (node.op, types, len(node.outputs))
        made = None if node.attrs else self.seen.get(alike)
        if made is None:
            signature = self.signature(node)
            made = () if signature is None else self.checked(node, origin, signature, types, where)
            if not node.attrs:
                self.seen[alike] = made
        for value, element_type in zip(node.outputs, made, strict=False):
            if element_type:
                self.types[id(value)] = element_type

    def checked(
        self, node: Node, origin: NodeProto | None, signature: _Signature, types: Sequence[int], where: str
    ) -> tuple[int, ...]:
        """Check a call, and return the element types it makes, 0 where they are not known."""
        least, most, least_out, most_out = signature.counts
        given, made = len(node.inputs), len(node.outputs)
        if not least <= given <= most:
            raise self.refuse(where, node, f"has {given} inputs, the operator takes {_range(least, most)}")
        if not least_out <= made <= most_out:
            raise self.refuse(where, node, f"has {made} outputs, the operator makes {_range(least_out, most_out)}")
        for formal, value in zip(signature.inputs, node.inputs, strict=False):
            if formal.required and not value.name:
                raise self.refuse(where, node, "a required input is missing")
        for name in signature.required:
            if name not in node.attrs:
                raise self.refuse(where, node, f"has no attribute '{name}'")
        if origin is not None:
            for attribute in origin.attribute:
                kind = signature.attributes.get(attribute.name, attribute.type)
                if attribute.type != kind and not attribute.ref_attr_name:
                    found, wanted = (AttributeProto.AttributeType.Name(each) for each in (attribute.type, kind))
                    raise self.refuse(where, node, f"attribute '{attribute.name}' is of type {found}, not {wanted}")
        if node.op in ("Loop", "If") or (node.op == "Scan" and self.versions[""] >= _FIRST_SCAN_OF_TODAY):
            self.bodies(node, where)
        return self.element_types(node, signature, types, where)

    def element_types(self, node: Node, signature: _Signature, types: Sequence[int], where: str) -> tuple[int, ...]:
        bound: dict[str, tuple[int, Value]] = {}
        last = len(signature.inputs) - 1
        for index, (value, found) in enumerate(zip(node.inputs, types, strict=True)):
            formal = signature.inputs[min(index, last)]
            if found not in _NAMES or not formal.checked:
                continue
            if found not in formal.allowed:
                reason = f"input '{value.name}' is {_NAMES[found]}, which the operator does not take"
                raise self.refuse(where, node, reason)
            first, other = bound.setdefault(formal.symbol, (found, value))
            if first != found:
                raise self.refuse(
                    where, node, f"input '{value.name}' is {_NAMES[found]}, input '{other.name}' is {_NAMES[first]}"
                )
        if node.op == "Cast":
            return (node.attrs["to"] if isinstance(node.attrs["to"], int) else 0,)
        return tuple(self.made(formal, bound) for formal in signature.outputs[: len(node.outputs)])

    @staticmethod
    def made(formal: _Formal, bound: Mapping[str, tuple[int, Value]]) -> int:
        if formal.symbol in bound:
            return bound[formal.symbol][0]
        return next(iter(formal.allowed)) if len(formal.allowed) == 1 and formal.checked else 0

    def type_of(self, value: Value) -> int:
        """Return the element type of a value, 0 when it is not known, -1 when there is no value."""
        found = self.types.get(id(value))
        if found is not None:
            return found
        if not value.name:
            return -1
        held = getattr(value, "_values", None)
        if isinstance(held, LazyTensor):
            found = int(held.meta.data_type)
        elif isinstance(held, SparseTensor):
            found = int(held.values.meta.data_type)
        else:
            return 0
        self.types[id(value)] = found
        return found

    def bodies(self, node: Node, where: str) -> None:
        """Check that the numbers of what a body takes and makes are those of its node."""
        for name, body in bodies_of(node):
            if node.op == "If":
                if body.inputs:
                    raise self.refuse(where, node, f"'{name}' has inputs; a branch takes none")
            elif len(body.inputs) != max(len(node.inputs), 2 if node.op == "Loop" else 1):
                raise self.refuse(where, node, f"has {len(node.inputs)} inputs, its body {len(body.inputs)}")
            if len(node.outputs) > len(body.outputs) - (node.op == "Loop"):
                raise self.refuse(where, node, f"has {len(node.outputs)} outputs, '{name}' makes {len(body.outputs)}")
        if node.op == "Scan" and not 0 < node.attrs["num_scan_inputs"] <= len(node.inputs):
            scanned = node.attrs["num_scan_inputs"]
            raise self.refuse(where, node, f"scans {scanned} of its {len(node.inputs)} inputs")


def _range(least: int, most: int) -> str:
    if most == _MANY:
        return f"at least {least}"
    return str(least) if least == most else f"{least} to {most}"
