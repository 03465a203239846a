"""What lies between the synapses of a population and its membrane, and whether scaling passes through it."""

from __future__ import annotations

import numpy as np

from snn_optimizer.analyses.unit_groups import Contraction, Population, UnitGroups
from snn_optimizer.ir import Node, Value, array_of, is_constant

__all__ = ["input_path", "is_zero"]

HOMOGENEOUS = frozenset(
    {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Dropout", "AveragePool", "MaxPool",
     "GlobalAveragePool", "GlobalMaxPool", "Relu", "LeakyRelu", "Neg"}
)  # fmt: skip


def input_path(groups: UnitGroups, population: Population) -> frozenset[int] | None:
    """Return the ids of the nodes from the synapses of a population to its input, the synapses included.

    ``None`` unless what the population receives is multiplied by ``c > 0`` whenever the weights, biases and other
    constants of its units are: anything that is the same for all units, an offset or a signal, is not.
    """
    synapses = {id(c.node): c for c in groups.contractions}
    own = np.zeros(groups.classes, np.bool_)
    own[groups.classes_at(population.labels)] = True
    held = {(id(s.use.node), s.use.slot) for s in groups.sites if groups.mask_at(s.labels, own).any()}
    path: set[int] = set()
    pending = list(population.node.inputs[: population.variant.currents])
    while pending:
        value = pending.pop()
        value = groups.scanned.get(id(value), value)
        if not value.inputs or is_constant(value):
            return None
        node = value.inputs[0]
        if id(node) in path:
            continue
        path.add(id(node))
        contraction = synapses.get(id(node))
        if contraction is not None and not groups.mask_at(contraction.labels_out, own).all():
            return None
        operands = _operands(node, contraction)
        if operands is None:
            return None
        for slot in operands:
            operand = node.inputs[slot]
            if not is_constant(operand):
                pending.append(operand)
            elif node.op in {"Mul", "Div"}:
                continue
            elif (id(node), slot) not in held and not is_zero(operand):
                return None
    return frozenset(path)


def _operands(node: Node, contraction: Contraction | None) -> list[int] | None:
    """Return the slots whose sum or product is the input, synaptic weights apart; ``None`` where scaling ends."""
    if contraction is not None:
        slot = contraction.bias_slot
        return [slot] if slot is not None and len(node.inputs) > slot and node.inputs[slot].name else []
    if node.domain:
        return None
    if node.op in {"Add", "Sub"}:
        return [0, 1]
    if node.op == "Mul" or (node.op == "Div" and is_constant(node.inputs[1])):
        return [0, 1] if sum(is_constant(value) for value in node.inputs) == 1 else None
    return [0] if node.op in HOMOGENEOUS else None


def is_zero(value: Value) -> bool:
    """Tell whether a value is zero everywhere: a constant, or one that is spread to a computed shape."""
    array = array_of(value)
    if array is not None:
        return not array.any()
    node = value.inputs[0] if value.inputs else None
    if node is None or node.domain:
        return False
    if node.op == "Expand":
        return is_zero(node.inputs[0])
    if node.op != "ConstantOfShape":
        return False
    filled = node.attrs.get("value")
    return filled is None or not np.any(array_of(filled))
