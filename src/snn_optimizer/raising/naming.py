"""Names for raised neurons, from what the exporter wrote beside the nodes.

TorchScript exports name nodes by module scope (``/net/net.1_9/Cast``, the call's number appended),
torch.export writes the scope and the classes of the modules into the metadata of the nodes. Names are
for people only; nothing is recognized by them.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable

from snn_optimizer.ir import Module, Node

__all__ = ["origin_class", "population_name"]

_SCOPES = "pkg.torch.onnx.name_scopes"
_CLASSES = "pkg.torch.onnx.class_hierarchy"
_CALL_NUMBER = re.compile(r"_\d+$")


def population_name(module: Module, nodes: Iterable[Node]) -> str | None:
    """Return the name of the module most of these nodes come from, None when the file does not say."""
    votes = Counter(name for node in nodes if (name := _scope(module, node)))
    return max(votes, key=lambda name: (votes[name], name)) if votes else None


def origin_class(module: Module, nodes: Iterable[Node]) -> str | None:
    """Return the class of the module most of these nodes come from, None when the file does not say."""
    votes = Counter(names[-2] for node in nodes if len(names := _listed(module, node, _CLASSES)) > 1)
    return max(votes, key=lambda name: (votes[name], name)) if votes else None


def _scope(module: Module, node: Node) -> str | None:
    scopes = _listed(module, node, _SCOPES)
    if len(scopes) > 1 and scopes[-2]:
        return scopes[-2]
    parts = node.name.split("/")
    if len(parts) > 2 and parts[0] == "":
        return _CALL_NUMBER.sub("", parts[-2]) or None
    return None


def _listed(module: Module, node: Node, key: str) -> list[str]:
    """Return a list of names from the metadata of a node."""
    origin = module.sidecar.origin(node)
    if origin is None:
        return []
    for entry in origin.metadata_props:
        if entry.key == key and len(entry.value) < 4096:
            try:
                found = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                return []
            return [str(name) for name in found] if isinstance(found, list) else []
    return []
