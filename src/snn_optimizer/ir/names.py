"""Fresh names, the same on every run."""

from __future__ import annotations

from collections.abc import Iterable

from snn_optimizer.ir.module import Module

__all__ = ["Names"]


class Names:
    """Hands out names that nothing else has."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)
        self._next: dict[str, int] = {}

    def fresh(self, hint: str) -> str:
        """Return ``hint``, or ``hint_1``, ``hint_2``, ... when it is taken."""
        name = hint
        number = self._next.get(hint, 1)
        while name in self._taken:
            name = f"{hint}_{number}"
            number += 1
        self._next[hint] = number
        self._taken.add(name)
        return name

    @classmethod
    def of_values(cls, module: Module) -> Names:
        """Collect the names of all values, in every scope."""
        taken: set[str] = set()
        for scope in module.scopes():
            graph = scope.graph
            record = module.sidecar.record(graph)
            for values in (graph.inputs, graph.outputs, record.initializers, record.declared_inputs):
                taken.update(value.name for value in values)
            taken.update(entry.name for _, entry in record.value_info)
            for node in graph.nodes:
                taken.update(value.name for value in node.inputs)
                taken.update(value.name for value in node.outputs)
        return cls(taken)

    @classmethod
    def of_nodes(cls, module: Module) -> Names:
        """Collect the names of all nodes, in every scope."""
        return cls(node.name for scope in module.scopes() for node in scope.graph.nodes)
