"""The command line in process: results, exit codes, errors in one line, nothing half written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from snn_optimizer.execution import Profile, Session


def test_optimize_writes_a_smaller_model_and_explains_itself(snnopt, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    report = tmp_path / "report.json"
    code, stdout, _ = snnopt(
        "optimize",
        models / "digits_wide.onnx",
        "-o",
        out,
        "--test",
        models / "digits_wide.test.npz",
        "--report",
        report,
    )
    assert code == 0
    assert out.stat().st_size < (models / "digits_wide.onnx").stat().st_size * 0.6
    for word in (
        "neurons",
        "parameters",
        "bytes",
        "dead-neuron-elimination",
        "EQUIVALENT",
        "spikes compared",
        "accuracy",
    ):
        assert word in stdout
    data = json.loads(report.read_text())
    assert data["after"]["neurons"] < data["before"]["neurons"]
    assert data["outputs_changed"] == 0
    Session(out, optimize=True)


def test_levels_are_pipelines(snnopt, models: Path, tmp_path: Path) -> None:
    model = models / "digits_mlp.onnx"
    for level in ("-O0", "-O1", "-O2"):
        code, stdout, _ = snnopt("optimize", model, "-o", tmp_path / "out.onnx", level, "--json")
        assert code == 0
        assert json.loads(stdout)["pipeline"] == f"@{level[1:]}"
    code, _, err = snnopt("optimize", model, "-o", tmp_path / "o.onnx", "-O3")
    assert (code, err.count("\n")) == (2, 1)
    assert "--calib" in err
    code, _, err = snnopt("optimize", model, "-o", tmp_path / "o.onnx", "-Oz")
    assert (code, err.count("\n")) == (2, 1)
    assert "--max-accuracy-drop" in err
    assert not (tmp_path / "o.onnx").exists()


def test_oz_stays_within_its_budget(snnopt, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.onnx"
    code, stdout, _ = snnopt(
        "optimize", models / "digits_pruned.onnx", "-o", out, "-Oz", "--calib", models / "digits_pruned.calib.npz",
        "--max-accuracy-drop", "0.02", "--json",
    )  # fmt: skip
    assert code == 0
    data = json.loads(stdout)
    assert data["after"]["params"] < data["before"]["params"]
    assert data["accuracy_before"] - data["accuracy_after"] <= 0.02


@pytest.mark.parametrize("form", ["sequence", "scan", "step"])
def test_weights_in_four_bits(snnopt, models: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / "small.onnx"
    code, stdout, err = snnopt(
        "optimize", models / "digits_mlp.onnx", "-o", out, "-p", "@O1,quantize-weights{bits=4}",
        "--calib", models / "digits_mlp.calib.npz", "--max-accuracy-drop", "0.02", "--remarks", "quantize-weights.*",
        "--emit", form,
    )  # fmt: skip
    assert code == 0
    assert out.stat().st_size < 0.3 * (models / "digits_mlp.onnx").stat().st_size
    assert "9,472 weights quantized" in stdout
    assert "four-bits: fc1" in stdout + err
    Session(out, optimize=True)
    code, stdout, _ = snnopt("info", out)
    assert code == 0
    assert "fc1 Gemm 128x64" in stdout
    assert "fc2 Gemm 10x128" in stdout


def test_in_place_output_and_repeatability(snnopt, models: Path, tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    model.write_bytes((models / "digits_pruned.onnx").read_bytes())
    assert snnopt("optimize", model, "-o", model)[0] == 0
    first = model.read_bytes()
    assert snnopt("optimize", model, "-o", model)[0] == 0
    assert model.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_instruments(snnopt, models: Path, tmp_path: Path) -> None:
    remarks = tmp_path / "remarks.jsonl"
    code, stdout, err = snnopt(
        "optimize", models / "digits_pruned.onnx", "-o", tmp_path / "o.onnx", "--time-passes", "--pass-statistics",
        "--print-after-change", "--remarks", "dead-neuron", "--remarks-output", remarks,
    )  # fmt: skip
    assert code == 0
    assert "seconds" in stdout
    assert "network" in err
    assert "applied: dead-neuron-elimination/silent-units" in err
    assert all(json.loads(line)["pass_name"] for line in remarks.read_text().splitlines())
    code, stdout, _ = snnopt("optimize", models / "digits_pruned.onnx", "--dry-run", "--bisect-limit", "0", "--json")
    assert code == 0
    data = json.loads(stdout)
    assert data["before"]["params"] == data["after"]["params"]


def test_info_shows_the_network(snnopt, models: Path) -> None:
    code, stdout, _ = snnopt("info", models / "digits_cuba.onnx")
    assert code == 0
    for word in ("CubaLIF 128 neurons", "LI 10 neurons", "fc1 MatMul 64x128 + bias", "i' =", "parameters"):
        assert word in stdout
    code, stdout, _ = snnopt("info", models / "digits_cuba.onnx", "--json")
    assert json.loads(stdout)["neurons"] == 138


def test_verify_has_three_verdicts(snnopt, models: Path, tmp_path: Path) -> None:
    model = models / "digits_mlp.onnx"
    assert snnopt("verify", model, model)[0] == 0
    broken = onnx.load(model)
    for tensor in broken.graph.initializer:
        if tensor.name == "fc2.weight":
            array = np.array(onnx.numpy_helper.to_array(tensor))
            array[3, :] += 0.05
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(broken, tmp_path / "broken.onnx")
    counterexample = tmp_path / "ce.npz"
    code, stdout, _ = snnopt("verify", model, tmp_path / "broken.onnx", "--counterexample", counterexample)
    assert code == 1
    assert stdout.startswith("DIFFERENT")
    assert counterexample.exists()
    silent = onnx.load(model)
    for tensor in silent.graph.initializer:
        if tensor.name.endswith("weight") or tensor.name.endswith("bias"):
            array = np.zeros(onnx.numpy_helper.to_array(tensor).shape, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(silent, tmp_path / "silent.onnx")
    code, stdout, _ = snnopt("verify", tmp_path / "silent.onnx", tmp_path / "silent.onnx")
    assert code == 4
    assert stdout.startswith("INCONCLUSIVE")


def test_profile_records_every_neuron_and_drives_o3(snnopt, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.npz"
    model = models / "digits_wide.onnx"
    code, stdout, _ = snnopt("profile", model, "--data", models / "digits_wide.calib.npz", "-o", out)
    assert code == 0
    assert "lif2" in stdout
    profile = Profile.load(out)
    assert profile.samples == 450
    assert profile.populations["lif1"].rate.shape == (1000,)
    assert (profile.populations["lif1"].rate == 0).sum() == 406
    code, stdout, _ = snnopt("optimize", model, "-o", tmp_path / "o.onnx", "-O3", "--profile", out, "--json")
    assert code == 0
    assert json.loads(stdout)["after"]["neurons"] < 1100
    code, _, err = snnopt("optimize", models / "digits_mlp.onnx", "-o", tmp_path / "o2.onnx", "-O3", "--profile", out)
    assert (code, err.count("\n")) == (2, 1)


def test_passes_are_listed_and_explained(snnopt) -> None:
    code, stdout, _ = snnopt("passes")
    assert code == 0
    assert "dead-neuron-elimination" in stdout
    assert "@O2" in stdout
    code, stdout, _ = snnopt("passes", "merge")
    assert code == 0
    assert "redundancy-elimination" in stdout
    assert "correlation" in stdout
    code, stdout, _ = snnopt("passes", "--explain", "@hygiene,prune{sparsity=0.5}")
    assert stdout.strip().startswith("canonicalize,")
    assert stdout.strip().endswith("prune{sparsity=0.5}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["optimize", "absent.onnx", "-o", "o.onnx"], ["absent.onnx"]),
        (["optimize", "{mlp}"], ["-o"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "-p", "layer-fusion,,prune"], ["expected a pass name"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "-p", "layer-fusoin"], ["layer-fusion"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "-p", "layer-fusion{fast}"], ["fast"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "-p", "fixpoint{max=0}(dead-neuron-elimination)"], ["max"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "-p", "prune{sparsity=0.5}"], ["budget"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "-p", "prune{sparsity=2}", "--max-spike-change", "0.1"], ["sparsity"]),
        (
            ["optimize", "{mlp}", "-o", "o.onnx", "-p", "quantize-weights{bits=3}", "--max-spike-change", "0.1"],
            ["8 or 4"],
        ),
        (["optimize", "{mlp}", "-o", "o.onnx", "-p", "quantize-weights{arithmetic=int}"], ["auto | integer | float"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "-O1", "-p", "layer-fusion"], ["not both"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "-O7"], ["7"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "--frobnicate"], ["frobnicate"]),
        (["optimize", "{mlp}", "-o", "absent/o.onnx"], ["absent"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "--report", "r.pdf"], [".json"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "--input-range", "1"], ["LOW:HIGH"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "--input-max-active", "few"], ["[NAME=]K"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "--input-max-active", "0"], ["[NAME=]K"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "--input-max-active", "nothing=1"], ["no input 'nothing'"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "--input-max-active", "1", "--input-range", "1:2"], ["no zero"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "--input-range", "2:1"], ["low end"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "--max-accuracy-drop", "7"], ["fraction"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "-O3", "--calib", "absent.npz"], ["absent.npz"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "-O3", "--calib", "{conv_calib}"], ["x"]),
        (["optimize", "{mlp}", "-o", "o.onnx", "-O3", "--calib", "{mlp}"], ["digits_mlp.onnx"]),
        (["optimize", "{readme}", "-o", "o.onnx"], ["README.md"]),
        (["optimize", "{folder}", "-o", "o.onnx"], ["models"]),
        (["profile", "{mlp}", "--data", "{mlp_calib}", "-o", "absent/p.npz"], ["absent"]),
        (["verify", "{mlp}", "absent.onnx"], ["absent.onnx"]),
        (["info", "absent.onnx"], ["absent.onnx"]),
        (["passes", "frobnicate"], ["frobnicate"]),
        (["frobnicate"], ["frobnicate"]),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(
    snnopt, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    places: dict[str, object] = {
        "mlp": models / "digits_mlp.onnx",
        "mlp_calib": models / "digits_mlp.calib.npz",
        "conv_calib": models / "digits_conv.calib.npz",
        "readme": models.parent / "README.md",
        "folder": models,
    }
    for name, place in places.items():
        arguments = [a.replace("{" + name + "}", str(place)) for a in arguments]
    code, stdout, err = snnopt(*arguments)
    assert code == 2
    assert stdout == ""
    lines = err.strip().splitlines()
    assert len(lines) == (3 if "expected a pass name" in words else 1)  # pipeline text is shown underlined
    assert all(word in err for word in words)
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from snn_optimizer.cli.main import run; run(['--help']); run(['optimize', '--help']);"
        "print([m for m in ('onnx', 'onnxruntime', 'onnx_graphsurgeon', 'scipy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("[]")


def test_the_program_runs_as_a_process(models: Path) -> None:
    command = [sys.executable, "-m", "snn_optimizer", "info", str(models / "digits_mlp.onnx")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert "lif1" in result.stdout


def test_the_same_bytes_under_any_hash_seed(models: Path, tmp_path: Path) -> None:
    written = []
    for seed in ("0", "1", "2"):
        out = tmp_path / f"{seed}.onnx"
        command = [
            sys.executable,
            "-m",
            "snn_optimizer",
            "optimize",
            str(models / "digits_pruned.onnx"),
            "-o",
            str(out),
        ]
        subprocess.run(
            [*command, "--no-verify", "-q"], check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed}
        )
        written.append(out.read_bytes())
    assert written[0] == written[1] == written[2]


def test_rates_of_an_export_are_measured_in_the_network_found_in_it(snnopt, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    code, shown, err = snnopt(
        "optimize", models / "exports" / "digits_unrolled.onnx", "-O3", "--calib", models / "digits_mlp.calib.npz",
        "-o", out, "-q",
    )  # fmt: skip
    assert code == 0, err
    assert "6 neurons removed" in shown


def test_a_profile_of_an_export_is_of_the_network_found_in_it(snnopt, models: Path, tmp_path: Path) -> None:
    export, calib, rates = (
        models / "exports" / "digits_unrolled.onnx",
        models / "digits_mlp.calib.npz",
        tmp_path / "p.npz",
    )
    code, shown, err = snnopt("profile", export, "--data", calib, "-o", rates)
    assert code == 0, err
    assert "128" in shown
    code, shown, err = snnopt("optimize", export, "-O3", "--profile", rates, "-o", tmp_path / "small.onnx", "-q")
    assert code == 0, err
    assert "6 neurons removed" in shown
