"""`snnopt bisect`, `--verify-each` and `--bisect-limit`: what is named, written and returned."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path

import onnx
import pytest

from snn_optimizer.execution import Dataset, load_dataset
from snn_optimizer.verification import verify
from tests.support.broken_passes import BROKEN, network
from tests.support.unrolling import Habits, Layer, Network, Neuron, unroll

NODES_AT_MOST = """
import sys
import onnx
sys.exit(len(onnx.load(sys.argv[2]).graph.node) > int(sys.argv[1]))
"""


pytestmark = pytest.mark.usefixtures("broken_passes")


def test_the_guilty_pass_is_named_and_the_models_around_it_are_written(snnopt, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    code, stdout, err = snnopt("bisect", model, "-p", "@hygiene,wrong-column,@O2", "-o", out)
    assert code == 1
    assert "guilty     pass (6) wrong-column" in stdout
    assert "rewrite    1 of 1: duplicate-units at lif1, unit 7\n" in stdout
    assert "applied    duplicate-units at lif1" in stdout
    assert "BISECT: limit 6: wrong: after pass (6) wrong-column: DIFFERENT" in err
    before, after = out / "before.onnx", out / "after.onnx"
    assert verify(model, before).verdict == "EQUIVALENT"
    assert verify(model, after, stimuli=(), dataset=_counterexample(out, model)).verdict == "DIFFERENT"


def _counterexample(folder: Path, model: Path) -> Dataset:
    from snn_optimizer.execution import Session

    return load_dataset(folder / "counterexample.npz", Session(model).inputs)


def test_the_commands_it_prints_make_the_wrong_model_again(
    snnopt, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, stdout, _ = snnopt(
        "bisect", model, "-p", "@hygiene,wrong-column,@O2", "-o", "found", "--input-range", "0:1", "--json", "-q"
    )
    assert code == 1
    data = json.loads(stdout)
    assert (data["guilty"]["name"], data["guilty"]["number"], data["alone"]) == ("wrong-column", 6, True)
    assert len(data["reproduce"]) == 2
    assert (tmp_path / "found" / "reproduce.sh").read_text().splitlines() == data["reproduce"]
    for command in data["reproduce"]:
        assert snnopt(*shlex.split(command)[1:])[0] == 0
        assert verify("found/after.onnx", "wrong.onnx", exactness="bitwise").verdict == "EQUIVALENT"
        Path("wrong.onnx").unlink()


def test_nothing_wrong(snnopt, model: Path, tmp_path: Path) -> None:
    code, stdout, _ = snnopt("bisect", model, "-o", tmp_path / "found")
    assert code == 0
    assert stdout.startswith("nothing wrong after ")
    assert not list((tmp_path / "found").iterdir())


def test_a_result_that_cannot_be_judged_is_exit_code_four(snnopt, model: Path) -> None:
    code, stdout, _ = snnopt("bisect", model, "--input-range", "0:0")
    assert code == 4
    assert stdout.startswith("cannot tell after ")


def test_an_external_check_decides(snnopt, model: Path, tmp_path: Path) -> None:
    script = tmp_path / "at most.py"
    script.write_text(NODES_AT_MOST)
    spare = onnx.load(model)
    for number in range(3):
        spare.graph.node.append(onnx.helper.make_node("Identity", ["spikes"], [f"spare{number}"]))
    onnx.save(spare, model)
    nodes = len(spare.graph.node)
    command = ["--", sys.executable, script, nodes, "{}"]
    assert snnopt("bisect", model, "-p", "@O2", *command)[0] == 0
    # a check that wants the spare nodes kept: whatever removes them is guilty
    script.write_text(NODES_AT_MOST.replace(">", "<"))
    code, stdout, err = snnopt("bisect", model, "-p", "redundancy-elimination,dead-code,layer-fusion", *command)
    assert code == 1
    assert "pass (2) dead-code" in stdout
    assert "the check exits with 1" in stdout
    assert "--no-verify" not in stdout
    assert "limit 1: right: after pass (1) redundancy-elimination: the check exits with 0" in err


def test_with_an_external_check_passes_are_guarded(snnopt, model: Path) -> None:
    """What the guard rolls back is not what makes the caller's result wrong."""
    code, stdout, _ = snnopt("bisect", model, "-p", "wrong-column,dead-code", "--json", "--", "test", "-s", "{}")
    assert (code, json.loads(stdout)["wrong"]) == (0, False)


