"""Remove connections that carry nothing, and what hangs on them.

Before: two projections between the same populations; units whose outgoing weights are all
        zero, or lead only to such units; input features that no weight reads, or whose
        declared range is zero
After:  one projection with the sum of the weights; the units are gone; the features are
        skipped by one Gather where that makes the model smaller

Sound because ``W1 x + W2 x = (W1 + W2) x``, and a zero weight contributes zero whatever its
unit does. A unit with a zero weight row is not dead: its bias may drive it to fire; such
units are judged by the bounds of the other passes. Sums are regrouped: ALGEBRAIC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from snn_optimizer.analyses import NO_UNIT, Contraction, UnitGroups, ValueRanges
from snn_optimizer.analyses.rows import contraction_matrix
from snn_optimizer.ir import GraphIndex, Rewriter, SNNGraph, Use
from snn_optimizer.passes.admission import admitted
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.passes.structure.linear_maps import AffineMap, affine_map, only_reader
from snn_optimizer.passes.unit_surgery import Mask, Surgeon, first_of_axis, gather_bytes

__all__ = ["RedundantConnectionRemoval"]


@dataclass(frozen=True, slots=True)
class RedundantConnectionRemoval(Pass):
    """Merge parallel projections; remove units without effect and input features nobody reads."""

    name: ClassVar[str] = "redundant-connection-removal"
    aliases: ClassVar[tuple[str, ...]] = ("redundant_connection_removal", "remove_redundant_connections")
    exactness: ClassVar[Exactness] = Exactness.ALGEBRAIC

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Apply the three rules in turn."""
        outcome = Outcome()
        while _merge_parallel(graph, context, outcome):
            context.analyses.invalidate()
        if _remove_without_effect(graph, context, outcome):
            context.analyses.invalidate()
        _skip_unread_inputs(graph, context, outcome)
        return outcome


def _merge_parallel(graph: SNNGraph, context: PassContext, outcome: Outcome) -> bool:
    groups = context.analyses.get(UnitGroups)
    index = GraphIndex(graph.module)
    maps = {id(m.result): m for c in groups.contractions if (m := affine_map(c, index)) is not None}
    rewriter = Rewriter(graph.module)
    for scope in index.scopes:
        for node in scope.graph.nodes:
            if node.op != "Add" or node.domain or rewriter.is_erased(node):
                continue
            pair = [maps.get(id(v)) for v in node.inputs]
            first, second = pair if len(pair) == 2 else (None, None)
            if first is None or second is None or not _are_parallel(index, first, second):
                continue
            if index.output_of(node.outputs[0]):
                context.missed(Refusal("is-output", f"'{node.outputs[0].name}' is an output"), node.name)
                continue
            if not context.admits("parallel-projections", first.node.name):
                continue
            weights, bias = first.weights + second.weights, first.bias + second.bias
            rewriter.replace_uses(node.outputs[0], first.store(rewriter, weights, bias, scope.graph))
            context.applied(
                "parallel-projections",
                first.node.name,
                f"took over the weights of '{second.node.name}', which read the same",
            )
            outcome.count("projections-merged")
            outcome.changes += 1
            rewriter.finish()
            return True
    return False


def _are_parallel(index: GraphIndex, first: AffineMap, second: AffineMap) -> bool:
    """Two maps of one shape and kind that read one value and are read by the same Add only."""
    if first.node is second.node or first.contraction.source is not second.contraction.source:
        return False
    if first.shape != second.shape or first.node.op != second.node.op:
        return False
    if only_reader(index, first.result) is None or only_reader(index, second.result) is None:
        return False
    if first.node.op == "Conv":
        names = set(first.node.attrs) | set(second.node.attrs)
        return all(first.node.attrs.get(n) == second.node.attrs.get(n) for n in names)
    return True


def _remove_without_effect(graph: SNNGraph, context: PassContext, outcome: Outcome) -> bool:
    groups = context.analyses.get(UnitGroups)
    live = _live_classes(groups)
    owned = np.zeros(groups.classes, np.bool_)
    for site in groups.sites:
        classes = groups.classes_at(site.labels)
        owned[classes[classes != NO_UNIT]] = True
    selected, emptied = first_of_axis(groups, ~live & owned)
    for name in sorted(set(emptied)):
        context.missed(Refusal("last-unit", "no unit here has an effect; the last one stays"), name)
    selected = admitted(context, "no-effect", groups, selected)
    if not selected.any():
        return False
    rewriter = Rewriter(graph.module)
    surgeon = Surgeon(graph, groups, rewriter)
    for population in groups.populations:
        gone = int(groups.mask_at(population.labels, selected).sum())
        if gone:
            context.applied(
                "no-effect",
                population.name,
                f"removed {gone} of {len(population.labels)} units that no output depends on",
            )
    outcome.neurons_removed += surgeon.cut(selected)
    outcome.changes += int(selected.sum())
    rewriter.finish()
    return True


