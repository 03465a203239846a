"""The drawing of a network: every path from one population to the next, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from snn_optimizer import LayerNode, SNNGraph
from snn_optimizer.api import raise_model
from snn_optimizer.report.html import network
from snn_optimizer.report.html.network import Edge, Network, network_of
from tests.support.models import conv, mlp, recurrent, streaming


def edges_of(model: Path | onnx.ModelProto) -> set[tuple[str, str, bool]]:
    found = network_of(SNNGraph.from_onnx(model))
    short = {place.key: place.name if place.kind == "population" else place.key for place in found.places}
    return {(short[edge.source], short[edge.target], edge.recurrent) for edge in found.edges}


def test_a_chain(models: Path) -> None:
    drawn = network_of(SNNGraph.from_onnx(models / "digits_mlp.onnx"))
    assert drawn.edges == [
        Edge("input x", "population lif1", "fc1 Gemm 128×64"),  # noqa: RUF001
        Edge("population lif1", "population lif2", "fc2 Gemm 10×128"),  # noqa: RUF001
        Edge("population lif2", "output spikes"),
    ]
    assert [(place.name, place.neurons) for place in drawn.places if place.kind == "population"] == [
        ("lif1", 128),
        ("lif2", 10),
    ]


def test_a_branch_that_is_added_is_seen(models: Path) -> None:
    found = edges_of(models / "digits_residual.onnx")
    assert {("lif1", "lif2", False), ("lif2", "lif3", False)} <= found
    assert {("lif1", "lif4", False), ("lif3", "lif4", False)} <= found
    assert len(found) == 6


def test_a_recurrent_connection_arrives_one_step_later(models: Path) -> None:
    found = edges_of(models / "digits_recurrent.onnx")
    assert found == {
        ("input x", "lif1", False),
        ("lif1", "lif1", True),
        ("lif1", "lif2", False),
        ("lif2", "output spikes", False),
    }


@pytest.mark.parametrize("make", [mlp, conv, recurrent, streaming])
def test_every_population_is_reached_and_read(make) -> None:
    graph = SNNGraph.from_onnx(make())
    found = network_of(graph)
    populations = {f"population {layer.name}" for layer in graph.layers}
    assert populations
    assert populations <= {edge.target for edge in found.edges}
    assert populations <= {edge.source for edge in found.edges}
    assert {edge.source for edge in found.edges} <= {place.key for place in found.places}


def test_an_export_is_drawn_once_it_is_raised(models: Path) -> None:
    path = models / "exports" / "digits_unrolled.onnx"
    assert network_of(SNNGraph.from_onnx(path)).omitted.startswith("no neurons were found among its ")
    assert len(network_of(raise_model(path).graph).edges) == 3


def test_what_is_too_large_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "LARGEST", 2)
    layers = [LayerNode(f"n{index}", 4, 4, np.eye(4)) for index in range(3)]
    assert network_of(SNNGraph(layers=layers)) == Network(
        omitted="3 populations are too many for a drawing of at most 2"
    )
