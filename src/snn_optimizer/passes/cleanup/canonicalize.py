"""Remove nodes that return what they read, and join reshapes and transposes that follow each other.

Before: ``y = Identity(x)``, ``Cast`` to the type of ``x``, ``Reshape`` or ``Flatten`` to its shape,
        ``Transpose`` in its order, ``Squeeze`` after ``Unsqueeze`` of the same axes or the other way
        round, ``Dropout`` in inference, ``Concat`` of one, ``Slice`` of everything, ``Pad`` by nothing,
        ``Expand`` to the same shape, ``x * 1``, ``x / 1``, ``x - 0``
After:  what read ``y`` reads ``x``
Before: ``Reshape(Reshape(x))``, also after ``Flatten``, ``Squeeze`` or ``Unsqueeze``; ``Transpose(Transpose(x))``
After:  one ``Reshape`` or ``Transpose`` of ``x``

Sound because the rules in ``noops.py`` only answer where ``y`` has every bit of ``x`` for every input:
``x * 1`` has in IEEE 754, and ``x - 0``, but ``x + 0`` is 0 for ``x = -0``. A Reshape without 0 among its
sizes depends on the elements and their order alone, which the reshapes before it keep.

An output of a graph keeps its name and is made by exactly one node: the node that made ``x`` makes ``y``
in its place, unless ``x`` is itself an input, an output, a constant or a value from around the body.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from snn_optimizer.ir import (
    Graph,
    GraphIndex,
    Module,
    Node,
    Rewriter,
    SNNGraph,
    Value,
    bodies_of,
    describe,
    is_constant,
    is_missing,
    is_standard,
)
from snn_optimizer.passes.base import BEYOND_LIMIT, Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.passes.cleanup.noops import NOOPS, Facts
from snn_optimizer.passes.cleanup.shared import HiddenNames, Tally

__all__ = ["Canonicalize"]

_RESHAPES: Final = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
_SENTENCES: Final = {
    "no-op": "removed, it returns what it reads",
    "reshape-of-reshape": "reads what the reshape before it reads",
    "transpose-of-transpose": "does the work of the transpose before it too",
}


@dataclass(frozen=True, slots=True)
class Canonicalize(Pass):
    """Remove nodes that do nothing, and join consecutive reshapes and transposes.

    Works in the main graph and in bodies; functions are left alone. Idempotent:
    every node is judged after everything it reads, and once more when the sizes it
    lacked may be known now that other nodes are gone.
    """

    name: ClassVar[str] = "canonicalize"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Visit every node in the order of computation, until nothing new is learned."""
        tally = Tally(context)
        tally.settle(context, lambda: _Walk(graph.module, context, tally).run())
        tally.report(context, _SENTENCES)
        return Outcome(changes=tally.changes, details=tally.counts())


