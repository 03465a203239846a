"""`snnopt verify`: what is printed, written and returned."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support import models as networks

SHALLOW = {"sizes": (12, 10, 4)}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A network, and the same with one threshold moved."""
    model = networks.mlp(**SHALLOW)
    threshold = np.ones(10, np.float32)
    threshold[3] = 1.5
    onnx.save(model, tmp_path / "net.onnx")
    onnx.save(networks.with_initializer(model, "lif1.v_threshold", threshold), tmp_path / "wrong.onnx")
    return tmp_path / "net.onnx", tmp_path / "wrong.onnx"


def test_equivalent_with_what_was_tried(snnopt, pair) -> None:
    before, _ = pair
    code, stdout, stderr = snnopt("verify", before, before)
    assert (code, stderr) == (0, "")
    lines = stdout.splitlines()
    assert lines[0] == "EQUIVALENT"
    assert lines[1].endswith("0 near ties")
    assert lines[2].startswith("tried: zeros 64, ones 64, random 192")
    for text in (
        "onnxruntime, optimizer off",
        "onnxruntime, optimizer on",
        "onnx reference (NumPy)",
        "near threshold",
        "layer lif1",
        "decisions on stimuli, by count of 'spikes'",
        "decisions on stimuli, by first-spike of 'spikes'",
    ):
        assert text in stdout
    assert not list(before.parent.glob("*.npz"))


def test_different_writes_a_small_input_that_replays(snnopt, pair) -> None:
    before, after = pair
    code, stdout, stderr = snnopt("verify", before, after)
    assert code == 1
    assert stdout.startswith("DIFFERENT: ")
    written = after.with_name("wrong.counterexample.npz")
    assert stderr == f"wrote a counterexample to {written}\n"
    inside = next(line for line in stdout.splitlines() if line.startswith("first inside: step "))
    assert "layer 'lif1', neuron 3: spikes 1 became 0 (potential " in inside
    assert inside.endswith("threshold 1 became 1.5)")
    assert "counterexample: 1 sample, " in stdout
    replay = shlex.split(next(line for line in stdout.splitlines() if line.startswith("replay: ")))[2:]
    code, again, _ = snnopt(*replay, "--counterexample", after.with_name("again.npz"))
    assert code == 1
    assert again.startswith("DIFFERENT: data: ")
    assert "tried: data 1\n" in again
    with np.load(written) as small, np.load(after.with_name("again.npz")) as repeated:
        assert small["x"].shape[1] == 1
        np.testing.assert_array_equal(small["x"], repeated["x"])  # it cannot be made smaller


def test_json_has_all_of_it(snnopt, pair, tmp_path: Path) -> None:
    before, after = pair
    path = tmp_path / "elsewhere.npz"
    code, stdout, _ = snnopt("verify", before, after, "--json", "--counterexample", path, "--time-scale", "2")
    found = json.loads(stdout)
    assert code == 1
    assert found["verdict"] == "DIFFERENT"
    assert found["counterexample_file"] == str(path)
    assert found["counterexample"]["samples"] == 1
    assert found["first_divergence"]["population"] == "lif1"
    assert found["first_divergence"]["neuron"] == [3]
    assert [each["referee"] for each in found["referees"]] == [
        "onnxruntime",
        "onnxruntime, optimizer on",
        "onnx reference (NumPy)",
    ]
    assert all(each["verdict"] == "DIFFERENT" for each in found["referees"])
    layers = {each["population"]: each for each in found["coverage"]}
    assert sorted(layers["lif1"]["fired"] + layers["lif1"]["never_fired"]) == list(range(10))
    stimuli = found["behaviour"]["stimuli"]
    assert found["behaviour"]["data"] is None
    assert stimuli["time_scale"] == 2
    assert 0 < stimuli["populations"]["lif1"]["exact_match"] < 1
    assert stimuli["populations"]["lif1"]["victor_purpura_mean"] > 0
    assert {each["rule"] for each in stimuli["decisions"]} == {"count", "first-spike"}
    assert sum(each["samples"] for each in found["tried"]) == found["samples"]


def test_a_readout_is_compared_by_its_membrane(snnopt, models, tmp_path: Path) -> None:
    model, data = models / "digits_cuba.onnx", models / "digits_cuba.test.npz"
    code, stdout, _ = snnopt("verify", model, model, "--data", data, "--no-stimuli", "--quick")
    assert code == 0
    assert "by membrane-" in stdout
    assert "450 of 450 the same (100.00%)" in stdout


def test_quick_asks_no_other_referee(snnopt, pair) -> None:
    before, _ = pair
    code, stdout, _ = snnopt("verify", before, before, "--quick", "--json")
    found = json.loads(stdout)
    assert code == 0
    assert [each["referee"] for each in found["referees"]] == ["onnxruntime"]
    assert not any(each["name"].startswith("sums") for each in found["tried"])


def test_a_folder_that_takes_no_file_costs_no_verdict(snnopt, pair, monkeypatch) -> None:
    before, after = pair
    after.with_suffix(".counterexample.npz").mkdir()
    code, stdout, stderr = snnopt("verify", before, after, "--quick")
    assert code == 1
    assert stdout.startswith("DIFFERENT")
    assert stderr.startswith("no counterexample was written, --counterexample names another place: ")
    assert "replay:" not in stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--no-stimuli"], "--no-stimuli leaves nothing to compare on: give --data as well"),
        (["--exactness", "profiled"], "--exactness profiled is a claim about data: give --data"),
        (["--time-scale", "0"], "--time-scale"),
        (["--data", "absent.npz"], "absent.npz"),
    ],
)
def test_bad_input_is_one_line(snnopt, pair, arguments, said) -> None:
    code, stdout, stderr = snnopt("verify", *pair, *arguments)
    assert (code, stdout) == (2, "")
    assert said in stderr
    assert stderr.count("\n") == 1


def test_a_model_that_does_not_load_is_a_verdict(snnopt, pair, tmp_path: Path) -> None:
    before, _ = pair
    unknown = onnx.load(before)
    node = unknown.graph.node[0]
    node.domain, node.op_type = "nobody", "Knows"
    unknown.opset_import.append(onnx.helper.make_opsetid("nobody", 1))
    onnx.save(unknown, tmp_path / "unknown.onnx")
    code, stdout, _ = snnopt("verify", tmp_path / "unknown.onnx", before)
    assert code == 4
    assert stdout.startswith("INCONCLUSIVE: the original does not load: ")
    code, stdout, _ = snnopt("verify", before, tmp_path / "unknown.onnx")
    assert code == 1
    assert stdout.startswith("DIFFERENT: the rewritten model does not load: ")
