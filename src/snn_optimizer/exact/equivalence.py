"""Equality of two models on every input of a finite domain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import ExecutionError
from snn_optimizer.exact.running import Progress, affordable_samples, axes_of, check_independence
from snn_optimizer.exact.space import DEFAULT_LIMIT, InputSpace
from snn_optimizer.execution.observe import Observer
from snn_optimizer.execution.ort import Session
from snn_optimizer.execution.source import ModelSource
from snn_optimizer.ir.domain import InputDomain
from snn_optimizer.verification import Equivalence, Verdict
from snn_optimizer.verification.compare import (
    Comparison,
    Difference,
    Level,
    compare_outputs,
    is_spike_valued,
    same_bits,
)
from snn_optimizer.verification.interface import interface_difference
from snn_optimizer.verification.verdict import CaseResult

__all__ = ["ExhaustiveEquivalence", "verify_exhaustively"]

Array = npt.NDArray[Any]
CASE = "all inputs"


@dataclass(frozen=True, slots=True, eq=False)
class ExhaustiveEquivalence:
    """The outcome of comparing two models on every input.

    Attributes
    ----------
    equivalence : Equivalence
        Verdict, counts and counterexample.
    inputs : int
        How many inputs there are; all were tried unless the interfaces differ.
    domain : str
        What they are, in words.
    premises : tuple of str
        The declared domain.
    differing : int
        On how many of them the models differ.
    silent : bool
        Whether the original puts out nothing but zeros on all of them.
    """

    equivalence: Equivalence
    inputs: int
    domain: str
    premises: tuple[str, ...]
    differing: int
    silent: bool

    def __str__(self) -> str:
        found = self.equivalence
        if found.verdict is Verdict.EQUIVALENT:
            note = "; the original puts out only zeros" if self.silent else ""
            return f"EQUIVALENT on all {self.domain} of the declared domain{note}"
        if not found.cases:
            return f"{found.verdict}: {found.reason}"
        return f"DIFFERENT on {self.differing:,} of all {self.domain} of the declared domain: {found.reason}"

    def to_json(self) -> dict[str, object]:
        """Return the numbers in JSON types."""
        return self.equivalence.to_json() | {
            "exhaustive": True,
            "inputs": self.inputs,
            "inputs_differing": self.differing,
            "domain": self.domain,
            "premises": list(self.premises),
        }


def verify_exhaustively(
    before: ModelSource,
    after: ModelSource,
    *,
    exactness: str = "algebraic",
    domain: InputDomain | None = None,
    steps: int = 16,
    limit: int = DEFAULT_LIMIT,
    tolerance: float = 1e-4,
    progress: Progress | None = None,
) -> ExhaustiveEquivalence:
    """Compare two models on every input of the declared domain, in onnxruntime.

    No difference is excused: a potential that meets its threshold within rounding is one of the inputs like any
    other. Inputs run in batches of bounded memory; what is held is one run of each model.

    Parameters
    ----------
    before, after : ModelProto, bytes or path
    exactness : {"bitwise", "algebraic"}
        All bytes equal; or all spikes equal, and other values within ``tolerance`` of the largest value.
    domain : InputDomain, optional
    steps : int
        Where the models leave their number open.
    limit : int
        The most inputs to try.
    tolerance : float
    progress : callable, optional
        Is told how many of how many inputs are done.

    Raises
    ------
    NotEnumerable
        If the inputs are not finitely many, or more than ``limit``.
    ExecutionError
        If a model does not run.
    """
    level, domain = Level(str(exactness).lower()), domain or InputDomain()
    old, new = Session(before), Session(after)
    states = Observer(before).fed_states | Observer(after).fed_states
    space = InputSpace(old.inputs, domain, steps=steps, states=states, limit=limit)
    if difference := interface_difference(old, new):
        found = Equivalence(Verdict.DIFFERENT, difference, level)
        return ExhaustiveEquivalence(found, space.count, space.describe(), tuple(domain.premises()), 0, silent=False)
    samples = affordable_samples(space, old, new)
    check_independence(space, old, samples)
    sweep = _Sweep(space, old, new, level, tolerance, samples)
    sweep.run(progress)
    return replace(sweep.result(), premises=tuple(domain.premises()))


class _Sweep:
    """One pass over all inputs, and a second one over the runs that were not equal byte for byte.

    What counts as equal depends on the largest values and on which outputs are spikes, known only after the first.
    """

    def __init__(
        self, space: InputSpace, old: Session, new: Session, level: Level, tolerance: float, samples: int
    ) -> None:
        self.space, self.old, self.new = space, old, new
        self.level, self.tolerance, self.samples = level, tolerance, samples
        self.scales: dict[str, float] = {}
        self.not_spikes: set[str] = set()
        self.silent = True
        self.total = Comparison()
        self.differing = 0
        self.first: tuple[Difference, int] | None = None
        self.equal_by_output: dict[str, int] = {}
        self.spikes_by_output: dict[str, float] = {}

    def run(self, progress: Progress | None) -> None:
        unequal = []
        for start, fresh, feeds in self.space.runs(self.samples):
            outputs = self._run(self.old, feeds, "the original", start)
            self._learn(outputs)
            after = self._run(self.new, feeds, "the rewritten model", start)
            if not same_bits(outputs, after):
                unequal.append(start)
            else:
                self._count_equal(outputs, fresh)
            if progress is not None:
                progress(min(start + fresh, self.space.count), self.space.count)
        for start in unequal:
            self._compare(start)

    def _run(self, session: Session, feeds: dict[str, Array], what: str, start: int) -> dict[str, Array]:
        try:
            return session.run(feeds)
        except ExecutionError as error:
            raise ExecutionError(f"{what} does not run on input {start}: {error}") from None

    def _learn(self, outputs: dict[str, Array]) -> None:
        for name, values in outputs.items():
            if values.dtype.kind == "f":
                largest = np.abs(values).max(initial=0, where=np.isfinite(values))
                self.scales[name] = max(self.scales.get(name, 0.0), float(largest))
            if name not in self.not_spikes and not is_spike_valued(values):
                self.not_spikes.add(name)
            self.silent = self.silent and not values.any()

    def _count_equal(self, outputs: dict[str, Array], fresh: int) -> None:
        for name, values in outputs.items():
            share = values.size * fresh // self._width(fresh)
            self.equal_by_output[name] = self.equal_by_output.get(name, 0) + share
            if name not in self.not_spikes:
                axis = axes_of(outputs, self.old, self.space, self._width(fresh))[name][1]
                counted = values if axis is None else np.take(values, np.arange(fresh), axis)
                self.spikes_by_output[name] = self.spikes_by_output.get(name, 0) + float(counted.sum(dtype=np.float64))

    def _width(self, fresh: int) -> int:
        return self.space.samples_per_run or fresh

    def _compare(self, start: int) -> None:
        size = self.space.samples_per_run or self.samples
        fresh = min(size, self.space.count - start)
        numbers = np.arange(start, start + self._width(fresh)).clip(max=self.space.count - 1)
        feeds = self.space.feeds(numbers)
        before, after = self.old.run(feeds), self.new.run(feeds)
        axes = axes_of(before, self.old, self.space, len(numbers))
        if fresh < len(numbers):
            before, after = (
                {n: v if axes[n][1] is None else np.take(v, np.arange(fresh), axes[n][1]) for n, v in each.items()}
                for each in (before, after)
            )
        found = compare_outputs(
            before, after, level=self.level, axes=axes, scales=self.scales, tolerance=self.tolerance,
            first_sample=start, spike_outputs=[n for n in before if n not in self.not_spikes],
        )  # fmt: skip
        self.total += replace(found, first_steps={})
        self.differing += len(found.first_steps)
        if found.first is not None and (self.first is None or found.first.order() < self.first[0].order()):
            self.first = found.first, start if found.first.sample is None else found.first.sample

    def result(self) -> ExhaustiveEquivalence:
        spikes = [name for name in self.equal_by_output if name not in self.not_spikes]
        self.total += Comparison(
            values_compared=sum(self.equal_by_output.values()),
            spikes_compared=sum(self.equal_by_output[name] for name in spikes),
            spikes_seen=int(sum(self.spikes_by_output.get(name, 0) for name in spikes)),
        )
        first = None if self.first is None else self.first[0]
        found = Equivalence(
            verdict=Verdict.EQUIVALENT if first is None else Verdict.DIFFERENT,
            reason="" if self.first is None else f"first {first}{self._note(self.first[1])}",
            level=self.level,
            cases=(CaseResult(CASE, True, self.space.count, 0, self.total),),
            first=first,
            first_case=None if first is None else CASE,
            counterexample=None if self.first is None else self._sample(self.first[1]),
        )
        return ExhaustiveEquivalence(
            found, self.space.count, self.space.describe(), (), self.differing, silent=self.silent
        )

    def _note(self, number: int) -> str:
        """Say so where the models differ only in a run of many samples, which a runtime may add up in another order."""
        feeds = self._sample(number)
        before, after = self.old.run(feeds), self.new.run(feeds)
        axes = axes_of(before, self.old, self.space, self._width(1))
        spikes = [name for name in before if name not in self.not_spikes]
        alone = compare_outputs(
            before,
            after,
            level=self.level,
            axes=axes,
            scales=self.scales,
            tolerance=self.tolerance,
            spike_outputs=spikes,
        )
        return "" if alone.first is not None else f"; in runs of {self.samples:,} samples, not alone"

    def _sample(self, number: int) -> dict[str, Array]:
        return self.space.feeds(np.full(self.space.samples_per_run or 1, number))
