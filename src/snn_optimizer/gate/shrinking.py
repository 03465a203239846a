"""How much smaller the optimizer would make a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from snn_optimizer.errors import SnnOptimizerError
from snn_optimizer.job import Job, run_job
from snn_optimizer.measures import composition_of

__all__ = ["Shrunk", "shrink"]

_PIPELINE: Final = "@O2"


@dataclass(frozen=True, slots=True)
class Shrunk:
    """Bytes before and after, the share that goes (zero where it would grow), or why that is not known."""

    before: int
    after: int
    share: float | None
    reason: str = ""


def shrink(path: Path) -> Shrunk:
    """Optimize a model in memory at ``-O2``, checked by execution as always, and compare the sizes."""
    before = composition_of(path).total
    try:
        _, report = run_job(path, Job(pipeline=_PIPELINE))
    except SnnOptimizerError as error:
        return Shrunk(before, before, None, str(error).splitlines()[0])
    evidence = report.evidence
    if evidence.verdict != "EQUIVALENT":
        return Shrunk(before, report.after.bytes, None, f"the result is {evidence.verdict}: {evidence.reason}")
    after = report.after.bytes
    return Shrunk(before, after, max(0.0, 1 - after / before))
