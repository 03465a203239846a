"""Everything the page shows, gathered before any of it is drawn."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from snn_optimizer.execution import Dataset
from snn_optimizer.ir import InputDomain, LayerNode, SNNGraph, equation
from snn_optimizer.report.html.activity import Activity, Change, measure_activity
from snn_optimizer.report.html.frontier import Frontier, frontiers
from snn_optimizer.report.html.network import Network, network_of
from snn_optimizer.report.html.weights import Weights, weights_by_name
from snn_optimizer.report.model import OptimizationReport
from snn_optimizer.version import __version__, installed_versions

__all__ = ["DRAWN", "Facts", "Layer", "ReportData", "Sources", "gather"]

DRAWN: Final = 24  # layers with figures; the others are rows of the table


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a report comes from, beside the run itself.

    Attributes
    ----------
    data : Dataset, optional
        Samples to run both models on; seeded spike trains when there are none.
    data_name : str
        What they are, in words.
    command : str
        What was called; to be called again.
    digest : str
        SHA-256 of the file that went in.
    note : str
        What ``before`` is, where it is not the file as it came.
    """

    data: Dataset | None = None
    data_name: str = ""
    command: str = ""
    digest: str = ""
    note: str = ""
    domain: InputDomain = field(default_factory=InputDomain)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """One layer of one model."""

    neuron_type: str
    neurons: int
    equation: str
    weights: int
    nonzero: int


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One layer before and after.

    Attributes
    ----------
    drawn : bool
        Whether it has figures.
    """

    name: str
    anchor: str
    before: Facts | None
    after: Facts | None
    change: Change
    weights: tuple[tuple[Weights | None, Weights | None], ...]
    drawn: bool

    @property
    def gone(self) -> list[int]:
        """The numbers of the neurons that were removed; empty where they are not known."""
        if self.before is None or self.change.kept is None:
            return []
        return sorted(set(range(self.before.neurons)) - set(self.change.kept.tolist()))

    @property
    def is_changed(self) -> bool:
        """Whether its neurons, or the number of its weights, differ."""
        return self.before is None or self.after is None or self.before != self.after


@dataclass(slots=True, eq=False)
class ReportData:
    """All that a page shows."""

    report: OptimizationReport
    sources: Sources
    before: Network
    after: Network
    layers: list[Layer]
    activity: Activity
    frontiers: list[Frontier]
    versions: dict[str, str]


def gather(
    report: OptimizationReport,
    before: SNNGraph,
    after: SNNGraph,
    sources: Sources,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> ReportData:
    """Run both models once more and collect what a page shows.

    Parameters
    ----------
    before, after : SNNGraph
        The network that went in and the one that came out, with the same inputs.
    """
    activity = measure_activity(
        before, after, sources.data, sources.data_name, domain=sources.domain, seed=sources.seed, progress=progress
    )
    old = {layer.name: layer for layer in before.layers}
    new = {layer.name: layer for layer in after.layers}
    layers = []
    for index, name in enumerate(dict.fromkeys((*old, *new))):
        drawn = index < DRAWN
        kept = [weights_by_name(each[name], drawn=drawn) if name in each else {} for each in (old, new)]
        pairs = tuple((kept[0].get(key), kept[1].get(key)) for key in dict.fromkeys((*kept[0], *kept[1])))
        facts = [_facts(each.get(name), found) for each, found in zip((old, new), kept, strict=True)]
        change = activity.populations.get(name, Change())
        layers.append(Layer(name, f"layer-{index + 1}", facts[0], facts[1], change, pairs, drawn))
    return ReportData(
        report=report,
        sources=sources,
        before=network_of(before),
        after=network_of(after),
        layers=layers,
        activity=activity,
        frontiers=frontiers(report.pass_results),
        versions=_versions(),
    )


def _facts(layer: LayerNode | None, weights: dict[str, Weights]) -> Facts | None:
    if layer is None:
        return None
    total, nonzero = sum(each.count for each in weights.values()), sum(each.nonzero for each in weights.values())
    return Facts(layer.neuron_type, layer.n_neurons, equation(layer), total, nonzero)


def _versions() -> dict[str, str]:
    found = {"snn_optimizer": __version__, "Python": platform.python_version()}
    return found | installed_versions(("onnx", "onnxruntime", "numpy"))
