"""Find the run of a pass whose result is wrong, by bisection over the runs of a pipeline.

The pipeline runs once. What stands after each run of a pass that changed something is kept, weights shared; it is
the model that ``--bisect-limit`` with the number of that run gives. The search then only judges these models.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt

from snn_optimizer.checking import CheckCommand
from snn_optimizer.errors import ConvergenceError, ExecutionError, InputError, PassError
from snn_optimizer.ir import SNNGraph
from snn_optimizer.job import Job, Model, Prepared, prepare, weakest_claim
from snn_optimizer.passes.base import Exactness
from snn_optimizer.pipeline import PassResult
from snn_optimizer.pipeline.guard import Guard, describe
from snn_optimizer.pipeline.recorder import Recorder
from snn_optimizer.pipeline.spec import parse
from snn_optimizer.verification import Verdict

__all__ = ["Bisection", "Finding", "Rewrite", "Step", "bisect"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one model: ``wrong`` is None where it cannot be told."""

    wrong: bool | None
    text: str
    counterexample: Mapping[str, npt.NDArray[Any]] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Step:
    """One model that was judged: the one after ``limit`` runs, the last of them of the pass ``text``.

    ``level`` is the exactness it was compared at, ``check`` where a command judged it. ``rewrites`` is how many
    of the last run's were made, None for all.
    """

    limit: int
    text: str
    level: str
    finding: Finding
    rewrites: int | None = None

    def __str__(self) -> str:
        word = {True: "wrong", False: "right", None: "cannot tell"}[self.finding.wrong]
        if self.rewrites is not None:
            after = f"after {self.rewrites} rewrites of pass ({self.limit}) {self.text}"
            return f"limit {self.limit}.{self.rewrites}: {word}: {after}: {self.finding.text}"
        after = f"after pass ({self.limit}) {self.text}" if self.limit else "the model before any pass"
        return f"limit {self.limit}: {word}: {after}: {self.finding.text}"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """The rewrite of a pass that makes its result wrong.

    Attributes
    ----------
    number, total : int
        Which of how many of that run.
    text : str
        Its rule, the layer or node and the unit.
    finding : Finding
        About the model after it.
    """

    number: int
    total: int
    text: str
    finding: Finding


