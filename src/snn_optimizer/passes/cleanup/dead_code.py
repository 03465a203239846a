"""Remove what no output of the model needs.

Before: nodes without a path to an output, initializers nobody reads, functions nobody calls, and
        states, inputs and outputs of ``Scan`` that only feed themselves
After:  they are gone

Sound because nothing that stays reads them. Need is followed backwards from the outputs of the model,
into ``Scan`` bodies slot by slot: a carried state is needed when its last value is, or when a needed
node of the body reads it; a needed state needs its first value and its next one. One walk finds the
fixpoint, loops of states that feed each other included. A ``Scan`` keeps one input to count its steps
by. Bodies of ``Loop`` and ``If`` and calls keep all their inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

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
    is_missing,
    is_standard,
    remove_dead,
)
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.passes.cleanup.shared import Tally

__all__ = ["DeadCode"]

_SENTENCES: Final = {
    "nodes": "removed, no output needs it",
    "carried-states": "no longer carried, only its own next value needs it",
    "scan-inputs": "no longer read step by step, the body does not need it",
    "scan-outputs": "no longer collected, nothing needs it",
}


@dataclass(frozen=True, slots=True)
class DeadCode(Pass):
    """Remove nodes, constants, functions and states of ``Scan`` that no output of the model needs.

    Works in the main graph and in bodies; of functions, only dead nodes and those that
    nothing calls are removed. Idempotent: what is left is needed.
    """

    name: ClassVar[str] = "dead-code"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Find what is needed, cut the rest."""
        module = graph.module
        tally = Tally(context)
        while _cut(module, tally):
            pass
        others = 0 if context.rewrites.stopped else remove_dead(module)
        tally.report(context, _SENTENCES)
        outcome = Outcome(changes=tally.changes + others, details=tally.counts())
        if others:
            outcome.count("constants-and-functions", others)
            message = f"removed {others} constants and functions that nothing uses"
            context.applied("constants-and-functions", f"'{module.graph.name}'", message, number=others)
        return outcome


def _cut(module: Module, tally: Tally) -> bool:
    """Remove what is not needed; return whether to look again, now that a choice of scan input is made."""
    before = tally.changes
    need = _Need(module)
    rewriter = Rewriter(module)
    # those behind first, so that a limit leaves no reader without what it reads
    found = list(_dead_nodes(module.graph, need))
    dead = [node for node in found[::-1] if tally.admits("nodes", describe(node))][::-1]
    for node in dead:
        tally.applied("nodes", describe(node))
    rewriter.erase(dead)
    for form in need.scans.values():
        if need.node(form.node) and not tally.context.rewrites.stopped:
            _narrow(form, need, rewriter, tally)
    rewriter.finish()
    again = need.chose and tally.changes > before
    if not again:
        for node, refusal in need.opaque:
            tally.missed(refusal, describe(node))
    return again


@dataclass(frozen=True, slots=True)
class _ScanForm:
    """A ``Scan`` and its body; slots count carried states first, then scanned ones."""

    node: Node
    body: Graph
    carried: int

    @classmethod
    def of(cls, node: Node, opset: int) -> _ScanForm | Refusal:
        """Read a Scan node; a refusal when its parts do not fit together as this pass expects."""
        if opset < 9:
            return Refusal("scan-form", f"Scan of opset {opset} runs over batches; it is kept whole")
        body = next((body for name, body in bodies_of(node) if name == "body"), None)
        scanned = node.attrs.get("num_scan_inputs")
        if body is None or not isinstance(scanned, int) or not 0 < scanned <= len(node.inputs):
            return Refusal("scan-form", "the body or the number of scan inputs is missing")
        carried = len(node.inputs) - scanned
        fits = (
            len(body.inputs) == len(node.inputs)
            and len(body.outputs) == len(node.outputs) >= carried
            and not any(map(is_missing, node.inputs))
            and _length(node, "input", scanned)
            and _length(node, "output", len(node.outputs) - carried)
        )
        if not fits:
            return Refusal("scan-form", "inputs and outputs of the node and of its body do not match")
        return cls(node, body, carried)


def _length(node: Node, side: str, number: int) -> bool:
    lists = (node.attrs.get(f"scan_{side}_{what}") for what in ("axes", "directions"))
    return all(held is None or len(held) == number for held in lists)


