"""What is wrong with a candidate, and whether it is the same as what was wrong with the model."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from snn_optimizer.checking import CheckCommand
from snn_optimizer.errors import ConvergenceError, ExecutionError, PassError
from snn_optimizer.ir import SNNGraph
from snn_optimizer.job import Job, prepare, run_job
from snn_optimizer.passes.base import Exactness
from snn_optimizer.pipeline.guard import Guard, describe
from snn_optimizer.pipeline.recorder import Recorder
from snn_optimizer.reduction.candidate import Candidate, is_sound
from snn_optimizer.verification import Equivalence, Verdict

__all__ = ["CheckOracle", "Failure", "Oracle", "PipelineOracle", "failure_of_error"]


@dataclass(frozen=True, slots=True)
class Failure:
    """One way to be wrong.

    Attributes
    ----------
    kind : str
        ``values differ``, ``does not run``, ``interface``, ``raises ...``, ``check``.
    culprit : str
        The pass, empty where none is known.
    text : str
        What was found, in one line.
    """

    kind: str
    culprit: str
    text: str

    def same_as(self, other: Failure | None) -> bool:
        """Tell whether another failure is of the same kind and of the same pass."""
        return other is not None and (self.kind, self.culprit) == (other.kind, other.culprit)

    def __str__(self) -> str:
        return f"{self.culprit + ': ' if self.culprit else ''}{self.text}"


Oracle: TypeAlias = Callable[[Candidate], "Failure | None"]


def failure_of_error(error: Exception, culprit: str = "") -> Failure:
    """Return an exception as a failure; a pass that raised is told by what it raised."""
    name = type(error.__cause__ if isinstance(error, PassError) and error.__cause__ else error).__name__
    return Failure(f"raises {name}", culprit, f"{name}: {error}" if not isinstance(error, PassError) else str(error))


@dataclass(slots=True)
class PipelineOracle:
    """Runs the pipeline unguarded and compares what it leaves with the candidate.

    Only a difference that the last pass makes is one: where the model before it is wrong already, another pass
    is to blame.

    Attributes
    ----------
    job : Job
    runs : bool
        Whether candidates have to run in onnxruntime.
    pattern : str
        Regular expression that what was found has to match.
    """

    job: Job
    runs: bool = True
    pattern: str = ""

    def __call__(self, candidate: Candidate) -> Failure | None:
        """Return what is wrong, None when nothing is or it cannot be told."""
        job = replace(candidate.job(self.job), verify=False)
        if not is_sound(candidate.model, runs=self.runs, seed=job.seed, domain=job.domain):
            return None
        recorder = Recorder()
        try:
            found = self._run(candidate, replace(job, instruments=(recorder,)), recorder)
        except PassError as error:
            running = None if isinstance(error, ConvergenceError) else recorder.running
            found = failure_of_error(error, running.name if running else "")
        except ExecutionError:
            return None
        except Exception as error:  # noqa: BLE001 - a defect of ours is what one may want to reduce
            found = failure_of_error(error, recorder.running.name if recorder.running else "")
        return found if found is not None and re.search(self.pattern, found.text) else None

    def _run(self, candidate: Candidate, job: Job, recorder: Recorder) -> Failure | None:
        prepared = prepare(candidate.model, job)
        prepared.manager.run(prepared.graph, prepared.pipeline)
        if not recorder.models:
            return None
        guard = Guard(prepared.original, prepared.calibration, domain=prepared.manager.domain, seed=job.seed)
        last, graph = recorder.models[-1]
        assert last is not None
        found = self._compared(guard, graph, recorder.claim(len(recorder.models)))
        if found.verdict is not Verdict.DIFFERENT:
            return None
        if len(recorder.models) > 1:
            before = self._compared(guard, recorder.models[-2][1], recorder.claim(len(recorder.models) - 1))
            if before.verdict is Verdict.DIFFERENT:
                return None
        return Failure(_kind(found), last.name, describe(found))

    def _compared(self, guard: Guard, graph: SNNGraph, level: Exactness) -> Equivalence:
        return guard.original_referee.check(guard.runnable(graph), exactness=level.name.lower())


def _kind(found: Equivalence) -> str:
    """Return in which way two models differ: values, or that the rewritten one does not load, run or fit."""
    if found.first is not None:
        return "values differ"
    return "does not run" if found.reason.startswith("the rewritten model does not") else "interface differs"


@dataclass(slots=True)
class CheckOracle:
    """Asks the caller's check about the candidate, or about what the pipeline makes of it.

    With a pipeline the check has to accept the candidate itself, as in a bisection, and passes are guarded as in
    an optimization.
    """

    job: Job
    check: CheckCommand
    runs: bool = True
    said: list[str] = field(default_factory=list)  # the last answer

    def __call__(self, candidate: Candidate) -> Failure | None:
        """Return the failure of the check, None where there is none."""
        job = replace(candidate.job(self.job), verify=True)
        if not is_sound(candidate.model, runs=self.runs, seed=job.seed, domain=job.domain):
            return None
        if not candidate.pipeline:
            return self._asked(candidate)
        if self._asked(candidate) is not None:
            return None
        try:
            graph, _ = run_job(candidate.model, job)
        except Exception as error:  # noqa: BLE001 - a defect of ours is another failure than the one of the check
            self.said[:] = [f"{type(error).__name__}: {error}"]
            return None
        found = self.check(graph)
        self.said[:] = [found.text]
        return Failure("check", "", found.text) if found.fails else None

    def _asked(self, candidate: Candidate) -> Failure | None:
        found = self.check(candidate.model)
        self.said[:] = [found.text]
        return Failure("check", "", found.text) if found.fails else None
