"""Round weights, biases and thresholds to multiples of a power of two.

Before: weights with 24 significant bits, sums of which depend on their order
After:  all multiples of 2^-k, for the coarsest k within the caller's budget

LOSSY once. From then on every partial sum of a layer that reads spikes is a multiple of 2^-k below 2^(24-k) and
so exact in float32, in any order of summation: rewrites and kernels that only regroup sums change no bit any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses import Contraction, UnitGroups
from snn_optimizer.analyses.exact_sums import SIGNIFICANT, largest_sum
from snn_optimizer.analyses.rows import contraction_matrix
from snn_optimizer.errors import PassOptionError
from snn_optimizer.ir import Node, Rewriter, SNNGraph, Use, Value, array_of, is_constant, is_standard
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext, Refusal

__all__ = ["SnapToGrid"]

FINEST: Final = 20  # the exponent the search ends at


@dataclass(frozen=True, slots=True)
class SnapToGrid(Pass):
    """Round weights, biases and thresholds to the coarsest grid of 2^-k within the budget.

    Attributes
    ----------
    exponent : int
        k; -1 means: the smallest within the budget.
    """

    name: ClassVar[str] = "snap-to-grid"
    exactness: ClassVar[Exactness] = Exactness.LOSSY

    exponent: int = -1

    def __post_init__(self) -> None:
        if not -1 <= self.exponent <= FINEST:
            raise PassOptionError(
                f"snap-to-grid: exponent is {self.exponent}; it must be between 0 and {FINEST}, or -1"
            )

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Round to the given grid, or search for the coarsest."""
        if self.exponent >= 0:
            return _snap(graph, context, self.exponent)
        if context.accept is None:
            context.missed(Refusal("no-budget", "no budget to stay within; give exponent=, or a budget"), "model")
            return Outcome()
        for exponent in range(FINEST + 1):
            candidate = graph.copy(share_weights=True)
            trial = context.trial(candidate)
            outcome = _snap(candidate, trial, exponent)
            spending = context.accept(candidate)
            context.note(
                "frontier", "model", f"multiples of 2^-{exponent}: {spending}", exponent=exponent, **spending.numbers()
            )
            if spending:
                graph.become(candidate)
                context.remarks.extend(trial.remarks)
                return outcome
        context.missed(Refusal("over-budget", f"even multiples of 2^-{FINEST} exceed the budget"), "model")
        return Outcome()


def _snap(graph: SNNGraph, context: PassContext, exponent: int) -> Outcome:
    outcome = Outcome()
    groups = context.analyses.get(UnitGroups)
    rewriter = Rewriter(graph.module)
    for uses in _by_constant(groups):
        old = array_of(uses[0].node.inputs[uses[0].slot])
        if old is None or old.dtype.kind != "f":
            continue
        new = _rounded(old, exponent)
        moved = int(np.count_nonzero((new != old) & ~np.isnan(old)))  # what is no number lies on no grid
        if moved:
            rewriter.edit_constant(uses, new)
            outcome.changes += moved
    if rewriter.changes:
        rewriter.finish()
    outcome.count("numbers-rounded", outcome.changes)
    for contraction in groups.contractions:
        _tell(contraction, context, exponent)
    return outcome


def _rounded(array: npt.NDArray[Any], exponent: int) -> npt.NDArray[Any]:
    """Return the nearest multiples; what is no number or has no finite neighbour stays."""
    wide = np.ldexp(np.rint(np.ldexp(array.astype(np.float64), exponent)), -exponent)
    return np.where(np.isfinite(array), wide, array).astype(array.dtype)


def _by_constant(groups: UnitGroups) -> list[list[Use]]:
    """Return the readings of each weight, bias and threshold, so that what is shared stays shared."""
    found: dict[int, list[Use]] = {}
    seen: set[tuple[int, int]] = set()
    for use in _uses(groups):
        value: Value = use.node.inputs[use.slot]
        if is_constant(value) and (id(use.node), use.slot) not in seen:
            seen.add((id(use.node), use.slot))
            found.setdefault(id(value), []).append(use)
    return list(found.values())


def _uses(groups: UnitGroups) -> list[Use]:
    uses = []
    for contraction in groups.contractions:
        node = contraction.node
        uses.append(Use(node, contraction.weight_slot))
        if contraction.bias_slot is not None and len(node.inputs) > contraction.bias_slot:
            uses.append(Use(node, contraction.bias_slot))
        uses += [Use(add, slot) for add in _adds_behind(contraction.result) for slot in (0, 1)]
    for population in groups.populations:
        names = population.variant.inputs
        if "v_threshold" in names:
            uses.append(Use(population.node, names.index("v_threshold")))
    return uses


def _adds_behind(value: Value) -> list[Node]:
    """Return the nodes that add a constant to what a linear map makes."""
    return [node for node in value.outputs if is_standard(node, "Add") and any(map(is_constant, node.inputs))]


def _tell(contraction: Contraction, context: PassContext, exponent: int) -> None:
    """Say whether the sums of a layer are exact now, for inputs that are whole numbers of size at most one."""
    node, slot = contraction.node, contraction.bias_slot
    bias = array_of(node.inputs[slot]) if slot is not None and len(node.inputs) > slot else None
    largest = largest_sum(contraction_matrix(contraction), bias)
    limit = 2.0 ** (SIGNIFICANT - exponent)
    if largest < limit:
        context.note(
            "exact-sums", node.name,
            f"every partial sum of spikes is exact in float32: at most {largest:g}, below 2^{SIGNIFICANT - exponent}",
            largest=largest, exponent=exponent,
        )  # fmt: skip
    else:
        context.missed(
            Refusal("sums-too-large", f"partial sums reach {largest:g}, not below 2^{SIGNIFICANT - exponent}"),
            node.name,
        )
