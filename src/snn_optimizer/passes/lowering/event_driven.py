"""Read only the weights of neurons that fired, where that was measured to be faster than all of them.

Before: ``y = Gemm(s, w, b)`` or ``y = MatMul(s, w)`` with ``s`` of zeros and ones
After:  ``fired = NonZero(s)``, ``y = s[fired] w[fired] + b``; of several vectors one after the other in a ``Scan``, or
all at once with the neurons that fired in any of them, whichever is faster. Where the number of vectors in a call is
open, an ``If`` takes this form up to the number it is faster for, and the dense one above, so that the file is right
for every batch.

Sound because the products left out are zeros. Their sum is formed in another order, so it may be rounded otherwise,
unless no sum is ever rounded (:mod:`snn_optimizer.analyses.exact_sums`).

``ScatterND`` with addition would do all vectors at once, but onnxruntime adds to one place from several threads
without a lock; measured with two threads, one result in fifteen was wrong.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from snn_optimizer.analyses.binary_values import BinaryValues
from snn_optimizer.analyses.exact_sums import ExactSums
from snn_optimizer.errors import PassOptionError
from snn_optimizer.ir import (
    Graph,
    Module,
    Node,
    Rewriter,
    Scope,
    Shape,
    Shapes,
    SNNGraph,
    Value,
    array_of,
    dtype_of_constant,
    is_missing,
    is_standard,
    is_unscaled,
    shape_of_constant,
)
from snn_optimizer.ir.gathered_products import MINIMUM_OPSET, GatheredProducts
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.projection_costs import GatheredForm, ProjectionCosts, SpikeRows, default_path

__all__ = ["EventDriven"]


@dataclass(frozen=True, slots=True)
class EventDriven(Pass):
    """Gather the weights of the neurons that fired instead of multiplying with all, where that is faster.

    Chosen for each projection by what ``snnopt bench --calibrate`` measured on this machine and by the activity seen
    on the calibration data; without either, or where the dense product is as fast, nothing changes. Meant to run
    last: other passes do not look into the gathered form. Idempotent.

    Attributes
    ----------
    costs : str
        File of measured costs, of the machine the model will run on; empty for the one of this machine in the
        user's cache, or the one ``SNNOPT_COSTS`` names.
    margin : float
        Share of the dense product's time that must be saved.
    """

    name: ClassVar[str] = "event-driven"
    exactness: ClassVar[Exactness] = Exactness.ALGEBRAIC
    confirmed: ClassVar[bool] = True

    costs: str = ""
    margin: float = 0.15

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise PassOptionError(f"event-driven: margin is {self.margin:g}; it must be at least 0 and below 1")

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Choose the form of every product of spikes with constant weights, in the main graph and in loops."""
        outcome = Outcome()
        products = _products(graph.module, context)
        if not products:
            return outcome
        costs = self._measured_costs(graph, context)
        if costs is None:
            return outcome
        if context.activity is None:
            reason = "nobody said how often neurons fire: give --calib DATA.npz"
            context.missed(Refusal("no-activity", reason), graph.module.graph.name)
            return outcome
        found = context.activity.spike_rows(graph, [each.node for each in products])
        exact = context.analyses.get(ExactSums).nodes
        chosen: list[tuple[_Product, _Choice]] = []
        for product, seen in zip(products, found, strict=True):
            choice = self._choose(product, seen, costs)
            if isinstance(choice, Refusal):
                context.missed(choice, product.node.name)
            elif context.admits("gathered", product.node.name):
                chosen.append((product, choice))
        if not chosen:
            return outcome
        outcome.claim = Exactness.BITWISE if all(id(p.node) in exact for p, _ in chosen) else Exactness.ALGEBRAIC
        writer = _Writer(Rewriter(graph.module))
        for product, choice in chosen:
            writer.write(product, choice)
            outcome.changes += 1
            outcome.count("guarded" if choice.limit else "unconditional")
            context.applied(
                "gathered", product.node.name, f"{choice}",
                form=choice.form, rows=choice.seen.rows, share=choice.seen.share, pooled=choice.seen.pooled,
                dense_seconds=choice.dense, seconds=choice.gathered, limit=choice.limit,
            )  # fmt: skip
        writer.rewriter.finish()
        return outcome

    def _measured_costs(self, graph: SNNGraph, context: PassContext) -> ProjectionCosts | None:
        place = graph.module.graph.name
        if self.costs:
            costs = ProjectionCosts.load(self.costs)
            if (reason := costs.mismatch()) is not None:
                context.note("other-machine", place, f"costs of '{self.costs}' are taken as they are: {reason}")
            return costs
        path = default_path()
        if not path.exists():
            reason = f"nothing was measured on this machine: run 'snnopt bench --calibrate' (looked for '{path}')"
            context.missed(Refusal("no-cost-model", reason), place)
            return None
        costs = ProjectionCosts.load(path)
        if (other := costs.mismatch()) is not None:
            reason = f"costs in '{path}' are not of this machine: {other}; run 'snnopt bench --calibrate' again"
            context.missed(Refusal("other-machine", reason), place)
            return None
        return costs

    def _choose(self, product: _Product, seen: SpikeRows | None, costs: ProjectionCosts) -> _Choice | Refusal:
        inputs, outputs = product.sizes
        if not costs.covers(inputs, outputs):
            return Refusal(
                "unmeasured-size",
                f"{inputs} x {outputs} weights lie outside {costs.inputs[0]} to {costs.inputs[-1]} inputs and "
                f"{costs.outputs[0]} to {costs.outputs[-1]} outputs, for which costs are known",
            )
        if seen is None or not seen.rows:
            return Refusal("not-measured", "what it reads could not be measured on the calibration data")
        fixed = product.rows == seen.rows  # by the file
        extra = 0.0 if fixed else costs.guard

        def seconds(form: GatheredForm, rows: int) -> float:
            return costs.gathered_seconds(form, inputs, outputs, seen, rows) + extra

        def wins(form: GatheredForm, rows: int) -> bool:
            return seconds(form, rows) <= (1 - self.margin) * costs.dense_seconds(inputs, outputs, rows)

        forms: tuple[GatheredForm, ...] = ("single",) if seen.rows == 1 else ("several", "pooled")
        best = min(forms, key=lambda form: seconds(form, seen.rows))
        dense, gathered = costs.dense_seconds(inputs, outputs, seen.rows), seconds(best, seen.rows)
        if not wins(best, seen.rows):
            return Refusal(
                "dense-faster",
                f"{inputs} x {outputs}, {_activity(seen)}: dense {_micro(dense)}, event-driven {_micro(gathered)}; "
                f"{self.margin:.0%} must be saved",
            )
        limit = 0
        if not fixed:
            limit = seen.rows
            # how many neurons fire in any vector of a larger call was not measured
            more = [rows for rows in costs.rows if rows > limit] if best == "several" else []
            limit = max(itertools.takewhile(lambda rows: wins(best, rows), more), default=limit)
        return _Choice(best, seen, dense, gathered, limit)


