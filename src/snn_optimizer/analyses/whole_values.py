"""Which values are whole numbers that fit into eight bits: spikes, and what only moves them.

What a ``Scan`` carries from step to step is whole where it starts so and every step leaves it so, without that being
assumed. A layer that reads such values can be summed in integers without losing a bit of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from snn_optimizer import ops
from snn_optimizer.analyses.manager import AnalysisManager
from snn_optimizer.ir import Graph, Module, Node, Value, array_of, is_constant, is_standard

__all__ = ["WholeValues"]

LARGEST: Final = 255
_MOVING: Final = (
    "Cast", "CastLike", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze",
    "Tile", "Transpose", "Unsqueeze",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class WholeValues:
    """Values between 0 and ``LARGEST`` that are whole numbers, for every input.

    Attributes
    ----------
    largest : mapping
        The largest number each can be, by ``id`` of the value.
    """

    largest: Mapping[int, int]

    @classmethod
    def compute(cls, module: Module, analyses: AnalysisManager) -> WholeValues:
        """Follow spikes through the main graph and the bodies of its loops; cost O(nodes)."""
        found: dict[int, int] = {}
        for value in module.graph.inputs:
            if value.dtype in (np.bool_, np.uint8):
                found[id(value)] = 1 if value.dtype == np.bool_ else LARGEST
        _walk(module.graph, found)
        return cls(found)

    def of(self, value: Value) -> int | None:
        """Return the largest number a value can be, None when it may be no whole number or too large."""
        return self.largest.get(id(value))


def _walk(graph: Graph, found: dict[int, int]) -> None:
    for node in graph.nodes:
        if ops.is_neuron(node.domain or "", node.op):
            variant = ops.NeuronVariant.parse(node.op, node.attrs)
            if variant.spiking and variant.max_spikes and variant.max_spikes <= LARGEST:
                found[id(node.outputs[0])] = variant.max_spikes
        elif is_standard(node, *_MOVING):
            if (most := found.get(id(node.inputs[0]))) is not None:
                moved = node.outputs if node.op == "Split" else node.outputs[:1]
                found.update((id(value), most) for value in moved)
        elif is_standard(node, "Concat", "Add", "Sum"):
            parts = [found.get(id(value)) for value in node.inputs]
            known = [part for part in parts if part is not None]
            if len(known) != len(parts) or any(map(is_constant, node.inputs)):
                continue
            most = max(known) if node.op == "Concat" else sum(known)
            if most <= LARGEST:
                found[id(node.outputs[0])] = most
        elif is_standard(node, "Scan"):
            _scan(node, found)


def _scan(node: Node, found: dict[int, int]) -> None:
    """Follow spikes into a loop, through its body and out of it."""
    body: Graph = node.attrs["body"]
    carried = len(node.inputs) - int(node.attrs["num_scan_inputs"])
    for outer, inner in zip(node.inputs[carried:], body.inputs[carried:], strict=True):
        if (most := found.get(id(outer))) is not None:
            found[id(inner)] = most
    for _ in range(carried + 1):
        _walk(body, found)
        before = len(found)
        for outer, inner, after in zip(node.inputs, body.inputs[:carried], body.outputs, strict=False):
            start, next_step = _start(outer, found), found.get(id(after))
            if start is not None and next_step is not None and id(inner) not in found:
                found[id(inner)] = max(start, next_step)
        if len(found) == before:
            break
    for slot, (outer, inner) in enumerate(zip(node.outputs, body.outputs, strict=True)):
        most = found.get(id(inner))
        if most is None or (slot < carried and id(body.inputs[slot]) not in found):
            continue
        found[id(outer)] = max(most, found[id(body.inputs[slot])]) if slot < carried else most


def _start(value: Value, found: Mapping[int, int]) -> int | None:
    """Return the largest number a carried value starts with."""
    while value.inputs and is_standard(value.inputs[0], "Expand", "Reshape"):
        if id(value) in found:
            break
        value = value.inputs[0].inputs[0]
    if value.inputs and is_standard(value.inputs[0], "ConstantOfShape"):
        filled = value.inputs[0].attrs.get("value")
        array = np.zeros(1) if filled is None else np.asarray(getattr(filled, "values", filled))
    elif (held := array_of(value)) is not None:
        array = held
    else:
        return found.get(id(value))
    if array.dtype.kind not in "fiub" or not array.size:
        return None
    with np.errstate(invalid="ignore"):  # infinite
        whole = bool(((array >= 0) & (array <= LARGEST) & (array % 1 == 0)).all())
    return int(array.max()) if whole else None
