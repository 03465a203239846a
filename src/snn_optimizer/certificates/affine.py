"""The linear maps of a network: products and convolutions with everything constant behind them folded in.

A map is read as ``current = weights * source + bias`` whatever way it is spelled, so that a batch norm that one model
computes and the other has in its weights makes no difference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from snn_optimizer.certificates.network import RESHAPES, Array, Made, Network

__all__ = ["Affine", "affine_at"]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """One linear map.

    Attributes
    ----------
    name : str
        Of the node that multiplies.
    kind : {"dense", "conv"}
    source : str
        The value it reads.
    weights : array, shape (rows, inputs of a group, kernel positions)
    bias : array, shape (rows,)
    groups : int
    padded : bool
        Whether a convolution sees zeros that no unit emitted.
    geometry : tuple
        Strides, paddings, dilations and kernel of a convolution.
    fused : int
        How many constant steps behind the product are folded in here.
    reach : array, shape (rows,)
        Absolute values of all that went into the bias: what its rounding is a share of.
    """

    name: str
    kind: str
    source: str
    weights: Array
    bias: Array
    reach: Array
    groups: int = 1
    padded: bool = False
    geometry: tuple[Any, ...] = ()
    fused: int = 0

    def scaled(self, factor: Array, offset: Array, reach: Array) -> Affine:
        """Return the map followed by ``factor * y + offset``, in double precision."""
        rows = len(self.weights)
        factor, offset, reach = (np.broadcast_to(each, (rows,)) for each in (factor, offset, reach))
        return replace(
            self,
            weights=self.weights.astype(np.float64) * factor.reshape(rows, 1, 1),
            bias=self.bias.astype(np.float64) * factor + offset,
            reach=self.reach * np.abs(factor) + reach,
            fused=self.fused + 1,
        )

    def shifted(self, offset: Array) -> Affine:
        """Return the map followed by the sum with a constant."""
        rows = len(self.weights)
        offset = np.broadcast_to(offset, (rows,))
        reach = self.reach + np.abs(offset.astype(np.float64))
        if not self.bias.any():
            return replace(self, bias=offset, reach=reach)
        return replace(self, bias=self.bias.astype(np.float64) + offset, reach=reach, fused=self.fused + 1)

    def source_is_input(self, network: Network) -> bool:
        """Tell whether the map reads an input of the model, through nothing but reshapes."""
        return network.source(self.source, (*RESHAPES, "Identity")) in network.inputs


def affine_at(network: Network, value: str) -> Affine | None:
    """Return the linear map that ends in a value, None if there is none."""
    made = network.made.get(value)
    if made is None or made.position:
        return None
    if made.op == "Gemm":
        return _gemm(network, made)
    if made.op == "MatMul":
        return _matmul(network, made)
    if made.op == "Conv":
        return _conv(network, made)
    if made.op == "BatchNormalization":
        return _normalised(network, made)
    if made.op in ("Add", "Sub", "Mul", "Div"):
        return _with_constant(network, made)
    return None


def _gemm(network: Network, made: Made) -> Affine | None:
    attributes, weights = made.attributes, network.constant(made.inputs[1])
    if weights is None or weights.ndim != 2 or attributes.get("transA", 0) or weights.dtype != np.float32:
        return None
    if not attributes.get("transB", 0):
        weights = weights.T
    bias: Array = np.zeros(len(weights), np.float32)
    if len(made.inputs) > 2 and made.inputs[2]:
        found = network.constant(made.inputs[2])
        if found is None or found.size not in (1, len(weights)):
            return None
        bias = np.broadcast_to(found.reshape(-1), bias.shape)
    alpha, beta = float(attributes.get("alpha", 1.0)), float(attributes.get("beta", 1.0))
    result = Affine(_name(made), "dense", made.inputs[0], weights[:, :, np.newaxis], bias, _sizes(bias))
    if (alpha, beta) != (1.0, 1.0):
        bias = bias * np.float64(beta)
        return replace(result, weights=result.weights * np.float64(alpha), bias=bias, reach=_sizes(bias), fused=2)
    return result


def _matmul(network: Network, made: Made) -> Affine | None:
    weights = network.constant(made.inputs[1])
    if weights is None or weights.ndim != 2 or weights.dtype != np.float32:
        return None
    weights = weights.T
    nothing = np.zeros(len(weights), np.float32)
    return Affine(_name(made), "dense", made.inputs[0], weights[:, :, np.newaxis], nothing, _sizes(nothing))


def _conv(network: Network, made: Made) -> Affine | None:
    weights = network.constant(made.inputs[1])
    if weights is None or weights.ndim < 3 or weights.dtype != np.float32:
        return None
    bias = np.zeros(len(weights), np.float32)
    if len(made.inputs) > 2 and made.inputs[2]:
        found = network.constant(made.inputs[2])
        if found is None:
            return None
        bias = found
    attributes, rank = made.attributes, weights.ndim - 2
    automatic = attributes.get("auto_pad", b"NOTSET")
    pads = tuple(attributes.get("pads", (0,) * 2 * rank))
    geometry = (
        weights.shape[2:],
        tuple(attributes.get("strides", (1,) * rank)),
        tuple(attributes.get("dilations", (1,) * rank)),
        pads,
        automatic if automatic not in (b"NOTSET", b"VALID") else b"",
    )
    padded = any(pads) or bool(geometry[-1])
    matrix = weights.reshape(*weights.shape[:2], -1)
    groups = int(attributes.get("group", 1))
    return Affine(_name(made), "conv", made.inputs[0], matrix, bias, _sizes(bias), groups, padded, geometry)


def _normalised(network: Network, made: Made) -> Affine | None:
    """Fold the normalisation of inference: ``(y - mean) / sqrt(var + epsilon) * scale + shift``."""
    inner = affine_at(network, made.inputs[0])
    if inner is None or int(made.attributes.get("training_mode", 0)):
        return None
    found = [network.constant(name) for name in made.inputs[1:5]]
    if any(array is None for array in found):
        return None
    scale, shift, mean, variance = (np.asarray(array, np.float64) for array in found)
    factor = scale / np.sqrt(variance + float(made.attributes.get("epsilon", 1e-5)))
    return inner.scaled(factor, shift - mean * factor, np.abs(shift) + np.abs(mean * factor))


def _with_constant(network: Network, made: Made) -> Affine | None:
    for slot, other in ((0, 1), (1, 0)):
        constant = network.constant(made.inputs[other])
        if constant is None or constant.dtype.kind != "f" or (slot == 1 and made.op in ("Sub", "Div")):
            continue
        inner = affine_at(network, made.inputs[slot])
        per_row = None if inner is None else _per_row(constant, inner)
        if inner is None or per_row is None:
            return None
        if made.op == "Add":
            return inner.shifted(per_row)
        if made.op == "Sub":
            return inner.shifted(-per_row.astype(np.float64))
        factor = per_row.astype(np.float64)
        return inner.scaled(factor if made.op == "Mul" else 1 / factor, np.zeros(1), np.zeros(1))
    return None


def _per_row(constant: Array, affine: Affine) -> Array | None:
    """Return a constant as one number per row of a map, None if it varies otherwise."""
    if constant.size == 1:
        return constant.reshape(-1)
    kernel = 0 if affine.kind == "dense" else len(affine.geometry[0])
    axis = constant.ndim - 1 - kernel
    if axis < 0 or constant.shape[axis] != constant.size or constant.size != len(affine.weights):
        return None
    return constant.reshape(-1)


def _sizes(bias: Array) -> Array:
    return np.abs(bias.astype(np.float64))


def _name(made: Made) -> str:
    return str(made.node.name or made.node.output[0])