class _Walk:
    """One run over one module."""

    def __init__(self, module: Module, context: PassContext, tally: Tally) -> None:
        self.module = module
        self.index = GraphIndex(module)
        self.facts = Facts(context, self.index, module.opset())
        self.rewriter = Rewriter(module)
        self.hidden = HiddenNames(module, self.index)
        self.tally = tally
        self.bypassed: list[Node] = []

    def run(self) -> None:
        """Visit all nodes, then take out those that were bypassed."""
        self.graph(self.module.graph)
        self.rewriter.erase(self.bypassed)
        self.rewriter.finish()

    def graph(self, graph: Graph) -> None:
        """Visit a graph and the bodies in it."""
        for node in list(graph.nodes):
            for _, body in bodies_of(node):
                self.facts.types.enter(node, body)
                self.graph(body)
                self.facts.types.leave(node, body)
            self.facts.types.learn(node)
            if is_standard(node) and node.op in NOOPS and _is_complete(node):
                self.node(node)

    def node(self, node: Node) -> None:
        """Join a node with those before it, then take it out if it does nothing."""
        refusal = self.join_reshapes(node) if node.op == "Reshape" else None
        if node.op == "Transpose":
            self.join_transposes(node)
        verdict = NOOPS[node.op](node, self.facts)
        if verdict is not None and not isinstance(verdict, Refusal):
            verdict = self.bypass(node, verdict)
        for missed in (refusal, verdict):
            if missed is not None:
                self.tally.missed(missed, describe(node))

    def join_reshapes(self, node: Node) -> Refusal | None:
        """Let a Reshape read what the reshapes before it read."""
        while (inner := self.facts.inner(node, *_RESHAPES)) is not None:
            target = self.facts.integers(node, 1, "shape")
            if not node.attrs.get("allowzero", 0) and (target is None or 0 in target):
                what = "may hold" if target is None else "holds"
                return Refusal("copies-middle-size", f"the target {what} a 0, the size of the value in between")
            if not self.tally.admits("reshape-of-reshape", describe(node)):
                return BEYOND_LIMIT
            self.rewriter.set_input(node, 0, inner.inputs[0])
            self.tally.applied("reshape-of-reshape", describe(node))
        return None

    def join_transposes(self, node: Node) -> None:
        """Let a Transpose read what the transposes before it read."""
        while (inner := self.facts.inner(node, "Transpose")) is not None:
            outer_order, inner_order = node.attrs.get("perm"), inner.attrs.get("perm")
            if outer_order is None and inner_order is None:
                return  # of unknown rank, and a no-op whatever the rank
            if not self.tally.admits("transpose-of-transpose", describe(node)):
                return
            default = list(range(len(outer_order or inner_order or ())))[::-1]
            first, second = inner_order or default, outer_order or default
            self.rewriter.set_input(node, 0, inner.inputs[0])
            self.rewriter.set_attribute(node, "perm", [int(first[axis]) for axis in second])
            self.tally.applied("transpose-of-transpose", describe(node))

    def bypass(self, node: Node, value: Value) -> Refusal | None:
        """Let all that reads the first output of a node read ``value``, which equals it."""
        place, output = describe(node), node.outputs[0]
        home = self.index.scope_of(node)
        if not self.index.output_of(output):
            if self.hidden.hide(value, output.outputs, home):
                return _hidden(value)
            if not self.tally.admits("no-op", place):
                return BEYOND_LIMIT
            self.rewriter.replace_uses(output, value)
            self.bypassed.append(node)
        else:
            refusal = self.must_stay(node, value)
            if refusal is not None:
                return refusal
            if not self.tally.admits("no-op", place):
                return BEYOND_LIMIT
            self.rewriter.erase(node)
            producer = value.inputs[0]
            made = [output if one is value else one for one in producer.outputs]
            self.rewriter.set_ports(producer, producer.inputs, made)
            self.rewriter.replace_uses(value, output)
        self.tally.applied("no-op", place)
        return None

    def must_stay(self, node: Node, value: Value) -> Refusal | None:
        """Return why the node that makes a graph output cannot leave that to the producer of ``value``."""
        name = node.outputs[0].name
        home = self.index.scope_of(node)
        if self.index.output_of(value):
            return Refusal("output-twice", f"'{name}' and '{value.name}' are both outputs")
        if is_constant(value):
            return Refusal("output-is-constant", f"output '{name}' is the constant '{value.name}'")
        if not value.inputs:
            return Refusal("output-is-input", f"output '{name}' is the input '{value.name}'")
        if self.index.scope_of(value.inputs[0]) is not home:
            return Refusal("output-is-captured", f"output '{name}' of a body is '{value.name}' from around it")
        return _hidden(node.outputs[0]) if self.hidden.hide(node.outputs[0], value.outputs, home) else None


def _is_complete(node: Node) -> bool:
    present = (*node.inputs[:1], *node.outputs[:1])
    return len(present) == 2 and not any(map(is_missing, present))


def _hidden(value: Value) -> Refusal:
    return Refusal("name-hidden", f"a body that reads the result has a '{value.name}' of its own")
