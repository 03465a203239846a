"""Reduce a failing model: which failure, which reductions in which order, until none helps."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from snn_optimizer.bisection import Bisection, bisect
from snn_optimizer.checking import CheckCommand, compiled
from snn_optimizer.errors import (
    ConvergenceError,
    ExecutionError,
    InputError,
    PassError,
    UnsupportedModelError,
    VerificationError,
)
from snn_optimizer.execution import Session
from snn_optimizer.job import Job, Model, dataset_of, proto_of
from snn_optimizer.pipeline import PassStatus
from snn_optimizer.pipeline.presets import expand
from snn_optimizer.pipeline.spec import Element, parse
from snn_optimizer.reduction.candidate import Candidate, Measure, is_sound
from snn_optimizer.reduction.failures import CheckOracle, Failure, Oracle, PipelineOracle, failure_of_error
from snn_optimizer.reduction.search import Progress, Search, TimeUpError
from snn_optimizer.reduction.strategies import run_round

__all__ = ["Progress", "Reduction", "reduce", "samples_of"]

PIECES = (16, 64, math.inf)  # into how many the nodes are divided at most, round by round


@dataclass(frozen=True, slots=True)
class Reduction:
    """What is left of a failing model.

    Attributes
    ----------
    candidate : Candidate
    failure : Failure
        Of the candidate; the same kind as that of the model.
    before, after : Measure
    tried : int
        Candidates judged.
    seconds : float
    complete : bool
        False when the time limit ended the search.
    job : Job
        The premises it fails under.
    """

    candidate: Candidate
    failure: Failure
    before: Measure
    after: Measure
    tried: int
    seconds: float
    complete: bool
    job: Job

    @property
    def summary(self) -> str:
        """The outcome in one line."""
        before, after = self.before, self.after
        parts = [f"{before.nodes:,} nodes -> {after.nodes:,} nodes"]
        if before.neurons or after.neurons:
            parts.append(f"{before.neurons:,} -> {after.neurons:,} neurons")
        parts.append(f"{before.values:,} -> {after.values:,} non-zero values")
        if before.passes:
            parts.append(f"pipeline {before.passes} -> {after.passes} passes")
        if before.samples:
            parts.append(f"{before.samples:,} -> {after.samples:,} samples")
        return f"{', '.join(parts)}, {self.tried} candidates, {self.seconds:.0f} s"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serializable form."""
        sizes = ("nodes", "neurons", "values", "passes", "samples")
        return {
            "failure": {"kind": self.failure.kind, "pass": self.failure.culprit, "found": self.failure.text},
            "pipeline": self.candidate.text,
            "before": {name: getattr(self.before, name) for name in sizes},
            "after": {name: getattr(self.after, name) for name in sizes},
            "candidates": self.tried,
            "seconds": round(self.seconds, 3),
            "complete": self.complete,
        }


def reduce(
    model: Model,
    job: Job,
    check: Sequence[str] = (),
    *,
    timeout: float | None = None,
    pattern: str = "",
    time_limit: float | None = None,
    tell: Callable[[Progress], None] | None = None,
) -> Reduction:
    """Find a small model that fails in the same way.

    Parameters
    ----------
    model : SNNGraph, path or ModelProto
    job : Job
        Its pipeline, data and premises. Without a check the pipeline runs unguarded and fails where a pass raises
        or where the result differs from the model. With a check and an empty pipeline the check judges the model
        itself, with a pipeline what the guarded pipeline makes of it.
    check : sequence of str, optional
        A command that exits with 0 for a good model; ``{}`` in it stands for the model's file.
    timeout : float, optional
        Seconds after which the command counts as failed.
    pattern : str, optional
        A regular expression that the output of a failed check, or what was found, has to match.
    time_limit : float, optional
        Seconds after which the smallest model so far is returned.
    tell : callable, optional
        Hears every success.

    Raises
    ------
    InputError
        Also where the model does not fail.
    ExecutionError
        Where it cannot be told whether it fails.
    """
    start = time.perf_counter()
    end = None if time_limit is None else start + time_limit
    with tempfile.TemporaryDirectory(prefix="snnopt-reduce-") as folder:
        original = proto_of(model)
        candidate = Candidate(original, expand(parse(job.pipeline)).elements, samples_of(original, job))
        job = replace(job, calibration=candidate.samples)
        premises = candidate.job(job)
        runs = is_sound(candidate.model, runs=True, seed=job.seed, domain=premises.domain)
        oracle: Oracle
        if check:
            command = CheckCommand.of(check, Path(folder), timeout, pattern)
            first, reference, oracle = _failing_check(candidate, CheckOracle(job, command, runs))
        else:
            oracle = PipelineOracle(job, runs, compiled(pattern))
            first, reference = _failing_pipeline(candidate, job, oracle)
        search = Search(first, reference, oracle, end, tell, start)
        complete = _search(search)
        found = search.current
        before, after = Measure.of(candidate, job.frontend), Measure.of(found, job.frontend)
        seconds = time.perf_counter() - start
        return Reduction(found, search.reference, before, after, search.tried, seconds, complete, found.job(job))


