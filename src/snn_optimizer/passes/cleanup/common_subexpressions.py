"""Compute equal expressions once.

Before: ``y = Op(a, b)`` and ``z = Op(a, b)`` in one graph, with the same attributes
After:  what read ``z`` reads ``y``

Sound because both nodes run the same kernel on the same values. Inputs are the same when they are
the same value, or constants of the same type, shape and bytes of at most 256 bytes; larger equal
constants are for ``share-initializers``. Random operators differ from call to call, operators of
other domains may: both stay. So do nodes with bodies, and nodes that make an output of a graph,
which keeps its name.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, Final

from snn_optimizer import ops
from snn_optimizer.ir import (
    GraphIndex,
    Module,
    Node,
    Rewriter,
    Scope,
    SNNGraph,
    bodies_of,
    describe,
    is_missing,
    is_standard,
)
from snn_optimizer.ir.contents import attributes_key, value_key
from snn_optimizer.passes.base import BEYOND_LIMIT, Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.passes.cleanup.shared import RANDOM, HiddenNames, Tally

__all__ = ["CommonSubexpressions"]

_SENTENCES: Final = {"equal-node": "removed, another node computes the same"}


@dataclass(frozen=True, slots=True)
class CommonSubexpressions(Pass):
    """Merge nodes of one graph that compute the same from the same values.

    The first of equal nodes stays. Works in the main graph and in bodies, each for
    itself; functions are left alone. Idempotent: a node is looked up after all nodes
    it reads were merged.
    """

    name: ClassVar[str] = "common-subexpressions"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Number the expressions of every graph, outer graphs first."""
        merger = _Merger(graph.module, Tally(context))
        for scope in merger.index.scopes:
            merger.scope(scope)
        return merger.finish(context)


class _Merger:
    """One run over one module."""

    def __init__(self, module: Module, tally: Tally) -> None:
        self.module = module
        self.index = GraphIndex(module)
        self.rewriter = Rewriter(module)
        self.hidden = HiddenNames(module, self.index)
        self.tally = tally
        self.value_keys: dict[int, Hashable] = {}
        self.merged: list[Node] = []

    def scope(self, scope: Scope) -> None:
        """Merge the nodes of one graph, in the order of computation."""
        known: dict[Hashable, Node] = {}
        for node in scope.graph.nodes:
            if bodies_of(node):
                continue
            first = known.setdefault(self.key(node), node)
            if first is node:
                continue
            refusal = self.merge(node, first, scope)
            if refusal is not None:
                self.tally.missed(refusal, describe(node))

    def key(self, node: Node) -> Hashable:
        """Return what two nodes share when they compute the same."""
        read = []
        for value in node.inputs:
            if id(value) not in self.value_keys:
                self.value_keys[id(value)] = value_key(value)
            read.append(self.value_keys[id(value)])
        attributes = attributes_key(node)
        made = tuple(map(is_missing, node.outputs))
        return self.module.call_key(node), attributes, tuple(read), made

    def merge(self, node: Node, first: Node, scope: Scope) -> Refusal | None:
        """Let all that reads the outputs of a node read those of an equal one."""
        if is_standard(node) and node.op in RANDOM:
            return Refusal("random", f"{node.op} gives another value at every call")
        if not is_standard(node) and not ops.is_neuron(node.domain or "", node.op):
            return Refusal("foreign-domain", f"{node.op} of '{node.domain}' may give another value at every call")
        pairs = list(zip(node.outputs, first.outputs, strict=True))
        for old, new in pairs:
            if self.index.output_of(old):
                return Refusal("graph-output", f"'{old.name}' is an output")
            if self.hidden.hide(new, old.outputs, scope):
                return Refusal("name-hidden", f"a body that reads '{old.name}' has a '{new.name}' of its own")
        if not self.tally.admits("equal-node", describe(node)):
            return BEYOND_LIMIT
        for old, new in pairs:
            self.rewriter.replace_uses(old, new)
        self.merged.append(node)
        self.tally.applied("equal-node", describe(node))
        return None

    def finish(self, context: PassContext) -> Outcome:
        """Take the merged nodes out and report."""
        self.rewriter.erase(self.merged)
        self.rewriter.finish()
        self.tally.report(context, _SENTENCES)
        return Outcome(changes=self.tally.changes, details=self.tally.counts())
