"""Store weights in eight bits, and sum them in integers.

Before: y = x w^T + b with x spikes and w in float32
After:  y = (int8 sums of q over the spikes) * scale + b, with q = round(w / scale) and one scale per neuron

Spikes are whole numbers, so the integer sums are exact and only the rounding of the weights is lost: at most
``scale / 2`` per active input and step, which the membrane adds up with its decay. LOSSY within the caller's budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses import Contraction, UnitGroups
from snn_optimizer.analyses.rows import contraction_matrix
from snn_optimizer.analyses.whole_values import WholeValues
from snn_optimizer.errors import PassOptionError
from snn_optimizer.ir import Rewriter, SNNGraph
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.passes.weights.drives import Filters, filters_of

__all__ = ["QuantizeWeights"]

LEVELS: Final = 127
_UINT8, _FLOAT = 2, 1  # element types


@dataclass(frozen=True, slots=True)
class QuantizeWeights(Pass):
    """Replace float products of spikes by integer products with weights of eight bits, one scale per neuron.

    Runs on stock onnxruntime (``MatMulInteger``). Measured there on one thread, one row: 0.34 of the time of the
    float product for 4096 x 1024 weights, 0.43 for 1000 x 1000, as fast at 256 x 256, slower below.

    Attributes
    ----------
    smallest : int
        Weights of a layer below which it stays in float; 0 quantizes all for the size of the file.
    """

    name: ClassVar[str] = "quantize-weights"
    exactness: ClassVar[Exactness] = Exactness.LOSSY

    smallest: int = 65536

    def __post_init__(self) -> None:
        if self.smallest < 0:
            raise PassOptionError(f"quantize-weights: smallest is {self.smallest}; it must not be negative")

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Quantize every layer that can be, or as many as the budget allows, the largest first."""
        chosen = [n for n, each in enumerate(_contractions(context)) if self._fits(each, context)]
        if not chosen:
            return Outcome()
        if context.accept is None:
            return _quantized(graph, context, chosen)
        sizes = [contraction_matrix(each).size for each in _contractions(context)]
        kept: list[int] = []
        found = self._attempt(graph, context, chosen)
        if found is None:
            for number in sorted(chosen, key=lambda n: -sizes[n]):
                better = self._attempt(graph, context, [*kept, number])
                if better is None:
                    place = _contractions(context)[number].node.name
                    context.missed(Refusal("over-budget", "in eight bits it exceeds the budget"), place)
                else:
                    kept, found = [*kept, number], better
        if found is None:
            return Outcome()
        candidate, outcome, trial = found
        graph.become(candidate)
        context.remarks.extend(trial.remarks)
        return outcome

    def _attempt(
        self, graph: SNNGraph, context: PassContext, chosen: Sequence[int]
    ) -> tuple[SNNGraph, Outcome, PassContext] | None:
        candidate = graph.copy(share_weights=True)
        trial = context.trial(candidate)
        outcome = _quantized(candidate, trial, chosen)
        return (candidate, outcome, trial) if context.accept is not None and context.accept(candidate) else None

    def _fits(self, contraction: Contraction, context: PassContext) -> bool:
        refusal = self._refusal(contraction, context)
        if refusal is not None:
            context.missed(refusal, contraction.node.name)
        return refusal is None

    def _refusal(self, contraction: Contraction, context: PassContext) -> Refusal | None:
        node, weights = contraction.node, contraction_matrix(contraction)
        if node.op == "Conv":
            return Refusal("convolution", "no integer form of a convolution is written")
        if weights.dtype != np.float32:
            return Refusal("element-type", f"its weights are {weights.dtype}, not float32")
        if not np.isfinite(weights).all():
            return Refusal("weight-not-finite", "a weight is no finite number")
        if context.analyses.get(WholeValues).of(contraction.source) is None:
            return Refusal("real-valued-input", "what it reads is not proved to be spikes")
        if weights.size < self.smallest:
            return Refusal(
                "too-small", f"{weights.size:,} weights, below {self.smallest:,} (smallest=): integers would be slower"
            )
        plain = node.op == "MatMul" or (
            float(node.attrs.get("alpha", 1.0)) == 1.0 and float(node.attrs.get("beta", 1.0)) == 1.0
        )
        return None if plain else Refusal("scaled-product", "a Gemm with alpha or beta is left alone")


def _contractions(context: PassContext) -> Sequence[Contraction]:
    return context.analyses.get(UnitGroups).contractions


def _quantized(graph: SNNGraph, context: PassContext, chosen: Sequence[int]) -> Outcome:
    outcome = Outcome()
    groups = context.analyses.get(UnitGroups)
    most = context.analyses.get(WholeValues)
    steps = next((p.steps for p in groups.populations if p.steps is not None), None)
    rewriter = Rewriter(graph.module)
    for number in chosen:
        contraction = groups.contractions[number]
        weights = contraction_matrix(contraction)[:, :, 0]
        scale = np.abs(weights).max(axis=1) / LEVELS
        scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
        levels = np.rint(weights / scale[:, np.newaxis]).astype(np.int8)
        largest = most.of(contraction.source) or 1
        bound = _bound(scale, weights.shape[1] * largest, filters_of(groups, contraction), steps)
        _write(rewriter, contraction, levels, scale)
        outcome.changes += 1
        outcome.count("weights-quantized", weights.size)
        worst = float(np.abs(levels * scale[:, np.newaxis] - weights).max())
        context.applied(
            "eight-bits", contraction.node.name,
            f"{weights.size:,} weights in eight bits, {len(scale)} scales; a weight moves by at most {worst:.3g}, "
            f"a membrane by at most {bound:.3g} while the spikes agree",
            largest_change=worst, membrane_bound=bound,
        )  # fmt: skip
    rewriter.finish()
    return outcome


def _bound(scale: npt.NDArray[Any], active: int, filters: Filters, steps: int | None) -> float:
    """Return how far rounding can move a membrane: half a level per active input, added up over the steps."""
    total = float(scale.max()) / 2 * active
    for decay in (filters.alpha, filters.beta):
        if decay < 1:
            total *= (1 - decay**steps) / (1 - decay) if steps is not None else 1 / (1 - decay)
        else:
            total *= steps if steps is not None else np.inf
    return total


def _write(rewriter: Rewriter, contraction: Contraction, levels: npt.NDArray[np.int8], scale: npt.NDArray[Any]) -> None:
    node, result = contraction.node, contraction.result
    graph = next(s.graph for s in rewriter.module.scopes() if any(n is node for n in s.graph.nodes))
    bias = node.inputs[2] if node.op == "Gemm" and len(node.inputs) > 2 and node.inputs[2].name else None
    source, name = node.inputs[0], node.name
    spikes = rewriter.value(f"{source.name}_u8", np.uint8, source.shape)
    sums = rewriter.value(f"{result.name}_sums", np.int32, result.shape)
    whole = rewriter.value(f"{result.name}_whole", np.float32, result.shape)
    product = result if bias is None else rewriter.value(f"{result.name}_product", np.float32, result.shape)
    rewriter.erase(node)
    weights = rewriter.constant(f"{name}.weight_int8", np.ascontiguousarray(levels.T))
    rewriter.add(graph, "Cast", [source], [spikes], {"to": _UINT8})
    rewriter.add(graph, "MatMulInteger", [spikes, weights], [sums], name_hint=name)
    rewriter.add(graph, "Cast", [sums], [whole], {"to": _FLOAT})
    rewriter.add(graph, "Mul", [whole, rewriter.constant(f"{name}.scale", scale)], [product])
    if bias is not None:
        rewriter.add(graph, "Add", [product, bias], [result])
