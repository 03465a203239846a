"""Further referees: the same comparison in another implementation of the operators.

The first referee is onnxruntime with its optimizer off. The others run both models again on
the same inputs: onnxruntime with its optimizer on, as users run it, and the reference of ONNX
in NumPy. Rounding is theirs, so at a threshold they may disagree with the first referee about
one and the same model: such a sample says nothing about the rewriting, and is reported as
a disagreement. Where a referee agrees about the original, what it says about the rewritten counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import SnnOptimizerError
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.ort import Session
from snn_optimizer.execution.reference import ReferenceSession
from snn_optimizer.execution.source import ModelSource, read_model
from snn_optimizer.verification.cases import Original, Run
from snn_optimizer.verification.compare import Comparison, Difference, Level, compare_outputs
from snn_optimizer.verification.near_ties import NearTies
from snn_optimizer.verification.trial import axes_of

__all__ = ["PLAIN", "REFEREES", "Opinion", "Runner", "ask", "is_reference"]

Array = npt.NDArray[Any]

PLAIN = "onnxruntime"
"""The first referee: onnxruntime with its optimizer off."""

_REFERENCE_SAMPLES = (2, 64)  # of each case in the reference, fewest and most
_REFERENCE_WORK = 1 << 26  # weights times steps times samples of one case in the reference, about
_WINDOWED = ("Conv", "AveragePool", "MaxPool")  # loops over windows in Python there


class Runner(Protocol):
    """What runs a model."""

    def run(self, feeds: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
        """Return the outputs by name."""


def _optimizing(model: ModelSource) -> Runner:
    return Session(model, optimize=True)


REFEREES: Mapping[str, Callable[[ModelSource], Runner]] = {
    "onnxruntime, optimizer on": _optimizing,
    "onnx reference (NumPy)": ReferenceSession,
}


@dataclass(slots=True)
class Opinion:
    """What one further referee found.

    Attributes
    ----------
    referee : str
    failure : str or None
        Why it could not run the original; nothing is known then. One that runs the original but not the
        rewritten has found a difference.
    samples : int
        Samples both models were run on.
    compared, differing : int
        Elements of outputs; differing where the sample is neither disputed nor a near tie.
    near_ties : int
        Samples that differ after a potential of the original came within rounding distance of its threshold,
        up to the first difference that counts.
    disputed, disputed_after : int
        Samples about which it disagrees with the first referee: in what the original puts out, in what the
        rewritten does.
    dispute : Difference or None
        The first such element of the original: the first referee's value and its own.
    first : Difference or None
        The first difference between the models that counts, in case ``first_case``.
    counterexample : Dataset or None
        The run of ``first``; ``sample`` is its sample within the run.
    """

    referee: str
    failure: str | None = None
    samples: int = 0
    compared: int = 0
    differing: int = 0
    near_ties: int = 0
    disputed: int = 0
    disputed_after: int = 0
    dispute: Difference | None = None
    first: Difference | None = None
    first_case: str | None = None
    counterexample: Dataset | None = field(default=None, repr=False)
    sample: int | None = None
    broken: str | None = None

    @property
    def objects(self) -> bool:
        """Whether it found the models different."""
        return self.first is not None or self.broken is not None

    @property
    def verdict(self) -> str:
        """What it says by itself."""
        if self.objects:
            return "DIFFERENT"
        return "INCONCLUSIVE" if self.failure is not None or self.compared == 0 else "EQUIVALENT"

    def to_json(self) -> dict[str, object]:
        """Return the findings in JSON types."""
        return {
            "referee": self.referee,
            "verdict": self.verdict,
            "failure": self.failure or self.broken,
            "samples": self.samples,
            "values_compared": self.compared,
            "differing": self.differing,
            "near_ties": self.near_ties,
            "disagrees_about_original_on_samples": self.disputed,
            "disagrees_about_rewritten_on_samples": self.disputed_after,
            "first_disagreement": None if self.dispute is None else str(self.dispute),
            "first_difference": None if self.first is None else f"{self.first_case}: {self.first}",
        }


def ask(
    referee: str,
    before: ModelSource,
    after: ModelSource,
    original: Original,
    session: Session,
    *,
    level: Level,
    near_ties: NearTies,
    tolerance: float,
) -> Opinion:
    """Let a further referee run both models.

    It is never stricter than ALGEBRAIC: an optimizer may round two graphs in two ways, and so may a
    matrix product in two shapes. Near ties are excused as on stimuli; on the caller's data only the
    reference's are, whose rounding nobody deploys.

    Parameters
    ----------
    referee : str
        Of :data:`REFEREES`.
    before, after : ModelProto, bytes or path
    original : Original
        The cases, and what the first referee made of them.
    session : Session
        The rewritten model with the first referee.
    level : Level
        Decides which cases count.
    near_ties : NearTies
    tolerance : float
        For outputs that are not spikes.
    """
    opinion = Opinion(referee)
    try:
        first = REFEREES[referee](before)
    except SnnOptimizerError as error:
        opinion.failure = str(error)
        return opinion
    try:
        second = REFEREES[referee](after)
    except SnnOptimizerError as error:
        opinion.broken = str(error)
        return opinion
    lenient = is_reference(referee)
    cost = _cost(before) if lenient else 0
    for case in original.cases_for(level):
        start = 0
        for run in _few(case.runs, cost) if lenient else case.runs:
            judge = _Judge(original, session, near_ties, tolerance, run, case.generated or lenient)
            try:
                judge.judge(opinion, case.name, first, second, start)
            except SnnOptimizerError as error:
                if opinion.samples == 0 and not judge.ran_original:
                    opinion.failure = str(error)
                else:
                    opinion.broken = f"{case.name}: {error}"
                return opinion
            start += run.batch.samples
    return opinion


def is_reference(referee: str) -> bool:
    """Tell whether a referee is the reference, which is slow and rounds as nobody's deployment does."""
    return REFEREES[referee] is ReferenceSession


