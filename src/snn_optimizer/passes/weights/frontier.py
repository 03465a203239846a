"""How far a path of ever smaller networks can be followed, when each step is measured with noise.

A budget of half a point is two samples of four hundred, and one sample more or less is chance. Taking the furthest
point that happens to be within the budget takes the luckiest; stopping at the first that happens not to be takes
the unluckiest. Costs along the path can only rise, so points are measured all around the limit and judged
together, by the closest series that never falls (isotonic regression; Barlow et al., "Statistical Inference under
Order Restrictions", 1972).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from snn_optimizer.passes.base import Spending

__all__ = ["AROUND", "furthest", "never_falling"]

AROUND: Final = 10  # further points measured around the limit
_STEP: Final = 0.96  # from one point to the next, of what is left
_FIRST: Final = 3  # points away, the first looked at where the answer is likely near
_NEAR: Final = 2.0  # shares of the budget up to which a point is near the limit


def furthest(
    measure: Callable[[int], Spending], top: int, *, around: int = AROUND, limit: float = 1.0, near: bool = False
) -> int:
    """Return the furthest of the points 0 to ``top`` that is within the budget; 0 when none is.

    Parameters
    ----------
    measure : callable
        What the network at a point costs, over all measurements; 0 is never asked for.
    top : int
    around : int
        How many points around the limit are measured beside those of a search by halves.
    limit : float
        The share of the budget that may be spent.
    near : bool
        Whether the answer is likely near 0; it is then looked for in growing steps from there.
    """
    points = _points(top)
    seen: dict[int, Spending] = {}

    def at(place: int) -> Spending:
        if place not in seen:
            seen[place] = measure(points[place])
        return seen[place]

    low, high = 0, len(points) - 1
    step = _FIRST if near else high
    while step < high:
        if _spends(at(step)) > limit:
            high = step - 1
        else:
            low, step = step, 2 * step
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _spends(at(middle)) <= limit else (low, middle - 1)
    beyond = [place for place, spent in seen.items() if place > low and _spends(spent) > _NEAR * limit]
    stop = min(beyond, default=len(points) - 1)
    start = max((place for place, spent in seen.items() if place < low and _spends(spent) <= limit), default=0)
    for place in np.unique(np.linspace(start, stop, around + 2).astype(int)).tolist():
        if start < place <= stop:
            at(place)
    places = sorted(seen)
    judged = _judged([seen[place].shares for place in places])
    within = [place for place, share in zip(places, judged, strict=True) if max(share, _spends(seen[place])) <= limit]
    return points[max(within, default=0)]


def _spends(spending: Spending) -> float:
    """Return the largest share of the budget; infinite where it could not be measured."""
    return max(spending.shares, default=np.inf)


def _points(top: int) -> list[int]:
    """Return points from 0 to ``top``, the nearer to each other the less is left."""
    left = top * _STEP ** np.arange(np.ceil(np.log(max(top, 1)) / -np.log(_STEP)) + 1)
    found: list[int] = np.unique(np.concatenate([[0], top - np.rint(left), [top]])).astype(int).tolist()
    return found


def _judged(shares: Sequence[tuple[float, ...]]) -> npt.NDArray[np.float64]:
    """Return the largest share at each point, every measurement made never falling along the path."""
    if not shares or not all(shares):  # nothing could be measured somewhere
        return np.full(len(shares), np.inf)
    series = [never_falling(np.array(each)) for each in zip(*shares, strict=True)]
    return np.asarray(np.max(series, axis=0), np.float64)


def never_falling(series: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the least-squares fit that never falls: at each place the largest of the smallest means around it."""
    size = len(series)
    means = np.full((size, size), np.nan)
    for start in range(size):
        counts = np.arange(1, size - start + 1)
        means[start, start:] = np.cumsum(series[start:]) / counts
    smallest = np.minimum.accumulate(np.where(np.isnan(means), np.inf, means)[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(np.max(np.where(np.tri(size, dtype=bool).T, smallest, -np.inf), axis=0))
