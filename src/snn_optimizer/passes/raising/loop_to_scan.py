"""Turn ``Loop`` nodes that run over time into ``Scan`` nodes.

Before: ``v, S = Loop(Shape(x)[0], True, v0, SequenceEmpty())``, whose body reads ``Gather(x, t)`` and
        appends a spike to ``S``, and ``y = ConcatFromSequence(S)``
After:  ``v, y = Scan(v0, x)``, whose body has the step of ``x`` as an input and the spike as an output

A Scan says what the passes after this one must know: which values are states, which tensors have a time
axis, and where the output of a step goes. Everything else of the body stays as it is, node by node, so
every step computes the same bits. :mod:`snn_optimizer.raising.loops` has the proofs; a Loop for which one
fails is left alone. Where the body needs the number of the iteration itself, or reads nothing step by step,
the Scan runs over ``Range(0, steps)``.

A sequence has at least one step, as everywhere in ``ai.snn``: runtimes refuse to run a Scan over none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx

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
)
from snn_optimizer.passes.base import BEYOND_LIMIT, Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.passes.cleanup.shared import Tally
from snn_optimizer.raising.loops import Obstacle, Read, TimeLoop, read_loop

__all__ = ["LoopToScan"]

_SENTENCES = {"loop-over-time": "is now a Scan"}
_AXES_ARE_INPUT = 13  # of Unsqueeze


@dataclass(frozen=True, slots=True)
class LoopToScan(Pass):
    """Turn Loop nodes that run over time into Scan nodes.

    Works on the Loops of the main graph; those in bodies and functions are left
    alone. Idempotent: a Loop that stays is refused again for the same reason.
    """

    name: ClassVar[str] = "loop-to-scan"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Turn one Loop after the other; each is judged by what the ones before it became."""
        tally = Tally(context)
        module = graph.module
        for node in [node for node in module.graph.nodes if is_standard(node, "Loop")]:
            place = describe(node)
            loop = read_loop(module, GraphIndex(module), node)
            if isinstance(loop, Obstacle):
                tally.missed(Refusal(loop.rule, loop.reason), place)
                continue
            if not tally.admits("loop-over-time", place):
                tally.missed(BEYOND_LIMIT, place)
                continue
            _Conversion(module, loop).run()
            tally.applied("loop-over-time", place)
        for node in _inner_loops(module.graph):
            tally.missed(Refusal("inside-body", "a Loop in the body of another node is not read"), describe(node))
        tally.report(context, _SENTENCES)
        return Outcome(changes=tally.changes, details=tally.counts())


