"""Who produces and who reads each value, over the main graph and all its bodies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from snn_optimizer.ir.module import Module
from snn_optimizer.ir.types import Node, Scope, Use, Value

__all__ = ["GraphIndex"]


class GraphIndex:
    """Maps by identity, built once; it does not follow later changes.

    Functions are not indexed.

    Attributes
    ----------
    scopes : list of Scope
        The main graph and its bodies, outer first.
    """

    def __init__(self, module: Module) -> None:
        self._module = module  # keeps the objects alive whose ids are keys
        self.scopes: list[Scope] = [s for s in module.scopes() if not _in_function(s)]
        self._producers: dict[int, Node] = {}
        self._uses: defaultdict[int, list[Use]] = defaultdict(list)
        self._scopes: dict[int, Scope] = {}
        self._outputs: set[int] = set()
        for scope in self.scopes:
            self._outputs.update(map(id, scope.graph.outputs))
            for node in scope.graph.nodes:
                self._scopes[id(node)] = scope
                for slot, value in enumerate(node.inputs):
                    if value.name:
                        self._uses[id(value)].append(Use(node, slot))
                for value in node.outputs:
                    if value.name:
                        self._producers[id(value)] = node
        self._interface = {id(v) for v in (*module.graph.inputs, *module.graph.outputs)}

    def nodes(self) -> Iterator[Node]:
        """Yield every node of the main graph and its bodies."""
        for scope in self.scopes:
            yield from scope.graph.nodes

    def producer(self, value: Value) -> Node | None:
        """Return the node that produces a value; None for inputs, initializers, missing."""
        return self._producers.get(id(value))

    def consumers(self, value: Value) -> list[Use]:
        """Return every reading of a value, in all scopes; graph outputs are not readings."""
        return self._uses.get(id(value), [])

    def scope_of(self, node: Node) -> Scope:
        """Return the scope a node is in."""
        return self._scopes[id(node)]

    def output_of(self, value: Value) -> bool:
        """Tell whether a value is an output of the main graph or of a body."""
        return id(value) in self._outputs

    def is_interface(self, value: Value) -> bool:
        """Tell whether a value is an input or output of the main graph."""
        return id(value) in self._interface


def _in_function(scope: Scope) -> bool:
    current: Scope | None = scope
    while current is not None:
        if current.kind == "function":
            return True
        current = current.parent
    return False
