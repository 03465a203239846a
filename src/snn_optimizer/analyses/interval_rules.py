"""Interval arithmetic of stateless operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from snn_optimizer.analyses.activity_limits import limit_of
from snn_optimizer.analyses.intervals import Array, Range, contract, widen
from snn_optimizer.ir import Node, array_of, is_constant

if TYPE_CHECKING:
    from snn_optimizer.analyses.bounds import RangePropagation

__all__ = ["INTERVAL_RULES"]

Rule = Callable[["RangePropagation", Node], Range | None]
INTERVAL_RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register an interval rule; ``None`` from a rule means unknown."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            INTERVAL_RULES[operator] = function
        return function

    return register


@rule("Identity", "Dropout", "MaxPool", "GlobalMaxPool")
def unchanged(p: RangePropagation, node: Node) -> Range | None:
    """Pass the operand; a maximum over positions of one channel stays in the channel's range."""
    return p.collapse_spatial(node) if node.op.endswith("MaxPool") else p.get(node, 0)


@rule("Cast", "CastLike")
def cast(p: RangePropagation, node: Node) -> Range | None:
    """Keep exact small integers (spikes); anything else may round."""
    operand = p.get(node, 0)
    if operand is None or not p.is_float(node.outputs[0]):
        return None
    whole = (operand.low == np.round(operand.low)) & (operand.high == np.round(operand.high))
    size = np.maximum(np.abs(operand.low), np.abs(operand.high))
    exact = whole & (size <= 256)
    low, high = widen(operand.low, operand.high, size, p.roundoff(node))
    return Range.of(np.where(exact, operand.low, low), np.where(exact, operand.high, high), operand.fixed & exact)


@rule("Add", "Sub", "Mul", "Div", "Min", "Max")
def arithmetic(p: RangePropagation, node: Node) -> Range | None:
    """Combine the ends of two operands."""
    if len(node.inputs) != 2:
        return None
    first, second = p.get(node, 0), p.get(node, 1)
    if first is None or second is None:
        return None
    if node.op == "Div" and bool(((second.low <= 0) & (second.high >= 0)).any()):
        return None
    operation = {
        "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Min": np.minimum, "Max": np.maximum,
    }[node.op]  # fmt: skip
    with np.errstate(all="ignore"):
        ends = [operation(a, b) for a in (first.low, first.high) for b in (second.low, second.high)]
    low, high = np.minimum.reduce(ends), np.maximum.reduce(ends)
    if node.op in {"Min", "Max"}:
        return Range.of(low, high, first.fixed & second.fixed)
    size = np.maximum(np.abs(low), np.abs(high))
    exact = _exact(node.op, first, second, low, high)
    wide_low, wide_high = widen(low, high, size, p.roundoff(node))
    return Range.of(np.where(exact, low, wide_low), np.where(exact, high, wide_high), first.fixed & second.fixed)


def _exact(operation: str, first: Range, second: Range, low: Array, high: Array) -> Array:
    """Sums and products of small whole numbers (spikes) do not round."""
    whole = [(r.low == np.round(r.low)) & (r.high == np.round(r.high)) for r in (first, second)]
    small = np.maximum(np.abs(low), np.abs(high)) <= 256
    return np.asarray((operation != "Div") & whole[0] & whole[1] & small)


@rule("Neg")
def negate(p: RangePropagation, node: Node) -> Range | None:
    """Swap the ends."""
    operand = p.get(node, 0)
    return None if operand is None else Range.of(-operand.high, -operand.low, operand.fixed)


@rule("Relu")
def relu(p: RangePropagation, node: Node) -> Range | None:
    """Clip below zero."""
    operand = p.get(node, 0)
    return None if operand is None else Range.of(np.maximum(operand.low, 0), np.maximum(operand.high, 0), operand.fixed)


@rule("Clip")
def clip(p: RangePropagation, node: Node) -> Range | None:
    """Clip between constants."""
    operand = p.get(node, 0)
    bounds = [array_of(v) if v.name else None for v in node.inputs[1:3]]
    if operand is None or any(v.name and b is None for v, b in zip(node.inputs[1:3], bounds, strict=True)):
        return None
    low, high = operand.low, operand.high
    if bounds and bounds[0] is not None:
        low, high = np.maximum(low, float(bounds[0])), np.maximum(high, float(bounds[0]))
    if len(bounds) > 1 and bounds[1] is not None:
        low, high = np.minimum(low, float(bounds[1])), np.minimum(high, float(bounds[1]))
    return Range.of(low, high, operand.fixed)


