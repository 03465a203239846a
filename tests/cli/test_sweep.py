"""``snnopt sweep``: tables, files, exit codes, and one line for each mistake."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from snn_optimizer.cli.main import run
from snn_optimizer.sweep import conduct, latency


@pytest.fixture
def sweep(capsys, models: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 0.0)

    def call(*arguments: object, calib: Path = models / "digits_mlp.calib.npz") -> tuple[int, str, str]:
        first = ["sweep", models / "digits_mlp.onnx", "--calib", calib, "-o", tmp_path / "out"]
        code = run([str(a) for a in (*first, *arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


CHEAP = ("-p", "prune{sparsity=0.3}", "--budgets", "0.1,0.5")


def test_two_budgets(sweep, models: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra 'plots')")
    test = ("--test", models / "digits_mlp.test.npz")
    code, stdout, _ = sweep(*CHEAP, *test, "--jobs", "2")
    assert code == 0
    lines = stdout.splitlines()
    for word in ("parameters", "non-zero", "bytes", "nodes", "dense", "ACs", "latency", "decisions changed", "verdict"):
        assert word in stdout
    assert sum(line.startswith("prune{sparsity=0.3}") and "within budget" in line for line in lines) == 2
    assert lines[-1].startswith("3 runs, 0 taken from before; wrote sweep.json, sweep.csv, pareto.svg")
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == ["models", "pareto.svg", "runs", "sweep.csv", "sweep.json"]
    ET.parse(out / "pareto.svg")  # noqa: S314 - our own file
    code, stdout, _ = sweep(*CHEAP, *test, "--json", "--plot", "png", "--keep-models")
    data = json.loads(stdout)
    assert (code, data["executed"], data["reused"]) == (0, 2, 1)  # the models are wanted now
    assert [row["budget"] for row in data["rows"]] == [None, 0.1, 0.5]
    assert all((out / row["model"]).is_file() for row in data["rows"][1:])
    assert any(row["front_operations"] for row in data["rows"][1:])
    assert (out / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_seeds_and_kinds(sweep) -> None:
    code, stdout, _ = sweep(*CHEAP, "--seeds", "0,3", "--budget-kind", "decision-change", "--jobs", "1", "--json",
                            "--plot", "none", "--input-range", "0:2")  # fmt: skip
    data = json.loads(stdout)
    assert code == 0
    assert (data["budget_kind"], data["test"], data["merit"]) == ("decision-change", None, "accuracy_calibration")
    assert [(row["budget"], row["seed"]) for row in data["rows"][1:]] == [(0.1, 0), (0.1, 3), (0.5, 0), (0.5, 3)]


def test_a_budget_nothing_fits_into(sweep) -> None:
    code, stdout, _ = sweep("-p", "prune{sparsity=0.9}", "--budgets", "0", "--jobs", "1", "--plot", "none")
    assert code == 0
    assert "prune{sparsity=0.9} 0: prune rolled back: " in stdout


def test_without_labels(sweep, models: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(models / "digits_mlp.calib.npz"))
    del arrays["labels"]
    np.savez(tmp_path / "bare.npz", **arrays)
    code, _, err = sweep(*CHEAP, calib=tmp_path / "bare.npz")
    assert (code, err.count("\n")) == (2, 1)
    assert "--budget-kind decision-change" in err
    code, stdout, _ = sweep(*CHEAP, "--budget-kind", "spike-change", "--jobs", "1", "--json", "--plot", "none",
                            calib=tmp_path / "bare.npz")  # fmt: skip
    data = json.loads(stdout)
    assert (code, data["merit"]) == (0, "decision_agreement")
    assert data["rows"][0]["merit"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--budgets", "0,x"), "--budgets '0,x' is no list of numbers"),
        (("--budgets", "2"), "2 is no fraction between 0 and 1"),
        (("--budgets", ","), "--budgets is empty"),
        (("--seeds", "1.5"), "--seeds '1.5' is no list of numbers"),
        (("-p", "nonsense"), "unknown pass 'nonsense'"),
        (("--jobs", "2", "--scheduler", "tcp://127.0.0.1:9"), "give --jobs or --scheduler, not both"),
        (("--test", "absent.npz"), "absent.npz': no such file"),
    ],
)
def test_mistakes(sweep, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    code, stdout, err = sweep(*arguments)
    assert (code, stdout, err.count("\n")) == (2, "", 1)
    assert said in err
    assert not (tmp_path / "out").exists()


def test_an_interruption_says_what_is_kept(sweep, monkeypatch) -> None:
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(conduct, "carried_out", interrupted)
    code, _, err = sweep(*CHEAP)
    assert code == 130
    assert "the same command goes on from there" in err
