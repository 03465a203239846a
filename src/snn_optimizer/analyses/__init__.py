"""Facts about a module; computing one changes nothing and runs nothing."""

from snn_optimizer.analyses.bounds import ValueRanges
from snn_optimizer.analyses.duplicates import Duplicates
from snn_optimizer.analyses.intervals import Range
from snn_optimizer.analyses.labels import NO_UNIT, Labels, Role, Site
from snn_optimizer.analyses.manager import AnalysisManager
from snn_optimizer.analyses.neuron_bounds import NeuronFacts
from snn_optimizer.analyses.propagation import StaticShapes
from snn_optimizer.analyses.unit_groups import Contraction, Population, UnitGroups

__all__ = [
    "NO_UNIT",
    "AnalysisManager",
    "Contraction",
    "Duplicates",
    "Labels",
    "NeuronFacts",
    "Population",
    "Range",
    "Role",
    "Site",
    "StaticShapes",
    "UnitGroups",
    "ValueRanges",
]
