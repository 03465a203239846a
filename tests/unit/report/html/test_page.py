"""The page as text: self-contained, small, the same every time, and every number where it belongs."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from snn_optimizer import LayerNode, OptimizationReport, SNNGraph, optimize
from snn_optimizer.pipeline import PassResult, PassStatus
from snn_optimizer.remarks import Remark, RemarkKind
from snn_optimizer.report.html import Sources, gather, passes, render
from snn_optimizer.report.html.frontier import Frontier, Point, frontiers
from snn_optimizer.report.html.passes import story_of


class Reader(HTMLParser):
    """Collects what a test asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"src", "href", "xlink:href", "srcset", "data", "action"}:
                self.loaded.append(value or "")


def page_of(neurons: int, *, level: str = "O2", inputs: int = 16) -> tuple[str, OptimizationReport]:
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.5, (neurons, inputs)).astype(np.float32)
    weights[: neurons // 4] = -np.abs(weights[: neurons // 4])
    out = rng.normal(0, 0.1, (10, neurons)).astype(np.float32)
    graph = SNNGraph(layers=[LayerNode("hidden", inputs, neurons, weights), LayerNode("out", neurons, 10, out)])
    after, report = optimize(graph, level=level)
    report.seconds = 0.0
    for result in report.pass_results:
        result.seconds = result.check_seconds = 0.0
    return render(gather(report, graph, after, Sources(command="snnopt optimize a.onnx"))), report


@pytest.fixture(scope="module")
def page() -> tuple[str, OptimizationReport]:
    return page_of(40)


def test_it_loads_nothing(page) -> None:
    found = Reader(page[0])
    outside = [each for each in found.loaded if not each.startswith(("#", "data:"))]
    assert outside == []
    assert "@import" not in page[0]
    assert not re.search(r"url\((?!#)", page[0])
    assert "sourceMappingURL" not in page[0]
    assert "Copyright (c) 2012-2014 Chris Pettitt" in page[0]
    assert "default-src &#39;none&#39;" in page[0]


def test_identifiers_are_unique_and_links_lead_somewhere(page) -> None:
    found = Reader(page[0])
    assert len(found.ids) == len(set(found.ids))
    assert {each[1:] for each in found.loaded if each.startswith("#")} <= set(found.ids)
    assert {each for each in re.findall(r"url\(#([^)]+)\)", page[0]) if "$" not in each} <= set(found.ids)


def test_its_numbers_are_those_of_the_report(page) -> None:
    text, report = page
    assert f"{report.neurons_before} → {report.neurons_after}" not in text  # layers, not totals
    assert "40 → 30" in text
    for number in (report.params_before, report.params_after, report.neurons_after):
        assert f"{number:,}" in text
    assert "10 neurons removed, by their numbers before" in text
    assert "0–9" in text  # noqa: RUF001
    assert report.evidence.cases
    for case in report.evidence.cases:
        assert f'<th scope="row">{case.name}</th>' in text


def test_drawings_are_json(page) -> None:
    found = re.findall(r'<script type="application/json">(.*?)</script>', page[0])
    before, after = (json.loads(each) for each in found)
    assert [place["neurons"] for place in before["places"] if place["kind"] == "population"] == [40, 10]
    assert [place["share"] for place in after["places"] if place["kind"] == "population"] == [0.75, 1.0]


def test_the_same_run_gives_the_same_bytes(page) -> None:
    assert page_of(40)[0] == page[0]


def test_ten_thousand_neurons_stay_below_five_megabytes() -> None:
    text, _ = page_of(10_000, level="O1")
    assert len(text.encode()) < 1_000_000
    assert "Binned: a cell stands for 63 neurons" in text
    assert "Binned to mean magnitudes of blocks of weights" in text


def test_many_layers_stay_below_five_megabytes() -> None:
    rng = np.random.default_rng(0)
    layers = [LayerNode(f"n{i}", 300, 300, rng.normal(0, 0.2, (300, 300)).astype(np.float32)) for i in range(30)]
    graph = SNNGraph(layers=layers)
    text = render(gather(OptimizationReport(), graph, graph, Sources()))
    assert len(text.encode()) < 5_000_000
    assert "Figures are of the first 24 of 30 layers." in text
    assert "not verified" in text


def remark(kind: RemarkKind = RemarkKind.APPLIED, rule: str = "r", **arguments: object) -> Remark:
    return Remark(kind, "p", rule, "place", "message", arguments)


def test_arguments_are_told_in_words() -> None:
    told = remark(units=[1, 2, 3, 7, 9, 10], rate_bound=None, proved=1234, share=0.25, fits=True, names=["a", "b"])
    story = story_of([PassResult("p", status=PassStatus.KEPT, remarks=[told])])
    found = {each.name: (each.text, each.items) for each in story.runs[0].remarks[0].arguments}
    assert found == {
        "units": ("1–3, 7, 9, 10", 6),  # noqa: RUF001
        "proved": ("1,234", None),
        "share": ("0.25", None),
        "fits": ("yes", None),
        "names": ("a, b", 2),
    }


def test_runs_are_sorted_by_what_came_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "REMARKS", 2)
    missed = remark(RemarkKind.MISSED)
    results = [
        PassResult("a"),
        PassResult("a", remarks=[missed]),
        PassResult("b", status=PassStatus.ROLLED_BACK, reason="why", remarks=[remark()] * 5),
        PassResult("c", status=PassStatus.KEPT, remarks=[missed, remark(rule="frontier")]),
    ]
    story = story_of(results)
    assert story.quiet == (("a", 2),)
    assert [(run.result.name, len(run.remarks), run.more) for run in story.runs] == [("b", 2, 3), ("c", 0, 0)]
    assert [(each.told.remark, each.times) for each in story.refusals] == [(missed, 2)]


def test_frontiers_are_those_of_the_remarks() -> None:
    tries = [
        remark(rule="frontier", units=5, parameters=90, within_budget=False, found="too much", shares=[0.5, 2.0]),
        remark(rule="frontier", units=2, parameters=140, within_budget=True, found="fine", shares=[0.25, 0.0]),
        remark(rule="frontier", units=9, parameters=20, within_budget=False, found="hopeless", shares=[None]),
    ]
    found = frontiers([PassResult("a"), PassResult("compress-units", number=7, remarks=tries)])
    points = (Point(20, None, False, "hopeless"), Point(90, 2.0, False, "too much"), Point(140, 0.25, True, "fine"))
    assert found == [Frontier("compress-units", 7, "parameters", points)]
    graph = SNNGraph(layers=[LayerNode("n", 3, 4, np.ones((4, 3)))])
    report = OptimizationReport(pass_results=[PassResult("compress-units", number=7, remarks=tries)])
    text = render(gather(report, graph, graph, Sources()))
    assert "What size costs" in text
    assert "hopeless" in text
