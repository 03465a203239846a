"""Axis rules of operators that change the rank or take a target shape, of neurons and of Scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from snn_optimizer import ops
from snn_optimizer.analyses.axis_rules import follow_vector, opaque, rule
from snn_optimizer.analyses.labels import Axes, Role
from snn_optimizer.analyses.reshape_axes import reshape_labels
from snn_optimizer.analyses.shape_vectors import ConstantEntry, DimensionEntry, Entry
from snn_optimizer.analyses.unit_groups import Population
from snn_optimizer.ir import Dimension, Node, Use, Value, array_of, is_constant

if TYPE_CHECKING:
    from snn_optimizer.analyses.propagation import Propagation

__all__ = ["neuron"]


@rule("Reshape", "Flatten")
def reshape(p: Propagation, node: Node) -> None:
    """Follow labels block by block; entries of the target that count units are cut."""
    source, result = node.inputs[0], node.outputs[0]
    if p.vectors.is_vector(result):
        p.set_blank(result)
        return
    axes, dims_in, dims_out = p.known_axes(source), p.dims(source), p.dims(result)
    if axes is None or dims_in is None or dims_out is None:
        opaque(p, node)
        return
    if node.op == "Flatten" and any(not isinstance(n, int) for n in dims_out):
        dims_out = _flattened(dims_in, int(node.attrs.get("axis", 1)))
    moved = reshape_labels(dims_in, axes, dims_out)
    for labels in moved.lost:
        p.table.fix(labels, f"'{node.name}' ({node.op}) regroups them")
    p.set(result, moved.axes)
    if node.op == "Reshape":
        follow_vector(p, node, 1, moved.axes, reason=f"the target shape of '{node.name}' is computed")


def _flattened(dims: tuple[Any, ...], axis: int) -> tuple[Any, ...]:
    axis %= len(dims) + 1

    def product(part: tuple[Any, ...]) -> Any:
        if len(part) == 1:
            return part[0]
        return int(np.prod(part)) if all(isinstance(n, int) for n in part) else None

    return product(dims[:axis]), product(dims[axis:])


@rule("Unsqueeze", "Squeeze")
def change_rank(p: Propagation, node: Node) -> None:
    """Insert or drop axes of size one."""
    if p.vectors.is_vector(node.outputs[0]):
        p.set_blank(node.outputs[0])
        return
    axes = p.known_axes(node.inputs[0])
    named = node.attrs.get("axes")
    if named is None and len(node.inputs) > 1 and node.inputs[1].name:
        found = array_of(node.inputs[1])
        named = None if found is None else found.reshape(-1).tolist()
    if axes is None or named is None:
        opaque(p, node)
        return
    if node.op == "Squeeze":
        dropped = {int(a) % len(axes) for a in named}
        p.set(node.outputs[0], [labels for i, labels in enumerate(axes) if i not in dropped])
        for axis in dropped:
            p.table.fix(axes[axis], f"'{node.name}' (Squeeze) drops their axis")
        return
    rank = len(axes) + len(named)
    inserted = {int(a) % rank for a in named}
    rest = iter(axes)
    p.set(node.outputs[0], [None if i in inserted else next(rest) for i in range(rank)])


@rule("Expand")
def expand(p: Propagation, node: Node) -> None:
    """Broadcast against a target shape; an entry of one leaves the operand's size."""
    source, result = node.inputs[0], node.outputs[0]
    dims_in, dims = p.dims(source), p.dims(result)
    entries = p.vectors.entries(node, 1)
    if dims is None or dims_in is None or entries is None:
        opaque(p, node)
        return
    axes = _target_axes(p, entries, dims, Use(node, 1))
    own = p.labels(source)
    for axis, size in enumerate(dims_in):
        where = axis + len(dims) - len(dims_in)
        position = where - (len(dims) - len(entries))
        entry = entries[position] if position >= 0 else ONE
        if size == 1:
            if own and dims[where] == 1:
                axes[where] = own[axis]
            elif own:
                p.table.fix(own[axis], f"'{node.name}' (Expand) repeats them")
            continue
        if is_constant(source):
            labels = axes[where]
            if labels is None or len(labels) != size:
                labels = axes[where] = p.table.fresh(int(size or 0))
            p.site(node, 0, axis, labels, Role.STATE)
        elif isinstance(entry, ConstantEntry) and entry.value == 1:
            axes[where] = own[axis] if own else None
        elif own and (own[axis] is not None or axes[where] is not None):
            p.table.unify(axes[where], own[axis], f"'{node.name}' (Expand) has a computed target shape")
            axes[where] = own[axis]
    p.set(result, axes)


