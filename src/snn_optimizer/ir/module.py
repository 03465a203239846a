"""One ONNX model in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs
from onnx import FunctionProto, GraphProto, ModelProto

from snn_optimizer.ir.atomic import AtomicFiles
from snn_optimizer.ir.clone import clone_model
from snn_optimizer.ir.export import Exporter, Sink
from snn_optimizer.ir.load import Loaded, read_function, read_model
from snn_optimizer.ir.objects import new_variable
from snn_optimizer.ir.save import build_complete, build_skeleton, write_files
from snn_optimizer.ir.sidecar import Sidecar
from snn_optimizer.ir.tensors import HeldTensor
from snn_optimizer.ir.types import (
    Dimension,
    Function,
    Graph,
    Node,
    Scope,
    Value,
    bodies_of,
    bytes_of_constant,
    dtype_of_constant,
)

__all__ = ["OPERATOR_DOMAIN", "FunctionKey", "Module", "ValueSpec"]

ValueSpec = tuple[str, npt.DTypeLike | None, Sequence[Dimension] | None]
"""Name, element type and shape of an input or output."""

FunctionKey = tuple[str, str, str]
"""Domain, name and overload of a model-local function."""

OPERATOR_DOMAIN: Final = "ai.snn"

_FIRST_IR_WITH_FUNCTIONS: Final = 8


class Module:
    """One ONNX model: a graph of the graph library and what that cannot hold.

    Use :meth:`load` or :meth:`empty`. All changes to nodes and values go through
    :class:`~snn_optimizer.ir.rewriter.Rewriter`.

    Attributes
    ----------
    graph : Graph
        The main graph.
    path : Path or None
        The file it was loaded from.
    functions : list of Function
        The model-local functions.
    opset_imports : dict of str to int
        Version of each operator domain; the standard domain is ``""`` or ``"ai.onnx"``.
    metadata : dict of str to str
        The metadata properties of the model.
    sidecar : Sidecar
        For the rest of ``ir``.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.graph: Graph = loaded.graph
        self.path: Path | None = loaded.path
        self.functions: list[Function] = loaded.functions
        self.sidecar: Sidecar = loaded.sidecar
        self._external = loaded.external
        header = self.sidecar.header
        self.opset_imports: dict[str, int] = {e.domain: int(e.version) for e in header.opset_import}
        self.metadata: dict[str, str] = {e.key: e.value for e in header.metadata_props}
        self.ir_version: int = int(header.ir_version)
        self.loaded_functions: frozenset[FunctionKey] = frozenset(map(self.key_of, self.functions))
        self.bodiless: frozenset[FunctionKey] = self._find_bodiless()

    # ------------------------------------------------------------ constructors

    @classmethod
    def load(cls, source: str | os.PathLike[str] | ModelProto) -> Self:
        """Load a model from a file, or from a message, which is not modified.

        Large tensors stay in the file and are mapped when asked for.

        Raises
        ------
        ModelLoadError
            If the file is not a valid ONNX model, or its data is missing.
        UnsupportedModelError
            If the model uses something that cannot be kept.
        """
        return cls(read_model(source))

    @classmethod
    def empty(
        cls,
        *,
        inputs: Sequence[ValueSpec],
        outputs: Sequence[ValueSpec],
        opset: int = 18,
        name: str = "snn",
    ) -> Self:
        """Return a model without nodes; produce its outputs with a ``Rewriter``."""
        opsets = [onnx.helper.make_opsetid("", opset)]
        header = ModelProto(
            ir_version=max(_FIRST_IR_WITH_FUNCTIONS, onnx.helper.find_min_ir_version_for(opsets)),
            opset_import=opsets,
            producer_name="snn_optimizer",
        )
        graph: Graph = gs.Graph(name=name, opset=opset)
        graph.inputs.extend(_variable(spec) for spec in inputs)
        graph.outputs.extend(_variable(spec) for spec in outputs)
        sidecar = Sidecar(header)
        sidecar.record(graph).header = GraphProto(name=name)
        return cls(Loaded(graph, [], sidecar, None, external=False))

    def copy(self, *, share_weights: bool = True) -> Self:
        """Return an independent module.

        Parameters
        ----------
        share_weights : bool
            Let constants share their arrays, which nobody writes to in place; False
            gives each constant an array of its own.
        """
        graph, functions, sidecar = clone_model(self.graph, self.functions, self.sidecar, share_weights=share_weights)
        twin = type(self)(Loaded(graph, functions, sidecar, self.path, external=self._external))
        twin.opset_imports = dict(self.opset_imports)
        twin.metadata = dict(self.metadata)
        twin.ir_version = self.ir_version
        twin.loaded_functions = self.loaded_functions
        twin.bodiless = self.bodiless
        return twin

    # ----------------------------------------------------------------- writing

    def to_proto(self) -> ModelProto:
        """Return the complete model as a message.

        Raises
        ------
        UnsupportedModelError
            If it is larger than 2 GiB.
        """
        return build_complete(self._build)

    def skeleton(self, threshold: int = 4096) -> ModelProto:
        """Return the model with tensors above ``threshold`` bytes as references without data.

        For shape inference and printing; nodes and values are those of :meth:`to_proto`.
        """
        return build_skeleton(self._build, threshold)

    def save(
        self, path: str | os.PathLike[str], *, external: bool | None = None, files: AtomicFiles | None = None
    ) -> int:
        """Write the model to a file, streaming the weights.

        Atomic: the file is replaced when all is written, else left as it was. Writing
        over the file the model was loaded from is safe.

        Parameters
        ----------
        path : path
        external : bool or None
            Whether tensors go to ``<path>.data``; None: only when the model exceeds 2 GiB
            or was loaded so.
        files : AtomicFiles, optional
            A group of files that appear together.

        Returns
        -------
        int
            Bytes written in all.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        return write_files(self._build, Path(path), external=external, was_external=self._external, files=files)

    def _build(self, sink: Sink) -> ModelProto:
        return Exporter(self.sidecar, sink).model(self.graph, self.functions, self._edit_header)

    def _edit_header(self, header: ModelProto) -> None:
        if {e.domain: e.version for e in header.opset_import} != self.opset_imports:
            header.ClearField("opset_import")
            for domain, version in self.opset_imports.items():
                header.opset_import.add(domain=domain, version=version)
        if {e.key: e.value for e in header.metadata_props} != self.metadata:
            header.ClearField("metadata_props")
            for key, value in self.metadata.items():
                header.metadata_props.add(key=key, value=value)
        if header.ir_version != self.ir_version:
            header.ir_version = self.ir_version

    # --------------------------------------------------------------- structure

    def scopes(self) -> Iterator[Scope]:
        """Yield the main graph, its bodies, the functions and their bodies, outer first."""
        yield from _scopes(Scope(self.graph, "main", "main"))
        for function in self.functions:
            yield from _scopes(Scope(function, f"{function.domain}::{function.name}", "function"))

    def opset(self, domain: str = "") -> int:
        """Return the version of an operator domain the model uses; 0 when it imports none."""
        if domain in ("", "ai.onnx"):
            return self.opset_imports.get("", self.opset_imports.get("ai.onnx", 0))
        return self.opset_imports.get(domain, 0)

    def count_nodes(self) -> int:
        """Count the nodes of the main graph and all bodies, without functions."""
        return sum(len(scope.graph.nodes) for scope in _scopes(Scope(self.graph, "main", "main")))

    def constants(self) -> Iterator[Value]:
        """Yield every constant object once: initializers and tensors in attributes."""
        seen: set[int] = set()
        for scope in self.scopes():
            for value in _constants(scope.graph, self.sidecar):
                if id(value) not in seen:
                    seen.add(id(value))
                    yield value

    def initializers_of(self, graph: Graph) -> Sequence[Value]:
        """Return the constants that a graph stores; those no graph stores belong to the main graph."""
        return tuple(self.sidecar.record(graph).initializers)

    def initializer_bytes(self) -> int:
        """Return the size of all constant tensors, each counted once.

        Includes the tensors of ``Constant`` nodes, and values of inputs that the caller
        may override.
        """
        total = 0
        for value in self.constants():
            held = value._values  # type: ignore[attr-defined]  # noqa: SLF001 -- `values` would load it
            total += getattr(held, "stored_bytes", held.nbytes)
        for scope in self.scopes():
            total += sum(held.stored_bytes for _, held in self.sidecar.record(scope.graph).defaults.values())
        return total

    def parameter_bytes(self) -> int:
        """Return the size of the numbers that the network computes with, each tensor counted once.

        Left out are the constants inside functions, which belong to the arithmetic of an operator, and int64 tensors,
        which are shapes, axes and indices.
        """
        scopes = list(_scopes(Scope(self.graph, "main", "main")))
        read = {id(value): value for scope in scopes for value in _constants(scope.graph, self.sidecar)}
        stored = [bytes_of_constant(value) for value in read.values() if dtype_of_constant(value) != np.int64]
        defaults = [held for scope in scopes for _, held in self.sidecar.record(scope.graph).defaults.values()]
        return sum(stored) + sum(held.stored_bytes for held in defaults if held.dtype != np.int64)

    # --------------------------------------------------------------- functions

    def _find_bodiless(self) -> frozenset[FunctionKey]:
        """Return the calls of our operators for which the file has no function."""
        return frozenset(
            self.call_key(node)
            for scope in self.scopes()
            for node in scope.graph.nodes
            if node.domain == OPERATOR_DOMAIN
        ) - frozenset(map(self.key_of, self.functions))

    def key_of(self, function: Function) -> FunctionKey:
        """Return domain, name and overload of a function."""
        return function.domain, function.name, str(self.sidecar.record(function).header.overload)

    def function_of(self, node: Node) -> Function | None:
        """Return the model-local function a node calls, None when it calls none."""
        key = self.call_key(node)
        return next((function for function in self.functions if self.key_of(function) == key), None)

    def call_key(self, node: Node) -> FunctionKey:
        """Return the key of the function a node would call."""
        domain = node.domain or ""
        origin = self.sidecar.origin(node)
        same = origin is not None and origin.op_type == node.op and origin.domain == domain
        return domain, node.op, str(origin.overload) if origin is not None and same else ""

    def add_function(self, proto: FunctionProto) -> None:
        """Add a model-local function unless one of its domain, name and overload is there.

        Imports its domain, with version 1, when the model does not.
        """
        if (proto.domain, proto.name, proto.overload) in {self.key_of(f) for f in self.functions}:
            return
        self.functions.append(read_function(proto, self.sidecar))
        self.opset_imports.setdefault(proto.domain, 1)
        self.ir_version = max(self.ir_version, _FIRST_IR_WITH_FUNCTIONS)

    def unused_functions(self) -> dict[FunctionKey, Function]:
        """Return the functions that no node calls, directly or through others."""
        unused = {self.key_of(function): function for function in self.functions}
        pending: list[Graph] = [self.graph] if unused else []
        while pending:
            for scope in _scopes(Scope(pending.pop(), "", "main")):
                for node in scope.graph.nodes:
                    function = unused.pop(self.call_key(node), None)
                    if function is not None:
                        pending.append(function)
        return unused

    def remove_unused_functions(self) -> int:
        """Remove functions that no node calls, directly or through others; return how many."""
        unused = self.unused_functions()
        if unused:
            self.functions[:] = [one for one in self.functions if self.key_of(one) not in unused]
        return len(unused)

    def strip_metadata(self) -> None:
        """Drop documentation and metadata of nodes, graphs and inner values.

        The metadata of the model and of its inputs and outputs stays.
        """
        for scope in self.scopes():
            self.sidecar.strip(scope.graph, interface=scope.kind == "main")
        for value in self.constants():
            self.sidecar.set_note(value, None)
            held = value._values  # type: ignore[attr-defined]  # noqa: SLF001 -- `values` would load it
            value._values = held.without_notes() if isinstance(held, HeldTensor) else held  # type: ignore[attr-defined]  # noqa: SLF001 -- see above


def _variable(spec: ValueSpec) -> Value:
    name, dtype, shape = spec
    held = None if dtype is None else np.dtype(dtype)
    return new_variable(name, held, None if shape is None else list(shape))


def _scopes(scope: Scope) -> Iterator[Scope]:
    yield scope
    for node in scope.graph.nodes:
        if node.attrs:
            for name, body in bodies_of(node):
                owner = node.name or next((value.name for value in node.outputs if value.name), node.op)
                yield from _scopes(Scope(body, f"{scope.path}/{owner}.{name}", "body", node, scope))


def _constants(graph: Graph, sidecar: Sidecar) -> Iterator[Value]:
    yield from (v for v in sidecar.record(graph).initializers if isinstance(v, gs.Constant))
    for node in graph.nodes:
        for value in node.inputs:
            if isinstance(value, gs.Constant):
                yield value
        for held in node.attrs.values():
            candidates: list[Any] = held if isinstance(held, list) else [held]
            yield from (item for item in candidates if isinstance(item, gs.Constant))
