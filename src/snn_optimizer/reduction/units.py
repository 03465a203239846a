"""Fewer neurons, channels and input features, with everything on both sides of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx

from snn_optimizer.analyses import NO_UNIT, AnalysisManager, UnitGroups
from snn_optimizer.analyses.propagation import Propagation
from snn_optimizer.ir import Graph, Rewriter, SNNGraph
from snn_optimizer.passes.unit_surgery import Surgeon, first_of_axis
from snn_optimizer.reduction.candidate import Candidate

__all__ = ["populations_of", "without_units"]


class _OpenGroups(Propagation):
    """Unit groups of a model whose inputs and outputs may become smaller, too."""

    def enter(self, graph: Graph) -> None:
        """Label the features of inputs, or their channels, as units of their own."""
        super().enter(graph)
        for value in graph.inputs:
            dims = self.dims(value)
            axis = -1 if dims is None or len(dims) < 4 else len(dims) - 3
            if dims is not None and len(dims) >= 2 and isinstance(size := dims[axis], int) and size > 1:
                axes = list(self.labels(value))
                axes[axis] = self.table.fresh(size)
                self.set(value, axes)

    def leave(self, graph: Graph) -> None:
        """Leave outputs free."""


def _groups(graph: SNNGraph) -> UnitGroups:
    return _OpenGroups(graph.module, AnalysisManager(graph.module)).run()


def populations_of(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the classes of units that may be cut, those along one axis together; the longest first.

    An axis is known by the first value that has it.
    """
    groups = _groups(SNNGraph.from_onnx(model))
    found: dict[tuple[int, ...], str] = {}
    for key, axes in groups.axes.items():
        for axis, labels in enumerate(axes or ()):
            if labels is not None:
                classes = groups.classes_at(labels)
                free = np.unique(classes[(classes != NO_UNIT) & (groups.fixed[classes] < 0)])
                if len(free) > 1:
                    found.setdefault(tuple(int(c) for c in free), f"{groups.values[key].name}/{axis}")
    return {found[one]: list(one) for one in sorted(found, key=len, reverse=True)}


def without_units(candidate: Candidate, classes: Sequence[int]) -> Candidate | None:
    """Return the candidate without these classes of units; None where an axis would be empty."""
    graph = SNNGraph.from_onnx(candidate.model)
    groups = _groups(graph)
    selected = np.zeros(groups.classes, np.bool_)
    selected[list(classes)] = True
    kept, emptied = first_of_axis(groups, selected)
    if emptied or not np.array_equal(kept, selected):
        return None
    rewriter = Rewriter(graph.module)
    samples = _cut_samples(graph, groups, selected, candidate)
    Surgeon(graph, groups, rewriter).cut(selected)
    rewriter.finish()  # without changes where only inputs and outputs have the axis
    if any(0 in (value.shape or ()) for value in (*graph.module.graph.inputs, *graph.module.graph.outputs)):
        return None
    return Candidate(graph.to_onnx(), candidate.pipeline, samples)


def _cut_samples(
    graph: SNNGraph, groups: UnitGroups, selected: npt.NDArray[np.bool_], candidate: Candidate
) -> dict[str, npt.NDArray[np.generic]] | None:
    if candidate.samples is None:
        return None
    samples = dict(candidate.samples)
    for value in graph.module.graph.inputs:
        for axis, labels in enumerate(groups.axes.get(id(value)) or ()):
            if labels is not None and value.name in samples:
                keep = ~groups.mask_at(labels, selected)
                samples[value.name] = np.compress(keep, samples[value.name], axis=axis)
    return samples
