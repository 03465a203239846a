"""What stands between the layers: operators, their constants, and the interface."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from snn_optimizer.ir import (
    Graph,
    Node,
    SNNGraph,
    Value,
    array_of,
    bodies_of,
    dtype_of_constant,
    is_constant,
    is_standard,
)
from snn_optimizer.ir.contents import digest
from snn_optimizer.ops import is_neuron

__all__ = ["OperatorChange", "compare_interfaces", "compare_operators"]


@dataclass(frozen=True, slots=True)
class OperatorChange:
    """An operator of which there are more or fewer, or whose constants are others.

    Attributes
    ----------
    op : str
    before, after : int
        How many there are.
    constants : int
        Constants of floating point, not of a layer, that only one of the networks has.
    """

    op: str
    before: int
    after: int
    constants: int

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serializable form."""
        return {"op": self.op, "before": self.before, "after": self.after, "constants": self.constants}


def compare_operators(first: SNNGraph, second: SNNGraph) -> tuple[OperatorChange, ...]:
    """Compare the operators that are not neurons; those are layers."""
    numbers, constants = [], []
    for graph in (first, second):
        nodes = list(_nodes(graph.module.graph))
        of_layers = set(_of_layers(graph))
        numbers.append(Counter(map(_name, nodes)))
        constants.append(
            Counter(
                (_name(node), _contents(value))
                for node in nodes
                for value in node.inputs
                if _is_number(value) and id(value) not in of_layers
            )
        )
    others = Counter(name for name, _ in ((constants[0] - constants[1]) + (constants[1] - constants[0])).elements())
    names = sorted(numbers[0].keys() | numbers[1].keys())
    found = (OperatorChange(name, numbers[0][name], numbers[1][name], others[name]) for name in names)
    return tuple(change for change in found if change.before != change.after or change.constants)


def compare_interfaces(first: SNNGraph, second: SNNGraph) -> tuple[tuple[str, str], ...]:
    """Return the inputs and outputs that differ, in either; empty text where there is none."""
    found: list[tuple[str, str]] = []
    for what in ("inputs", "outputs"):
        old, new = ([_port(what, one) for one in getattr(graph.module.graph, what)] for graph in (first, second))
        for place in range(max(len(old), len(new))):
            pair = (old[place] if place < len(old) else "", new[place] if place < len(new) else "")
            found += [pair] if pair[0] != pair[1] else []
    return tuple(found)


def _nodes(graph: Graph) -> Iterator[Node]:
    """Yield the nodes of a graph and of its bodies that are no neurons and do something."""
    pending = [graph]
    while pending:
        for node in pending.pop().nodes:
            pending += [body for _, body in bodies_of(node)]
            if not is_neuron(node.domain or "", node.op) and not is_standard(node, "Identity"):
                yield node


def _of_layers(graph: SNNGraph) -> Iterator[int]:
    for layer in graph.layers:
        for projection in layer.projections:
            for use in (projection.weight_use, projection.bias):
                if use is not None:
                    yield id(use.node.inputs[use.slot])


def _name(node: Node) -> str:
    return f"{node.domain}.{node.op}" if node.domain else node.op


def _is_number(value: Value) -> bool:
    """Tell whether a value is a constant of floating point; shapes and axes are how a file is written."""
    return is_constant(value) and getattr(dtype_of_constant(value), "kind", "") in "fV"


def _contents(value: Value) -> bytes:
    array = array_of(value)
    return b"" if array is None else repr((array.dtype.name, array.shape)).encode() + digest(array)


def _port(what: str, value: Value) -> str:
    shape = "unknown shape" if value.shape is None else ", ".join("?" if n is None else str(n) for n in value.shape)
    return f"{what[:-1]} {value.name} [{shape}] {np.dtype(value.dtype).name if value.dtype is not None else '?'}"
