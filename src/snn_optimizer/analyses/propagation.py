"""Drive the axis rules over a module and close the classes."""

from __future__ import annotations

from dataclasses import dataclass

from snn_optimizer import ops
from snn_optimizer.analyses import axis_rules_linear  # noqa: F401 - its rules register themselves
from snn_optimizer.analyses.axis_rules import RULES, opaque
from snn_optimizer.analyses.axis_rules_shape import neuron
from snn_optimizer.analyses.labels import Axes, Labels, LabelTable, Role
from snn_optimizer.analyses.manager import AnalysisManager
from snn_optimizer.analyses.shape_vectors import ShapeVectors
from snn_optimizer.analyses.unit_groups import Contraction, Population, UnitGroups
from snn_optimizer.ir import Graph, Module, Node, Shapes, Use, Value, shape_of_constant

__all__ = ["Propagation", "StaticShapes"]

TARGETS = {("Reshape", 1), ("Expand", 1), ("ConstantOfShape", 0)}  # slots whose rules follow vectors of sizes


@dataclass(frozen=True, slots=True)
class StaticShapes:
    """Shape inference as an analysis, so that it is computed once per change."""

    shapes: Shapes

    @classmethod
    def compute(cls, module: Module, analyses: AnalysisManager) -> StaticShapes:
        """Infer the shapes of ``module``."""
        return cls(Shapes.compute(module))


class Propagation:
    """State of one labelling run; the rules write into it."""

    def __init__(self, module: Module, analyses: AnalysisManager) -> None:
        self.module = module
        self.shapes = analyses.get(StaticShapes).shapes
        self.table = LabelTable()
        self.axes: dict[int, Axes | None] = {}
        self.values: dict[int, Value] = {}
        self.vectors = ShapeVectors(self.shapes)
        self.populations: list[Population] = []
        self.contractions: list[Contraction] = []
        self.scanned: dict[int, Value] = {}
        self.carried: dict[int, tuple[Value, Value]] = {}
        self.steps: int | None = None  # length of the enclosing Scan, None outside or when symbolic

    def run(self) -> UnitGroups:
        """Label the main graph, bodies included, and close the classes."""
        self.enter(self.module.graph)
        self.walk(self.module.graph)
        self.leave(self.module.graph)
        number, class_of = self.table.classes()
        fixed, reasons = self.table.fixed_classes(number, class_of)
        return UnitGroups(
            class_of=class_of,
            fixed=fixed,
            reasons=reasons,
            sites=self.table.sites,
            populations=self.populations,
            contractions=self.contractions,
            axes=self.axes,
            values=self.values,
            scanned=self.scanned,
            carried=self.carried,
        )

    def enter(self, graph: Graph) -> None:
        """Label the inputs of the model: the caller feeds them, so nothing in them is a unit."""
        for value in graph.inputs:
            self.set_blank(value)

    def leave(self, graph: Graph) -> None:
        """Fix what the caller sees."""
        for value in graph.outputs:
            self.fix_all(value, f"graph output '{value.name}'")

    def walk(self, graph: Graph) -> None:
        """Apply the rule of every node in order."""
        for node in graph.nodes:
            self.vectors.read(node)
            self._fix_sizes_read_by(node)
            if ops.is_neuron(node.domain or "", node.op):
                neuron(self, node)
            else:
                RULES.get((node.domain or "", node.op), opaque)(self, node)

    def _fix_sizes_read_by(self, node: Node) -> None:
        """A size is followed only on its way to a target shape; whoever computes with it must find it unchanged."""
        if node.op == "Shape" or any(self.vectors.is_vector(value) for value in node.outputs):
            return
        for slot, value in enumerate(node.inputs):
            if self.vectors.is_vector(value) and (node.op, slot) not in TARGETS:
                self.fix_all(value, f"'{node.name}' ({node.op}) computes with their number")

    # -- what rules ask --------------------------------------------------------------------

    def labels(self, value: Value) -> Axes:
        """Return the labels of each axis; empty when nothing is known."""
        return self.axes.get(id(value)) or []

    def known_axes(self, value: Value) -> Axes | None:
        """Return the labels of each axis, ``None`` when the rank is unknown."""
        if id(value) in self.axes:
            return self.axes[id(value)]
        rank = self.shapes.rank(value)
        return None if rank is None else [None] * rank

    def dims(self, value: Value) -> tuple[int | str | None, ...] | None:
        """Return the static shape."""
        return self.shapes.shape(value)

    def constant_dims(self, value: Value) -> tuple[int, ...] | None:
        """Return the shape of a constant, ``None`` for anything computed."""
        return shape_of_constant(value)

    # -- what rules say --------------------------------------------------------------------

    def set(self, value: Value, axes: Axes | None) -> None:
        """Set the labels of a value's axes."""
        self.axes[id(value)] = axes
        self.values[id(value)] = value

    def set_blank(self, value: Value) -> None:
        """Give ``value`` no units on any axis."""
        rank = self.shapes.rank(value)
        self.set(value, None if rank is None else [None] * rank)

    def fix_all(self, value: Value, reason: str) -> None:
        """Fix every unit of a value, those its size counts included."""
        for labels in self.labels(value):
            self.table.fix(labels, reason)
        for source, axis in self.vectors.dimensions(value):
            axes = self.labels(source)
            if axis < len(axes):
                self.table.fix(axes[axis], reason)

    def site(self, node: Node, slot: int, axis: int, labels: Labels, role: Role) -> None:
        """Record a place to cut."""
        self.table.site(Use(node, slot), axis, labels, role)
