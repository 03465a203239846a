"""Store equal constants once.

Before: two initializers of a graph, or ``Constant`` nodes in it, of the same type, shape and bytes
After:  what read the second reads the first

Sound because the bytes are the same: candidates are found by a hash, which reads the file a piece
at a time, and then compared. NaN and -0 are bytes like others. Small constants stay apart, there is
nothing to gain, and so does a constant that is an output, which keeps its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Final

from snn_optimizer.ir import (
    Array,
    GraphIndex,
    Module,
    Rewriter,
    Scope,
    SNNGraph,
    Value,
    array_of,
    dtype_of_constant,
    is_constant,
    is_standard,
    shape_of_constant,
)
from snn_optimizer.ir.contents import digest, same_bytes
from snn_optimizer.passes.base import BEYOND_LIMIT, Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.passes.cleanup.shared import HiddenNames, Tally

__all__ = ["ShareInitializers"]

_SENTENCES: Final = {"equal-constant": "removed, another constant has the same bytes"}

_Kind = tuple[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class ShareInitializers(Pass):
    """Merge constants of one graph that have the same type, shape and bytes.

    The first stays. Works in the main graph and in bodies, each for itself; functions
    are left alone. Idempotent: constants left apart differ, or cannot be merged.

    Attributes
    ----------
    min_bytes : int
        Smaller constants are left alone.
    """

    name: ClassVar[str] = "share-initializers"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    min_bytes: int = 64

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Group by type and shape, then by hash, then compare."""
        merger = _Merger(graph.module, Tally(context))
        for scope, values in _stored(graph.module, merger.index):
            kinds: dict[_Kind, list[Value]] = {}
            for value in values:
                kind = self._kind(value)
                if kind is not None:
                    kinds.setdefault(kind, []).append(value)
            for equal in kinds.values():
                if len(equal) > 1:
                    merger.merge_equal(equal, scope)
        return merger.finish(context)

    def _kind(self, value: Value) -> _Kind | None:
        shape, dtype = shape_of_constant(value), dtype_of_constant(value)
        if shape is None or dtype is None or dtype.kind in "OUS":
            return None
        return (dtype.name, shape) if prod(shape) * dtype.itemsize >= self.min_bytes else None


def _stored(module: Module, index: GraphIndex) -> Iterator[tuple[Scope, Iterable[Value]]]:
    """Yield each graph with the constants it stores: initializers first, then those of Constant nodes."""
    for scope in index.scopes:
        made = [value for node in scope.graph.nodes if is_standard(node, "Constant") for value in node.outputs]
        yield scope, [*module.initializers_of(scope.graph), *filter(is_constant, made)]


class _Merger:
    """One run over one module."""

    def __init__(self, module: Module, tally: Tally) -> None:
        self.index = GraphIndex(module)
        self.rewriter = Rewriter(module)
        self.hidden = HiddenNames(module, self.index)
        self.tally = tally

    def merge_equal(self, values: Iterable[Value], scope: Scope) -> None:
        """Merge those of equal bytes among constants of one type and shape."""
        kept: dict[bytes, list[Value]] = {}
        for value in values:
            array = _loaded(value)
            candidates = kept.setdefault(digest(array), [])
            first = next((one for one in candidates if same_bytes(_loaded(one), array)), None)
            if first is None:
                candidates.append(value)
            elif value.outputs or self.index.output_of(value):
                refusal = self.merge(value, first, scope)
                if refusal is not None:
                    self.tally.missed(refusal, f"'{value.name}'")

    def merge(self, value: Value, first: Value, scope: Scope) -> Refusal | None:
        """Let all that reads a constant read an equal one."""
        if self.index.output_of(value):
            return Refusal("graph-output", f"'{value.name}' is an output")
        if self.hidden.hide(first, value.outputs, scope):
            return Refusal("name-hidden", f"a body that reads '{value.name}' has a '{first.name}' of its own")
        if not self.tally.admits("equal-constant", f"'{value.name}'"):
            return BEYOND_LIMIT
        self.rewriter.replace_uses(value, first)
        self.tally.applied("equal-constant", f"'{value.name}'")
        return None

    def finish(self, context: PassContext) -> Outcome:
        """Drop the constants that nothing reads any more and report."""
        self.rewriter.finish()
        self.tally.report(context, _SENTENCES)
        return Outcome(changes=self.tally.changes, details=self.tally.counts())


def _loaded(value: Value) -> Array:
    array = array_of(value)
    assert array is not None
    return array
