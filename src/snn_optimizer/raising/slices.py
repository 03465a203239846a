"""Values that are one step of a sequence: ``Gather``, ``Slice``, ``Split`` and what squeezes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from snn_optimizer.ir import Node, Value, array_of, is_standard

__all__ = ["Step", "steps_of"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a sequence.

    Attributes
    ----------
    source : Value
        The sequence.
    axis : int
        Its time axis, as the file writes it.
    index : int
    kept : bool
        Whether the time axis is still there, of length 1.
    """

    source: Value
    axis: int
    index: int
    kept: bool

    @property
    def train(self) -> tuple[int, int, bool]:
        """What two steps of one sequence share."""
        return id(self.source), self.axis, self.kept


def steps_of(nodes: Sequence[Node]) -> Mapping[int, Step]:
    """Return the steps of sequences by ``id`` of the value; cost O(nodes).

    Of a sequence at least two steps are taken; a single element of something is no step.
    """
    found: dict[int, Step] = {}
    for node in nodes:
        if not is_standard(node):
            continue
        if node.op == "Gather":
            _gather(node, found)
        elif node.op == "Slice":
            _slice(node, found)
        elif node.op == "Split":
            _split(node, found)
        elif node.op == "Squeeze":
            _squeeze(node, found)
    indices: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for step in found.values():
        indices[step.train[:2]].add(step.index)
    return {key: step for key, step in found.items() if len(indices[step.train[:2]]) > 1}


def _gather(node: Node, found: dict[int, Step]) -> None:
    index = array_of(node.inputs[1])
    if index is None or index.size != 1 or index.ndim > 1 or int(index.reshape(())) < 0:
        return
    axis = int(node.attrs.get("axis", 0))
    found[id(node.outputs[0])] = Step(node.inputs[0], axis, int(index.reshape(())), kept=index.ndim == 1)


def _slice(node: Node, found: dict[int, Step]) -> None:
    fields = [_single(value) for value in node.inputs[1:]]
    if len(fields) < 3 or any(field is None for field in fields):
        return
    start, end, axis, *step = (int(field) for field in fields if field is not None)
    if start >= 0 and end == start + 1 and step in ([], [1]):
        found[id(node.outputs[0])] = Step(node.inputs[0], axis, start, kept=True)


def _split(node: Node, found: dict[int, Step]) -> None:
    sizes = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if len(node.inputs) > 1 and node.inputs[1].name and (sizes is None or (sizes != 1).any()):
        return
    if sizes is None and not _covers(node.inputs[0], int(node.attrs.get("axis", 0)), len(node.outputs)):
        return
    for index, value in enumerate(node.outputs):
        found[id(value)] = Step(node.inputs[0], int(node.attrs.get("axis", 0)), index, kept=True)


def _covers(value: Value, axis: int, count: int) -> bool:
    shape = value.shape
    return shape is not None and -len(shape) <= axis < len(shape) and shape[axis] == count


def _squeeze(node: Node, found: dict[int, Step]) -> None:
    step = found.get(id(node.inputs[0]))
    if step is None or not step.kept or len(node.inputs) < 2:
        return
    axes = array_of(node.inputs[1])
    if axes is not None and axes.size == 1 and int(axes.reshape(())) == step.axis:
        found[id(node.outputs[0])] = Step(step.source, step.axis, step.index, kept=False)


def _single(value: Value) -> int | None:
    array = array_of(value)
    if array is None or array.size != 1 or not np.issubdtype(array.dtype, np.integer):
        return None
    return int(array.reshape(()))
