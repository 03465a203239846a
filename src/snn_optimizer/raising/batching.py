"""Which operators treat the first axis as independent samples.

Such an operator of one step, given all steps in that axis, computes all steps at once. Each
rule looks at one node and returns what to change about it, or why it cannot be done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from snn_optimizer.ir import Dimension, Node, Shape, array_of, is_missing, is_standard

__all__ = ["BROADCASTING", "Batched", "Operands", "batched"]

BROADCASTING: Final = frozenset(
    {
        "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Clip", "Div", "Elu", "Equal", "Erf", "Exp", "Floor",
        "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu",
        "Less", "LessOrEqual", "Log", "Max", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow",
        "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Sub", "Sum",
        "Tanh", "ThresholdedRelu", "Where", "Xor",
    }
)  # fmt: skip
"""Operators that compute element by element, with broadcasting."""

_FIRST_OPERAND: Final = frozenset(
    {
        "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "GlobalAveragePool", "GlobalMaxPool",
        "InstanceNormalization", "LRN", "LpPool", "MaxPool",
    }
)  # fmt: skip
_REDUCTIONS: Final = frozenset(
    {"ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"}
)


@dataclass(frozen=True, slots=True)
class Operands:
    """What a rule may know about the operands of a node.

    Attributes
    ----------
    timed : tuple of bool
        Which operands differ from step to step.
    shapes : tuple of shape or None
        Of one step.
    result : shape or None
    """

    timed: tuple[bool, ...]
    shapes: tuple[Shape | None, ...]
    result: Shape | None

    def rank(self, slot: int = 0) -> int | None:
        """Return the rank of an operand at one step."""
        shape = self.shapes[slot]
        return None if shape is None else len(shape)


@dataclass(frozen=True, slots=True)
class Batched:
    """The node is batched as it is, but for these operands and attributes.

    Attributes
    ----------
    constants : dict
        New constant for a slot.
    spread : tuple of int
        Slots whose operand is the same for all steps, has the batch axis, and must be repeated.
    """

    constants: Mapping[int, Any] = field(default_factory=dict)
    spread: tuple[int, ...] = ()


Rule = Callable[[Node, Operands], "Batched | str"]


def batched(node: Node, operands: Operands) -> Batched | str:
    """Return how to batch a node over its first axis, or a sentence that says why not."""
    if not is_standard(node):
        return f"{node.op} of '{node.domain}' is not known"
    if node.op in BROADCASTING:
        return _broadcasting(operands)
    if node.op in _FIRST_OPERAND:
        return _first_only(node, operands)
    if node.op in _REDUCTIONS:
        return _reduction(node, operands)
    rule = _RULES.get(node.op)
    return f"{node.op} may mix samples" if rule is None else rule(node, operands)


def _broadcasting(operands: Operands) -> Batched | str:
    ranks = {len(shape) if shape is not None else None for shape, timed in _with(operands) if timed}
    if None in ranks or len(ranks) != 1:
        return "its operands have different or unknown ranks"
    rank = ranks.pop()
    assert rank is not None  # checked above
    firsts = {shape[0] for shape, timed in _with(operands) if timed and shape}
    if rank == 0 or len(firsts) != 1:
        return "its operands have different first axes"
    first = firsts.pop()
    spread = []
    for slot, (shape, timed) in enumerate(_with(operands)):
        if timed:
            continue
        if shape is None or len(shape) > rank:
            return "an operand that is the same for all steps has an unknown or larger rank"
        if len(shape) == rank and shape[0] != 1:
            if shape[0] != first:
                return "an operand that is the same for all steps has another first axis"
            spread.append(slot)
    if first == 1 and operands.result is not None and operands.result and operands.result[0] != 1:
        return "its first axis is widened"
    return Batched(spread=tuple(spread))


def _with(operands: Operands) -> list[tuple[Shape | None, bool]]:
    return list(zip(operands.shapes, operands.timed, strict=True))


def _first_only(node: Node, operands: Operands) -> Batched | str:
    if any(operands.timed[1:]) or not operands.timed[0]:
        return f"a parameter of {node.op} changes from step to step"
    if any(name in node.attrs and node.attrs[name] for name in ("training_mode",)):
        return f"{node.op} is in training mode"
    return Batched()


def _gemm(node: Node, operands: Operands) -> Batched | str:
    if int(node.attrs.get("transA", 0)) or operands.timed[1]:
        return "Gemm has its samples elsewhere"
    if len(operands.timed) > 2 and not is_missing(node.inputs[2]):
        shape = operands.shapes[2]
        if operands.timed[2] or shape is None or (len(shape) == 2 and shape[0] != 1):
            return "the bias of Gemm differs between samples"
    return Batched()


def _matmul(_: Node, operands: Operands) -> Batched | str:
    rank, weight = operands.rank(0), operands.shapes[1]
    if operands.timed[1] or not operands.timed[0] or rank is None or rank < 2:
        return "MatMul has its samples elsewhere"
    return Batched() if weight is not None and len(weight) <= 2 else "the weight of MatMul has samples"


def _flatten(node: Node, _: Operands) -> Batched | str:
    return Batched() if int(node.attrs.get("axis", 1)) == 1 else "Flatten joins the first axis"


def _reshape(node: Node, operands: Operands) -> Batched | str:
    given, result = operands.shapes[0], operands.result
    if operands.timed[1] or given is None or not given:
        return "the shape of Reshape changes, or its operand is unknown"
    target = array_of(node.inputs[1])
    if result is not None and result and all(isinstance(n, int) for n in result[1:]) and _keeps_first(given, result):
        return Batched({1: np.array([-1, *result[1:]], np.int64)})
    if target is not None and target.size and int(target[0]) == 0 and not int(node.attrs.get("allowzero", 0)):
        return Batched()
    return "Reshape may join the first axis with others"


def _keeps_first(given: Shape, result: Shape) -> bool:
    if given[0] is not None and given[0] == result[0]:
        return True
    rest = _product(given[1:])
    return rest is not None and rest == _product(result[1:])


def _product(sizes: Sequence[Dimension]) -> int | None:
    total = 1
    for size in sizes:
        if not isinstance(size, int):
            return None
        total *= size
    return total


def _transpose(node: Node, _: Operands) -> Batched | str:
    order = node.attrs.get("perm")
    return Batched() if order and int(order[0]) == 0 else "Transpose moves the first axis"


def _axes(node: Node, operands: Operands, *, rank: int | None) -> list[int] | None:
    """Return the axes a node works on, not negative, None when unknown."""
    axes: Any = node.attrs.get("axes")
    if axes is None and len(node.inputs) > 1 and not is_missing(node.inputs[1]):
        axes = array_of(node.inputs[1])
    if axes is None or rank is None or operands.timed[1:].count(True):
        return None
    return [int(axis) + rank if int(axis) < 0 else int(axis) for axis in axes]


def _along(node: Node, operands: Operands) -> Batched | str:
    """Unsqueeze and Squeeze of later axes."""
    rank = operands.rank(0)
    if node.op == "Unsqueeze" and rank is not None:
        rank = None if operands.result is None else len(operands.result)
    axes = _axes(node, operands, rank=rank)
    return Batched() if axes is not None and 0 not in axes else f"{node.op} works on the first axis"


def _reduction(node: Node, operands: Operands) -> Batched | str:
    axes = _axes(node, operands, rank=operands.rank(0))
    return Batched() if axes and 0 not in axes else f"{node.op} works on the first axis"


def _one_axis(node: Node, operands: Operands) -> Batched | str:
    rank = operands.rank(0)
    axis = int(node.attrs.get("axis", 1 if node.op == "Concat" else -1))
    if rank is None or axis % rank == 0:
        return f"{node.op} works on the first axis"
    if node.op == "Concat" and not all(operands.timed):
        return "Concat joins what changes with what does not"
    return Batched()


def _gather(node: Node, operands: Operands) -> Batched | str:
    rank = operands.rank(0)
    if operands.timed[1] or rank is None or int(node.attrs.get("axis", 0)) % rank == 0:
        return "Gather picks from the first axis"
    return Batched()


def _slice(node: Node, operands: Operands) -> Batched | str:
    rank = operands.rank(0)
    axes = array_of(node.inputs[3]) if len(node.inputs) > 3 else None
    if any(operands.timed[1:]) or axes is None or rank is None or any(int(axis) % rank == 0 for axis in axes):
        return "Slice cuts the first axis"
    return Batched()


def _pad(node: Node, operands: Operands) -> Batched | str:
    pads = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if pads is None or any(operands.timed[1:]) or len(node.inputs) > 3:
        return "the pads of Pad are not constant"
    return "Pad widens the first axis" if pads[0] or pads[len(pads) // 2] else Batched()


def _dropout(_: Node, operands: Operands) -> Batched | str:
    return "Dropout changes from step to step" if any(operands.timed[1:]) else Batched()


_RULES: Final[Mapping[str, Rule]] = {
    "Concat": _one_axis,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "LayerNormalization": _one_axis,
    "LogSoftmax": _one_axis,
    "MatMul": _matmul,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": _one_axis,
    "Squeeze": _along,
    "Transpose": _transpose,
    "Unsqueeze": _along,
}
