"""Which values are whole numbers that fit into eight bits: spikes, and what only moves them.

A layer that reads such values can be summed in integers without losing a bit of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from snn_optimizer import ops
from snn_optimizer.analyses.manager import AnalysisManager
from snn_optimizer.ir import Graph, Module, Value, is_constant, is_standard

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
        """Follow spikes through the main graph; cost O(nodes)."""
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
