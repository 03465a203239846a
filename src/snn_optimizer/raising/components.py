"""Strongly connected components of a step: what depends on its own past."""

from __future__ import annotations

from collections.abc import Sequence

from snn_optimizer.ir import Node, reads_of
from snn_optimizer.raising.step_graph import StepGraph

__all__ = ["components"]


def components(step: StepGraph) -> list[list[Node]]:
    """Return the nodes of a step in groups that need each other, in an order of computation.

    A state makes what reads it depend on what returns it. Tarjan's algorithm, without recursion;
    linear in nodes and edges.
    """
    nodes = list(step.graph.nodes)
    producer = {id(value): index for index, node in enumerate(nodes) for value in node.outputs}
    returned = {id(state.before): id(state.after) for state in step.states}
    needs: list[list[int]] = []
    for node in nodes:
        read = (returned.get(id(value), id(value)) for value in reads_of(node))
        needs.append([producer[key] for key in read if key in producer])
    groups = _tarjan(needs)
    return [[nodes[index] for index in sorted(group)] for group in groups]


def _tarjan(needs: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the components of a graph, each after those it needs."""
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    waiting: set[int] = set()
    groups: list[list[int]] = []
    for start in range(len(needs)):
        if start in number:
            continue
        work = [(start, iter(needs[start]))]
        number[start] = low[start] = len(number)
        stack.append(start)
        waiting.add(start)
        while work:
            node, rest = work[-1]
            following = next(rest, None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    group: list[int] = []
                    while not group or group[-1] != node:
                        group.append(stack.pop())
                        waiting.discard(group[-1])
                    groups.append(group)
            elif following not in number:
                number[following] = low[following] = len(number)
                stack.append(following)
                waiting.add(following)
                work.append((following, iter(needs[following])))
            elif following in waiting:
                low[node] = min(low[node], number[following])
    return groups
