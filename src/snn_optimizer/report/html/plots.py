"""What is drawn of a layer: histograms, rasters, weights; and the frontier of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from snn_optimizer.report.html.activity import Change, Trace
from snn_optimizer.report.html.binning import TIMES, Image, block_means
from snn_optimizer.report.html.drawing import AFTER, BEFORE, INK, MUTED, to_svg
from snn_optimizer.report.html.frontier import Frontier
from snn_optimizer.report.html.weights import Weights

__all__ = ["RASTER_LIMIT", "can_be_drawn", "frontier_plot", "histograms", "raster_plots", "weight_maps"]

Array = npt.NDArray[Any]

RASTER_LIMIT: Final = (160, 200)  # rows and columns of a raster
KEPT: Final = (0x7A, 0x84, 0x90)
LOST: Final = (0xE0, 0x5A, 0x10)
NEW: Final = (0x1C, 0x7E, 0xD6)
GONE: Final = (0x9C, 0x6A, 0xDE)
GONE_ALPHA: Final = 0.22
SHADES: Final = 51
FEW: Final = 30  # neurons, up to which a raster is flat
FLAT: Final = 1.7
_PANEL: Final = (3.4, 2.3)  # inches
_BINS: Final = 40
_FAINTEST: Final = 0.35


@dataclass(frozen=True, slots=True, eq=False)
class _Panel:
    """A raster to draw; where it is known which neuron is which, the spikes the other has not, and what is gone."""

    label: str
    raster: Array
    only: npt.NDArray[np.bool_] | None = None
    gone: npt.NDArray[np.bool_] | None = None

    @property
    def block(self) -> tuple[int, int]:
        """Neurons and columns of a cell."""
        rows, columns = self.raster.shape
        return max(1, -(-rows // RASTER_LIMIT[0])), max(1, -(-columns // RASTER_LIMIT[1]))


def histograms(change: Change, name: str, population: str) -> list[str]:
    """Draw the distributions of rates and of potentials."""
    pairs = ((change.before, BEFORE, "before"), (change.after, AFTER, "after"))
    traces = [(trace, colour, label) for trace, colour, label in pairs if trace is not None]
    spiking = any(trace.spiking for trace, _, _ in traces)

    def rates(figure: Any) -> None:
        axes = figure.subplots()
        _histogram(axes, [(trace.rates, colour, label) for trace, colour, label in traces], weighted=False)
        axes.set_xlabel("firing rate (spikes per step)")
        axes.set_ylabel("neurons")
        axes.legend(loc="upper right")

    def potentials(figure: Any) -> None:
        axes = figure.subplots()
        _histogram(axes, [(trace.potentials, colour, label) for trace, colour, label in traces], weighted=True)
        axes.set_ylabel("share of observations")
        if spiking:
            axes.axvline(1.0, color=INK, linewidth=0.8, linestyle=":")
        else:
            axes.legend(loc="upper right")
        axes.set_xlabel("membrane at the test (thresholds)" if spiking else "membrane (its own units)")

    drawn = [to_svg(rates, *_PANEL, name=f"{name}-r", title=f"Firing rates of {population}")] if spiking else []
    return [*drawn, to_svg(potentials, *_PANEL, name=f"{name}-m", title=f"Membrane potentials of {population}")]


def _histogram(axes: Any, series: list[tuple[Array, str, str]], *, weighted: bool) -> None:
    known = [values for values, _, _ in series if len(values)]
    if not known:
        axes.text(0.5, 0.5, "no finite values", ha="center", va="center", transform=axes.transAxes)
        return
    pooled = np.concatenate(known)
    low, high = np.percentile(pooled, [0.2, 99.8]) if weighted else (0.0, float(pooled.max()))
    if weighted:
        high = max(float(high), float(low) + 1e-6)
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    for values, colour, label in series:
        if not len(values):
            continue
        weights = np.full(len(values), 1 / len(values)) if weighted else None
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges, weights=weights)
        filled = label == "before"
        axes.stairs(counts, edges, fill=filled, color=colour, alpha=0.45 if filled else 1.0, linewidth=1.4, label=label)
    axes.set_yscale("log")
    if not weighted:
        axes.set_ylim(bottom=0.8)  # a bin of one neuron is seen
    axes.minorticks_off()
    axes.grid(visible=True, axis="y", color=MUTED, alpha=0.25, linewidth=0.6)


def raster_plots(change: Change, name: str, population: str, *, columns: str) -> tuple[list[str], str]:
    """Draw the spikes before and after with the differences marked; also return how they were binned."""
    panels = _panels(change)
    tall = _PANEL[1] if max(len(panel.raster) for panel in panels) > FEW else FLAT

    def drawing(panel: _Panel) -> str:
        def draw(figure: Any) -> None:
            axes = figure.subplots()
            rows, steps = panel.raster.shape
            extent = (-0.5, steps - 0.5, rows - 0.5, -0.5)
            axes.imshow(_raster_image(panel), aspect="auto", interpolation="none", extent=extent)
            axes.set_title(panel.label)
            axes.set_xlabel(columns)
            axes.set_ylabel("neuron")
            axes.locator_params(integer=True)

        title = f"Spikes of {population} {panel.label}"
        return to_svg(draw, _PANEL[0], tall, name=f"{name}-{panel.label}", title=title)

    return [drawing(panel) for panel in panels], _said(panels[0].block, columns)


def _panels(change: Change) -> list[_Panel]:
    """Return what is drawn; both rasters by the numbers before where it is known which neuron is which."""
    pairs = (("before", change.before), ("after", change.after))
    known = [(label, trace.raster) for label, trace in pairs if trace is not None and trace.raster.size]
    if len(known) < len(pairs) or change.kept is None:
        return [_Panel(label, raster) for label, raster in known]
    (_, before), (_, after) = known
    image = np.zeros_like(before)
    image[change.kept] = after
    gone = np.ones(len(image), np.bool_)
    gone[change.kept] = False
    both = ~gone[:, np.newaxis]
    return [
        _Panel("before", before, (before > image) & both, gone),
        _Panel("after", image, (image > before) & both, gone),
    ]


def _said(block: tuple[int, int], columns: str) -> str:
    if block == (1, 1):
        return f"Every neuron and {columns} is shown."
    sizes = f"{block[0]} neuron{'s' * (block[0] > 1)} {TIMES} {block[1]} {columns}{'s' * (block[1] > 1)}"
    return f"Binned: a cell stands for {sizes}, fuller the more they fired; a cell with any such spike is marked."


def _raster_image(panel: _Panel) -> Array:
    """Return colours: spikes by their number, marked where they differ, and rows of neurons that are gone."""
    counts = block_means(panel.raster.astype(np.float32), panel.block)
    top = float(counts.max()) or 1.0
    shade = np.where(counts > 0, _FAINTEST + (1 - _FAINTEST) * np.clip(counts / top, 0, 1), 0)
    pixels = np.zeros((*counts.shape, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = KEPT, np.rint(255 * shade)
    if panel.gone is not None:
        rows = np.broadcast_to(panel.gone[:, np.newaxis], panel.raster.shape)
        share = block_means(rows, panel.block)
        empty = (share > 0) & (counts == 0)
        pixels[empty, :3] = GONE
        pixels[empty, 3] = np.rint(255 * GONE_ALPHA * share[empty])
    if panel.only is not None:
        marked = block_means(panel.only, panel.block) > 0
        pixels[marked] = (*(LOST if panel.label == "before" else NEW), 255)
    return pixels


def weight_maps(before: Weights | None, after: Weights | None, name: str) -> tuple[list[str], str]:
    """Draw the weights of a linear node before and after; also return how they were binned."""
    known = [(label, each.image) for label, each in (("before", before), ("after", after)) if each and each.image]
    top = max((float(np.abs(image.values).max(initial=0)) for _, image in known), default=0.0) or 1.0

    def drawing(label: str, image: Image) -> str:
        def draw(figure: Any) -> None:
            axes = figure.subplots()
            rows, columns = image.shape
            extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
            axes.imshow(_weight_image(image, top), aspect="auto", interpolation="none", extent=extent)
            axes.set_title(label)
            axes.set_xlabel("fan-in")
            axes.set_ylabel("unit")
            axes.locator_params(integer=True)

        return to_svg(draw, *_PANEL, name=f"{name}-{label}", title=f"Weights {label} by unit and fan-in")

    drawn = [drawing(label, image) for label, image in known]
    binned = [f"{label} {i.block[0]} {TIMES} {i.block[1]}" for label, i in known if i.binned]
    signed = "blue is positive, orange negative, the fuller the larger; zero is empty"
    if not binned:
        return drawn, f"Every weight is shown: {signed}."
    text = f"Binned to mean magnitudes of blocks of weights ({', '.join(binned)}), the fuller the larger"
    return drawn, f"{text}{'' if len(binned) == len(known) else f'; else {signed}'}."


def _weight_image(image: Image, top: float) -> Array:
    values = image.values
    pixels = np.zeros((*values.shape, 4), np.uint8)
    pixels[..., :3] = np.where(values[..., np.newaxis] < 0, LOST, KEPT if image.binned else NEW)
    shade = np.clip(np.abs(values) / top, 0, 1) ** 0.6
    pixels[..., 3] = np.rint(SHADES * shade) * (255 // SHADES)  # few shades make a small file
    return pixels


def frontier_plot(frontier: Frontier, name: str) -> str:
    """Draw what every network that was tried spent of the budget."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        known = [point for point in frontier.points if point.spent is not None]
        for within, colour, marker in ((True, AFTER, "o"), (False, BEFORE, "x")):
            own = [point for point in known if point.within is within]
            label = "within the budget" if within else "over it"
            axes.plot(
                [p.size for p in own], [p.spent for p in own], linestyle="", marker=marker, color=colour, label=label
            )
        axes.axhline(1.0, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xlabel(frontier.axis)
        axes.set_ylabel("largest share of the budget")
        axes.set_yscale("symlog", linthresh=1.0)
        axes.margins(y=0.12)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, color=MUTED, alpha=0.25, linewidth=0.6)
        axes.legend()

    return to_svg(draw, 5.6, 2.8, name=name, title="Share of the budget spent by each network that was tried")


def can_be_drawn(trace: Trace | None) -> bool:
    """Tell whether there is a train to show."""
    return trace is not None and bool(trace.raster.size)
