"""`--input-max-active`: what it proves, that it is reported, checked against data, and obeyed by the comparison."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def optimized(snnopt, models: Path, folder: Path, *options: str) -> dict:
    code, stdout, stderr = snnopt(
        "optimize", models / "digits_wide.onnx", "-o", folder / "out.onnx", "-p", "dead-neuron-elimination",
        "--report", folder / "report.json", *options,
    )  # fmt: skip
    assert code == 0, stderr
    return json.loads((folder / "report.json").read_text()) | {"stdout": stdout}


def test_a_declaration_proves_more_and_stands_in_the_report(snnopt, models: Path, tmp_path: Path) -> None:
    free = optimized(snnopt, models, tmp_path)
    limited = optimized(snnopt, models, tmp_path, "--input-max-active", "1")
    assert limited["after"]["neurons"] < free["after"]["neurons"] - 100
    assert limited["evidence"]["verdict"] == "EQUIVALENT"
    assert limited["evidence"]["spikes_seen"] > 0
    assert any("at most 1 entries" in premise for premise in limited["assumptions"])
    assert not any("entries" in premise for premise in free["assumptions"])
    assert "premise" in limited["stdout"]

    # the two differ, though not on what was declared
    verify = ("verify", models / "digits_wide.onnx", tmp_path / "out.onnx")
    assert snnopt(*verify)[0] == 1
    assert snnopt(*verify, "--input-max-active", "x=1")[0] == 0


def test_data_with_more_active_entries_is_refused(snnopt, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    for option in ("--calib", "--test"):
        code, _, stderr = snnopt(
            "optimize", models / "digits_wide.onnx", "-o", out, option, models / "digits_wide.test.npz",
            "--input-max-active", "2",
        )  # fmt: skip
        assert code == 2
        assert "input-max-active: input 'x'" in stderr
        assert "Traceback" not in stderr
        assert not out.exists()


def test_data_that_obey_are_used(snnopt, models: Path, tmp_path: Path) -> None:
    trains = np.zeros((16, 10, 64), np.float32)
    trains[:, np.arange(10), np.arange(10) * 6] = 1
    np.savez(tmp_path / "few.npz", x=trains)
    code, _, stderr = snnopt(
        "optimize", models / "digits_wide.onnx", "-o", tmp_path / "out.onnx", "-O3", "--calib", tmp_path / "few.npz",
        "--input-max-active", "x=1",
    )  # fmt: skip
    assert code == 0, stderr