@rule("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or", "Xor")
def truth(p: RangePropagation, node: Node) -> Range | None:
    """A truth value is 0 or 1."""
    rank = p.shapes.rank(node.outputs[0])
    return None if rank is None else Range.of(np.zeros((1,) * rank), np.ones((1,) * rank))


@rule("Where")
def where(p: RangePropagation, node: Node) -> Range | None:
    """Either branch."""
    first, second = p.get(node, 1), p.get(node, 2)
    if first is None or second is None:
        return None
    joined = first.join(second)
    rank = p.shapes.rank(node.outputs[0])
    return joined if rank is None or joined.rank == rank else p.with_rank(joined, rank)


@rule("Gemm")
def gemm(p: RangePropagation, node: Node) -> Range | None:
    """Bound a matrix product with constant weights."""
    weights = array_of(node.inputs[1])
    source = p.get(node, 0)
    if weights is None or source is None or node.attrs.get("transA", 0) or source.rank != 2:
        return None
    weights = weights if node.attrs.get("transB", 0) else weights.T
    alpha, beta = float(node.attrs.get("alpha", 1.0)), float(node.attrs.get("beta", 1.0))
    bias = array_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None
    if alpha != 1.0 or source.low.shape[0] != 1 or (bias is not None and bias.size not in {1, weights.shape[0]}):
        return None
    computed = len(node.inputs) > 2 and bool(node.inputs[2].name) and bias is None
    if computed or weights.shape[1] % source.low.shape[1]:
        return None
    row = Range(source.low[0], source.high[0], source.fixed[0])
    offset = None if bias is None else np.broadcast_to(bias.reshape(-1) * beta, weights.shape[:1])
    bound = contract(weights, row, offset, p.roundoff(node), limit_of(p, node.inputs[0], weights.shape[1]))
    return Range(bound.low[None], bound.high[None], bound.fixed[None])


@rule("MatMul")
def matmul(p: RangePropagation, node: Node) -> Range | None:
    """Bound a product with a constant matrix on the right."""
    weights = array_of(node.inputs[1])
    source = p.get(node, 0)
    if weights is None or weights.ndim != 2 or source is None or any(n != 1 for n in source.low.shape[:-1]):
        return None
    row = source.apply(lambda a: a.reshape(-1))
    bound = contract(weights.T, row, None, p.roundoff(node), limit_of(p, node.inputs[0], len(weights)))
    shape = (1,) * (source.rank - 1) + (-1,)
    return Range(bound.low.reshape(shape), bound.high.reshape(shape), bound.fixed.reshape(shape))


@rule("Conv")
def convolution(p: RangePropagation, node: Node) -> Range | None:
    """Bound every output channel over all positions; padding adds zeros to the input's range."""
    weights = array_of(node.inputs[1])
    source = p.collapse_spatial(node)
    if weights is None or source is None or source.low.shape[0] != 1:
        return None
    bias = array_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None
    if len(node.inputs) > 2 and node.inputs[2].name and bias is None:
        return None
    groups = int(node.attrs.get("group", 1))
    padded = bool(np.any(node.attrs.get("pads", 0))) or node.attrs.get("auto_pad", "NOTSET") not in {
        "NOTSET",
        "VALID",
    }
    channels = weights.shape[1] * groups
    low, high, fixed = (np.broadcast_to(a.reshape(-1), (channels,)) for a in (source.low, source.high, source.fixed))
    if padded:
        fixed = fixed & (low == 0) & (high == 0)
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    kernel = int(np.prod(weights.shape[2:]))
    flat = weights.reshape(weights.shape[0], -1)
    rows = weights.shape[0] // groups
    limit = _active_in_a_window(p, node, channels)
    parts = []
    for g in range(groups):
        span = slice(g * weights.shape[1], (g + 1) * weights.shape[1])
        columns = Range(np.repeat(low[span], kernel), np.repeat(high[span], kernel), np.repeat(fixed[span], kernel))
        part = slice(g * rows, (g + 1) * rows)
        offset = None if bias is None else bias[part]
        parts.append(contract(flat[part], columns, offset, p.roundoff(node), limit))
    shape = (1, -1) + (1,) * (source.rank - 2)
    return Range(
        np.concatenate([b.low for b in parts]).reshape(shape),
        np.concatenate([b.high for b in parts]).reshape(shape),
        np.concatenate([b.fixed for b in parts]).reshape(shape),
    )


def _active_in_a_window(p: RangePropagation, node: Node, channels: int) -> int | None:
    """Return how many inputs of one image can be active, hence of one window of a convolution."""
    dims = p.shapes.shape(node.inputs[0])
    if dims is None or dims[1] != channels or not all(isinstance(n, int) for n in dims[1:]):
        return None
    return limit_of(p, node.inputs[0], int(np.prod([int(n or 0) for n in dims[1:]])))


