"""Replace leaky neurons that do not leak by integrators.

Before: ``LIF(X, v0, beta, gain, ...)`` with every ``beta`` equal to 1
After:  ``IF(X, v0, gain, ...)``

Sound because ``1 * v`` is ``v`` in IEEE 754, NaN and infinities included, and the two operators share the rest of
their definition.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from snn_optimizer import SNNGraph, ops
from snn_optimizer.ir import Node, Rewriter, array_of
from snn_optimizer.ops import NeuronVariant
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext, Refusal


@dataclass(frozen=True, slots=True)
class LeakFreeNeurons(Pass):
    """Write neurons that do not leak as integrators: one multiplication per neuron and step less.

    Attributes
    ----------
    tolerance : float
        Leaks up to this are taken for none; above 0 the pass changes results and needs a budget.
    """

    name: ClassVar[str] = "leak-free-neurons"
    exactness: ClassVar[Exactness] = Exactness.LOSSY

    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance is {self.tolerance:g}; it must be at least 0 and below 1")

    @property
    def claim(self) -> Exactness:
        """With these options."""
        return Exactness.LOSSY if self.tolerance else Exactness.BITWISE

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Look at every neuron of the main graph and of loops."""
        outcome = Outcome()
        rewriter = Rewriter(graph.module)
        for scope in list(graph.module.scopes()):
            for node in list(scope.graph.nodes) if scope.kind != "function" else ():
                if not ops.is_neuron(node.domain or "", node.op):
                    continue
                variant = NeuronVariant.parse(node.op, node.attrs)
                if (refusal := self._refusal(node, variant)) is not None:
                    context.missed(refusal, node.name)
                elif context.admits("no-leak", node.name):
                    _write_integrator(rewriter, node, variant)
                    outcome.changes += 1
                    context.applied("no-leak", node.name, "LIF became IF")
        if outcome.changes:
            rewriter.finish()
        return outcome

    def _refusal(self, node: Node, variant: NeuronVariant) -> Refusal | None:
        if variant.operator != "LIF":
            return Refusal("not-leaky", f"a {variant.operator} is no LIF")
        if variant.arithmetic != "decay":
            return Refusal("other-arithmetic", "only 'beta*v + gain*x' has a factor on the membrane to leave out")
        beta = array_of(node.inputs[variant.inputs.index("beta")])
        if beta is None:
            return Refusal("beta-not-constant", "beta is computed when the model runs")
        leak = float(np.max(np.abs(1 - beta)))
        return Refusal("leaks", f"beta is up to {leak:g} away from 1") if not leak <= self.tolerance else None


def _write_integrator(rewriter: Rewriter, node: Node, variant: NeuronVariant) -> None:
    integrator = replace(variant, operator="IF")
    inputs = [value for name, value in zip(variant.inputs, node.inputs, strict=True) if name != "beta"]
    rewriter.retarget(node, (ops.DOMAIN, integrator.op_type), inputs, integrator.attributes())
    opset = min(max(rewriter.module.opset(), ops.MINIMUM_OPSET), ops.MAXIMUM_OPSET)
    rewriter.module.add_function(ops.function_proto(integrator, opset))
