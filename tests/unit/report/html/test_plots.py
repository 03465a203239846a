"""What a raster marks, pixel by pixel, and what a weight map shows."""

from __future__ import annotations

import numpy as np

from snn_optimizer.report.html import plots
from snn_optimizer.report.html.activity import Change, Trace
from snn_optimizer.report.html.binning import Image
from snn_optimizer.report.html.plots import GONE, KEPT, LOST, NEW


def change(before: np.ndarray, after: np.ndarray, kept: list[int] | None) -> Change:
    traces = [Trace(True, raster.mean(axis=1), raster=raster) for raster in (before, after)]
    return Change(traces[0], traces[1], None if kept is None else np.array(kept))


def colours(panel: plots._Panel) -> np.ndarray:
    """One letter per pixel."""
    letters = {KEPT: "k", LOST: "l", NEW: "n", GONE: "g"}
    pixels = plots._raster_image(panel)
    return np.array([[letters[tuple(p[:3])] if p[3] else "." for p in row] for row in pixels.tolist()])


def test_only_what_one_has_and_the_other_has_not_is_marked() -> None:
    before = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 1]])
    after = np.array([[1, 0, 1, 0], [1, 0, 0, 1]])
    first, second = plots._panels(change(before, after, [0, 2]))
    assert ["".join(row) for row in colours(first)] == ["kl..", "gkgg", "k..k"]
    assert ["".join(row) for row in colours(second)] == ["k.n.", "gggg", "k..k"]


def test_one_spike_is_marked_however_large_the_blocks() -> None:
    before = np.zeros((5000, 900))
    after = before.copy()
    after[4321, 777] = 1
    first, second = plots._panels(change(before, after, list(range(5000))))
    assert (colours(first) == ".").all()
    found = np.argwhere(colours(second) == "n")
    assert found.tolist() == [[4321 // second.block[0], 777 // second.block[1]]]
    assert (colours(second) != ".").sum() == 1


def test_nothing_is_marked_where_it_is_not_known_which_neuron_is_which() -> None:
    before, after = np.eye(4), np.ones((3, 4))
    panels = plots._panels(change(before, after, None))
    assert [panel.only is None and panel.gone is None for panel in panels] == [True, True]
    assert (colours(panels[1]) == "k").all()


def test_weights_have_the_colour_of_their_sign() -> None:
    pixels = plots._weight_image(Image(np.array([[0.0, -2.0, 1.0]], np.float32), (1, 3), (1, 1)), 2.0)
    assert [tuple(pixel[:3]) for pixel in pixels[0, 1:].tolist()] == [LOST, NEW]
    assert pixels[0, 0, 3] == 0
    assert pixels[0, 1, 3] == 255 > pixels[0, 2, 3] > 100
