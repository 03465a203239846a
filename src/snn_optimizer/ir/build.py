"""Build a runnable model from a list of layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from snn_optimizer import ops
from snn_optimizer.errors import InputError
from snn_optimizer.ir.module import Module
from snn_optimizer.ir.rewriter import Rewriter
from snn_optimizer.ir.types import Dimension

if TYPE_CHECKING:
    from snn_optimizer.ir.layers import LayerNode

__all__ = ["build_module"]


def build_module(layers: Sequence[LayerNode]) -> Module:
    """Chain layers over time: x[T, B, n] -> MatMul, Add, neuron -> ... -> spikes[T, B, n].

    Raises
    ------
    InputError
        If there is no layer, a name repeats, or sizes do not chain.
    """
    _check(layers)
    last = layers[-1]
    dtype = layers[0].weights.dtype
    output = "membrane" if last.neuron_type == "LI" else "spikes"
    module = Module.empty(
        inputs=[("x", dtype, ["time", "batch", layers[0].n_inputs])],
        outputs=[(output, dtype, ["time", "batch", last.n_neurons])],
        name="network",
    )
    rewriter = Rewriter(module)
    graph = module.graph
    module.opset_imports.setdefault(ops.DOMAIN, ops.VERSION)
    signal = graph.inputs[0]
    for layer in layers:
        shape: list[Dimension] = ["time", "batch", layer.n_neurons]
        weight = rewriter.constant(f"{layer.name}.weight", np.ascontiguousarray(layer.weights.T))
        current = rewriter.value(f"{layer.name}.current", dtype, shape)
        rewriter.add(graph, "MatMul", [signal, weight], [current], name_hint=f"{layer.name}.synapse")
        if (bias := layer.bias) is not None:
            biased = rewriter.value(f"{layer.name}.biased", dtype, shape)
            constant = rewriter.constant(f"{layer.name}.bias", bias.astype(dtype))
            rewriter.add(graph, "Add", [current, constant], [biased], name_hint=f"{layer.name}.add_bias")
            current = biased
        variant = layer.variant
        operands = [current]
        for name in variant.inputs[1:]:
            values = layer.parameter(name)
            operands.append(
                rewriter.constant(
                    f"{layer.name}.{name}", np.zeros((), dtype) if values is None else values.astype(dtype)
                )
            )
        signal = graph.outputs[0] if layer is last else rewriter.value(f"{layer.name}.spikes", dtype, shape)
        finals = [rewriter.value(f"{layer.name}.final{i}", dtype, shape[1:]) for i in range(len(variant.states))]
        rewriter.add(
            graph, variant.op_type, operands, [signal, *finals],
            attrs=variant.attributes(), domain=ops.DOMAIN, name_hint=layer.name,
        )  # fmt: skip
        module.add_function(ops.function_proto(variant))
    rewriter.finish()
    return module


def _check(layers: Sequence[LayerNode]) -> None:
    if not layers:
        raise InputError("a network needs at least one layer")
    names = [layer.name for layer in layers]
    if repeated := [n for n in names if names.count(n) > 1]:
        raise InputError(f"two layers are named '{repeated[0]}'")
    for before, after in pairwise(layers):
        if before.n_neurons != after.n_inputs:
            raise InputError(
                f"layer '{after.name}' takes {after.n_inputs} inputs but '{before.name}' has {before.n_neurons} neurons"
            )
        if before.weights.dtype != after.weights.dtype:
            raise InputError(f"layers '{before.name}' and '{after.name}' have weights of different types")
