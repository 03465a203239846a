"""A pass of another distribution, installed by pip: found, listed, explained, run and guarded as our own are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from snn_optimizer.execution import Session
from snn_optimizer.passes import registry
from tests.support.models import LIF, mlp, spike_trains

PACKAGE = Path(__file__).resolve().parents[1] / "support" / "plugin_package"
NAME = "leak-free-neurons"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the package."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PACKAGE, folder / "source")  # setuptools writes beside what it builds
    target = folder / "site-packages"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--target", target, folder / "source"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(site))
    registry._table.cache_clear()
    yield
    registry._table.cache_clear()
    sys.modules.pop("snn_leak_free", None)


@pytest.fixture
def leak_free(tmp_path: Path) -> Path:
    """The file of a network whose first neurons do not leak, whose second ones do, a little."""
    model = mlp((6, 8, 4), steps=7, variant=LIF, beta=1.0)
    name = next(node for node in model.graph.node if node.name == "lif2").input[2]
    assert name != next(node for node in model.graph.node if node.name == "lif1").input[2]
    tensor = next(one for one in model.graph.initializer if one.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32(0.875).reshape(()), name))
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    return path


def _neurons(path: Path) -> list[str]:
    return [node.op_type.split("__")[0] for node in onnx.load(path).graph.node if node.domain == "ai.snn"]


def test_it_is_listed_and_explained(snnopt, installed: None) -> None:
    code, out, _ = snnopt("passes")
    assert code == 0
    assert f"{NAME} " in out
    assert "Write neurons that do not leak as integrators" in out
    code, out, _ = snnopt("passes", "leak_free_neurons")
    assert code == 0
    for text in (f"{NAME}  (lossy)", "from the distribution snn-leak-free", "one multiplication per neuron", "0.0"):
        assert text in out
    assert "Leaks up to this are taken for none; above 0 the pass changes results" in " ".join(out.split())
    assert "Attributes" not in out
    code, out, _ = snnopt("passes", "--json")
    ours = {one["name"]: one["distribution"] for one in json.loads(out)["passes"]}
    assert (ours[NAME], ours["prune"]) == ("snn-leak-free", "snn-optimizer")


def test_it_runs_in_a_pipeline(snnopt, installed: None, leak_free: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    code, printed, _ = snnopt(
        "optimize", leak_free, "-o", out, "-p", f"{NAME},fixpoint({NAME}),@hygiene", "--verify-each", "--json"
    )
    report = json.loads(printed)
    assert code == 0
    assert report["evidence"]["verdict"] == "EQUIVALENT"
    assert _neurons(out) == ["IF", "LIF"]
    x = spike_trains(7, 32, 6)
    before, after = (Session(path).run({"x": x})["spikes"] for path in (leak_free, out))
    assert before.any()
    np.testing.assert_array_equal(before, after)


def test_what_it_leaves_alone_is_said(snnopt, installed: None, leak_free: Path) -> None:
    code, _, err = snnopt("optimize", leak_free, "--dry-run", "-p", NAME, "--remarks", NAME)
    assert code == 0
    assert "beta is up to 0.125 away from 1" in err


def test_its_promise_and_its_options_are_held(snnopt, installed: None, leak_free: Path, tmp_path: Path) -> None:
    lossy = f"{NAME}{{tolerance=0.2}}"
    code, _, err = snnopt("optimize", leak_free, "--dry-run", "-p", lossy)
    assert (code, err.count("\n")) == (2, 1)
    assert "give a budget" in err
    data = tmp_path / "data.npz"
    np.savez(data, x=spike_trains(7, 64, 6))
    budget = ["--calib", data, "--max-spike-change"]
    out = tmp_path / "out.onnx"
    assert snnopt("optimize", leak_free, "-o", out, "-p", lossy, *budget, "1.0")[0] == 0
    assert _neurons(out) == ["IF", "IF"]
    assert snnopt("optimize", leak_free, "-o", out, "-p", lossy, *budget, "0.0")[0] == 0
    assert _neurons(out) == ["LIF", "LIF"]  # rolled back
    for text, message in (("tolerence=0", "did you mean 'tolerance'"), ("tolerance=2", "below 1")):
        code, _, err = snnopt("optimize", leak_free, "--dry-run", "-p", f"{NAME}{{{text}}}")
        assert code == 2
        assert message in err


def test_without_its_distribution_it_is_unknown(snnopt, leak_free: Path) -> None:
    code, _, err = snnopt("optimize", leak_free, "--dry-run", "-p", NAME)
    assert code == 2
    assert f"unknown pass '{NAME}'" in err


def test_one_that_cannot_be_imported_hides_no_other(snnopt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "unwell-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unwell\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[snn_optimizer.passes]\nunwell = no_such_module:Unwell\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._table.cache_clear()
    try:
        code, out, err = snnopt("passes")
        assert code == 0
        assert "layer-fusion" in out
        assert err.startswith("snnopt: warning: pass 'unwell' of the distribution 'unwell' (no_such_module:Unwell)")
        code, out, err = snnopt("passes", "-q")
        assert (code, err) == (0, "")
        code, _, err = snnopt("passes", "unwell")
        assert code == 2
        assert "cannot be imported" in err
    finally:
        registry._table.cache_clear()
