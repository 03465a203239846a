"""The vocabulary of the IR: values, nodes, graphs, scopes and questions about constants.

The objects are those of the graph library; the protocols here are what the rest of the
package, and mypy, sees of them. Objects are compared with ``is`` and keyed by ``id()``:
``==`` of the library compares names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, cast

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snn_optimizer.ir.tensors import HeldTensor

__all__ = [
    "Array",
    "Dimension",
    "Function",
    "Graph",
    "Node",
    "OpKey",
    "Scope",
    "Use",
    "Value",
    "array_of",
    "bodies_of",
    "bytes_of_constant",
    "captures_of",
    "describe",
    "dtype_of_constant",
    "is_constant",
    "is_missing",
    "is_standard",
    "reads_of",
    "shape_of_constant",
]

Array: TypeAlias = NDArray[Any]
Dimension: TypeAlias = int | str | None
OpKey: TypeAlias = tuple[str, str]  # domain, operator


class Value(Protocol):
    """An edge: the output of a node, a graph input, an initializer, or a missing optional.

    ``dtype`` is a NumPy type (those of ``ml_dtypes`` included) and None when unknown or
    not a tensor; ``shape`` is None when the rank is unknown. ``inputs`` holds the
    producer, ``outputs`` the readers in every scope, once per slot.
    """

    name: str
    dtype: Any
    shape: Sequence[Dimension] | None
    inputs: list[Node]
    outputs: list[Node]


class Node(Protocol):
    """A call of an operator. ``domain`` is ``""`` for standard operators."""

    op: str
    name: str
    domain: str | None
    attrs: dict[str, Any]
    inputs: list[Value]
    outputs: list[Value]


class Graph(Protocol):
    """The main graph, a body of Scan, Loop or If, or the body of a function."""

    nodes: list[Node]
    inputs: list[Value]
    outputs: list[Value]
    name: str


class Function(Graph, Protocol):
    """A model-local function; its ``name`` is the operator it defines."""

    domain: str


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """One reading of a value: input ``slot`` of ``node``. Compared by identity."""

    node: Node
    slot: int


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """A graph and where it hangs.

    Attributes
    ----------
    graph : Graph
    path : str
        ``main``, ``main/<node>.<attribute>`` or ``<domain>::<function>``, nested bodies
        appended.
    kind : {"main", "body", "function"}
    owner : Node or None
        The node whose attribute a body is.
    parent : Scope or None
        The scope a body captures from.
    """

    graph: Graph
    path: str
    kind: Literal["main", "body", "function"]
    owner: Node | None = None
    parent: Scope | None = None


def describe(node: Node) -> str:
    """Name a node for a message; unnamed nodes by operator and first output."""
    if node.name:
        return f"'{node.name}' ({node.op})"
    output = next((value.name for value in node.outputs if value.name), "")
    return f"{node.op} that makes '{output}'"


def is_standard(node: Node, *ops: str) -> bool:
    """Tell whether a node is a standard ONNX operator, one of ``ops`` when given."""
    return not node.domain and (not ops or node.op in ops)


def is_unscaled(node: Node) -> bool:
    """Tell whether a linear node multiplies neither its product nor its bias by a factor."""
    return node.op != "Gemm" or all(float(node.attrs.get(name, 1.0)) == 1.0 for name in ("alpha", "beta"))


def is_missing(value: Value) -> bool:
    """Tell whether a slot holds no value (an optional input or output left out)."""
    return not value.name


def _held(value: Value) -> Any:
    """Return what stores the values of a constant: array, held tensor, or None."""
    if isinstance(value, gs.Constant):
        return value._values  # noqa: SLF001 -- `values` would load and replace the lazy tensor
    if len(value.inputs) == 1 and is_standard(value.inputs[0], "Constant"):
        return _constant_node_values(value.inputs[0])
    return None


def _constant_node_values(node: Node) -> Any:
    for name, held in node.attrs.items():
        if name in ("value", "sparse_value") and isinstance(held, gs.Constant):
            return held._values  # noqa: SLF001 -- see above
        if name in ("value_float", "value_floats"):
            return np.asarray(held, dtype=np.float32)
        if name in ("value_int", "value_ints"):
            return np.asarray(held, dtype=np.int64)
        if name in ("value_string", "value_strings"):
            return np.asarray(held, dtype=object)
    return None


def is_constant(value: Value) -> bool:
    """Tell whether the values are in the file: an initializer or a ``Constant`` node.

    An initializer that is also a graph input is not constant: the caller may override it.
    """
    return _held(value) is not None


def array_of(value: Value) -> Array | None:
    """Return the values of a constant, or None when ``value`` is computed at run time.

    Loads lazily and never keeps a second copy of large weights. The array is read-only
    by convention, and in fact wherever it is a view of the file.
    """
    held = _held(value)
    if isinstance(held, HeldTensor):
        return held.load()
    return cast("Array | None", held)


def shape_of_constant(value: Value) -> tuple[int, ...] | None:
    """Return the shape of a constant without loading it; None when not a constant."""
    held = _held(value)
    return None if held is None else tuple(int(size) for size in held.shape)


def dtype_of_constant(value: Value) -> np.dtype[Any] | None:
    """Return the type of a constant without loading it; None when not a constant."""
    held = _held(value)
    return None if held is None else cast("np.dtype[Any]", held.dtype)


def bytes_of_constant(value: Value) -> int:
    """Return the bytes a constant takes in a file without loading it; 0 when not a constant."""
    held = _held(value)
    return 0 if held is None else int(getattr(held, "stored_bytes", held.nbytes))


def bodies_of(node: Node) -> list[tuple[str, Graph]]:
    """Return the subgraphs of a node with the names of their attributes, in order."""
    found: list[tuple[str, Graph]] = []
    for name, held in node.attrs.items():
        if isinstance(held, gs.Graph):
            found.append((name, cast("Graph", held)))
        elif isinstance(held, list) and held and isinstance(held[0], gs.Graph):
            found.extend((f"{name}[{index}]", body) for index, body in enumerate(held))
    return found


def captures_of(node: Node) -> list[Value]:
    """Return the values of enclosing scopes that the bodies of a node read, with repeats."""
    captured: list[Value] = []
    for _, body in bodies_of(node):
        local = {id(value) for value in body.inputs}
        local.update(id(value) for inner in body.nodes for value in inner.outputs)
        captured.extend(value for value in _body_reads(body) if id(value) not in local)
    return captured


def _body_reads(body: Graph) -> Iterator[Value]:
    for inner in body.nodes:
        for value in reads_of(inner):
            if value.name:
                yield value
    yield from body.outputs


def reads_of(node: Node) -> list[Value]:
    """Return every value a node reads: its inputs and what its bodies capture."""
    return [*node.inputs, *captures_of(node)] if node.attrs else list(node.inputs)
