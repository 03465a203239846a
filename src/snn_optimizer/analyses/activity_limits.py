"""How many of the values a linear map reads can be non-zero at one step of one sample.

A limit declared for an input, or proved of a population, holds for every contiguous block of elements inside a
frame (``ir/activity_limit.py``), so it is followed through whatever keeps the elements of a block together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses.intervals import CHUNK, Array, Range
from snn_optimizer.ir import Node, Value, array_of, is_constant
from snn_optimizer.ir.activity_limit import frame_axes

if TYPE_CHECKING:
    from snn_optimizer.analyses.bounds import RangePropagation

__all__ = ["LinearMap", "largest_total", "limit_of", "linear_map_of", "spikes_behind"]

LONGEST_WALK = 64  # nodes between a linear map and what limits it
IN_ORDER = frozenset({"Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})  # elements keep their order


def limit_of(p: RangePropagation, value: Value, block: int) -> int | None:
    """Return how many of any ``block`` consecutive elements of a value are non-zero at most, None when unknown."""
    for _ in range(LONGEST_WALK):
        train = p.trains.get(id(value))
        if train is not None:
            return train.limit if train.size % block == 0 else None
        if id(value) in p.limited_inputs:
            frame = _frame(p, value)
            return p.limited_inputs[id(value)] if frame and frame % block == 0 else None
        if id(value) in p.scanned:
            outer, axis = p.scanned[id(value)]
            frame, rank = _frame(p, outer), p.shapes.rank(outer)
            if not frame or frame % block or rank is None or axis % rank not in (0, 1) or rank < 3:
                return None
            value = outer
        elif value.inputs and _keeps_blocks(p, value.inputs[0], block):
            value = value.inputs[0].inputs[0]
        else:
            return None
    return None


def spikes_behind(p: RangePropagation, value: Value) -> Value:
    """Follow a value back through whatever keeps its elements in order."""
    for _ in range(LONGEST_WALK):
        if id(value) in p.trains or not value.inputs or value.inputs[0].domain or value.inputs[0].op not in IN_ORDER:
            break
        value = value.inputs[0].inputs[0]
    return value


def _frame(p: RangePropagation, value: Value) -> int | None:
    """Return the number of elements of a frame when it is known."""
    dims = p.shapes.shape(value)
    sizes = [] if dims is None else [dims[axis] for axis in frame_axes(len(dims))]
    if not sizes or not all(isinstance(n, int) for n in sizes):
        return None
    return int(np.prod([int(n or 0) for n in sizes]))


def _keeps_blocks(p: RangePropagation, node: Node, block: int) -> bool:
    """Tell whether every block of the output is a block of the first input."""
    if node.domain or not node.inputs:
        return False
    if node.op in IN_ORDER:
        return True
    rank, frame = p.shapes.rank(node.inputs[0]), _frame(p, node.inputs[0])
    if rank is None or rank < 3 or not frame or frame % block:
        return False
    if node.op == "Transpose":
        order = node.attrs.get("perm") or list(range(rank))[::-1]
        return list(order[2:]) == list(range(2, rank))
    return node.op == "Gather" and int(node.attrs.get("axis", 0)) % rank in (0, 1)  # some steps, or some samples


@dataclass(frozen=True, slots=True)
class LinearMap:
    """``weights @ source + bias`` behind a value; the weights as (rows, columns)."""

    weights: npt.NDArray[Any]
    bias: Array
    source: Value
    incoming: Range


def linear_map_of(p: RangePropagation, value: Value, rows: int) -> LinearMap | None:
    """Return the matrix product a value of ``rows`` consecutive elements comes from, None when it is another thing."""
    bias = np.zeros(rows)
    for _ in range(LONGEST_WALK):
        if id(value) in p.scanned:
            value = p.scanned[id(value)][0]
            continue
        if not value.inputs or value.inputs[0].domain:
            return None
        node = value.inputs[0]
        if node.op in IN_ORDER:
            value = node.inputs[0]
        elif node.op == "Add" and any(is_constant(v) for v in node.inputs):
            constant = next(v for v in node.inputs if is_constant(v))
            array = array_of(constant)
            if array is None or array.size not in (1, rows) or array.shape[-1:] not in ((), (1,), (rows,)):
                return None
            bias = bias + np.asarray(array, np.float64).reshape(-1)
            value = next(v for v in node.inputs if v is not constant)
        else:
            return _product_of(p, node, rows, bias)
    return None


def _product_of(p: RangePropagation, node: Node, rows: int, bias: Array) -> LinearMap | None:
    weights = array_of(node.inputs[1]) if node.op in {"Gemm", "MatMul"} else None
    if weights is None or weights.ndim != 2 or node.attrs.get("transA", 0) or float(node.attrs.get("alpha", 1.0)) != 1:
        return None
    weights = weights if node.attrs.get("transB", 0) else weights.T
    if len(node.inputs) > 2 and node.inputs[2].name:
        added = array_of(node.inputs[2])
        if added is None or added.size not in (1, rows):
            return None
        bias = bias + np.asarray(added, np.float64).reshape(-1) * float(node.attrs.get("beta", 1.0))
    incoming = p.range_of(node.inputs[0])
    if weights.shape[0] != rows or incoming is None:
        return None
    columns = weights.shape[1]
    if incoming.low.shape[-1] not in (1, columns) or any(n != 1 for n in incoming.low.shape[:-1]):
        return None
    row = incoming.apply(lambda a: np.broadcast_to(a.reshape(-1), (columns,)))
    return LinearMap(weights, bias, node.inputs[0], row)


def largest_total(one: LinearMap, limit: int, scales: Array, roundoff: float) -> float:
    """Bound ``sum over rows of scales * max(row, 0)`` if at most ``limit`` of the inputs are non-zero.

    Each input adds at most its positive products with all rows, so the largest such sums count.
    """
    rows, columns = one.weights.shape
    totals = np.zeros(columns)
    step = max(1, CHUNK // max(columns, 1))
    with np.errstate(all="ignore"):
        for start in range(0, rows, step):
            block = np.asarray(one.weights[start : start + step], np.float64)
            terms = np.maximum(np.maximum(block * one.incoming.low, block * one.incoming.high), 0)
            totals += scales[start : start + step] @ terms
        largest = np.sort(totals)[::-1][:limit].sum() + float(scales @ np.maximum(one.bias, 0))
    terms = 2.0 * min(columns, limit) + 4
    return float(largest * (1 + 2 * terms * roundoff / (1 - 2 * terms * roundoff)) * (1 + 1e-9))
