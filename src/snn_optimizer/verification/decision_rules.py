"""What a network decides, by each of the rules in use, and how often two networks decide alike.

``count``
    The class with the most spikes.
``first-spike``
    The class that fires first; the lowest among those of one step. A sample without a spike decides
    nothing, which is a decision of its own.
``membrane-last``, ``membrane-max``
    The class whose membrane is highest after the last step, or at any step: of readouts that do not spike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.verification.accuracy import decisions
from snn_optimizer.verification.compare import Axes

__all__ = ["UNDECIDED", "Agreement", "decide", "decide_by_first_spike", "decide_by_membrane", "decision_rules"]

Array = npt.NDArray[Any]
Decisions = npt.NDArray[np.int64]

UNDECIDED = -1
"""The decision of a sample without a spike."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two models decided alike by one rule, reading one output."""

    rule: str
    output: str
    samples: int = 0
    agreeing: int = 0

    @property
    def share(self) -> float:
        """Fraction of the samples."""
        return self.agreeing / self.samples if self.samples else 1.0

    def with_more(self, before: Decisions, after: Decisions) -> Agreement:
        """Count in the decisions on further samples."""
        agreeing = int(np.count_nonzero(before == after))
        return Agreement(self.rule, self.output, self.samples + len(before), self.agreeing + agreeing)

    def to_json(self) -> dict[str, object]:
        """Return the numbers in JSON types."""
        return {
            "rule": self.rule,
            "output": self.output,
            "samples": self.samples,
            "agreeing": self.agreeing,
            "share": self.share,
        }


def decision_rules(axes: Mapping[str, Axes], spiking: Mapping[str, bool]) -> list[tuple[str, str]]:
    """Return the rules that apply to the outputs of a model, each with the output it reads.

    The first output of spikes and the first of membranes that count samples.

    Parameters
    ----------
    axes : mapping from output name to (time axis, batch axis)
    spiking : mapping from output name to bool
        Whether the output holds spikes.
    """
    rules = []
    counted = [name for name, (_, batch) in axes.items() if batch is not None]
    spikes = next((name for name in counted if spiking[name]), None)
    membranes = next((name for name in counted if not spiking[name]), None)
    if spikes is not None:
        rules.append(("count", spikes))
        if axes[spikes][0] is not None:
            rules.append(("first-spike", spikes))
    if membranes is not None:
        rules.append(("membrane-last", membranes))
        if axes[membranes][0] is not None:
            rules.append(("membrane-max", membranes))
    return rules


def decide(rule: str, values: Array, axes: Axes) -> Decisions:
    """Return the class of each sample by a rule of :func:`decision_rules`."""
    time, batch = axes
    assert batch is not None
    ordered = np.moveaxis(values, [batch] if time is None else [time, batch], range(1 if time is None else 2))
    lead = ordered.shape[: 1 if time is None else 2]
    arranged = ordered.reshape(*lead, int(np.prod(ordered.shape[len(lead) :], dtype=np.int64)))
    if rule == "count":
        return decisions({"": arranged})
    if rule == "first-spike":
        return decide_by_first_spike(arranged)
    return decide_by_membrane(arranged[np.newaxis] if time is None else arranged, last=rule == "membrane-last")


def decide_by_first_spike(trains: Array) -> Decisions:
    """Return the class that fires first; ``trains`` has the axes (T, B, C)."""
    fires = trains != 0
    first = np.where(fires.any(axis=0), fires.argmax(axis=0), len(trains))
    chosen = first.argmin(axis=1)
    silent = first.min(axis=1, initial=len(trains)) == len(trains)
    return np.where(silent, UNDECIDED, chosen).astype(np.int64)


def decide_by_membrane(potentials: Array, *, last: bool) -> Decisions:
    """Return the class of the highest membrane, after the last step or at any; axes (T, B, C)."""
    return np.asarray((potentials[-1] if last else potentials.max(axis=0)).argmax(axis=1), np.int64)
