"""The model in memory; the only user of onnx-graphsurgeon."""

from __future__ import annotations

from snn_optimizer.ir.cleanup import remove_dead
from snn_optimizer.ir.decoded import is_encoded, weights_of, weights_shape
from snn_optimizer.ir.domain import InputDomain
from snn_optimizer.ir.graph import SNNGraph
from snn_optimizer.ir.index import GraphIndex
from snn_optimizer.ir.layers import NEURON_TYPES, LayerNode, Projection
from snn_optimizer.ir.module import FunctionKey, Module, ValueSpec
from snn_optimizer.ir.mutation import sort_stable
from snn_optimizer.ir.notebook import html_table
from snn_optimizer.ir.rewriter import Rewriter
from snn_optimizer.ir.shapes import Shape, Shapes
from snn_optimizer.ir.text import equation, print_graph
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
    bytes_of_constant,
    captures_of,
    describe,
    dtype_of_constant,
    is_constant,
    is_missing,
    is_standard,
    is_unscaled,
    reads_of,
    shape_of_constant,
)
from snn_optimizer.ir.verify import verify_structure

__all__ = [
    "NEURON_TYPES",
    "Array",
    "Dimension",
    "Function",
    "FunctionKey",
    "Graph",
    "GraphIndex",
    "InputDomain",
    "LayerNode",
    "Module",
    "Node",
    "OpKey",
    "Projection",
    "Rewriter",
    "SNNGraph",
    "Scope",
    "Shape",
    "Shapes",
    "Use",
    "Value",
    "ValueSpec",
    "array_of",
    "bodies_of",
    "bytes_of_constant",
    "captures_of",
    "describe",
    "dtype_of_constant",
    "equation",
    "html_table",
    "is_constant",
    "is_encoded",
    "is_missing",
    "is_standard",
    "is_unscaled",
    "print_graph",
    "reads_of",
    "remove_dead",
    "shape_of_constant",
    "sort_stable",
    "verify_structure",
    "weights_of",
    "weights_shape",
]