@dataclass(slots=True)
class Bisection:
    """What a bisection found.

    Attributes
    ----------
    pipeline : str
    guilty : PassResult or None
        The run after which the model is wrong, and before which it is not.
    finding : Finding
        About the model after the guilty run; about the last model when there is none. ``wrong`` is None when
        it could not be told whether the result is right.
    before, after : SNNGraph or None
        The models around the guilty run; no ``after`` when the pass raised.
    level : Exactness
        Of the comparison that found it.
    guarded : bool
        Whether passes were rolled back as in an optimization.
    alone : bool
        Whether the guilty pass run alone on the model before it, as saved, is wrong too.
    rewrite : Rewrite or None
        The guilty rewrite of the guilty run; None where what is wrong does not begin with one that has a number.
    steps : list of Step
        In the order judged.
    runs : list of PassResult
        All runs of passes.
    """

    pipeline: str
    guarded: bool
    finding: Finding
    guilty: PassResult | None = None
    before: SNNGraph | None = None
    after: SNNGraph | None = None
    level: Exactness = Exactness.BITWISE
    alone: bool = False
    rewrite: Rewrite | None = None
    steps: list[Step] = field(default_factory=list)
    runs: list[PassResult] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serializable form."""
        return {
            "pipeline": self.pipeline,
            "guarded": self.guarded,
            "wrong": self.finding.wrong,
            "found": self.finding.text,
            "guilty": None if self.guilty is None else self.guilty.to_json() | {"applied": self.guilty.applied},
            "alone": self.alone,
            "rewrite": None
            if self.rewrite is None
            else {"number": self.rewrite.number, "of": self.rewrite.total, "text": self.rewrite.text},
            "runs": len(self.runs),
            "steps": [
                {"limit": s.limit, "rewrites": s.rewrites, "pass": s.text, "level": s.level}
                | {"wrong": s.finding.wrong, "found": s.finding.text}
                for s in self.steps
            ],
        }


Judge: TypeAlias = Callable[[SNNGraph, Exactness], Finding]


def bisect(
    model: Model,
    job: Job,
    check: Sequence[str] = (),
    *,
    timeout: float | None = None,
    pattern: str = "",
    inside: bool = True,
    tell: Callable[[Step], None] | None = None,
) -> Bisection:
    """Find the run of a pass whose result is wrong.

    Parameters
    ----------
    model : SNNGraph, path or ModelProto
    job : Job
        Its pipeline, data and premises. ``verify`` is not read: without a command passes run unguarded, for the
        guard would roll the guilty one back; with a command they are guarded as in an optimization, because the
        command looks for what the guard does not see.
    check : sequence of str, optional
        A command that exits with 0 for a right model; ``{}`` in it stands for the model's file. Without one a
        model is compared with the original, up to the last model all of whose passes claim BITWISE bit for bit,
        then up to rounding, then on the calibration data.
    timeout : float, optional
        Seconds after which the command counts as failed.
    pattern : str, optional
        A regular expression that the output of the command has to match for its failure to count.
    inside : bool
        Also find the rewrite of that run.
    tell : callable, optional
        Hears every step.

    Returns
    -------
    Bisection

    Raises
    ------
    InputError
        Also where the command fails on the model before any pass.
    ConvergenceError
        If a fixpoint group hit its bound, and nothing before it is wrong.
    """
    _require(job, check)
    with tempfile.TemporaryDirectory(prefix="snnopt-bisect-") as folder:
        command = CheckCommand.of(check, Path(folder), timeout, pattern) if check else None
        recorder = Recorder()
        prepared = prepare(
            model, replace(job, verify=bool(check), limit=None, instruments=(*job.instruments, recorder))
        )
        recorder.models.append((None, prepared.graph.copy(share_weights=True)))
        judge: Judge = _Comparison.of(prepared, job) if command is None else _Command(command)
        failure: PassError | None = None
        try:
            prepared.manager.run(prepared.graph, prepared.pipeline)
        except PassError as error:
            failure = error
        result = _Search(recorder.models, judge, tell, by_claim=not check).run(str(prepared.pipeline))
        result.runs = prepared.manager.results
        if result.guilty is None and failure is not None:
            if isinstance(failure, ConvergenceError) or recorder.running is None:
                raise failure
            result.guilty, result.before = recorder.running, recorder.models[-1][1]
            result.finding = Finding(True, str(failure))
        if result.guilty is not None:
            result.alone = _alone(result, job, judge, Path(folder))
            result.rewrite = _guilty_rewrite(result, job, judge, tell) if inside else None
        return result


def _require(job: Job, check: Sequence[str]) -> None:
    if job.budget.is_set and not check:
        raise InputError("a budget is for lossy passes, and those need a check command: leave the budget out")
    if job.emit:
        raise InputError("bisection judges what passes do, not the form a result is written in: leave emit out")
    if weakest_claim(parse(job.pipeline)) is Exactness.LOSSY and not check:
        raise InputError(
            f"'{job.pipeline}' changes results on purpose, so comparing them says nothing: give a check command, "
            "as in snnopt bisect MODEL -p PIPELINE -- CHECK {}"
        )


class _Search:
    """Bisects the models of a run, the first of which is the one before any pass."""

    def __init__(
        self,
        models: Sequence[tuple[PassResult | None, SNNGraph]],
        judge: Judge,
        tell: Callable[[Step], None] | None,
        *,
        by_claim: bool,
    ) -> None:
        self.models = models
        self.judge = judge
        self.tell = tell
        self.by_claim = by_claim
        self.steps: list[Step] = []
        self._known: dict[tuple[int, Exactness], Finding] = {}

    def run(self, pipeline: str) -> Bisection:
        """Judge the model before any pass, then the last of each claim, and bisect where one is wrong."""
        ends = self._ends() if self.by_claim else [(len(self.models) - 1, Exactness.BITWISE)]
        first = self._judged(0, Exactness.ALGEBRAIC if self.by_claim else Exactness.BITWISE)
        if first.wrong and self.by_claim:
            raise ExecutionError(f"the model differs from itself, so no pass is to blame: {first.text}")
        if first.wrong:
            raise InputError(f"the check fails on the model before any pass, so no pass is to blame: {first.text}")
        result = Bisection(pipeline, not self.by_claim, first, steps=self.steps)
        right = 0
        for end, level in ends:
            if end == 0:
                continue
            result.finding, result.level = self._judged(end, level), level
            if result.finding.wrong:
                guilty = self._between(right, end, level)
                result.finding = self._judged(guilty, level)
                result.guilty, result.after = self.models[guilty]
                result.before = self.models[guilty - 1][1]
                break
            right = end
        return result

    def _ends(self) -> list[tuple[int, Exactness]]:
        """Return the last model of each claim, the claim of a model being the weakest of its passes."""
        found: dict[Exactness, int] = {}
        level = Exactness.BITWISE
        for index, (result, _) in enumerate(self.models):
            if result is not None:
                level = max(level, Exactness[result.claim.upper()])
            found[level] = index
        return sorted((index, level) for level, index in found.items())

    def _between(self, right: int, wrong: int, level: Exactness) -> int:
        """Return the number of a wrong model after one that is not."""
        return _border(right, wrong, lambda index: self._judged(index, level).wrong)

    def _judged(self, index: int, level: Exactness) -> Finding:
        key = (index, level)
        if key not in self._known:
            result, graph = self.models[index]
            self._known[key] = self.judge(graph, level)
            limit, text = (0, "") if result is None else (result.number, result.text)
            step = Step(limit, text, level.name.lower() if self.by_claim else "check", self._known[key])
            self.steps.append(step)
            if self.tell is not None:
                self.tell(step)
        return self._known[key]


@dataclass(slots=True)
class _Comparison:
    """Judges a model by comparing it with the original."""

    guard: Guard

    @classmethod
    def of(cls, prepared: Prepared, job: Job) -> _Comparison:
        domain = prepared.manager.domain
        return cls(Guard(prepared.original, prepared.calibration, domain=domain, seed=job.seed))

    def __call__(self, graph: SNNGraph, level: Exactness) -> Finding:
        # at every level, a model that equals the original shows where its thresholds are
        found = self.guard.original_referee.check(self.guard.runnable(graph), exactness=level.name.lower())
        wrong = None if found.verdict is Verdict.INCONCLUSIVE else found.verdict is Verdict.DIFFERENT
        return Finding(wrong, describe(found), found.counterexample)


@dataclass(slots=True)
class _Command:
    """Judges a model by the caller's check."""

    check: CheckCommand

    def __call__(self, graph: SNNGraph, level: Exactness) -> Finding:
        found = self.check(graph)
        return Finding(found.fails, found.text)


