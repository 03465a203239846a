"""Run what has no past once over all steps.

Before: a ``Scan`` whose body is a whole network
After:  each synapse applied to all steps at once, with time and batch in one axis; each neuron
        a call that runs all steps; a ``Scan`` only around what depends on its own past

Sound because operators that leave the loop treat the first axis as independent samples
(:mod:`snn_optimizer.raising.batching`), and the rows of a product, as the images of a
convolution, have the same bits for any number of them; the guard confirms it by execution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from snn_optimizer.ir import GraphIndex, Node, Rewriter, Shapes, SNNGraph
from snn_optimizer.passes.base import BEYOND_LIMIT, Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.raising.distribute import Undistributed, distribute
from snn_optimizer.raising.sequences import Sequences
from snn_optimizer.raising.step_graph import StepGraph

__all__ = ["DistributeTime"]


@dataclass(frozen=True, slots=True)
class DistributeTime(Pass):
    """Split loops over time into synapses over all steps and neurons with a loop of their own.

    Idempotent: what is left in a loop needs it.
    """

    name: ClassVar[str] = "distribute-time"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    confirmed: ClassVar[bool] = True

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Distribute every loop of the main graph, in the order of computation."""
        module = graph.module
        outcome = Outcome()
        steps = list(StepGraph.scans(module.graph))
        if not steps:
            return outcome
        rewriter, index, shapes = Rewriter(module), GraphIndex(module), Shapes.compute(module, declared=False)
        sequences = Sequences(rewriter, shapes)
        renamed: list[tuple[Node, str]] = []
        for step in steps:
            assert step.scan is not None  # a loop over time
            place = step.scan.name
            if not context.admits("distributed", place):
                context.missed(BEYOND_LIMIT, place)
                continue
            try:
                moved = distribute(rewriter, step, index, shapes, sequences)
            except Undistributed as refusal:
                context.missed(Refusal(refusal.rule, str(refusal)), place)
                continue
            outcome.changes += 1
            renamed += moved
            outcome.count("nodes", len(moved))
            context.applied("distributed", place, f"{len(moved)} nodes run over all steps at once", nodes=len(moved))
        if outcome.changes:
            sequences.adopt()
            rewriter.finish()
            names = Rewriter(module)  # the names in the loops are free now
            for node, name in renamed:
                if name and not rewriter.is_erased(node) and node.outputs:
                    names.rename(node, name)
            names.finish()
        return outcome
