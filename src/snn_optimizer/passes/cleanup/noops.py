"""Which nodes return one of the values they read, bit for bit and whatever the input.

A rule gets a node of its kind and answers with the value that the node's first output
equals, with a ``Refusal`` when that cannot be proved, or with None when the node
does work. Sizes count as known only where they are numbers; the declared shape of a
model output proves nothing about the value behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final, TypeAlias

import numpy as np

from snn_optimizer.analyses import StaticShapes
from snn_optimizer.ir import (
    Array,
    Dimension,
    GraphIndex,
    Node,
    Shape,
    Value,
    array_of,
    is_missing,
    is_standard,
)
from snn_optimizer.passes.base import PassContext, Refusal
from snn_optimizer.passes.cleanup.value_types import ValueTypes, cast_target

__all__ = ["NOOPS", "Facts", "Verdict"]

Verdict: TypeAlias = Value | Refusal | None

_LAST: Final = 2**63 - 1  # the end of any axis in a Slice


@dataclass(slots=True)
class Facts:
    """What rules ask about the values of one module.

    Attributes
    ----------
    context : PassContext
    index : GraphIndex
    opset : int
        Of the standard operators.
    types : ValueTypes
    """

    context: PassContext
    index: GraphIndex
    opset: int
    types: ValueTypes = field(default_factory=ValueTypes)

    def shape(self, value: Value) -> Shape | None:
        """Return the shape of a value, None where only the caller's declaration knows it."""
        if value.inputs and self.index.is_interface(value):
            return None
        return self.context.analyses.get(StaticShapes).shapes.shape(value)

    def rank(self, value: Value) -> int | None:
        """Return the number of axes, None when unknown."""
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def integers(self, node: Node, slot: int, attribute: str) -> list[int] | None:
        """Return an operand that is an attribute in old opsets and an input in newer ones; None when not constant."""
        if attribute in node.attrs:
            return [int(number) for number in node.attrs[attribute]]
        array = array_of(node.inputs[slot]) if is_present(node, slot) else None
        return None if array is None else [int(number) for number in array.reshape(-1)]

    def inner(self, node: Node, *ops: str) -> Node | None:
        """Return the producer of a node's first input when it is one of ``ops`` in the same scope."""
        made_by = node.inputs[0].inputs
        if len(made_by) != 1 or not is_standard(made_by[0], *ops):
            return None
        same = self.index.scope_of(made_by[0]) is self.index.scope_of(node)
        return made_by[0] if same else None


def is_present(node: Node, slot: int) -> bool:
    """Tell whether a node has an input in a slot."""
    return len(node.inputs) > slot and not is_missing(node.inputs[slot])


def _at_run_time(node: Node) -> Refusal:
    return Refusal("operand-not-constant", f"what {node.op} is to do is computed at run time")


def _rank_unknown(value: Value) -> Refusal:
    return Refusal("rank-unknown", f"the number of axes of '{value.name}' is not known")


def _size_unknown(value: Value, sizes: Sequence[Dimension], wanted: Sequence[int]) -> Refusal:
    shown = ", ".join("?" if size is None else str(size) for size in sizes)
    return Refusal("size-unknown", f"'{value.name}' is [{shown}], which may not be {list(wanted)}")


def _identity(node: Node, _: Facts) -> Verdict:
    return node.inputs[0]


def _concat(node: Node, _: Facts) -> Verdict:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _dropout(node: Node, facts: Facts) -> Verdict:
    mask = node.outputs[1] if len(node.outputs) > 1 else None
    if mask is not None and not is_missing(mask) and (mask.outputs or facts.index.output_of(mask)):
        return Refusal("mask-used", f"the mask '{mask.name}' is read")
    if facts.opset >= 12:
        training = array_of(node.inputs[2]) if is_present(node, 2) else np.zeros(1, np.bool_)
        trains = training is None or bool(training.any())
    else:
        trains = facts.opset < 7 and not node.attrs.get("is_test", 0)
    return Refusal("may-train", "it drops values when it trains") if trains else node.inputs[0]


def _cast(node: Node, facts: Facts) -> Verdict:
    value = node.inputs[0]
    source, target = facts.types.of(value), cast_target(node)
    if source is None or target is None:
        return Refusal("type-unknown", f"the element type of '{value.name}' is not known")
    if source == target:
        return value
    inner = facts.inner(node, "Cast")
    if inner is not None and facts.types.of(inner.inputs[0]) == target and _holds(source, target):
        return inner.inputs[0]
    return None


