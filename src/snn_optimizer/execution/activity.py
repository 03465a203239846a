"""Measured spikes of the current graph, for refits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import ExecutionError
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.recording import Recorder
from snn_optimizer.ir import SNNGraph

__all__ = ["MeasuredActivity"]


@dataclass(frozen=True, slots=True)
class MeasuredActivity:
    """Runs the graph as it is now on a data set and returns statistics of its spikes."""

    dataset: Dataset

    def gram(self, graph: SNNGraph, population: str) -> npt.NDArray[np.float64] | None:
        """Return mean second moments of the population's spikes, a constant 1 last; ``None`` if it cannot be run."""
        try:
            return Recorder(graph.to_onnx(), self.dataset).gram(population)
        except ExecutionError:
            return None
