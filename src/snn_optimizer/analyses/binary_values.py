"""Which values are zeros and ones, for every input: spikes, truth values, and what only moves or selects them.

What a loop carries is assumed to be binary as long as it starts and is returned so; an assumption that fails is
dropped and the loop looked at again, so each one that is left holds at the first step and from step to step.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

import numpy as np

from snn_optimizer import ops
from snn_optimizer.analyses.manager import AnalysisManager
from snn_optimizer.ir import Graph, Module, Node, Value, array_of, is_constant, is_standard

__all__ = ["BinaryValues"]

_MOVING: Final = (
    "CastLike", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze",
    "Tile", "Transpose", "Unsqueeze",
)  # fmt: skip
_TRUTHS: Final = (
    "And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor",
)  # fmt: skip
_CLOSED: Final = ("Concat", "Max", "Min", "Mul")  # of zeros and ones they make zeros and ones


@dataclass(frozen=True, slots=True)
class BinaryValues:
    """Values that hold nothing but zeros and ones.

    Attributes
    ----------
    proved : set of int
        By ``id`` of the value.
    """

    proved: AbstractSet[int]

    @classmethod
    def compute(cls, module: Module, analyses: AnalysisManager) -> BinaryValues:
        """Follow spikes through the main graph and its loops; cost O(nodes) for a loop that carries few values."""
        found = {id(value) for value in module.graph.inputs if value.dtype == np.bool_}
        _walk(module.graph, found)
        return cls(found)

    def holds(self, value: Value) -> bool:
        """Tell whether a value is proved to be zeros and ones."""
        return _is_binary(value, self.proved)


def _is_binary(value: Value, found: AbstractSet[int]) -> bool:
    if id(value) in found:
        return True
    array = array_of(value) if is_constant(value) else None
    return array is not None and array.dtype.kind in "fiub" and bool(((array == 0) | (array == 1)).all())


def _walk(graph: Graph, found: set[int]) -> None:
    for node in graph.nodes:
        if ops.is_neuron(node.domain or "", node.op):
            variant = ops.NeuronVariant.parse(node.op, node.attrs)
            if variant.spiking and variant.max_spikes == 1:
                found.add(id(node.outputs[0]))
        elif is_standard(node, "Scan"):
            _scan(node, found)
        elif is_standard(node, *_TRUTHS):
            found.add(id(node.outputs[0]))
        elif _keeps(node, found):
            found.update(id(value) for value in (node.outputs if node.op == "Split" else node.outputs[:1]))


def _keeps(node: Node, found: AbstractSet[int]) -> bool:
    if is_standard(node, "Cast", *_MOVING):
        return _is_binary(node.inputs[0], found)
    if is_standard(node, *_CLOSED):
        return all(_is_binary(value, found) for value in node.inputs)
    if is_standard(node, "Where"):
        return all(_is_binary(value, found) for value in node.inputs[1:])
    if is_standard(node, "ConstantOfShape"):
        filled = node.attrs.get("value")
        return filled is None or _is_binary(filled, found)
    return False


def _scan(node: Node, found: set[int]) -> None:
    body: Graph = node.attrs["body"]
    carried = len(node.inputs) - int(node.attrs["num_scan_inputs"])
    assumed = {slot for slot in range(len(node.inputs)) if _is_binary(node.inputs[slot], found)}
    while True:
        inside = found | {id(body.inputs[slot]) for slot in assumed}
        _walk(body, inside)
        failed = {slot for slot in assumed if slot < carried and not _is_binary(body.outputs[slot], inside)}
        if not failed:
            break
        assumed -= failed
    found |= inside
    outputs = zip(node.outputs, body.outputs, strict=False)  # trailing outputs may be left out
    found.update(id(outer) for outer, inner in outputs if _is_binary(inner, found))
