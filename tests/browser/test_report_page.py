"""The report in Chromium: no request, no complaint, the keyboard, narrow screens, both themes, and what it looks like."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from snn_optimizer.cli.main import run
from tests.browser.conftest import NARROW

NAMES = ("digits_residual", "digits_wide")
SECTIONS = ("summary", "network", "passes", "layers", "evidence")

CONTRAST = """() => {
  const channel = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour[3] === 1) { return colour; }
    }
    return parse(getComputedStyle(document.body).backgroundColor);
  };
  const poor = [];
  let seen = 0;
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.getClientRects().length || element.matches("title, script, noscript, style")) { continue; }
    const style = getComputedStyle(element);
    const ink = parse(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    seen += 1;
    if (ratio < 4.5) { poor.push(`${element.tagName}.${element.className}: ${element.textContent.slice(0, 30)} ${ratio}`); }
  }
  return { seen, poor };
}"""


@pytest.mark.parametrize("name", NAMES)
def test_it_looks_as_it_should(visit, name: str) -> None:
    from matplotlib.image import imread

    page = visit(name)
    boxes = {section: page.locator(f"#{section}").bounding_box() for section in SECTIONS}
    assert all(box["width"] > 900 and box["height"] > 120 for box in boxes.values())
    tops = [boxes[section]["y"] for section in SECTIONS]
    assert tops == sorted(tops)
    pixels = imread(io.BytesIO(page.screenshot(full_page=True)))[..., :3]
    assert pixels.shape[1] == 1200
    assert 3000 < pixels.shape[0] < 12000
    for section, box in boxes.items():
        top, left = int(box["y"]), int(box["x"])
        part = pixels[top : top + int(box["height"]), left : left + int(box["width"])]
        assert 0.01 < (part.mean(axis=2) < 0.6).mean() < 0.5, f"{section} is blank, or not what it was"
    for place in (".network svg", ".layer[open] .plots svg"):
        assert page.locator(place).count() >= 2
        for box in page.locator(place).all():
            assert box.bounding_box()["width"] > 150
    raster = page.locator(".layer[open] figure", has_text="Spikes").locator("svg").first.screenshot()
    assert imread(io.BytesIO(raster))[..., :3].std() > 0.05


@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_drawn(visit, name: str) -> None:
    page = visit(name)
    layers = page.locator("#layers table tbody tr").count()
    for figure in page.locator("figure.network").all():
        places = figure.locator(".place")
        assert places.count() >= layers + 2
        boxes = [each.bounding_box() for each in places.all()]
        for one in range(len(boxes)):
            for other in range(one):
                assert not overlap(boxes[one], boxes[other])
        assert figure.locator("path.edge").count() >= layers + 1
        assert figure.locator("a.place").count() == layers


def overlap(one: dict[str, float], other: dict[str, float]) -> bool:
    apart = (
        one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
        or one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]
    )  # fmt: skip
    return not apart


@pytest.mark.parametrize("name", NAMES)
def test_a_narrow_screen_has_nothing_beyond_its_edge(visit, name: str) -> None:
    page = visit(name, size=NARROW)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    wide, high = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert wide == NARROW["width"]
    assert high > 4000
    for section in SECTIONS:
        assert page.locator(f"#{section}").bounding_box()["width"] > 320


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(visit, name: str, scheme: str) -> None:
    page = visit(name, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    found = page.evaluate(CONTRAST)
    assert found["seen"] > 200
    assert found["poor"] == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, dark[4:-1].split(","))) < 200) == (scheme == "dark")


def test_the_theme_can_be_chosen(visit) -> None:
    page = visit("digits_residual", scheme="light")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    button = page.locator("#theme")
    for text, expected in (("light", True), ("dark", False), ("auto", True)):
        button.click()
        assert button.inner_text() == f"Theme: {text}"
        assert (page.evaluate(colour) == light) is expected


def test_the_keyboard_reaches_everything(visit) -> None:
    page = visit("digits_wide")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "summary"
    seen: list[str] = []
    for _ in range(200):
        page.keyboard.press("Tab")
        kind = "const e = document.activeElement; return `${e.tagName} ${e.className.baseVal ?? e.className}`;"
        seen.append(page.evaluate(f"() => {{ {kind} }}"))
        if seen[-1].startswith("SUMMARY") and "opened" not in seen:
            assert page.evaluate("document.activeElement.parentElement.open") is False
            page.keyboard.press("Enter")
            assert page.evaluate("document.activeElement.parentElement.open") is True
            seen.append("opened")
        if seen[-1].startswith("BODY"):
            break
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or seen[-1] == "a place"
    assert {"BUTTON ", "a place", "SUMMARY ", "DIV scroll", "DIV canvas", "PRE "} <= set(seen)
    assert seen[-1].startswith("BODY")  # nothing holds the focus


def test_a_box_leads_to_its_layer(visit) -> None:
    page = visit("digits_wide")
    layer = page.locator("#layer-2")
    assert layer.evaluate("(each) => each.open") is False
    page.locator("figure.network a.place").nth(1).focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('layer-2').open")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert 0 <= layer.bounding_box()["y"] < 400


def test_expand_all(visit) -> None:
    page = visit("digits_wide")
    count = "(id) => document.querySelectorAll(`#${id} details[open]`).length"
    for section in ("passes", "layers"):
        button = page.locator(f"button[data-expand={section}]")
        button.click()
        assert page.evaluate(count, section) == page.locator(f"#{section} details").count()
        button.click()
        assert page.evaluate(count, section) == 0


@pytest.mark.parametrize("model", ["exports/digits_step", "digits_recurrent"])
def test_other_forms(visit, models: Path, tmp_path: Path, model: str) -> None:
    path = tmp_path / "page.html"
    arguments = ("optimize", models / f"{model}.onnx", "-O1", "--dry-run", "--no-verify", "-q", "--report", path)
    assert run([str(each) for each in arguments]) == 0
    page = visit(path)
    later = page.locator("figure.network path.later").count()
    assert later == (2 if model == "digits_recurrent" else 0)
    assert page.locator(".network svg").count() == 2


def test_hostile_names_stay_text(visit, tmp_path: Path) -> None:
    from snn_optimizer import LayerNode, SNNGraph, optimize
    from snn_optimizer.report.html import Sources, gather, render

    name = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">&amp;"
    weights = np.random.default_rng(0).normal(0, 0.5, (8, 6)).astype(np.float32)
    graph = SNNGraph(layers=[LayerNode(name, 6, 8, weights)])
    after, report = optimize(graph, level="O1")
    report.model = report.pipeline = name
    path = tmp_path / "page.html"
    path.write_text(render(gather(report, graph, after, Sources(command=name, note=name))))
    page = visit(path)
    assert page.title() == f"{name}: optimization report"
    assert page.locator("img").count() == 0
    assert page.locator("h1").inner_text() == name
    assert page.locator("figure.network a.place title").first.text_content().startswith(f"population {name}")
