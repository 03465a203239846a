"""``optimize --report out.html`` and ``view``: what they write, and one clear line where they cannot."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest


def test_the_page_says_how_it_was_made(snnopt, models: Path, tmp_path: Path) -> None:
    model, page, out = models / "digits_mlp.onnx", tmp_path / "page.html", tmp_path / "o.onnx"
    data = models / "digits_mlp.calib.npz"
    code, _, err = snnopt("optimize", model, "-o", out, "-O1", "--calib", data, "--report", page)
    assert (code, err) == (0, "")
    text = page.read_text()
    assert f"snnopt optimize {model} -o {out} -O1 --calib {data} --report {page}" in text
    assert "calibration data, &#39;digits_mlp.calib.npz&#39;" in text
    assert "SHA-256 of digits_mlp.onnx" in text
    assert "EQUIVALENT" in text


def test_an_export_is_shown_as_the_network_in_it(snnopt, models: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    model = models / "exports" / "digits_unrolled.onnx"
    assert snnopt("optimize", model, "--dry-run", "--no-verify", "--report", page)[0] == 0
    text = page.read_text()
    assert "nodes and no neuron operators; shown as before is the network found in it." in text
    assert text.count('class="layer"') == 2


def test_a_result_in_another_form_is_shown_as_it_was_optimized(snnopt, models: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    model = models / "digits_mlp.onnx"
    assert snnopt("optimize", model, "--dry-run", "--no-verify", "--emit", "step", "--report", page)[0] == 0
    text = page.read_text()
    assert "Activity is not shown" not in text
    assert "step form: " in text


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_without_the_extra_nothing_is_begun(
    snnopt, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    page, out = tmp_path / "page.html", tmp_path / "out.onnx"
    code, stdout, err = snnopt("optimize", models / "digits_mlp.onnx", "-o", out, "--report", page)
    assert (code, stdout) == (2, "")
    needs = f"needs {library}, which is not installed; pip install 'snn-optimizer[report]'"
    assert err == f"snnopt: report '{page}' {needs}\n"
    assert not list(tmp_path.iterdir())


def test_a_report_has_a_known_suffix(snnopt, models: Path, tmp_path: Path) -> None:
    code, _, err = snnopt("optimize", models / "digits_mlp.onnx", "--dry-run", "--report", tmp_path / "page.htm")
    assert code == 2
    assert err.endswith("page.htm' must end in .html, .json or .md\n")


def test_a_page_that_cannot_be_written(snnopt, models: Path, tmp_path: Path) -> None:
    page = tmp_path / "absent" / "page.html"
    code, _, err = snnopt("optimize", models / "digits_mlp.onnx", "--dry-run", "--no-verify", "--report", page)
    assert (code, err.count("\n")) == (2, 1)
    assert "absent" in err


class Netron(types.ModuleType):
    """Stands in for Netron: remembers what it was asked to serve."""

    def __init__(self) -> None:
        super().__init__("netron")
        self.calls: list[object] = []

    def start(self, file=None, address=None, browse=True):
        self.calls.append((file, address, browse))
        return ("localhost", 8080) if address is None else address

    def wait(self) -> None:
        self.calls.append("wait")


@pytest.fixture
def netron(monkeypatch: pytest.MonkeyPatch) -> Netron:
    stand_in = Netron()
    monkeypatch.setitem(sys.modules, "netron", stand_in)
    return stand_in


def test_view_serves_the_model_until_it_is_stopped(snnopt, models: Path, netron: Netron) -> None:
    model = models / "digits_mlp.onnx"
    code, stdout, err = snnopt("view", model)
    assert (code, stdout) == (0, "")
    assert err == f"snnopt: '{model}' is shown at http://localhost:8080; interrupt to stop\n"
    assert netron.calls == [(str(model), None, True), "wait"]


def test_view_takes_a_port_and_opens_no_browser(snnopt, models: Path, netron: Netron) -> None:
    model = models / "digits_mlp.onnx"
    code, _, err = snnopt("view", model, "--port", "9001", "--no-browser", "-q")
    assert (code, err) == (0, "")
    assert netron.calls == [(str(model), ("localhost", 9001), False), "wait"]


def test_view_of_what_cannot_be_shown(snnopt, models: Path, netron: Netron, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = snnopt("view", "absent.onnx")
    assert (code, err) == (2, "snnopt: 'absent.onnx': no such file\n")

    def taken(*_: object, **__: object) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(netron, "start", taken)
    model = models / "digits_mlp.onnx"
    code, _, err = snnopt("view", model, "--port", "9001")
    assert (code, err) == (2, f"snnopt: '{model}' cannot be served: Address already in use; give another --port\n")


def test_view_without_netron(snnopt, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "netron", None)
    code, _, err = snnopt("view", models / "digits_mlp.onnx")
    assert code == 2
    assert err == "snnopt: view needs netron, which is not installed; pip install 'snn-optimizer[view]'\n"
