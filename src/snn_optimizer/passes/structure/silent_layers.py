"""Replace linear maps whose inputs never change by the constant they compute."""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_optimizer.analyses import Contraction, StaticShapes, UnitGroups, ValueRanges
from snn_optimizer.ir import GraphIndex, Node, Rewriter, Shape, Shapes, SNNGraph, Value, is_constant, shape_of_constant
from snn_optimizer.ops import is_neuron
from snn_optimizer.passes.base import BEYOND_LIMIT, Outcome, PassContext, Refusal, rates_by_unit
from snn_optimizer.passes.structure.linear_maps import affine_map
from snn_optimizer.passes.unit_surgery import Mask, emitted, is_padded

__all__ = ["replace_silent_layers"]

SHAPE_WITH_RANGE = 15  # first opset whose Shape takes start and end
LONGEST_WALK = 64  # nodes between a population and its reader
LINEAR = frozenset({"Gemm", "MatMul", "Conv"})
PASSING = frozenset({"Reshape", "Flatten", "Identity", "BatchNormalization", "Add", "AveragePool", "MaxPool", "Cast"})


def replace_silent_layers(graph: SNNGraph, context: PassContext, outcome: Outcome, *, measured: bool) -> bool:
    """Replace one linear map all of whose inputs are fixed; tell whether there was one."""
    groups = context.analyses.get(UnitGroups)
    silent = _silent(graph, groups) if measured else {}
    ranges = (
        ValueRanges.assuming(graph.module, context.analyses, silent) if silent else context.analyses.get(ValueRanges)
    )
    index = GraphIndex(graph.module)
    for contraction in groups.contractions:
        size = len(contraction.labels_in)
        values, fixed = emitted(contraction, ranges)
        if not size or not fixed.all() or not _feeds_on_neurons(contraction.source):
            continue
        if index.scope_of(contraction.node).kind != "main":
            context.missed(
                Refusal("in-loop", "a silent layer inside a loop body keeps its reader"),
                contraction.node.name,
            )
            continue
        refusal = _replace(graph, context, index, contraction, values)
        if refusal is not None:
            context.missed(refusal, contraction.node.name)
            continue
        outcome.changes += 1
        outcome.layers_fused += 1
        context.applied("silent-layer", contraction.node.name, f"all {size} inputs never change: only its bias is left")
        return True
    return False


def _silent(graph: SNNGraph, groups: UnitGroups) -> dict[int, Mask]:
    """Return the populations of which no neuron was ever seen to fire."""
    found: dict[int, Mask] = {}
    for population in groups.populations:
        units = len(population.labels)
        rates = rates_by_unit(graph.firing_rates, population.name, units) if population.variant.spiking else None
        if rates is not None and not rates.any():
            found[id(population.node)] = np.ones(units, np.bool_)
    return found


def _feeds_on_neurons(value: Value) -> bool:
    """Tell whether a population lies behind a value: constants folded from nothing else are not a layer."""
    for _ in range(LONGEST_WALK):
        if not value.inputs:
            return False
        node = value.inputs[0]
        if is_neuron(node.domain or "", node.op):
            return True
        if node.op not in PASSING or node.domain:
            return False
        value = next((v for v in node.inputs if v.inputs), value)
    return False


def _rows_of(value: Value, lead: int, shapes: Shapes) -> Value | None:
    """Return a value before the silent population whose first ``lead`` axes are as long as those of ``value``.

    Several leading axes must pass every node as they are. One leading axis may be split and joined by reshapes:
    it has the same length again wherever the number of elements behind it is the same.
    """
    behind = _product(shapes.shape(value), lead)
    for _ in range(LONGEST_WALK):
        if behind is None:
            return None
        if not value.inputs:
            return value if lead > 1 and not is_constant(value) else None
        node = value.inputs[0]
        if is_neuron(node.domain or "", node.op):
            if value is not node.outputs[0]:
                return None
        elif node.domain or node.op not in PASSING | LINEAR:
            return None
        elif node.op in LINEAR:
            return node.inputs[0] if _keeps_rows(node, lead, behind, shapes) else None
        elif node.op in {"Reshape", "Flatten"} and lead > 1:
            return None
        elif node.op in {"AveragePool", "MaxPool"}:
            if lead > 1 or _product(shapes.shape(value), 1) != behind:
                return None
            behind = _product(shapes.shape(node.inputs[0]), 1)
        elif node.op == "Add":
            operand = _unbroadcast(node, shapes)
            if operand is None:
                return None
            value = operand
            continue
        value = node.inputs[0]
    return None


