"""Operators of ONNX on arrays of affine functions, exact in real arithmetic.

What only moves elements is run on their places; what is linear is read off as a matrix by running it on unit vectors,
in double precision; both by the reference implementation of ``onnx``. Everything else has no rule here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator
from scipy import sparse

from snn_optimizer.exact.affine import Affine, Matrix, joined

__all__ = ["NotLinear", "Operand", "apply_rule", "by_rows_matrix", "run_reference"]

Array = npt.NDArray[Any]
Operand: TypeAlias = Affine | Array | None

_MOVES: Final = frozenset(
    {
        "Concat", "Expand", "Flatten", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Tile",
        "Transpose", "Unsqueeze",
    }
)  # fmt: skip
_ROWS: Final = frozenset({"AveragePool", "BatchNormalization", "Conv", "Gemm", "GlobalAveragePool"})
_SUMS: Final = frozenset({"ReduceMean", "ReduceSum"})
_EXTRA: Final = 8  # roundings of one element besides the additions of its sum


class NotLinear(ValueError):  # noqa: N818 - not an error of the program
    """An operator has no exact rule; the message names it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What rules need to know of the model."""

    opset: int
    unit: float


def apply_rule(node: onnx.NodeProto, operands: Sequence[Operand], opset: int, unit: float) -> list[Operand]:
    """Return the outputs of a node, at least one of whose operands is affine.

    Raises
    ------
    NotLinear
        If the operator is not linear in them, or has no rule.
    """
    setting = Setting(opset, unit)
    op = node.op_type
    if op == "Shape":
        source = _first(operands)
        shape = np.asarray(source.shape, np.int64)
        return [shape[_attribute(node, "start", 0) : _attribute(node, "end", len(shape))]]
    if op == "Identity":
        return [operands[0]]
    if op == "Cast":
        kind = helper.tensor_dtype_to_np_dtype(_attribute(node, "to", 1))
        if kind.kind != "f" or np.finfo(kind).eps / 2 > unit:
            raise NotLinear(f"'{op}' to {kind}")
        return [operands[0]]
    if op in _MOVES:
        return _moved(node, operands, setting)
    if op in _ELEMENTWISE:
        return [_ELEMENTWISE[op](operands, setting)]
    if op == "MatMul":
        return [_product(operands, setting)]
    if op in _ROWS:
        return [_by_rows(node, operands, setting)]
    if op in _SUMS:
        return [_summed(node, operands, setting)]
    raise NotLinear(f"'{op}'")


def run_reference(node: onnx.NodeProto, operands: Sequence[Array | None], opset: int) -> list[Array]:
    """Run one node on arrays, in their types."""
    plain = onnx.NodeProto()
    plain.CopyFrom(node)
    names = [f"in{slot}" if value is not None else "" for slot, value in enumerate(operands)]
    del plain.input[:], plain.output[:]
    plain.input.extend(names)
    plain.output.extend(f"out{slot}" if name else "" for slot, name in enumerate(node.output))
    feeds = {name: value for name, value in zip(names, operands, strict=True) if value is not None}
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), None) for n, a in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in plain.output if name]
    graph = helper.make_graph([plain], "node", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, feeds)]


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _first(operands: Sequence[Operand]) -> Affine:
    return next(value for value in operands if isinstance(value, Affine))


def _as_affine(value: Operand) -> Affine:
    assert value is not None
    return value if isinstance(value, Affine) else Affine.of(value)


def _moved(node: onnx.NodeProto, operands: Sequence[Operand], setting: Setting) -> list[Operand]:
    """Move the places of all elements, then fetch what stands there."""
    data = [i for i, value in enumerate(operands) if value is not None and (node.op_type == "Concat" or i == 0)]
    if any(isinstance(value, Affine) for i, value in enumerate(operands) if i not in data):
        raise NotLinear(f"'{node.op_type}' by computed indices")
    parts = [_as_affine(operands[i]) for i in data]
    places: list[Any] = list(operands)
    start = 0
    for i, part in zip(data, parts, strict=True):
        places[i] = (start + np.arange(part.size)).reshape(part.shape)
        start += part.size
    everything = parts[0] if len(parts) == 1 else joined(parts)
    return [everything.gather(found) for found in run_reference(node, places, setting.opset)]


def _sum(operands: Sequence[Operand], setting: Setting) -> Affine:
    total = _as_affine(operands[0])
    for other in operands[1:]:
        total = total.plus(_as_affine(other), setting.unit)
    return total


def _difference(operands: Sequence[Operand], setting: Setting) -> Affine:
    return _as_affine(operands[0]).plus(_as_affine(operands[1]).scaled(-1.0, setting.unit), setting.unit)


def _scaled(operands: Sequence[Operand], setting: Setting) -> Affine:
    first, second = operands
    if isinstance(first, Affine) and isinstance(second, Affine):
        raise NotLinear("'Mul' of two computed values")
    affine, factor = (first, second) if isinstance(first, Affine) else (second, first)
    assert isinstance(affine, Affine)
    return affine.scaled(np.asarray(factor), setting.unit)


def _divided(operands: Sequence[Operand], setting: Setting) -> Affine:
    first, second = operands
    if not isinstance(first, Affine) or isinstance(second, Affine):
        raise NotLinear("'Div' by a computed value")
    return first.scaled(1.0 / np.asarray(second, np.float64), setting.unit)


_ELEMENTWISE: Final[dict[str, Callable[[Sequence[Operand], Setting], Affine]]] = {
    "Add": _sum,
    "Sum": _sum,
    "Sub": _difference,
    "Mul": _scaled,
    "Div": _divided,
    "Neg": lambda operands, setting: _as_affine(operands[0]).scaled(-1.0, setting.unit),
}


def _product(operands: Sequence[Operand], setting: Setting) -> Affine:
    signal, weights = operands
    if not isinstance(signal, Affine) or isinstance(weights, Affine) or weights is None or weights.ndim != 2:
        raise NotLinear("'MatMul' other than of a signal with a constant matrix")
    matrix = sparse.csr_array(np.asarray(weights, np.float64).T)
    rows = signal.size // weights.shape[0]
    shape = (*signal.shape[:-1], weights.shape[1])
    return _repeated(signal, matrix, np.zeros(weights.shape[1]), rows, shape, setting)


def _repeated(
    signal: Affine, matrix: Matrix, offset: Array, rows: int, shape: tuple[int, ...], setting: Setting
) -> Affine:
    """Apply the same matrix to each of several rows."""
    operator = sparse.csr_array(sparse.kron(sparse.eye_array(rows), matrix))
    longest = int(np.diff(matrix.indptr).max(initial=0))
    return signal.mapped(operator, np.tile(offset, rows), shape, longest + _EXTRA, setting.unit)


def _by_rows(node: onnx.NodeProto, operands: Sequence[Operand], setting: Setting) -> Affine:
    """Read the matrix off unit vectors, one per row of the first axis; all rows share it."""
    signal, *others = operands
    if not isinstance(signal, Affine) or any(isinstance(other, Affine) for other in others):
        raise NotLinear(f"'{node.op_type}' with computed weights")
    if node.op_type == "Gemm" and _attribute(node, "transA", 0):
        raise NotLinear("'Gemm' of a transposed signal")
    if node.op_type == "BatchNormalization" and _attribute(node, "training_mode", 0):
        raise NotLinear("'BatchNormalization' in training mode")
    given = [None if other is None else np.asarray(other, np.float64) for other in others]
    if node.op_type == "Gemm" and len(given) > 1 and given[1] is not None and given[1].ndim == 2 and len(given[1]) > 1:
        raise NotLinear("'Gemm' with another bias per row")
    each = signal.shape[1:]
    matrix, offset, made = by_rows_matrix(node, each, given, setting.opset)
    shape = (signal.shape[0], *made)
    mapped = _repeated(signal, matrix, offset, signal.shape[0], shape, setting)
    if node.op_type != "BatchNormalization":
        return mapped
    # the mean is taken off before the scale is applied: what cancels there rounds by its own size
    scale, bias, mean, _ = (np.abs(np.asarray(a, np.float64)) for a in others)
    columns = np.broadcast_to(np.arange(len(scale)).reshape(-1, *(1,) * (len(each) - 1)), each).ravel()
    slope = np.abs(matrix.diagonal())
    hidden = np.tile(slope * mean[columns] + bias[columns], signal.shape[0])
    roundings = signal.roundings + 2 * _EXTRA  # what is rounded inside does not show in the matrix
    return Affine(mapped.shape, mapped.constant, mapped.terms, mapped.magnitude + hidden, roundings, None)


def by_rows_matrix(
    node: onnx.NodeProto, each: tuple[int, ...], others: Sequence[Array | None], opset: int
) -> tuple[Matrix, Array, tuple[int, ...]]:
    """Return what a node does to one row of its first axis: a matrix, an offset, and the shape of the result."""
    inside = int(np.prod(each, dtype=np.int64))
    probes = np.concatenate([np.zeros((1, inside)), np.eye(inside)]).reshape(-1, *each)
    found = run_reference(node, [probes, *others], opset)[0]
    flat = np.asarray(found, np.float64).reshape(len(found), -1)
    return sparse.csr_array((flat[1:] - flat[0]).T), flat[0], found.shape[1:]


def _summed(node: onnx.NodeProto, operands: Sequence[Operand], setting: Setting) -> Affine:
    signal, *others = operands
    if not isinstance(signal, Affine) or any(isinstance(other, Affine) for other in others):
        raise NotLinear(f"'{node.op_type}' over computed axes")
    axes = [other for other in others if not isinstance(other, Affine)]
    probes = [run_reference(node, [row.reshape(signal.shape), *axes], setting.opset)[0] for row in np.eye(signal.size)]
    matrix = sparse.csr_array(np.stack([probe.ravel() for probe in probes], axis=1))
    offset = np.zeros(matrix.shape[0])
    return signal.mapped(matrix, offset, probes[0].shape, int(np.diff(matrix.indptr).max()) + _EXTRA, setting.unit)