ONE = ConstantEntry(Use(None, 0), 0, 1)  # type: ignore[arg-type]  # an absent leading entry; never edited


def _target_axes(p: Propagation, entries: Sequence[Entry], dims: Sequence[Dimension], reader: Use) -> Axes:
    """Units of a value that is made from a target shape: plain numbers can be edited, sizes of axes adapt."""
    axes: Axes = [None] * len(dims)
    shift = len(dims) - len(entries)
    for position, entry in enumerate(entries):
        if isinstance(entry, ConstantEntry) and entry.value > 1:
            axes[shift + position] = labels = p.table.fresh(entry.value)
            p.table.site(entry.use, entry.position, labels, Role.SHAPE, reader)
        elif isinstance(entry, DimensionEntry):
            counted = p.labels(entry.source)
            axes[shift + position] = counted[entry.axis] if counted else None
    return axes


@rule("ConstantOfShape")
def constant_of_shape(p: Propagation, node: Node) -> None:
    """Every axis whose size is a plain number is cut by editing that number."""
    result, dims = node.outputs[0], p.dims(node.outputs[0])
    entries = p.vectors.entries(node, 0)
    if dims is None or entries is None or len(entries) != len(dims):
        opaque(p, node)
        return
    p.set(result, _target_axes(p, entries, dims, Use(node, 0)))


# -- neurons ---------------------------------------------------------------------------------


def neuron(p: Propagation, node: Node) -> None:
    """Signal, states, parameters, spikes and final states share the unit axis."""
    variant = ops.NeuronVariant.parse(node.op, node.attrs)
    signal = node.inputs[0]
    unit_axis = variant.axes_before_units
    axes, dims = p.known_axes(signal), p.dims(signal)
    if axes is None or dims is None or len(axes) <= unit_axis or not isinstance(dims[unit_axis], int):
        opaque(p, node)
        return
    axes = list(axes)
    if axes[unit_axis] is None:
        axes[unit_axis] = p.table.fresh(int(dims[unit_axis]))  # type: ignore[arg-type]  # checked above
        p.table.fix(axes[unit_axis], f"the input of '{node.name}' has no units")
    for labels in axes[unit_axis + 1 :]:
        p.table.fix(labels, f"'{node.name}' has several axes of units")
    _operands(p, node, variant, axes, unit_axis)
    p.set(node.outputs[0], list(axes))
    for output, declared in zip(node.outputs[1:], variant.schema.outputs[1:], strict=True):
        p.set(output, axes[1:] if variant.form == "sequence" and declared.role == "state" else list(axes))
    spatial = dims[unit_axis + 1 :]
    if all(isinstance(n, int) for n in spatial):
        labels = axes[unit_axis]
        assert labels is not None
        steps = _steps(p, node, variant, dims)
        p.populations.append(
            Population(
                node, variant, labels, unit_axis, tuple(int(n) for n in spatial if isinstance(n, int)),
                steps if isinstance(steps, int) else None,
            ),
        )  # fmt: skip


def _operands(p: Propagation, node: Node, variant: ops.NeuronVariant, axes: Axes, unit_axis: int) -> None:
    """Align states and parameters with the trailing axes of the signal."""
    states = {i for i, _ in variant.states}
    for slot in range(1, len(node.inputs)):
        role = variant.schema.inputs[slot].role
        if role == "steps":
            continue
        if role == "signal":
            _align(p, node, node.inputs[slot], axes)
            continue
        value, shape = node.inputs[slot], p.dims(node.inputs[slot])
        labels = axes[unit_axis]
        if shape is None:
            p.table.fix(labels, f"the rank of '{value.name}' is not known")
            p.fix_all(value, f"read by '{node.name}' with unknown rank")
            continue
        own = len(shape) - (len(axes) - unit_axis)
        spread = own < 0 or (shape[own] == 1 and labels is not None and len(labels) != 1)
        if is_constant(value):
            assert labels is not None
            if not spread:
                p.site(node, slot, own, labels, Role.STATE if slot in states else Role.PARAMETER)
            continue
        found = p.labels(value)
        if not spread:
            p.table.unify(labels, found[own] if found else None, f"'{value.name}' is given from outside")
        for axis, others in enumerate(found):
            if axis != own or spread:
                p.table.fix(others, f"'{node.name}' repeats '{value.name}' along other axes")


