"""Axis rules of linear maps, normalisation and pooling: where units end and new ones begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from snn_optimizer.analyses.axis_rules import opaque, rule
from snn_optimizer.analyses.labels import NO_UNIT, Labels, Role
from snn_optimizer.ir import Node, is_constant

if TYPE_CHECKING:
    from snn_optimizer.analyses.propagation import Propagation

__all__: list[str] = []


@rule("Gemm")
def gemm(p: Propagation, node: Node) -> None:
    """Contract the columns of B; rows of B are new units."""
    source, weight = node.inputs[0], node.inputs[1]
    shape = p.constant_dims(weight)
    if shape is None or len(shape) != 2 or p.constant_dims(source) is not None or node.attrs.get("transA", 0):
        opaque(p, node)
        return
    transposed = bool(node.attrs.get("transB", 0))
    axis_in, axis_out = (1, 0) if transposed else (0, 1)
    outgoing = _contract(p, node, 1, axis_in, axis_out, source_axis=-1, bias_slot=2)
    if len(node.inputs) > 2 and node.inputs[2].name:
        bias = p.constant_dims(node.inputs[2])
        if bias is None:
            axes = p.labels(node.inputs[2])
            p.table.unify(axes[-1] if axes else None, outgoing, f"'{node.name}' adds '{node.inputs[2].name}'")
            for labels in axes[:-1]:
                p.table.fix(labels, f"'{node.name}' (Gemm) adds them to its rows")
        elif bias and bias[-1] == len(outgoing) and bias[-1] != 1:
            p.site(node, 2, len(bias) - 1, outgoing, Role.BIAS)
    leading = p.labels(source)
    p.set(node.outputs[0], [leading[0] if leading else None, outgoing])


@rule("MatMul")
def matmul(p: Propagation, node: Node) -> None:
    """Contract a constant matrix on the right."""
    source, weight = node.inputs
    shape = p.constant_dims(weight)
    rank = p.shapes.rank(source)
    if shape is None or len(shape) != 2 or rank is None or rank < 2 or p.constant_dims(source) is not None:
        opaque(p, node)
        return
    outgoing = _contract(p, node, 1, 0, 1, source_axis=-1, bias_slot=None)
    axes = p.known_axes(source) or [None] * rank
    p.set(node.outputs[0], [*axes[:-1], outgoing])


@rule("Conv")
def convolution(p: Propagation, node: Node) -> None:
    """Contract input channels; output channels are new units; depthwise keeps them."""
    source, shape = node.inputs[0], p.constant_dims(node.inputs[1])
    rank = p.shapes.rank(source)
    groups = int(node.attrs.get("group", 1))
    if shape is None or rank is None or rank < 3:
        opaque(p, node)
        return
    axes = p.known_axes(source) or [None] * rank
    for labels in axes[2:]:
        p.table.fix(labels, f"'{node.name}' (Conv) slides along them")
    depthwise = groups > 1 and groups == shape[0] and shape[1] == 1
    if groups == 1:
        outgoing = _contract(p, node, 1, 1, 0, source_axis=1, bias_slot=2)
    elif depthwise and (through := axes[1]) is not None and len(through) == shape[0]:
        outgoing = through
        p.site(node, 1, 0, outgoing, Role.PARAMETER)
        p.site(node, 1, 0, outgoing, Role.GROUPS)
    else:
        outgoing = p.table.fresh(shape[0])
        p.table.fix(axes[1], f"'{node.name}' is a grouped convolution")
        p.table.fix(outgoing, f"'{node.name}' is a grouped convolution")
    if len(node.inputs) > 2 and node.inputs[2].name:
        if is_constant(node.inputs[2]):
            p.site(node, 2, 0, outgoing, Role.PARAMETER if depthwise else Role.BIAS)
        else:
            p.fix_all(node.inputs[2], f"computed bias of '{node.name}'")
            p.table.fix(outgoing, f"the bias of '{node.name}' is computed")
    p.set(node.outputs[0], [axes[0], outgoing, *[None] * (rank - 2)])


def _contract(
    p: Propagation,
    node: Node,
    slot: int,
    axis_in: int,
    axis_out: int,
    *,
    source_axis: int,
    bias_slot: int | None,
) -> Labels:
    from snn_optimizer.analyses.unit_groups import Contraction  # noqa: PLC0415 - unit_groups reads this package's results

    source, weight = node.inputs[0], node.inputs[slot]
    shape = p.constant_dims(weight)
    assert shape is not None
    axes = p.labels(source)
    incoming = axes[source_axis] if axes else None
    if incoming is None or len(incoming) != shape[axis_in]:
        p.table.fix(incoming, f"'{node.name}' ({node.op}) reads them with a weight of another size")
        incoming = np.full(shape[axis_in], NO_UNIT, np.int64)
    outgoing = p.table.fresh(shape[axis_out])
    p.site(node, slot, axis_in, incoming, Role.COLUMN)
    p.site(node, slot, axis_out, outgoing, Role.ROW)
    result = node.outputs[0]
    p.contractions.append(
        Contraction(node, slot, bias_slot, axis_in, axis_out, incoming, outgoing, source, result),
    )
    return outgoing


@rule("BatchNormalization")
def batch_norm(p: Propagation, node: Node) -> None:
    """Scale, shift, mean and variance follow the channels."""
    axes = p.known_axes(node.inputs[0])
    if axes is None or len(axes) < 2 or node.attrs.get("training_mode", 0):
        opaque(p, node)
        return
    dims = p.dims(node.inputs[0])
    channels = axes[1]
    shapes = [p.constant_dims(v) for v in node.inputs[1:5]]
    if channels is None and dims is not None and isinstance(dims[1], int):
        channels = None
    for slot, shape in enumerate(shapes, start=1):
        if channels is None:
            continue
        if shape is None or shape[0] != len(channels):
            p.table.fix(channels, f"'{node.name}' (BatchNormalization) has computed statistics")
        else:
            p.site(node, slot, 0, channels, Role.PARAMETER)
    p.set(node.outputs[0], list(axes))


@rule("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool")
def pooling(p: Propagation, node: Node) -> None:
    """Channels pass; windows slide over the rest."""
    axes = p.known_axes(node.inputs[0])
    if axes is None or len(axes) < 3 or len([v for v in node.outputs if v.name]) > 1:
        opaque(p, node)
        return
    for labels in axes[2:]:
        p.table.fix(labels, f"'{node.name}' ({node.op}) pools over them")
    p.set(node.outputs[0], [axes[0], axes[1], *[None] * (len(axes) - 2)])