def _alone(result: Bisection, job: Job, judge: Judge, folder: Path) -> bool:
    """Return whether the guilty pass is wrong on the model before it, saved and read again."""
    assert result.guilty is not None
    assert result.before is not None
    path = folder / "before.onnx"
    result.before.save(path)
    alone = replace(job, pipeline=result.guilty.text, verify=result.guarded, limit=None, instruments=())
    try:
        prepared = prepare(path, alone)
        prepared.manager.run(prepared.graph, prepared.pipeline)
    except InputError:
        return False
    except PassError:
        return True
    if result.after is None:
        return False
    return bool(judge(prepared.graph, result.level).wrong)


def _guilty_rewrite(result: Bisection, job: Job, judge: Judge, tell: Callable[[Step], None] | None) -> Rewrite | None:
    """Bisect the numbered rewrites of the guilty run, each time on a copy of the model before it."""
    guilty = result.guilty
    if guilty is None or guilty.rewrites == 0 or result.after is None or result.before is None:
        return None
    before = result.before
    alone = replace(job, pipeline=guilty.text, verify=result.guarded, limit=1, instruments=())

    @cache
    def judged(number: int) -> tuple[Finding, str]:
        prepared = prepare(before, replace(alone, rewrite_limit=number))
        try:
            last = prepared.manager.run(prepared.graph, prepared.pipeline)[0].last_rewrite
            finding = judge(prepared.graph, result.level)
        except PassError as error:
            last, finding = "", Finding(True, str(error))
        step = Step(guilty.number, guilty.text, result.level.name.lower(), finding, number)
        result.steps.append(step)
        if tell is not None:
            tell(step)
        return finding, last

    total = guilty.rewrites
    if not judged(total)[0].wrong or judged(0)[0].wrong:
        return None
    number = _border(0, total, lambda middle: judged(middle)[0].wrong)
    finding, text = judged(number)
    return Rewrite(number, total, text, finding)


def _border(right: int, wrong: int, is_wrong: Callable[[int], bool | None]) -> int:
    """Return the first number of a wrong one, between one that is right and one that is wrong."""
    while wrong - right > 1:
        middle = (right + wrong) // 2
        if is_wrong(middle):
            wrong = middle
        else:
            right = middle
    return wrong
