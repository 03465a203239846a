"""From the data of a report to one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any, Final

from snn_optimizer.report.html.gather import DRAWN, Layer, ReportData
from snn_optimizer.report.html.network import Network
from snn_optimizer.report.html.passes import ranges, story_of
from snn_optimizer.report.html.plots import can_be_drawn, frontier_plot, histograms, raster_plots, weight_maps
from snn_optimizer.report.model import OptimizationReport, describe_evidence

__all__ = ["render"]

CLAIMS: Final = {
    "bitwise": "every output identical, bit for bit, for every input",
    "algebraic": "equal in real arithmetic; only rounding can differ",
    "profiled": "equal on the calibration data, not proved beyond",
    "lossy": "results change, within the budget that was given",
}
VERDICTS: Final = {"EQUIVALENT": "good", "DIFFERENT": "bad", "INCONCLUSIVE": "unsure"}
_KIBI: Final = 1024


@dataclass(frozen=True, slots=True)
class Figure:
    """Drawings side by side with what has to be said of them."""

    drawings: list[str]
    caption: str


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """The drawings of a layer."""

    histograms: Figure | None
    raster: Figure | None
    weights: tuple[Figure, ...]


def render(data: ReportData, *, progress: Callable[[str, int, int], None] | None = None) -> str:
    """Return the page.

    Raises
    ------
    ImportError
        If jinja2 or matplotlib is not installed; see ``require_libraries``.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - optional
    from markupsafe import Markup  # noqa: PLC0415

    environment = Environment(
        loader=PackageLoader("snn_optimizer.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda value: f"{value:,}",
        "bytes": _bytes,
        "percent": lambda value: f"{value:.2%}",
        "change": _change,
        "ranges": ranges,
        "safe_svg": Markup,
    }
    dagre = _asset("vendor/dagre.min.js").split("//# sourceMappingURL")[0]
    scripts = [f"/*\n{_asset('vendor/dagre.LICENSE.txt')}*/\n{dagre}", _asset("templates/page.js")]
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts]
    report = data.report
    figures: dict[str, LayerFigures] = {}
    for number, layer in enumerate(data.layers):
        if layer.drawn:
            figures[layer.anchor] = _figures(layer, data)
        if progress is not None:
            progress("draw", number + 1, len(data.layers))
    return environment.get_template("report.html.j2").render(
        data=data,
        report=report,
        rows=_rows(report),
        verdict=_verdict(report),
        claim=CLAIMS.get(report.exactness, ""),
        evidence_line=describe_evidence(report.evidence).partition(": ")[2] if report.evidence.verdict else "",
        story=story_of(report.pass_results),
        figures=figures,
        frontier_figures=[frontier_plot(each, f"frontier{i}") for i, each in enumerate(data.frontiers)],
        drawn=DRAWN,
        networks=[(name, each, _places(each, data)) for name, each in (("before", data.before), ("after", data.after))],
        style=Markup(_asset("templates/page.css")),  # noqa: S704 - our own file
        scripts=[Markup(text) for text in scripts],  # noqa: S704 - our own and a vendored file
        policy="; ".join((
            "default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", "base-uri 'none'",
            "form-action 'none'", f"script-src {' '.join(hashes)}",
        )),
    )  # fmt: skip


def _asset(name: str) -> str:
    return files("snn_optimizer.report.html").joinpath(*name.split("/")).read_text(encoding="utf-8")


def _figures(layer: Layer, data: ReportData) -> LayerFigures:
    change, anchor, name = layer.change, layer.anchor, html.escape(layer.name)
    drawn = None
    if change.before is not None or change.after is not None:
        drawn = Figure(
            histograms(change, f"{anchor}-histograms", name),
            "Counts on a logarithmic axis. Potentials are those that meet the threshold; the outermost bins hold "
            "all beyond 99.6 % of them.",
        )
    raster = None
    if can_be_drawn(change.before) or can_be_drawn(change.after):
        columns = "step" if data.activity.sample >= 0 else "sample"
        raster = Figure(*raster_plots(change, f"{anchor}-raster", name, columns=columns))
    weights = tuple(
        Figure(*weight_maps(before, after, f"{anchor}-weights{i}")) for i, (before, after) in enumerate(layer.weights)
    )
    return LayerFigures(drawn, raster, weights)


def _rows(report: OptimizationReport) -> list[dict[str, Any]]:
    """Return the numbers before and after, with how to write them."""
    before, after = report.before, report.after
    rows = [
        {"label": label, "old": getattr(before, name), "new": getattr(after, name), "kind": kind}
        for label, name, kind in (
            ("neurons", "neurons", "number"),
            ("parameters", "params", "number"),
            ("non-zero parameters", "nonzero_params", "number"),
            ("nodes", "nodes", "number"),
            ("size of the file", "bytes", "bytes"),
        )
    ]
    if report.accuracy_before is not None and report.accuracy_after is not None:
        label = f"accuracy ({report.accuracy_samples:,} samples)"
        rows.append({"label": label, "old": report.accuracy_before, "new": report.accuracy_after, "kind": "percent"})
    return rows


def _verdict(report: OptimizationReport) -> tuple[str, str]:
    """Return the verdict in words and its tone."""
    verdict = report.evidence.verdict
    if not verdict:
        return "not verified", "unsure"
    if verdict == "DIFFERENT" and report.exactness == "lossy":
        return "LOSSY, within the budget", "unsure"
    return verdict, VERDICTS.get(verdict, "unsure")


def _places(network: Network, data: ReportData) -> dict[str, Any]:
    """Return a drawing as JSON types, each population with its place in the page and its neighbour in the other."""
    layers = {layer.name: layer for layer in data.layers}
    places = []
    for place in network.places:
        entry = asdict(place)
        layer = layers.get(place.name) if place.kind == "population" else None
        if layer is not None:
            entry["href"] = f"#{layer.anchor}"
            old, new = (0 if facts is None else facts.neurons for facts in (layer.before, layer.after))
            entry["share"] = min(1.0, new / old) if old else 1.0
            entry["changed"] = layer.is_changed
        places.append(entry)
    return {"places": places, "edges": [asdict(edge) for edge in network.edges]}


def _bytes(number: int) -> str:
    size, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if size < _KIBI:
            break
        size, unit = size / _KIBI, larger
    return f"{number:,} B" if unit == "B" else f"{size:,.1f} {unit}"


def _change(row: dict[str, Any]) -> str:
    old, new = row["old"], row["new"]
    if row["kind"] == "percent":
        return f"{(new - old) * 100:+.2f} points"
    return "" if old == new else "new" if not old else f"{(new - old) / old:+.1%}"
