"""A network as a drawing needs it: inputs, populations and outputs, and what leads from one to the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from snn_optimizer.ir import LayerNode, Node, Projection, SNNGraph, Value, equation, is_constant, is_standard
from snn_optimizer.report.html.binning import TIMES

__all__ = ["LARGEST", "Edge", "Network", "Place", "network_of"]

SIZES: Final = ("Shape", "Size")  # what is read of a value by these is not what it carries
LARGEST: Final = 120  # populations that are drawn; more cannot be read


@dataclass(frozen=True, slots=True)
class Place:
    """A node of the drawing.

    Attributes
    ----------
    key : str
        Of its kind and its name in the model; edges name it.
    kind : {"input", "population", "output"}
    detail : str
        The neuron equation of a population, the shape of an input or output.
    """

    key: str
    kind: str
    name: str
    neuron_type: str = ""
    neurons: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """Spikes that reach a place.

    Attributes
    ----------
    through : str
        The linear node in between, with its shape; empty where spikes arrive as they are.
    recurrent : bool
        Whether they arrive one step later.
    """

    source: str
    target: str
    through: str = ""
    recurrent: bool = False


@dataclass(slots=True)
class Network:
    """All places and edges; ``omitted`` says why nothing is drawn."""

    places: list[Place] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    omitted: str = ""


def network_of(graph: SNNGraph) -> Network:
    """Return the drawing of a graph."""
    layers = graph.layers
    if not layers:
        return Network(omitted=f"no neurons were found among its {graph.module.count_nodes():,} nodes")
    if len(layers) > LARGEST:
        return Network(omitted=f"{len(layers):,} populations are too many for a drawing of at most {LARGEST}")
    return _Walk(graph, layers).network()


@dataclass(slots=True)
class _Walk:
    """Follows values from populations and outputs back to what they come from."""

    graph: SNNGraph
    layers: list[LayerNode]
    links: dict[int, list[tuple[Value, bool]]] = field(default_factory=dict)
    sources: dict[int, str] = field(default_factory=dict)
    projections: dict[int, Projection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for scope in self.graph.module.scopes():
            if scope.kind == "body" and scope.owner is not None:
                self._link(scope.owner, scope.graph.inputs, scope.graph.outputs)
        self.sources.update((id(value), f"input {value.name}") for value in self.graph.module.graph.inputs)
        for layer in self.layers:
            self.projections.update((id(projection.node), projection) for projection in layer.projections)
            if layer.node is not None:
                self.sources.update((id(value), f"population {layer.name}") for value in layer.node.outputs)

    def _link(self, owner: Node, inputs: list[Value], outputs: list[Value]) -> None:
        """Connect the values of a body with those of the node it belongs to."""
        if owner.op == "Scan":
            carried = len(owner.inputs) - int(owner.attrs["num_scan_inputs"])
            pairs, offset = list(zip(inputs, owner.inputs, strict=False)), 0
            back = list(zip(inputs[:carried], outputs, strict=False))
        elif owner.op == "Loop":
            carried = len(owner.inputs) - 2
            pairs, offset = list(zip(inputs[2:], owner.inputs[2:], strict=False)), 1
            back = list(zip(inputs[2 : 2 + carried], outputs[1:], strict=False))
        else:  # a branch of If
            pairs, offset, back = [], 0, []
        for inner, outer in pairs:
            self.links.setdefault(id(inner), []).append((outer, False))
        for inner, last in back:
            self.links.setdefault(id(inner), []).append((last, True))
        for outer, inner in zip(owner.outputs, outputs[offset:], strict=False):
            self.links.setdefault(id(outer), []).append((inner, False))

    def network(self) -> Network:
        """Return the places and what leads to each."""
        module = self.graph.module
        places = [Place(f"input {v.name}", "input", v.name, detail=_shape(v)) for v in module.graph.inputs]
        edges: dict[Edge, None] = {}
        for layer in self.layers:
            key = f"population {layer.name}"
            places.append(Place(key, "population", layer.name, layer.neuron_type, layer.n_neurons, equation(layer)))
            if layer.node is not None:
                currents = layer.node.inputs[: layer.variant.currents]
                edges.update(dict.fromkeys(self._into(key, currents)))
        for value in module.graph.outputs:
            key = f"output {value.name}"
            places.append(Place(key, "output", value.name, detail=_shape(value)))
            edges.update(dict.fromkeys(self._into(key, [value])))
        read = {edge.source for edge in edges}
        return Network([place for place in places if place.kind != "input" or place.key in read], list(edges))

    def _into(self, target: str, values: Iterable[Value]) -> Iterable[Edge]:
        pending: list[tuple[Value, tuple[int, ...], bool]] = [(value, (), False) for value in values]
        seen: set[tuple[int, tuple[int, ...], bool]] = set()
        while pending:
            value, path, recurrent = pending.pop(0)
            key = (id(value), path, recurrent)
            if key in seen or not value.name or is_constant(value):
                continue
            seen.add(key)
            if (source := self.sources.get(id(value))) is not None:
                through = ", ".join(_title(self.projections[each]) for each in reversed(path))
                yield Edge(source, target, through, recurrent)
                continue
            if (links := self.links.get(id(value))) is not None:
                pending.extend((linked, path, recurrent or later) for linked, later in links)
                continue
            for node in value.inputs:
                if is_standard(node, *SIZES):
                    continue
                onward = (*path, id(node)) if id(node) in self.projections else path
                pending.extend((read, onward, recurrent) for read in node.inputs)


def _title(projection: Projection) -> str:
    shape = TIMES.join(str(size) for size in projection.shape)
    return f"{projection.node.name or projection.node.op} {projection.node.op} {shape}"


def _shape(value: Value) -> str:
    return "" if value.shape is None else f" {TIMES} ".join("?" if size is None else str(size) for size in value.shape)
