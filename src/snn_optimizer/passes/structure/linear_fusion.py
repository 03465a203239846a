"""Fusion of affine maps: batch norms, scales and linear maps with no neuron between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses import StaticShapes, UnitGroups
from snn_optimizer.ir import GraphIndex, Node, Rewriter, SNNGraph, array_of, is_constant
from snn_optimizer.passes.base import Outcome, PassContext, Refusal
from snn_optimizer.passes.structure.linear_maps import AffineMap, affine_map, only_reader
from snn_optimizer.passes.unit_surgery import is_padded

__all__ = ["fuse_linear_maps"]

Array = npt.NDArray[np.float64]


def fuse_linear_maps(graph: SNNGraph, context: PassContext, outcome: Outcome) -> bool:
    """Apply every rule once to disjoint places; tell whether anything changed."""
    groups = context.analyses.get(UnitGroups)
    index = GraphIndex(graph.module)
    maps = [m for c in groups.contractions if (m := affine_map(c, index)) is not None]
    run = _Run(graph, context, outcome, index, {id(one.node) for one in maps})
    by_source: dict[int, list[AffineMap]] = {}
    for one in maps:
        by_source.setdefault(id(one.contraction.source), []).append(one)
    for one in maps:
        if not run.is_free(one):
            continue
        run.fuse_behind(one) or run.fuse_before(one) or run.compose(one, by_source)
    if run.rewriter.changes:
        run.rewriter.finish()
        return True
    return False


class _Run:
    """Edits of one round; a node takes part in at most one of them."""

    def __init__(
        self, graph: SNNGraph, context: PassContext, outcome: Outcome, index: GraphIndex, linear: set[int]
    ) -> None:
        self.graph = graph
        self.context = context
        self.outcome = outcome
        self.index = index
        self.linear = linear
        self.rewriter = Rewriter(graph.module)
        self.shapes = context.analyses.get(StaticShapes).shapes
        self._taken: set[int] = set()

    def is_free(self, one: AffineMap) -> bool:
        """Tell whether no rule used this map in this round."""
        return id(one.node) not in self._taken

    def _take(self, *nodes: Node | None) -> None:
        self._taken.update(id(n) for n in nodes if n is not None)
        self.outcome.changes += 1

    def fuse_behind(self, one: AffineMap) -> bool:
        """Fold a batch norm or a scale behind a linear map into it."""
        node = only_reader(self.index, one.result)
        if node is None or id(node) in self._taken:
            return False
        found = self._affine(node, one)
        if found is None:
            return False
        factor, shift = found
        if self.index.output_of(node.outputs[0]):
            if self.index.is_interface(node.outputs[0]):
                self.context.missed(
                    Refusal("is-output", f"'{node.outputs[0].name}' is an output of the model"), node.name
                )
                return False
            return False
        if self._grows(one, node, self._behind):
            return False
        if not self.context.admits(f"{_kind(node)}-into-linear", one.node.name):
            return False
        weights = one.weights * factor.reshape(-1, *[1] * (len(one.shape) - 1))
        total = one.store(self.rewriter, weights, one.bias * factor + shift, self._graph_of(one.node))
        self.rewriter.replace_uses(node.outputs[0], total)
        self._take(one.node, node, one.add)
        self.outcome.layers_fused += 1
        self.context.applied(
            f"{_kind(node)}-into-linear", one.node.name, f"folded '{node.name}' ({node.op}) into its weights"
        )
        return True

    def fuse_before(self, one: AffineMap) -> bool:
        """Fold a batch norm or a scale in front of a linear map into it."""
        source = one.contraction.source
        if not source.inputs or only_reader(self.index, source) is None:
            return False
        node = source.inputs[0]
        if id(node) in self._taken or node.op not in {"BatchNormalization", "Mul", "Div"}:
            return False
        axis = 1 if one.node.op == "Conv" else -1
        if node.op == "BatchNormalization" and axis == -1 and self.shapes.rank(source) != 2:
            return False
        found = _per_channel(node, one.shape[1], self.shapes.rank(source), axis)
        if found is None:
            return False
        factor, shift = found
        if shift.any() and one.node.op == "Conv" and is_padded(one.node):
            self.context.missed(
                Refusal(
                    "padding-mixes-shift",
                    f"'{one.node.name}' pads with zeros where the batch norm would give its shift",
                ),
                node.name,
            )
            return False
        if self._grows(one, node, self._before):
            return False
        if not self.context.admits(f"{_kind(node)}-before-linear", one.node.name):
            return False
        plain = one.weights
        weights = plain * factor.reshape(1, -1, *[1] * (plain.ndim - 2))
        kernel = tuple(range(2, plain.ndim))
        bias = one.bias + (plain.sum(axis=kernel) if kernel else plain) @ shift
        one.store(self.rewriter, weights, bias, self._graph_of(one.node))
        operand = next(v for v in node.inputs if not is_constant(v))
        self.rewriter.replace_uses(source, operand)
        self._take(one.node, node, one.add)
        self.outcome.layers_fused += 1
        self.context.applied(
            f"{_kind(node)}-before-linear",
            one.node.name,
            f"folded '{node.name}' ({node.op}) into its columns",
        )
        return True

    def _behind(self, node: Node) -> Node | None:
        return only_reader(self.index, node.outputs[0])

    def _before(self, node: Node) -> Node | None:
        made = node.inputs[0].inputs
        return made[0] if made and only_reader(self.index, node.inputs[0]) is not None else None

    def _grows(self, one: AffineMap, node: Node, neighbour: Callable[[Node], Node | None]) -> bool:
        """Tell whether folding a node in would store a second weight, larger than what goes.

        A weight other nodes read stays for them. Where the same is folded into all of them the copies are equal
        in the end, and are one again.
        """
        weight = one.node.inputs[one.contraction.weight_slot]
        others = [use.node for use in self.index.consumers(weight) if use.node is not one.node]
        gone = sum(array.size for v in node.inputs if (array := array_of(v)) is not None)
        if (
            not others
            or one.stored.size <= gone
            or all(id(other) in self.linear and _is_same(neighbour(other), node) for other in others)
        ):
            return False
        reason = f"'{weight.name}' is read by {len(others)} other nodes: {one.stored.size} numbers would replace {gone}"
        self.context.missed(Refusal("would-grow", reason), node.name)
        return True

    def compose(self, first: AffineMap, by_source: dict[int, list[AffineMap]]) -> bool:
        """Multiply two linear maps with nothing between them, where that does not grow the model."""
        readers = by_source.get(id(first.result), [])
        if len(readers) != 1 or only_reader(self.index, first.result) is None:
            return False
        second = readers[0]
        if not self.is_free(second) or "Conv" in {first.node.op, second.node.op} or first.node.op != second.node.op:
            return False
        before = first.stored.size + first.bias.size + second.stored.size + second.bias.size
        after = first.shape[1] * second.shape[0] + second.bias.size
        if after > before:
            self.context.missed(
                Refusal("would-grow", f"one map of {after} parameters would replace two of {before}"),
                second.node.name,
            )
            return False
        if not self.context.admits("linear-linear", second.node.name):
            return False
        outer = second.weights
        weights, bias = outer @ first.weights, outer @ first.bias + second.bias
        self.rewriter.set_input(second.node, 0, first.contraction.source)
        second.store(self.rewriter, weights, bias, self._graph_of(second.node))
        self._take(first.node, second.node, first.add, second.add)
        self.outcome.layers_fused += 1
        self.context.applied(
            "linear-linear",
            second.node.name,
            f"absorbed '{first.node.name}': {before} parameters became {after}",
        )
        return True

    def _affine(self, node: Node, one: AffineMap) -> tuple[Array, Array] | None:
        rank = self.shapes.rank(one.result)
        channel = 1 if one.node.op == "Conv" else -1
        if node.op == "BatchNormalization" and channel == -1 and rank != 2:
            return None
        return _per_channel(node, one.shape[0], rank, channel)

    def _graph_of(self, node: Node) -> Any:
        return self.index.scope_of(node).graph


def _per_channel(node: Node, channels: int, rank: int | None, axis: int) -> tuple[Array, Array] | None:
    """Read a node as ``factor * x + shift`` per channel; ``None`` when it is not that."""
    if node.domain or rank is None:
        return None
    if node.op == "BatchNormalization":
        statistics = [array_of(v) for v in node.inputs[1:5]]
        if any(a is None for a in statistics) or node.attrs.get("training_mode", 0) or len(statistics) != 4:
            return None
        scale, shift, mean, variance = (np.asarray(a, np.float64) for a in statistics)
        with np.errstate(all="ignore"):  # what is not finite is refused
            factor = scale / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
        if factor.size != channels or not np.isfinite(factor).all():
            return None
        return factor, shift - mean * factor
    if node.op not in {"Mul", "Div"} or len(node.inputs) != 2:
        return None
    constants = [array_of(v) for v in node.inputs]
    held = constants[1] if node.op == "Div" else next((a for a in constants if a is not None), None)
    if held is None or sum(a is not None for a in constants) != 1:
        return None
    expected = [1] * rank
    expected[axis] = channels
    if held.size != 1 and (
        held.size != channels or tuple(expected[rank - held.ndim :]) != held.shape or held.ndim > rank
    ):
        return None
    if held.ndim > rank:
        return None
    factor = np.broadcast_to(held.reshape(-1).astype(np.float64), (channels,))
    if node.op == "Div":
        if not factor.all():
            return None
        factor = 1 / factor
    return factor, np.zeros(channels)


def _is_same(other: Node | None, node: Node) -> bool:
    """Tell whether two nodes do the same to what they read, which may differ."""
    if other is None or (other.op, other.domain, other.attrs) != (node.op, node.domain, node.attrs):
        return False
    pairs = [(array_of(a), array_of(b)) for a, b in zip(other.inputs, node.inputs, strict=False)]
    same = (a is b is None or (a is not None and b is not None and np.array_equal(a, b)) for a, b in pairs)
    return len(other.inputs) == len(node.inputs) and all(same)


def _kind(node: Node) -> str:
    return "batch-norm" if node.op == "BatchNormalization" else "scale"
