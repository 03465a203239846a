"""What a model decides on a data set, for budgets and before/after accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.execution import Dataset, Session
from snn_optimizer.verification.accuracy import decisions

__all__ = ["Scores", "score"]

BATCH = 64


@dataclass(frozen=True, slots=True)
class Scores:
    """Decisions and outputs of one model on one data set.

    Attributes
    ----------
    accuracy : float or None
        ``None`` without labels.
    decisions : array, shape (samples,)
    outputs : tuple of dict
        Outputs of each batch.
    """

    accuracy: float | None
    decisions: npt.NDArray[Any]
    outputs: tuple[dict[str, npt.NDArray[Any]], ...]

    def decisions_changed(self, other: Scores) -> float:
        """Return the fraction of samples decided otherwise."""
        return float((self.decisions != other.decisions).mean())

    def outputs_changed(self, other: Scores) -> float:
        """Return the fraction of output elements that differ."""
        differing = total = 0
        for mine, theirs in zip(self.outputs, other.outputs, strict=True):
            for name, array in mine.items():
                differing += int((array != theirs[name]).sum())
                total += array.size
        return differing / total if total else 0.0


def score(session: Session, dataset: Dataset) -> Scores:
    """Run a model on a data set, batch by batch.

    Raises
    ------
    ExecutionError
        If the model cannot be run.
    """
    outputs = tuple(session.run(batch.feeds) for batch in dataset.batches(BATCH))
    decided = np.concatenate([decisions(batch) for batch in outputs])
    accuracy = None if dataset.labels is None else float((decided == dataset.labels).mean())
    return Scores(accuracy, decided, outputs)
