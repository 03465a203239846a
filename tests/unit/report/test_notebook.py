"""Networks and reports in notebooks: small tables, no script, every text escaped, and no library needed."""

from __future__ import annotations

import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from snn_optimizer import LayerNode, SNNGraph, optimize

HOSTILE = "<script>alert(1)</script>&\"'"


class Cells(HTMLParser):
    """The texts of a table's cells, and all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.inside = tag in {"td", "caption"}
        if self.inside:
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.cells[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.inside = False


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> SNNGraph:
    for library in ("jinja2", "matplotlib"):
        monkeypatch.setitem(sys.modules, library, None)
    weights = np.random.default_rng(0).normal(0, 0.5, (20, 6)).astype(np.float32)
    weights[:5] = -np.abs(weights[:5])
    return SNNGraph(layers=[LayerNode(HOSTILE, 6, 20, weights), LayerNode("out", 20, 3, np.ones((3, 20)))])


def test_a_network(graph: SNNGraph) -> None:
    text = graph._repr_html_()
    found = Cells(text)
    assert set(found.tags) == {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "p"}
    assert found.cells[1:4] == [HOSTILE, "LIF", "20"]
    assert found.cells[5].startswith("u = 0.9 v + x")
    assert "2 layers, 23 neurons, 180 parameters" in text


def test_a_report(graph: SNNGraph) -> None:
    _, report = optimize(graph, passes=["eliminate_dead"])
    report.model = HOSTILE
    found = Cells(report._repr_html_())
    assert "script" not in found.tags
    assert found.cells[0].startswith(HOSTILE)
    place = found.cells.index("neurons")
    assert found.cells[place : place + 4] == ["neurons", "23", "18", "-21.7%"]
    assert "dead-neuron-elimination" in found.cells


def test_a_large_network_stays_small() -> None:
    layers = [LayerNode(f"n{index}", 2, 2, np.eye(2)) for index in range(90)]
    text = SNNGraph(layers=layers)._repr_html_()
    assert text.count("<tr>") == 61
    assert "30 more layers, 90 layers, 180 neurons" in text
    assert len(text) < 30_000
