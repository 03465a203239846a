"""Replace linear maps whose inputs never change by the constant they compute."""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_optimizer.analyses import Contraction, StaticShapes, UnitGroups, ValueRanges
from snn_optimizer.ir import GraphIndex, Rewriter, SNNGraph, Value
from snn_optimizer.ops import is_neuron
from snn_optimizer.passes.base import Outcome, PassContext, Refusal, rates_by_unit
from snn_optimizer.passes.structure.linear_maps import affine_map
from snn_optimizer.passes.unit_surgery import Mask

__all__ = ["replace_silent_layers"]

SHAPE_WITH_RANGE = 15  # first opset whose Shape takes start and end
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
        bound = ranges.of(contraction.source)
        size = len(contraction.labels_in)
        if bound is None or not bound.fixed.all() or size == 0 or not _feeds_on_neurons(contraction.source):
            continue
        values = (
            np.broadcast_to(((bound.low + bound.high) / 2).reshape(-1), (size,))
            if bound.low.size in {1, size}
            else None
        )
        if values is None:
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
    return _walk_back(value, stop_at_neuron=True) is not None


def _walk_back(value: Value, *, stop_at_neuron: bool = False) -> Any:
    """Follow the first operand back to a neuron, or to the value that the linear map before it reads."""
    for _ in range(64):
        if not value.inputs:
            return None
        node = value.inputs[0]
        if is_neuron(node.domain or "", node.op):
            if stop_at_neuron:
                return node
            value = node.inputs[0]
        elif node.op in {"Gemm", "MatMul", "Conv"} and not node.domain:
            return None if stop_at_neuron else node.inputs[0]
        elif node.op in PASSING and not node.domain:
            value = next((v for v in node.inputs if v.inputs), value)
        else:
            return None
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
    shape, donor = shapes.shape(result), _walk_back(contraction.source)
    if one is None or shape is None or donor is None:
        return Refusal("no-shape", "nothing before the silent layer tells the batch size")
    if index.output_of(result):
        return Refusal("is-output", f"'{result.name}' is an output")
    lead = 1 if contraction.node.op in {"Gemm", "Conv"} else len(shape) - 1
    rest = shape[lead + 1 :]
    if shapes.rank(donor) is None or (shapes.rank(donor) or 0) <= lead or not all(isinstance(n, int) for n in rest):
        return Refusal("no-shape", "the size of the silent layer's output is not known")
    weights = one.weights.sum(axis=tuple(range(2, one.weights.ndim))) if one.weights.ndim > 2 else one.weights
    if one.weights.ndim > 2 and any(contraction.node.attrs.get("pads", ()) or ()) and np.any(values):
        return Refusal("padding-mixes-shift", "padding gives the border another constant")
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
