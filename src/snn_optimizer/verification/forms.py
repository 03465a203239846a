"""Compare two forms of one network: a run over all steps with a run step by step.

Both are driven with the same spike trains. Outputs that one form gives for every step are
compared at every step, others after the last one; every bit must agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import ExecutionError
from snn_optimizer.execution import ModelSource, Session

__all__ = ["Form", "FormCheck", "compare_forms"]

Array = npt.NDArray[Any]
_RATES = (0.1, 0.4, 1.0)
_BATCH = 3
_STEPS = 8


@dataclass(frozen=True, slots=True)
class Form:
    """How to run a model over several steps.

    Attributes
    ----------
    stepwise : bool
        Whether one call is one step.
    signals : dict
        Time axis of each input that changes from step to step; a stepwise model takes it step by step.
    states, starts : dict
        State output, and number a state starts from, by state input; of a stepwise model.
    steps : int
        Number of steps the model has; 0 when it takes any.
    """

    stepwise: bool
    signals: Mapping[str, int]
    states: Mapping[str, str] = field(default_factory=dict)
    starts: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0


@dataclass(frozen=True, slots=True)
class FormCheck:
    """What a comparison of two forms found.

    Attributes
    ----------
    compared, changed : int
        Output elements.
    spikes : int
        Output elements that were not zero; a comparison of silence says nothing.
    largest : float
        Largest difference, as a part of the largest output value.
    problem : str
        Why it could not be made; empty when it was.
    """

    compared: int = 0
    changed: int = 0
    spikes: int = 0
    problem: str = ""
    largest: float = 0.0


def compare_forms(before: ModelSource, first: Form, after: ModelSource, second: Form, *, seed: int = 0) -> FormCheck:
    """Run both forms on the same spike trains and count differing output elements."""
    compared = changed = spikes = 0
    difference = magnitude = 0.0
    try:
        one, other = Session(before), Session(after)
        steps = first.steps or second.steps or _fixed_steps(one, first) or _fixed_steps(other, second) or _STEPS
        for number, rate in enumerate(_RATES):
            trains = _trains(one, first, steps, rate, np.random.default_rng(seed + number))
            expected, found = _run(one, first, trains, steps), _run(other, second, trains, steps)
            for name in expected.keys() & found.keys():
                left, right = _aligned(expected[name], found[name])
                if left.shape != right.shape:
                    shapes = f"{list(right.shape)} instead of {list(left.shape)}"
                    return FormCheck(problem=f"output '{name}' has shape {shapes}")
                compared += left.size
                changed += int((~((left == right) | (np.isnan(left) & np.isnan(right)))).sum())
                spikes += int(np.count_nonzero(left))
                with np.errstate(invalid="ignore"):  # infinite in both
                    apart = left.astype(np.float64) - right.astype(np.float64)
                difference = max(difference, _largest(apart))
                magnitude = max(magnitude, _largest(left.astype(np.float64)))
    except ExecutionError as error:
        return FormCheck(problem=str(error))
    return FormCheck(compared, changed, spikes, largest=difference / magnitude if magnitude else difference)


def _largest(values: Array) -> float:
    """Return the largest magnitude; NaN, which is judged bit by bit, left out."""
    with np.errstate(all="ignore"):
        return float(np.nanmax(np.abs(values), initial=0.0))


def _fixed_steps(session: Session, form: Form) -> int:
    """Return the number of steps an input of a whole run has; 0 when it takes any."""
    for port in session.inputs if not form.stepwise else ():
        axis = form.signals.get(port.name)
        if axis is not None and port.shape is not None and isinstance(size := port.shape[axis], int):
            return size
    return 0


def _trains(session: Session, form: Form, steps: int, rate: float, random: np.random.Generator) -> dict[str, Array]:
    """Return binary trains, time first, for each input that is no state; constant inputs as they are."""
    trains: dict[str, Array] = {}
    for port in session.inputs:
        if port.name in form.states:
            continue
        shape = [size if isinstance(size, int) else _BATCH for size in port.shape or ()]
        if port.name in form.signals:
            if not form.stepwise:
                shape.pop(form.signals[port.name])
            shape.insert(0, steps)
        trains[port.name] = (random.random(shape) < rate).astype(np.float32)
    return trains


def _run(session: Session, form: Form, trains: Mapping[str, Array], steps: int) -> dict[str, list[Array]]:
    """Return each output, as one array of the whole run or one per step."""
    if not form.stepwise:
        feeds = {
            name: np.moveaxis(t, 0, form.signals[name]) if name in form.signals else t for name, t in trains.items()
        }
        return {name: [np.asarray(value)] for name, value in session.run(feeds).items()}
    ports = {port.name: port for port in session.inputs}
    batch = next((t.shape[1] for name, t in trains.items() if name in form.signals), _BATCH)
    batch = next((t.shape[0] for name, t in trains.items() if name not in form.signals), batch)
    states = {
        name: np.full([size if isinstance(size, int) else batch for size in ports[name].shape or ()], start, np.float32)
        for name, start in form.starts.items()
    }
    collected: dict[str, list[Array]] = {}
    for step in range(steps):
        feeds = {name: train[step] if name in form.signals else train for name, train in trains.items()}
        results = session.run({**feeds, **states})
        states = {name: np.asarray(results[output]) for name, output in form.states.items()}
        for name, value in results.items():
            collected.setdefault(name, []).append(np.asarray(value))
    return collected


def _aligned(left: list[Array], right: list[Array]) -> tuple[Array, Array]:
    """Return two outputs in one layout: all steps where both have them, else the last one."""
    if len(left) == len(right):
        first, second = np.stack(left), np.stack(right)
        if len(left) == 1 and first.ndim > 2 and first.shape != second.shape:
            first = np.swapaxes(first, 1, 2)  # batch-first; the forms written here count time first
        return first, second
    whole, steps = (left[0], right) if len(left) == 1 else (right[0], left)
    if whole.ndim == steps[-1].ndim + 1:
        count = len(steps)
        for axis in range(whole.ndim):
            rest = [size for k, size in enumerate(whole.shape) if k != axis]
            if whole.shape[axis] == count and tuple(rest) == steps[-1].shape:
                return whole, np.stack(steps, axis)
    return whole, steps[-1]
