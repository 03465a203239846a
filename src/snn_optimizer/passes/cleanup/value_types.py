"""Element types of values, from declarations, constants and the operators in between."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx

from snn_optimizer import ops
from snn_optimizer.ir import Graph, Node, Value, array_of, dtype_of_constant, is_constant, is_standard

__all__ = ["ValueTypes"]

_Type = np.dtype[Any]

_LIKE_FIRST: Final = frozenset(
    {
        "Abs", "Add", "AveragePool", "BatchNormalization", "Ceil", "Clip", "Concat", "Conv", "Cos", "Div",
        "Dropout", "Elu", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND",
        "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "Identity", "LeakyRelu", "Log",
        "LogSoftmax", "MatMul", "Max", "MaxPool", "Mean", "Min", "Mod", "Mul", "Neg", "Pad", "Pow", "PRelu",
        "Range", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu",
        "Reshape", "Round", "ScatterElements", "ScatterND", "Selu", "Sigmoid", "Sign", "Sin", "Slice",
        "Softmax", "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "Transpose",
        "Unsqueeze",
    }
)  # fmt: skip
_TRUTH: Final = frozenset(
    {
        "And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor",
    }
)  # fmt: skip
_COUNTS: Final = frozenset({"ArgMax", "ArgMin", "NonZero", "Shape", "Size"})


class ValueTypes:
    """Types learned node by node, in the order of computation; a type never learned is unknown."""

    def __init__(self) -> None:
        self._learned: dict[int, _Type] = {}

    def of(self, value: Value) -> _Type | None:
        """Return the element type of a value, None when unknown."""
        if is_constant(value):
            return dtype_of_constant(value)
        if value.dtype is not None:
            found: _Type = np.dtype(value.dtype)
            return found
        return self._learned.get(id(value))

    def enter(self, node: Node, body: Graph) -> None:
        """Learn the types of the inputs of a body before its nodes are visited."""
        given = node.inputs if is_standard(node, "Scan", "Loop") else []
        if len(given) == len(body.inputs):
            for outer, inner in zip(given, body.inputs, strict=True):
                self._set(inner, self.of(outer))

    def leave(self, node: Node, body: Graph) -> None:
        """Learn the types of the outputs of a node from its body."""
        skipped = {"Scan": 0, "If": 0, "Loop": 1}.get(node.op if not node.domain else "")
        if skipped is not None and len(node.outputs) == len(body.outputs) - skipped:
            for outer, inner in zip(node.outputs, body.outputs[skipped:], strict=True):
                self._set(outer, self.of(inner))

    def learn(self, node: Node) -> None:
        """Learn the types of the outputs of a node from its inputs."""
        found = self._result(node)
        if found is not None:
            several = node.outputs if is_standard(node, "Split") else node.outputs[:1]
            for value in several:
                self._set(value, found)

    def _set(self, value: Value, found: _Type | None) -> None:
        if found is not None:
            self._learned[id(value)] = found

    def _result(self, node: Node) -> _Type | None:
        if ops.is_neuron(node.domain or "", node.op):
            return self.of(node.inputs[0])
        if not is_standard(node) or not node.inputs:
            return None
        if node.op in _LIKE_FIRST:
            return self.of(node.inputs[0])
        if node.op in _TRUTH:
            return np.dtype(np.bool_)
        if node.op in _COUNTS:
            return np.dtype(np.int64)
        match node.op:
            case "Cast":
                return cast_target(node)
            case "CastLike" | "Where":
                return self.of(node.inputs[1])
            case "ConstantOfShape":
                filler = node.attrs.get("value")
                array = None if filler is None else array_of(filler)
                return np.dtype(np.float32) if array is None else array.dtype
            case _:
                return None


def cast_target(node: Node) -> _Type | None:
    """Return the type a Cast produces, None when this version of ONNX does not know it."""
    try:
        found: _Type = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(int(node.attrs["to"])))
    except (KeyError, TypeError, ValueError):
        return None
    return found
