"""What linear nodes read while a model runs, with time and samples as the first two axes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.instrument import Exposed, expose
from snn_optimizer.execution.observe import Observer, steps_of
from snn_optimizer.execution.ort import Session

__all__ = ["Signals"]

Array = npt.NDArray[Any]
_BATCH = 64


class Signals:
    """Runs a model over data and returns inner values, shape (T, samples, ...).

    Parameters
    ----------
    model : ModelProto
        Stays as it is.
    dataset : Dataset
    names : sequence of str
        Values to return.
    rows : collection of str
        Those of them whose first axis holds time and samples, whatever its size and that of the second axis.

    Raises
    ------
    ExecutionError
        If the model does not run.
    """

    def __init__(
        self, model: onnx.ModelProto, dataset: Dataset, names: Sequence[str], rows: Collection[str] = ()
    ) -> None:
        exposed, self._places = expose(model, names)
        self._session = Session(exposed)
        self._dataset = dataset
        self._steps = steps_of(Observer(model), dataset)
        self._rows = frozenset(rows)
        self._major: dict[str, bool] = {}
        self._turned: Mapping[str, Array] | None = None

    def record(self) -> dict[str, Array]:
        """Return the values that could be placed in time; one whose first axes are neither is left out.

        A value that is the same at all steps is a view with stride 0.
        """
        parts: dict[str, list[Array]] = {name: [] for name in self._places}
        steps = self._steps
        for batch in self._dataset.batches(_BATCH):
            values = self._run(batch)
            for name, place in self._places.items():
                found = self._arranged(name, place, values[place.output], batch, steps)
                if found is None:
                    parts.pop(name, None)
                elif name in parts:
                    parts[name].append(found)
        whole = {name: np.concatenate(each, axis=1) for name, each in parts.items() if each}
        return {
            name: np.broadcast_to(each, (steps, *each.shape[1:])) if len(each) == 1 else each
            for name, each in whole.items()
        }

    def _run(self, batch: Dataset) -> Mapping[str, Array]:
        return self._session.run(batch.feeds, list(dict.fromkeys(p.output for p in self._places.values())))

    def _arranged(self, name: str, place: Exposed, value: Array, batch: Dataset, steps: int) -> Array | None:
        samples = batch.samples
        if place.stacked:
            return value if value.ndim > 2 and value.shape[:2] == (steps, samples) else None
        if name not in self._rows and value.ndim > 2 and value.shape[:2] == (steps, samples):
            return value
        if value.ndim >= 2 and len(value) == steps * samples:
            if self._is_time_major(name, place, value, batch, steps):
                return value.reshape(steps, samples, *value.shape[1:])
            return np.swapaxes(value.reshape(samples, steps, *value.shape[1:]), 0, 1)
        if value.ndim >= 2 and len(value) == samples:  # the same at all steps
            return value[np.newaxis]
        return None

    def _is_time_major(self, name: str, place: Exposed, value: Array, batch: Dataset, steps: int) -> bool:
        """Tell how time and samples lie in one axis: samples in reverse order show it."""
        if steps == 1 or batch.samples == 1:
            return True
        if name not in self._major:
            if self._turned is None:  # of the first batch, on which all values are looked at
                self._turned = self._run(batch.take(np.arange(batch.samples)[::-1]))
            turned, shape = self._turned[place.output], (steps, batch.samples, *value.shape[1:])
            self._major[name] = bool(np.array_equal(turned.reshape(shape)[:, ::-1], value.reshape(shape)))
        return self._major[name]
