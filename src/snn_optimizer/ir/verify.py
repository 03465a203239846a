"""Check that a module is structurally valid; run after every pass."""

from __future__ import annotations

from collections import defaultdict

import onnx_graphsurgeon as gs

from snn_optimizer.errors import IRVerificationError
from snn_optimizer.ir.module import OPERATOR_DOMAIN, Module
from snn_optimizer.ir.types import Node, Scope, Value, bodies_of, describe

__all__ = ["verify_structure"]


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
        self.readers: defaultdict[int, list[int]] = defaultdict(list)
        self.producers: dict[int, int] = {}
        self.values: dict[int, Value] = {}
        self.nodes: set[int] = set()

    def scope(self, scope: Scope, outer: tuple[dict[str, Value], ...]) -> None:
        """Check one scope; ``outer`` are the names visible around it, nearest scope first."""
        graph = scope.graph
        record = self.module.sidecar.record(graph)
        local: dict[str, Value] = {}
        for value in graph.inputs:
            self.define(value, local, scope, "input")
        for value in record.initializers:
            self.define(value, local, scope, "initializer")
        for node in graph.nodes:
            self.node(node, local, outer, scope)
        for value in graph.outputs:
            if not self.visible(value, local, outer):
                raise IRVerificationError(f"{scope.path}: output '{value.name}' is not produced")

    def define(self, value: Value, local: dict[str, Value], scope: Scope, what: str) -> None:
        if local.setdefault(value.name, value) is not value or not value.name:
            raise IRVerificationError(f"{scope.path}: {what} '{value.name}' has no name of its own")
        self.values[id(value)] = value

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
            self.readers[id(value)].append(id(node))
        if node.attrs:
            for name, body in bodies_of(node):
                inner = Scope(body, f"{scope.path}/{node.name}.{name}", "body", node, scope)
                self.scope(inner, (local, *outer))
        for value in node.outputs:
            if value.name:
                self.define(value, local, scope, f"output of node {describe(node)}")
                self.producers[id(value)] = id(node)
        self.call(node, scope)

    def call(self, node: Node, scope: Scope) -> None:
        if not node.domain:
            return
        key = self.module.call_key(node)
        if key not in self.functions and key in self.required:
            raise IRVerificationError(f"{scope.path}: node {describe(node)} calls a function that is gone")
        if node.domain == OPERATOR_DOMAIN and key not in self.functions | self.module.bodiless:
            raise IRVerificationError(f"{scope.path}: node {describe(node)} calls '{node.op}', which has no function")

    def links(self) -> None:
        for key, value in self.values.items():
            made = [id(node) for node in value.inputs]
            if made != ([self.producers[key]] if key in self.producers else []):
                raise IRVerificationError(f"value '{value.name}' does not know its producer")
            read = [id(node) for node in value.outputs]
            if read != self.readers[key] and sorted(read) != sorted(self.readers[key]):
                raise IRVerificationError(f"value '{value.name}' does not know its readers")