@rule("BatchNormalization")
def batch_norm(p: RangePropagation, node: Node) -> Range | None:
    """Apply the affine map of each channel."""
    source = p.get(node, 0)
    statistics = [array_of(v) for v in node.inputs[1:5]]
    if source is None or source.rank < 2 or any(a is None for a in statistics) or node.attrs.get("training_mode", 0):
        return None
    shape = (1, -1) + (1,) * (source.rank - 2)
    scale, shift, mean, variance = (np.asarray(a, np.float64).reshape(shape) for a in statistics)
    with np.errstate(all="ignore"):  # of a negative variance nothing is known
        factor = scale / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
        ends = [(source.low - mean) * factor, (source.high - mean) * factor]
        low, high = np.minimum(*ends) + shift, np.maximum(*ends) + shift
        size = np.maximum(np.abs(source.low), np.abs(source.high)) + np.abs(mean)
        magnitude = 8 * (size * np.abs(factor) + np.abs(shift))
        low, high = widen(low, high, magnitude, p.roundoff(node))
    return Range.of(low, high, source.fixed)


@rule("AveragePool", "GlobalAveragePool")
def average(p: RangePropagation, node: Node) -> Range | None:
    """A mean stays between its terms; padding that counts adds zeros; the sum rounds."""
    source = p.collapse_spatial(node)
    if source is None:
        return None
    low, high, fixed = source.low, source.high, source.fixed
    if bool(np.any(node.attrs.get("pads", 0))) and node.attrs.get("count_include_pad", 0):
        fixed = fixed & (low == 0) & (high == 0)
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    if node.op == "AveragePool" and node.attrs.get("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        return None
    terms = int(np.prod(node.attrs.get("kernel_shape", [1 << 12])))
    size = np.maximum(np.abs(low), np.abs(high))
    return Range.of(*widen(low, high, terms * size, p.roundoff(node)), fixed)


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")
def rearrange(p: RangePropagation, node: Node) -> Range | None:
    """Move bounds with their positions where shapes allow; otherwise keep the hull."""
    return p.rearrange(node)


@rule("Expand")
def expand(p: RangePropagation, node: Node) -> Range | None:
    """Broadcasting repeats values."""
    source = p.get(node, 0)
    rank = p.shapes.rank(node.outputs[0])
    return None if source is None or rank is None else p.with_rank(source, rank)


@rule("ConstantOfShape")
def constant_of_shape(p: RangePropagation, node: Node) -> Range | None:
    """One value everywhere."""
    rank = p.shapes.rank(node.outputs[0])
    value = node.attrs.get("value")
    filled = None if value is None else array_of(value)
    number = 0.0 if filled is None else float(filled.reshape(-1)[0])
    return None if rank is None else Range.of(np.full((1,) * rank, number), np.full((1,) * rank, number), fixed=True)


@rule("Concat")
def concat(p: RangePropagation, node: Node) -> Range | None:
    """Lay the bounds end to end."""
    parts = [p.get(node, i) for i in range(len(node.inputs))]
    dims = [p.shapes.shape(v) for v in node.inputs]
    if any(r is None for r in parts) or any(d is None for d in dims):
        return None
    rank = len(dims[0] or ())
    along = int(node.attrs["axis"]) % rank
    pieces = []
    for part, shape in zip(parts, dims, strict=True):
        assert part is not None and shape is not None  # noqa: PT018 - one fact
        size = shape[along]
        if not isinstance(size, int):
            return None
        target = list(part.low.shape)
        target[along] = size
        pieces.append(_spread(part, target))
    full = np.broadcast_shapes(*[tuple(1 if i == along else n for i, n in enumerate(x.low.shape)) for x in pieces])
    even = [_spread(x, [x.low.shape[along] if i == along else n for i, n in enumerate(full)]) for x in pieces]
    return Range(
        np.concatenate([x.low for x in even], axis=along),
        np.concatenate([x.high for x in even], axis=along),
        np.concatenate([x.fixed for x in even], axis=along),
    )


def _spread(bound: Range, shape: Sequence[int]) -> Range:
    return bound.apply(lambda a: np.broadcast_to(a, shape))


@rule("Gather")
def gather(p: RangePropagation, node: Node) -> Range | None:
    """Pick along one axis."""
    source, index = p.get(node, 0), array_of(node.inputs[1])
    if source is None or index is None or is_constant(node.inputs[0]):
        return None
    along = int(node.attrs.get("axis", 0)) % source.rank
    return source.apply(lambda a: np.take(a, index if a.shape[along] != 1 else index * 0, axis=along))
