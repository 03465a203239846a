"""Unit groups: what must be cut together when a neuron or channel goes.

One pass over the graph labels the axes of all values (``labels``) by one rule
per operator (``axis_rules``). The result says for every population which closed
class each of its units belongs to, where the class has to be cut, and why a
class must stay. It is the one mechanism behind every structural pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses.labels import NO_UNIT, Axes, Labels, Role, Site
from snn_optimizer.analyses.manager import AnalysisManager
from snn_optimizer.ir import Module, Node, Value
from snn_optimizer.ops import NeuronVariant

__all__ = ["Contraction", "Population", "UnitGroups"]


@dataclass(frozen=True, slots=True)
class Population:
    """A neuron node and the unit of each of its neurons (dense) or channels (maps).

    Attributes
    ----------
    labels : array, shape (units,)
    unit_axis : int
        Axis of the node's signal that counts the units: 2 in sequences, 1 in cells.
    spatial : tuple of int
        Static sizes of the axes behind the unit axis.
    steps : int or None
        Number of steps when static; ``None`` for unbounded.
    """

    node: Node
    variant: NeuronVariant
    labels: Labels
    unit_axis: int
    spatial: tuple[int, ...]
    steps: int | None

    @property
    def name(self) -> str:
        """Name of the neuron node."""
        return self.node.name

    @property
    def neurons(self) -> int:
        """Number of neurons, spatial positions included."""
        return len(self.labels) * int(np.prod(self.spatial, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Contraction:
    """A linear map with constant weights.

    Attributes
    ----------
    weight_slot, bias_slot : int
        Input slots of the node; the bias slot may be absent or empty.
    axis_in, axis_out : int
        Axes of the weight that count presynaptic and postsynaptic units.
    labels_in, labels_out : array
        Units along those axes.
    source, result : Value
        What it reads and what it computes.
    """

    node: Node
    weight_slot: int
    bias_slot: int | None
    axis_in: int
    axis_out: int
    labels_in: Labels
    labels_out: Labels
    source: Value
    result: Value


@dataclass(frozen=True, slots=True)
class UnitGroups:
    """The closed classes of units of a module.

    Attributes
    ----------
    class_of : array, shape (units,)
        Class of every unit.
    fixed : array, shape (classes,)
        Index into ``reasons``; -1 where the class may be cut.
    axes : mapping from id(value) to labels per axis
    scanned : mapping from id(value) to Value
        For what a loop body reads step by step, the value it comes from.
    carried : mapping from id(value) to (Value, Value)
        For what a loop body reads of the step before, where it starts and what follows it.
    """

    class_of: npt.NDArray[np.int64]
    fixed: npt.NDArray[np.int64]
    reasons: Sequence[str]
    sites: Sequence[Site]
    populations: Sequence[Population]
    contractions: Sequence[Contraction]
    axes: Mapping[int, Axes | None]
    values: Mapping[int, Value]
    scanned: Mapping[int, Value]
    carried: Mapping[int, tuple[Value, Value]]

    @classmethod
    def compute(cls, module: Module, analyses: AnalysisManager) -> UnitGroups:
        """Label every axis of ``module``; cost O(nodes + units)."""
        from snn_optimizer.analyses.propagation import Propagation  # noqa: PLC0415 - propagation builds this class

        return Propagation(module, analyses).run()

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.fixed)

    def classes_at(self, labels: Labels) -> npt.NDArray[np.int64]:
        """Return the class of each position, -1 where there is no unit."""
        if not len(self.class_of):
            return np.full(labels.shape, NO_UNIT, np.int64)
        return np.where(labels == NO_UNIT, NO_UNIT, self.class_of[labels])

    def mask_at(self, labels: Labels, selected: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which positions belong to a selected class (``selected`` is per class)."""
        classes = self.classes_at(labels)
        if not len(selected):
            return np.zeros(labels.shape, np.bool_)
        return np.where(classes == NO_UNIT, False, selected[classes])

    def refusal(self, number: int) -> str | None:
        """Return why class ``number`` must stay, ``None`` when it may be cut."""
        index = int(self.fixed[number])
        return None if index < 0 else self.reasons[index]

    def incoming(self) -> list[Site]:
        """Sites that define a unit: rows, biases, parameters and states."""
        return [s for s in self.sites if s.role in {Role.ROW, Role.BIAS, Role.PARAMETER, Role.STATE}]
