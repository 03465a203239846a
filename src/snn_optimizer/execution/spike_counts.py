"""How many vectors linear nodes read in one call, and how many of their elements are not zero."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx

from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.instrument import expose
from snn_optimizer.execution.ort import Session
from snn_optimizer.projection_costs import SpikeRows

__all__ = ["count_spikes"]

_BATCH = 64
_CALLS = 64  # with the smallest batch


def count_spikes(model: onnx.ModelProto, dataset: Dataset, names: Sequence[str]) -> dict[str, SpikeRows]:
    """Count in what values hold while a model runs over data; the last axis counts neurons.

    Parameters
    ----------
    model : ModelProto
        Stays as it is.
    dataset : Dataset
    names : sequence of str
        Values of the main graph or of the bodies of its loops; others are missing in what is returned.

    Raises
    ------
    ExecutionError
        If the model does not run.
    """
    exposed, places = expose(model, names)
    if not places:
        return {}
    session = Session(exposed)
    outputs = list(dict.fromkeys(place.output for place in places.values()))
    pooled: dict[str, list[float]] = {name: [] for name in places}
    rows: dict[str, int] = {}
    for call in itertools.islice(dataset.batches(1), _CALLS):
        values = session.run(call.feeds, outputs)
        for name, place in places.items():
            array = values[place.output]
            array = array if place.stacked else array[np.newaxis]  # one element for each time the node runs
            if array.ndim > 1 and array.size:
                vectors = array.reshape(len(array), -1, array.shape[-1])
                rows[name] = vectors.shape[1]
                pooled[name].append(float(vectors.any(axis=1).mean()))
    active, elements = dict.fromkeys(rows, 0), dict.fromkeys(rows, 0)
    for batch in dataset.batches(_BATCH):
        values = session.run(batch.feeds, outputs)
        for name in rows:
            array = values[places[name].output]
            active[name] += int(np.count_nonzero(array))
            elements[name] += array.size
    return {
        name: SpikeRows(number, active[name] / elements[name], float(np.mean(pooled[name])))
        for name, number in rows.items()
    }
