"""The readable text form of a network: what a person has in mind when they think of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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
