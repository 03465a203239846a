"""Raise the opset of a model to the first one that neurons need, where that changes nothing.

Between 13 and 16 the standard operators gained element types and optional attributes. A model
whose operators mean the same before and after is relabelled; no node is touched.
"""

from __future__ import annotations

from typing import Final

import onnx

from snn_optimizer import ops
from snn_optimizer.ir import Module

__all__ = ["raise_opset"]

_FIRST: Final = 13  # below, axes are attributes
_EXTENDED: Final = frozenset(
    {
        "Add", "BatchNormalization", "Div", "Equal", "Greater", "GreaterOrEqual", "Identity", "If", "Less",
        "LessOrEqual", "Loop", "Max", "Min", "Mul", "PRelu", "Pow", "Relu", "Reshape", "Scan", "Shape", "Sub",
        "Where",
    }
)  # fmt: skip
"""Operators with a new version in 14 to 16 that computes what the old one did."""


def raise_opset(module: Module) -> bool:
    """Relabel the model for the first opset that neurons need; tell whether it has one they can use."""
    version = module.opset()
    if version >= ops.MINIMUM_OPSET:
        return version <= ops.MAXIMUM_OPSET
    if version < _FIRST:
        return False
    for scope in module.scopes():
        if scope.kind == "function":
            return False
        for node in scope.graph.nodes:
            if not node.domain and node.op not in _EXTENDED and _changed(node.op, version):
                return False
    module.opset_imports["" if "" in module.opset_imports else "ai.onnx"] = ops.MINIMUM_OPSET
    return True


def _changed(op: str, version: int) -> bool:
    try:
        before = onnx.defs.get_schema(op, version)
        after = onnx.defs.get_schema(op, ops.MINIMUM_OPSET)
    except onnx.defs.SchemaError:
        return True
    return bool(before.since_version != after.since_version)
