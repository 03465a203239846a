"""The outcome of comparing two models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.execution.data import save_arrays
from snn_optimizer.verification.compare import Comparison, Difference, Level

__all__ = ["CaseResult", "Equivalence", "Verdict"]

Array = npt.NDArray[Any]


class Verdict(StrEnum):
    """Whether two models do the same."""

    EQUIVALENT = "EQUIVALENT"
    DIFFERENT = "DIFFERENT"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True)
class CaseResult:
    """The outcome on one stimulus, or on the data.

    Attributes
    ----------
    name : str
    generated : bool
        False for the caller's data.
    samples : int
    near_ties : int
        Samples that differ only after a potential came within rounding distance of its threshold.
    comparison : Comparison
    """

    name: str
    generated: bool
    samples: int
    near_ties: int
    comparison: Comparison

    @property
    def differing_samples(self) -> int:
        """Number of samples that differ, near ties included."""
        return len(self.comparison.first_steps)


@dataclass(frozen=True, slots=True, eq=False)
class Equivalence:
    """The outcome of comparing two models.

    Attributes
    ----------
    verdict : Verdict
    reason : str
        One sentence; empty for ``EQUIVALENT``, which the counts support.
    level : Level
        What the models were held to.
    cases : tuple of CaseResult
    first : Difference or None
        The earliest difference that counts, and in ``first_case`` where.
    populations, silent : tuple of str
        Spiking populations of the original, and those that never fired; empty when
        its inside could not be seen.
    skipped : tuple of str
        Stimuli on which the original itself does not run.
    counterexample : mapping from input name to array, or None
        The one sample of ``first``.
    """

    verdict: Verdict
    reason: str
    level: Level
    cases: tuple[CaseResult, ...] = ()
    first: Difference | None = None
    first_case: str | None = None
    populations: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    counterexample: Mapping[str, Array] | None = field(default=None, repr=False)

    def concluded(self, verdict: Verdict, reason: str) -> Equivalence:
        """Return the same findings under a verdict; only a difference keeps its counterexample."""
        kept = self.counterexample if verdict is Verdict.DIFFERENT else None
        return replace(self, verdict=verdict, reason=reason, counterexample=kept)

    @property
    def values_compared(self) -> int:
        """Number of elements of outputs compared."""
        return sum(case.comparison.values_compared for case in self.cases)

    @property
    def differing(self) -> int:
        """Number of elements that differ, near ties included."""
        return sum(case.comparison.differing for case in self.cases)

    @property
    def spikes_compared(self) -> int:
        """Number of elements of spike-valued outputs compared."""
        return sum(case.comparison.spikes_compared for case in self.cases)

    @property
    def spikes_differing(self) -> int:
        """Number of elements of spike-valued outputs that differ, near ties included."""
        return sum(case.comparison.spikes_differing for case in self.cases)

    @property
    def spikes_seen(self) -> int:
        """Spikes the original put out."""
        return sum(case.comparison.spikes_seen for case in self.cases)

    @property
    def max_abs_difference(self) -> float:
        """Largest difference of any value."""
        return max((case.comparison.max_abs_difference for case in self.cases), default=0.0)

    @property
    def samples(self) -> int:
        """Number of samples compared."""
        return sum(case.samples for case in self.cases)

    @property
    def near_ties(self) -> int:
        """Number of samples excused because a potential met its threshold."""
        return sum(case.near_ties for case in self.cases)

    @property
    def hidden_coverage(self) -> float | None:
        """Fraction of the spiking populations that fired, None when none can be seen."""
        if not self.populations:
            return None
        return 1 - len(self.silent) / len(self.populations)

    @property
    def spike_change(self) -> float:
        """Fraction of the spike-valued elements that differ."""
        return self.spikes_differing / self.spikes_compared if self.spikes_compared else 0.0

    def save_counterexample(self, path: str | os.PathLike[str]) -> None:
        """Write the differing sample as an ``.npz`` file, in the form of calibration data.

        Raises
        ------
        ValueError
            If there is none.
        OutputError
            If the file cannot be written.
        """
        if self.counterexample is None:
            raise ValueError(f"no counterexample: the verdict is {self.verdict}")
        save_arrays(path, {name: np.asarray(array) for name, array in self.counterexample.items()})

    def to_json(self) -> dict[str, object]:
        """Return the numbers in JSON types."""
        return {
            "verdict": str(self.verdict),
            "reason": self.reason,
            "exactness": str(self.level),
            "samples": self.samples,
            "values_compared": self.values_compared,
            "spikes_compared": self.spikes_compared,
            "spikes_seen": self.spikes_seen,
            "differing": self.differing,
            "spikes_differing": self.spikes_differing,
            "max_abs_difference": self.max_abs_difference if np.isfinite(self.max_abs_difference) else None,
            "near_ties": self.near_ties,
            "hidden_coverage": self.hidden_coverage,
            "silent_populations": list(self.silent),
            "skipped_stimuli": list(self.skipped),
            "first_difference": None if self.first is None else f"{self.first_case}: {self.first}",
        }