def _holds(wide: np.dtype[Any], narrow: np.dtype[Any]) -> bool:
    """Tell whether every value of a truth or whole-number type survives the way to ``wide`` and back."""
    if narrow.kind not in "biu" or wide.kind not in "biuf":
        return False
    rounds = wide.kind == "f" and narrow.itemsize == 8  # NumPy calls this cast safe
    return np.can_cast(narrow, wide, "safe") and not rounds


def _reshape(node: Node, facts: Facts) -> Verdict:
    if facts.opset < 5:
        return None
    value = node.inputs[0]
    before = facts.shape(value)
    if before is not None and _is_static(before) and before == facts.shape(node.outputs[0]):
        return value
    target = facts.integers(node, 1, "shape")
    if target is None:
        return _at_run_time(node)
    if before is None:
        return _rank_unknown(value)
    return _kept(value, before, target, copies=not node.attrs.get("allowzero", 0))


def _kept(value: Value, before: Shape, target: Sequence[int], *, copies: bool) -> Verdict:
    """Compare the shape of a value with what a Reshape asks for; ``copies``: 0 stands for the old size.

    One axis may be open: the number of elements stays, so with all other sizes equal
    and not zero its size stays too. A -1 next to a size of zero is an error anyway.
    """
    if len(target) != len(before):
        return None
    unresolved = [
        axis
        for axis, (old, new) in enumerate(zip(before, target, strict=True))
        if not (new == old or (new == 0 and copies))
    ]
    if any(isinstance(before[axis], int) and target[axis] != -1 for axis in unresolved):
        return None
    if not unresolved:
        return value
    others = [size for axis, size in enumerate(before) if axis != unresolved[0]]
    inferred = target[unresolved[0]] == -1
    if len(unresolved) == 1 and (inferred or all(isinstance(size, int) and size > 0 for size in others)):
        return value
    return _size_unknown(value, before, target)


def _is_static(shape: Shape) -> bool:
    return all(isinstance(size, int) for size in shape)


def _flatten(node: Node, facts: Facts) -> Verdict:
    value = node.inputs[0]
    shape = facts.shape(value)
    if shape is None:
        return _rank_unknown(value)
    if len(shape) != 2:
        return None
    axis = int(node.attrs.get("axis", 1))
    axis = axis + 2 if axis < 0 else axis
    keeps = axis == 1 or (axis == 0 and shape[0] == 1) or (axis == 2 and shape[1] == 1)
    return value if keeps else None


def _transpose(node: Node, facts: Facts) -> Verdict:
    value = node.inputs[0]
    order = node.attrs.get("perm")
    if order is not None:
        return value if list(order) == list(range(len(order))) else None
    inner = facts.inner(node, "Transpose")
    if inner is not None and "perm" not in inner.attrs:
        return inner.inputs[0]
    rank = facts.rank(value)
    if rank is None:
        return _rank_unknown(value)
    return value if rank <= 1 else None


def _unsqueeze(node: Node, facts: Facts) -> Verdict:
    return _opposite(node, facts, "Squeeze")


def _squeeze(node: Node, facts: Facts) -> Verdict:
    return _opposite(node, facts, "Unsqueeze")


def _opposite(node: Node, facts: Facts, other: str) -> Verdict:
    """Return what a pair of Squeeze and Unsqueeze of the same axes started from."""
    inner = facts.inner(node, other)
    if inner is None:
        return None
    axes, inner_axes = facts.integers(node, 1, "axes"), facts.integers(inner, 1, "axes")
    if axes is None or inner_axes is None:
        return Refusal("axes-unknown", f"the axes of {node.op} and {other} are not both constant")
    if sorted(axes) == sorted(inner_axes):
        return inner.inputs[0]
    if not any(axis < 0 for axis in (*axes, *inner_axes)):
        return None
    longer = inner.inputs[0] if other == "Squeeze" else node.inputs[0]
    rank = facts.rank(longer)
    if rank is None:
        return _rank_unknown(longer)
    same = sorted(axis % rank for axis in axes) == sorted(axis % rank for axis in inner_axes)
    return inner.inputs[0] if same else None


