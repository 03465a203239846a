"""The loop an unrolled graph stands for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx

from snn_optimizer.ir import Node, Value, dtype_of_constant, is_standard
from snn_optimizer.raising.slices import Step

__all__ = ["Lane", "Loop", "Operand"]


_BOOLEAN: Final = frozenset(
    {"And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor"}
)


@dataclass(eq=False, slots=True)
class Lane:
    """One node of the step.

    Attributes
    ----------
    nodes : list of Node
        One per step, first step first.
    offset : int
        Step of the first node.
    """

    nodes: list[Node]
    offset: int = 0

    @property
    def last(self) -> int:
        """The last step that has a node."""
        return self.offset + len(self.nodes) - 1

    def at(self, step: int) -> Node | None:
        """Return the node of a step."""
        index = step - self.offset
        return self.nodes[index] if 0 <= index < len(self.nodes) else None


@dataclass(eq=False, slots=True)
class Operand:
    """What a lane reads in one slot.

    One of ``value`` (the same for all steps, or missing), ``step`` (the step of a sequence;
    its ``index`` is that at step 0) or ``lane`` with ``output`` and ``lag`` in steps.
    ``past`` holds, for a lag, the values read before the first step of the loop by their age
    in steps there; ``fill`` is a number that fills it where the file has no such value.
    """

    value: Value | None = None
    step: Step | None = None
    lane: Lane | None = None
    output: int = 0
    lag: int = 0
    past: dict[int, Value] = field(default_factory=dict)
    fill: float | None = None


@dataclass(eq=False, slots=True)
class Loop:
    """A proved loop over the steps ``first`` to ``last``.

    Attributes
    ----------
    lanes : list of Lane
        In an order of computation of the step.
    operands : dict
        Operands of each lane, by ``id``.
    owner : dict
        Lane and step of each node, by ``id`` of the node.
    missing : dict
        Values that stand for lanes without a node at the first step, by ``id`` of the lane.
    """

    first: int
    last: int
    lanes: list[Lane]
    operands: dict[int, list[Operand]] = field(default_factory=dict)
    owner: dict[int, tuple[Lane, int]] = field(default_factory=dict)
    missing: dict[int, Value] = field(default_factory=dict)

    def dtype(self, lane: Lane, output: int = 0) -> np.dtype[Any]:
        """Return the element type of a lane's values, float32 where nothing says otherwise."""
        return self._dtype(lane, output, set()) or np.dtype(np.float32)

    def _dtype(self, lane: Lane, output: int, seen: set[int]) -> np.dtype[Any] | None:
        node = lane.nodes[-1]
        if is_standard(node):
            if node.op in _BOOLEAN:
                return np.dtype(np.bool_)
            if node.op == "Cast":
                return _type(onnx.helper.tensor_dtype_to_np_dtype(int(node.attrs["to"])))
            if node.op in ("Shape", "Size"):
                return np.dtype(np.int64)
        declared = node.outputs[output].dtype
        if declared is not None:
            return _type(declared)
        if id(lane) in seen:
            return None
        seen.add(id(lane))
        for operand in self.operands.get(id(lane), []):
            if operand.lane is not None:
                found = self._dtype(operand.lane, operand.output, seen)
            else:
                source = operand.step.source if operand.step is not None else operand.value
                found = None if source is None else dtype_of_constant(source) or source.dtype
            if found is not None:
                return _type(found)
        return None

    @property
    def steps(self) -> int:
        """Number of steps the loop runs."""
        return self.last - self.first + 1


def _type(held: Any) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype(held)
    return found
