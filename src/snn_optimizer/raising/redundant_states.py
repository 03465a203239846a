"""States that another state determines: the spikes of the last step, where the membrane is there too.

Exporters let a delayed reset read the spikes of the step before. These are a function of the
membrane of the step before; where the initial spikes are the same function of the initial
membrane, the elementwise arithmetic of the step can compute them from it, and a neuron has its
usual states. Other readers, recurrent synapses, keep reading the state.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from snn_optimizer.ir import Array, GraphIndex, Node, Rewriter, Value, is_constant
from snn_optimizer.ir.contents import attributes_key, value_key
from snn_optimizer.raising.regions import ELEMENTWISE
from snn_optimizer.raising.shift import origin
from snn_optimizer.raising.step_graph import State, StepGraph
from snn_optimizer.raising.uniform import apply, uniform

__all__ = ["replace_redundant_states"]

_LONGEST = 16  # nodes of a function of a state


def replace_redundant_states(rewriter: Rewriter, step: StepGraph, index: GraphIndex) -> int:
    """Compute redundant states from others where elementwise nodes read them; return how many."""
    replaced = 0
    for state in step.states:
        readers = [use for use in index.consumers(state.before) if use.node.op in ELEMENTWISE]
        if not readers or state.initial is None:
            continue
        for other in step.states:
            if other is state or other.initial is None or other.after is state.after:
                continue
            function = _function(state.after, other.after)
            if function and (_starts_alike(function, state, other) or _computed_alike(state, other)):
                value = _copied(rewriter, step, function, other)
                rewriter.replace_uses(state.before, value, only=[use.node for use in readers])
                replaced += 1
                break
    return replaced


def _function(value: Value, argument: Value) -> list[Node]:
    """Return the nodes that compute ``value`` from ``argument`` and constants alone, in order; none if not."""
    order: list[Node] = []
    seen: set[int] = set()
    reads_argument = False

    def visit(current: Value) -> bool:
        nonlocal reads_argument
        if current is argument:
            reads_argument = True
            return True
        if is_constant(current):
            return True
        node = current.inputs[0] if current.inputs else None
        if node is None or node.op not in ELEMENTWISE or node.domain:
            return False
        if id(node) not in seen:
            seen.add(id(node))
            if len(seen) > _LONGEST or not all(map(visit, node.inputs)):
                return False
            order.append(node)
        return True

    return order if visit(value) and reads_argument else []


def _starts_alike(function: list[Node], state: State, other: State) -> bool:
    """Tell whether the function of the other's initial value is the state's initial value."""
    assert state.initial is not None  # the caller looked
    assert other.initial is not None  # the caller looked
    start, wanted = uniform(other.initial), uniform(state.initial)
    if start is None or wanted is None:
        return False
    known: dict[int, Array] = {id(other.after): start}
    lookup: Callable[[Value], Array | None] = lambda value: known.get(id(value), uniform(value))  # noqa: E731
    for node in function:
        arrays = [lookup(value) for value in node.inputs]
        result = None if any(a is None for a in arrays) else apply(node, [a for a in arrays if a is not None])
        if result is None:
            return False
        known[id(node.outputs[0])] = result
    found = known[id(function[-1].outputs[0])]
    return found.dtype == wanted.dtype and bool(np.all(found == wanted))


def _computed_alike(state: State, other: State) -> bool:
    """Tell whether the file computes one initial value from the other as the step computes the states."""
    assert state.initial is not None  # the caller looked
    assert other.initial is not None  # the caller looked
    pending = [(state.after, state.initial)]
    while pending:
        value, start = pending.pop()
        start = origin(start)
        if value is other.after:
            if start is not origin(other.initial):
                return False
            continue
        if is_constant(value):
            if value_key(value) != value_key(start):
                return False
            continue
        node, twin = value.inputs[0], start.inputs[0] if start.inputs else None
        if twin is None or _kind(node) != _kind(twin):
            return False
        pending += zip(node.inputs, twin.inputs, strict=True)
    return True


def _kind(node: Node) -> tuple[object, ...]:
    attributes = attributes_key(node)
    return node.domain, node.op, attributes, len(node.inputs)


def _copied(rewriter: Rewriter, step: StepGraph, function: list[Node], other: State) -> Value:
    made: dict[int, Value] = {id(other.after): other.before}
    result = other.before
    for node in function:
        result = rewriter.value(f"{node.outputs[0].name}_before", node.outputs[0].dtype, node.outputs[0].shape)
        rewriter.add_like(step.graph, node, [made.get(id(value), value) for value in node.inputs], [result])
        made[id(node.outputs[0])] = result
    return result
