"""Check that a module is structurally valid; run after every pass."""

from __future__ import annotations

from typing import Final

import onnx_graphsurgeon as gs

from snn_optimizer.errors import IRVerificationError
from snn_optimizer.ir.module import OPERATOR_DOMAIN, Module
from snn_optimizer.ir.types import Node, Scope, Value, bodies_of, describe

__all__ = ["verify_structure"]


# The readers of a value as one number, so that a check of many nodes makes few objects:
# how many times this, plus the sum of their ids. Two different sets of readers that add up
# to the same would need ids that happen to.
_READER: Final = 1 << 80


def verify_structure(module: Module) -> None:
    """Check names, order, links and calls in every scope; linear in the nodes.

    Every read value is produced before, an input, an initializer, or of an enclosing
    scope; a name means one value wherever it is visible; outputs are produced; values
    know their producers and readers; every function that is called exists.

    Raises
    ------
    IRVerificationError
        Names the invariant that is broken, the node and the scope.
    """
    checker = _Checker(module)
    for scope in module.scopes():
        if scope.parent is None:
            checker.scope(scope, ())
    checker.links()


class _Checker:
    def __init__(self, module: Module) -> None:
        self.module = module
        self.functions = {module.key_of(function) for function in module.functions}
        self.required = module.loaded_functions
        self.readers: dict[int, int] = {}  # id of a value to the fingerprint of its readers
        self.producers: dict[int, int] = {}
        self.given: set[int] = set()  # inputs and initializers
        self.values: dict[int, Value] = {}
        self.nodes: set[int] = set()

    def scope(self, scope: Scope, outer: tuple[dict[str, Value], ...]) -> None:
        """Check one scope; ``outer`` are the names visible around it, nearest scope first."""
        graph = scope.graph
        record = self.module.sidecar.record(graph)
        local: dict[str, Value] = {}
        for value in graph.inputs:
            if not self.define(value, local):
                raise IRVerificationError(f"{scope.path}: input '{value.name}' has no name of its own")
        for value in record.initializers:
            if not self.define(value, local):
                raise IRVerificationError(f"{scope.path}: initializer '{value.name}' has no name of its own")
        self.given.update(map(id, local.values()))
        for node in graph.nodes:
            self.node(node, local, outer, scope)
        for value in graph.outputs:
            if not self.visible(value, local, outer):
                raise IRVerificationError(f"{scope.path}: output '{value.name}' is not produced")

    def define(self, value: Value, local: dict[str, Value]) -> bool:
        """Note a value of a scope; False when its name is taken or empty."""
        self.values[id(value)] = value
        return bool(value.name) and local.setdefault(value.name, value) is value

    def visible(self, value: Value, local: dict[str, Value], outer: tuple[dict[str, Value], ...]) -> bool:
        """Tell whether reading this value's name here gives this value."""
        known = local.get(value.name)
        for names in outer:
            if known is None:
                known = names.get(value.name)
        if known is None and isinstance(value, gs.Constant):
            root = outer[-1] if outer else local  # nobody's yet: the export stores it outermost
            root[value.name] = value
            return True
        return known is value

    def node(self, node: Node, local: dict[str, Value], outer: tuple[dict[str, Value], ...], scope: Scope) -> None:
        if id(node) in self.nodes:
            raise IRVerificationError(f"{scope.path}: node {describe(node)} is in two places")
        self.nodes.add(id(node))
        for value in node.inputs:
            if not value.name:
                continue
            if not self.visible(value, local, outer):
                raise IRVerificationError(
                    f"{scope.path}: input '{value.name}' of node {describe(node)} is not produced before it"
                )
            self.values[id(value)] = value
            self.readers[id(value)] = self.readers.get(id(value), 0) + _READER + id(node)
        if node.attrs:
            for name, body in bodies_of(node):
                inner = Scope(body, f"{scope.path}/{node.name}.{name}", "body", node, scope)
                self.scope(inner, (local, *outer))
        for value in node.outputs:
            if value.name:
                taken = id(value) in self.producers or id(value) in self.given
                if taken or not self.define(value, local):
                    raise IRVerificationError(
                        f"{scope.path}: output '{value.name}' of node {describe(node)} has no name of its own"
                    )
                self.producers[id(value)] = id(node)
        self.call(node, scope)

    def call(self, node: Node, scope: Scope) -> None:
        if not node.domain:
            return
        key = self.module.call_key(node)
        if key not in self.functions and key in self.required:
            raise IRVerificationError(f"{scope.path}: node {describe(node)} calls a function that is gone")
        if node.domain == OPERATOR_DOMAIN and key not in self.functions and key not in self.module.bodiless:
            raise IRVerificationError(f"{scope.path}: node {describe(node)} calls '{node.op}', which has no function")

    def links(self) -> None:
        for key, value in self.values.items():
            if len(value.inputs) != (key in self.producers) or (
                value.inputs and id(value.inputs[0]) != self.producers[key]
            ):
                raise IRVerificationError(f"value '{value.name}' does not know its producer")
            known = sum(map(id, value.outputs)) + len(value.outputs) * _READER
            if known != self.readers.get(key, 0):
                raise IRVerificationError(f"value '{value.name}' does not know its readers")