def _live_classes(groups: UnitGroups) -> Mask:
    """Return the classes something visible depends on; backwards from the fixed ones over non-zero weights.

    The optimistic start (nothing is live) makes units that only feed each other dead.
    """
    live = groups.fixed >= 0
    pending = list(groups.contractions)
    changed = True
    while changed:
        changed = False
        for contraction in pending:
            rows = groups.classes_at(contraction.labels_out)
            awake = np.where(rows == NO_UNIT, True, live[rows])
            columns = groups.classes_at(contraction.labels_in)
            open_ = (columns != NO_UNIT) & ~np.where(columns == NO_UNIT, False, live[columns])
            if not awake.any() or not open_.any():
                continue
            used = _used_columns(contraction, awake)
            found = columns[open_ & used]
            if len(found):
                live[found] = True
                changed = True
    return np.asarray(live)


def _used_columns(contraction: Contraction, rows: Mask) -> Mask:
    matrix = contraction_matrix(contraction)
    used = np.zeros(matrix.shape[1], np.bool_)
    step = max(1, (1 << 22) // max(1, matrix.shape[1] * matrix.shape[2]))
    wanted = np.flatnonzero(rows)
    for start in range(0, len(wanted), step):
        used |= (matrix[wanted[start : start + step]] != 0).any(axis=(0, 2))
    return used


def _skip_unread_inputs(graph: SNNGraph, context: PassContext, outcome: Outcome) -> None:
    groups = context.analyses.get(UnitGroups)
    ranges = context.analyses.get(ValueRanges)
    index = GraphIndex(graph.module)
    rewriter = Rewriter(graph.module)
    for contraction in groups.contractions:
        node = contraction.node
        if node.op == "Conv":
            continue
        classes = groups.classes_at(contraction.labels_in)
        stuck = (classes == NO_UNIT) | np.where(classes == NO_UNIT, True, groups.fixed[classes] >= 0)
        matrix = contraction_matrix(contraction)
        nothing = ~_used_columns(contraction, np.ones(matrix.shape[0], np.bool_)) | _always_zero(contraction, ranges)
        skipped = stuck & nothing
        saved = int(skipped.sum()) * matrix.shape[0] * matrix.dtype.itemsize
        cost = gather_bytes(int((~skipped).sum()))
        if not skipped.any() or skipped.all():
            continue
        if len(node.inputs[contraction.weight_slot].outputs) > 1:
            context.missed(Refusal("shared-weight", "other nodes read the same weight"), node.name)
            continue
        if saved <= cost:
            context.missed(
                Refusal(
                    "not-worth-a-gather",
                    f"{int(skipped.sum())} unread inputs hold {saved} bytes, skipping them costs {cost}",
                ),
                node.name,
            )
            continue
        if not context.admits("unread-inputs", node.name):
            continue
        keep = np.flatnonzero(~skipped)
        source = contraction.source
        shape = None if source.shape is None else [*source.shape[:-1], len(keep)]
        picked = rewriter.value(f"{source.name}.read", source.dtype, shape)
        indices = rewriter.constant(f"{node.name}.read_inputs", keep.astype(np.int64))
        rewriter.add(
            index.scope_of(node).graph,
            "Gather",
            [source, indices],
            [picked],
            {"axis": -1},
            name_hint=f"{node.name}.read",
        )
        rewriter.set_input(node, 0, picked)
        surgeon = Surgeon(graph, groups, rewriter)
        columns = surgeon.columns(contraction)
        order = [contraction.axis_in, contraction.axis_out]
        rewriter.edit_constant(
            [Use(node, contraction.weight_slot)],
            np.ascontiguousarray(np.transpose(columns[keep], np.argsort(order))),
        )
        outcome.changes += 1
        outcome.count("inputs-skipped", int(skipped.sum()))
        context.applied(
            "unread-inputs",
            node.name,
            f"skips {int(skipped.sum())} of {len(skipped)} inputs, {saved} bytes of zeros",
        )
    if rewriter.changes:
        rewriter.finish()


def _always_zero(contraction: Contraction, ranges: ValueRanges) -> Mask:
    size = len(contraction.labels_in)
    bound = ranges.of(contraction.source)
    if bound is None or bound.low.size not in {1, size}:
        return np.zeros(size, np.bool_)
    zero = np.broadcast_to(((bound.low == 0) & (bound.high == 0)).reshape(-1), (size,))
    return np.asarray(zero & np.isfinite(contraction_matrix(contraction)).all(axis=(0, 2)))
