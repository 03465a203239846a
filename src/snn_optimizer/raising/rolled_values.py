"""The values that cross the border of a rolled loop: states, stacks of all steps, and what joins them."""

from __future__ import annotations

from dataclasses import dataclass

from snn_optimizer.ir import Array, Node, Value
from snn_optimizer.raising.loop import Lane

__all__ = ["Concatenation", "Register", "Stack"]


@dataclass(eq=False, slots=True)
class Register:
    """A state of the loop: an output of a lane, ``age`` steps old."""

    lane: Lane
    output: int
    age: int
    initial: Value | Array
    feed: Register | None
    received: Value
    final: Value


@dataclass(eq=False, slots=True)
class Stack:
    """All steps of a lane's output along a new axis."""

    source: Value
    axis: int
    result: Value


@dataclass(eq=False, slots=True)
class Concatenation:
    """A node that joins a value of all steps: from input ``slot`` on, along ``axis``.

    ``merged`` is the shape after joining the new axis with the one behind it, where the steps were
    joined along an axis they had.
    """

    node: Node
    slot: int
    source: Value
    axis: int
    merged: list[int] | None
