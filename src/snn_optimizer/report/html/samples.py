"""Samples for a report where the caller gave none: seeded spike trains."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from snn_optimizer.execution import Dataset, Observer
from snn_optimizer.execution.axes import batch_axes
from snn_optimizer.ir import InputDomain
from snn_optimizer.verification import generate

__all__ = ["generated_samples"]

_STEPS: Final = 25  # where the model leaves them open
_BATCH: Final = 8  # samples of each rate
_KIND: Final = "random:"


def generated_samples(observer: Observer, domain: InputDomain, seed: int) -> tuple[Dataset, str]:
    """Return random trains for a model at several rates, and what they are in words.

    Raises
    ------
    DataError
        If no values can be made for an input.
    """
    inputs = observer.session.inputs
    stimuli = [
        stimulus
        for stimulus in generate(
            inputs, steps=_STEPS, batch=_BATCH, seed=seed, ranges=domain, states=observer.fed_states
        )
        if stimulus.name.startswith(_KIND)
    ]
    axes = batch_axes(inputs)
    feeds: dict[str, Any] = {}
    for port in inputs:
        arrays, axis = [stimulus.feeds[port.name] for stimulus in stimuli], axes[port.name]
        feeds[port.name] = arrays[0] if axis is None else np.concatenate(arrays, axis=axis)
    rates = ", ".join(stimulus.name.removeprefix(_KIND) for stimulus in stimuli)
    text = f"generated spike trains (rates {rates}; seed {seed}): no data was given"
    return Dataset.from_arrays(feeds, inputs), text
