"""Give neurons whose threshold is one number a function that knows it.

Before: a neuron with written arithmetic and a constant threshold for all of its population
After:  the same neuron with the threshold in its arithmetic, one parameter less

Sound because the same number takes part in the same operations. What is gained is time: a test
against a known number is one operation of the runtime instead of two or three
(:mod:`snn_optimizer.ops.written`). That operation hands on a NaN where the test gives 0, so nothing
is done where a potential could be one (:mod:`snn_optimizer.lowering.finite`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from snn_optimizer import ops
from snn_optimizer.ir import Rewriter, SNNGraph
from snn_optimizer.lowering.finite import nan_source
from snn_optimizer.lowering.specialize import specialize
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext, Refusal

__all__ = ["SpecializeNeurons"]


@dataclass(frozen=True, slots=True)
class SpecializeNeurons(Pass):
    """Write constant thresholds into the arithmetic of neurons, which makes them faster.

    Meant to run last: passes that cut or merge neurons need no threshold afterwards, but read it more
    easily before. Idempotent.
    """

    name: ClassVar[str] = "specialize-neurons"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    confirmed: ClassVar[bool] = True

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Look at every neuron call of the main graph and of loops."""
        outcome = Outcome()
        if (source := nan_source(graph.module)) is not None:
            context.missed(Refusal("may-be-nan", source), graph.module.graph.name)
            return outcome
        rewriter = Rewriter(graph.module)
        for scope in list(graph.module.scopes()):
            for node in list(scope.graph.nodes) if scope.kind != "function" else ():
                if ops.is_neuron(node.domain or "", node.op) and not context.rewrites.stopped:
                    known = context.admits("threshold-known", node.name)
                    special = specialize(rewriter, node) if known else None
                    if special is not None:
                        outcome.changes += 1
                        outcome.count("neurons")
                        context.applied("threshold-known", node.name, special.arithmetic)
        if outcome.changes:
            rewriter.finish()
        return outcome
