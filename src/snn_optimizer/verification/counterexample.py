"""The smallest counterexample: from where the models differ to an input one can look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import ExecutionError
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.ort import Session
from snn_optimizer.execution.source import ModelSource, read_model
from snn_optimizer.verification.cases import Case, Original
from snn_optimizer.verification.compare import Comparison, Difference, Level, compare_outputs
from snn_optimizer.verification.near_ties import NearTies
from snn_optimizer.verification.referees import PLAIN, REFEREES, Opinion, Runner, ask, is_reference
from snn_optimizer.verification.shrink import Shrunk, shrink
from snn_optimizer.verification.stimuli import Ranges
from snn_optimizer.verification.trial import axes_of
from snn_optimizer.verification.verdict import Equivalence

__all__ = ["Counterexample", "Pair", "smallest_counterexample"]

Array = npt.NDArray[Any]

_STARTS = 3  # samples that are made smaller, of which the smallest is kept
_LOOKED_AT = 48  # samples that differ early, among which those of few active entries are chosen
_ATTEMPTS = (100, 1500)  # runs to make one smaller, fewest and most
_SHRINK_WORK = 1 << 33  # weights times steps times runs, about


@dataclass(frozen=True, slots=True, eq=False)
class Counterexample:
    """An input on which two models differ.

    Attributes
    ----------
    case : str
        The stimulus it was made from, or the data.
    shrunk : Shrunk
    difference : Difference
        The first of the outputs on it.
    """

    case: str
    shrunk: Shrunk
    difference: Difference


def smallest_counterexample(found: Equivalence, pair: Pair, opinion: Opinion | None) -> Counterexample | None:
    """Make the first difference small, and others that promise to get smaller; return the smallest.

    Parameters
    ----------
    found : Equivalence
    pair : Pair
    opinion : Opinion or None
        That of the referee who decided; None for the first one.

    Returns
    -------
    Counterexample or None
        None where no outputs were compared that differ.
    """
    case = next((case for case in pair.original.cases if case.name == found.first_case), None)
    if case is None or found.first is None:
        return None
    referee = PLAIN if opinion is None else opinion.referee
    if opinion is not None:
        assert opinion.counterexample is not None
        starts = [(case, opinion.counterexample, opinion.sample)]
    else:
        differs = Differs(pair, PLAIN, excuses=case.generated)
        starts = [(case, *_place(case, found.first.sample, differs)), *_others(found, pair)]
    candidates: list[Counterexample] = []
    for start, run, sample in starts:
        differs = Differs(pair, referee, excuses=start.generated)
        small = shrink(
            run,
            sample,
            differs,
            pair.original.session.inputs,
            ranges=pair.ranges,
            fixed_inputs=found.level in (Level.PROFILED, Level.LOSSY),
            attempts=pair.attempts(run.steps),
        )
        difference = differs.compared(small.data).first
        if difference is not None and (small.alone or not candidates):
            candidates.append(Counterexample(start.name, small, difference))
    return min(
        candidates, key=lambda each: (not each.shrunk.alone, each.shrunk.steps, each.shrunk.active), default=None
    )


def _others(found: Equivalence, pair: Pair) -> Iterator[tuple[Case, Dataset, int]]:
    """Yield samples that differ early and have few active entries by then, fewest first."""
    early = [
        (step or 0, number, sample)
        for number, result in enumerate(found.cases)
        for sample, step in result.comparison.first_steps.items()
        if sample is not None
    ]
    cases = pair.original.cases_for(found.level)
    ranked = []
    for step, number, sample in sorted(early)[:_LOOKED_AT]:
        run, place = _place(cases[number], sample, lambda _: False)
        if place is not None and not (cases[number].name == found.first_case and sample == _sample(found)):
            active = sum(int(np.count_nonzero(array)) for array in run.take([place]).feeds.values())
            ranked.append((step, active, number, sample))
    for _, _, number, sample in sorted(ranked)[: _STARTS - 1]:
        run, place = _place(cases[number], sample, lambda _: False)
        assert place is not None
        yield cases[number], run, place


def _sample(found: Equivalence) -> int | None:
    return None if found.first is None else found.first.sample


def _place(case: Case, sample: int | None, differs: Callable[[Dataset], bool]) -> tuple[Dataset, int | None]:
    """Return the run of a case that holds a sample, and its number there; the first run that differs without one."""
    start = 0
    for run in case.runs:
        if sample is not None and sample < start + run.batch.samples:
            return run.batch, sample - start
        if sample is None and differs(run.batch):
            break
        start += run.batch.samples
    return run.batch, None


@dataclass(slots=True, eq=False)
class Pair:
    """Both models and what is known of them."""

    before: ModelSource
    after: ModelSource
    original: Original
    session: Session
    level: Level
    near_ties: NearTies
    tolerance: float
    ranges: Ranges

    def ask(self, referee: str) -> Opinion:
        """Let a further referee run both."""
        return ask(
            referee,
            self.before,
            self.after,
            self.original,
            self.session,
            level=self.level,
            near_ties=self.near_ties,
            tolerance=self.tolerance,
        )

    @property
    def weights(self) -> int:
        """Elements of the initializers of the original."""
        graph = read_model(self.before)[0].graph
        return sum(int(np.prod(tensor.dims, dtype=np.int64)) for tensor in graph.initializer)

    def attempts(self, steps: int) -> int:
        """Return how many runs a counterexample may cost."""
        fewest, most = _ATTEMPTS
        return min(most, max(fewest, _SHRINK_WORK // max(1, self.weights * steps)))


class Differs:
    """Tells whether a referee finds the models different on some data, near ties excused as in the verdict."""

    def __init__(self, pair: Pair, referee: str, *, excuses: bool) -> None:
        self._pair = pair
        self._referee = referee
        self._excuses = excuses or (referee != PLAIN and is_reference(referee))
        self._runners: tuple[Runner, Runner] = (pair.original.session, pair.session)
        if referee != PLAIN:
            self._runners = (REFEREES[referee](pair.before), REFEREES[referee](pair.after))

    def __call__(self, data: Dataset) -> bool:
        try:
            compared = self.compared(data)
            if not compared.first_steps:
                return False
            if self._referee != PLAIN and self._disputed(data):
                return False
            if not self._excuses or (self._referee == PLAIN and self._pair.level is Level.BITWISE):
                return True
            judge = self._pair.near_ties.excused if self._referee == PLAIN else self._pair.near_ties.close
            return len(judge(data, compared.first_steps)) < len(compared.first_steps)
        except ExecutionError:
            return False

    def compared(self, data: Dataset) -> Comparison:
        """Compare the outputs of the two models."""
        level = self._pair.level if self._referee == PLAIN else Level.ALGEBRAIC
        before, after = (runner.run(data.feeds) for runner in self._runners)
        return self._compare(data, before, after, level)

    def _disputed(self, data: Dataset) -> bool:
        known = self._pair.original.session.run(data.feeds)
        return bool(self._compare(data, known, self._runners[0].run(data.feeds), Level.ALGEBRAIC).first_steps)

    def _compare(
        self, data: Dataset, left: Mapping[str, Array], right: Mapping[str, Array], level: Level
    ) -> Comparison:
        original = self._pair.original
        return compare_outputs(
            left,
            right,
            level=level,
            axes=dict(axes_of(original, data, left)),
            scales=original.scales,
            tolerance=self._pair.tolerance,
            spike_outputs=tuple(original.spike_outputs),
        )
