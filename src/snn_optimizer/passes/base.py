"""What a pass is: a frozen set of options with a claim, run on a graph in a context."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses import AnalysisManager
from snn_optimizer.ir import InputDomain, Node, SNNGraph
from snn_optimizer.projection_costs import SpikeRows
from snn_optimizer.remarks import Remark, RemarkKind

__all__ = [
    "BEYOND_LIMIT",
    "ActivityProvider",
    "Exactness",
    "Frontend",
    "Outcome",
    "Pass",
    "PassContext",
    "Refusal",
    "Rewrites",
    "Spending",
]


class Exactness(IntEnum):
    """What a pass promises about the model before and after, strongest first."""

    BITWISE = 0  # every output identical for every input
    ALGEBRAIC = 1  # equal in real arithmetic, only rounding can differ
    PROFILED = 2  # equal on the calibration data
    LOSSY = 3  # changes results on purpose, within the caller's budget


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a rule did not apply: a kebab-case name and a sentence with the numbers in it."""

    rule: str
    reason: str


BEYOND_LIMIT = Refusal("bisect-limit", "it comes after the rewrites that --bisect-limit admits")


@dataclass(slots=True)
class Rewrites:
    """Numbers the rewrites of one run of a pass, and stops them at a limit: what a bisection inside a pass counts.

    Attributes
    ----------
    limit : int or None
        So many are admitted; None for all.
    made : int
        Admitted so far.
    stopped : bool
        Whether one was refused.
    last : str
        The last one admitted: rule, place and unit.
    """

    limit: int | None = None
    made: int = 0
    stopped: bool = False
    last: str = ""

    def admit(self, rule: str, place: str, units: Sequence[int] = (), *, number: int = 1) -> int:
        """Return how many of ``number`` rewrites of one rule at one place may be made, the first ones of ``units``."""
        admitted = number if self.limit is None else max(min(number, self.limit - self.made), 0)
        self.stopped = self.stopped or admitted < number
        self.made += admitted
        if admitted:
            unit = f", unit {units[admitted - 1]}" if len(units) else ""
            self.last = f"{rule} at {place}{unit}"
        return admitted


@dataclass(slots=True)
class Outcome:
    """What a pass did; zero changes means the graph is untouched.

    Attributes
    ----------
    changes : int
        Rewrites of any kind.
    neurons_removed, layers_fused : int
        For reports.
    details : dict
        Statistics by name, summed over runs.
    claim : Exactness, optional
        What the changes that were made need to claim, when that is stronger than what
        the pass with its options may claim; for example only proved neurons were removed.
    """

    changes: int = 0
    neurons_removed: int = 0
    layers_fused: int = 0
    details: dict[str, int] = field(default_factory=dict)
    claim: Exactness | None = None

    def count(self, what: str, number: int = 1) -> None:
        """Add to a statistic."""
        if number:
            self.details[what] = self.details.get(what, 0) + number


class ActivityProvider(Protocol):
    """Measured spike statistics of the current graph."""

    def gram(self, graph: SNNGraph, population: str) -> npt.NDArray[np.float64] | None:
        """Return second moments of the population's spikes, a constant 1 last; ``None`` without data."""

    def read_by(self, graph: SNNGraph, nodes: Sequence[Node]) -> list[npt.NDArray[Any] | None]:
        """Return what nodes of the graph read, shape (T, samples, ...); ``None`` where it cannot be measured."""

    def distances(self, graph: SNNGraph, population: str) -> npt.NDArray[np.float32] | None:
        """Return how far potentials are from the threshold, as a share of it, shape (T, samples, N...)."""

    def spike_rows(self, graph: SNNGraph, nodes: Sequence[Node]) -> list[SpikeRows | None]:
        """Return how many vectors nodes of the graph read and how active they are; ``None`` if not measured."""

    def witnesses(
        self, graph: SNNGraph, silent: Mapping[str, npt.NDArray[np.bool_]], domain: InputDomain
    ) -> dict[str, npt.NDArray[np.bool_]]:
        """Return which silent units of each population fire for an input of the domain that was found."""


