"""One candidate against the original: run, compared case by case, concluded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from snn_optimizer.errors import ExecutionError
from snn_optimizer.execution.axes import output_axes
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.ort import Session
from snn_optimizer.verification.cases import Case, Original, Run
from snn_optimizer.verification.compare import Axes, Comparison, Difference, Level, compare_outputs, same_bits
from snn_optimizer.verification.near_ties import NearTies
from snn_optimizer.verification.verdict import CaseResult, Equivalence, Verdict

__all__ = ["Trial", "axes_of"]

Array = npt.NDArray[Any]


@dataclass(slots=True, eq=False)
class Trial:
    """One candidate against the original."""

    original: Original
    session: Session
    level: Level
    near_ties: NearTies
    tolerance: float
    results: list[CaseResult] = field(default_factory=list)
    failure: str | None = None
    first: Difference | None = None
    first_case: str | None = None
    counterexample: Mapping[str, Array] | None = None

    @property
    def identical(self) -> bool:
        """Whether all bytes were equal so far."""
        return self.failure is None and all(result.comparison.identical for result in self.results)

    def judge(self, cases: Sequence[Case]) -> None:
        """Run the candidate on some cases."""
        for case in cases:
            try:
                self._judge(case)
            except ExecutionError as error:
                self.failure = f"the rewritten model does not run on '{case.name}': {error}"
                return

    def _judge(self, case: Case) -> None:
        total, near_ties, start = Comparison(), 0, 0
        for run in case.runs:
            after = self.session.run(run.batch.feeds)
            compared = self._compare(run, after, start)
            total += compared
            excused = self._excused(case, run.batch, compared, start)
            near_ties += len(excused)
            if self.first is None and len(excused) < len(compared.first_steps):
                self.first = self._compare(run, after, start, excused).first
                self.first_case = case.name
                self.counterexample = _sample(case.data, run.batch, self.first)
            start += run.batch.samples
        self.results.append(CaseResult(case.name, case.generated, case.data.samples, near_ties, total))

    def _compare(
        self, run: Run, after: Mapping[str, Array], start: int, ignored: frozenset[int | None] = frozenset()
    ) -> Comparison:
        spikes = tuple(self.original.spike_outputs)
        unchanged = same_bits(run.outputs, after)
        if unchanged and run.unchanged is not None and run.unchanged[0] == spikes:
            return run.unchanged[1]
        compared = compare_outputs(
            run.outputs,
            after,
            level=self.level,
            axes=dict(axes_of(self.original, run.batch, run.outputs)),
            scales=self.original.scales,
            tolerance=self.tolerance,
            first_sample=start,
            spike_outputs=spikes,
            ignored=ignored,
        )
        if unchanged:
            run.unchanged = spikes, compared
        return compared

    def _excused(self, case: Case, batch: Dataset, compared: Comparison, start: int) -> frozenset[int | None]:
        if self.level is Level.BITWISE or not case.generated or not compared.first_steps or self.first is not None:
            return frozenset()
        steps = {None if sample is None else sample - start: step for sample, step in compared.first_steps.items()}
        excused = self.near_ties.excused(batch, steps)
        return frozenset(None if sample is None else sample + start for sample in excused)

    def result(self) -> Equivalence:
        """Return the verdict on everything judged."""
        silent = self.original.silent()
        result = Equivalence(
            verdict=Verdict.EQUIVALENT,
            reason="",
            level=self.level,
            cases=tuple(self.results),
            first=self.first,
            first_case=self.first_case,
            populations=self.original.populations,
            silent=silent,
            skipped=tuple(self.original.skipped),
            counterexample=self.counterexample,
        )
        return result.concluded(*self._conclusion(result))

    def _conclusion(self, result: Equivalence) -> tuple[Verdict, str]:
        if self.failure is not None:
            return Verdict.DIFFERENT, self.failure
        if self.first is not None:
            return Verdict.DIFFERENT, f"{self.first_case}: {self.first}"
        if result.values_compared == 0:
            return Verdict.INCONCLUSIVE, self._nothing_compared()
        if self.original.spike_outputs and result.spikes_seen == 0:
            names = ", ".join(f"'{name}'" for name in self.original.spike_outputs)
            return Verdict.INCONCLUSIVE, f"no spike on {names} in {result.samples} samples; give data or --input-range"
        if not self.original.spike_outputs and result.populations and len(result.silent) == len(result.populations):
            return Verdict.INCONCLUSIVE, f"no population fired in {result.samples} samples; give data or --input-range"
        if result.near_ties == result.samples:
            return Verdict.INCONCLUSIVE, f"all {result.samples} samples meet a threshold within rounding"
        return Verdict.EQUIVALENT, ""

    def _nothing_compared(self) -> str:
        if self.level is Level.PROFILED:
            return "a claim about measured data needs data to check it on"
        if self.original.skipped:
            return f"the original does not run on any stimulus: {', '.join(self.original.skipped)}"
        return "nothing was compared" + "".join(f": {note}" for note in self.original.notes)


def axes_of(original: Original, batch: Dataset, outputs: Mapping[str, Array]) -> Iterator[tuple[str, Axes]]:
    """Yield the axes of each output that count steps and samples."""
    for port in original.session.outputs:
        yield port.name, output_axes(port, outputs[port.name].shape, batch.steps, batch.samples)


def _sample(data: Dataset, batch: Dataset, first: Difference | None) -> Mapping[str, Array]:
    """Return the feeds of the sample that differs; the whole run where samples cannot be told apart."""
    if first is None or first.sample is None or (data.fixed_batch or 1) > 1:
        return batch.feeds
    return data.take([first.sample]).feeds
