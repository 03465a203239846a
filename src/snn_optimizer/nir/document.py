"""NIR files as flat networks: every node by its full name, subgraphs opened, values as they stand in the file."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from snn_optimizer.errors import InputError, ModelLoadError, UnsupportedModelError

__all__ = ["KINDS", "NirFile", "NirNode", "encode", "read_file"]

KINDS: Final = (
    "Affine", "AvgPool2d", "Conv1d", "Conv2d", "CubaLI", "CubaLIF", "Delay", "Flatten", "I", "IF", "Input", "LI", "LIF",
    "Linear", "Output", "Scale", "SumPool2d", "Threshold",
)  # fmt: skip
"""The nodes that have a meaning here; NIRGraph, which only groups others, beside them."""

_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_MISSING: Final = "NIR files need the 'nir' package: pip install 'snn-optimizer[nir]'"


@dataclass(frozen=True)
class NirNode:
    """A node that computes.

    Attributes
    ----------
    name : str
        Full name, subgraphs before it with dots between.
    kind : str
        Member of :data:`KINDS`.
    values : mapping
        Parameters as they stand in the file, ``type`` and metadata left out.
    shape : tuple of int
        Shape of its output, without time and batch.
    """

    name: str
    kind: str
    values: Mapping[str, Any]
    shape: tuple[int, ...]

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """Return a parameter in double precision."""
        return np.asarray(self.values[name], np.float64)


@dataclass
class NirFile:
    """A network of a NIR file.

    Attributes
    ----------
    label : str
        Names the file in messages.
    nodes : dict
        By full name; Input and Output nodes of the whole network too, those of subgraphs left out.
    edges : list of (str, str)
        Between them, in an order that does not depend on the order in the file.
    content : dict
        What is in the file, as it is there.
    """

    label: str
    nodes: dict[str, NirNode]
    edges: list[tuple[str, str]]
    content: dict[str, Any] = field(repr=False, default_factory=dict)

    def inputs_of(self, name: str) -> list[str]:
        """Return the nodes whose outputs a node adds up."""
        return [first for first, second in self.edges if second == name]

    def raw(self, name: str) -> dict[str, Any] | None:
        """Return what is in the file under a full name; None for a node that the package added."""
        held: Any = self.content if name in self.nodes else None
        rest = name
        while rest and held is not None:
            inner = held["nodes"]
            key = next((k for k in sorted(inner, key=len, reverse=True) if rest == k or rest.startswith(f"{k}.")), "")
            held, rest = inner.get(key), rest[len(key) + 1 :]
        return None if held is None else dict(held)

    def outputs_of(self, name: str) -> list[str]:
        """Return the nodes that read a node."""
        return [second for first, second in self.edges if first == name]


def read_file(path: str | os.PathLike[str]) -> NirFile:
    """Read a NIR file.

    Raises
    ------
    InputError
        If the package ``nir`` is not installed.
    ModelLoadError
        If it is no NIR file, or one that the package refuses; with its reason in one line.
    UnsupportedModelError
        If it holds a node that is not known.
    """
    label = f"'{os.fspath(path)}'"
    _require_hdf5(Path(path), label)
    try:
        import h5py  # noqa: PLC0415 - an extra
        import nir  # noqa: PLC0415
        from nir.serialization import hdf2dict  # noqa: PLC0415
    except ImportError as error:
        raise InputError(f"{label}: {_MISSING}") from error
    try:
        with h5py.File(path, "r") as file:
            if "node" not in file:
                raise ModelLoadError(f"{label}: an HDF5 file, but not of a NIR network: it has no group 'node'")
            content: dict[str, Any] = hdf2dict(file["node"])
    except (OSError, KeyError, RuntimeError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{label}: not a NIR file, or cut off ({_line(error)})") from error
    if "type" not in content:
        raise ModelLoadError(f"{label}: not a NIR file, or not written to its end: its network has no type")
    if content["type"] != "NIRGraph":
        raise UnsupportedModelError(f"{label}: holds a single node '{content['type']}', not a network (NIRGraph)")
    _mend_edges(content, label)
    for name, node in _walk(content, ""):
        kind = node.get("type")
        if kind not in (*KINDS, "NIRGraph"):
            known = ", ".join(KINDS)
            raise UnsupportedModelError(f"{label}: node '{name}' is a '{kind}', which is not supported; known: {known}")
    try:
        typed = nir.dict2NIRNode(copy.deepcopy(content) | {"type_check": True})
    except (ValueError, TypeError, KeyError, AssertionError, AttributeError, IndexError, NotImplementedError) as error:
        raise ModelLoadError(
            f"{label}: the nir package {nir.version} refuses it: {_line(error)}{_age(error)}"
        ) from error
    return _flattened(label, typed, content)


def encode(content: Mapping[str, Any], label: str) -> bytes:
    """Return a NIR file as bytes, after the ``nir`` package has accepted its content.

    Raises
    ------
    UnsupportedModelError
        If it is not valid NIR.
    """
    import nir  # noqa: PLC0415 - an extra

    try:
        nir.dict2NIRNode(copy.deepcopy(dict(content)) | {"type_check": True})
    except (ValueError, TypeError, KeyError, AssertionError, AttributeError, NotImplementedError) as error:
        raise UnsupportedModelError(f"{label}: the network is not valid NIR: {_line(error)}") from error
    held = io.BytesIO()
    nir.write(held, _Content(content))
    return held.getvalue()


class _Content:
    """What the writer of the ``nir`` package asks of a network: its content, unchanged."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content

    def to_dict(self) -> Mapping[str, Any]:
        """Return the content."""
        return self._content


