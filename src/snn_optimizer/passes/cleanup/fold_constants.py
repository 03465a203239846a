"""Compute once, here, what the model would compute from constants in every run.

Before: ``y = Op(c, d)`` with ``c`` and ``d`` constant, or ``y = Shape(x)`` where the sizes of ``x`` are fixed
After:  ``y`` is an initializer

Sound because the evaluator is the runtime itself: it runs the same kernel on the same values.
A fold must not make the file larger by more than ``max_growth``: the result is weighed against the
inputs that nothing else reads and the text of the node that goes. So a weight that is transposed
for one reader is folded, and a fill of a million zeros is not. A shape is a few bytes and always folded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Final

import numpy as np

from snn_optimizer.ir import (
    Array,
    GraphIndex,
    Node,
    Rewriter,
    SNNGraph,
    Value,
    array_of,
    bodies_of,
    bytes_of_constant,
    describe,
    is_constant,
    is_missing,
    is_standard,
)
from snn_optimizer.passes.base import BEYOND_LIMIT, Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.passes.cleanup.noops import Facts
from snn_optimizer.passes.cleanup.shared import RANDOM, Tally

__all__ = ["FoldConstants"]

_QUANTIZING: Final = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})
_SENTENCES: Final = {
    "constant-inputs": "replaced by its value",
    "fixed-shape": "replaced by the sizes, which are the same in every run",
}


@dataclass(frozen=True, slots=True)
class FoldConstants(Pass):
    """Replace nodes whose inputs are all constant by their values, if that does not grow the model.

    Quantization, random numbers, nodes with bodies, operators of other domains and
    graph outputs are never folded. Works in the main graph and in bodies; functions
    are left alone. Idempotent: a fold that frees an input of another node brings that
    node up again.

    Attributes
    ----------
    max_growth : int
        Bytes by which one fold may make the model larger.
    """

    name: ClassVar[str] = "fold-constants"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    max_growth: int = 0

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Fold in the order of computation, so that chains of constants go in one run."""
        tally = Tally(context)
        tally.settle(context, lambda: _Folder(graph, context, tally, self.max_growth).run())
        tally.report(context, _SENTENCES)
        return Outcome(changes=tally.changes, details=tally.counts())


