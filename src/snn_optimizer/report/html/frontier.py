"""What a search for the smallest network within a budget saw on its way: remarks of the rule ``frontier``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from snn_optimizer.pipeline import PassResult

__all__ = ["Frontier", "Point", "frontiers"]


@dataclass(frozen=True, slots=True)
class Point:
    """A network that was tried.

    Attributes
    ----------
    size : float
        What ``Frontier.axis`` counts.
    spent : float or None
        The largest share of the budget, 1 where it is just used up; None where it is not finite or was not measured.
    found : str
        What was measured, in one line.
    """

    size: float
    spent: float | None
    within: bool
    found: str


@dataclass(frozen=True, slots=True)
class Frontier:
    """The networks one run of a pass tried, by size."""

    pass_name: str
    number: int
    axis: str
    points: tuple[Point, ...]


_AXES = {"parameters": "parameters", "amount": "share removed", "exponent": "weights are multiples of 2^-n: n"}


def frontiers(results: Sequence[PassResult]) -> list[Frontier]:
    """Return the searches of a run of the optimizer, in order."""
    found = []
    for result in results:
        remarks = [remark for remark in result.remarks if remark.rule == "frontier"]
        axis = next((name for name in _AXES if remarks and name in remarks[0].arguments), None)
        if axis is None:
            continue
        points = []
        for remark in remarks:
            held = remark.arguments
            shares = held.get("shares")
            finite = isinstance(shares, list) and shares and all(isinstance(share, float) for share in shares)
            spent = max(shares) if finite and isinstance(shares, list) else None
            size = held.get(axis)
            if isinstance(size, int | float):
                points.append(Point(float(size), spent, bool(held.get("within_budget")), str(held.get("found", ""))))
        points.sort(key=lambda point: point.size)
        found.append(Frontier(result.name, result.number, _AXES[axis], tuple(points)))
    return found
