"""Store weights in eight or four bits, and sum them in integers where that is faster.

Before: y = x w^T + b with w in floating point
After:  y = x (levels * scale)^T + b, levels in 8 or 4 bits, one scale per neuron; or, with x whole numbers such as
        spikes, y = (integer sums of levels over the spikes) * scale + b

The first is what the runtime makes of it when it loads the model: the float layer with rounded weights. In the second
the sums are exact, in any order; the factor goes into the gain of the neurons where these alone read it. Only the
rounding of the weights is lost. LOSSY within the caller's budget.

With data, weights are rounded one input after the other and the rest makes up for it, layer after layer, toward the
drives of the original network (``rounding``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np

from snn_optimizer.analyses import AnalysisManager, Contraction, UnitGroups, ValueRanges
from snn_optimizer.analyses.rows import contraction_matrix
from snn_optimizer.analyses.whole_values import WholeValues
from snn_optimizer.errors import PassOptionError
from snn_optimizer.ir import Rewriter, SNNGraph, is_unscaled
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.passes.weights.level_forms import Writer
from snn_optimizer.passes.weights.rounding import Levels, Scales, largest_level, nearest
from snn_optimizer.passes.weights.rounding_drift import Drift, drift
from snn_optimizer.passes.weights.rounding_fit import Fitter

__all__ = ["QuantizeWeights"]

_FLOATS: Final = (np.float16, np.float32, np.float64)
_NODES: Final = {8: 300, 4: 750}  # bytes of the nodes that turn levels into weights, as measured
_PAIR: Final = 2**15 - 1  # where kernels of processors without VNNI instructions saturate sums of two products
_SUM: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class QuantizeWeights(Pass):
    """Store weights in eight or four bits with one scale per neuron, and sum them in integers where that is faster.

    Runs on stock onnxruntime. Integer sums (``MatMulInteger``) took, on one thread, 0.2 to 0.5 of the time of the
    float product for 4096 x 1024 and 1000 x 1000 weights, about 0.6 to 1 of it from 131,072 weights on, and up to
    1.2 below; four bits take the time of eight. ``ConvInteger`` took 1.2 to 8 times the time of ``Conv``, so
    convolutions are summed in float. Layers summed in float run as fast as before.

    Attributes
    ----------
    bits : int
        8 or 4.
    arithmetic : str
        ``integer`` leaves layers alone that cannot be summed in integers; ``float`` sums all in float; ``auto`` sums in
        integers where that is possible and not slower.
    smallest : int
        Weights of a layer from which ``auto`` sums in integers; ``integer`` leaves smaller layers alone.
    scales : str
        Scales that are powers of two cost accuracy, and make float sums exact too.
    compensate : bool
        Let the other weights make up for the rounding of one, where there is data.
    """

    name: ClassVar[str] = "quantize-weights"
    exactness: ClassVar[Exactness] = Exactness.LOSSY

    bits: int = 8
    arithmetic: Literal["auto", "integer", "float"] = "auto"
    smallest: int = 131072
    scales: Scales = "free"
    compensate: bool = True

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise PassOptionError(f"quantize-weights: bits is {self.bits}; it must be 8 or 4")
        if self.smallest < 0:
            raise PassOptionError(f"quantize-weights: smallest is {self.smallest}; it must not be negative")

    @property
    def fits(self) -> bool:
        """The weights that are left make up for the rounding of others."""
        return self.compensate

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Quantize every weight that can be, or as many as the budget allows, the largest first."""
        chosen = self._chosen(context)
        if not chosen:
            return Outcome()
        fitter = None
        if self.compensate and context.activity is not None:
            fitter = Fitter(graph, context, context.activity)
        if context.accept is None:
            return self._take(graph, context, self._attempt(graph, context, fitter, chosen))
        found = self._attempt(graph, context, fitter, chosen)
        if not context.accept(found.graph):
            best: _Trial | None = None
            kept: list[_Choice] = []
            for choice in sorted(chosen, key=lambda one: -one.size):
                trial = self._attempt(graph, context, fitter, [*kept, choice])
                if context.accept(trial.graph):
                    kept, best = [*kept, choice], trial
                else:
                    words = f"in {self.bits} bits it exceeds the budget"
                    context.missed(Refusal("over-budget", words), choice.name)
            if best is None:
                return Outcome()
            found = best
        return self._take(graph, context, found)

    @staticmethod
    def _take(graph: SNNGraph, context: PassContext, trial: _Trial) -> Outcome:
        graph.become(trial.graph)
        context.remarks.extend(trial.context.remarks)
        return trial.outcome

    def _attempt(
        self, graph: SNNGraph, context: PassContext, fitter: Fitter | None, chosen: Sequence[_Choice]
    ) -> _Trial:
        candidate = graph.copy(share_weights=True)
        trial = context.trial(candidate)
        return _Trial(candidate, self._quantized(candidate, trial, fitter, chosen), trial)

    # -- which -----------------------------------------------------------------------------

    def _chosen(self, context: PassContext) -> list[_Choice]:
        """Return the weights to quantize, in the order of computation."""
        contractions = context.analyses.get(UnitGroups).contractions
        by_weight: dict[int, list[int]] = {}
        for number, each in enumerate(contractions):
            by_weight.setdefault(id(each.node.inputs[each.weight_slot]), []).append(number)
        outputs = {id(value) for value in context.analyses.module.graph.outputs}
        chosen = []
        for numbers in by_weight.values():
            readers = [contractions[number] for number in numbers]
            place = readers[0].node.name
            refusal = self._refusal(readers, outputs)
            integer = None
            if refusal is None and self.arithmetic != "float":
                integer = next((r for each in readers if (r := self._not_in_integers(each, context)) is not None), None)
                if self.arithmetic == "integer":
                    refusal = integer
            if refusal is not None:
                context.missed(refusal, place)
                continue
            in_integers = self.arithmetic != "float" and integer is None
            size = int(contraction_matrix(readers[0]).size)
            chosen.append(_Choice(tuple(numbers), place, size, in_integers, "" if integer is None else integer.reason))
        return chosen

    def _refusal(self, readers: Sequence[Contraction], outputs: set[int]) -> Refusal | None:
        """Return why a weight cannot be stored as levels."""
        first = readers[0]
        weight, matrix = first.node.inputs[first.weight_slot], contraction_matrix(first)
        if matrix.dtype not in _FLOATS:
            return Refusal("element-type", f"its weights are {matrix.dtype}")
        if not np.isfinite(matrix).all():
            return Refusal("weight-not-finite", "a weight is no finite number")
        if id(weight) in outputs:
            return Refusal("graph-output", f"its weight '{weight.name}' is an output of the model")
        if len(weight.outputs) != len(readers) or any(each.axis_out != first.axis_out for each in readers):
            return Refusal("read-elsewhere", f"its weight '{weight.name}' is read in other ways too")
        saved = matrix.size * (matrix.dtype.itemsize - self.bits / 8) - 4 * len(matrix) - _NODES[self.bits]
        if saved <= 0:
            return Refusal("no-gain", f"{matrix.size:,} weights take less room than what would replace them")
        return None

    def _not_in_integers(self, contraction: Contraction, context: PassContext) -> Refusal | None:
        """Return why a layer is not summed in integers."""
        node, weights = contraction.node, contraction_matrix(contraction)
        if node.op == "Conv":
            return Refusal("convolution", "convolutions in integers are slower than in float")
        if weights.dtype != np.float32:
            return Refusal("element-type", f"its weights are {weights.dtype}, not float32")
        most = context.analyses.get(WholeValues).of(contraction.source)
        if most is None:
            return Refusal("real-valued-input", "what it reads is not proved to be spikes")
        top = largest_level(self.bits)
        if 2 * most * top > _PAIR or weights.shape[1] * most * top > _SUM:
            return Refusal("sums-too-large", f"it reads numbers up to {most}, with which integer sums may overflow")
        if weights.size < self.smallest:
            return Refusal(
                "too-small", f"{weights.size:,} weights, below {self.smallest:,} (smallest=): integers would be slower"
            )
        return None if is_unscaled(node) else Refusal("scaled-product", "a Gemm with alpha or beta is summed in float")

    # -- how -------------------------------------------------------------------------------

    def _quantized(
        self, graph: SNNGraph, context: PassContext, fitter: Fitter | None, chosen: Sequence[_Choice]
    ) -> Outcome:
        outcome = Outcome()
        analyses = AnalysisManager(graph.module, context.analyses.domain)
        groups, ranges = analyses.get(UnitGroups), analyses.get(ValueRanges)
        originals = [contraction_matrix(each) for each in groups.contractions]
        rewriter = Rewriter(graph.module)
        writer = Writer(rewriter, groups, self.bits)
        for choice in chosen:
            readers = [groups.contractions[number] for number in choice.numbers]
            matrix = originals[choice.numbers[0]]
            flat = matrix.reshape(len(matrix), -1)
            fitted = None
            if fitter is not None and len(readers) == 1:
                fitted = fitter.levels(graph, groups, choice.numbers[0], self.bits, self.scales)
            found: Levels = fitted or nearest(flat, self.bits, self.scales)
            moved = drift(groups, ranges, readers, flat, found)
            absorbed = 0
            if choice.in_integers:
                absorbed = writer.integer_form(readers, found)
            else:
                writer.float_form(readers, found)
            rewriter.finish()
            outcome.changes += 1
            outcome.count("weights-quantized", flat.size)
            outcome.count("scales-absorbed", absorbed)
            self._tell(context, choice, found, moved, fitted=fitted is not None, absorbed=absorbed > 0)
        return outcome

    def _tell(
        self, context: PassContext, choice: _Choice, found: Levels, moved: Drift, *, fitted: bool, absorbed: bool
    ) -> None:
        how = "summed in integers" if choice.in_integers else "summed in float"
        if absorbed:
            how += " with the scales in the gain of the neurons"
        if choice.why_float and self.arithmetic == "auto":
            how += f" ({choice.why_float})"
        bound = "" if moved.membrane is None else f", a membrane by at most {moved.membrane:.3g} while the spikes agree"
        rounded = "the others make up for it" if fitted else "each is rounded alone"
        context.applied(
            f"{'eight' if self.bits == 8 else 'four'}-bits", choice.name,
            f"{found.levels.size:,} weights in {self.bits} bits, {len(found.scale)} scales, {how}; "
            f"a weight moves by at most {moved.weight:.3g}, {rounded}{bound}",
            largest_change=moved.weight, membrane_bound=moved.membrane, integer=choice.in_integers, fitted=fitted,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Choice:
    """A weight to quantize.

    Attributes
    ----------
    numbers : tuple of int
        The contractions that read it.
    why_float : str
        Why it is not summed in integers.
    """

    numbers: tuple[int, ...]
    name: str
    size: int
    in_integers: bool
    why_float: str


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """A quantized copy, and what is to be said when it is taken."""

    graph: SNNGraph
    outcome: Outcome
    context: PassContext
