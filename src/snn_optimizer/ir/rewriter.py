"""The only way to change a module."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from snn_optimizer.errors import PassError
from snn_optimizer.ir.attributes import same_value
from snn_optimizer.ir.cleanup import (
    ExpiredValues,
    drop_unused_constants,
    release_functions,
    settle_constants,
)
from snn_optimizer.ir.module import FunctionKey, Module
from snn_optimizer.ir.mutation import (
    CycleError,
    connect_input,
    detach,
    reconnect,
    reconnect_inputs,
    replace_readers,
    sort_stable,
    with_bodies,
)
from snn_optimizer.ir.names import Names
from snn_optimizer.ir.objects import missing, new_constant, new_node, new_variable
from snn_optimizer.ir.types import Dimension, Graph, Node, OpKey, Use, Value, bodies_of, describe

__all__ = ["Rewriter"]


class Rewriter:
    """Changes a module, by identity and in linear time; call :meth:`finish` at the end.

    Names, order, types and shapes of the main graph's inputs and outputs never change.
    Until ``finish``, erased nodes are still in the node lists, without inputs and
    outputs, and added nodes are at the end.

    Attributes
    ----------
    module : Module
    changes : int
        Calls that changed something. Zero means the module is untouched.
    """

    def __init__(self, module: Module) -> None:
        self.module = module
        self.changes = 0
        self._value_names: Names | None = None
        self._node_names: Names | None = None
        self._erased: dict[int, Node] = {}
        self._orphans: list[tuple[str, Value]] = []  # outputs of erased nodes
        self._loose: list[Value] = []  # values that lost a reader
        self._released: set[FunctionKey] = set()
        self._outputs: set[int] | None = None

    # -------------------------------------------------------------- new objects

    def constant(self, hint: str, array: npt.ArrayLike) -> Value:
        """Return a new initializer; it is stored once something reads it.

        Parameters
        ----------
        hint : str
            Its name; a number is appended when the name is taken.
        array : array_like
            The values; not copied, not to be written to afterwards.
        """
        return new_constant(self._fresh_value(hint), np.asarray(array))

    def value(self, hint: str, dtype: npt.DTypeLike | None, shape: Sequence[Dimension] | None) -> Value:
        """Return a new value for the output of a node; type and shape None when unknown."""
        return new_variable(
            self._fresh_value(hint),
            None if dtype is None else np.dtype(dtype),
            None if shape is None else list(shape),
        )

    def body(self, name: str, inputs: Sequence[Value], outputs: Sequence[Value]) -> Graph:
        """Return a new body, for an attribute of a node to add; fill it with :meth:`add`."""
        graph: Graph = gs.Graph(name=name)
        graph.inputs.extend(inputs)
        graph.outputs.extend(outputs)
        record = self.module.sidecar.record(graph)
        record.header.name = name
        self._outputs = None
        return graph

    def add(
        self,
        graph: Graph,
        op: str,
        inputs: Sequence[Value | None],
        outputs: Sequence[Value | None],
        attrs: Mapping[str, Any] | None = None,
        domain: str = "",
        name_hint: str | None = None,
    ) -> Node:
        """Add a node; its position is fixed by :meth:`finish`.

        Parameters
        ----------
        graph : Graph
            Where to; the main graph, a body or a function.
        op, domain : str
            The operator. A domain the model does not import is imported, version 1.
        inputs, outputs : sequence of Value or None
            None leaves an optional one out.
        attrs : mapping, optional
        name_hint : str, optional
            Its name; a number is appended when the name is taken.

        Raises
        ------
        PassError
            If an output already has a producer or holds constant values.
        """
        for value in outputs:
            if value is not None and (value.inputs or isinstance(value, gs.Constant)):
                raise PassError(f"new node {op} cannot make '{value.name}': it already has a producer")
        first = next((value.name for value in outputs if value is not None), "")
        node = new_node(
            (domain, op),
            self._fresh_node(name_hint or f"{op}_{first}"),
            dict(attrs or {}),
            [missing() if value is None else value for value in inputs],
            [missing() if value is None else value for value in outputs],
        )
        graph.nodes.append(node)
        self._import(domain)
        self.changes += 1
        return node

    def add_like(
        self, graph: Graph, node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None]
    ) -> Node:
        """Add a node that does what ``node`` does, with its attributes and metadata.

        Raises
        ------
        PassError
            If ``node`` has bodies, which cannot be in two places.
        """
        if bodies_of(node):
            raise PassError(f"node {describe(node)} has bodies and cannot be copied")
        twin = self.add(graph, node.op, inputs, outputs, node.attrs, node.domain or "", node.name or None)
        origin = self.module.sidecar.origin(node)
        if origin is not None:
            self.module.sidecar.set_origin(twin, origin)
        return twin

    # ------------------------------------------------------------------- edits

    def set_input(self, node: Node, slot: int, value: Value | None) -> None:
        """Let ``node`` read ``value`` in input ``slot``; None leaves the input out."""
        new: Value = missing() if value is None else value
        while len(node.inputs) <= slot:
            node.inputs.append(missing())
        old = node.inputs[slot]
        if old is new or (not old.name and value is None):
            return
        connect_input(node, slot, new)
        self._loose.append(old)
        self.changes += 1

    def replace_uses(self, old: Value, new: Value, only: Collection[Node] | None = None) -> int:
        """Let nodes in all scopes read ``new`` instead of ``old``.

        Graph outputs are not renamed: where ``old`` is one, it stays one, and its
        producer stays.

        Parameters
        ----------
        old, new : Value
        only : collection of Node, optional
            Change only these readers.

        Returns
        -------
        int
            Input slots changed.
        """
        if old is new:
            return 0
        count = replace_readers(old, new, only)
        if count:
            self._loose.append(old)
            self.changes += 1
        return count

    def set_graph_output(self, graph: Graph, slot: int, value: Value) -> None:
        """Make ``value`` output ``slot`` of a body or function; those have no name to keep.

        Raises
        ------
        PassError
            If ``graph`` is the main graph.
        """
        if graph is self.module.graph:
            raise PassError(f"output '{graph.outputs[slot].name}' of the model cannot be replaced")
        if graph.outputs[slot] is not value:
            self._loose.append(graph.outputs[slot])
            graph.outputs[slot] = value
            self._outputs = None
            self.changes += 1

    def set_ports(self, holder: Node | Graph, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """Give a node or a body, not the main graph, all its inputs and outputs anew."""
        if holder is self.module.graph:
            raise PassError("the inputs and outputs of the model cannot be replaced")
        self._loose.extend(reconnect(holder, inputs, outputs))
        self._outputs = None
        self.changes += 1

    def retarget(
        self,
        node: Node,
        op: str | OpKey,
        inputs: Sequence[Value | None],
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Turn a node into a call of another operator; its outputs, name and metadata stay.

        Parameters
        ----------
        node : Node
        op : str or (domain, op)
            A string keeps the domain.
        inputs : sequence of Value or None
        attrs : mapping, optional
            All attributes it is to have; None keeps those it has.
        """
        self._released.add(self.module.call_key(node))
        if isinstance(op, str):
            node.op = op
        else:
            node.domain, node.op = op
            self._import(op[0])
        self._loose.extend(node.inputs)
        reconnect_inputs(node, [missing() if value is None else value for value in inputs])
        if attrs is not None:
            for name in [name for name in node.attrs if name not in attrs]:
                self.set_attribute(node, name, None)
            for name, value in attrs.items():
                self.set_attribute(node, name, value)
        self.changes += 1

    def rename(self, node: Node, hint: str) -> None:
        """Give a node another name; a number is appended when the name is taken."""
        if node.name != hint:
            node.name = self._fresh_node(hint)
            self.changes += 1

    def set_attribute(self, node: Node, name: str, value: Any) -> None:
        """Set an attribute of a node; None removes it."""
        old = node.attrs.get(name)
        if same_value(old, value):
            return
        replaced = [body for attribute, body in bodies_of(node) if attribute.partition("[")[0] == name]
        for body in replaced:
            self._loose.extend(detach(body.nodes))
            self.module.sidecar.forget(with_bodies(body.nodes))
        if value is None:
            del node.attrs[name]
        else:
            node.attrs[name] = value
        self.changes += 1

    def erase(self, nodes: Node | Iterable[Node]) -> None:
        """Remove nodes; before :meth:`finish`, nothing may read their outputs any more."""
        batch = [nodes] if isinstance(nodes, gs.Node) else list(nodes)  # type: ignore[arg-type]  # a library node is a Node
        batch = [node for node in batch if id(node) not in self._erased]
        if not batch:
            return
        for node in with_bodies(batch):
            self._released.add(self.module.call_key(node))
        for node in batch:
            self._erased[id(node)] = node
            label = describe(node)
            self._orphans.extend((label, value) for value in node.outputs if value.name)
        self._loose.extend(detach(batch))
        self.changes += 1

    def is_erased(self, node: Node) -> bool:
        """Tell whether a node was erased since the last :meth:`finish`."""
        return id(node) in self._erased

    def edit_constant(self, uses: Sequence[Use], array: npt.ArrayLike) -> Value:
        """Let these uses read new values; other readers of the same constant keep the old.

        When these are all the readers of one initializer, it keeps its name.

        Parameters
        ----------
        uses : sequence of Use
        array : array_like
            Not copied, not to be written to afterwards.

        Returns
        -------
        Value
            What the uses read now.
        """
        old = uses[0].node.inputs[uses[0].slot]
        slots = {(id(use.node), use.slot) for use in uses}
        same = all(use.node.inputs[use.slot] is old for use in uses)
        self.changes += 1
        if same and isinstance(old, gs.Constant) and len(slots) == len(old.outputs) and not self._is_output(old):
            old.values = np.asarray(array)
            return cast("Value", old)
        new = self.constant(old.name, array)
        note = self.module.sidecar.note(old)
        if note is not None:
            self.module.sidecar.set_note(new, note)
        for use in uses:
            self._loose.append(use.node.inputs[use.slot])
            connect_input(use.node, use.slot, new)
        return new

    # ------------------------------------------------------------------ finish

    def finish(self) -> int:
        """Complete the changes: dead code, order of nodes, unused functions.

        Only what the changes left dead is removed; what was dead before stays.

        Returns
        -------
        int
            :attr:`changes`.

        Raises
        ------
        PassError
            If an erased node is still needed, or nodes read each other in a circle.
        """
        if not self.changes:
            return 0
        self._sweep()
        expired = ExpiredValues(self.module)
        for label, value in self._orphans:
            if not value.inputs and expired.is_needed(value):
                raise PassError(f"node {label} was erased, but '{value.name}' is still needed")
        dead = expired.dead_nodes(self._loose)
        for node in dead:
            self._erased[id(node)] = node
            self._released.add(self.module.call_key(node))
        self._sweep()
        drop_unused_constants(self.module, expired.touched, expired)
        settle_constants(self.module)
        release_functions(self.module, self._released)
        try:
            for scope in self.module.scopes():
                sort_stable(scope.graph)
        except CycleError as error:
            raise PassError(str(error)) from error
        self._orphans.clear()
        self._loose.clear()
        self._released.clear()
        return self.changes

    def _sweep(self) -> None:
        """Take erased nodes out of the node lists."""
        if not self._erased:
            return
        for scope in self.module.scopes():
            nodes = scope.graph.nodes
            kept = [node for node in nodes if id(node) not in self._erased]
            if len(kept) != len(nodes):
                scope.graph.nodes = kept
        self.module.sidecar.forget(with_bodies(self._erased.values()))
        self._erased.clear()

    def _fresh_value(self, hint: str) -> str:
        if self._value_names is None:
            self._value_names = Names.of_values(self.module)
        return self._value_names.fresh(hint)

    def _fresh_node(self, hint: str) -> str:
        if self._node_names is None:
            self._node_names = Names.of_nodes(self.module)
        return self._node_names.fresh(hint)

    def _import(self, domain: str) -> None:
        if domain and domain != "ai.onnx":
            self.module.opset_imports.setdefault(domain, 1)

    def _is_output(self, value: Any) -> bool:
        if self._outputs is None:
            self._outputs = {id(out) for scope in self.module.scopes() for out in scope.graph.outputs}
        return id(value) in self._outputs
