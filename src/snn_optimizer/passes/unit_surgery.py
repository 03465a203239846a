"""Cut classes of units out of a graph, and fold what they always emit into their consumers.

Shared machinery of the structural passes. A *class* (``analyses.unit_groups``) is
everything that must go together. It leaves the network through contractions: the
columns of the weights that read it. What a class emits there is either zero (the
column goes without a trace), one fixed number (the column times that number moves
into the bias), or unknown (the class must stay, unless the caller knows better).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses import NO_UNIT, Contraction, Role, Site, UnitGroups, ValueRanges
from snn_optimizer.analyses.rows import contraction_matrix
from snn_optimizer.ir import Graph, Node, Rewriter, SNNGraph, Use, Value, array_of, is_constant
from snn_optimizer.passes.base import Refusal

__all__ = ["Mask", "Surgeon", "add_behind", "emitted", "first_of_axis", "gather_bytes", "is_padded", "worth_a_gather"]

Mask = npt.NDArray[np.bool_]
_INDEX_BYTES = 8
_NODE_BYTES = 256
_SCRATCH = 1 << 20  # numbers copied at a time


@dataclass
class Surgeon:
    """Edits of one pass run on one set of groups."""

    graph: SNNGraph
    groups: UnitGroups
    rewriter: Rewriter
    extra_sites: list[Site] = field(default_factory=list)
    vectors: dict[tuple[int, int], dict[int, Node]] = field(default_factory=dict)  # copies of nodes, by reader

    # -- what may go -----------------------------------------------------------------------

    def foldable(self, candidates: Mask, ranges: ValueRanges) -> tuple[Mask, dict[int, Refusal]]:
        """Return which candidate classes emit fixed numbers wherever they are read, and why others do not.

        Parameters
        ----------
        candidates : bool array, shape (classes,)
        """
        allowed = candidates & (self.groups.fixed < 0)
        refusals = {
            int(c): Refusal("fixed-unit", self.groups.refusal(int(c)) or "")
            for c in np.flatnonzero(candidates & (self.groups.fixed >= 0))
        }
        for contraction in self.groups.contractions:
            positions = self.groups.mask_at(contraction.labels_in, allowed)
            if not positions.any():
                continue
            values, fixed = emitted(contraction, ranges)
            if is_padded(contraction.node):
                fixed = fixed & (values == 0)
            for c in self._broken(contraction, positions & fixed & (values == 0)):
                refusals[c] = Refusal(
                    "weight-not-finite", f"'{contraction.node.name}' weighs it with what makes its zeros no number"
                )
                allowed[c] = False
            for c in np.unique(self.groups.classes_at(contraction.labels_in)[positions & ~fixed]):
                refusals[int(c)] = Refusal(
                    "value-not-constant",
                    f"what '{contraction.node.name}' reads from it is not one number at every step and position",
                )
                allowed[c] = False
        return allowed, refusals

    def _broken(self, contraction: Contraction, positions: Mask) -> list[int]:
        """Return the classes at these positions whose columns are not finite: zero times infinity is not zero."""
        where = np.flatnonzero(positions)
        finite = np.isfinite(contraction_matrix(contraction)[:, where]).all(axis=(0, 2))
        classes: list[int] = np.unique(self.groups.classes_at(contraction.labels_in)[where[~finite]]).tolist()
        return classes

    # -- folding ---------------------------------------------------------------------------

    def fold(self, selected: Mask, ranges: ValueRanges) -> int:
        """Move what the selected classes emit into the biases of their readers; return the readers changed."""
        changed = 0
        for contraction in self.groups.contractions:
            positions = self.groups.mask_at(contraction.labels_in, selected)
            values, _ = emitted(contraction, ranges)
            values = np.where(positions, values, 0)
            if not values.any():
                continue
            weights = self.columns(contraction)
            delta = np.tensordot(values, weights.astype(np.float64), axes=(0, 0))
            if delta.ndim > 1:  # kernel positions of an unpadded convolution all see the same number
                delta = delta.sum(axis=tuple(range(1, delta.ndim)))
            self.add_to_bias(contraction, delta)
            changed += 1
        return changed

    def columns(self, contraction: Contraction) -> npt.NDArray[Any]:
        """Return the weight as (presynaptic, postsynaptic, kernel...)."""
        weights = array_of(contraction.node.inputs[contraction.weight_slot])
        assert weights is not None
        order = [contraction.axis_in, contraction.axis_out]
        return np.transpose(weights, [*order, *(i for i in range(weights.ndim) if i not in order)])

    def set_columns(self, contraction: Contraction, columns: npt.NDArray[Any]) -> None:
        """Replace the weight of this use; ``columns`` as returned by :meth:`columns`."""
        order = [contraction.axis_in, contraction.axis_out]
        order += [i for i in range(columns.ndim) if i not in order]
        stored = np.ascontiguousarray(np.transpose(columns, np.argsort(order)))
        self.rewriter.edit_constant([Use(contraction.node, contraction.weight_slot)], stored)

    def add_to_bias(self, contraction: Contraction, delta: npt.NDArray[np.float64]) -> None:
        """Add ``delta`` (one number per postsynaptic unit) to the current a contraction makes."""
        node, slot = contraction.node, contraction.bias_slot
        dtype = self.columns(contraction).dtype
        if slot is None:
            self._add_behind(contraction, delta, dtype)
            return
        scale = float(node.attrs.get("beta", 1.0)) if node.op == "Gemm" else 1.0
        if node.op == "Gemm":
            delta = delta * float(node.attrs.get("alpha", 1.0))
        present = len(node.inputs) > slot and bool(node.inputs[slot].name)
        old = array_of(node.inputs[slot]) if present else None
        if (present and old is None) or scale == 0:
            self._add_behind(contraction, delta, dtype)
        elif old is not None:
            full = np.broadcast_to(
                old.reshape(-1) if old.ndim < 2 else old,
                (*old.shape[:-1], len(delta)) if old.ndim else (len(delta),),
            )
            value = (full.astype(np.float64) + delta / scale).astype(old.dtype)
            self.rewriter.edit_constant([Use(node, slot)], value)
            if old.size == 1 and len(delta) > 1:
                self.extra_sites.append(Site(Use(node, slot), value.ndim - 1, contraction.labels_out, Role.BIAS))
        else:
            constant = self.rewriter.constant(f"{node.name}.bias", (delta / scale).astype(dtype))
            self.rewriter.set_input(node, slot, constant)
            self.extra_sites.append(Site(Use(node, slot), 0, contraction.labels_out, Role.BIAS))

    def _add_behind(self, contraction: Contraction, delta: npt.NDArray[np.float64], dtype: Any) -> None:
        """Add to the constant of the Add that follows, or insert one."""
        result = contraction.result
        following = _bias_add(result, self._graph_of(contraction.node))
        if following is not None:
            node, slot = following
            old = array_of(node.inputs[slot])
            assert old is not None
            value = (np.broadcast_to(old, (*old.shape[:-1], len(delta))).astype(np.float64) + delta).astype(old.dtype)
            self.rewriter.edit_constant([Use(node, slot)], value)
            return
        graph = self._graph_of(contraction.node)
        add, _ = add_behind(self.rewriter, graph, contraction.node, result, delta.astype(dtype))
        self.extra_sites.append(Site(Use(add, 1), 0, contraction.labels_out, Role.BIAS))

    def _graph_of(self, node: Node) -> Graph:
        return next(s.graph for s in self.graph.module.scopes() if any(n is node for n in s.graph.nodes))

    # -- cutting ---------------------------------------------------------------------------

    def cut(self, selected: Mask) -> int:
        """Remove the selected classes everywhere; return the number of neurons removed."""
        removed = self._neurons(selected)
        edits: dict[tuple[int, int], _Edit] = {}
        for site in (*self.groups.sites, *self.extra_sites):
            gone = self.groups.mask_at(site.labels, selected)
            if not gone.any():
                continue
            if site.role is Role.GROUPS:
                self.rewriter.set_attribute(site.use.node, "group", int((~gone).sum()))
                continue
            use = site.use if site.reader is None else self._own_vector(site.use, site.reader)
            edit = edits.setdefault((id(use.node), use.slot), _Edit(use))
            if site.role is Role.SHAPE:
                edit.entries[site.axis] = int((~gone).sum())
            else:
                keep = ~gone
                edit.keep[site.axis] = keep & edit.keep.get(site.axis, keep)
        self._apply(edits)
        self._update_shapes(selected)
        self._update_rates(selected)
        self._update_origins(selected)
        return removed

    def _own_vector(self, use: Use, reader: Use) -> Use:
        """Give a reader of a computed shape its own copy of the computation when others read it too."""
        twins = self.vectors.get((id(reader.node), reader.slot))
        if twins is None:
            twins = self.vectors[id(reader.node), reader.slot] = {}
            path = _way_back(reader, use.node)
            if any(len(node.outputs[0].outputs) > 1 for node in path):
                self._copy(reader, path, twins)
        return Use(twins.get(id(use.node), use.node), use.slot)

    def _copy(self, reader: Use, path: Sequence[Node], twins: dict[int, Node]) -> None:
        made: dict[int, Value] = {}
        for node in path:
            old = node.outputs[0]
            made[id(old)] = self.rewriter.value(old.name, old.dtype, old.shape)
            inputs = [made.get(id(value), value) for value in node.inputs]
            twins[id(node)] = self.rewriter.add_like(self._graph_of(node), node, inputs, [made[id(old)]])
        self.rewriter.set_input(reader.node, reader.slot, made[id(reader.node.inputs[reader.slot])])

    def _neurons(self, selected: Mask) -> int:
        return sum(
            int(self.groups.mask_at(p.labels, selected).sum()) * int(np.prod(p.spatial, dtype=np.int64))
            for p in self.groups.populations
        )

    def _apply(self, edits: dict[tuple[int, int], _Edit]) -> None:
        """Apply equal edits of one shared constant once, so that sharing survives."""
        shared: dict[tuple[int, bytes], list[_Edit]] = {}
        for edit in edits.values():
            constant = edit.use.node.inputs[edit.use.slot]
            shared.setdefault((id(constant), edit.key()), []).append(edit)
        for group in shared.values():
            array = array_of(group[0].use.node.inputs[group[0].use.slot])
            assert array is not None
            self.rewriter.edit_constant([edit.use for edit in group], group[0].applied(array))

    def _update_shapes(self, selected: Mask) -> None:
        for key, axes in self.groups.axes.items():
            value = self.groups.values[key]
            if axes is None or value.shape is None or len(value.shape) != len(axes):
                continue
            sizes = list(value.shape)
            for axis, labels in enumerate(axes):
                if labels is not None and isinstance(sizes[axis], int):
                    gone = int(self.groups.mask_at(labels, selected).sum())
                    sizes[axis] = len(labels) - gone if gone else sizes[axis]
            value.shape = sizes

    def _update_rates(self, selected: Mask) -> None:
        for population in self.groups.populations:
            rates = self.graph.firing_rates.get(population.name)
            units = len(population.labels)
            keep = ~self.groups.mask_at(population.labels, selected)
            if rates is not None and rates.size % max(units, 1) == 0:
                by_unit = rates.reshape(units, -1)[keep]
                shape = rates.shape if rates.ndim == 1 else (int(keep.sum()), *rates.shape[1:])
                self.graph.firing_rates[population.name] = by_unit.reshape(-1 if rates.ndim == 1 else shape)

    def _update_origins(self, selected: Mask) -> None:
        for population in self.groups.populations:
            gone = self.groups.mask_at(population.labels, selected)
            if gone.any():
                name = population.name or population.node.outputs[0].name
                origins = self.graph.unit_origins.get(name, np.arange(len(gone)))
                if len(origins) == len(gone):  # else two populations have one name
                    self.graph.unit_origins[name] = origins[~gone]


@dataclass
class _Edit:
    """All cuts of one use."""

    use: Use
    keep: dict[int, Mask] = field(default_factory=dict)
    entries: dict[int, int] = field(default_factory=dict)

    def key(self) -> bytes:
        parts = [f"{axis}:".encode() + np.packbits(mask).tobytes() for axis, mask in sorted(self.keep.items())]
        return b"|".join(parts) + repr(sorted(self.entries.items())).encode()

    def applied(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        result = array
        for axis, keep in self.keep.items():
            result = _kept(result, axis, keep)
        if self.entries:
            result = np.array(result)
            for position, count in self.entries.items():
                result.reshape(-1)[position] = count
        return np.ascontiguousarray(result) if result.ndim else result


def _kept(array: npt.NDArray[Any], axis: int, keep: Mask) -> npt.NDArray[Any]:
    """Return the marked positions of an axis, in one new array and without another copy on the way.

    What a file does not align, ``np.compress`` copies first, and indices behind the first axis give other strides.
    """
    if axis == 0:
        return np.asarray(array[keep])
    result = np.empty((*array.shape[:axis], int(keep.sum()), *array.shape[axis + 1 :]), array.dtype)
    step = max(1, _SCRATCH * len(array) // max(1, array.size))
    for start in range(0, len(array), step):
        block = np.array(array[start : start + step])
        result[start : start + step] = np.compress(keep, block, axis=axis)
    return result


def emitted(contraction: Contraction, ranges: ValueRanges) -> tuple[npt.NDArray[np.float64], Mask]:
    """Return what a linear map reads at each position of its fan-in, and where that is one number for ever."""
    size = len(contraction.labels_in)
    bound = ranges.of(contraction.source)
    if bound is None:
        return np.zeros(size), np.zeros(size, np.bool_)
    axis = 1 if contraction.node.op == "Conv" else bound.rank - 1
    parts = []
    for array in (bound.low, bound.high, bound.fixed):
        other = tuple(i for i in range(array.ndim) if i != axis)
        flat = array.all(axis=other) if array.dtype == np.bool_ else array.max(axis=other)
        steady = array.min(axis=other) == array.max(axis=other) if array.dtype != np.bool_ else flat
        parts.append((np.broadcast_to(flat, (size,)), np.broadcast_to(steady, (size,))))
    (low, low_steady), (high, high_steady), (fixed, _) = parts
    finite = np.isfinite(low) & np.isfinite(high)
    middle = (np.where(finite, low, 0) + np.where(finite, high, 0)) / 2
    return middle, fixed & low_steady & high_steady & finite


def first_of_axis(groups: UnitGroups, selected: Mask) -> tuple[Mask, list[str]]:
    """Keep one class of every axis that the selection would empty; return the selection and the nodes concerned."""
    result = selected.copy()
    emptied: list[str] = []
    for site in groups.sites:
        classes = groups.classes_at(site.labels)
        if len(classes) and bool((classes != NO_UNIT).all()) and bool(result[classes].all()):
            result[classes[0]] = False
            emptied.append(site.use.node.name)
    for population in groups.populations:
        classes = groups.classes_at(population.labels)
        if len(classes) and bool((classes != NO_UNIT).all()) and bool(result[classes].all()):
            result[classes[0]] = False
            emptied.append(population.name)
    return result, emptied


def add_behind(
    rewriter: Rewriter, graph: Graph, node: Node, result: Value, values: npt.NDArray[Any]
) -> tuple[Node, Value]:
    """Insert an Add of a constant behind what ``node`` computes; return the Add and its sum.

    All readers of ``result`` read the sum; where ``result`` is an output of the graph, it is the sum from now on.
    """
    if any(value is result for value in graph.outputs):
        bare, total = rewriter.value(f"{result.name}.product", result.dtype, result.shape), result
        rewriter.set_ports(node, list(node.inputs), [bare if value is result else value for value in node.outputs])
    else:
        bare, total = result, rewriter.value(f"{result.name}.biased", result.dtype, result.shape)
        rewriter.replace_uses(result, total)
    constant = rewriter.constant(f"{node.name}.bias", values)
    return rewriter.add(graph, "Add", [bare, constant], [total], name_hint=f"{node.name}.add_bias"), total


def _bias_add(result: Value, graph: Graph) -> tuple[Node, int] | None:
    """Return the Add behind a linear map whose other operand is a constant vector along the last axis."""
    if any(value is result for value in graph.outputs):
        return None
    if len(result.outputs) != 1 or result.outputs[0].op != "Add" or result.outputs[0].domain:
        return None
    node = result.outputs[0]
    for slot, value in enumerate(node.inputs):
        if value is not result and is_constant(value):
            array = array_of(value)
            if array is not None and array.ndim and array.size == array.shape[-1] > 1:
                return node, slot
    return None


def _way_back(reader: Use, goal: Node) -> list[Node]:
    """Return the nodes between ``goal`` and what a reader reads, ``goal`` included, in the order of computation."""
    order: list[Node] = []
    reaches: dict[int, bool] = {}

    def visit(node: Node) -> bool:
        if id(node) not in reaches:
            reaches[id(node)] = node is goal
            found = [visit(value.inputs[0]) for value in node.inputs if value.inputs and node is not goal]
            reaches[id(node)] = node is goal or any(found)
            if reaches[id(node)]:
                order.append(node)
        return reaches[id(node)]

    value = reader.node.inputs[reader.slot]
    if reader.node is not goal and value.inputs:
        visit(value.inputs[0])
    return order


def worth_a_gather(skipped: int, kept: int, bytes_per_input: int) -> bool:
    """Tell whether leaving inputs out of a linear map saves more bytes than the Gather that does it costs."""
    return skipped * bytes_per_input > gather_bytes(kept)


def gather_bytes(kept: int) -> int:
    """Return what a Gather of so many elements costs in the file, and a little more for its time."""
    return kept * _INDEX_BYTES + _NODE_BYTES


def is_padded(node: Node) -> bool:
    """Tell whether a convolution sees zeros that no channel emitted."""
    pads: Sequence[int] = node.attrs.get("pads", ()) or ()
    return node.op == "Conv" and (any(pads) or node.attrs.get("auto_pad", "NOTSET") not in {"NOTSET", "VALID"})
