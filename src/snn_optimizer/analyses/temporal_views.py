"""Ranges of currents in every segment of time, from what is proved about the spikes behind them.

Two views of a signal are bounded. The *plain* one is the signal itself. The *discounted* one is
``D_T(x) = sum over k <= T of decay^(T - k) x_k``, what a membrane of that decay makes of it. Both are linear, so
both pass linear nodes by interval arithmetic; a constant ``b`` becomes ``b`` times the discounted number of steps.

A view follows a value back to the spikes only where every row of values belongs to one step of one sample and
rows keep their order; anything else counts with its range over all time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from snn_optimizer.analyses.activity_limits import IN_ORDER, spikes_behind
from snn_optimizer.analyses.intervals import Array, Range, contract
from snn_optimizer.analyses.range_axes import trailing
from snn_optimizer.analyses.spike_trains import Clock, Train
from snn_optimizer.ir import Node, Value, array_of, is_constant

if TYPE_CHECKING:
    from snn_optimizer.analyses.bounds import RangePropagation

__all__ = ["TemporalViews"]

Rule = Callable[["TemporalViews", Node, int], Range | None]
FOLLOWED = 64  # nodes between a population and the spikes it reads


class TemporalViews:
    """One view of the values behind the current of a population.

    Parameters
    ----------
    p : RangePropagation
    clock : Clock
        Of the population that reads the current.
    steps : int, str or None
        Its declared number of steps.
    decays : tuple of float, optional
        Smallest and largest decay of the discounted view; the plain view without.
    inside : bool
        Whether the population is in the body of a loop, one step at a time.
    """

    def __init__(
        self,
        p: RangePropagation,
        clock: Clock,
        steps: int | str | None,
        decays: tuple[float, float] | None,
        *,
        inside: bool,
    ) -> None:
        self.p = p
        self.clock = clock
        self.steps = steps
        self.decays = decays
        self.inside = inside
        ones = np.ones(len(clock.ends))
        self.scales = (ones, ones) if decays is None else clock.sums(*decays)
        self._known: dict[tuple[int, int], Range] = {}
        self._speaking: dict[int, bool] = {}

    def of(self, value: Value, rank: int, depth: int = FOLLOWED) -> Range:
        """Return the ranges over the last ``rank`` axes, one more axis in front for the segments."""
        key = (id(value), rank)
        if key not in self._known:
            whole = self.always(value, rank)
            found = self._followed(value, rank, depth) if depth else None
            self._known[key] = whole if found is None else _meet(whole, found)
        return self._known[key]

    def always(self, value: Value, rank: int) -> Range:
        """Return what the range over all time says."""
        bound = self.p.range_of(value)
        return self.scaled(Range.unknown(rank) if bound is None else trailing(bound, rank))

    def scaled(self, bound: Range) -> Range:
        """Return a range that holds at every step in this view."""
        least, most = (end.reshape(-1, *(1,) * bound.rank) for end in self.scales)
        with np.errstate(invalid="ignore"):
            ends = [np.nan_to_num(end * scale, nan=0.0, posinf=np.inf, neginf=-np.inf)
                    for end in (bound.low, bound.high) for scale in (least, most)]  # fmt: skip
        return Range.of(np.minimum(ends[0], ends[1]), np.maximum(ends[2], ends[3]))

    def speaks(self, value: Value, depth: int = FOLLOWED) -> bool:
        """Tell whether anything is known about the spikes behind a value that its range does not say."""
        if id(value) not in self._speaking:
            self._speaking[id(value)] = self._speaks(value, depth)
        return self._speaking[id(value)]

    def _speaks(self, value: Value, depth: int) -> bool:
        train = self.train(value)
        if train is not None:
            return train.informative
        if depth == 0 or is_constant(value):
            return False
        if id(value) in self.p.scanned:
            return self._outside().speaks(self.p.scanned[id(value)][0], depth - 1)
        node = value.inputs[0] if value.inputs else None
        if node is None or node.domain or node.op not in VIEW_RULES:
            return False
        return any(self.speaks(v, depth - 1) for v in node.inputs if v.name)

    def train(self, value: Value) -> Train | None:
        """Return the train that a value is, if its steps are those of this view."""
        train = self.p.trains.get(id(value))
        if train is None or train.clock is not self.clock or train.inside != self.inside:
            return None
        return train if self.inside or (train.steps is not None and train.steps == self.steps) else None

    def _outside(self) -> TemporalViews:
        """Return the view of what a loop reads step by step."""
        return TemporalViews(self.p, self.clock, self.steps, self.decays, inside=False)

    def _followed(self, value: Value, rank: int, depth: int) -> Range | None:
        train = self.train(value)
        bound = self.p.range_of(value)
        if train is not None and bound is not None:
            if train.first.ndim != rank:
                return None
            spikes = trailing(bound, rank)
            return train.at_each_segment(spikes) if self.decays is None else train.discounted(spikes, *self.decays)
        if is_constant(value):
            return None
        if id(value) in self.p.scanned:
            outer, axis = self.p.scanned[id(value)]
            return self._outside().of(outer, rank, depth - 1) if axis == 0 else None
        node = value.inputs[0] if value.inputs else None
        if node is None or node.domain or node.op not in VIEW_RULES or not self.speaks(value, depth):
            return None
        return VIEW_RULES[node.op](self, node, rank)

    def rounding(self, node: Node, rank: int, factor: float = 1.0) -> Array:
        """Return what roundings of the result of a node add up to in this view."""
        bound = self.p.range_of(node.outputs[0])
        bound = Range.unknown(rank) if bound is None else trailing(bound, rank)
        size = np.maximum(np.abs(bound.low), np.abs(bound.high)) * (2 * factor * self.p.roundoff(node))
        return np.asarray(size[np.newaxis] * self.scales[1].reshape(-1, *(1,) * rank))


def _meet(first: Range, second: Range) -> Range:
    return Range.of(np.maximum(first.low, second.low), np.minimum(first.high, second.high))


# -- rules: what a node makes of the views of its operands; None where it is not linear or mixes rows ------------


def _in_order(views: TemporalViews, node: Node, rank: int) -> Range | None:
    """Find the trailing axes that hold the same elements before the node."""
    before, after = views.p.shapes.shape(node.inputs[0]), views.p.shapes.shape(node.outputs[0])
    if before is None or after is None or len(after) < rank:
        return None
    wanted = _product(after[len(after) - rank :])
    train = views.p.trains.get(id(node.inputs[0]))
    for axes in [train.first.ndim] if train is not None else range(1, len(before) + 1):
        held = _product(before[len(before) - axes :])
        if wanted is None or held is None:
            return None
        if held == wanted:
            return _reshaped(views.of(node.inputs[0], axes), before[len(before) - axes :], after[len(after) - rank :])
    return None


def _reshaped(bound: Range, before: tuple[Any, ...], after: tuple[Any, ...]) -> Range:
    return bound.apply(lambda a: np.broadcast_to(a, (a.shape[0], *before)).reshape(-1, *after))


def _product(dims: tuple[Any, ...]) -> int | None:
    return int(np.prod(dims, dtype=np.int64)) if all(isinstance(n, int) for n in dims) else None


def _unchanged(views: TemporalViews, node: Node, rank: int) -> Range | None:
    return views.of(node.inputs[0], rank)


def _cast(views: TemporalViews, node: Node, rank: int) -> Range | None:
    """Keep spikes, which are small whole numbers in every type."""
    bound = views.p.range_of(node.inputs[0])
    spikes = id(node.inputs[0]) in views.p.trains and bound is not None and bool((np.abs(bound.high) <= 256).all())
    return views.of(node.inputs[0], rank) if spikes and views.p.is_float(node.outputs[0]) else None


def _gemm(views: TemporalViews, node: Node, rank: int) -> Range | None:
    weights = array_of(node.inputs[1])
    if weights is None or rank != 1 or node.attrs.get("transA", 0) or float(node.attrs.get("alpha", 1.0)) != 1:
        return None
    weights = weights if node.attrs.get("transB", 0) else weights.T
    bias = None
    if len(node.inputs) > 2 and node.inputs[2].name:
        added = array_of(node.inputs[2])
        if added is None or added.size not in (1, len(weights)):
            return None
        bias = np.broadcast_to(added.reshape(-1) * float(node.attrs.get("beta", 1.0)), weights.shape[:1])
    return _contracted(views, node, weights, bias)


def _matmul(views: TemporalViews, node: Node, rank: int) -> Range | None:
    weights = array_of(node.inputs[1])
    return None if weights is None or weights.ndim != 2 or rank != 1 else _contracted(views, node, weights.T, None)


def _contracted(views: TemporalViews, node: Node, weights: Any, bias: Any) -> Range | None:
    dims = views.p.shapes.shape(node.inputs[0])
    if dims is None or dims[-1] != weights.shape[1]:
        return None
    incoming = _nonnegative(views, node.inputs[0], 1)
    if views.decays is None:  # what few active spikes can add up to is in the range over all time already
        return _distinct(views, node, weights, incoming, bias)
    train = views.train(spikes_behind(views.p, node.inputs[0]))
    whole = train is not None and train.size == weights.shape[1]
    totals = train.discounted_total(views.decays[1]) if train is not None and whole else None
    return _distinct(views, node, weights, incoming, bias, totals=totals)


def _distinct(
    views: TemporalViews,
    node: Node,
    weights: Any,
    incoming: Range,
    bias: Any,
    *,
    totals: Array | None = None,
) -> Range:
    """Contract, segments in which the same is known only once."""
    shape = (len(views.clock.ends), weights.shape[1])
    low, high = np.broadcast_to(incoming.low, shape), np.broadcast_to(incoming.high, shape)
    offset = None if bias is None else views.scaled(Range.constant(np.asarray(bias)))
    parts = [low, high] if offset is None else [low, high, offset.low, offset.high]
    parts += [] if totals is None else [totals[:, np.newaxis]]
    fresh = np.ones(shape[0], np.bool_)
    fresh[1:] = np.any([(part[1:] != part[:-1]).any(axis=1) for part in parts], axis=0)
    bias = None if offset is None else offset.apply(lambda a: a[fresh])
    varied = Range.of(low[fresh], high[fresh])
    total = None if totals is None else totals[fresh]
    found = contract(weights, varied, bias, views.p.roundoff(node), totals=total)
    return found.apply(lambda a: a[np.cumsum(fresh) - 1])


def _convolution(views: TemporalViews, node: Node, rank: int) -> Range | None:
    weights = array_of(node.inputs[1])
    bias = array_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None
    if weights is None or rank != weights.ndim - 1 or int(node.attrs.get("group", 1)) != 1:
        return None
    if len(node.inputs) > 2 and node.inputs[2].name and bias is None:
        return None
    low, high = _over_positions(_nonnegative(views, node.inputs[0], rank))
    padded = bool(np.any(node.attrs.get("pads", 0))) or node.attrs.get("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}
    if padded:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    channels, kernel = weights.shape[1], int(np.prod(weights.shape[2:]))
    shape = (len(views.clock.ends), channels)
    incoming = Range.of(
        *(np.repeat(np.broadcast_to(a.reshape(a.shape[:2]), shape), kernel, axis=1) for a in (low, high))
    )
    found = _distinct(views, node, weights.reshape(len(weights), -1), incoming, bias)
    return found.apply(lambda a: a.reshape(*a.shape, *(1,) * (rank - 1)))


def _has_rows(views: TemporalViews, node: Node, rank: int) -> bool:
    """Tell whether one axis counts steps and samples, and all others are asked for."""
    return views.p.shapes.rank(node.outputs[0]) == rank + 1


def _nonnegative(views: TemporalViews, value: Value, rank: int) -> Range:
    """Return the view of a value; of signals of both signs, whose roundings do not add up so, the safe one."""
    bound = views.p.range_of(value)
    signed = bound is None or bool((bound.low < 0).any())
    return views.always(value, rank) if signed and views.decays is not None else views.of(value, rank)


def _over_positions(bound: Range) -> tuple[Array, Array]:
    axes = tuple(range(2, bound.rank))
    return bound.low.min(axis=axes, keepdims=True), bound.high.max(axis=axes, keepdims=True)


def _average(views: TemporalViews, node: Node, rank: int) -> Range | None:
    if rank < 2 or not _has_rows(views, node, rank) or node.attrs.get("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        return None
    low, high = _over_positions(views.of(node.inputs[0], rank))
    if bool(np.any(node.attrs.get("pads", 0))):
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    terms = int(np.prod(node.attrs.get("kernel_shape", [1 << 12])))
    source = views.always(node.inputs[0], rank)
    size = np.maximum(np.abs(source.low), np.abs(source.high)).max(axis=tuple(range(2, rank + 1)), keepdims=True)
    margin = size * (2 * terms * views.p.roundoff(node))
    return Range.of(low - margin, high + margin)


def _largest(views: TemporalViews, node: Node, rank: int) -> Range | None:
    """A maximum over positions is not linear: only its values can be followed, not their sums."""
    if views.decays is not None or rank < 2 or not _has_rows(views, node, rank):
        return None
    return Range.of(*_over_positions(views.of(node.inputs[0], rank)))


def _follows(views: TemporalViews, node: Node, value: Value, rank: int) -> Range:
    """Return the view of an operand; where it is repeated along an axis, and has other rows, the safe one."""
    dims = views.p.shapes.shape(node.outputs[0])
    other = next((v for v in node.inputs if v is not value), value)
    array = array_of(other) if is_constant(other) else None
    leading = None if array is None else array.shape[: max(0, array.ndim - rank)]
    beside = leading is not None and all(n == 1 for n in leading)
    same_rank = dims is not None and views.p.shapes.rank(value) == len(dims)
    known = dims is not None and None not in dims and views.p.shapes.shape(value) == dims
    return views.of(value, rank) if known or (beside and same_rank) else views.always(value, rank)


def _sum(views: TemporalViews, node: Node, rank: int) -> Range | None:
    if len(node.inputs) != 2:
        return None
    first, second = (_follows(views, node, v, rank) for v in node.inputs)
    if node.op == "Sub":
        second = Range.of(-second.high, -second.low)
    margin = views.rounding(node, rank)
    return Range.of(first.low + second.low - margin, first.high + second.high + margin)


def _product_with_constant(views: TemporalViews, node: Node, rank: int) -> Range | None:
    constant = next((v for v in node.inputs if is_constant(v)), None)
    bound = None if constant is None else views.p.range_of(constant)
    if bound is None or len(node.inputs) != 2:
        return None
    factor = trailing(bound, rank)
    if not np.array_equal(factor.low, factor.high):
        return None
    source = _follows(views, node, next(v for v in node.inputs if v is not constant), rank)
    with np.errstate(all="ignore"):
        ends = [source.low * factor.low, source.high * factor.low]
    margin = views.rounding(node, rank)
    return Range.of(np.minimum(*ends) - margin, np.maximum(*ends) + margin)


def _batch_norm(views: TemporalViews, node: Node, rank: int) -> Range | None:
    statistics = [array_of(v) for v in node.inputs[1:5]]
    if any(a is None for a in statistics) or node.attrs.get("training_mode", 0) or not _has_rows(views, node, rank):
        return None
    shape = (-1,) + (1,) * (rank - 1)
    scale, shift, mean, variance = (np.asarray(a, np.float64).reshape(shape) for a in statistics)
    source = views.of(node.inputs[0], rank)
    with np.errstate(all="ignore"):  # of a negative variance nothing is known
        factor = scale / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
        offset = views.scaled(Range.constant(shift - mean * factor))
    whole = views.always(node.inputs[0], rank)
    with np.errstate(all="ignore"):
        ends = [source.low * factor, source.high * factor]
        size = (np.maximum(np.abs(whole.low), np.abs(whole.high)) + np.abs(mean) * _column(views, rank)) * np.abs(
            factor
        )
        margin = 16 * (size + np.abs(shift) * _column(views, rank)) * views.p.roundoff(node)
        low, high = np.minimum(*ends) + offset.low, np.maximum(*ends) + offset.high
    return Range.of(low - margin, high + margin)


def _column(views: TemporalViews, rank: int) -> Array:
    return views.scales[1].reshape(-1, *(1,) * rank)


VIEW_RULES: dict[str, Rule] = {
    **dict.fromkeys(IN_ORDER - {"Identity", "Dropout"}, _in_order),
    "Identity": _unchanged,
    "Dropout": _unchanged,
    "Cast": _cast,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Conv": _convolution,
    "AveragePool": _average,
    "GlobalAveragePool": _average,
    "MaxPool": _largest,
    "GlobalMaxPool": _largest,
    "Add": _sum,
    "Sub": _sum,
    "Mul": _product_with_constant,
    "BatchNormalization": _batch_norm,
}