def _gather(node: Node, facts: Facts) -> Verdict:
    """Return what an axis was added to whose only element is taken."""
    inner = facts.inner(node, "Unsqueeze")
    index = array_of(node.inputs[1])
    if inner is None or index is None or index.ndim or int(index) not in (0, -1):
        return None
    axes, axis = facts.integers(inner, 1, "axes"), int(node.attrs.get("axis", 0))
    return inner.inputs[0] if axes is not None and list(axes) == [axis] else None


def _slice(node: Node, facts: Facts) -> Verdict:
    value = node.inputs[0]
    starts, ends = facts.integers(node, 1, "starts"), facts.integers(node, 2, "ends")
    has_axes, has_steps = is_present(node, 3), is_present(node, 4)
    axes, steps = facts.integers(node, 3, "axes"), facts.integers(node, 4, "steps")
    if starts is None or ends is None or (has_axes and axes is None) or (has_steps and steps is None):
        return _at_run_time(node)
    if any(step != 1 for step in steps or ()):
        return None
    shape = facts.shape(value)
    verdict: Verdict = value
    for axis, start, end in zip(axes or range(len(starts)), starts, ends, strict=False):
        if start == 0 and end == _LAST:
            continue
        if shape is None:
            return _rank_unknown(value)
        size = shape[axis]
        if len(range(size)[start:end]) != size if isinstance(size, int) else start > 0 or end <= 0:
            return None
        if not isinstance(size, int):
            verdict = Refusal(
                "size-unknown", f"'{value.name}' has size {size or '?'} on axis {axis}, cut from {start} to {end}"
            )
    return verdict


def _pad(node: Node, facts: Facts) -> Verdict:
    pads = facts.integers(node, 1, "pads")
    if pads is None:
        return _at_run_time(node)
    return None if any(pads) else node.inputs[0]


def _expand(node: Node, facts: Facts) -> Verdict:
    value = node.inputs[0]
    before = facts.shape(value)
    if before is not None and _is_static(before) and before == facts.shape(node.outputs[0]):
        return value
    target = facts.integers(node, 1, "shape")
    if target is None:
        return _at_run_time(node)
    if before is None:
        return value if not target else _rank_unknown(value)
    if len(target) > len(before):
        return None
    pairs = list(zip(before[len(before) - len(target) :], target, strict=True))
    unresolved = [(old, new) for old, new in pairs if new not in (1, old)]
    if any(isinstance(old, int) for old, _ in unresolved):
        return None
    return _size_unknown(value, before, target) if unresolved else value


_NEUTRAL: Final[Mapping[str, tuple[int, tuple[int, ...]]]] = {
    "Add": (0, (1, 0)),
    "Sub": (0, (1,)),
    "Mul": (1, (1, 0)),
    "Div": (1, (1,)),
}
"""Operand that changes nothing, and the slots it may be in."""


def _arithmetic(node: Node, facts: Facts) -> Verdict:
    if facts.opset < 7:  # broadcasting was by attributes
        return None
    number, slots = _NEUTRAL[node.op]
    verdict: Verdict = None
    for slot in slots:
        array = _filled_with(node.inputs[slot], number)
        if array is None:
            continue
        other = node.inputs[1 - slot]
        if not _broadcasts_into(array.shape, facts.shape(other)):
            verdict = Refusal(
                "may-widen", f"a constant of shape {list(array.shape)} may give '{other.name}' another shape"
            )
        elif array.dtype.kind == "f" and not (np.signbit(array) == (node.op == "Add")).all():
            verdict = Refusal("signed-zero", f"{node.op} of this zero turns -0 into 0")
        else:
            return other
    return verdict


def _filled_with(value: Value, number: int) -> Array | None:
    """Return the values of a constant when all of them are ``number``."""
    array = array_of(value)
    if array is None or array.dtype.kind not in "iuf" or prod(array.shape) == 0:
        return None
    return array if array.flat[0] == number and (array == number).all() else None


def _broadcasts_into(shape: Sequence[int], other: Shape | None) -> bool:
    """Tell whether broadcasting a constant against a value certainly gives the shape of the value."""
    if not shape:
        return True
    if other is None or len(shape) > len(other):
        return False
    return all(mine in (1, theirs) for mine, theirs in zip(shape, other[len(other) - len(shape) :], strict=True))


NOOPS: Final[Mapping[str, Callable[[Node, Facts], Verdict]]] = {
    "Add": _arithmetic,
    "Cast": _cast,
    "Concat": _concat,
    "Div": _arithmetic,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _identity,
    "Mul": _arithmetic,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _arithmetic,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
