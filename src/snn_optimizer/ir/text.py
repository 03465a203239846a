"""The readable text form of a network: what a person has in mind when they think of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snn_optimizer import ops

if TYPE_CHECKING:
    from snn_optimizer.ir.graph import SNNGraph
    from snn_optimizer.ir.layers import LayerNode

__all__ = ["equation", "print_graph"]


def print_graph(graph: SNNGraph) -> str:
    """Return a few lines per layer: size, synapses, neuron equation with values."""
    module = graph.module
    lines = [f"network '{module.graph.name}'"]
    lines += [f"  input  {_declare(v)}" for v in module.graph.inputs]
    layers = graph.layers
    width = max((len(layer.name) for layer in layers), default=0)
    for layer in layers:
        lines.append(f"  {layer.name:<{width}}  {layer.neuron_type} {layer.n_neurons:,} neurons  {equation(layer)}")
        for projection in layer.projections:
            shape = "x".join(str(n) for n in projection.shape)
            bias = " + bias" if projection.bias is not None else ""
            lines.append(
                f"  {'':<{width}}    <- {projection.node.name or projection.node.op} {projection.node.op} {shape}{bias}"
            )
    lines += [f"  output {_declare(v)}" for v in module.graph.outputs]
    lines.append(
        f"  {len(layers)} layers, {graph.total_neurons:,} neurons, {graph.total_params:,} parameters, "
        f"{module.count_nodes():,} nodes"
    )
    return "\n".join(lines)


def equation(layer: LayerNode) -> str:
    """Return the neuron's step in one line, with the values of its parameters."""
    variant = layer.variant
    if variant.written:
        return _written(layer)
    current = "x"
    parts = []
    if variant.operator == "CubaLIF":
        parts.append(f"i' = {_value(layer, 'alpha')} i + x")
        current = "i'"
    gain = _value(layer, "gain")
    drive = current if gain == "1" else f"{gain} {current}"
    if variant.operator == "IF":
        parts.append(f"u = v + {drive}")
    elif variant.arithmetic == "relax":
        parts.append(f"u = v + {gain} ({current} - v)")
    else:
        parts.append(f"u = {_value(layer, 'beta')} v + {drive}")
    if not variant.spiking:
        return "; ".join(parts)
    compare = ">" if variant.fire == "gt" else ">="
    parts.append(f"fire u {compare} {_value(layer, 'v_threshold')}")
    if variant.max_spikes != 1:
        parts.append("any number of spikes" if variant.max_spikes == 0 else f"up to {variant.max_spikes} spikes")
    reset = {"subtract": "subtract", "none": "no reset", "to-value": f"reset to {_value(layer, 'v_reset')}"}[
        variant.reset
    ]
    parts.append(reset + (" one step later" if variant.reset_delay and variant.reset != "none" else ""))
    return "; ".join(parts)


def _written(layer: LayerNode) -> str:
    """Return written-out arithmetic as what it means, with values."""
    variant = layer.variant
    program = variant.program
    known = {name: array for name in program.parameters if (array := layer.parameter(name)) is not None}
    try:
        sense = ops.meaning(program, known)
    except ops.NotUnderstood:
        return variant.arithmetic
    parts = [f"i' = {_terms(sense.synaptic)}"] if sense.synaptic else []
    parts.append(f"u = {_terms(sense.charge)}")
    if sense.v_threshold is None:
        return "; ".join(parts)
    parts.append(f"fire u {'>' if sense.fire == 'gt' else '>='} {_number(sense.v_threshold)}")
    if sense.max_spikes != 1:
        parts.append("any number of spikes")
    value = "" if sense.v_reset is None else _number(sense.v_reset)
    reset = {"subtract": "subtract", "none": "no reset", "to-value": f"reset to {value}", "other": "reset as written"}
    parts.append(reset[sense.reset] + (" one step later" if sense.reset_delay and sense.reset != "none" else ""))
    if sense.clamped:
        parts.append("floor")
    return "; ".join(parts)


def _terms(affine: Mapping[str, npt.NDArray[np.float64]]) -> str:
    text = ""
    for name in sorted(affine, key=lambda name: (name == "1", name.startswith("x"), name == "i")):
        factor = affine[name]
        if not np.any(factor):
            continue
        number = _number(factor)
        symbol = "" if name == "1" else name
        term = symbol if number == "1" and symbol else f"{number} {symbol}".strip()
        text = f"{text} + {term}" if text else term
    return text or "0"


def _number(values: npt.NDArray[np.float64]) -> str:
    low, high = float(np.min(values)), float(np.max(values))
    return f"{low:.4g}" if f"{low:.4g}" == f"{high:.4g}" else f"[{low:.4g}..{high:.4g}]"


def _value(layer: LayerNode, name: str) -> str:
    array = layer.parameter(name)
    if array is None:
        return name
    if array.size == 0 or array.min() == array.max():
        return f"{float(array.reshape(-1)[0]):g}" if array.size else name
    return f"[{float(array.min()):g}..{float(array.max()):g}]"


def _declare(value: Any) -> str:
    try:
        kind = np.dtype(value.dtype).name
    except TypeError:
        kind = "unknown"
    shape = "?" if value.shape is None else ", ".join("?" if n is None else str(n) for n in value.shape)
    return f"{value.name} {kind}[{shape}]"
