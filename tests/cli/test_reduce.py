"""`snnopt reduce`, `optimize --reproducer` and `run-reproducer`: what is kept, written and returned."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from snn_optimizer.execution import Session
from tests.support.broken_passes import BROKEN, network
from tests.support.models import initializer, mlp, recurrent, spike_trains, with_initializer
from tests.support.unrolling import Habits, Layer, Network, Neuron, unroll

COUNTS = """
import sys
found = open(sys.argv[2], "rb").read().count(b"Gemm")  # reading it as a model would take ten times as long
print(found, "products")
sys.exit(found >= int(sys.argv[1]))
"""


pytestmark = pytest.mark.usefixtures("broken_passes")


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    path = tmp_path / "counts.py"
    path.write_text(COUNTS)
    return path


def sizes(path: Path) -> tuple[int, int]:
    """Return the nodes of a model and the numbers it stores."""
    graph = onnx.load(path).graph
    return len(graph.node), sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_pass_is_shown_by_a_handful_of_nodes(snnopt, tmp_path: Path, broken: str) -> None:
    path, small = tmp_path / "net.onnx", tmp_path / "small.onnx"
    onnx.save(network(broken), path)
    code, stdout, err = snnopt("reduce", path, "-p", f"@hygiene,{broken},@O2", "-o", small)
    assert code == 0
    assert f"pipeline   {broken}\n" in stdout
    assert f"fails      {broken}: DIFFERENT" in stdout
    assert "REDUCE: " in err
    nodes, numbers = sizes(small)
    assert nodes <= (7 if broken == "shifted-channel" else 5)
    assert numbers <= 60 < sizes(path)[1]  # sizes of images stay
    onnx.checker.check_model(str(small))
    assert Session(small).outputs
    code, stdout, _ = snnopt("run-reproducer", small)
    assert (code, stdout.splitlines()[0]) == (1, "still fails")


def test_the_summary_counts_what_went(snnopt, model: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    code, stdout, _ = snnopt("reduce", model, "-p", "@hygiene,wrong-column", "-o", small, "--json", "-q")
    data = json.loads(stdout)
    assert code == 0
    assert data["failure"]["found"].startswith("DIFFERENT")
    assert (data["before"]["nodes"], data["before"]["passes"]) == (8, 6)
    assert (data["after"]["nodes"], data["after"]["passes"]) == (sizes(small)[0], 1)
    assert data["candidates"] > 5
    assert data["complete"]


def test_a_crash_stays_the_same_crash(snnopt, tmp_path: Path) -> None:
    path, small = tmp_path / "net.onnx", tmp_path / "small.onnx"
    onnx.save(network("lost-epsilon"), path)
    code, stdout, _ = snnopt("reduce", path, "-p", "@hygiene,crashes-on-norms,dead-code", "-o", small)
    assert code == 0
    assert "fails      crashes-on-norms: pass 'crashes-on-norms' raised IndexError: at norm" in stdout
    assert [node.op_type for node in onnx.load(small).graph.node] == ["BatchNormalization"]
    assert snnopt("run-reproducer", small)[0] == 1


def test_one_failure_does_not_become_another(snnopt, tmp_path: Path) -> None:
    """Two broken passes: the model that is left fails by the first of them, though the other fails on less."""
    path, small = tmp_path / "net.onnx", tmp_path / "small.onnx"
    net = network("wrong-column")
    bias = initializer(net, "fc1.bias")
    bias[5] = 30
    onnx.save(with_initializer(net, "fc1.bias", bias), path)
    code, stdout, _ = snnopt("reduce", path, "-p", "wrong-column,forgotten-bias", "-o", small)
    assert code == 0
    assert "pipeline   wrong-column\n" in stdout
    assert "fails      wrong-column: DIFFERENT" in stdout


def test_nothing_to_reduce_is_said_and_nothing_written(snnopt, model: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    small.write_bytes(b"mine")
    code, stdout, err = snnopt("reduce", model, "-o", small, "-q")
    assert (code, stdout, err.count("\n")) == (2, "", 1)
    assert "nothing to reduce, the result of '@O2' is not wrong: EQUIVALENT" in err
    assert small.read_bytes() == b"mine"


def test_what_cannot_be_judged_is_exit_code_four(snnopt, model: Path, tmp_path: Path) -> None:
    code, _, err = snnopt("reduce", model, "-o", tmp_path / "small.onnx", "--input-range", "0:0", "-q")
    assert (code, err.count("\n")) == (4, 1)


def test_a_check_judges_the_model_itself_without_a_pipeline(snnopt, model: Path, tmp_path: Path, counts: Path) -> None:
    small = tmp_path / "small.onnx"
    code, stdout, _ = snnopt("reduce", model, "-o", small, "--", sys.executable, "-S", counts, 1, "{}")
    assert code == 0
    assert "fails      the check exits with 1, its last line: 1 products" in stdout
    assert "run-reproducer" not in stdout
    assert sizes(small)[0] == 1
    code, stdout, _ = snnopt(
        "reduce", model, "-o", small, "--fail-regex", "^2 products", "--", sys.executable, "-S", counts, 1, "{}"
    )
    assert code == 0
    assert sum(node.op_type == "Gemm" for node in onnx.load(small).graph.node) == 2


def test_a_check_judges_the_guarded_result_of_a_pipeline(snnopt, tmp_path: Path, counts: Path) -> None:
    """It fails for a result without products; the model itself has to have one."""
    counts.write_text(COUNTS.replace(">=", "<"))
    path, small = tmp_path / "net.onnx", tmp_path / "small.onnx"
    net = network("wrong-column")
    net.graph.node.append(onnx.helper.make_node("Gemm", ["fc2.rows", "fc2.weight"], ["spare"], transB=1))
    onnx.save(net, path)
    code, stdout, _ = snnopt(
        "reduce",
        path,
        "-p",
        "wrong-column,dead-code,layer-fusion",
        "-o",
        small,
        "--",
        sys.executable,
        "-S",
        counts,
        3,
        "{}",
    )
    assert code == 0
    assert "pipeline   dead-code\n" in stdout
    assert [node.op_type for node in onnx.load(small).graph.node].count("Gemm") == 3


def test_samples_are_reduced_and_travel_with_the_model(snnopt, tmp_path: Path) -> None:
    path, small, data = tmp_path / "net.onnx", tmp_path / "small.onnx", tmp_path / "data.npz"
    onnx.save(network("wrong-column"), path)
    np.savez(data, x=spike_trains(8, 24, 8), labels=np.arange(24) % 4)
    pipeline = "dead-neuron-elimination{measured},wrong-column"
    code, stdout, _ = snnopt("reduce", path, "-p", pipeline, "--calib", data, "-o", small)
    assert code == 0
    assert "24 -> 1 samples" in stdout
    assert snnopt("run-reproducer", small)[0] == 1


def test_a_loop_is_opened(snnopt, tmp_path: Path, counts: Path) -> None:
    path, small = tmp_path / "net.onnx", tmp_path / "small.onnx"
    onnx.save(recurrent(), path)
    code, _, _ = snnopt("reduce", path, "-o", small, "--", sys.executable, "-S", counts, 1, "{}")
    assert code == 0
    assert [node.op_type for node in onnx.load(small).graph.node] == ["Gemm"]


def test_the_time_limit_leaves_the_smallest_so_far(snnopt, model: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    arguments = ("reduce", model, "-p", "@hygiene,wrong-column,@O2", "-o", small, "--time-limit", "0.001")
    code, stdout, _ = snnopt(*arguments)
    assert code == 0
    assert "stopped    after 0.001 s" in stdout
    assert snnopt("run-reproducer", small)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "s.onnx", "-p", "prune{sparsity=0.5}"], "give a check command"),
        (["-o", "s.onnx", "-O2", "-p", "dead-code"], "not both"),
        (["-o", "s.onnx", "--check-timeout", "3"], "leave it out"),
        (["-o", "s.onnx", "--", "false"], "write {} where its file goes"),
        (["-o", "s.onnx", "--", "true", "{}"], "the check does not fail as it should: the check exits with 0"),
        (["-o", "s.onnx", "--fail-regex", "(", "--", "false", "{}"], "is not a regular expression"),
        (["-o", "s.onnx", "--fail-regex", "no such text", "-p", "wrong-column"], "not the one asked for"),
        (["-o", "none/s.onnx"], "its folder does not exist"),
        ([], "Missing option"),
    ],
)
def test_mistakes_are_one_line(
    snnopt, model: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(model.parent)
    code, stdout, err = snnopt("reduce", "net.onnx", "-q", *arguments)
    assert (code, stdout, err.count("\n")) == (2, "", 1)
    assert words in err
    assert not Path("s.onnx").exists()


def _unrolled(steps: int = 60) -> onnx.ModelProto:
    neuron = Neuron(fire="ge", threshold=1.0)
    layers = tuple(Layer(units, "gemm", neuron) for units in (24, 24, 10))
    return unroll(Network(layers, (16,)), steps, Habits(outputs=("stack",)))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["unrolled", "raised"])
def test_a_fault_in_more_than_a_thousand_nodes_is_found_in_under_a_minute(snnopt, tmp_path: Path, place: str) -> None:
    exported = _unrolled()
    assert len(exported.graph.node) >= 1000
    path, small = tmp_path / "unrolled.onnx", tmp_path / "small.onnx"
    onnx.save(exported, path)
    compared = [node.output[0] for node in exported.graph.node if node.op_type == "GreaterOrEqual"]
    planted = f"one-strict-step{{at='{compared[len(compared) // 2]}'}}"
    pipeline = f"dead-code,{planted},@O2" if place == "unrolled" else "@O1,strict-comparison,@O2"
    start = time.perf_counter()
    code, stdout, _ = snnopt("reduce", path, "-p", pipeline, "-o", small)
    reducing = time.perf_counter() - start
    assert code == 0
    assert sizes(small)[0] <= 3
    start = time.perf_counter()
    code, found, _ = snnopt("bisect", path, "-p", pipeline)
    bisecting = time.perf_counter() - start
    assert code == 1
    expected = f": compared at {compared[len(compared) // 2]}\n" if place == "unrolled" else ": strict at "
    assert expected in found
    print(f"{place}: reduce {reducing:.1f} s ({stdout.splitlines()[0]}), bisect {bisecting:.1f} s")
    assert reducing < 60
    assert bisecting < 60


# -- reproducers -------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_claim_is_written_and_replayed(snnopt, tmp_path: Path, broken: str) -> None:
    path, file = tmp_path / "net.onnx", tmp_path / "fault.onnx"
    onnx.save(network(broken), path)
    arguments = ("optimize", path, "-o", tmp_path / "out.onnx", "-p", f"@hygiene,{broken},@O2", "--reproducer", file)
    code, _, err = snnopt(*arguments)
    assert code == 0
    assert f"snnopt: wrote '{file}', which replays the failure: snnopt run-reproducer" in err
    code, stdout, _ = snnopt("run-reproducer", file)
    assert (code, stdout.splitlines()[0]) == (1, "still fails")
    assert f"pipeline   {broken}\n" in stdout


def test_a_crash_is_written_with_the_model_before_the_pass(snnopt, tmp_path: Path) -> None:
    path, file = tmp_path / "net.onnx", tmp_path / "fault.onnx"
    net = network("lost-epsilon")
    net.graph.node.append(onnx.helper.make_node("Identity", ["lif1.s"], ["unread"]))
    onnx.save(net, path)
    pipeline = "dead-code,crashes-on-norms,@O2"
    arguments = ("optimize", path, "-o", tmp_path / "out.onnx", "-p", pipeline, "--reproducer", file, "--seed", 3)
    code, _, err = snnopt(*arguments)
    assert code == 3
    assert "pass 'crashes-on-norms' raised IndexError" in err
    assert not (tmp_path / "out.onnx").exists()
    written = onnx.load(file)
    assert "unread" not in {name for node in written.graph.node for name in node.output}
    settings = json.loads({entry.key: entry.value for entry in written.metadata_props}["snn_optimizer.reproducer"])
    assert (settings["pipeline"], settings["seed"]) == ("crashes-on-norms", 3)
    assert settings["versions"]["onnx"] == onnx.__version__
    assert snnopt("run-reproducer", file)[0] == 1


def test_a_reproducer_of_what_was_mended_says_so(snnopt, tmp_path: Path) -> None:
    path, file = tmp_path / "net.onnx", tmp_path / "fault.onnx"
    onnx.save(network("lost-epsilon"), path)
    snnopt("optimize", path, "--dry-run", "-p", "crashes-on-norms", "--reproducer", file)
    written = onnx.load(file)
    for entry in written.metadata_props:
        entry.value = entry.value.replace('"crashes-on-norms"', '"layer-fusion"', 1)
    onnx.save(written, file)
    code, stdout, _ = snnopt("run-reproducer", file, "--json")
    assert (code, json.loads(stdout)["outcome"]) == (0, "fails no more")


def test_nothing_is_written_when_nothing_fails(snnopt, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "fault.onnx"
    assert snnopt("optimize", model, "--dry-run", "--reproducer", file)[0] == 0
    assert not file.exists()
    assert snnopt("optimize", tmp_path / "none.onnx", "--dry-run", "--reproducer", file)[0] == 2
    assert not file.exists()


def test_samples_and_premises_are_in_the_file(snnopt, tmp_path: Path) -> None:
    path, file, data = tmp_path / "net.onnx", tmp_path / "fault.onnx", tmp_path / "data.npz"
    onnx.save(network("wrong-column"), path)
    np.savez(data, x=spike_trains(8, 24, 8))
    arguments = ("--calib", data, "--input-range", "x=0:1", "--reproducer", file)
    assert snnopt("optimize", path, "--dry-run", "-p", "wrong-column", *arguments)[0] == 0
    data.unlink()
    assert snnopt("run-reproducer", file)[0] == 1


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda model: model.metadata_props.pop(), "is not a reproducer"),
        (lambda model: model.metadata_props.__getitem__(0).__setattr__("value", "{"), "is damaged"),
        (lambda model: model.metadata_props.__getitem__(0).__setattr__("value", '{"format": 99}'), "of format 99"),
    ],
)
def test_a_damaged_reproducer_is_one_line(snnopt, tmp_path: Path, damage, words: str) -> None:
    path, file = tmp_path / "net.onnx", tmp_path / "fault.onnx"
    onnx.save(network("lost-epsilon"), path)
    snnopt("optimize", path, "--dry-run", "-p", "crashes-on-norms", "--reproducer", file)
    written = onnx.load(file)
    damage(written)
    onnx.save(written, file)
    code, stdout, err = snnopt("run-reproducer", file)
    assert (code, stdout, err.count("\n")) == (2, "", 1)
    assert words in err


@pytest.mark.slow
def test_large_layers_come_down_to_a_few_neurons(snnopt, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    weights = [rng.normal(0, 0.3, shape).astype(np.float32) for shape in ((400, 32), (10, 400))]
    weights[0][370] = weights[0][3]
    biases = [np.zeros(400, np.float32), np.zeros(10, np.float32)]
    path, small = tmp_path / "net.onnx", tmp_path / "small.onnx"
    onnx.save(mlp((32, 400, 10), steps=8, weights=weights, biases=biases, beta=0.5), path)
    code, stdout, _ = snnopt("reduce", path, "-p", "@hygiene,wrong-column,@O2", "-o", small)
    assert code == 0
    assert ", 410 -> " in stdout
    assert sizes(small)[1] <= 40
