"""How far apart two models are in the measures of the field: spike trains and decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.execution.observe import Observer
from snn_optimizer.execution.ort import Session
from snn_optimizer.verification.cases import Case, Original
from snn_optimizer.verification.decision_rules import Agreement, decide, decision_rules
from snn_optimizer.verification.train_measures import TrainComparison, compare_trains
from snn_optimizer.verification.trial import axes_of

__all__ = ["Behaviour", "compare_behaviour"]

Array = npt.NDArray[Any]


@dataclass(slots=True, eq=False)
class Behaviour:
    """Two models on the same inputs.

    Attributes
    ----------
    samples : int
    time_scale : float
        Of the measures of trains, in steps.
    outputs : dict of TrainComparison
        By output; only outputs that hold spikes at every step.
    populations : dict of TrainComparison
        By population; only those that both models have, with the same neurons.
    decisions : list of Agreement
    """

    samples: int = 0
    time_scale: float = 1.0
    outputs: dict[str, TrainComparison] = field(default_factory=dict)
    populations: dict[str, TrainComparison] = field(default_factory=dict)
    decisions: list[Agreement] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        """Return all measures in JSON types."""
        return {
            "samples": self.samples,
            "time_scale": self.time_scale,
            "outputs": {name: each.to_json() for name, each in self.outputs.items()},
            "populations": {name: each.to_json() for name, each in self.populations.items()},
            "decisions": [each.to_json() for each in self.decisions],
        }


def compare_behaviour(
    original: Original,
    session: Session,
    cases: Sequence[Case],
    *,
    observers: tuple[Observer, Observer] | None = None,
    time_scale: float = 1.0,
) -> Behaviour:
    """Run the candidate, and measure how its spikes and decisions differ from the original's.

    Parameters
    ----------
    original : Original
    session : Session
        The candidate.
    cases : sequence of Case
        Of the original.
    observers : pair of Observer, optional
        Original and candidate, to look at their populations as well.
    time_scale : float
        In steps.

    Raises
    ------
    ExecutionError
        If the candidate does not run.
    """
    found = Behaviour(time_scale=time_scale)
    spiking = {port.name: port.name in original.spike_outputs for port in session.outputs}
    for case in cases:
        for run in case.runs:
            after = session.run(run.batch.feeds)
            axes = dict(axes_of(original, run.batch, run.outputs))
            if any(after[name].shape != values.shape for name, values in run.outputs.items()):
                continue  # said by the verdict
            found.samples += run.batch.samples
            for name, (time, _) in axes.items():
                if spiking[name] and time is not None:
                    sides = (np.moveaxis(side[name], time, 0) for side in (run.outputs, after))
                    _add(found.outputs, name, compare_trains(*sides, time_scale=time_scale))
            found.decisions = [
                known.with_more(
                    decide(known.rule, run.outputs[known.output], axes[known.output]),
                    decide(known.rule, after[known.output], axes[known.output]),
                )
                for known in found.decisions or [Agreement(*rule) for rule in decision_rules(axes, spiking)]
            ]
            if observers is not None:
                _compare_populations(found, observers, run.batch.feeds)
    return found


def _compare_populations(found: Behaviour, observers: tuple[Observer, Observer], feeds: Any) -> None:
    old, new = (observer.trains(feeds) for observer in observers)
    spiking = {tap.population for tap in observers[0].taps if tap.variant.spiking}
    for name in old:
        if name in spiking and name in new and old[name].shape == new[name].shape:
            compared = compare_trains(old[name], new[name], time_scale=found.time_scale)
            _add(found.populations, name, compared)


def _add(table: dict[str, TrainComparison], name: str, compared: TrainComparison) -> None:
    table[name] = table.get(name, TrainComparison()) + compared
