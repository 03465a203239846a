"""The classic rule: a layer that hardly fires is multiplied away. LOSSY, never in a preset."""

from __future__ import annotations

from snn_optimizer.analyses import Population, UnitGroups
from snn_optimizer.ir import GraphIndex, Rewriter, SNNGraph, Value
from snn_optimizer.passes.base import Outcome, PassContext, Refusal
from snn_optimizer.passes.structure.linear_maps import AffineMap, affine_map, only_reader

__all__ = ["fuse_quiet_layers"]

RESHAPING = frozenset({"Reshape", "Flatten", "Identity"})


def fuse_quiet_layers(graph: SNNGraph, context: PassContext, outcome: Outcome, rate_threshold: float) -> bool:
    """Replace W1, neurons, W2 by W2 @ W1 where the neurons' mean rate is below the threshold; one place a call."""
    groups = context.analyses.get(UnitGroups)
    index = GraphIndex(graph.module)
    maps = [m for c in groups.contractions if (m := affine_map(c, index)) is not None]
    for population in groups.populations:
        rates = graph.firing_rates.get(population.name)
        if rates is None or not population.variant.spiking or float(rates.mean()) >= rate_threshold:
            continue
        before = next((m for m in maps if _reaches(index, m.result, population.node.inputs[0])), None)
        after = [m for m in maps if _reaches(index, population.node.outputs[0], m.contraction.source)]
        refusal = _refusal(groups, index, population, before, after)
        if refusal is not None:
            context.missed(refusal, population.name)
            continue
        if not context.admits("quiet-layer", population.name):
            continue
        assert before is not None
        second = after[0]
        rewriter = Rewriter(graph.module)
        weights, bias = second.weights @ before.weights, second.weights @ before.bias + second.bias
        rewriter.set_input(second.node, 0, before.contraction.source)
        second.store(rewriter, weights, bias, index.scope_of(second.node).graph)
        rewriter.finish()
        graph.firing_rates.pop(population.name, None)
        outcome.changes += 1
        outcome.layers_fused += 1
        outcome.neurons_removed += population.neurons
        context.applied(
            "quiet-layer", population.name,
            f"mean rate {float(rates.mean()):.4g} is below {rate_threshold:g}: multiplied away, which changes results",
        )  # fmt: skip
        return True
    return False


def _reaches(index: GraphIndex, start: Value, goal: Value) -> bool:
    """Tell whether ``goal`` is ``start`` but for reshapes that nothing else reads."""
    value = start
    while value is not goal:
        node = only_reader(index, value)
        if node is None or node.domain or node.op not in RESHAPING:
            return False
        value = node.outputs[0]
    return True


def _refusal(
    groups: UnitGroups,
    index: GraphIndex,
    population: Population,
    before: AffineMap | None,
    after: list[AffineMap],
) -> Refusal | None:
    if before is None or len(after) != 1:
        return Refusal("not-adjacent", "the quiet layer is not one linear map in, one linear map out")
    if before.node.op == "Conv" or before.node.op != after[0].node.op:
        return Refusal("not-dense", "only dense layers are multiplied")
    if any(index.output_of(v) for v in population.node.outputs):
        return Refusal("is-output", "the quiet layer is an output")
    following = [
        p for p in groups.populations if p is not population and _reaches(index, after[0].result, p.node.inputs[0])
    ]
    if not following or following[0].variant.operator != population.variant.operator:
        return Refusal("other-neuron-type", "the next layer has neurons of another type")
    if following[0].variant.op_type != population.variant.op_type:
        return Refusal("other-neuron-type", "the next layer has neurons of another kind")
    return None