class _Folder:
    """One run over one module."""

    def __init__(self, graph: SNNGraph, context: PassContext, tally: Tally, max_growth: int) -> None:
        self.context = context
        self.max_growth = max_growth
        self.index = GraphIndex(graph.module)
        self.facts = Facts(context, self.index, graph.module.opset())
        self.rewriter = Rewriter(graph.module)
        self.tally = tally
        self.folded: dict[int, Node] = {}
        self.refused: dict[int, tuple[Node, Refusal]] = {}
        self.result_bytes: dict[int, int] = {}  # of nodes that were evaluated and then refused
        self.readers_left: dict[int, int] = {}  # of constants: distinct nodes that are not folded

    def run(self) -> None:
        """Work through all nodes; a fold queues again those it may have made foldable."""
        pending = deque(self.index.nodes())
        waiting = {id(node) for node in pending}
        while pending:
            node = pending.popleft()
            waiting.discard(id(node))
            results = self.results(node)
            if isinstance(results, Refusal):
                self.refused[id(node)] = (node, results)
            if results is None or isinstance(results, Refusal):
                continue
            if not self.tally.admits(_rule(node), describe(node)):
                self.refused[id(node)] = (node, BEYOND_LIMIT)
                continue
            for other in self.fold(node, results):
                if id(other) not in waiting and id(other) not in self.folded:
                    waiting.add(id(other))
                    pending.append(other)
        for node, refusal in self.refused.values():
            self.tally.missed(refusal, describe(node))
        self.rewriter.erase(self.folded.values())
        self.rewriter.finish()

    def results(self, node: Node) -> list[Array] | Refusal | None:
        """Return the values of the outputs of a node; None where there is nothing to fold."""
        if is_standard(node, "Shape"):
            return self.sizes(node)
        if not _reads_constants(node):
            return None
        return self.why_not(node) or self.evaluated(node)

    def sizes(self, node: Node) -> list[Array] | Refusal:
        """Return what a Shape node returns where no run can change it."""
        value = node.inputs[0]
        shape = self.facts.shape(value)
        if shape is None:
            return Refusal("rank-unknown", f"the number of axes of '{value.name}' is not known")
        chosen = shape[int(node.attrs.get("start", 0)) : node.attrs.get("end")]
        known = [size for size in chosen if isinstance(size, int)]
        if len(known) != len(chosen):
            shown = ", ".join(str(size or "?") for size in chosen)
            return Refusal("size-unknown", f"'{value.name}' has sizes [{shown}]")
        if self.index.output_of(node.outputs[0]):
            return _is_output(node.outputs[0])
        return [np.array(known, dtype=np.int64)]

    def why_not(self, node: Node) -> Refusal | None:
        """Return why a node with constant inputs is not even evaluated."""
        if node.domain:
            return Refusal("foreign-domain", f"'{node.domain}' may mean anything by {node.op}")
        if bodies_of(node):
            return Refusal("has-body", f"{node.op} runs other nodes")
        if node.op in RANDOM:
            return Refusal("random", f"{node.op} gives another value in every run")
        if node.op in _QUANTIZING:
            return Refusal("quantization", f"{node.op} says how values are to be stored")
        output = next((value for value in node.outputs if self.index.output_of(value)), None)
        if output is not None:
            return _is_output(output)
        if self.context.evaluate_node is None:
            return Refusal("no-evaluator", "nothing was given to run operators with")
        return self.grows(node, self.result_bytes.get(id(node), self.least_bytes(node)))

    def least_bytes(self, node: Node) -> int:
        """Return how large the results are at least, so that no fill of gigabytes is evaluated to be refused."""
        total = 0
        for value in node.outputs:
            shape = self.facts.shape(value) or ()
            known = [size for size in shape if isinstance(size, int)]
            if len(known) == len(shape) and not is_missing(value):
                total += prod(known) * (1 if value.dtype is None else np.dtype(value.dtype).itemsize)
        return total

    def grows(self, node: Node, added: int) -> Refusal | None:
        """Weigh a result against what goes with the node."""
        read = {id(value): value for value in node.inputs if not is_missing(value)}.values()
        freed = sum(bytes_of_constant(value) for value in read if self.dies(value))
        text = len(node.op) + len(node.name) + sum(len(value.name) + 2 for value in node.inputs)
        growth = added - freed - text
        if growth <= self.max_growth:
            return None
        return Refusal("grows", f"the value has {added} bytes, {growth} more than go; allowed are {self.max_growth}")

    def evaluated(self, node: Node) -> list[Array] | Refusal:
        """Run a node on the values of its inputs."""
        evaluate = self.context.evaluate_node
        arrays = [array_of(value) for value in node.inputs if not is_missing(value)]
        made = [value for value in node.outputs if not is_missing(value)]
        assert evaluate is not None
        try:
            given: list[Any] = evaluate(node, [array for array in arrays if array is not None])
        except Exception as error:  # noqa: BLE001 -- evaluators share no base class of errors
            return Refusal("not-evaluable", f"{node.op}: {' '.join(str(error).split())}")
        results = [np.asarray(one) if isinstance(one, np.generic) else one for one in given]
        fits = len(results) == len(made) and all(
            _is_numeric(array) and (value.dtype is None or np.dtype(value.dtype) == array.dtype)
            for value, array in zip(made, results, strict=False)
        )
        if not fits:
            return Refusal("not-evaluable", f"{node.op} did not give tensors of numbers of the declared types")
        self.result_bytes[id(node)] = sum(array.nbytes for array in results)
        return self.grows(node, self.result_bytes[id(node)]) or results

    def fold(self, node: Node, results: Sequence[Array]) -> list[Node]:
        """Replace the outputs of a node; return the nodes for which that may matter."""
        self.refused.pop(id(node), None)
        self.folded[id(node)] = node
        self.tally.applied(_rule(node), describe(node))
        affected: list[Node] = []
        made = (value for value in node.outputs if not is_missing(value))
        for value, array in zip(made, results, strict=True):
            constant = self.rewriter.constant(value.name, array)
            self.rewriter.replace_uses(value, constant)
            affected += constant.outputs
        for value in {id(value): value for value in node.inputs if is_constant(value)}.values():
            if id(value) in self.readers_left:
                self.readers_left[id(value)] -= 1
            if self.dies(value):
                affected += [other for other in value.outputs if id(other) in self.refused]
        return affected

    def dies(self, value: Value) -> bool:
        """Tell whether a constant has one reader left, with which it would go."""
        if id(value) not in self.readers_left:
            distinct = {id(node) for node in value.outputs}
            self.readers_left[id(value)] = sum(key not in self.folded for key in distinct)
        return self.readers_left[id(value)] == 1 and not self.index.output_of(value)


def _rule(node: Node) -> str:
    return "fixed-shape" if is_standard(node, "Shape") else "constant-inputs"


def _reads_constants(node: Node) -> bool:
    present = [value for value in node.inputs if not is_missing(value)]
    return bool(present) and all(map(is_constant, present))


def _is_numeric(result: object) -> bool:
    """Tell whether a result is a tensor of numbers; evaluators return lists for sequences."""
    return isinstance(result, np.ndarray) and result.dtype.kind not in "OUS"


def _is_output(value: Value) -> Refusal:
    return Refusal("graph-output", f"'{value.name}' is an output")