class _Conversion:
    """Turns one Loop into a Scan."""

    def __init__(self, module: Module, loop: TimeLoop) -> None:
        self.module = module
        self.loop = loop
        self.node = loop.node
        self.body: Graph = loop.node.attrs["body"]
        self.rewriter = Rewriter(module)
        self.renamed: dict[int, Value] = {}  # what body values became
        self.returned: set[int] = set()

    def run(self) -> None:
        """Rewrite the body from its inputs to its outputs, then the node."""
        loop, rewriter = self.loop, self.rewriter
        finals = {id(value): value for value in self.node.outputs}
        for one in loop.unchanged:
            self.rename(one.before, one.initial)
        self.rename(self.body.inputs[1], rewriter.constant("true", np.array(True)))
        states = [self.fresh(one.before) for one in loop.states]
        for one, state in zip(loop.states, states, strict=True):
            self.rename(one.before, state)
        sources, axes, steps = self.scanned()
        results = [self.output(one.after) for one in loop.states] + [self.output(one.value) for one in loop.emitted]
        made = [self.final(one.final) for one in loop.states]
        stacks = [one.stack for one in loop.emitted if one.stack is not None]
        inserts = [one.after.inputs[0] for one in loop.appended]
        rewriter.set_ports(self.body, [*states, *steps], results)
        rewriter.erase([*stacks, *inserts])
        attrs: dict[str, Any] = {"body": self.body, "num_scan_inputs": len(sources)}
        if any(axes):
            attrs["scan_input_axes"] = axes
        if any(one.axis for one in loop.emitted):
            attrs["scan_output_axes"] = [one.axis for one in loop.emitted]
        inputs = [*(one.initial for one in loop.states), *sources]
        rewriter.retarget(self.node, "Scan", inputs, attrs)
        rewriter.set_ports(self.node, inputs, [*made, *(one.target for one in loop.emitted)])
        for one in loop.unchanged:
            self.pass_on(one.initial, finals.get(id(one.final)))
        rewriter.finish()

    # ------------------------------------------------------------------ inputs

    def scanned(self) -> tuple[list[Value], list[int], list[Value]]:
        """Return the scan inputs, their axes, and the body inputs that hold one step of them."""
        sources: list[Value] = []
        axes: list[int] = []
        steps: list[Value] = []
        places: dict[tuple[int, int], int] = {}
        for read in self.loop.reads:
            place = places.setdefault((id(read.source), read.axis), len(steps))
            if place == len(steps):
                sources.append(read.source)
                axes.append(read.axis)
                steps.append(self.step_of(read))
            self.read(read, steps[place])
        if self.loop.counted or not sources:
            sources.append(self.numbers())
            axes.append(0)
            steps.append(self.rewriter.value("step", np.int64, ()))
            self.number(steps[-1])
        return sources, axes, steps

    def step_of(self, read: Read) -> Value:
        """Return a body input for one step of what is read."""
        kind, sizes = self.loop.types[id(read.source)]
        taken = (*sizes[: read.axis], *sizes[read.axis + 1 :])
        return self.rewriter.value(f"{read.source.name}.step", _dtype(kind), taken)

    def read(self, read: Read, step: Value) -> None:
        """Let what read the element of this step read the body input."""
        if read.keeps_axis:
            step = self.unsqueezed(step, read.axis)
        self.rename(read.node.outputs[0], step)
        self.rewriter.erase(read.node)

    def numbers(self) -> Value:
        """Return the numbers of all iterations, made in the main graph."""
        rewriter, steps = self.rewriter, self.loop.steps
        if isinstance(steps, int):
            steps = rewriter.constant("steps", np.array(steps, dtype=np.int64))
        else:  # the count of a Loop may be one number in a vector
            scalar = rewriter.value("steps", np.int64, ())
            rewriter.add(self.module.graph, "Reshape", [steps, self.integers([])], [scalar])
            steps = scalar
        made = rewriter.value("iterations", np.int64, [None])
        ends = [rewriter.constant("first", np.array(0, dtype=np.int64)), steps]
        ends.append(rewriter.constant("stride", np.array(1, dtype=np.int64)))
        rewriter.add(self.module.graph, "Range", ends, [made])
        return made

    def number(self, step: Value) -> None:
        """Let the body read the number of the iteration from a scan input."""
        old = self.body.inputs[0]
        self.rename(old, self.unsqueezed(step, 0) if old.shape else step)

    def unsqueezed(self, value: Value, axis: int) -> Value:
        """Return a value of the body with one more axis of size 1."""
        made = self.rewriter.value(f"{value.name}.kept", value.dtype, None)
        if self.module.opset() >= _AXES_ARE_INPUT:
            self.rewriter.add(self.body, "Unsqueeze", [value, self.integers([axis])], [made])
        else:
            self.rewriter.add(self.body, "Unsqueeze", [value], [made], {"axes": [axis]})
        return made

    def integers(self, numbers: Sequence[int]) -> Value:
        return self.rewriter.constant("axes", np.array(numbers, dtype=np.int64))

    # ----------------------------------------------------------------- outputs

    def output(self, value: Value) -> Value:
        """Return a body output with this value: made by a node of the body, and returned once."""
        while id(value) in self.renamed:
            value = self.renamed[id(value)]
        made = self.fresh(value)
        maker = value.inputs[0] if len(value.inputs) == 1 else None
        inside = maker is not None and any(maker is node for node in self.body.nodes)
        if maker is None or not inside or id(value) in self.returned:
            self.rewriter.add(self.body, "Identity", [value], [made])
        else:
            outputs = [made if one is value else one for one in maker.outputs]
            self.rewriter.set_ports(maker, maker.inputs, outputs)
            self.rename(value, made)
        self.returned.add(id(made))
        return made

    def final(self, value: Value) -> Value:
        """Return an output of the node for a state after the last step; a Scan names all of them."""
        return self.rewriter.value("final", None, None) if is_missing(value) else value

    def pass_on(self, initial: Value, final: Value | None) -> None:
        """Give a value that no step changes to those who read it after the loop."""
        if final is None or is_missing(final):
            return
        if any(final is output for output in self.module.graph.outputs):
            self.rewriter.add(self.module.graph, "Identity", [initial], [final])
        else:
            self.rewriter.replace_uses(final, initial)

    # ------------------------------------------------------------------ values

    def fresh(self, value: Value) -> Value:
        """Return a new value with the type that was inferred for a value of the body."""
        known = self.loop.types.get(id(value))
        if known is None:
            return self.rewriter.value(value.name, value.dtype, value.shape)
        return self.rewriter.value(value.name, _dtype(known[0]), known[1])

    def rename(self, old: Value, new: Value) -> None:
        """Let the body read ``new`` instead of ``old``, also where it is returned."""
        self.rewriter.replace_uses(old, new)
        self.renamed[id(old)] = new


def _dtype(kind: int) -> np.dtype[Any]:
    found: np.dtype[Any] = onnx.helper.tensor_dtype_to_np_dtype(kind)
    return found


def _inner_loops(graph: Graph) -> list[Node]:
    found = []
    for node in graph.nodes:
        for _, body in bodies_of(node):
            found += [inner for inner in body.nodes if is_standard(inner, "Loop")] + _inner_loops(body)
    return found
