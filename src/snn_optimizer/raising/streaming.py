"""Find the states of a model that runs one step per call.

A state comes in as an input and goes out as an output of the same type and shape that depends
on it. Which output belongs to which input is told by the dataflow, elementwise arithmetic first: the
membrane after the step is computed from the membrane before it without a threshold test or
a synapse between. Names break ties, and tell states that only a synapse reads (the spikes of a
recurrent layer), whose output must extend the input's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile

from snn_optimizer.errors import InputError, did_you_mean
from snn_optimizer.ir import Graph, GraphIndex, Module, Shapes, Value, is_standard
from snn_optimizer.raising.regions import ELEMENTWISE, TESTS
from snn_optimizer.raising.step_graph import State, StepGraph

__all__ = ["find_streaming_step"]

_SMOOTH, _TESTED, _NAMED = 4, 2, 3
_LEAST = 4  # smooth, or tested and named
_BARE = 2  # characters of a name that say nothing


def find_streaming_step(module: Module, shapes: Shapes, named: Mapping[str, str] | None = None) -> StepGraph | None:
    """Return the main graph as one step, None when it has no states.

    Parameters
    ----------
    module : Module
    shapes : Shapes
    named : mapping from input to output, optional
        States that the caller names; then no others are looked for.

    Raises
    ------
    InputError
        If a named state does not exist or does not fit.
    """
    graph = module.graph
    if named:
        return StepGraph(graph, _named_states(graph, shapes, named))
    if any(node.op in ("Scan", "Loop") for node in graph.nodes):
        return None
    index = GraphIndex(module)
    scores: list[tuple[int, Value, Value]] = []
    for before in graph.inputs:
        smooth = _reached(before, index, tests=False)
        tested = _reached(before, index, tests=True)
        everything = _depends(before, index)
        for after in graph.outputs:
            if after is before or not _fits(before, after, shapes) or id(after) not in everything:
                continue
            score = _SMOOTH if id(after) in smooth else _TESTED if id(after) in tested else 0
            score += _NAMED if _extends(before.name, after.name) else 0
            if score >= _LEAST or (score == _NAMED and _extends(before.name, after.name)):
                scores.append((score, before, after))
    pairs = _matched(scores)
    states = [State(before, after, None, slot) for slot, (before, after) in enumerate(pairs)]
    return StepGraph(graph, states) if states else None


def _named_states(graph: Graph, shapes: Shapes, named: Mapping[str, str]) -> list[State]:
    inputs = {value.name: value for value in graph.inputs}
    outputs = {value.name: value for value in graph.outputs}
    states: list[State] = []
    for before, after in named.items():
        for name, known, kind in ((before, inputs, "input"), (after, outputs, "output")):
            if name not in known:
                raise InputError(
                    f"state '{before}={after}': the model has no {kind} '{name}', only {', '.join(known)}"
                    f"{did_you_mean(name, known)}"
                )
        if not _fits(inputs[before], outputs[after], shapes):
            raise InputError(f"state '{before}={after}': the two have different shapes")
        states.append(State(inputs[before], outputs[after], None, len(states)))
    return states


def _fits(before: Value, after: Value, shapes: Shapes) -> bool:
    first, second = shapes.shape(before), shapes.shape(after)
    if first is None or second is None or len(first) != len(second) or before.dtype != after.dtype:
        return False
    return all(map(_may_agree, first, second))


def _may_agree(first: object, second: object) -> bool:
    return first == second or not (isinstance(first, int) and isinstance(second, int))


def _reached(start: Value, index: GraphIndex, *, tests: bool) -> set[int]:
    """Return the values that elementwise nodes compute from an input."""
    found = {id(start)}
    pending = [start]
    while pending:
        for use in index.consumers(pending.pop()):
            node = use.node
            if not is_standard(node) or node.op not in ELEMENTWISE or (node.op in TESTS and not tests):
                continue
            for value in node.outputs:
                if id(value) not in found:
                    found.add(id(value))
                    pending.append(value)
    return found


def _depends(start: Value, index: GraphIndex) -> set[int]:
    found = {id(start)}
    pending = [start]
    while pending:
        for use in index.consumers(pending.pop()):
            for value in use.node.outputs:
                if id(value) not in found:
                    found.add(id(value))
                    pending.append(value)
    return found


def _extends(before: str, after: str) -> bool:
    """Tell whether two names are one with something added: mem1 and mem1_out, v_in and v_next."""
    stem = before.removesuffix("_in").removesuffix("_prev")
    return after.startswith(stem) and _shared(before, after) >= min(_BARE, len(stem))


def _shared(first: str, second: str) -> int:
    """Return how many characters two names begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _matched(scores: list[tuple[int, Value, Value]]) -> list[tuple[Value, Value]]:
    """Give each input one output: the surest first, and inputs with one choice before others."""
    pairs: dict[int, tuple[Value, Value]] = {}
    order = [id(before) for _, before, _ in scores]
    open_scores = list(scores)
    while open_scores:
        choices = {key: sum(id(b) == key for _, b, _ in open_scores) for key in (id(b) for _, b, _ in open_scores)}
        best = max(open_scores, key=lambda s: (s[0], -choices[id(s[1])], _shared(s[1].name, s[2].name)))
        pairs[id(best[1])] = best[1], best[2]
        open_scores = [s for s in open_scores if s[1] is not best[1] and s[2] is not best[2]]
    return [pairs[key] for key in dict.fromkeys(order) if key in pairs]
