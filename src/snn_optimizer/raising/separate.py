"""Cut the wires of single steps between loops of which one reads a whole sequence made of the other.

A residual around a layer that runs once over all steps: the later loop reads step t of the earlier one
directly, and all its steps through the layer, so the two are no one loop. Where the later loop reads
the step from a stack instead, as it reads the layer, each is a loop of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from snn_optimizer.ir import Module, Node, Rewriter, Value
from snn_optimizer.raising.loop import Lane
from snn_optimizer.raising.shift import output_index, producer_of

__all__ = ["Separation", "separate"]


@dataclass
class Separation:
    """Stacks written between loops, and how to take them out again."""

    module: Module
    order: list[Node]
    added: list[Node] = field(default_factory=list)
    inputs: list[tuple[Node, int, Value]] = field(default_factory=list)

    def undo(self) -> None:
        """Wire the steps as they were."""
        rewriter = Rewriter(self.module)
        for node, slot, value in self.inputs:
            rewriter.set_input(node, slot, value)
        rewriter.erase(self.added)
        rewriter.finish()
        self.module.graph.nodes = self.order


def separate(module: Module, owner: Mapping[int, tuple[Lane, int]]) -> Separation | None:
    """Let loops read stacks where they read a step of an earlier loop; None where none does.

    Parameters
    ----------
    module : Module
    owner : mapping
        Lane and position of each node that repeats, by ``id``.
    """
    cut = list(_wires(module.graph.nodes, owner))
    if not cut:
        return None
    done = Separation(module, list(module.graph.nodes))
    writer = _Stacks(Rewriter(module), done)
    for node, slot in cut:
        value = node.inputs[slot]
        maker = producer_of(value)
        assert maker is not None  # a wire starts at a lane
        lane, position = owner[id(maker)]
        done.inputs.append((node, slot, value))
        writer.rewriter.set_input(node, slot, writer.step(lane, output_index(maker, value), position))
    writer.rewriter.finish()
    return done


def _wires(nodes: Sequence[Node], owner: Mapping[int, tuple[Lane, int]]) -> list[tuple[Node, int]]:
    """Return the inputs by which a lane reads one that fewer sequences lie before."""
    depth = _depths(nodes, owner)
    deepest: defaultdict[int, int] = defaultdict(int)
    for key, (lane, _) in owner.items():
        deepest[id(lane)] = max(deepest[id(lane)], depth.get(key, 0))
    found = []
    for node in nodes:
        if id(node) not in owner:
            continue
        mine = deepest[id(owner[id(node)][0])]
        for slot, value in enumerate(node.inputs):
            maker = producer_of(value)
            if maker is not None and id(maker) in owner and deepest[id(owner[id(maker)][0])] < mine:
                found.append((node, slot))
    return found


def _depths(nodes: Sequence[Node], owner: Mapping[int, tuple[Lane, int]]) -> dict[int, int]:
    """Return how many times what a node computes left the lanes and came back; nodes in order of computation."""
    depth: dict[int, int] = {}
    after_lanes: set[int] = set()
    for node in nodes:
        inside, most = id(node) in owner, 0
        for value in node.inputs:
            maker = producer_of(value)
            if maker is None:
                continue
            key = id(maker)
            returns = inside and key not in owner and key in after_lanes
            most = max(most, depth.get(key, 0) + returns)
            if key in owner or key in after_lanes:
                after_lanes.add(id(node))
        depth[id(node)] = most
    return depth


@dataclass
class _Stacks:
    rewriter: Rewriter
    done: Separation
    stacks: dict[tuple[int, int], Value] = field(default_factory=dict)
    steps: dict[tuple[int, int, int], Value] = field(default_factory=dict)

    def step(self, lane: Lane, output: int, position: int) -> Value:
        """Return one step of a lane, read from its stack."""
        key = id(lane), output, position
        if key not in self.steps:
            stack = self._stack(lane, output)
            made = lane.nodes[position].outputs[output]
            value = self.rewriter.value(f"{made.name}_apart", made.dtype, made.shape)
            at = self.rewriter.constant("step", np.array(position, np.int64))
            self._add("Gather", [stack, at], value, {"axis": 0})
            self.steps[key] = value
        return self.steps[key]

    def _stack(self, lane: Lane, output: int) -> Value:
        key = id(lane), output
        if key not in self.stacks:
            axes = self.rewriter.constant("axes", np.array([0], np.int64))
            values = [node.outputs[output] for node in lane.nodes]
            parts = [self.rewriter.value(f"{value.name}_part", value.dtype, None) for value in values]
            for value, part in zip(values, parts, strict=True):
                self._add("Unsqueeze", [value, axes], part, {})
            self.stacks[key] = self.rewriter.value(f"{values[-1].name}_steps", values[-1].dtype, None)
            self._add("Concat", parts, self.stacks[key], {"axis": 0})
        return self.stacks[key]

    def _add(self, op: str, inputs: list[Value], output: Value, attributes: dict[str, int]) -> None:
        graph = self.done.module.graph
        self.done.added.append(self.rewriter.add(graph, op, list(inputs), [output], dict(attributes)))
