"""Take out what nothing needs: dead nodes, unread constants, uncalled functions."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_graphsurgeon as gs

from snn_optimizer.ir.module import FunctionKey, Module
from snn_optimizer.ir.mutation import detach, with_bodies
from snn_optimizer.ir.names import Names
from snn_optimizer.ir.types import Graph, Node, Scope, Value, bodies_of, reads_of

__all__ = [
    "ExpiredValues",
    "drop_unused_constants",
    "release_functions",
    "remove_dead",
    "settle_constants",
]


class ExpiredValues:
    """Finds the nodes that a change left without readers.

    Attributes
    ----------
    touched : list of Value
        Values that lost a reader, those of removed nodes included.
    """

    def __init__(self, module: Module) -> None:
        self._outputs = {id(value) for scope in module.scopes() for value in scope.graph.outputs}
        self.touched: list[Value] = []

    def is_needed(self, value: Value) -> bool:
        """Tell whether a node reads a value or a graph returns it."""
        return bool(value.outputs) or id(value) in self._outputs

    def dead_nodes(self, candidates: Iterable[Value]) -> list[Node]:
        """Unlink and return the producers of ``candidates`` that nothing needs any more.

        Producers of what those read are candidates in turn. Readers are counted down and
        unlinked together at the end, so that a constant that many dead nodes read is not
        searched once for each of them.
        """
        pending = list(candidates)
        readers: dict[int, int] = {}
        dead: dict[int, Node] = {}
        counted: set[int] = set()  # dead nodes and those inside them

        def is_read(value: Value) -> bool:
            return readers.get(id(value), len(value.outputs)) > 0 or id(value) in self._outputs

        while pending:
            value = pending.pop()
            self.touched.append(value)
            if not value.name or not value.inputs or is_read(value):
                continue
            node = value.inputs[0]
            if id(node) in counted or any(output.name and is_read(output) for output in node.outputs):
                continue
            dead[id(node)] = node
            for reader in with_bodies([node]):
                if id(reader) in counted:
                    continue
                counted.add(id(reader))
                for read in reader.inputs:
                    readers[id(read)] = readers.get(id(read), len(read.outputs)) - 1
                    pending.append(read)
        detach(dead.values())
        return list(dead.values())


def drop_unused_constants(module: Module, candidates: Iterable[Value], expired: ExpiredValues) -> int:
    """Remove those initializers among ``candidates`` that nothing needs; return how many."""
    unread = {id(value) for value in candidates if isinstance(value, gs.Constant) and not expired.is_needed(value)}
    if not unread:
        return 0
    protected = _annotated(module)
    removed = 0
    for scope in module.scopes():
        record = module.sidecar.record(scope.graph)
        kept = [v for v in record.initializers if id(v) not in unread or v.name in protected]
        removed += len(record.initializers) - len(kept)
        record.initializers = kept
    return removed


def _annotated(module: Module) -> set[str]:
    """Return the names that quantization annotations and training graphs refer to."""
    names: set[str] = set()
    for scope in module.scopes():
        if scope.kind == "function":
            continue
        for entry in getattr(module.sidecar.record(scope.graph).header, "quantization_annotation", ()):
            names.update(pair.value for pair in entry.quant_parameter_tensor_names)
    for training in module.sidecar.header.training_info:
        for graph in (training.initialization, training.algorithm):
            names.update(name for node in graph.node for name in node.input)
        names.update(pair.key for pair in training.initialization_binding)
        names.update(pair.key for pair in training.update_binding)
    return names


def settle_constants(module: Module) -> None:
    """Let the main graph store the constants that no enclosing graph stores.

    New constants, and those of bodies that are gone or that are now read elsewhere. One
    whose name is taken in another scope gets a new one.
    """
    owners: dict[int, Scope] = {}
    scopes = list(module.scopes())
    for scope in scopes:
        for value in module.sidecar.record(scope.graph).initializers:
            owners[id(value)] = scope
    homeless: dict[int, tuple[Value, Scope]] = {}
    for scope in scopes:
        for value in _constants_read(scope.graph):
            owner = owners.get(id(value))
            if owner is None or not _encloses(owner, scope):
                homeless[id(value)] = (value, _root(scope))
    taken = _other_holders(scopes, [value for value, _ in homeless.values()]) if homeless else set()
    names: Names | None = None
    for key, (value, root) in homeless.items():
        if key in owners:
            record = module.sidecar.record(owners[key].graph)
            record.initializers = [one for one in record.initializers if one is not value]
        if value.name in taken:
            names = names or Names.of_values(module)
            value.name = names.fresh(value.name)
        if root.kind == "main":
            module.sidecar.record(module.graph).initializers.append(value)


def _other_holders(scopes: Iterable[Scope], values: Iterable[Value]) -> set[str]:
    """Return the names of ``values`` that other values have too."""
    values = list(values)
    first = {value.name: id(value) for value in values}
    shared = {value.name for value in values if first[value.name] != id(value)}
    for scope in scopes:
        graph = scope.graph
        for group in (graph.inputs, graph.outputs, *(node.outputs for node in graph.nodes)):
            shared.update(v.name for v in group if first.get(v.name, id(v)) != id(v))
        for node in graph.nodes:
            shared.update(v.name for v in node.inputs if first.get(v.name, id(v)) != id(v))
    return shared


def _constants_read(graph: Graph) -> list[Value]:
    return [
        v for v in (*(v for node in graph.nodes for v in node.inputs), *graph.outputs) if isinstance(v, gs.Constant)
    ]


def _encloses(outer: Scope, inner: Scope) -> bool:
    scope: Scope | None = inner
    while scope is not None:
        if scope.graph is outer.graph:
            return True
        scope = scope.parent
    return False


def _root(scope: Scope) -> Scope:
    while scope.parent is not None:
        scope = scope.parent
    return scope


def release_functions(module: Module, released: set[FunctionKey]) -> int:
    """Remove functions that lost their last call, and those only they called."""
    if not module.functions or not released:
        return 0
    unused = module.unused_functions()
    pending = [key for key in sorted(released) if key in unused]
    pending += [key for key in unused if key not in module.loaded_functions]
    gone: set[FunctionKey] = set()
    while pending:
        key = pending.pop()
        if key in gone or key not in unused:
            continue
        gone.add(key)
        pending.extend(map(module.call_key, with_bodies(unused[key].nodes)))
    module.functions[:] = [one for one in module.functions if module.key_of(one) not in gone]
    return len(gone)


def remove_dead(module: Module) -> int:
    """Remove every node, initializer and function that no output of the model needs.

    Returns
    -------
    int
        How many were removed.
    """
    removed = 0
    for scope in list(module.scopes()):
        if scope.parent is None:
            removed += _remove_dead_nodes(module, scope.graph)
    expired = ExpiredValues(module)
    stored = [v for scope in module.scopes() for v in module.sidecar.record(scope.graph).initializers]
    removed += drop_unused_constants(module, stored, expired)
    return removed + module.remove_unused_functions()


def _remove_dead_nodes(module: Module, graph: Graph) -> int:
    """Remove dead nodes of bodies first: what only they captured is then dead outside."""
    removed = 0
    for node in graph.nodes:
        if node.attrs:
            removed += sum(_remove_dead_nodes(module, body) for _, body in bodies_of(node))
    producers = {id(value): i for i, node in enumerate(graph.nodes) for value in node.outputs if value.name}
    live = bytearray(len(graph.nodes))
    wanted = list(graph.outputs)
    while wanted:
        index = producers.get(id(wanted.pop()), -1)
        if index >= 0 and not live[index]:
            live[index] = 1
            wanted.extend(reads_of(graph.nodes[index]))
    dead = [node for index, node in enumerate(graph.nodes) if not live[index]]
    if dead:
        module.sidecar.forget(with_bodies(dead))
        detach(dead)
        graph.nodes = [node for index, node in enumerate(graph.nodes) if live[index]]
    return removed + len(dead)
