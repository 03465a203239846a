"""Run time at batch 1 beside the original."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.execution import Dataset, Session

__all__ = ["Stopwatch"]

SECONDS = 1.0  # for one model, once there are enough turns
FEWEST, MOST = 15, 101  # turns


class Stopwatch:
    """Times models against the original, the two taking turns, so that what slows the machine slows both.

    Parameters
    ----------
    original : path
    data : Dataset
        Its first sample is run, or as many as the model insists on.
    """

    def __init__(self, original: Path, data: Dataset) -> None:
        self._feeds: Mapping[str, npt.NDArray[Any]] = data.take(slice(0, data.fixed_batch or 1)).feeds
        self._original = Session(original, optimize=True)

    def measure(self, model: Path) -> tuple[float, float]:
        """Return the median ratio to the original and the median milliseconds, with one thread.

        Raises
        ------
        ExecutionError
            If the model does not run.
        """
        session = Session(model, optimize=True)
        for each in (self._original, session):
            self._seconds(each)  # the first run allocates
        turns: list[tuple[float, float]] = []
        end = time.perf_counter() + SECONDS
        while len(turns) < FEWEST or (len(turns) < MOST and time.perf_counter() < end):
            turns.append((self._seconds(self._original), self._seconds(session)))
        before, after = np.asarray(turns).T
        return float(np.median(after / before)), 1000 * statistics.median(after.tolist())

    def _seconds(self, session: Session) -> float:
        start = time.perf_counter()
        session.run(self._feeds)
        return time.perf_counter() - start
