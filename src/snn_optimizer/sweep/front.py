"""Which of several results no other beats."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["pareto_front"]


def pareto_front(merit: npt.ArrayLike, cost: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Mark the points that no other point beats.

    One beats another when it has no less merit and no more cost, and one of the two is better. Equal points stand
    together. A point with an unknown (NaN) merit or cost is not on the front and beats none.

    Parameters
    ----------
    merit, cost : array of float, one per point
    """
    gains, costs = np.asarray(merit, np.float64), np.asarray(cost, np.float64)
    known = ~(np.isnan(gains) | np.isnan(costs))
    with np.errstate(invalid="ignore"):
        as_good = (gains[:, None] >= gains) & (costs[:, None] <= costs)  # row as good as column
        better = (gains[:, None] > gains) | (costs[:, None] < costs)
    beaten = (as_good & better & known[:, None]).any(axis=0)
    return known & ~beaten
