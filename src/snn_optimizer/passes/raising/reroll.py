"""Roll an unrolled graph back into a loop over time.

Before: the nodes of every time step, one after the other, as exporters write them
After:  one ``Scan`` whose body is one step

Sound because every node of every step is compared with the body: same operator, same
attributes, and every operand the same kind of thing at the same distance in time. A first step
that the exporter folded is kept before the loop unless initial states are found that give
exactly its nodes (:mod:`snn_optimizer.raising.first_step`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from snn_optimizer import ops
from snn_optimizer.ir import GraphIndex, Module, Node, Rewriter, Shapes, SNNGraph
from snn_optimizer.passes.base import BEYOND_LIMIT, Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.raising.lanes import Found, find_loops
from snn_optimizer.raising.roll import ShapeUnknown, roll
from snn_optimizer.raising.separate import Separation, separate
from snn_optimizer.raising.unread import drop_unread_ports

__all__ = ["Reroll"]


@dataclass(frozen=True, slots=True)
class Reroll(Pass):
    """Find unrolled time loops in the main graph and write each as one ``Scan``.

    Cost is linear in the nodes. Idempotent: a step is left once.
    """

    name: ClassVar[str] = "reroll"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Find the loops, prove them, and write them."""
        module = graph.module
        if any(_runs_all_steps(node) for node in module.graph.nodes):
            return Outcome()  # equal layers one after the other look like steps, and are none
        found, separation = _found(module)
        for irregular in found.refused:
            place = f"step {irregular.step} at {irregular.node}"
            context.missed(Refusal(irregular.rule, f"step {irregular.step}: {irregular.reason}"), place)
        if not found.loops:
            return Outcome()
        rewriter, index, shapes = Rewriter(module), GraphIndex(module), Shapes.compute(module, declared=False)
        outcome = Outcome()
        for number, loop in enumerate(found.loops):
            name = "time" if len(found.loops) == 1 else f"time_{number}"
            if not context.admits("rolled", name):
                context.missed(BEYOND_LIMIT, name)
                continue
            try:
                scan = roll(rewriter, index, shapes, loop, name)
            except ShapeUnknown as error:
                context.missed(Refusal("state-shape-unknown", f"the shape of state '{error}' is not known"), name)
                continue
            outcome.changes += 1
            outcome.count("loops")
            outcome.count("steps", loop.steps)
            context.applied("rolled", scan.name, f"{loop.steps} steps of {len(loop.lanes)} nodes", steps=loop.steps)
        rewriter.finish()
        if separation is not None and not outcome.changes:
            separation.undo()
        drop_unread_ports(module)
        return outcome


def _runs_all_steps(node: Node) -> bool:
    """Tell whether a node is a neuron that runs over all steps: such a network is not unrolled."""
    if not ops.is_neuron(node.domain or "", node.op):
        return False
    return ops.NeuronVariant.parse(node.op, node.attrs).form != "cell"


def _found(module: Module) -> tuple[Found, Separation | None]:
    """Return the loops; those that need each other by way of a sequence are taken apart."""
    found = find_loops(module, module.graph.nodes)
    if not any(irregular.rule == "needs-itself" for irregular in found.refused):
        return found, None
    separation = separate(module, found.owner)
    if separation is None:
        return found, None
    apart = find_loops(module, module.graph.nodes)
    if apart.nodes > found.nodes:
        return apart, separation
    separation.undo()
    return found, None
