"""Small models of what the fuzzer found: one clear line, the exit code of the caller's input, nothing written."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

ROOT = Path(__file__).resolve().parents[2]
STEP = """
<ir_version: 8, opset_import: ["" : 17]>
step (float[B, 4] x, float[B, 3] v0) => (float[B, 3] s, float[B, 3] v1)
<float[4, 3] w = {0.5, -0.2, 0.1, 0.3, 0.4, -0.1, 0.2, 0.1, 0.6, -0.3, 0.2, 0.4},
 float[3] b = {0.1, 0.0, 0.2}, float theta = {1.0}, float beta = {0.9}> {
    product = MatMul (x, w)
    current = Add (product, b)
    leaked = Mul (v0, beta)
    u = Add (leaked, current)
    fired = Greater (u, theta)
    s = Cast <to = 1> (fired)
    drop = Mul (s, theta)
    v1 = Sub (u, drop)
}
"""

Edit = Callable[[ModelProto], None]


def build() -> ModelProto:
    model = parser.parse_model(STEP)
    for node in model.graph.node:
        node.name = node.output[0]
    return model


def named(model: ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def tensor(model: ModelProto, name: str) -> TensorProto:
    return next(each for each in model.graph.initializer if each.name == name)


def huge_but_empty(model: ModelProto) -> None:
    tensor(model, "b").CopyFrom(TensorProto(name="b", data_type=1, dims=[2**62, 0]))


def loop_without_body(model: ModelProto) -> None:
    named(model, "leaked").op_type = "Loop"


def scan_without_body(model: ModelProto) -> None:
    node = named(model, "leaked")
    node.op_type = "Scan"
    node.attribute.append(helper.make_attribute("num_scan_inputs", 1))


def scan_that_scans_nothing(model: ModelProto) -> None:
    node = named(model, "leaked")
    node.op_type = "Scan"
    ports = [helper.make_tensor_value_info(name, 1, None) for name in "pq"]
    body = helper.make_graph([helper.make_node("Mul", ["p", "q"], ["r"])], "g", ports, [onnx.ValueInfoProto(name="r")])
    node.attribute.extend([helper.make_attribute("num_scan_inputs", 7), helper.make_attribute("body", body)])


def branch_with_inputs(model: ModelProto) -> None:
    node = named(model, "leaked")
    node.op_type = "If"
    node.input[:] = ["flag"]
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "flag"))
    ports = [helper.make_tensor_value_info("p", 1, None)]
    for name in ("then_branch", "else_branch"):
        body = helper.make_graph([], "g", ports, ports)
        node.attribute.append(helper.make_attribute(name, body))


def cast_to_nothing(model: ModelProto) -> None:
    del named(model, "s").attribute[:]


def cast_to_text(model: ModelProto) -> None:
    named(model, "s").attribute[0].CopyFrom(helper.make_attribute("to", "float"))


def missing_operand(model: ModelProto) -> None:
    del named(model, "leaked").input[1:]


def empty_operand(model: ModelProto) -> None:
    named(model, "leaked").input[1] = ""


def too_many_operands(model: ModelProto) -> None:
    named(model, "product").input.append("w")


def too_many_results(model: ModelProto) -> None:
    named(model, "product").output.append("more")


def weights_of_another_type(model: ModelProto) -> None:
    tensor(model, "w").CopyFrom(numpy_helper.from_array(np.ones((4, 3), np.float64), "w"))


def weights_of_text(model: ModelProto) -> None:
    tensor(model, "w").CopyFrom(helper.make_tensor("w", TensorProto.STRING, [4, 3], [b"x"] * 12))


def types_that_meet_later(model: ModelProto) -> None:
    named(model, "s").attribute[0].i = TensorProto.INT64
    del model.graph.output[0]


def reference_outside_functions(model: ModelProto) -> None:
    named(model, "s").attribute[0].ref_attr_name = "kind"


def no_operator_sets(model: ModelProto) -> None:
    del model.opset_import[:]


def negative_operator_set(model: ModelProto) -> None:
    model.opset_import[0].version = -3


def negative_ir_version(model: ModelProto) -> None:
    model.ir_version = -1


def broken_metadata(model: ModelProto) -> None:
    model.metadata_props.add(key="XQZX", value="v")


def name_of_two_lines(model: ModelProto) -> None:
    named(model, "leaked").input[0] = "nowhere\nsnnopt: all is well\x1b[2J"


def name_without_end(model: ModelProto) -> None:
    named(model, "leaked").input[0] = "n" * 5000


EDITS = [
    (huge_but_empty, "initializer 'b'.*larger than any memory"),
    (loop_without_body, r"node 'leaked' \(Loop\): has no attribute 'body'"),
    (scan_without_body, r"node 'leaked' \(Scan\): has no attribute 'body'"),
    (scan_that_scans_nothing, r"node 'leaked' \(Scan\): scans 7 of its 2 inputs"),
    (branch_with_inputs, r"node 'leaked' \(If\): 'then_branch' has inputs"),
    (cast_to_nothing, r"node 's' \(Cast\): has no attribute 'to'"),
    (cast_to_text, r"node 's' \(Cast\): attribute 'to' is of type STRING, not INT"),
    (missing_operand, r"node 'leaked' \(Mul\): has 1 inputs, the operator takes 2"),
    (empty_operand, r"node 'leaked' \(Mul\): a required input is missing"),
    (too_many_operands, r"node 'product' \(MatMul\): has 3 inputs"),
    (too_many_results, r"node 'product' \(MatMul\): has 2 outputs, the operator makes 1"),
    (weights_of_another_type, r"node 'product' \(MatMul\): input 'w' is double, input 'x' is float"),
    (weights_of_text, r"node 'product' \(MatMul\): input 'w' is string, which the operator does not take"),
    (types_that_meet_later, r"node 'drop' \(Mul\): input 'theta' is float, input 's' is int64"),
    (reference_outside_functions, r"node 's' \(Cast\): attribute 'to' refers to one of a function"),
    (no_operator_sets, "names no operator set"),
    (negative_operator_set, "operator set '' has version -3"),
    (negative_ir_version, "the IR version is -1"),
    (name_of_two_lines, r"'nowhere\\nsnnopt: all is well\\x1b\[2J'"),
    (name_without_end, r"'n+ \.\.\.'"),
]
COMMANDS = (
    "info {model}",
    "optimize {model} -o {out} -O1",
    "optimize {model} -o {out} -O2 --no-verify --report {out}.json",
    "optimize {model} -o {out} --emit scan",
    "bisect {model}",
)
RUNNING = ("profile {model} --data {data} -o {out}", "verify {model} {model}", "bench {model} --rounds 1")


@pytest.fixture
def complaint(snnopt, tmp_path: Path):
    """Run a command on a damaged model; return the code and the one line it says."""

    def call(command: str, data: bytes) -> tuple[int, str]:
        folder = tmp_path / "work"
        folder.mkdir(exist_ok=True)
        (tmp_path / "model.onnx").write_bytes(data)
        np.savez(tmp_path / "data.npz", x=np.ones((2, 4), np.float32), v0=np.zeros((2, 3), np.float32))
        places = {"model": tmp_path / "model.onnx", "out": folder / "out", "data": tmp_path / "data.npz"}
        code, _, error = snnopt(*(word.format(**places) for word in command.split()))
        lines = [line for line in error.splitlines() if not line.startswith("BISECT: ")]
        assert len(lines) == 1, error
        assert len(lines[0]) < 1100
        assert list(folder.iterdir()) == []
        return code, lines[0]

    return call


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("edit", "expected"), EDITS)
def test_refused_by_name(edit: Edit, expected: str, command: str, complaint) -> None:
    model = build()
    edit(model)
    code, line = complaint(command, model.SerializeToString())
    assert code == 2
    assert line.startswith("snnopt: '")
    assert "model.onnx': " in line
    assert re.search(expected, line), line


@pytest.mark.parametrize("command", RUNNING)
@pytest.mark.parametrize(("edit", "node"), [(e, n[1]) for e, t in EDITS if (n := re.search(r"node '(\w+)'", t))])
def test_commands_that_run_models_name_the_node(edit: Edit, node: str, command: str, complaint) -> None:
    if edit is reference_outside_functions:
        pytest.skip("onnxruntime takes it")
    model = build()
    edit(model)
    code, line = complaint(command, model.SerializeToString())
    assert code == 2
    assert "not a valid model" in line
    assert node in line


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("../../etc/passwd", "leaves the model's folder"),
        ("/dev/zero", "leaves the model's folder"),
        ("zero", "link out of the model's folder"),
        ("none.bin", "No such file"),
        ("short.bin", "has 3 bytes, 48 at offset 0 are needed"),
    ],
)
def test_external_data_that_is_not_there_or_not_the_models(
    location: str, expected: str, complaint, tmp_path: Path
) -> None:
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "short.bin").write_bytes(b"123")
    model = build()
    weights = tensor(model, "w")
    weights.CopyFrom(TensorProto(name="w", data_type=1, dims=[4, 3], data_location=TensorProto.EXTERNAL))
    weights.external_data.add(key="location", value=location)
    sweep = "sweep {model} --calib {data} -o {out} --jobs 1 --plot none -q --budgets 0.1 -p @O1"
    for command in (*COMMANDS, *RUNNING, sweep):
        code, line = complaint(command, model.SerializeToString())
        assert code == 2
        assert expected in line, (command, line)


@pytest.mark.parametrize("command", COMMANDS)
def test_text_that_is_not_utf8(command: str, complaint) -> None:
    model = build()
    named(model, "leaked").name = "XQZX"
    code, line = complaint(command, model.SerializeToString().replace(b"XQZX", b"X\xff\xfeX"))
    assert code == 2
    assert "UTF-8" in line


@pytest.mark.parametrize("command", COMMANDS)
def test_metadata_that_is_not_utf8(command: str, complaint, snnopt, tmp_path: Path) -> None:
    model = build()
    broken_metadata(model)
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString().replace(b"XQZX", b"X\xff\xfeX"))
    code, _, error = snnopt(*(word.format(model=path, out=tmp_path / "out.onnx") for word in command.split()))
    assert code in {0, 2}
    assert "internal" not in error


def test_bodies_deeper_than_any_reader_goes(complaint) -> None:
    for depth in (40, 2_000, 20_000):
        graph = b""
        for _ in range(depth):  # by hand: onnx cannot make such a message either
            graph = held(1, held(5, held(6, graph)))
        for command in (*COMMANDS, *RUNNING):
            assert complaint(command, b"\x08\x08" + held(7, graph))[0] == 2


def held(field: int, content: bytes) -> bytes:
    """Return a field of a message that holds another."""
    size, digits = len(content), bytearray()
    while size > 0x7F:
        digits.append((size & 0x7F) | 0x80)
        size >>= 7
    return bytes([field << 3 | 2, *digits, size]) + content


def test_the_model_that_is_damaged_here_is_valid(snnopt, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(build().SerializeToString())
    for command in ("info {m}", "verify {m} {m}", "optimize {m} -o {m}.out"):
        assert snnopt(*(word.format(m=path) for word in command.split()))[0] == 0


@pytest.mark.slow
def test_the_fuzzer_finds_nothing_in_twenty_seconds() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.malformed", "--seconds", "20", "--seed", "77"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split(" cases")[0].split()[-1]) > 10
