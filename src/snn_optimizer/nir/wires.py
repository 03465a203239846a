"""Nodes that do nothing: no network over steps needs them, and a file that had them keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snn_optimizer.nir.document import NirFile, NirNode

__all__ = ["restore_wires"]


def restore_wires(nodes: dict[str, dict[str, Any]], edges: set[tuple[str, str]], file: NirFile) -> set[tuple[str, str]]:
    """Put the nodes of a file that do nothing back where what they connected is still connected.

    Parameters
    ----------
    nodes : dict
        Content by name; gains what is put back.
    edges : set of (str, str)
    file : NirFile

    Returns
    -------
    set of (str, str)
        The edges then.
    """
    gone = {name: node for name, node in file.nodes.items() if name not in nodes and _is_wire(node, file)}
    for name in sorted(gone):
        sources = _reached(name, file.inputs_of, gone, nodes)
        readers = _reached(name, file.outputs_of, gone, nodes)
        between = {(source, reader) for source in sources for reader in readers}
        if between and between <= edges and not between & set(file.edges):
            edges = edges - between | {(s, name) for s in sources} | {(name, r) for r in readers}
            nodes[name] = {"type": gone[name].kind, **gone[name].values, **_metadata(file, name)}
    return edges


def _reached(name: str, following: Any, gone: Mapping[str, NirNode], nodes: Mapping[str, Any]) -> set[str]:
    """Return the nodes next to one, across others that are still missing."""
    found: set[str] = set()
    pending, seen = list(following(name)), {name}
    while pending:
        other = pending.pop()
        if other in seen:
            continue
        seen.add(other)
        if other in gone and other not in nodes:
            pending.extend(following(other))
        else:
            found.add(other)
    return found


def _is_wire(node: NirNode, file: NirFile) -> bool:
    if node.kind == "Delay":
        return not node.array("delay").any()
    if node.kind == "Scale":
        return bool((node.array("scale") == 1).all())
    before = [file.nodes[name].shape for name in file.inputs_of(node.name)]
    return node.kind == "Flatten" and all(shape == node.shape for shape in before)


def _metadata(file: NirFile, name: str) -> dict[str, Any]:
    held = file.raw(name) or {}
    return {"metadata": held["metadata"]} if "metadata" in held else {}