def _require_hdf5(path: Path, label: str) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(_SIGNATURE))
    except OSError as error:
        raise ModelLoadError(f"{label}: {error.strerror or error}") from error
    if start != _SIGNATURE:
        what = "the file is empty" if not start else "not a NIR file: it is not HDF5"
        raise ModelLoadError(f"{label}: {what}")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _age(error: BaseException) -> str:
    """Tell what is wrong with files that older versions of the package wrote."""
    text = str(error)
    if "does not exist in the graph" in text:
        return "; older files may name nodes inside a subgraph: let edges end at the subgraph, and write it again"
    if "type mismatch" in text:
        return "; older files may hold shapes with axes of length 1, as for a batch: export again with a sample without"
    return ""


def _walk(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, node in content.get("nodes", {}).items():
        yield prefix + name, node
        if node.get("type") == "NIRGraph":
            yield from _walk(node, f"{prefix}{name}.")


def _mend_edges(content: dict[str, Any], label: str) -> None:
    """Turn edges into pairs of text, in all subgraphs; h5py gives bytes."""
    for graph in [content, *(node for _, node in _walk(content, "") if node.get("type") == "NIRGraph")]:
        if not isinstance(graph.get("nodes", None), dict):
            raise ModelLoadError(f"{label}: a network without nodes")
        graph["edges"] = [tuple(_text(end) for end in edge) for edge in graph.get("edges", ())]


def _text(held: object) -> str:
    return held.decode("utf8") if isinstance(held, bytes) else str(held)


# -- flat view -------------------------------------------------------------------------------


def _flattened(label: str, typed: Any, content: dict[str, Any]) -> NirFile:
    nodes: dict[str, NirNode] = {}
    edges: list[tuple[str, str]] = []
    entries: dict[str, list[str]] = {}
    exits: dict[str, list[str]] = {}
    _gather(typed, content, "", nodes, edges, entries, exits)
    for name in entries:
        if name in nodes:
            raise UnsupportedModelError(f"{label}: two nodes have the full name '{name}'")
    passed = {*(port for ports in (entries, exits) for inner in ports.values() for port in inner)}
    edges = _bypassed(edges, entries, exits, passed)
    kept = {name: node for name, node in nodes.items() if name not in passed}
    order = {name: number for number, name in enumerate(sorted(kept))}
    found = sorted(set(edges), key=lambda edge: (order[edge[0]], order[edge[1]]))
    return NirFile(label, kept, found, content)


def _gather(
    typed: Any, content: Mapping[str, Any], prefix: str, nodes: dict[str, NirNode], edges: list[tuple[str, str]],
    entries: dict[str, list[str]], exits: dict[str, list[str]],
) -> None:  # fmt: skip
    for name, node in typed.nodes.items():
        full = prefix + name
        raw = content["nodes"].get(name)
        if type(node).__name__ == "NIRGraph":
            entries[full] = [f"{full}.{inner}" for inner in node.inputs]
            exits[full] = [f"{full}.{inner}" for inner in node.outputs]
            _gather(node, raw or node.to_dict(), f"{full}.", nodes, edges, entries, exits)
            continue
        values = raw if raw is not None else node.to_dict()
        shape = next(iter(node.output_type.values()), None) if node.output_type else None
        nodes[full] = NirNode(
            full,
            type(node).__name__,
            {k: v for k, v in values.items() if k not in ("type", "metadata")},
            () if shape is None else tuple(int(n) for n in np.atleast_1d(shape)),
        )
    edges.extend((prefix + first, prefix + second) for first, second in typed.edges)


def _bypassed(
    edges: list[tuple[str, str]], entries: Mapping[str, list[str]], exits: Mapping[str, list[str]], passed: set[str]
) -> list[tuple[str, str]]:
    """Let edges run through the ports of subgraphs."""
    moved = [
        (first, second)
        for a, b in edges
        for first in exits.get(a, [a])
        for second in entries.get(b, [b])
    ]  # fmt: skip
    for port in sorted(passed):
        before = [a for a, b in moved if b == port]
        after = [b for a, b in moved if a == port]
        moved = [(a, b) for a, b in moved if port not in (a, b)] + [(a, b) for a in before for b in after]
    return moved