def _cost(model: ModelSource) -> int:
    """Return what a sample costs in the reference per step, in weights of matrix products."""
    graph = read_model(model)[0].graph
    if any(node.op_type in _WINDOWED for node in graph.node):
        return _REFERENCE_WORK
    return sum(int(np.prod(tensor.dims, dtype=np.int64)) for tensor in graph.initializer)


def _few(runs: list[Run], cost: int) -> list[Run]:
    """Return the first samples of the first run, as many as the reference can take."""
    batch = runs[0].batch
    fewest, most = _REFERENCE_SAMPLES
    wanted = min(most, max(fewest, _REFERENCE_WORK // max(1, cost * batch.steps)))
    whole = batch.fixed_batch is not None or all(axis is None for axis in batch.batch_axes.values())
    return [runs[0] if whole or batch.samples <= wanted else Run(batch.take(slice(wanted)), {})]


@dataclass(slots=True, eq=False)
class _Judge:
    """One run of a case, seen by the first referee and by another."""

    original: Original
    session: Session
    near_ties: NearTies
    tolerance: float
    run: Run
    excuses: bool
    ran_original: bool = False

    def judge(self, opinion: Opinion, case: str, first: Runner, second: Runner, start: int) -> None:
        batch = self.run.batch
        known = self.run.outputs or self.original.session.run(batch.feeds)
        old = first.run(batch.feeds)
        self.ran_original = True
        new = second.run(batch.feeds)
        about_original = self._compare(known, old, start)
        disputed = set(about_original.first_steps)
        opinion.samples += batch.samples
        opinion.disputed += len(disputed)
        opinion.dispute = opinion.dispute or about_original.first
        opinion.disputed_after += len(self._compare(self.session.run(batch.feeds), new, start).first_steps)
        compared = self._compare(old, new, start, frozenset(disputed))
        opinion.compared += compared.values_compared
        excused: set[int | None] = set()
        if compared.first_steps and self.excuses and opinion.first is None:
            steps = {None if sample is None else sample - start: at for sample, at in compared.first_steps.items()}
            close = self.near_ties.close(batch, steps)
            excused = {None if sample is None else sample + start for sample in close}
        opinion.near_ties += len(excused)
        rest = self._compare(old, new, start, frozenset(disputed | excused)) if excused else compared
        opinion.differing += rest.differing
        if rest.first is not None and opinion.first is None:
            opinion.first, opinion.first_case = rest.first, case
            opinion.counterexample = batch
            opinion.sample = None if rest.first.sample is None else rest.first.sample - start

    def _compare(
        self,
        left: Mapping[str, Array],
        right: Mapping[str, Array],
        start: int,
        ignored: frozenset[int | None] = frozenset(),
    ) -> Comparison:
        return compare_outputs(
            left,
            right,
            level=Level.ALGEBRAIC,
            axes=dict(axes_of(self.original, self.run.batch, left)),
            scales=self.original.scales,
            tolerance=self.tolerance,
            first_sample=start,
            spike_outputs=tuple(self.original.spike_outputs),
            ignored=ignored,
        )
