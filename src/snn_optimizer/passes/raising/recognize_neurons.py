"""Recognize neurons in the arithmetic of a step.

Before: the elementwise nodes around a state, in a loop over time or a one-step model
After:  one call of an ``ai.snn`` neuron with the same arithmetic, operation for operation

Sound because the function of the call computes what the nodes computed, in their order, but for
spellings that give the same bits (:mod:`snn_optimizer.raising.transcribe`). Its decay, threshold and
reset are found by interpreting the arithmetic (:mod:`snn_optimizer.ops.meaning`), not by matching
patterns of nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from snn_optimizer import ops
from snn_optimizer.ir import GraphIndex, Module, Rewriter, Shapes, SNNGraph
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.raising.opset import raise_opset
from snn_optimizer.raising.recognize import recognize
from snn_optimizer.raising.redundant_states import replace_redundant_states
from snn_optimizer.raising.step_graph import StepGraph
from snn_optimizer.raising.stored_constants import store_constants
from snn_optimizer.raising.streaming import find_streaming_step
from snn_optimizer.raising.unread import drop_unread_ports

__all__ = ["RecognizeNeurons"]


@dataclass(frozen=True, slots=True)
class RecognizeNeurons(Pass):
    """Replace the arithmetic of neurons by calls of ai.snn, in loops over time and one-step models.

    Idempotent: a recognized neuron is a call and has no arithmetic left.
    """

    name: ClassVar[str] = "recognize-neurons"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Look at every step."""
        module = graph.module
        outcome = Outcome()
        streaming = find_streaming_step(module, Shapes.compute(module), context.frontend.states)
        if streaming is None and not list(StepGraph.scans(module.graph)):
            return outcome
        if not raise_opset(module):
            allowed = f"{ops.MINIMUM_OPSET} to {ops.MAXIMUM_OPSET}"
            context.missed(Refusal("opset", f"neurons need opset {allowed}, this is {module.opset()}"), "model")
            return outcome
        outcome.count("redundant-states", self._settle_states(module))
        outcome.changes += outcome.details.get("redundant-states", 0)
        rewriter, index = Rewriter(module), GraphIndex(module)
        shapes = Shapes.compute(module, declared=False)
        for step in (*StepGraph.scans(module.graph), *((streaming,) if streaming is not None else ())):
            found, left = recognize(rewriter, step, index, shapes, lambda place: context.admits("recognized", place))
            for neuron in found:
                outcome.changes += 1
                outcome.count(neuron.variant.operator)
                context.applied("recognized", neuron.node.name, neuron.variant.arithmetic, origin=neuron.origin)
            for region in left:
                context.missed(Refusal(region.rule, region.reason), f"state '{region.state}'")
        rewriter.finish()
        if outcome.changes:
            store_constants(module)
        return outcome

    def _settle_states(self, module: Module) -> int:
        """Leave each neuron the states it has in the textbook."""
        rewriter, index = Rewriter(module), GraphIndex(module)
        replaced = sum(replace_redundant_states(rewriter, step, index) for step in StepGraph.scans(module.graph))
        rewriter.finish()
        return replaced + drop_unread_ports(module)
