"""A network with fewer units: cut, then every reader refitted on what it reads now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses import AnalysisManager, Contraction, UnitGroups
from snn_optimizer.ir import Rewriter, SNNGraph
from snn_optimizer.passes.base import ActivityProvider, PassContext
from snn_optimizer.passes.unit_surgery import Mask, Surgeon
from snn_optimizer.passes.weights.compensation import refit, refit_weighted
from snn_optimizer.passes.weights.drives import (
    Filters,
    Reading,
    closeness,
    drive_weights,
    driven_by,
    filters_of,
    is_supported,
    read,
)

__all__ = ["Shrinker"]

Array = npt.NDArray[np.float64]
_WEIGHTED: Final = 2e10  # operations up to which each neuron has weights of its own for the observations


@dataclass
class Shrinker:
    """Makes smaller networks of one, on the same data.

    Attributes
    ----------
    readings : dict
        What each contraction reads in the whole network, by its position; only those that can be refitted.
    """

    graph: SNNGraph
    context: PassContext
    activity: ActivityProvider
    ridge: float
    groups: UnitGroups = field(init=False)
    readings: dict[int, Reading] = field(init=False)
    filters: list[Filters] = field(init=False)
    _close: dict[int, npt.NDArray[np.float32] | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.groups = self.context.analyses.get(UnitGroups)
        contractions = self.groups.contractions
        self.filters = [filters_of(self.groups, each) for each in contractions]
        weights = [id(each.node.inputs[each.weight_slot]) for each in contractions]
        signals = self.activity.read_by(self.graph, [each.node for each in contractions])
        self.readings = {
            number: read(each, found, self.filters[number])
            for number, (each, found) in enumerate(zip(contractions, signals, strict=True))
            if found is not None and weights.count(weights[number]) == 1 and is_supported(each)
        }
        for number in [number for number, reading in self.readings.items() if not self._has_sizes(number, reading)]:
            del self.readings[number]  # nothing can be fitted to what is no number

    def _has_sizes(self, number: int, reading: Reading) -> bool:
        finite = (
            np.isfinite(reading.moments).all() and np.isfinite(drive_weights(self.groups.contractions[number])).all()
        )
        return bool(finite)

    def without(self, selected: Mask) -> tuple[SNNGraph, int]:
        """Return a copy without the selected classes, refitted, and how many neurons are gone."""
        copy = self.graph.copy(share_weights=True)
        groups = AnalysisManager(copy.module, self.context.analyses.domain).get(UnitGroups)
        rewriter = Rewriter(copy.module)
        removed = Surgeon(copy, groups, rewriter).cut(selected)
        rewriter.finish()
        changed = False
        for number, contraction in enumerate(groups.contractions):
            gone = groups.mask_at(contraction.labels_in, selected)
            changed = changed or bool(gone.any())
            if changed and number in self.readings:
                self._refit(copy, groups, number, selected)
        return copy, removed

    def masked(self, masks: Mapping[int, npt.NDArray[np.bool_]]) -> SNNGraph:
        """Return a copy in which the marked weights are zero, and the others refitted.

        Parameters
        ----------
        masks : mapping
            Of contractions, by position; shape (rows, presynaptic x kernel).
        """
        copy = self.graph.copy(share_weights=True)
        groups = AnalysisManager(copy.module, self.context.analyses.domain).get(UnitGroups)
        nothing = np.zeros(groups.classes, np.bool_)
        for number, contraction in enumerate(groups.contractions):
            if number in masks:
                kept = drive_weights(contraction)
                kept[:, :-1][masks[number]] = 0
                self._write(copy, groups, contraction, kept)
        for number in sorted(self.readings):
            if number >= min(masks, default=0):
                self._refit(copy, groups, number, nothing, sparse=number in masks)
        return copy

    def _refit(self, copy: SNNGraph, groups: UnitGroups, number: int, selected: Mask, *, sparse: bool = False) -> None:
        contraction, before = groups.contractions[number], self.groups.contractions[number]
        (signals,) = self.activity.read_by(copy, [contraction.node])
        if signals is None:
            return
        now, then = read(contraction, signals, self.filters[number]), self.readings[number]
        rows = ~groups.mask_at(contraction.labels_out, selected)
        old, wanted = drive_weights(contraction), drive_weights(before)[rows]
        close = self._closeness(number)
        if close is None:
            new = refit(now.moments, now.cross(then), old, wanted, self.ridge, sparse=sparse)
        else:
            drive = np.asarray(then.rows @ wanted.T, np.float64)
            new = refit_weighted(now.rows, drive, close[:, rows], old, self.ridge, sparse=sparse)
        if not np.isfinite(new).all():
            return
        self._write(copy, groups, contraction, new)

    def _closeness(self, number: int) -> npt.NDArray[np.float32] | None:
        """Return what each observation weighs for each neuron in the original, ``None`` where it costs too much."""
        if number not in self._close:
            contraction, reading = self.groups.contractions[number], self.readings[number]
            neurons, (observations, inputs) = len(contraction.labels_out), reading.rows.shape
            population = driven_by(self.groups, contraction)
            found = None
            same = population is not None and np.array_equal(
                self.groups.classes_at(contraction.labels_out), self.groups.classes_at(population.labels)
            )
            if population is not None and same and neurons * observations * inputs**2 <= _WEIGHTED:
                distances = self.activity.distances(self.graph, population.name)
                found = None if distances is None else closeness(reading, distances, neurons)
            self._close[number] = found
        return self._close[number]

    def _write(
        self, copy: SNNGraph, groups: UnitGroups, contraction: Contraction, new: npt.NDArray[np.float64]
    ) -> None:
        rewriter = Rewriter(copy.module)
        surgeon = Surgeon(copy, groups, rewriter)
        columns = surgeon.columns(contraction)
        shape = (columns.shape[1], columns.shape[0], *columns.shape[2:])
        stored = np.swapaxes(new[:, :-1].reshape(shape), 0, 1).astype(columns.dtype)
        surgeon.set_columns(contraction, stored)
        if new[:, -1].any():
            surgeon.add_to_bias(contraction, new[:, -1])
        rewriter.finish()
