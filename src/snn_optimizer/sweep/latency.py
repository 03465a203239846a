"""Run time at batch 1 beside the original."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from snn_optimizer.execution import Dataset, Session
from snn_optimizer.execution.timing import in_turns, ratio_of, summary

__all__ = ["Stopwatch"]

SECONDS = 1.0  # for one model, once there are enough turns
FEWEST = 15  # turns


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
        self._original = Session(original, optimize=True).prepare(self._feeds)

    def measure(self, model: Path) -> tuple[float, float]:
        """Return the median ratio to the original and the median milliseconds, with one thread.

        Raises
        ------
        ExecutionError
            If the model does not run.
        """
        calls = {"before": self._original, "after": Session(model, optimize=True).prepare(self._feeds)}
        times = in_turns(calls, seconds=SECONDS, fewest=FEWEST)
        return ratio_of(times["after"], times["before"]).median, 1000 * summary(times["after"]).median