def _steps(p: Propagation, node: Node, variant: ops.NeuronVariant, dims: Any) -> Any:
    if variant.form == "flat":
        count = array_of(node.inputs[-1])
        return None if count is None else int(count.reshape(-1)[0])
    return dims[0] if variant.form == "sequence" else p.steps


def _align(p: Propagation, node: Node, value: Value, axes: Axes) -> None:
    """A further current has the axes of the first."""
    others = p.known_axes(value)
    if others is None or len(others) != len(axes):
        for labels in (*axes, *(others or ())):
            p.table.fix(labels, f"the currents of '{node.name}' have different ranks")
        return
    for first, second in zip(axes, others, strict=True):
        if first is not None or second is not None:
            p.table.unify(first, second, f"the currents of '{node.name}' have different units")


@rule("Scan")
def scan(p: Propagation, node: Node) -> None:
    """Enter the body; carried values share units between steps."""
    body = node.attrs["body"]
    scanned = int(node.attrs["num_scan_inputs"])
    carried = len(node.inputs) - scanned
    axes_in = [int(a) for a in node.attrs.get("scan_input_axes", [0] * scanned)]
    axes_out = [int(a) for a in node.attrs.get("scan_output_axes", [0] * (len(node.outputs) - carried))]
    for slot in range(carried):
        p.set(body.inputs[slot], _initial(p, node, slot))
        p.carried[id(body.inputs[slot])] = (node.inputs[slot], body.outputs[slot])
    for slot in range(carried, len(node.inputs)):
        p.scanned[id(body.inputs[slot])] = node.inputs[slot]
        axes = p.known_axes(node.inputs[slot])
        if axes is not None:
            along = axes_in[slot - carried] % len(axes)
            p.table.fix(axes[along], f"'{node.name}' (Scan) steps over them")
            axes = [labels for i, labels in enumerate(axes) if i != along]
        p.set(body.inputs[slot], axes)
    outer, p.steps = p.steps, _length(p, node, carried, axes_in)
    p.walk(body)
    p.steps = outer
    for value in body.outputs:
        if p.vectors.is_vector(value):
            p.fix_all(value, f"'{node.name}' (Scan) returns their number")
    for slot in range(carried):
        _close(p, node, slot)
        p.set(node.outputs[slot], p.known_axes(body.inputs[slot]))
    for position, value in enumerate(node.outputs[carried:]):
        axes = p.known_axes(body.outputs[carried + position])
        if axes is not None:
            along = axes_out[position] % (len(axes) + 1)
            axes = [*axes[:along], None, *axes[along:]]
        p.set(value, axes)


def _length(p: Propagation, node: Node, carried: int, axes_in: list[int]) -> int | None:
    for slot, axis in zip(range(carried, len(node.inputs)), axes_in, strict=True):
        dims = p.dims(node.inputs[slot])
        if dims is not None and isinstance(size := dims[axis % len(dims)], int):
            return size
    return None


def _initial(p: Propagation, node: Node, slot: int) -> Axes | None:
    value = node.inputs[slot]
    shape = p.constant_dims(value)
    if shape is None:
        return p.known_axes(value)
    axes: Axes = []
    for axis, size in enumerate(shape):
        labels = p.table.fresh(size) if size > 1 else None
        if labels is not None:
            p.site(node, slot, axis, labels, Role.STATE)
        axes.append(labels)
    return axes


def _close(p: Propagation, node: Node, slot: int) -> None:
    """Unify a carried value at the end of a step with itself at the start of the next."""
    body = node.attrs["body"]
    start, end = p.labels(body.inputs[slot]), p.labels(body.outputs[slot])
    if len(start) != len(end):
        for labels in (*start, *end):
            p.table.fix(labels, f"carried value '{body.inputs[slot].name}' changes its rank")
        return
    for first, second in zip(start, end, strict=True):
        if first is not None or second is not None:
            p.table.unify(first, second, f"carried value '{body.inputs[slot].name}' has units at one end only")
