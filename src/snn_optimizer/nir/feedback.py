"""Which connections of a network with feedback are read one step late.

The equations of NIR are continuous, so feedback has no order of its own; on a grid of steps one connection of every
loop must carry the value of the step before. In ``lif -> w_rec -> lif`` that is either what leaves the neurons
(``spikes``, as in snnTorch: ``w_rec`` reads the spikes of the step before, and its bias acts at the first step too) or
what comes back to them (``current``, as in nirtorch, which Norse uses, and sinabs: the result of ``w_rec`` is kept, and
is zero at the first step, bias and all). Without a bias in ``w_rec`` the two are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from snn_optimizer.nir.document import NirFile

__all__ = ["FEEDBACKS", "Order", "evaluation_order"]

FEEDBACKS: Final = ("spikes", "current")

_STATEFUL = frozenset({"CubaLI", "CubaLIF", "Delay", "I", "IF", "LI", "LIF", "Input"})


@dataclass(frozen=True)
class Order:
    """How one step is computed.

    Attributes
    ----------
    names : list of str
        The nodes, in order.
    late : set of (str, str)
        Connections that carry the value of the step before.
    """

    names: list[str]
    late: set[tuple[str, str]]


def evaluation_order(network: NirFile, feedback: str = "spikes") -> Order:
    """Return the order of the nodes in one step, and the connections that are one step late.

    Parameters
    ----------
    network : NirFile
    feedback : {"spikes", "current"}
        What a loop carries from step to step: what leaves its neurons, or what comes back to them.
    """
    readers: dict[str, list[str]] = {name: [] for name in network.nodes}
    sources: dict[str, list[str]] = {name: [] for name in network.nodes}
    for first, second in network.edges:
        readers[first].append(second)
        sources[second].append(first)
    starts = [name for name, node in network.nodes.items() if node.kind == "Input"]
    late = _back_edges([*sorted(starts), *sorted(network.nodes)], readers)
    while feedback == "spikes" and (moved := _moved_back(network, late, readers, sources)) is not None:
        late = moved
    return Order(_sorted(sorted(network.nodes), readers, late), late)


def _back_edges(roots: Iterable[str], readers: dict[str, list[str]]) -> set[tuple[str, str]]:
    """Return the edges that close a loop in a walk in depth from the inputs."""
    done: set[str] = set()
    active: set[str] = set()
    found: set[tuple[str, str]] = set()
    for root in roots:
        if root in done:
            continue
        stack = [(root, iter(readers[root]))]
        active.add(root)
        while stack:
            name, following = stack[-1]
            for reader in following:
                if reader in active:
                    found.add((name, reader))
                elif reader not in done:
                    active.add(reader)
                    stack.append((reader, iter(readers[reader])))
                    break
            else:
                stack.pop()
                active.discard(name)
                done.add(name)
    return found


def _moved_back(
    network: NirFile, late: set[tuple[str, str]], readers: dict[str, list[str]], sources: dict[str, list[str]]
) -> set[tuple[str, str]] | None:
    """Move one late edge from behind a stateless node to before it, None when all leave neurons."""
    for first, second in sorted(late):
        stateless = network.nodes[first].kind not in _STATEFUL
        if stateless and len(readers[first]) == 1 and sources[first]:
            before = {(source, first) for source in sources[first]}
            if not before & late and first != second:
                return late - {(first, second)} | before
    return None


def _sorted(names: list[str], readers: dict[str, list[str]], late: set[tuple[str, str]]) -> list[str]:
    waiting = dict.fromkeys(names, 0)
    for name in names:
        for reader in readers[name]:
            waiting[reader] += (name, reader) not in late
    ready = [name for name in names if not waiting[name]]
    order: list[str] = []
    while ready:
        name = ready.pop(0)
        order.append(name)
        for reader in readers[name]:
            if (name, reader) not in late:
                waiting[reader] -= 1
                if not waiting[reader]:
                    ready.append(reader)
    return order
