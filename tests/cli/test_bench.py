"""``snnopt bench``: what it prints, what it refuses, and that calibration leads to a choice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from snn_optimizer.execution.benchmark import Trains, benchmark
from snn_optimizer.projection_costs import ProjectionCosts
from tests.support.models import mlp, spike_trains


@pytest.fixture
def written(tmp_path: Path):
    def write(name: str, model: onnx.ModelProto) -> Path:
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, path)
        return path

    return write


def refused(result: tuple[int, str, str], *words: str) -> None:
    code, out, err = result
    assert (code, out, err.count("\n")) == (2, "", 1)
    for word in words:
        assert word in err


def test_two_models_side_by_side(snnopt, written) -> None:
    small, large = written("small", mlp((8, 16, 4), steps=6)), written("large", mlp((8, 4000, 4), steps=6))
    code, out, _ = snnopt("bench", small, large, "--batch", 1, "--batch", 3, "--rounds", 8, "--json")
    assert code == 0
    found = json.loads(out)
    assert set(found) == {"machine", "onnxruntime", "threads", "inputs", "load", "runs"}
    assert (found["threads"], found["load"]["rounds"]) == (1, 6)
    assert "0.1 of all elements are spikes, seed 0" in found["inputs"]
    assert [(one["batch"], one["rounds"]) for one in found["runs"]] == [(1, 8), (3, 8)]
    for turns in (found["load"], *found["runs"]):
        first, second = turns["models"]
        assert (first["model"], second["model"]) == (str(small), str(large))
        assert (first["ratio"], first["largest_difference"]) == (None, None)
        for one in (first, second):
            seconds = one["seconds"]
            assert 0 < seconds["lower"] <= seconds["median"] <= seconds["upper"]
        ratio = second["ratio"]
        assert ratio["low"] <= ratio["median"] <= ratio["high"]
        assert ratio["confidence"] >= 0.95
    for one in found["runs"]:
        assert one["models"][1]["ratio"]["median"] > 1  # two hundred times the neurons
        assert one["models"][1]["largest_difference"] == 1  # they are different networks


def test_a_table_for_people(snnopt, written, tmp_path: Path) -> None:
    model = written("model", mlp((8, 16, 4), steps=6))
    code, out, _ = snnopt("bench", model, model, "--seconds", 0.05)
    assert code == 0
    for word in ("load (6 rounds)", "run, batch 1", "ratio", "interval", "quartiles", "1 thread"):
        assert word in out
    np.savez(tmp_path / "data.npz", x=spike_trains(6, 3, 8))
    code, out, _ = snnopt("bench", model, "--data", tmp_path / "data.npz", "--batch", 5, "--rounds", 2)
    assert code == 0
    assert "3 samples of" in out
    assert "run, batch 5 (2 rounds)" in out


def test_a_model_is_as_fast_as_itself(written) -> None:
    model = written("model", mlp((8, 64, 4), steps=6))
    found = benchmark([model, model], rounds=40, trains=Trains(rate=0.3))
    ratio = found.runs[1].models[1].ratio
    assert ratio is not None
    assert ratio.low < 1.5  # wide bounds: the machine may be busy
    assert ratio.high > 1 / 1.5
    assert found.runs[1].models[1].largest_difference == 0


def test_the_batch_of_the_file_is_the_default(snnopt, written) -> None:
    fixed, opened = written("fixed", mlp(steps=6, batch=4)), written("open", mlp(steps=6))
    code, out, _ = snnopt("bench", opened, fixed, "--rounds", 2, "--json")
    assert code == 0
    assert [one["batch"] for one in json.loads(out)["runs"]] == [4]
    refused(snnopt("bench", opened, fixed, "--batch", 8), "fixed.onnx", "batches of 4 only", "--batch 4")


def test_open_steps_are_chosen(snnopt, written) -> None:
    model = written("model", mlp((8, 128, 4)))
    times = []
    for steps in (1, 200):
        code, out, _ = snnopt("bench", model, "--steps", steps, "--rounds", 3, "--json")
        assert code == 0
        times.append(json.loads(out)["runs"][0]["models"][0]["seconds"]["median"])
    assert times[1] > 2 * times[0]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (mlp((9, 16, 4), steps=6), ("input 'x'", "9", "instead of")),
        (mlp((8, 16, 4), steps=7), ("input 'x'", "7", "instead of")),
        (mlp((8, 16, 5), steps=6), ("output 'spikes'", "5")),
    ],
)
def test_other_interfaces_are_refused(snnopt, written, other: onnx.ModelProto, words: tuple[str, ...]) -> None:
    model = written("model", mlp((8, 16, 4), steps=6))
    refused(snnopt("bench", model, written("other", other)), "'", "cannot be compared with", *words)


def test_other_names_are_refused(snnopt, written) -> None:
    model = mlp((8, 16, 4), steps=6)
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    renamed.graph.input[0].name = "images"
    for node in renamed.graph.node:
        node.input[:] = ["images" if name == "x" else name for name in node.input]
    refused(snnopt("bench", written("a", model), written("b", renamed)), "only", "has input 'x'")


def test_mistakes_are_one_line(snnopt, written, tmp_path: Path) -> None:
    model = written("model", mlp(steps=6))
    refused(snnopt("bench"), "--calibrate")
    refused(snnopt("bench", tmp_path / "none.onnx"), "no such file")
    refused(snnopt("bench", model, "--rounds", 3, "--seconds", 1), "--rounds or --seconds")
    refused(snnopt("bench", model, "--sizes", "8,16"), "--sizes", "without --calibrate")
    refused(snnopt("bench", model, "--output", tmp_path / "c.json"), "--output", "without --calibrate")
    refused(snnopt("bench", model, "--data", tmp_path / "x.npz", "--rate", 0.2), "--rate")
    refused(snnopt("bench", model, "--data", tmp_path / "x.npz"), "no such file")
    refused(snnopt("bench", model, "--calibrate"), "takes no model")
    refused(snnopt("bench", "--calibrate", "--batch", 3), "--batch", "with --calibrate")
    refused(snnopt("bench", "--calibrate", "--sizes", "a,b"), "--sizes 'a,b'")
    refused(snnopt("bench", "--calibrate", "--sizes", "64"), "two or more")
    refused(snnopt("bench", "--calibrate", "-o", tmp_path / "none" / "c.json"), "there is no folder")


def test_calibration_goes_where_event_driven_looks(snnopt, written, tmp_path: Path, monkeypatch) -> None:
    place = tmp_path / "cache" / "costs.json"
    monkeypatch.setenv("SNNOPT_COSTS", str(place))
    code, out, _ = snnopt("bench", "--calibrate", "--sizes", "8,64", "--rounds", 3)
    assert code == 0
    assert f"wrote {place}" in out
    assert "64 x 64" in out
    costs = ProjectionCosts.load(place)
    assert (costs.inputs, costs.threads) == ((8, 64), 1)
    model = written("model", mlp((8, 16, 32), steps=6))
    np.savez(tmp_path / "calib.npz", x=spike_trains(6, 20, 8))
    code, out, err = snnopt(
        "optimize", model, "-o", tmp_path / "out.onnx", "-p", "event-driven", "--calib", tmp_path / "calib.npz",
        "--remarks", "event-driven",
    )  # fmt: skip
    assert code == 0
    assert "event-driven/dense-faster: fc2: 16 x 32, 6 vectors" in err
    code, out, _ = snnopt(
        "bench", "--calibrate", "--sizes", "8,64", "--rounds", 1, "-o", tmp_path / "c.json", "--threads", 2, "--json"
    )
    assert code == 0
    assert json.loads(out)["output"] == str(tmp_path / "c.json")
    assert ProjectionCosts.load(tmp_path / "c.json").threads == 2
