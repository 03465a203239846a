"""Delta debugging: what of a list can go, tried in ever smaller pieces, within a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from snn_optimizer.errors import SnnOptimizerError
from snn_optimizer.reduction.candidate import Candidate
from snn_optimizer.reduction.failures import Failure, Oracle

__all__ = ["Progress", "Search", "TimeUpError"]

Item = TypeVar("Item")
QUIET = 5.0  # seconds without a success after which it is said what is tried


class TimeUpError(Exception):
    """The time limit was reached; what was found so far stands."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A smaller candidate that still fails, or what is tried when none was found for a while.

    Attributes
    ----------
    what : str
        What was left out, or is.
    nodes, passes, tried : int
        Of the main graph; candidates judged so far.
    seconds : float
    """

    what: str
    nodes: int
    passes: int
    tried: int
    seconds: float

    def __str__(self) -> str:
        passes = f", pipeline {self.passes}" if self.passes else ""
        return f"{self.what}: {self.nodes:,} nodes{passes} ({self.tried} candidates, {self.seconds:.0f} s)"


@dataclass(slots=True)
class Search:
    """The smallest failing candidate so far, and the judgement that made it so.

    Attributes
    ----------
    current : Candidate
    reference : Failure
        What every candidate has to fail with.
    oracle : callable
    end : float or None
        On the clock of ``time.perf_counter``.
    tell : callable, optional
        Hears every success, and what is tried after some seconds without one.
    """

    current: Candidate
    reference: Failure
    oracle: Oracle
    end: float | None = None
    tell: Callable[[Progress], None] | None = None
    start: float = field(default_factory=time.perf_counter)
    tried: int = 0
    accepted: int = 0
    _judged: set[bytes] = field(default_factory=set)
    _told: float = 0.0

    def __post_init__(self) -> None:
        self._told = time.perf_counter()
        self._judged.add(self.current.digest())

    def attempt(self, candidate: Candidate | None, what: str) -> bool:
        """Judge a candidate unless one like it was; take it where it fails as the model does.

        Raises
        ------
        TimeUpError
        """
        if self.end is not None and time.perf_counter() >= self.end:
            raise TimeUpError
        if candidate is None:
            return False
        digest = candidate.digest()
        if digest in self._judged:
            return False
        self._judged.add(digest)
        self.tried += 1
        failure = self.oracle(candidate)
        fails = failure is not None and failure.same_as(self.reference)
        if failure is not None and fails:
            self.current, self.reference = candidate, failure
            self.accepted += 1
        if fails or time.perf_counter() - self._told > QUIET:
            self._say(what if fails else f"trying {what}")
        return fails

    def _say(self, what: str) -> None:
        self._told = time.perf_counter()
        if self.tell is not None:
            nodes, passes = len(self.current.model.graph.node), len(self.current.pipeline)
            self.tell(Progress(what, nodes, passes, self.tried, self._told - self.start))

    def thin(
        self,
        items: Sequence[Item],
        build: Callable[[Sequence[Item]], Candidate | None],
        what: str,
        *,
        finest: int = 1,
        reverse: bool = False,
    ) -> list[Item]:
        """Leave out pieces of a list, half of it first, down to pieces of ``finest`` items; return what stays.

        Parameters
        ----------
        items : sequence
        build : callable
            Makes the candidate that has these items only; None where there is none.
        what : str
            For the progress.
        finest : int
        reverse : bool
            Try the last pieces first.

        References
        ----------
        Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", IEEE TSE 28, 2002; complements
        only, as in LLVM's llvm-reduce.
        """
        kept = list(items)
        size = len(kept)
        while size >= max(finest, 1):
            position = max(len(kept) - size, 0) if reverse else 0
            while kept and 0 <= position < len(kept):
                rest = kept[:position] + kept[position + size :]
                if self.attempt(self.built(build, rest), what):
                    kept = rest
                    position -= size if reverse else 0
                else:
                    position += -size if reverse else size
                if reverse and -size < position < 0:
                    position = 0
            size = min(size, len(kept) + 1) // 2
        return kept

    def built(self, build: Callable[[Sequence[Item]], Candidate | None], items: Sequence[Item]) -> Candidate | None:
        """Build a candidate; what cannot be built is none."""
        try:
            return build(items)
        except (SnnOptimizerError, ValueError, IndexError, KeyError):
            return None  # a shape or a value that the cut makes impossible
