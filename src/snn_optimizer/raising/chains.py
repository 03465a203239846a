"""Nodes that stand in the file once per step, as lanes, and which lanes belong together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from snn_optimizer.ir import Node, is_standard
from snn_optimizer.raising.loop import Lane
from snn_optimizer.raising.shift import Shift, producer_of
from snn_optimizer.raising.slices import Step

__all__ = ["between", "chained", "components_of"]

_SHORT: Final = 3  # of a lane in a file of two steps, which may start a step early


def chained(nodes: Sequence[Node], shift: Shift) -> dict[int, tuple[Lane, int]]:
    """Follow the correspondence from first to last nodes; return lane and position of each node."""
    owner: dict[int, tuple[Lane, int]] = {}
    for node in nodes:
        if id(node) in shift.before or id(node) not in shift.after:
            continue
        chain = [node]
        while (following := shift.after.get(id(chain[-1]))) is not None:
            chain.append(following)
        lane = Lane(chain)
        owner.update((id(member), (lane, position)) for position, member in enumerate(chain))
    return owner


def components_of(owner: Mapping[int, tuple[Lane, int]]) -> list[list[Lane]]:
    """Group lanes that read each other; a sequence and its steps are no connection."""
    lanes = {id(lane): lane for lane, _ in owner.values()}
    root = {key: key for key in lanes}

    def find(key: int) -> int:
        while root[key] != key:
            root[key] = root[root[key]]
            key = root[key]
        return key

    for lane in lanes.values():
        for node in lane.nodes:
            for value in node.inputs:
                producer = producer_of(value)
                if producer is not None and id(producer) in owner:
                    root[find(id(owner[id(producer)][0]))] = find(id(lane))
    groups: defaultdict[int, list[Lane]] = defaultdict(list)
    for key, lane in lanes.items():
        groups[find(key)].append(lane)
    return list(groups.values())


def between(
    nodes: Sequence[Node], owner: Mapping[int, tuple[Lane, int]], steps: Mapping[int, Step]
) -> dict[int, tuple[Lane, int]]:
    """Return lanes of nodes that are there once, compute with a step and are read by one; none if loops are long.

    Paths through sequences and shapes do not count.
    """
    if any(len(lane.nodes) > _SHORT for lane, _ in owner.values()):
        return {}
    carriers = [
        node
        for node in nodes
        if not is_standard(node, "Shape", "Size") and not any(id(value) in steps for value in node.outputs)
    ]
    after = set(owner)
    for node in carriers:
        if any(id(maker) in after for maker in map(producer_of, node.inputs) if maker is not None):
            after.add(id(node))
    needed = set(owner)
    for node in reversed(carriers):
        if id(node) in needed:
            needed.update(id(maker) for maker in map(producer_of, node.inputs) if maker is not None)
    return {
        id(node): (Lane([node]), 0)
        for node in carriers
        if id(node) in after and id(node) in needed and id(node) not in owner and not is_standard(node, "Identity")
    }
