"""Exact answers from the command line: what it prints, writes and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from snn_optimizer.execution import Observer
from snn_optimizer.ops import NeuronVariant
from tests.support.models import ModelBuilder
from tests.support.tiny_networks import Layer, network

NEEDS_SCIPY = pytest.mark.skipif("not __import__('importlib').util.find_spec('scipy')", reason="scipy is an extra")


def saved(path: Path, threshold: float = 1.0, steps: int | str = 3) -> Path:
    """Two neurons that exclude each other, and three that need both, one, none of them."""
    first = Layer(np.array([[2, -3], [-3, 2]], np.float32), np.zeros(2, np.float32), beta=0.0)
    last = Layer(
        np.array([[0.6, 0.6], [1.2, 0], [0, 0]], np.float32), np.array([0, 0, 1.5], np.float32), beta=0.0,
        threshold=np.float32(threshold),
    )  # fmt: skip
    onnx.save(network([first, last], steps), path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved(tmp_path / "a.onnx")


@pytest.mark.parametrize("method", ["enumerate", pytest.param("milp", marks=NEEDS_SCIPY)])
def test_a_layer_is_summarised(snnopt, model: Path, method: str) -> None:
    code, out, _ = snnopt("query", model, "--layer", "pop1", "--method", method)
    assert code == 0
    assert out.splitlines()[:2] == [
        "pop1: 3 neurons, 2 can fire, 1 never fire, 0 not decided",
        "pop1[0] never fires: its potential is at most 0.6, the threshold 1",
    ]
    code, out, _ = snnopt("query", model, "--layer", "pop1", "--can-stay-silent", "--method", method)
    assert code == 0
    assert out.splitlines()[:2] == [
        "pop1: 3 neurons, 2 can stay silent, 1 fire at every step, 0 not decided",
        "pop1[2] fires at every step: its potential is at least 1.5, the threshold 1",
    ]


@pytest.mark.parametrize("method", ["enumerate", pytest.param("milp", marks=NEEDS_SCIPY)])
def test_the_witness_is_written_and_fires(snnopt, model: Path, tmp_path: Path, method: str) -> None:
    witness = tmp_path / "w.npz"
    code, out, err = snnopt("query", model, "--layer", "pop1", "--neuron", 1, "--method", method, "-o", witness)
    assert code == 0
    assert out.startswith("pop1[1] can fire: at step ")
    assert str(witness) in err
    assert Observer(model).trains(dict(np.load(witness)))["pop1"][:, 0, 1].any()
    assert not (tmp_path / "none.npz").exists()
    code, _, err = snnopt("query", model, "--layer", "pop1", "--neuron", 0, "-o", tmp_path / "none.npz", "-q")
    assert (code, err) == (0, "")
    assert not (tmp_path / "none.npz").exists()


@NEEDS_SCIPY
def test_json_has_every_answer(snnopt, model: Path) -> None:
    code, out, _ = snnopt("query", model, "--layer", "pop1", "--json", "--method", "milp")
    assert code == 0
    answers = json.loads(out)["answers"]
    assert [answer["outcome"] for answer in answers] == ["no", "yes", "yes"]
    assert answers[0]["bound"] == pytest.approx(0.6)
    code, out, _ = snnopt("query", model, "--layer", "pop1", "--neuron", 1, "--json", "--input-max-active", 1)
    assert json.loads(out)["inputs"] == "27 inputs (6 = 2 inputs x 3 steps, at most 1 active at a step)"


@NEEDS_SCIPY
def test_an_export_is_raised_before_it_is_asked(snnopt, models: Path) -> None:
    code, out, _ = snnopt("info", models / "exports" / "digits_unrolled.onnx", "--json")
    layer = json.loads(out)["layers"][0]["name"]
    code, out, _ = snnopt("query", models / "exports" / "digits_unrolled.onnx", "--layer", layer, "--neuron", 0)
    assert code == 0
    assert "mixed-integer linear program" in out


@NEEDS_SCIPY
def test_what_cannot_be_decided_has_its_own_code(snnopt, tmp_path: Path) -> None:
    net = ModelBuilder()
    net.input("x", (20, "batch", 2))
    bent = net.node("Sigmoid", ["x"], "bent", name="squash")
    out = net.neuron("pop", NeuronVariant("LIF"), bent, states=[net.constant("v0", 0.0)], beta=0.5, gain=1.0,
                     v_threshold=1.0, v_reset=0.0)[0]  # fmt: skip
    net.output(out, (20, "batch", 2))
    onnx.save(net.build(), tmp_path / "m.onnx")
    code, stdout, _ = snnopt("query", tmp_path / "m.onnx", "--layer", "pop", "--neuron", 0)
    assert code == 4
    assert stdout.startswith("pop[0]: not decided whether it can fire: node 'squash': no exact rule for 'Sigmoid'")


REFUSED = {
    "no such layer": (["--layer", "pop9"], "no layer 'pop9'; layers that fire: pop0, pop1"),
    "no such neuron": (["--layer", "pop1", "--neuron", "3"], "layer 'pop1' has neurons 0 to 2, not 3"),
    "witness of all": (["--layer", "pop1", "-o", "w.npz"], "choose it with --neuron"),
    "limit of a program": (["--layer", "pop1", "--method", "milp", "--limit", "5"], "--limit has no effect here"),
    "time for trying": (
        ["--layer", "pop1", "--method", "enumerate", "--time-limit", "5"],
        "--time-limit has no effect",
    ),
    "too many": (["--layer", "pop1", "--method", "enumerate", "--limit", "63"], "(too-many-inputs): 2^6 = 64 inputs"),
    "no such input": (
        ["--layer", "pop1", "--input-range", "y=0:1"],
        "the model has no input 'y' to declare a range or activity of; it has x",
    ),
    "real values": (["--layer", "pop1", "--method", "enumerate", "--input-range", "0:2"], "(real-values): input 'x'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_questions_get_one_line(snnopt, model: Path, case: str) -> None:
    arguments, said = REFUSED[case]
    code, out, err = snnopt("query", model, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_without_scipy_programs_are_refused_and_trying_works(model: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; sys.modules['scipy'] = None; from snn_optimizer.cli.main import main; main(sys.argv[1:])"
        command = [sys.executable, "-c", code, "query", str(model), "--layer", "pop1", *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    refused = run("--method", "milp")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert "pip install 'snn-optimizer[exact]'" in refused.stderr
    assert run().returncode == 0


def test_exhaustive_verification(snnopt, model: Path, tmp_path: Path) -> None:
    code, out, _ = snnopt("verify", model, model, "--exhaustive")
    assert code == 0
    assert out.splitlines()[0] == "EQUIVALENT on all 2^6 = 64 inputs (6 = 2 inputs x 3 steps) of the declared domain"
    other, counterexample = saved(tmp_path / "b.onnx", threshold=1.3), tmp_path / "c.npz"
    code, out, _ = snnopt("verify", model, other, "--exhaustive", "--counterexample", counterexample)
    assert code == 1
    assert out.startswith("DIFFERENT on 37 of all 2^6 = 64 inputs")
    feeds = dict(np.load(counterexample))
    assert (Observer(model).trains(feeds)["pop1"] != Observer(other).trains(feeds)["pop1"]).any()
    code, out, _ = snnopt("verify", model, other, "--exhaustive", "--json")
    assert code == 1
    assert json.loads(out)["inputs_differing"] == 37


def test_open_time_is_verified_for_the_given_steps(snnopt, tmp_path: Path) -> None:
    path = saved(tmp_path / "t.onnx", steps="T")
    code, out, _ = snnopt("verify", path, path, "--exhaustive", "--steps", 5)
    assert code == 0
    assert "2^10 = 1,024 inputs (10 = 2 inputs x 5 steps)" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--exhaustive", "--limit", "63"],
            "(too-many-inputs): 2^6 = 64 inputs (6 = 2 inputs x 3 steps) are more than 63",
        ),
        (["--exhaustive", "--seed", "3"], "--seed has no effect here"),
        (["--exhaustive", "--data", "d.npz"], "--data has no effect here"),
        (["--limit", "3"], "--limit has no effect here"),
    ],
)
def test_exhaustive_verification_refuses(snnopt, model: Path, arguments: list[str], said: str) -> None:
    code, out, err = snnopt("verify", model, model, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