def _search(search: Search) -> bool:
    """Reduce until nothing helps; return False when the time was up before."""
    try:
        for pieces in PIECES:
            known = -1
            while known != search.accepted:
                known = search.accepted
                run_round(search, pieces)
    except TimeUpError:
        return False
    return True


def samples_of(model: onnx.ModelProto, job: Job) -> dict[str, npt.NDArray[Any]] | None:
    """Return the calibration samples of a job by name, with ``labels`` where there are any; None without samples."""
    if job.calibration is None:
        return None
    data = dataset_of(job.calibration, Session(model), "calibration")
    assert data is not None
    return dict(data.feeds) | ({} if data.labels is None else {"labels": np.asarray(data.labels)})


def _failing_check(candidate: Candidate, oracle: CheckOracle) -> tuple[Candidate, Failure, Oracle]:
    failure = oracle(candidate)
    if failure is None:
        said = oracle.said[-1] if oracle.said else "the model is not a valid one"
        raise InputError(f"there is nothing to reduce, the check does not fail as it should: {said}")
    return candidate, failure, oracle


def _failing_pipeline(candidate: Candidate, job: Job, oracle: Oracle) -> tuple[Candidate, Failure]:
    """Find what fails, and the shortest of a few beginnings that fails so."""
    try:
        found = bisect(candidate.model, job, inside=False)
    except (ConvergenceError, UnsupportedModelError, PassError, VerificationError) as error:
        expected, beginnings = failure_of_error(error), [candidate]
    else:
        expected, beginnings = _beginnings(candidate, found)
    for one in beginnings:
        failure = oracle(one)
        if failure is not None and failure.culprit == expected.culprit:
            return one, failure
    raise InputError(f"there is nothing to reduce, this failure is not the one asked for or not repeated: {expected}")


def _beginnings(candidate: Candidate, found: Bisection) -> tuple[Failure, list[Candidate]]:
    """Return the guilty pass alone on the model, alone on what it ran on, and behind those that ran before it."""
    if found.guilty is None and found.finding.wrong is None:
        raise ExecutionError(f"it cannot be told whether the result is wrong: {found.finding.text}")
    if found.guilty is None:
        raise InputError(
            f"there is nothing to reduce, the result of '{found.pipeline}' is not wrong: {found.finding.text}"
        )
    kept = [r for r in found.runs if r.status is PassStatus.KEPT and r.number < found.guilty.number]
    guilty = _elements(found.guilty.text)
    behind = tuple(one for result in kept for one in _elements(result.text)) + guilty
    beginnings = [replace(candidate, pipeline=guilty)]
    if found.alone and found.before is not None:
        beginnings.append(replace(candidate, pipeline=guilty, model=found.before.to_onnx()))
    beginnings.append(replace(candidate, pipeline=behind))
    return Failure("", found.guilty.name, found.finding.text), beginnings


def _elements(text: str) -> tuple[Element, ...]:
    return parse(text).elements
