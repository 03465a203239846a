"""The guard: run original and rewritten after each weaker pass, and hold the pass to its claim."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import ExecutionError
from snn_optimizer.execution import Dataset, ModelSource, Session
from snn_optimizer.ir import InputDomain, SNNGraph
from snn_optimizer.passes.base import Exactness, Spending
from snn_optimizer.pipeline.budget import Budget
from snn_optimizer.verification import Equivalence, Referee, Scores, Verdict, mixed, score

__all__ = ["Guard"]

LARGEST_MESSAGE = 1 << 30  # bytes of weights that are handed to the runtime in memory
FRACTIONS = (0.2, 0.2)  # exchanged in further data sets the budget is measured on, see verification/mixing.py
# Of samples not used for a fit, shares exchanged in mixtures: the first where the original decides so many otherwise.
# Networks that know their training samples by heart need stronger ones to show what a cut costs on new samples.
TRIED = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
UNSURE = 0.015
MIXTURES_UNSEEN = 4  # whose costs are averaged
HOPELESS = 4.0  # times the budget on the data itself, where mixtures need not be looked at
ERRORS = 1.5  # standard errors added to a measured fraction before it is held to the budget

Origins = Mapping[str, npt.NDArray[np.int64]]


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
        What claims are checked on.
    unseen : Dataset, optional
        What budgets are measured on where weights are fitted to the others.
    """

    original: ModelSource
    dataset: Dataset | None = None
    budget: Budget = field(default_factory=Budget)
    domain: InputDomain = field(default_factory=InputDomain)
    seed: int = 0
    unseen: Dataset | None = None
    _referee: Referee | None = None
    _base: Referee | None = None
    _base_origins: Origins = field(default_factory=dict)
    _scores: list[tuple[Dataset, Scores]] = field(default_factory=list)
    _folder: tempfile.TemporaryDirectory[str] | None = None
    _files: int = 0

    def check(self, graph: SNNGraph, claim: Exactness) -> tuple[bool, str]:
        """Return whether the claim holds, and what was found in one line."""
        candidate = self.runnable(graph)
        if claim is Exactness.LOSSY and self.budget.is_set:
            spending = self._within_budget(candidate)
            holds, found = spending.holds, spending.found
        elif claim is Exactness.PROFILED and self.dataset is None:
            holds, found = True, "INCONCLUSIVE: measured rates were given without data to check them on"
        else:
            # a lossy pass without a budget may change nothing that is seen, like an exact one
            level = Exactness.ALGEBRAIC if claim is Exactness.LOSSY else claim
            measure = self.original_referee if claim > Exactness.ALGEBRAIC else self._base or self.original_referee
            since = {} if measure is self._referee else self._base_origins
            equivalence = self._judge(measure, candidate, level, _left(since, graph.unit_origins))
            holds, found = equivalence.verdict is not Verdict.DIFFERENT, describe(equivalence)
        if holds and claim > Exactness.ALGEBRAIC:
            self._base, self._base_origins = self._referee_for(candidate), dict(graph.unit_origins)
        return holds, found

    def check_step(self, before: SNNGraph, graph: SNNGraph, claim: Exactness) -> tuple[bool, str]:
        """Return whether the claim of one pass holds between the models before and after it."""
        left = _left(before.unit_origins, graph.unit_origins)
        equivalence = self._judge(self._referee_for(self.runnable(before)), self.runnable(graph), claim, left)
        return equivalence.verdict is not Verdict.DIFFERENT, describe(equivalence)

    def accept(self, graph: SNNGraph) -> Spending:
        """Return whether a candidate is within the budget, and what it spends."""
        return self._within_budget(self.runnable(graph))

    def evidence(self, graph: SNNGraph, exactness: Exactness) -> Equivalence:
        """Compare the result with the original at the exactness of the whole run."""
        return self._judge(self.original_referee, self.runnable(graph), exactness, graph.unit_origins)

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

    def _judge(self, referee: Referee, candidate: ModelSource, level: Exactness, left: Origins) -> Equivalence:
        # equal bits on all stimuli leave no threshold that a search could bring to another side
        look_through = level is not Exactness.BITWISE
        return referee.check(candidate, exactness=level.name.lower(), look_through=look_through, left=left)

    def _within_budget(self, candidate: ModelSource) -> Spending:
        measured = self.dataset if self.unseen is None else self.unseen
        if measured is None:
            return Spending(False, "no data to measure the budget on; give --calib")
        try:
            spent = self._measured(Session(candidate), measured)
        except ExecutionError as error:
            return Spending(False, str(error))
        found: list[str] = []
        shares: list[float] = []
        for name, limit in self.budget.limits():
            known = [cost for one in spent if (cost := one[name]) is not None]
            if not known:
                return Spending(False, "the accuracy budget needs labels in the calibration data")
            if self.unseen is not None:
                # samples a network was trained on flatter it, their mixtures do not
                known = [known[0], statistics.fmean(known[1:] or known)]
            found.append(f"{name.replace('_', ' ')} {max(known):.2%} of {limit:.2%}")
            shares += [_share(cost, limit) for cost in known]
        where = "samples" if self.unseen is None else "samples not used for the fit"
        mixtures = f" and {len(spent) - 1} mixtures of them" if len(spent) > 1 else ""
        return Spending(max(shares) <= 1, f"{', '.join(found)} on {measured.samples} {where}{mixtures}", tuple(shares))

    def _measured(self, session: Session, measured: Dataset) -> list[dict[str, float | None]]:
        """Return what a candidate costs on the data and on its mixtures, these only where the first is not hopeless."""
        if not self._scores:
            original = Session(self.original)
            plain = score(original, measured)
            fractions = FRACTIONS if self.unseen is None else self._strength(original, measured, plain)
            sets = [self._mixture(measured, i, share) for i, share in enumerate(fractions)]
            self._scores = [(measured, plain), *((each, score(original, each)) for each in sets)]
        spent: list[dict[str, float | None]] = []
        for data, before in self._scores:
            spent.append(self._spent(before, score(session, data)))
            if any(_share(spent[0][name] or 0.0, limit) > HOPELESS for name, limit in self.budget.limits()):
                break
        return spent

    def _strength(self, original: Session, measured: Dataset, plain: Scores) -> tuple[float, ...]:
        """Return the shares to exchange in the mixtures of samples not used for a fit, on which it scored ``plain``."""
        for share in TRIED[:-1]:
            if plain.decisions_changed(score(original, self._mixture(measured, 0, share))) >= UNSURE:
                return (share,) * MIXTURES_UNSEEN
        return (TRIED[-1],) * MIXTURES_UNSEEN

    def _mixture(self, measured: Dataset, number: int, fraction: float) -> Dataset:
        limits = self.domain.active_limits(measured.feeds)
        return mixed(measured, seed=self.seed + number, fraction=fraction, limits=limits)

    def _spent(self, before: Scores, after: Scores) -> dict[str, float | None]:
        """Return what a candidate costs on one data set, by the names of the budget.

        A fraction seen on n samples is uncertain by the root of its count; where the change was chosen on the
        same samples, what counts as spent includes ``ERRORS`` such errors.
        """
        samples = len(before.decisions)
        changed = before.decisions_changed(after)
        uncertain = changed and self.unseen is None
        error = ERRORS * math.sqrt(changed * samples + 1) / samples if uncertain else 0.0
        known = before.accuracy is not None and after.accuracy is not None
        return {
            "accuracy_drop": (before.accuracy or 0) - (after.accuracy or 0) + error if known else None,
            "decision_change": changed + error,
            "spike_change": before.outputs_changed(after),
        }


def _left(before: Origins, after: Origins) -> Origins:
    """Return which units that populations had before are there after, by their positions before."""
    return {
        name: units if name not in before else np.searchsorted(before[name], units) for name, units in after.items()
    }


def _share(cost: float, limit: float) -> float:
    """Return a cost as a share of its limit; what costs nothing is within any."""
    if cost <= 1e-12:
        return 0.0
    return (cost - 1e-12) / limit if limit else math.inf


def describe(equivalence: Equivalence) -> str:
    """Return the verdict in one line."""
    return f"{equivalence.verdict}: {equivalence.reason}" if equivalence.reason else str(equivalence.verdict)