@dataclass(frozen=True, slots=True, eq=False)
class _Product:
    """A product of spikes with constant weights.

    Attributes
    ----------
    rank : int
        Axes of what it reads.
    rows : int or None
        Vectors in what it reads, None where the caller decides.
    sizes : tuple of int
        Inputs and outputs.
    """

    graph: Graph
    node: Node
    rank: int
    rows: int | None
    sizes: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Choice:
    """The event-driven form of a product; ``limit`` rows at most where the file does not fix their number."""

    form: GatheredForm
    seen: SpikeRows
    dense: float
    gathered: float
    limit: int

    def __str__(self) -> str:
        guarded = f"; up to {_vectors(self.limit)} a call, dense above" if self.limit else ""
        times = f"{_micro(self.gathered)} instead of {_micro(self.dense)}"
        return f"{self.form}, {_activity(self.seen)}: {times}{guarded}"


def _vectors(number: int) -> str:
    return "1 vector" if number == 1 else f"{number} vectors"


def _activity(seen: SpikeRows) -> str:
    together = f", {seen.pooled:.2%} in any of them" if seen.rows > 1 else ""
    return f"{_vectors(seen.rows)}, {seen.share:.2%} active{together}"


def _micro(seconds: float) -> str:
    return "more than measured" if np.isinf(seconds) else f"{seconds * 1e6:,.0f} us"


def _products(module: Module, context: PassContext) -> list[_Product]:
    """Return the products that may be rewritten, with a remark about every other one."""
    candidates = [
        (scope.graph, node)
        for scope in module.scopes()
        for node in (scope.graph.nodes if _is_always_run(scope) else ())
        if is_standard(node, "Gemm", "MatMul", "Conv") and shape_of_constant(node.inputs[1]) is not None
    ]
    if not candidates:
        return []
    binary = context.analyses.get(BinaryValues)
    # a batch size that is only declared inside is no promise, as that of an input is
    shapes = Shapes.compute(module, declared=False)
    found = []
    for graph, node in candidates:
        shape = shapes.shape(node.inputs[0])
        refusal = _refusal(node, shape, module.opset(), binary)
        if refusal is not None:
            context.missed(refusal, node.name)
            continue
        assert shape is not None  # refused otherwise
        sizes = _sizes(node)
        leading = shape[:-1]
        fixed = all(isinstance(size, int) for size in leading)
        rows = int(np.prod([int(size or 0) for size in leading], dtype=np.int64)) if fixed else None
        found.append(_Product(graph, node, len(shape), rows, sizes))
    return found


