"""The guard: run original and rewritten after each weaker pass, and hold the pass to its claim."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx

from snn_optimizer.errors import ExecutionError
from snn_optimizer.execution import Dataset, Session
from snn_optimizer.ir import InputDomain, SNNGraph
from snn_optimizer.passes.base import Exactness
from snn_optimizer.pipeline.budget import Budget
from snn_optimizer.verification import Equivalence, Referee, Scores, Verdict, score

__all__ = ["Guard"]


@dataclass
class Guard:
    """Judges every rewritten graph.

    ALGEBRAIC passes are compared with the last graph that stood (after a pass that
    was allowed to change something the original is no longer the measure), on the
    data and on generated stimuli. PROFILED passes are compared with the original on
    the data. LOSSY passes are held to the budget on ``held_out``; without a budget they
    must change no spike.

    Attributes
    ----------
    original : ModelProto
    dataset : Dataset, optional
        What claims are checked on.
    held_out : Dataset, optional
        What budgets are measured on.
    """

    original: onnx.ModelProto
    dataset: Dataset | None = None
    held_out: Dataset | None = None
    budget: Budget = field(default_factory=Budget)
    domain: InputDomain = field(default_factory=InputDomain)
    seed: int = 0
    _referee: Referee | None = None
    _base: Referee | None = None
    _scores: Scores | None = None

    def check(self, graph: SNNGraph, claim: Exactness) -> tuple[bool, str]:
        """Return whether the claim holds, and what was found in one line."""
        candidate = graph.to_onnx()
        if claim is Exactness.LOSSY and self.budget.is_set:
            holds, found = self._within_budget(candidate)
        elif claim is Exactness.PROFILED and self.dataset is None:
            holds, found = True, "INCONCLUSIVE: measured rates were given without data to check them on"
        else:
            # a lossy pass without a budget may change nothing that is seen, like an exact one
            level = Exactness.ALGEBRAIC if claim is Exactness.LOSSY else claim
            measure = self.original_referee if claim > Exactness.ALGEBRAIC else self._base or self.original_referee
            equivalence = self._judge(measure, candidate, level)
            holds, found = equivalence.verdict is not Verdict.DIFFERENT, describe(equivalence)
        if holds and claim > Exactness.ALGEBRAIC:
            self._base = self._referee_for(candidate)
        return holds, found

    def accept(self, graph: SNNGraph) -> bool:
        """Return whether a candidate is within the budget."""
        return self._within_budget(graph.to_onnx())[0]

    def evidence(self, graph: SNNGraph, exactness: Exactness) -> Equivalence:
        """Compare the result with the original at the exactness of the whole run."""
        return self._judge(self.original_referee, graph.to_onnx(), exactness)

    @property
    def original_referee(self) -> Referee:
        """The referee of the original model."""
        if self._referee is None:
            self._referee = self._referee_for(self.original)
        return self._referee

    def _referee_for(self, model: onnx.ModelProto) -> Referee:
        ranges = {value.name: self.domain.scalar(value.name) for value in model.graph.input}
        return Referee(model, dataset=self.dataset, ranges=ranges, seed=self.seed)

    def _judge(self, referee: Referee, candidate: onnx.ModelProto, level: Exactness) -> Equivalence:
        return referee.check(candidate, exactness=level.name.lower())

    def _within_budget(self, candidate: onnx.ModelProto) -> tuple[bool, str]:
        data = self.held_out or self.dataset
        if data is None:
            return False, "no data to measure the budget on; give --calib"
        try:
            if self._scores is None:
                self._scores = score(Session(self.original), data)
            after = score(Session(candidate), data)
        except ExecutionError as error:
            return False, str(error)
        limits = []
        if self.budget.accuracy_drop is not None:
            if self._scores.accuracy is None or after.accuracy is None:
                return False, "the accuracy budget needs labels in the calibration data"
            limits.append(("accuracy drop", self._scores.accuracy - after.accuracy, self.budget.accuracy_drop))
        if self.budget.decision_change is not None:
            limits.append(("decisions changed", self._scores.decisions_changed(after), self.budget.decision_change))
        if self.budget.spike_change is not None:
            limits.append(("spikes changed", self._scores.outputs_changed(after), self.budget.spike_change))
        found = ", ".join(f"{name} {value:.2%} of {limit:.2%}" for name, value, limit in limits)
        return all(value <= limit + 1e-12 for _, value, limit in limits), f"{found} on {data.samples} held-out samples"


def describe(equivalence: Equivalence) -> str:
    """Return the verdict in one line."""
    return f"{equivalence.verdict}: {equivalence.reason}" if equivalence.reason else str(equivalence.verdict)
