"""``snnopt diff``: what it prints, its exit codes, and errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_a_pruned_network(snnopt, models: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    assert snnopt("optimize", models / "digits_pruned.onnx", "-o", small, "-q")[0] == 0
    code, out, _ = snnopt("diff", models / "digits_pruned.onnx", small)
    assert code == 1
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "neurons 266 206 -22.6%" in lines
    assert "parameters 19,210 11,574 -39.8%" in lines
    assert any(line.startswith("~ lif1 neurons 256 -> 196") for line in lines)
    assert lines[-1].startswith("the networks differ: layers 2 changed")


def test_the_same_network(snnopt, models: Path) -> None:
    code, out, _ = snnopt("diff", models / "digits_mlp.onnx", models / "digits_mlp.onnx")
    assert (code, out.splitlines()[-1]) == (0, "the same network, the same model file")


def test_stripped_metadata_is_the_same_network(snnopt, models: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.onnx"
    command = ("optimize", models / "digits_mlp.onnx", "-o", bare, "-O0", "--strip-metadata", "-q")
    assert snnopt(*command)[0] == 0
    code, out, _ = snnopt("diff", models / "digits_mlp.onnx", bare, "--json")
    found = json.loads(out)
    assert (code, found["same_network"]) == (0, True)


def test_json_has_all_of_it(snnopt, models: Path) -> None:
    code, out, _ = snnopt(
        "diff", models / "digits_mlp.onnx", models / "digits_cuba.onnx", "--data", models / "digits_mlp.calib.npz",
        "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert code == 1
    assert found["layers"][0]["kind_before"]["operator"] == "LIF"
    assert found["layers"][0]["kind_after"]["operator"] == "CubaLIF"
    assert found["measures"]["state-bytes"] == {"before": 552, "after": 1064}
    assert found["measures"]["energy"]["before"] == pytest.approx(40825.652, abs=1e-2)


def test_an_export_and_its_network(snnopt, models: Path) -> None:
    code, out, _ = snnopt("diff", models / "exports/digits_unrolled.onnx", models / "digits_mlp.onnx")
    assert code == 1
    assert "renamed, was" in out
    assert "weights" not in [word for line in out.splitlines() if line.startswith("~") for word in line.split()]


@pytest.mark.parametrize("names", [("none.onnx", "digits_mlp.onnx"), ("digits_mlp.onnx", "digits_mlp.calib.npz")])
def test_wrong_files(snnopt, models: Path, names: tuple[str, str]) -> None:
    code, out, err = snnopt("diff", *(models / name for name in names))
    assert (code, out, err.count("\n")) == (2, "", 1)
