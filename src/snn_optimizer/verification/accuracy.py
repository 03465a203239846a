"""What a model decides, and how often two models decide alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import DataError
from snn_optimizer.execution.axes import output_axes
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.ort import Session
from snn_optimizer.verification.compare import is_spike_valued

__all__ = [
    "Scores",
    "accuracy",
    "decision_agreement",
    "decision_output",
    "decisions",
    "predict",
    "score",
    "spike_change",
]

Array = npt.NDArray[Any]
Decisions = npt.NDArray[np.int64]


def decision_output(outputs: Mapping[str, Array]) -> str:
    """Return the output that carries the decision.

    The first of two or more axes that is spike-valued and spikes, else the first such float
    output, else the first output.

    Raises
    ------
    DataError
        If there is no output.
    """
    if not outputs:
        raise DataError("the model has no output to decide by")
    wide = {name: values for name, values in outputs.items() if values.ndim >= 2} or dict(outputs)
    spiking = (name for name, values in wide.items() if is_spike_valued(values) and values.any())
    floating = (name for name, values in wide.items() if values.dtype.kind == "f")
    return next(spiking, None) or next(floating, None) or next(iter(wide))


def decisions(outputs: Mapping[str, Array], *, output: str | None = None) -> Decisions:
    """Return the class of each sample.

    Of an output ``(T, B, C...)`` the class with the largest sum over time, of ``(B, C)`` the
    largest value, the lowest class among equals; an output ``(B,)`` is the class itself.

    Parameters
    ----------
    outputs : mapping from output name to array
    output : str, optional
        The output to use; by default that of :func:`decision_output`.
    """
    values = outputs[decision_output(outputs) if output is None else output]
    if values.ndim == 0:
        return values.reshape(1).astype(np.int64)
    if values.ndim == 1:
        return values.astype(np.int64)
    evidence = values if values.ndim == 2 else values.sum(axis=0, dtype=np.float64)
    return np.asarray(evidence.reshape(len(evidence), -1).argmax(axis=1), np.int64)


def predict(session: Session, dataset: Dataset, *, batch_size: int = 64, output: str | None = None) -> Decisions:
    """Return the decision on each sample of a data set.

    Raises
    ------
    ExecutionError
        If the model does not run on the data.
    """
    return score(session, dataset, batch_size=batch_size, output=output).decisions


def accuracy(session: Session, dataset: Dataset, *, batch_size: int = 64, output: str | None = None) -> float:
    """Return the fraction of samples whose decision is the label.

    Raises
    ------
    DataError
        If the data has no labels.
    ExecutionError
        If the model does not run on the data.
    """
    result = score(session, dataset, batch_size=batch_size, output=output).accuracy
    if result is None:
        raise DataError("the data has no labels; add an array 'labels' with one integer per sample")
    return result


def decision_agreement(before: npt.ArrayLike, after: npt.ArrayLike) -> float:
    """Return the fraction of samples on which two models decide alike.

    Raises
    ------
    DataError
        If the numbers of samples differ, or there are none.
    """
    left, right = np.asarray(before), np.asarray(after)
    if left.shape != right.shape or left.size == 0:
        raise DataError(f"{left.size} decisions cannot be compared with {right.size}")
    return float(np.mean(left == right))


def spike_change(before: Mapping[str, Array], after: Mapping[str, Array]) -> float:
    """Return the fraction of elements that differ, over all outputs that are spike-valued in ``before``.

    Where no output is, over all outputs.

    Raises
    ------
    DataError
        If outputs or their shapes differ, or there is nothing to compare.
    """
    changed, compared = _changed(before, after)
    if compared == 0:
        raise DataError("there are no outputs to compare")
    return changed / compared


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """A model's answers on a data set.

    Attributes
    ----------
    decisions : int64 array, one per sample
    accuracy : float or None
        None without labels.
    outputs : tuple of mappings from output name to array
        One per run.
    decided_by : str
        The output the decisions were read from.
    """

    decisions: Decisions
    accuracy: float | None
    outputs: tuple[Mapping[str, Array], ...]
    decided_by: str

    def decisions_changed(self, after: Scores) -> float:
        """Return the fraction of samples another model decides otherwise."""
        return 1 - decision_agreement(self.decisions, after.decisions)

    def outputs_changed(self, after: Scores) -> float:
        """Return the fraction of spikes another model changes, see :func:`spike_change`."""
        parts = [_changed(old, new) for old, new in zip(self.outputs, after.outputs, strict=True)]
        compared = sum(total for _, total in parts)
        return sum(changed for changed, _ in parts) / compared if compared else 0.0


def score(session: Session, dataset: Dataset, *, batch_size: int = 64, output: str | None = None) -> Scores:
    """Run a model over a data set.

    Parameters
    ----------
    session : Session
    dataset : Dataset
    batch_size : int
        Samples per run at most.
    output : str, optional
        The output to decide by; chosen on the first run by default.

    Raises
    ------
    DataError
        If there are not as many decisions as labels.
    ExecutionError
        If the model does not run on the data.
    """
    runs: list[Mapping[str, Array]] = []
    decided: list[Decisions] = []
    chosen = output
    for batch in dataset.batches(batch_size):
        outputs = session.run(batch.feeds)
        chosen = decision_output(outputs) if chosen is None else chosen
        decided.append(decisions(_time_major(session, batch, outputs), output=chosen))
        runs.append(outputs)
    assert chosen is not None
    answers = np.concatenate(decided)
    if dataset.labels is not None and len(answers) != len(dataset.labels):
        raise DataError(
            f"output '{chosen}' holds decisions on {len(answers)} samples, and there are {len(dataset.labels)} labels: "
            "which axis counts samples cannot be told; export the model with a symbolic axis 'batch'"
        )
    right = None if dataset.labels is None else float(np.mean(answers == dataset.labels))
    return Scores(answers, right, tuple(runs), chosen)


def _time_major(session: Session, batch: Dataset, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Flatten the outputs whose first axis is known to count samples, so that none looks like time."""
    arranged = {}
    for port in session.outputs:
        values = outputs[port.name]
        time, samples = output_axes(port, values.shape, batch.steps, batch.samples)
        flat = time is None and samples == 0 and values.ndim > 2
        arranged[port.name] = values.reshape(len(values), -1) if flat else values
    return arranged


def _changed(before: Mapping[str, Array], after: Mapping[str, Array]) -> tuple[int, int]:
    """Return the elements that differ and the elements compared."""
    if list(before) != list(after):
        raise DataError(f"the outputs {', '.join(before)} cannot be compared with {', '.join(after)}")
    names = [name for name, values in before.items() if is_spike_valued(values)] or list(before)
    changed = compared = 0
    for name in names:
        if before[name].shape != after[name].shape:
            raise DataError(f"output '{name}' has shape {after[name].shape} instead of {before[name].shape}")
        changed += int(np.count_nonzero(before[name] != after[name]))
        compared += before[name].size
    return changed, compared
