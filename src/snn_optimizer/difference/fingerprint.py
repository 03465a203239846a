"""A hash of what a graph computes: operators, attributes, constants and wiring, whatever the names."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from functools import lru_cache

import onnx
from onnx import AttributeProto

from snn_optimizer.ir import Graph, Module, Node, Value, array_of, bodies_of, is_constant, is_missing, is_standard
from snn_optimizer.ir.contents import attribute_key, digest

__all__ = ["fingerprint"]


def fingerprint(module: Module) -> bytes:
    """Return the same bytes for models that differ in names, metadata and the order of nodes at most.

    What no output depends on does not count, nor does an ``Identity``, nor whether a
    default attribute is written. Inputs are told apart by their place.
    """
    return _Fingerprint(module).graph(module.graph, {})


class _Fingerprint:
    def __init__(self, module: Module) -> None:
        self.module = module
        self.functions: dict[int, bytes] = {}
        self.constants: dict[int, bytes] = {}

    def graph(self, graph: Graph, outer: dict[int, bytes]) -> bytes:
        known = dict(outer)
        for place, value in enumerate(graph.inputs):
            known[id(value)] = _hash("input", place)
        for node in graph.nodes:  # sorted: a value is made before it is read
            if is_standard(node, "Identity"):
                known[id(node.outputs[0])] = self.value(node.inputs[0], known)
                continue
            made = self.node(node, known)
            for place, value in enumerate(node.outputs):
                known[id(value)] = _hash(made, place, is_missing(value))
        return _hash(*(self.value(value, known) for value in graph.outputs))

    def node(self, node: Node, known: dict[int, bytes]) -> bytes:
        bodies = bodies_of(node)
        names = {name.split("[")[0] for name, _ in bodies}
        written = {name: attribute_key(held) for name, held in node.attrs.items() if name not in names}
        defaults = _defaults(node.op, self.module.opset()) if is_standard(node) else {}
        plain = sorted((name, held) for name, held in written.items() if held != defaults.get(name))
        function = self.module.function_of(node)
        called = b"" if function is None else self.functions.get(id(function))
        if called is None:
            called = self.functions[id(function)] = self.graph(function, {})  # type: ignore[arg-type]
        inputs = [self.value(value, known) for value in node.inputs]
        inner = [(name, self.graph(body, known)) for name, body in bodies]
        return _hash(node.domain or "", node.op, plain, inputs, inner, called)

    def value(self, value: Value, known: dict[int, bytes]) -> bytes:
        if id(value) in known:
            return known[id(value)]
        if is_missing(value):
            return b"missing"
        if id(value) not in self.constants:
            array = array_of(value) if is_constant(value) else None
            self.constants[id(value)] = (
                _hash("unknown", value.name)
                if array is None
                else _hash("constant", array.dtype.name, array.shape, digest(array))
            )
        return self.constants[id(value)]


@lru_cache(maxsize=1024)
def _defaults(op: str, opset: int) -> Mapping[str, Hashable]:
    """Return what attributes mean that are not written: to write it, or not to, is the same."""
    try:
        schema = onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return {}
    found: dict[str, Hashable] = {}
    for name, attribute in schema.attributes.items():
        if attribute.default_value.type != AttributeProto.UNDEFINED:
            held = onnx.helper.get_attribute_value(attribute.default_value)
            found[name] = attribute_key(held.decode() if isinstance(held, bytes) else held)
    return found


def _hash(*parts: object) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