Evaluator = Callable[[Node, list[npt.NDArray[Any]]], list[npt.NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class Spending:
    """What a candidate costs; true when that is within the budget.

    Attributes
    ----------
    holds : bool
    found : str
        In one line.
    shares : tuple of float
        What was measured as shares of the budget, each in its own place; above 1 is too much.
    """

    holds: bool
    found: str
    shares: tuple[float, ...] = ()

    def __bool__(self) -> bool:
        return self.holds

    def __str__(self) -> str:
        return self.found

    def numbers(self) -> dict[str, object]:
        """Return what it holds in JSON types, for the arguments of a remark; a share that is not finite is None."""
        shares = [share if math.isfinite(share) else None for share in self.shares]
        return {"within_budget": self.holds, "found": self.found, "shares": shares}


Accept = Callable[[SNNGraph], Spending]


@dataclass(frozen=True, slots=True)
class Frontend:
    """What the caller says about the file that raising cannot see.

    Attributes
    ----------
    states : mapping from input to output
        States of a model that runs one step per call; found from the dataflow when empty.
    custom_ops : str
        A TOML file that describes neuron operators without a body; none when empty.
    """

    states: Mapping[str, str] = field(default_factory=dict)
    custom_ops: str = ""


@dataclass(slots=True)
class PassContext:
    """What a run hands to its passes.

    Attributes
    ----------
    analyses : AnalysisManager
        Facts about the graph the pass runs on.
    remarks : list of Remark
        Filled by ``applied`` and ``missed``.
    evaluate_node : callable, optional
        Runs one operator on constants; without it nothing is folded.
    activity : ActivityProvider, optional
        Measured spikes for least-squares refits.
    accept : callable, optional
        Tells whether a candidate stays within the caller's budget; without it a
        pass that searches for the largest affordable change must be told how much.
    frontend : Frontend
    rewrites : Rewrites
        Asked before every rewrite, by ``admits``.
    """

    analyses: AnalysisManager
    pass_name: str = ""
    remarks: list[Remark] = field(default_factory=list)
    evaluate_node: Evaluator | None = None
    activity: ActivityProvider | None = None
    accept: Accept | None = None
    frontend: Frontend = field(default_factory=Frontend)
    rewrites: Rewrites = field(default_factory=Rewrites)

    def admits(self, rule: str, place: str) -> bool:
        """Number the next rewrite and tell whether it may be made; ask when nothing else speaks against it."""
        return self.rewrites.admit(rule, place) == 1

    def trial(self, candidate: SNNGraph) -> PassContext:
        """Return the context of a run on a candidate: its own facts and remarks, which count when it is taken."""
        return replace(self, analyses=AnalysisManager(candidate.module, self.analyses.domain), remarks=[])

    def applied(self, rule: str, place: str, message: str, **arguments: object) -> None:
        """Record what was done."""
        self.remarks.append(Remark(RemarkKind.APPLIED, self.pass_name, rule, place, message, arguments))

    def missed(self, refusal: Refusal, place: str, **arguments: object) -> None:
        """Record what was left alone, and why."""
        self.remarks.append(Remark(RemarkKind.MISSED, self.pass_name, refusal.rule, place, refusal.reason, arguments))

    def note(self, rule: str, place: str, message: str, **arguments: object) -> None:
        """Record a fact worth knowing."""
        self.remarks.append(Remark(RemarkKind.ANALYSIS, self.pass_name, rule, place, message, arguments))


@dataclass(frozen=True, slots=True)
class Pass(ABC):
    """A named, immutable, re-entrant transformation of a graph, in place.

    Fields of the subclass are its options; their names, types and defaults are
    the pipeline syntax. A pass object holds no state of a run.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    exactness: ClassVar[Exactness]
    confirmed: ClassVar[bool] = False
    """Whether a bitwise claim rests on the runtime's kernels, and execution has to confirm it."""

    @property
    def claim(self) -> Exactness:
        """The promise with these options; never stronger than ``exactness``."""
        return self.exactness

    @property
    def fits(self) -> bool:
        """Whether it fits weights to the calibration data; the budget is then measured on other samples."""
        return False

    @abstractmethod
    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Transform ``graph`` in place."""

    @classmethod
    def describe(cls) -> str:
        """Return the first line of the documentation."""
        return (cls.__doc__ or "").strip().splitlines()[0]


def rates_by_unit(
    rates: Mapping[str, npt.NDArray[np.float64]], name: str, units: int
) -> npt.NDArray[np.float64] | None:
    """Return the highest measured rate among the neurons of each unit, ``None`` when unknown."""
    found = rates.get(name)
    if found is None or found.size == 0 or found.size % units:
        return None
    return np.asarray(found.reshape(units, -1).max(axis=1))
