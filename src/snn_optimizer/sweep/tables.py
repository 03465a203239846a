"""The results of a sweep as rows, CSV and JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from snn_optimizer.sweep.front import pareto_front
from snn_optimizer.sweep.records import Record

__all__ = ["COSTS", "Row", "csv_text", "merit_name", "rows_of"]

COSTS: Final = ("bytes", "operations", "latency")
"""What accuracy is weighed against, each in a front of its own."""


@dataclass(frozen=True, slots=True)
class Row:
    """A record and where it stands among the others.

    Attributes
    ----------
    record : Record
    merit : float or None
        What the fronts are drawn with, see :func:`merit_name`.
    fronts : tuple of str
        Those of ``COSTS`` against which no other row is better.
    model : str
        File of the model, relative to the folder of results; empty when it was not kept.
    """

    record: Record
    merit: float | None
    fronts: tuple[str, ...]
    model: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return a flat, JSON-serializable form."""
        values = asdict(self.record)
        del values["model_digest"]
        marks = {f"front_{cost}": cost in self.fronts for cost in COSTS}
        return values | {"operations": self.record.operations, "merit": self.merit} | marks | {"model": self.model}


def merit_name(records: Sequence[Record]) -> str:
    """Return what results are compared by.

    The accuracy on the test samples, without labels there on the calibration samples, and without any labels the share
    of samples decided as by the original.
    """
    for name in ("accuracy_test", "accuracy_calibration"):
        if any(getattr(record, name) is not None for record in records):
            return name
    return "decision_agreement"


def rows_of(records: Sequence[Record], models: Sequence[str]) -> list[Row]:
    """Mark which results stand on a front; those that failed, differ or cannot be judged do not."""
    name = merit_name(records)
    merits = [_merit(record, name) for record in records]
    judged = [_number(merit if record.is_sound else None) for record, merit in zip(records, merits, strict=True)]
    fronts = {cost: pareto_front(judged, [_number(getattr(record, cost)) for record in records]) for cost in COSTS}
    return [
        Row(record, merits[i], tuple(cost for cost in COSTS if fronts[cost][i]), models[i])
        for i, record in enumerate(records)
    ]


def csv_text(rows: Sequence[Row]) -> str:
    """Return the rows as CSV with a heading; what is unknown is empty."""
    stream = io.StringIO()
    values = [row.to_json() for row in rows]
    writer = csv.DictWriter(stream, fieldnames=list(values[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(values)
    return stream.getvalue()


def _merit(record: Record, name: str) -> float | None:
    if name != "decision_agreement":
        found: float | None = getattr(record, name)
        return found
    return None if record.decision_change is None else 1 - record.decision_change


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
