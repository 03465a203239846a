"""Whether a potential can be NaN, for rewrites that are exact for every number but not for a NaN."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from snn_optimizer import ops
from snn_optimizer.ir import GraphIndex, Module, Node, Value, array_of, is_constant, is_standard
from snn_optimizer.ops import Expression, NeuronVariant

__all__ = ["nan_source"]

_LARGEST: Final = 2.0**40  # products of three such numbers are still finite, and so are differences of them
_RISKY: Final = frozenset({"Acos", "Acosh", "Asin", "Atanh", "Log", "Mod", "Pow", "Reciprocal", "Sqrt"})


def nan_source(module: Module) -> str | None:
    """Return what could make a NaN of finite inputs, in words; None where nothing does.

    Looked for are stored numbers that are NaN, infinite or so large that results overflow, divisors that may be
    zero, and operators that are undefined somewhere.
    """
    seen: set[int] = set()
    for scope in GraphIndex(module).scopes:  # not those of functions: ours divide by what a call gives them
        for node in scope.graph.nodes:
            for value in node.inputs:
                if id(value) not in seen and is_constant(value):
                    seen.add(id(value))
                    if not _is_moderate(value):
                        return f"the constant '{value.name}' holds numbers that are not finite, or too large"
            if (operator := _undefined(node)) is not None:
                return f"node '{node.name}': {operator}"
    return None


def _is_moderate(value: Value) -> bool:
    array = array_of(value)
    if array is None or array.dtype.kind != "f" or not array.size:
        return True
    with np.errstate(invalid="ignore"):
        return float(array.min()) > -_LARGEST and float(array.max()) < _LARGEST  # a NaN fails both


def _undefined(node: Node) -> str | None:
    if ops.is_neuron(node.domain or "", node.op):
        variant = NeuronVariant.parse(node.op, node.attrs)
        given = dict(zip(variant.inputs, node.inputs, strict=False))
        names = _divisors(variant)
        zero = next((name for name in names if name not in given or not _is_far_from_zero(given[name])), None)
        return None if zero is None else f"its {zero}, by which it divides, may be zero"
    if not is_standard(node, node.op):
        return f"what '{node.op}' of '{node.domain}' computes is not known"
    if node.op == "Div" and not _is_far_from_zero(node.inputs[1]):
        return "its divisor may be zero"
    if node.op == "BatchNormalization":
        variance = array_of(node.inputs[4]) if is_constant(node.inputs[4]) else None
        if variance is None or not (variance + float(node.attrs.get("epsilon", 1e-5)) > 1 / _LARGEST).all():
            return "its variance may be zero or negative"
    return f"{node.op} is not defined everywhere" if node.op in _RISKY else None


def _is_far_from_zero(value: Value) -> bool:
    array = array_of(value) if is_constant(value) else None
    return array is not None and bool((np.abs(array) > 1 / _LARGEST).all())  # quotients do not overflow


def _divisors(variant: NeuronVariant) -> list[str]:
    """Return the names a step divides by; of a neuron of several spikes the threshold is one."""
    if not variant.written:
        return ["v_threshold"] if variant.max_spikes != 1 else []
    operands = [operand for _, statement in variant.program.statements for operand in _divided_by(statement)]
    unsure = [operand for operand in operands if operand.operation != "number" or operand.number == 0]
    return list(dict.fromkeys(o.symbol if o.operation == "name" else o.text for o in unsure))


def _divided_by(expression: Expression) -> Iterator[Expression]:
    if expression.operation == "div":
        yield expression.operands[1]
    for operand in expression.operands:
        yield from _divided_by(operand)
