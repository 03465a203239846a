"""Write parameters that are one number for a population into its arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snn_optimizer import ops
from snn_optimizer.ir import Node, Rewriter, array_of
from snn_optimizer.ops import Expression, NeuronVariant, Program
from snn_optimizer.ops.written import steep

__all__ = ["specialize", "with_threshold"]

_THRESHOLD = "v_threshold"


def specialize(rewriter: Rewriter, node: Node) -> NeuronVariant | None:
    """Let the function of a call know its threshold; return its new variant, None when nothing is gained."""
    variant = NeuronVariant.parse(node.op, node.attrs)
    if not variant.written or _THRESHOLD not in variant.inputs:
        return None
    slot = variant.inputs.index(_THRESHOLD)
    array = array_of(node.inputs[slot])
    if array is None or array.dtype != np.float32 or array.size != 1 or not steep(float(array.reshape(()))):
        return None
    special = with_threshold(variant, float(array.reshape(())))
    inputs = [value for index, value in enumerate(node.inputs) if index != slot]
    rewriter.retarget(node, (ops.DOMAIN, special.op_type), inputs, special.attributes())
    module = rewriter.module
    opset = min(max(module.opset(), ops.MINIMUM_OPSET), ops.MAXIMUM_OPSET)
    module.add_function(ops.function_proto(special, opset))
    return special


def with_threshold(variant: NeuronVariant, threshold: float) -> NeuronVariant:
    """Return the variant of written arithmetic that knows its threshold."""
    number = Expression.literal(threshold)
    program = Program(tuple((name, _written_in(e, number)) for name, e in variant.program.statements))
    return replace(variant, arithmetic=program.text)


def _written_in(expression: Expression, number: Expression) -> Expression:
    """Put the threshold in its place; a factor of 1 changes no bit and is left out."""
    if expression.operation == "name":
        return number if expression.symbol == _THRESHOLD else expression
    operands = tuple(_written_in(operand, number) for operand in expression.operands)
    if expression.operation == "mul" and number.number == 1.0:
        for one, other in (operands, operands[::-1]):
            if one.text == number.text:
                return other
    return Expression(expression.operation, operands, expression.symbol, expression.number)