def test_a_check_that_takes_too_long_fails(snnopt, model: Path) -> None:
    code, _, err = snnopt("bisect", model, "--check-timeout", "0.2", "--", "sh", "-c", "sleep 5; : {}")
    assert code == 2
    assert "before any pass" in err
    assert "took more than 0.2 s" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "prune{sparsity=0.5}"], "give a check command"),
        (["-p", "prune{sparsity=0.5}", "--", "true", "{}"], "budget"),
        (["-O2", "-p", "dead-code"], "not both"),
        (["--max-spike-change", "0.1"], "leave the budget out"),
        (["--check-timeout", "3"], "leave it out"),
        (["--", "true"], "write {} where its file goes"),
        (["--", "false", "{}"], "fails on the model before any pass"),
        (["--", "no-such-command", "{}"], "'no-such-command' cannot be run"),
        (["-p", "wrong-colum"], "did you mean 'wrong-column'"),
        (["-o", "net.onnx/found"], "cannot make the folder"),
    ],
)
def test_mistakes_are_one_line(
    snnopt, model: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(model.parent)
    code, stdout, err = snnopt("bisect", "net.onnx", "-q", *arguments)
    assert (code, stdout, err.count("\n")) == (2, "", 1)
    assert words in err


def test_a_missing_model(snnopt, tmp_path: Path) -> None:
    code, _, err = snnopt("bisect", tmp_path / "none.onnx", "-q")
    assert (code, err.count("\n")) == (2, 1)


def test_runs_are_numbered_and_skipped_beyond_the_limit(snnopt, model: Path) -> None:
    arguments = ("optimize", model, "--dry-run", "-p", "dead-code,redundancy-elimination,layer-fusion")
    err = snnopt(*arguments, "--bisect-limit", 2)[2]
    assert "BISECT: running pass (1) dead-code\nBISECT: running pass (2) redundancy-elimination\n" in err
    assert "BISECT: NOT running pass (3) layer-fusion" in err
    assert "NOT running" not in snnopt(*arguments, "--bisect-limit", -1)[2]
    assert "BISECT: running pass (3) layer-fusion" in snnopt(*arguments, "--remarks", "x")[2]
    assert "BISECT" not in snnopt(*arguments)[2]
    assert "BISECT" not in snnopt(*arguments, "--bisect-limit", 2, "-q")[2]


def test_rewrites_inside_a_run_are_numbered_and_left_out_beyond_the_limit(snnopt, model: Path) -> None:
    arguments = ("optimize", model, "--dry-run", "-p", "dead-code,redundancy-elimination,layer-fusion")
    err = snnopt(*arguments, "--bisect-limit", "2.1")[2]
    assert "BISECT: pass (2) made 1 rewrites, the last: duplicate-units at lif1, unit 7\n" in err
    code, stdout, err = snnopt(*arguments, "--bisect-limit", "2.0")
    assert code == 0
    assert "made" not in err
    assert "neurons removed" not in stdout
    for text in ("x", "2.", "-2", "1.2.3"):
        code, _, err = snnopt(*arguments, f"--bisect-limit={text}")
        assert (code, err.count("\n")) == (2, 1)
        assert "is not N or N.M" in err


def test_verify_each_names_what_it_rolls_back(snnopt, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(network("strict-comparison"), path)
    arguments = ("optimize", path, "-o", tmp_path / "out.onnx", "-p", "strict-comparison,dead-code")
    code, stdout, _ = snnopt(*arguments, "--verify-each")
    assert code == 0
    assert "rolled back: DIFFERENT" in stdout
    assert "strict at lif1" in " ".join(stdout.split())
    code, _, err = snnopt(*arguments)
    assert code == 0
    assert "repeated with every pass checked" in err
    code, _, err = snnopt(*arguments, "--verify-each", "--no-verify")
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize("broken", BROKEN)
def test_default_settings_catch_every_broken_pass_and_name_it(snnopt, tmp_path: Path, broken: str) -> None:
    path, out = tmp_path / "net.onnx", tmp_path / "out.onnx"
    onnx.save(network(broken), path)
    code, stdout, err = snnopt("optimize", path, "-o", out, "-p", f"canonicalize,{broken},dead-code")
    assert code == 0
    named = f"pass (2) {broken} broke its {BROKEN[broken].exactness.name.lower()} claim and was rolled back"
    assert named in err
    assert "DIFFERENT: " in err
    assert "EQUIVALENT" in stdout
    assert verify(path, out).verdict == "EQUIVALENT"


def test_a_thousand_nodes_are_bisected_in_under_a_minute(snnopt, tmp_path: Path) -> None:
    neuron = Neuron(fire="ge", threshold=1.0)
    layers = tuple(Layer(units, "gemm", neuron) for units in (24, 24, 10))
    exported = unroll(Network(layers, (16,)), 60, Habits(outputs=("stack",)))
    assert len(exported.graph.node) >= 1000
    path = tmp_path / "unrolled.onnx"
    onnx.save(exported, path)
    start = time.perf_counter()
    code, stdout, _ = snnopt("bisect", path, "-p", "@O1,strict-comparison,@O2", "-o", tmp_path / "found")
    seconds = time.perf_counter() - start
    assert code == 1
    assert "strict-comparison" in stdout.splitlines()[0]
    assert seconds < 60