class _Need:
    """Which nodes, and which values of ``Scan`` nodes and bodies, the outputs of a model need.

    Attributes
    ----------
    scans : dict from id to _ScanForm
    opaque : list of (Node, Refusal)
        Needed Scan nodes that are kept whole.
    chose : bool
        Whether some Scan needed none of its several scan inputs, so that one was chosen.
    """

    def __init__(self, module: Module) -> None:
        self.index = GraphIndex(module)
        self.scans: dict[int, _ScanForm] = {}
        self.opaque: list[tuple[Node, Refusal]] = []
        self.chose = False
        self._needed_scans: list[_ScanForm] = []
        self._values: set[int] = set()
        self._nodes: set[int] = set()
        self._inputs: dict[int, tuple[_ScanForm, int]] = {}  # body inputs
        self._outputs: dict[int, int] = {}  # slots of node outputs
        for node in self.index.nodes():
            if is_standard(node, "Scan"):
                form = _ScanForm.of(node, module.opset())
                if isinstance(form, Refusal):
                    self.opaque.append((node, form))
                else:
                    self._add_scan(form)
        self._follow(module.graph.outputs)
        for form in self._needed_scans:  # grows meanwhile
            self._keep_step(form)
        self.opaque = [(node, refusal) for node, refusal in self.opaque if self.node(node)]

    def node(self, node: Node) -> bool:
        """Tell whether a node is needed."""
        return id(node) in self._nodes

    def value(self, value: Value) -> bool:
        """Tell whether a value is needed."""
        return id(value) in self._values

    def _add_scan(self, form: _ScanForm) -> None:
        self.scans[id(form.node)] = form
        self._inputs.update((id(value), (form, slot)) for slot, value in enumerate(form.body.inputs))
        self._outputs.update((id(value), slot) for slot, value in enumerate(form.node.outputs))

    def _keep_step(self, form: _ScanForm) -> None:
        """Keep one scan input, needed elsewhere if possible, of a Scan that needs none but their length."""
        scanned = form.body.inputs[form.carried :]
        if any(map(self.value, scanned)):
            return
        outer = form.node.inputs[form.carried :]
        self.chose |= len(outer) > 1
        self._follow([scanned[next((slot for slot, value in enumerate(outer) if self.value(value)), 0)]])

    def _follow(self, wanted: Sequence[Value]) -> None:
        pending = list(wanted)
        while pending:
            value = pending.pop()
            if id(value) in self._values or is_missing(value):
                continue
            self._values.add(id(value))
            producer = self.index.producer(value)
            if producer is not None:
                pending.extend(self._behind_output(producer, value))
            elif id(value) in self._inputs:
                pending.extend(_behind_input(*self._inputs[id(value)]))

    def _behind_output(self, node: Node, value: Value) -> list[Value]:
        """Return what an output of a node needs directly."""
        form = self.scans.get(id(node))
        if form is not None:
            if id(node) not in self._nodes:
                self._needed_scans.append(form)
            self._nodes.add(id(node))
            slot = self._outputs[id(value)]
            first = form.node.inputs[slot : slot + 1] if slot < form.carried else []
            return [form.body.outputs[slot], *first]
        if id(node) in self._nodes:
            return []
        self._nodes.add(id(node))
        return [*node.inputs, *(value for _, body in bodies_of(node) for value in body.outputs)]


def _behind_input(form: _ScanForm, slot: int) -> list[Value]:
    """Return what an input of a Scan body needs directly."""
    following = [form.body.outputs[slot]] if slot < form.carried else []
    return [form.node.inputs[slot], *following]


def _dead_nodes(graph: Graph, need: _Need) -> Iterable[Node]:
    """Yield the nodes that are not needed, without those inside them."""
    for node in graph.nodes:
        if not need.node(node):
            yield node
            continue
        for _, body in bodies_of(node):
            yield from _dead_nodes(body, need)


def _narrow(form: _ScanForm, need: _Need, rewriter: Rewriter, tally: Tally) -> None:
    """Cut the slots of a Scan that nothing needs, in the node and in the body."""
    node, body, carried = form.node, form.body, form.carried
    reads, makes = [list(map(need.value, values)) for values in (body.inputs, node.outputs)]
    for slot in range(carried):
        reads[slot] = makes[slot] = reads[slot] or makes[slot]
    if all(reads) and all(makes):
        return
    if not tally.admits("scan-ports", describe(node)):
        return
    _remark(body.inputs[:carried], reads[:carried], "carried-states", tally)
    _remark(body.inputs[carried:], reads[carried:], "scan-inputs", tally)
    _remark(body.outputs[carried:], makes[carried:], "scan-outputs", tally)
    for side, kept in (("input", reads[carried:]), ("output", makes[carried:])):
        for what in ("axes", "directions"):
            name = f"scan_{side}_{what}"
            if name in node.attrs:
                rewriter.set_attribute(node, name, _chosen(node.attrs[name], kept) or None)
    rewriter.set_attribute(node, "num_scan_inputs", sum(reads[carried:]))
    inputs, outputs = _chosen(node.inputs, reads), _chosen(node.outputs, makes)
    rewriter.set_ports(body, _chosen(body.inputs, reads), _chosen(body.outputs, makes))
    rewriter.set_ports(node, inputs, outputs)


def _remark(values: Iterable[Value], kept: Iterable[bool], rule: str, tally: Tally) -> None:
    for value, stays in zip(values, kept, strict=True):
        if not stays:
            tally.applied(rule, f"'{value.name}'")


def _chosen(items: Sequence[Any], kept: Sequence[bool]) -> list[Any]:
    return [item for item, stays in zip(items, kept, strict=True) if stays]
