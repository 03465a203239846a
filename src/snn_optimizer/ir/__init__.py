"""The model in memory; the only user of onnx-graphsurgeon."""

from __future__ import annotations

from snn_optimizer.ir.cleanup import remove_dead
from snn_optimizer.ir.index import GraphIndex
from snn_optimizer.ir.module import FunctionKey, Module, ValueSpec
from snn_optimizer.ir.mutation import sort_stable
from snn_optimizer.ir.rewriter import Rewriter
from snn_optimizer.ir.types import (
    Array,
    Dimension,
    Function,
    Graph,
    Node,
    OpKey,
    Scope,
    Use,
    Value,
    array_of,
    bodies_of,
    captures_of,
    describe,
    dtype_of_constant,
    is_constant,
    is_missing,
    is_standard,
    reads_of,
    shape_of_constant,
)
from snn_optimizer.ir.verify import verify_structure

__all__ = [
    "Array",
    "Dimension",
    "Function",
    "FunctionKey",
    "Graph",
    "GraphIndex",
    "Module",
    "Node",
    "OpKey",
    "Rewriter",
    "Scope",
    "Use",
    "Value",
    "ValueSpec",
    "array_of",
    "bodies_of",
    "captures_of",
    "describe",
    "dtype_of_constant",
    "is_constant",
    "is_missing",
    "is_standard",
    "reads_of",
    "remove_dead",
    "shape_of_constant",
    "sort_stable",
    "verify_structure",
]
