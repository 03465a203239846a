"""What every operator does to the units along the axes of its operands.

A rule reads the labels of a node's inputs and sets those of its outputs; it
unifies positions that correspond, records the constants that are cut with
them, and fixes what it cannot follow. An operator without a rule is opaque:
everything it reads must stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from snn_optimizer.analyses.labels import NO_UNIT, Axes, Labels, Role
from snn_optimizer.analyses.shape_vectors import ConstantEntry, DimensionEntry
from snn_optimizer.ir import Dimension, Node, Use, Value, array_of, bodies_of, is_constant

if TYPE_CHECKING:
    from snn_optimizer.analyses.propagation import Propagation

__all__ = ["RULES", "elementwise_operands", "opaque"]

Rule = Callable[["Propagation", Node], None]
RULES: dict[tuple[str, str], Rule] = {}


def rule(*operators: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register a rule for operators of one domain."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            RULES[domain, operator] = function
        return function

    return register


def opaque(p: Propagation, node: Node) -> None:
    """Fix all units that an operator without a rule can see; its outputs have none."""
    reason = f"read by '{node.name}' ({node.op}), which is not followed"
    for value in (*node.inputs, *_captured(node)):
        p.fix_all(value, reason)
    for value in node.outputs:
        p.set_blank(value)


def _captured(node: Node) -> list[Value]:
    found = []
    pending = [body for _, body in bodies_of(node)]
    while pending:
        graph = pending.pop()
        for inner in graph.nodes:
            found.extend(inner.inputs)
            pending.extend(body for _, body in bodies_of(inner))
        found.extend(graph.outputs)
    return found


# -- elementwise -----------------------------------------------------------------------------


@rule(
    "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Mod", "Neg", "Abs", "Relu", "LeakyRelu", "Sigmoid", "Tanh",
    "Exp", "Log", "Sqrt", "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Clip", "Identity", "Cast", "CastLike",
    "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or", "Xor", "Where", "Dropout", "Erf",
    "Elu", "Selu", "HardSigmoid", "Softplus", "IsNaN", "IsInf",
)  # fmt: skip
def elementwise(p: Propagation, node: Node) -> None:
    """Unify aligned axes; constants that vary along an axis are cut with it."""
    if p.vectors.is_vector(node.outputs[0]):
        p.set_blank(node.outputs[0])
        return
    slots = [0] if node.op in {"Dropout", "CastLike", "Clip"} else range(len(node.inputs))
    for value in [] if node.op == "CastLike" else node.inputs[len(slots) :]:
        p.fix_all(value, f"an option of '{node.name}' ({node.op})")
    axes = elementwise_operands(p, node, slots, p.dims(node.outputs[0]))
    for value in node.outputs:
        p.set(value, None if axes is None else list(axes))


def elementwise_operands(
    p: Propagation,
    node: Node,
    slots: Sequence[int],
    dims: tuple[Dimension, ...] | None,
    *,
    role: Role = Role.PARAMETER,
) -> Axes | None:
    """Broadcast the operands at ``slots`` against each other and return the labels of the result."""
    operands = [(slot, node.inputs[slot]) for slot in slots]
    shapes = [p.dims(value) for _, value in operands]
    known = [s for s in shapes if s is not None]
    if len(known) != len(shapes):
        for _, value in operands:
            p.fix_all(value, f"the rank of an operand of '{node.name}' ({node.op}) is not known")
        return None if dims is None else [None] * len(dims)
    rank = max(len(s) for s in known)
    return [_join(p, node, operands, known, rank, axis, role) for axis in range(rank)]


def _join(
    p: Propagation,
    node: Node,
    operands: Sequence[tuple[int, Value]],
    shapes: Sequence[tuple[Dimension, ...]],
    rank: int,
    axis: int,
    role: Role,
) -> Labels | None:
    """Join one result axis over all operands."""
    constants: list[tuple[int, int, int]] = []  # slot, axis of the constant, size
    plain: list[str] = []  # operands with positions along the axis and no unit
    result: Labels | None = None
    present = [
        (slot, value, own, shape[own])
        for (slot, value), shape in zip(operands, shapes, strict=True)
        if (own := axis - (rank - len(shape))) >= 0
    ]
    narrow = all(size == 1 for *_, size in present)
    for slot, value, own, size in present:
        if is_constant(value):
            if size != 1 or narrow:
                constants.append((slot, own, int(size)))  # type: ignore[arg-type]  # constants have integer shapes
            continue
        labels = p.labels(value)
        found = labels[own] if own < len(labels) else None
        if size == 1 and not narrow:
            p.table.fix(found, f"'{node.name}' ({node.op}) broadcasts them")
        elif found is None:
            plain.append(value.name)
        elif result is None:
            result = found
        else:
            p.table.unify(result, found, f"'{node.name}' ({node.op}) joins parts of different sizes")
    if result is None:
        if not plain and len(operands) > len(constants) and constants and not narrow:
            result = p.table.fresh(constants[0][2])  # a constant is broadcast along this axis
        else:
            return None
    elif plain:
        p.table.fix(result, f"joined with '{plain[0]}' at '{node.name}', which has no units there")
    for slot, own, size in constants:
        if size == len(result):
            p.site(node, slot, own, result, role)
        else:
            p.table.fix(result, f"'{node.name}' ({node.op}) reads a constant of another size")
    return result


# -- structure -------------------------------------------------------------------------------


@rule("Constant", "RandomNormal", "RandomUniform")
def source(p: Propagation, node: Node) -> None:
    """Create values without units."""
    for value in node.outputs:
        p.set_blank(value)


@rule("Shape", "Size")
def shape_of(p: Propagation, node: Node) -> None:
    """Sizes adapt by themselves; whoever reads them is judged there."""
    p.set_blank(node.outputs[0])
    if node.op == "Size":
        p.fix_all(node.inputs[0], f"'{node.name}' (Size) counts them")


@rule("Transpose")
def transpose(p: Propagation, node: Node) -> None:
    """Permute the labels."""
    axes = p.known_axes(node.inputs[0])
    if axes is None:
        p.set(node.outputs[0], None)
        return
    order = node.attrs.get("perm") or list(range(len(axes)))[::-1]
    p.set(node.outputs[0], [axes[int(i)] for i in order])


@rule("Concat")
def concat(p: Propagation, node: Node) -> None:
    """Lay labels end to end along the axis; unify along the others."""
    if p.vectors.is_vector(node.outputs[0]):
        p.set_blank(node.outputs[0])
        return
    shapes = [p.dims(v) for v in node.inputs]
    ranks = {len(s) for s in shapes if s is not None}
    if len(ranks) != 1 or any(s is None for s in shapes) or any(is_constant(v) for v in node.inputs):
        opaque(p, node)
        return
    rank = ranks.pop()
    along = int(node.attrs["axis"]) % rank
    all_axes = [p.known_axes(v) or [None] * rank for v in node.inputs]
    result: Axes = []
    for axis in range(rank):
        parts = [axes[axis] for axes in all_axes]
        if axis == along:
            sizes = [s[axis] if s is not None else None for s in shapes]
            result.append(_lay_end_to_end(p, node, parts, sizes))
            continue
        labelled = next((x for x in parts if x is not None), None)
        for part in parts:
            if labelled is not None:
                p.table.unify(labelled, part, f"'{node.name}' (Concat) stacks them with other units")
        result.append(labelled)
    p.set(node.outputs[0], result)


def _lay_end_to_end(p: Propagation, node: Node, parts: Sequence[Labels | None], sizes: Sequence[Any]) -> Labels | None:
    if all(part is None for part in parts):
        return None
    pieces = []
    for part, size in zip(parts, sizes, strict=True):
        if part is not None:
            pieces.append(part)
        elif isinstance(size, int):
            pieces.append(np.full(size, NO_UNIT, np.int64))
        else:
            for other in parts:
                p.table.fix(other, f"'{node.name}' (Concat) joins them with a part of unknown size")
            return None
    return np.concatenate(pieces)


@rule("Gather")
def gather(p: Propagation, node: Node) -> None:
    """A pick from an axis without units keeps the others; a pick of units makes new ones."""
    if p.vectors.is_vector(node.outputs[0]):
        p.set_blank(node.outputs[0])
        return
    axes = p.known_axes(node.inputs[0])
    index_rank = p.shapes.rank(node.inputs[1])
    if axes is None or index_rank is None:
        opaque(p, node)
        return
    along = int(node.attrs.get("axis", 0)) % len(axes)
    picked: Axes = [None] * index_rank
    p.table.fix(axes[along], f"'{node.name}' (Gather) picks among them")
    if is_constant(node.inputs[1]) and index_rank == 1:
        size = int((p.constant_dims(node.inputs[1]) or (0,))[0])
        labels = p.table.fresh(size)
        p.site(node, 1, 0, labels, Role.INDEX)
        picked = [labels]
    p.fix_all(node.inputs[1], f"'{node.name}' (Gather) indexes with them")
    p.set(node.outputs[0], [*axes[:along], *picked, *axes[along + 1 :]])


@rule("Slice", "Pad", "Split", "Tile")
def along_some_axes(p: Propagation, node: Node) -> None:
    """Pass the axes that keep their size; fix those that do not."""
    if p.vectors.is_vector(node.outputs[0]):
        p.set_blank(node.outputs[0])
        return
    axes = p.known_axes(node.inputs[0])
    touched = None if axes is None else _touched_axes(node, len(axes))
    if axes is None or touched is None:
        opaque(p, node)
        return
    for axis in touched:
        p.table.fix(axes[axis], f"'{node.name}' ({node.op}) cuts through them")
    for value in node.outputs:
        p.set(value, [None if i in touched else labels for i, labels in enumerate(axes)])


def _touched_axes(node: Node, rank: int) -> set[int] | None:
    match node.op:
        case "Split":
            return {int(node.attrs.get("axis", 0)) % rank}
        case "Slice":
            if "starts" in node.attrs:
                return {int(a) % rank for a in node.attrs.get("axes", range(len(node.attrs["starts"])))}
            named = array_of(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3].name else None
            if named is not None:
                return {int(a) % rank for a in named.reshape(-1)}
            starts = array_of(node.inputs[1])
            return None if starts is None or len(node.inputs) > 3 else set(range(starts.size))
        case _:
            amounts = node.attrs.get("pads") if "pads" in node.attrs else array_of(node.inputs[1])
            if amounts is None or (node.op == "Pad" and len(node.inputs) > 3 and node.inputs[3].name):
                return None
            flat = np.asarray(amounts).reshape(-1)
            if node.op == "Tile":
                return {i for i, n in enumerate(flat) if n != 1}
            return {i % rank for i, n in enumerate(flat) if n != 0}


@rule(
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
)
def reduction(p: Propagation, node: Node) -> None:
    """Drop the reduced axes; reduced units are fixed."""
    axes = p.known_axes(node.inputs[0])
    if axes is None:
        p.set(node.outputs[0], None)
        return
    named = node.attrs.get("axes")
    if named is None and len(node.inputs) > 1 and node.inputs[1].name:
        found = array_of(node.inputs[1])
        if found is None:
            opaque(p, node)
            return
        named = found.reshape(-1)
    if (named is None or not len(named)) and node.attrs.get("noop_with_empty_axes", 0):
        reduced = set()
    elif named is None or not len(named):
        reduced = set(range(len(axes)))
    else:
        reduced = {int(a) % len(axes) for a in named}
    for axis in reduced:
        p.table.fix(axes[axis], f"'{node.name}' ({node.op}) reduces over them")
    keep = bool(node.attrs.get("keepdims", 1))
    result: Axes = []
    for axis, labels in enumerate(axes):
        if axis not in reduced:
            result.append(labels)
        elif keep:
            result.append(None)
    p.set(node.outputs[0], result)


def follow_vector(p: Propagation, node: Node, slot: int, axes: Axes, *, reason: str) -> None:
    """Record the entries of a target shape that count units; fix the units whose entry is unknown."""
    entries = p.vectors.entries(node, slot)
    for axis, labels in enumerate(axes):
        entry = entries[axis] if entries is not None and axis < len(entries) else None
        if isinstance(entry, DimensionEntry):
            counted = p.labels(entry.source)
            p.table.unify(labels, counted[entry.axis] if counted else None, reason)
        elif labels is None:
            continue
        elif isinstance(entry, ConstantEntry):
            if entry.value > 0:
                p.table.site(entry.use, entry.position, labels, Role.SHAPE, Use(node, slot))
        else:
            p.table.fix(labels, reason)
