"""Linear nodes as affine maps: read, compose and replace their weights and biases.

Shared by the fusion rules. A map is taken with its bias, wherever the bias is: in the
node's own slot, or in an Add behind a MatMul.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses import Contraction
from snn_optimizer.ir import Graph, GraphIndex, Node, Rewriter, Use, Value, array_of, is_constant
from snn_optimizer.passes.unit_surgery import add_behind

__all__ = ["AffineMap", "affine_map", "only_reader"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AffineMap:
    """``y = weights @ x + bias`` of one contraction, in float64.

    Attributes
    ----------
    stored : array, shape (postsynaptic, presynaptic, kernel...)
        The weights as the model has them, a view; ``weights`` makes them float64 when asked, since a map of most
        layers is only looked at.
    factor : float
        What a Gemm multiplies them with.
    add : Node or None
        The Add that holds the bias of a MatMul.
    result : Value
        The value after the bias.
    """

    contraction: Contraction
    stored: npt.NDArray[Any]
    factor: float
    bias: Array  # (postsynaptic,)
    add: Node | None
    result: Value
    dtype: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weights."""
        return self.stored.shape

    @property
    def weights(self) -> Array:
        """The weights, shape (postsynaptic, presynaptic, kernel...); a new array."""
        weights = self.stored.astype(np.float64)
        weights *= self.factor
        return weights

    @property
    def node(self) -> Node:
        """The linear node."""
        return self.contraction.node

    def store(self, rewriter: Rewriter, weights: Array, bias: Array, graph: Graph) -> Value:
        """Write new weights and bias and return the value after the bias.

        A bias that was absent is created only when it is not zero.
        """
        node = self.node
        order = [self.contraction.axis_out, self.contraction.axis_in]
        order += [i for i in range(weights.ndim) if i not in order]
        stored = np.ascontiguousarray(np.transpose(weights, np.argsort(order)).astype(self.dtype))
        rewriter.edit_constant([Use(node, self.contraction.weight_slot)], stored)
        if node.op == "Gemm":
            for name in ("alpha", "beta"):
                if float(node.attrs.get(name, 1.0)) != 1.0:
                    rewriter.set_attribute(node, name, 1.0)
        values = bias.astype(self.dtype)
        if self.add is not None:
            slot = next(i for i, v in enumerate(self.add.inputs) if is_constant(v))
            rewriter.edit_constant([Use(self.add, slot)], values)
        elif self.contraction.bias_slot is not None:
            slot = self.contraction.bias_slot
            if len(node.inputs) > slot and node.inputs[slot].name:
                rewriter.edit_constant([Use(node, slot)], values)
            elif values.any():
                rewriter.set_input(node, slot, rewriter.constant(f"{node.name}.bias", values))
        elif values.any():
            return add_behind(rewriter, graph, node, self.contraction.result, values)[1]
        return self.result


def affine_map(contraction: Contraction, index: GraphIndex) -> AffineMap | None:
    """Read a contraction with constant bias as an affine map; ``None`` when its bias is computed."""
    node = contraction.node
    stored = array_of(node.inputs[contraction.weight_slot])
    if stored is None:
        return None
    order = [contraction.axis_out, contraction.axis_in]
    view = np.transpose(stored, [*order, *(i for i in range(stored.ndim) if i not in order)])
    bias = np.zeros(view.shape[0])
    add, result = None, contraction.result
    factor = float(node.attrs.get("alpha", 1.0)) if node.op == "Gemm" else 1.0
    slot = contraction.bias_slot
    if slot is not None and len(node.inputs) > slot and node.inputs[slot].name:
        held = array_of(node.inputs[slot])
        if held is None or held.size not in {1, len(bias)} or (held.size > 1 and held.shape[-1] != held.size):
            return None
        scale = float(node.attrs.get("beta", 1.0)) if node.op == "Gemm" else 1.0
        bias = bias + held.reshape(-1).astype(np.float64) * scale
    elif slot is None:
        reader = only_reader(index, result)
        if reader is not None and reader.op == "Add" and not reader.domain:
            other = [array_of(v) for v in reader.inputs if v is not result]
            if len(other) == 1 and other[0] is not None and other[0].ndim == 1 and other[0].size == len(bias):
                bias, add, result = other[0].astype(np.float64), reader, reader.outputs[0]
    return AffineMap(contraction, view, factor, bias, add, result, stored.dtype)


def only_reader(index: GraphIndex, value: Value) -> Node | None:
    """Return the one node that reads a value once, if no graph output is it."""
    uses = index.consumers(value)
    return uses[0].node if len(uses) == 1 and not index.output_of(value) else None