def _is_always_run(scope: Scope) -> bool:
    """Tell whether a scope is the main graph or a loop; the dense form in a branch stays what it is."""
    if scope.kind == "body":
        assert scope.owner is not None and scope.parent is not None  # noqa: PT018 - a body has both
        return scope.owner.op in {"Scan", "Loop"} and _is_always_run(scope.parent)
    return scope.kind == "main"


def _refusal(node: Node, shape: Shape | None, opset: int, binary: BinaryValues) -> Refusal | None:
    weights = node.inputs[1]
    if not binary.holds(node.inputs[0]):
        return Refusal("not-binary", f"'{node.inputs[0].name}' is not proved to be zeros and ones")
    if node.op == "Conv":
        return Refusal("convolution", "no event-driven form of a convolution is written")
    if len(shape_of_constant(weights) or ()) != 2:
        return Refusal("no-matrix", f"'{weights.name}' has {len(shape_of_constant(weights) or ())} axes, not two")
    if dtype_of_constant(weights) != np.float32:
        return Refusal("element-type", f"its weights are {dtype_of_constant(weights)}, not float32")
    if not is_unscaled(node) or (node.op == "Gemm" and node.attrs.get("transA", 0)):
        return Refusal("scaled-product", "a Gemm with alpha, beta or transA is left alone")
    if opset < MINIMUM_OPSET:
        return Refusal("old-opset", f"the model has opset {opset}, the form needs {MINIMUM_OPSET}")
    if not shape:
        return Refusal("unknown-rank", f"how many axes '{node.inputs[0].name}' has is not known")
    array = array_of(weights)
    if array is None or not np.isfinite(array).all():
        return Refusal("weight-not-finite", "a weight is no finite number, and its product with zero no zero")
    return None


def _sizes(node: Node) -> tuple[int, int]:
    rows, columns = shape_of_constant(node.inputs[1]) or (0, 0)
    return (columns, rows) if node.op == "Gemm" and node.attrs.get("transB", 0) else (rows, columns)


class _Writer:
    """Puts chosen forms in the place of products; products that share weights go on sharing them."""

    def __init__(self, rewriter: Rewriter) -> None:
        self.rewriter = rewriter
        self.gathered = GatheredProducts(rewriter)
        self._turned: dict[int, tuple[Value, Value]] = {}  # the original is kept, so that its id is its own

    def write(self, product: _Product, choice: _Choice) -> None:
        """Rewrite one product."""
        node, graph, name = product.node, product.graph, product.node.name
        source, result = node.inputs[0], node.outputs[0]
        bias = node.inputs[2] if len(node.inputs) > 2 and not is_missing(node.inputs[2]) else None
        weights = self._by_input(node)
        self.rewriter.erase(node)
        if not choice.limit:
            self._gather(graph, product, choice, weights, bias, source, result)
            return
        condition = self.gathered.at_most(graph, source, product.rank, product.sizes[0], choice.limit, name)
        few, many = (self.rewriter.value(f"{result.name}_{what}", np.float32, None) for what in ("few", "many"))
        then, other = (self.rewriter.body(value.name, [], [value]) for value in (few, many))
        self._gather(then, product, choice, weights, bias, source, few)
        if bias is None:
            self.rewriter.add(other, "MatMul", [source, weights], [many], name_hint=f"{name}.dense")
        else:
            self.rewriter.add(other, "Gemm", [source, weights, bias], [many], name_hint=f"{name}.dense")
        branches = {"then_branch": then, "else_branch": other}
        self.rewriter.add(graph, "If", [condition], [result], branches, name_hint=name)

    def _gather(
        self,
        graph: Graph,
        product: _Product,
        choice: _Choice,
        weights: Value,
        bias: Value | None,
        source: Value,
        result: Value,
    ) -> None:
        sums = result if bias is None else self.rewriter.value(f"{result.name}_sums", np.float32, None)
        if choice.form == "single":
            self.gathered.single(graph, source, weights, sums)
        elif choice.form == "pooled":
            self.gathered.pooled(graph, source, product.rank, weights, sums)
        else:
            self.gathered.several(graph, source, product.rank, weights, sums, product.sizes)
        if bias is not None:
            self.rewriter.add(graph, "Add", [sums, bias], [result])

    def _by_input(self, node: Node) -> Value:
        """Return the weights with one row for every input."""
        weights = node.inputs[1]
        if node.op == "MatMul" or not node.attrs.get("transB", 0):
            return weights
        if id(weights) not in self._turned:
            array = array_of(weights)
            assert array is not None  # a constant, as was checked
            turned = self.rewriter.constant(weights.name, np.ascontiguousarray(array.T))
            self._turned[id(weights)] = (weights, turned)
        return self._turned[id(weights)][1]
