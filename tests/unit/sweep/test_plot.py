"""The figure is a well-formed image that shows every pipeline, and only the figure needs matplotlib."""

from __future__ import annotations

import builtins
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from snn_optimizer.errors import InputError
from snn_optimizer.sweep import Record, Row
from snn_optimizer.sweep.plot import draw
from snn_optimizer.sweep.tables import rows_of

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra 'plots')")


@pytest.fixture
def rows() -> list[Row]:
    figures = {"effective_macs": 1.0, "accuracy_calibration": 1.0}
    wide = Record("w", "@Oz", 0.1, 0, "different", "", 1, accuracy_test=0.5, bytes=10, effective_acs=5.0, **figures)
    records = [
        Record("o", "", None, 0, "original", accuracy_test=0.9, bytes=99, effective_acs=9.0, latency=1.0, **figures),
        Record("a", "@Oz", 0.0, 0, "within budget", accuracy_test=0.9, bytes=50, effective_acs=7.0, latency=0.8,
               **figures),
        Record("b", "@Oz", 0.01, 0, "within budget", accuracy_test=0.8, bytes=20, effective_acs=6.0, latency=0.7,
               **figures),
        wide,
        Record("f", "prune{budget}", 0.0, 0, "failed", "why", 4),
    ]  # fmt: skip
    return rows_of(records, [""] * len(records))


def test_svg(rows: list[Row], tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        draw(rows, tmp_path / name, title="net.onnx", merit="accuracy_test")
    text = (tmp_path / "one.svg").read_text()
    root = ET.fromstring(text)  # noqa: S314 - our own file
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"net.onnx", "original", "@Oz", "@Oz, not to be used", "front", "bytes"} <= words
    assert any(word.endswith("%") for word in words)
    assert (tmp_path / "two.svg").read_text() == text
    assert not re.search(r"20\d\d-", text)


def test_png(rows: list[Row], tmp_path: Path) -> None:
    from matplotlib.image import imread

    draw(rows, tmp_path / "front.png", title="net.onnx", merit="accuracy_test")
    pixels = imread(tmp_path / "front.png")
    assert pixels.shape[0] > 300
    assert pixels.shape[1] > pixels.shape[0]
    assert pixels.std() > 0.05


def test_nothing_to_place(tmp_path: Path) -> None:
    draw(rows_of([Record("f", "p", 0.0, 0, "failed")], [""]), tmp_path / "no.svg", title="", merit="accuracy_test")
    ET.parse(tmp_path / "no.svg")  # noqa: S314 - our own file


def test_without_matplotlib(rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name, *arguments, **more):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InputError, match=r"pip install 'snn-optimizer\[plots\]'"):
        draw(rows, tmp_path / "no.svg", title="", merit="accuracy_test")
    assert not list(tmp_path.iterdir())
