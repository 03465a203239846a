"""Measured signals of the current graph, for refits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import DataError, ExecutionError
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.recording import Recorder
from snn_optimizer.execution.signals import Signals
from snn_optimizer.execution.spike_counts import count_spikes
from snn_optimizer.execution.witnesses import find_witnesses
from snn_optimizer.ir import InputDomain, Node, SNNGraph
from snn_optimizer.projection_costs import SpikeRows

__all__ = ["MeasuredActivity"]


@dataclass(frozen=True, slots=True)
class MeasuredActivity:
    """Runs the graph as it is now on a data set and returns what happens inside."""

    dataset: Dataset

    def gram(self, graph: SNNGraph, population: str) -> npt.NDArray[np.float64] | None:
        """Return mean second moments of the population's spikes, a constant 1 last; ``None`` if it cannot be run."""
        try:
            return Recorder(graph.to_onnx(), self.dataset).gram(population)
        except ExecutionError:
            return None

    def read_by(self, graph: SNNGraph, nodes: Sequence[Node]) -> list[npt.NDArray[Any] | None]:
        """Return what nodes of the graph read, shape (T, samples, ...); ``None`` where it cannot be measured."""
        names = [node.inputs[0].name for node in nodes]
        rows = [node.inputs[0].name for node in nodes if node.op == "Conv"]  # channels follow, not samples
        try:
            found = Signals(graph.to_onnx(), self.dataset, names, rows).record()
        except ExecutionError:
            return [None] * len(names)
        return [found.get(name) for name in names]

    def distances(self, graph: SNNGraph, population: str) -> npt.NDArray[np.float32] | None:
        """Return how far the population's potentials are from the threshold, as a share of it, (T, samples, N...)."""
        try:
            return Recorder(graph.to_onnx(), self.dataset).distances(population)
        except (DataError, ExecutionError):
            return None

    def spike_rows(self, graph: SNNGraph, nodes: Sequence[Node]) -> list[SpikeRows | None]:
        """Return how many vectors nodes of the graph read and how active they are; ``None`` if not measured."""
        names = [node.inputs[0].name for node in nodes]
        try:
            found = count_spikes(graph.to_onnx(), self.dataset, names)
        except ExecutionError:
            return [None] * len(names)
        return [found.get(name) for name in names]

    def witnesses(
        self, graph: SNNGraph, silent: Mapping[str, npt.NDArray[np.bool_]], domain: InputDomain
    ) -> dict[str, npt.NDArray[np.bool_]]:
        """Return which silent units of each population fire for an input of the domain that was found."""
        ends = {}
        for name in self.dataset.feeds:
            low, high = domain.interval(name)
            if np.isfinite(low).all() and np.isfinite(high).all():
                ends[name] = (float(np.min(low)), float(np.max(high)))
        try:
            limits = domain.active_limits(self.dataset.feeds)
            return find_witnesses(graph.to_onnx(), silent, self.dataset, ends, limits=limits)
        except ExecutionError:
            return {}
