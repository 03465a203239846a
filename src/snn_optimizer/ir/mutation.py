"""Linear primitives that change graphs, by identity.

The lists of the graph library search with ``==`` on every change; these functions go
around them and keep both ends of each link right themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import onnx_graphsurgeon as gs

from snn_optimizer.ir.types import Graph, Node, Value, bodies_of, describe, reads_of

__all__ = [
    "CycleError",
    "connect_input",
    "detach",
    "is_sorted",
    "reconnect",
    "reconnect_inputs",
    "replace_readers",
    "sort_stable",
    "with_bodies",
]


class CycleError(ValueError):
    """Nodes of a graph read each other in a circle."""


def _drop(links: list[Node], node: Node) -> None:
    """Remove one link to ``node``.

    The search starts where the last one ended, which the list remembers: passes unlink
    the readers of a shared constant in the order of the list or against it.
    """
    size = len(links)
    start = min(getattr(links, "cursor", 0), size - 1)
    for distance in range(size):
        for index in (start + distance, start - distance):
            if 0 <= index < size and links[index] is node:
                list.__delitem__(links, index)
                vars(links)["cursor"] = index
                return


def connect_input(node: Node, slot: int, value: Value) -> None:
    """Make ``value`` the input ``slot`` of ``node``; the slot must exist."""
    old = node.inputs[slot]
    if old is value:
        return
    _drop(old.outputs, node)
    list.__setitem__(node.inputs, slot, value)
    list.append(value.outputs, node)


def reconnect_inputs(node: Node, values: Sequence[Value]) -> None:
    """Make ``values`` the inputs of ``node``."""
    for value in node.inputs:
        _drop(value.outputs, node)
    list.clear(node.inputs)
    list.extend(node.inputs, values)
    for value in values:
        list.append(value.outputs, node)


def reconnect(holder: Node | Graph, inputs: Sequence[Value], outputs: Sequence[Value]) -> list[Value]:
    """Make ``inputs`` and ``outputs`` those of a node or a graph.

    Returns
    -------
    list of Value
        What it read or returned before.
    """
    if not isinstance(holder, gs.Node):
        before = list(holder.outputs)
        holder.inputs[:], holder.outputs[:] = list(inputs), list(outputs)
        return before
    before = list(holder.inputs)
    reconnect_inputs(holder, list(inputs))
    for value in holder.outputs:
        _drop(value.inputs, holder)
    made = list(outputs)
    list.clear(holder.outputs)
    list.extend(holder.outputs, made)
    for value in made:
        list.append(value.inputs, holder)
    return before


def with_bodies(nodes: Iterable[Node]) -> list[Node]:
    """Return nodes and, after each, the nodes of its bodies."""
    found: list[Node] = []
    for node in nodes:
        found.append(node)
        for _, body in bodies_of(node):
            found.extend(with_bodies(body.nodes))
    return found


def detach(nodes: Iterable[Node]) -> list[Value]:
    """Unlink nodes, and the nodes of their bodies, from all values.

    One filtering pass per touched value, however many nodes read it.

    Returns
    -------
    list of Value
        What they read, each once.
    """
    gone = with_bodies(nodes)
    dead = {id(node) for node in gone}
    read: dict[int, Value] = {}
    made: dict[int, Value] = {}
    for node in gone:
        read.update((id(value), value) for value in node.inputs)
        made.update((id(value), value) for value in node.outputs)
        list.clear(node.inputs)
        list.clear(node.outputs)
    for value in read.values():
        list.__setitem__(value.outputs, slice(None), [n for n in value.outputs if id(n) not in dead])
    for value in made.values():
        list.__setitem__(value.inputs, slice(None), [n for n in value.inputs if id(n) not in dead])
    return list(read.values())


def replace_readers(old: Value, new: Value, only: Collection[Node] | None = None) -> int:
    """Let the readers of ``old`` read ``new`` in the same slots; return how many slots."""
    chosen = None if only is None else {id(node) for node in only}
    kept: list[Node] = []
    moved: list[Node] = []
    seen: set[int] = set()
    for node in old.outputs:
        if chosen is not None and id(node) not in chosen:
            kept.append(node)
            continue
        moved.append(node)
        if id(node) in seen:
            continue
        seen.add(id(node))
        for slot, value in enumerate(node.inputs):
            if value is old:
                list.__setitem__(node.inputs, slot, new)
    list.__setitem__(old.outputs, slice(None), kept)
    list.extend(new.outputs, moved)
    return len(moved)


def _producer_indices(nodes: Sequence[Node]) -> dict[int, int]:
    return {id(value): index for index, node in enumerate(nodes) for value in node.outputs if value.name}


def is_sorted(graph: Graph) -> bool:
    """Tell whether every node comes after what it reads."""
    producers = _producer_indices(graph.nodes)
    return all(
        producers.get(id(value), -1) < index for index, node in enumerate(graph.nodes) for value in reads_of(node)
    )


def sort_stable(graph: Graph) -> bool:
    """Sort the nodes of a graph topologically; bodies are left alone.

    A sorted graph is not changed. In others a node moves to just before its first
    reader. Iterative, linear.

    Returns
    -------
    bool
        Whether the order changed.

    Raises
    ------
    CycleError
        If there is no order; names the nodes of one circle.
    """
    if is_sorted(graph):
        return False
    nodes = graph.nodes
    producers = _producer_indices(nodes)
    needs: list[list[int]] = [
        sorted({producers[id(value)] for value in reads_of(node) if id(value) in producers}) for node in nodes
    ]
    state = bytearray(len(nodes))  # 0 new, 1 on the stack, 2 placed
    order: list[Node] = []
    for root in range(len(nodes)):
        if state[root]:
            continue
        stack = [(root, iter(needs[root]))]
        state[root] = 1
        while stack:
            index, pending = stack[-1]
            successor = next(pending, None)
            if successor is None:
                stack.pop()
                state[index] = 2
                order.append(nodes[index])
            elif state[successor] == 1:
                on_stack = [entry[0] for entry in stack]
                circle = [nodes[i] for i in on_stack[on_stack.index(successor) :]]
                shown = " <- ".join(describe(node) for node in circle[:4])
                more = f" <- {len(circle) - 4} more" if len(circle) > 4 else ""
                raise CycleError(f"nodes read each other in a circle: {shown}{more}")
            elif not state[successor]:
                state[successor] = 1
                stack.append((successor, iter(needs[successor])))
    graph.nodes = order
    return True
