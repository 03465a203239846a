"""Linear nodes of ONNX in the terms of NIR."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import UnsupportedModelError
from snn_optimizer.ir import Node, is_constant, is_missing, is_unscaled, weights_of
from snn_optimizer.nir.document import NirNode
from snn_optimizer.nir.windows import pads_of, per_axis

__all__ = ["flattened_axes", "read_convolution", "read_linear", "read_pooling"]

Array = npt.NDArray[Any]
Refuse = Callable[[Node, str], UnsupportedModelError]


def read_linear(node: Node, refuse: Refuse) -> tuple[Array, Array | None]:
    """Return weights (outputs, inputs) and bias of a ``Gemm`` or ``MatMul``."""
    weight = weights_of(node.inputs[1]) if is_constant(node.inputs[1]) or node.inputs[1].inputs else None
    if weight is None or weight.ndim != 2:
        raise refuse(node, "its weights are no constant matrix")
    if node.op == "MatMul":
        return np.ascontiguousarray(weight.T), None
    if int(node.attrs.get("transA", 0)) or not is_unscaled(node):
        raise refuse(node, "it scales or transposes its input")
    matrix = weight if int(node.attrs.get("transB", 0)) else np.ascontiguousarray(weight.T)
    return matrix, _bias(node, matrix.shape[0], refuse)


def _bias(node: Node, count: int, refuse: Refuse) -> Array | None:
    if len(node.inputs) < 3 or is_missing(node.inputs[2]):
        return None
    bias = weights_of(node.inputs[2])
    if bias is None or bias.size not in (1, count):
        raise refuse(node, "its bias is no constant per output")
    return np.ascontiguousarray(np.broadcast_to(bias.reshape(-1), (count,)))


def read_convolution(
    node: Node, shape: Sequence[int], template: NirNode | None, refuse: Refuse
) -> tuple[str, dict[str, Any]]:
    """Return kind and parameters of a ``Conv``; those that say the same as the template's are the template's."""
    weight = weights_of(node.inputs[1])
    axes = len(shape) - 1
    if weight is None or axes not in (1, 2):
        raise refuse(node, "it has 1 or 2 axes and constant weights in NIR")
    if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", b"NOTSET"):
        raise refuse(node, "its padding is chosen at run time")
    pads = [int(n) for n in node.attrs.get("pads", [0] * 2 * axes)]
    dilation = [int(n) for n in node.attrs.get("dilations", [1] * axes)]
    stride = [int(n) for n in node.attrs.get("strides", [1] * axes)]
    kind = "Conv1d" if axes == 1 else "Conv2d"
    padding: Any = pads[:axes]
    fields: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    if axes == 1:
        fields = {name: np.int64(value[0]) for name, value in fields.items()}
    else:
        fields = {name: np.array(value, np.int64) for name, value in fields.items()}
    if template is not None and template.kind == kind:
        known = template.values
        if pads_of(template, weight.shape[2:]) == pads:
            fields["padding"], pads = known["padding"], [0] * 2 * axes
        for name, found in (("stride", stride), ("dilation", dilation)):
            if per_axis(known[name], axes) == found:
                fields[name] = known[name]
    if pads[:axes] != pads[axes:]:
        raise refuse(node, "its padding differs between the two sides")
    bias = _bias(node, weight.shape[0], refuse)
    spatial = np.int64(shape[1]) if axes == 1 else np.array(shape[1:], np.int64)
    return kind, {
        "input_shape": spatial,
        "weight": weight,
        "stride": fields["stride"],
        "padding": fields["padding"],
        "dilation": fields["dilation"],
        "groups": np.int64(node.attrs.get("group", 1)),
        "bias": np.zeros(weight.shape[0], weight.dtype) if bias is None else bias,
    }


def read_pooling(node: Node, refuse: Refuse) -> dict[str, Any]:
    """Return the parameters of an ``AveragePool``."""
    kernel = [int(n) for n in node.attrs["kernel_shape"]]
    pads = [int(n) for n in node.attrs.get("pads", [0] * 2 * len(kernel))]
    if len(kernel) != 2 or pads[:2] != pads[2:]:
        raise refuse(node, "it is no pooling of two axes with the same padding on both sides")
    if any(pads) and not int(node.attrs.get("count_include_pad", 0)):
        raise refuse(node, "it leaves the padding out of its mean")
    if int(node.attrs.get("ceil_mode", 0)) or any(int(n) != 1 for n in node.attrs.get("dilations", [1])):
        raise refuse(node, "it rounds sizes up, or is dilated")
    stride = [int(n) for n in node.attrs.get("strides", [1, 1])]
    return {
        "kernel_size": np.array(kernel, np.int64),
        "stride": np.array(stride, np.int64),
        "padding": np.array(pads[:2], np.int64),
    }


def flattened_axes(before: Sequence[int], after: Sequence[int]) -> tuple[int, int] | None:
    """Return the first and last axis that were put into one, None where that is not what happened."""
    for start in range(len(before)):
        for end in range(start, len(before)):
            merged = [*before[:start], int(np.prod(before[start : end + 1])), *before[end + 1 :]]
            if merged == list(after):
                return start, end
    return None