def _keeps_rows(node: Node, lead: int, behind: int, shapes: Shapes) -> bool:
    """Tell whether a linear map has ``lead`` leading axes, which it passes, and ``behind`` elements behind them."""
    shape = shapes.shape(node.outputs[0])
    if shape is None or not is_constant(node.inputs[1]) or node.attrs.get("transA", 0):
        return False
    own = len(shape) - 1 if node.op == "MatMul" else 1
    return own == lead and _product(shape, lead) == behind


def _product(shape: Shape | None, start: int) -> int | None:
    """Return the number of elements behind the first axes when it is known."""
    sizes = None if shape is None else shape[start:]
    if sizes is None or not all(isinstance(n, int) for n in sizes):
        return None
    return int(np.prod([int(n or 0) for n in sizes], dtype=np.int64))


def _unbroadcast(add: Node, shapes: Shapes) -> Value | None:
    """Return the operand of an Add that has the shape of the sum, when its other operand is a small constant."""
    shape = shapes.shape(add.outputs[0])
    for value, other in (add.inputs, add.inputs[::-1]):
        held = shape_of_constant(other)
        if shape is None or held is None or shapes.rank(value) != len(shape):
            continue
        if len(held) < len(shape) and all(n in (1, m) for n, m in zip(held[::-1], shape[::-1], strict=False)):
            return value
    return None


def _replace(
    graph: SNNGraph, context: PassContext, index: GraphIndex, contraction: Contraction, values: Any
) -> Refusal | None:
    shapes = context.analyses.get(StaticShapes).shapes
    if graph.module.opset() < SHAPE_WITH_RANGE:
        return Refusal(
            "opset-too-old",
            f"opset {graph.module.opset()} cannot take a part of a shape; convert to 15 or later",
        )
    one = affine_map(contraction, index)
    result = contraction.result
    shape = shapes.shape(result)
    if one is None or shape is None:
        return Refusal("no-shape", "the size of the silent layer's output is not known")
    if index.output_of(result):
        return Refusal("is-output", f"'{result.name}' is an output")
    lead = 1 if contraction.node.op in {"Gemm", "Conv"} else len(shape) - 1
    rest = shape[lead + 1 :]
    if not all(isinstance(n, int) for n in rest):
        return Refusal("no-shape", "the size of the silent layer's output is not known")
    donor = _rows_of(contraction.source, lead, shapes)
    if donor is None:
        return Refusal("no-shape", "nothing before the silent layer tells the batch size")
    kernel = tuple(range(2, len(one.shape)))
    weights = one.weights.sum(axis=kernel) if kernel else one.weights
    if kernel and is_padded(contraction.node) and np.any(values):
        return Refusal("padding-mixes-shift", "padding gives the border another constant")
    if not context.admits("silent-layer", contraction.node.name):
        return BEYOND_LIMIT
    bias = one.bias if one.add is None else np.zeros_like(one.bias)
    current = (weights @ values + bias).astype(one.dtype)
    rewriter = Rewriter(graph.module)
    scope = index.scope_of(contraction.node).graph
    sizes = rewriter.value(f"{result.name}.lead", np.int64, [lead])
    rewriter.add(scope, "Shape", [donor], [sizes], {"start": 0, "end": lead}, name_hint=f"{contraction.node.name}.lead")
    target = rewriter.value(f"{result.name}.target", np.int64, [len(shape)])
    tail = rewriter.constant(f"{result.name}.tail", np.array([1, *rest], np.int64))
    rewriter.add(scope, "Concat", [sizes, tail], [target], {"axis": 0}, name_hint=f"{contraction.node.name}.target")
    constant = rewriter.constant(
        f"{contraction.node.name}.constant", current.reshape([1] * lead + [-1] + [1] * len(rest))
    )
    expanded = rewriter.value(f"{result.name}.constant", result.dtype, result.shape)
    rewriter.add(scope, "Expand", [constant, target], [expanded], name_hint=f"{contraction.node.name}.expand")
    rewriter.replace_uses(result, expanded)
    rewriter.finish()
    return None
