"""Everything that can be said about two models: the verdict, and what it rests on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from snn_optimizer.errors import ExecutionError, SnnOptimizerError
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.observe import Observer
from snn_optimizer.execution.ort import Session
from snn_optimizer.execution.source import ModelSource
from snn_optimizer.verification.behaviour import Behaviour, compare_behaviour
from snn_optimizer.verification.cases import Original
from snn_optimizer.verification.counterexample import Pair, smallest_counterexample
from snn_optimizer.verification.coverage import Coverage, measure_coverage
from snn_optimizer.verification.divergence import Divergence, first_divergence
from snn_optimizer.verification.equivalence import Referee
from snn_optimizer.verification.near_ties import NearTies
from snn_optimizer.verification.referees import PLAIN, REFEREES, Opinion
from snn_optimizer.verification.seekers import QUICK, THOROUGH
from snn_optimizer.verification.shrink import Shrunk
from snn_optimizer.verification.stimuli import Ranges, Stimulus
from snn_optimizer.verification.verdict import Equivalence, Verdict

__all__ = ["Examination", "examine"]

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Examination:
    """A verdict and what it rests on.

    Attributes
    ----------
    equivalence : Equivalence
        The verdict of all referees; its counterexample is the small one.
    decided_by : str
        The referee whose finding the verdict is.
    first_verdict : Verdict
        That of the first referee alone.
    opinions : tuple of Opinion
        What the further referees found.
    coverage : Coverage or None
        None where the inside of the original cannot be seen.
    on_data, on_stimuli : Behaviour or None
        None where there is no data, or nothing generated.
    shrunk : Shrunk or None
    divergence : Divergence or None
        On the small counterexample, with the first referee.
    """

    equivalence: Equivalence
    decided_by: str = PLAIN
    first_verdict: Verdict = Verdict.INCONCLUSIVE
    opinions: tuple[Opinion, ...] = ()
    coverage: Coverage | None = None
    on_data: Behaviour | None = None
    on_stimuli: Behaviour | None = None
    shrunk: Shrunk | None = None
    divergence: Divergence | None = None

    @property
    def tried(self) -> dict[str, int]:
        """Samples of each kind of input, kinds in the order they ran."""
        kinds: dict[str, int] = {}
        for case in self.equivalence.cases:
            kind = case.name.partition(":")[0]
            kinds[kind] = kinds.get(kind, 0) + case.samples
        return kinds

    def to_json(self) -> dict[str, object]:
        """Return everything in JSON types."""
        found = self.equivalence.to_json()
        shrunk = self.shrunk
        return {
            **found,
            "decided_by": self.decided_by,
            "tried": [
                {"name": case.name, "samples": case.samples, "generated": case.generated, "near_ties": case.near_ties}
                for case in self.equivalence.cases
            ],
            "referees": [
                {"referee": PLAIN, "verdict": str(self.first_verdict)},
                *(opinion.to_json() for opinion in self.opinions),
            ],
            "coverage": None if self.coverage is None else self.coverage.to_json(),
            "behaviour": {
                "data": None if self.on_data is None else self.on_data.to_json(),
                "stimuli": None if self.on_stimuli is None else self.on_stimuli.to_json(),
            },
            "counterexample": None
            if shrunk is None
            else {
                "samples": shrunk.data.samples,
                "steps": shrunk.steps,
                "active_inputs": shrunk.active,
                "minimal": shrunk.minimal,
                "differs_alone": shrunk.alone,
            },
            "first_divergence": None if self.divergence is None else self.divergence.to_json(),
        }


def examine(
    before: ModelSource,
    after: ModelSource,
    *,
    exactness: str = "algebraic",
    dataset: Dataset | None = None,
    stimuli: Sequence[Stimulus] | None = None,
    ranges: Ranges = None,
    seed: int = 0,
    steps: int = 16,
    tolerance: float = 1e-4,
    time_scale: float = 1.0,
    windows: tuple[ModelSource | None, ModelSource | None] = (None, None),
    thorough: bool = True,
    progress: Progress | None = None,
) -> Examination:
    """Compare two models with all referees, and find out how far the verdict carries.

    Parameters
    ----------
    before, after, exactness, dataset, stimuli, ranges, seed, steps, tolerance
        As :class:`~snn_optimizer.verification.equivalence.Referee` takes them.
    time_scale : float
        Of the measures of spike trains, in steps.
    windows : pair of models
        Both models with their neurons raised, where they hide them.
    thorough : bool
        Whether to search long for inputs at thresholds, and to ask further referees.
    progress : callable, optional
        Told how many parts of the work are done, and of how many.

    Raises
    ------
    InputError
        If a file cannot be read, or the caller's stimuli do not fit the model.
    """
    report = progress or (lambda _, __: None)
    parts = 3 + (len(REFEREES) if thorough else 0)
    report(0, parts)
    referee = Referee(
        before,
        dataset=dataset,
        stimuli=stimuli,
        ranges=ranges,
        seed=seed,
        steps=steps,
        tolerance=tolerance,
        effort=THOROUGH if thorough else QUICK,
        window=windows[0],
    )
    found = referee.check(after, exactness=exactness)
    original = referee.original
    if original is None or not found.cases:
        return Examination(found, first_verdict=found.verdict)
    session = Session(after)
    inside = _Inside(original.observer, _observer(after, windows[1]))
    pair = Pair(before, after, original, session, found.level, NearTies(original.observer, after), tolerance, ranges)
    report(1, parts)
    opinions: list[Opinion] = []
    for name in REFEREES if thorough else ():
        opinions.append(pair.ask(name))
        report(1 + len(opinions), parts)
    result = Examination(found, PLAIN, found.verdict, tuple(opinions))
    if found.verdict is not Verdict.DIFFERENT:
        result = _heard(result)
    result = _measured(result, original, session, inside, time_scale)
    report(parts - 1, parts)
    if result.equivalence.verdict is Verdict.DIFFERENT:
        result = _explained(result, pair, inside)
    report(parts, parts)
    return result


def _heard(result: Examination) -> Examination:
    """Return the verdict of all referees where the first one has no objection."""
    objecting = next((opinion for opinion in result.opinions if opinion.objects), None)
    if objecting is None:
        return result
    reason = objecting.broken or f"{objecting.first_case}: {objecting.first}"
    data = objecting.counterexample
    equivalence = replace(
        result.equivalence,
        verdict=Verdict.DIFFERENT,
        reason=f"{objecting.referee}: {reason}",
        first=objecting.first,
        first_case=objecting.first_case,
        counterexample=None if data is None else data.feeds,
    )
    return replace(result, equivalence=equivalence, decided_by=objecting.referee)


@dataclass(frozen=True, slots=True, eq=False)
class _Inside:
    """Both models with their populations exposed, as far as they have any."""

    before: Observer | None
    after: Observer | None

    @property
    def both(self) -> tuple[Observer, Observer] | None:
        return None if self.before is None or self.after is None else (self.before, self.after)


def _observer(model: ModelSource, window: ModelSource | None) -> Observer | None:
    for source in (model, window):
        if source is None:
            continue
        try:
            observer = Observer(source)
        except SnnOptimizerError:
            continue
        if observer.taps and observer.runs():
            return observer
    return None


def _measured(
    result: Examination, original: Original, session: Session, inside: _Inside, time_scale: float
) -> Examination:
    """Add coverage, and the measures of trains and decisions."""
    cases = original.cases_for(result.equivalence.level)
    coverage = None
    if inside.before is not None:
        coverage = measure_coverage(inside.before, (run.batch.feeds for case in cases for run in case.runs))
    measured: list[Behaviour | None] = []
    for generated in (False, True):
        chosen = [case for case in cases if case.generated is generated]
        try:
            measured.append(
                compare_behaviour(original, session, chosen, observers=inside.both, time_scale=time_scale)
                if chosen
                else None
            )
        except ExecutionError:  # the rewritten model does not run on it, which the verdict says
            measured.append(None)
    return replace(result, coverage=coverage, on_data=measured[0], on_stimuli=measured[1])


def _explained(result: Examination, pair: Pair, inside: _Inside) -> Examination:
    """Add a small counterexample and the first divergence inside."""
    found = result.equivalence
    opinion = next((each for each in result.opinions if each.referee == result.decided_by), None)
    small = smallest_counterexample(found, pair, opinion)
    if small is None:
        return result
    divergence = None
    if inside.both is not None:
        with contextlib.suppress(ExecutionError):  # a loop may not show its populations for every number of steps
            divergence = first_divergence(*inside.both, small.shrunk.data.feeds)
    by = "" if opinion is None else f"{opinion.referee}: "
    equivalence = replace(
        found,
        first=small.difference,
        first_case=small.case,
        reason=f"{by}{small.case}: {small.difference}",
        counterexample=small.shrunk.data.feeds,
    )
    return replace(result, equivalence=equivalence, shrunk=small.shrunk, divergence=divergence)
