"""The guard: run original and rewritten after each weaker pass, and hold the pass to its claim."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from snn_optimizer.errors import ExecutionError
from snn_optimizer.execution import Dataset, ModelSource, Session
from snn_optimizer.ir import InputDomain, SNNGraph
from snn_optimizer.passes.base import Exactness
from snn_optimizer.pipeline.budget import Budget
from snn_optimizer.verification import Equivalence, Referee, Scores, Verdict, score

__all__ = ["Guard"]

LARGEST_MESSAGE = 1 << 30  # bytes of weights that are handed to the runtime in memory


@dataclass
class Guard:
    """Judges every rewritten graph.

    ALGEBRAIC passes are compared with the last graph that stood (after a pass that
    was allowed to change something the original is no longer the measure), on the
    data and on generated stimuli. PROFILED passes are compared with the original on
    the data. LOSSY passes are held to the budget on the data; without a budget they must
    change no spike.

    Attributes
    ----------
    original : ModelProto or path
    dataset : Dataset, optional
        What claims are checked and budgets measured on.
    """

    original: ModelSource
    dataset: Dataset | None = None
    budget: Budget = field(default_factory=Budget)
    domain: InputDomain = field(default_factory=InputDomain)
    seed: int = 0
    _referee: Referee | None = None
    _base: Referee | None = None
    _scores: Scores | None = None
    _folder: tempfile.TemporaryDirectory[str] | None = None
    _files: int = 0

    def check(self, graph: SNNGraph, claim: Exactness) -> tuple[bool, str]:
        """Return whether the claim holds, and what was found in one line."""
        candidate = self.runnable(graph)
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
        return self._within_budget(self.runnable(graph))[0]

    def evidence(self, graph: SNNGraph, exactness: Exactness) -> Equivalence:
        """Compare the result with the original at the exactness of the whole run."""
        return self._judge(self.original_referee, self.runnable(graph), exactness)

    def runnable(self, graph: SNNGraph) -> ModelSource:
        """Return what onnxruntime can load: the model itself, or a file where it is too large for a message."""
        if graph.module.initializer_bytes() < LARGEST_MESSAGE:
            return graph.to_onnx()
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="snnopt-")
        self._files += 1
        path = Path(self._folder.name) / f"{self._files}.onnx"
        graph.save(path, external=True)
        return path

    @property
    def original_referee(self) -> Referee:
        """The referee of the original model."""
        if self._referee is None:
            self._referee = self._referee_for(self.original)
        return self._referee

    def _referee_for(self, model: ModelSource) -> Referee:
        return Referee(model, dataset=self.dataset, ranges=self.domain, seed=self.seed)

    def _judge(self, referee: Referee, candidate: ModelSource, level: Exactness) -> Equivalence:
        return referee.check(candidate, exactness=level.name.lower())

    def _within_budget(self, candidate: ModelSource) -> tuple[bool, str]:
        if self.dataset is None:
            return False, "no data to measure the budget on; give --calib"
        try:
            if self._scores is None:
                self._scores = score(Session(self.original), self.dataset)
            after = score(Session(candidate), self.dataset)
        except ExecutionError as error:
            return False, str(error)
        before, samples = self._scores, self.dataset.samples
        changed = before.decisions_changed(after)
        # a fraction seen on n samples is uncertain by the root of its count: what is spent includes one such error
        error_bar = math.sqrt(changed * samples + 1) / samples
        limits = []
        if self.budget.accuracy_drop is not None:
            if before.accuracy is None or after.accuracy is None:
                return False, "the accuracy budget needs labels in the calibration data"
            limits.append(("accuracy drop", before.accuracy - after.accuracy, error_bar, self.budget.accuracy_drop))
        if self.budget.decision_change is not None:
            limits.append(("decisions changed", changed, error_bar, self.budget.decision_change))
        if self.budget.spike_change is not None:
            limits.append(("spikes changed", before.outputs_changed(after), 0.0, self.budget.spike_change))
        found = ", ".join(
            f"{name} {value:.2%}" + (f" (+ {error:.2%})" if error else "") + f" of {limit:.2%}"
            for name, value, error, limit in limits
        )
        holds = all(value + error <= limit + 1e-12 for _, value, error, limit in limits)
        return holds, f"{found} on {samples} samples"


def describe(equivalence: Equivalence) -> str:
    """Return the verdict in one line."""
    return f"{equivalence.verdict}: {equivalence.reason}" if equivalence.reason else str(equivalence.verdict)
