"""Map custom operators: the frameworks' own outputs, the user's descriptions, and what stays."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from snn_optimizer import ops
from snn_optimizer.errors import InputError
from snn_optimizer.ir import SNNGraph
from snn_optimizer.passes.base import Exactness
from snn_optimizer.passes.raising.map_custom_ops import MapCustomOps
from snn_optimizer.remarks import RemarkKind
from tests.unit.passes.cleanup.harness import apply, interface

CORPUS = Path(os.environ.get("SNN_CORPUS") or Path(__file__).parents[5] / "shared" / "corpus")
FOLDERS = sorted(CORPUS.glob("custom_*")) if CORPUS.is_dir() else []
HEADER = '<ir_version: 9, opset_import: ["": 18, "my": 1, "snn": 1, "ai.spikingjelly": 1]>'
ENTRY = """[[op]]
domain = "my"
op = "Neuron"
neuron = "LIF"
form = "step"
inputs = ["signal", "v", "parameter"]
outputs = ["signal", "v"]
reset = { attr = "hard", values = { 0 = "subtract", 1 = "to-value" } }
fire = "ge"
defaults = { tau = 4 }
[op.parameters]
beta = "1-1/attr:tau"
v_threshold = "input:2"
"""


def run(text, one=None):
    model = onnx.parser.parse_model(text if text.startswith("<") else f"{HEADER}\n{text}")
    graph = SNNGraph.from_onnx(model)
    outcome, remarks = apply(one or MapCustomOps(), graph)
    assert interface(graph.to_onnx()) == interface(model)
    assert apply(one or MapCustomOps(), graph)[0].changes == 0
    return graph, outcome, [remark for remark in remarks if remark.kind is RemarkKind.MISSED]


def described(folder, text):
    path = folder / "ops.toml"
    path.write_text(text)
    return MapCustomOps(file=str(path))


def results_of(folder, session):
    meta = json.loads((folder / "meta.json").read_text())
    inputs = np.load(folder / "inputs.npz")
    names = [value.name for value in session.get_outputs()]
    if meta["form"] == "sequence":
        feeds = {value.name: inputs[value.name] for value in session.get_inputs()}
        return dict(zip(names, session.run(None, feeds), strict=True))
    states = {name: np.zeros_like(inputs[name]) for name in meta["state_pairs"]}
    signals = [value.name for value in session.get_inputs() if value.name not in states]
    rows = []
    for t in range(meta["T"]):
        feeds = {**states, **{name: inputs[name][t] for name in signals}}
        rows.append(dict(zip(names, session.run(None, feeds), strict=True)))
        states = {name: rows[-1][after] for name, after in meta["state_pairs"].items()}
    return {name: np.stack([row[name] for row in rows]) for name in names}


@pytest.mark.skipif(not FOLDERS, reason=f"no corpus of exported models in {CORPUS}")
@pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])
def test_the_outputs_of_the_framework_come_out(folder):
    graph = SNNGraph.from_onnx(folder / "model.onnx")
    outcome, remarks = apply(MapCustomOps(), graph)
    assert outcome.changes
    assert outcome.claim is Exactness.BITWISE
    assert not [remark for remark in remarks if remark.kind is RemarkKind.MISSED]
    expected = np.load(folder / "expected.npz")
    for name, found in results_of(folder, onnxruntime.InferenceSession(graph.to_onnx().SerializeToString())).items():
        assert found.any()
        np.testing.assert_array_equal(found, expected[name])


def test_what_nobody_described_stays():
    _graph, outcome, missed = run(
        "g (float[2, 3] x) => (float[2, 3] y) { a = my.Neuron(x) b = my.Other(a) c = my.Other(b) y = Neg(c) }"
    )
    assert outcome.changes == 0
    assert [remark.arguments["op"] for remark in missed] == ["my::Neuron", "my::Other"]
    assert {remark.rule for remark in missed} == {"not-described"}


def test_an_operator_with_a_body_is_not_opaque():
    text = f"""{HEADER} g (float[2, 3] x, float[2, 3] v) => (float[2, 3] s, float[2, 3] w) {{ s, w = snn.LIF(x, v) }}
        <domain: "snn", opset_import: ["": 18]> LIF (x, v) => (s, w) {{ s = Neg(x) w = Neg(v) }}"""
    assert run(text)[1].changes == 0


@pytest.mark.parametrize(
    ("attributes", "inputs", "outputs", "rule"),
    [
        ("decay_input: int = 1, tau: float = 2.0, v_reset: float = 0.5, v_threshold: float = 1.0", "x, v", "y", "other-attributes"),
        ("decay_input: int = 1, tau: float = 2.0, v_threshold: float = 1.0", "x, v", "y", "other-attributes"),
        ("decay_input: int = 1, v_reset: float = 0.0, v_threshold: float = 1.0", "x, v", "y", "attribute"),
        ("decay_input: int = 1, tau: float = 0.0, v_reset: float = 0.0, v_threshold: float = 1.0", "x, v", "y", "not-finite"),
        ("decay_input: int = 1, tau: float = 2.0, v_reset: float = 0.0, v_threshold: float = 1.0", "x, v", "a, y", "output-not-available"),
        ("decay_input: int = 1, tau: float = 2.0, v_reset: float = 0.0, v_threshold: float = 1.0", "x, v, v", "y", "other-ports"),
    ],
)  # fmt: skip
def test_refusals(attributes, inputs, outputs, rule):
    _, outcome, missed = run(
        f"g (float[4, 2, 3] x, float[2, 3] v) => (float[4, 2, 3] y)"
        f"{{ {outputs} = ai.spikingjelly.LIFNode <{attributes}> ({inputs}) }}"
    )
    assert outcome.changes == 0
    assert [remark.rule for remark in missed] == [rule]


@pytest.mark.parametrize("tau", [2.0, 3.0])
@pytest.mark.parametrize("decay_input", [0, 1])
def test_spikingjelly_equations(tau, decay_input):
    graph, outcome, _ = run(
        f"""g (float[6, 2, 3] x) => (float[6, 2, 3] y) <float z = {{0}}> {{
            y, v = ai.spikingjelly.LIFNode <decay_input: int = {decay_input}, tau: float = {tau},
                v_reset: float = 0.0, v_threshold: float = 1.0> (x, z) }}"""
    )
    assert outcome.claim is (Exactness.BITWISE if tau == 2 else Exactness.ALGEBRAIC)
    x = np.random.default_rng(3).normal(1, 1, (6, 2, 3)).astype(np.float32)
    v, spikes = np.zeros((2, 3), np.float32), []
    for current in x:
        v = v + (current - v) / np.float32(tau) if decay_input else v - v / np.float32(tau) + current
        spikes.append((v >= 1).astype(np.float32))
        v = np.where(v >= 1, np.float32(0), v)
    session = onnxruntime.InferenceSession(graph.to_onnx().SerializeToString())
    assert 0 < np.mean(spikes) < 1
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], spikes)


@pytest.mark.parametrize("hard", [0, 1])
def test_a_users_description(tmp_path, hard):
    graph, outcome, missed = run(
        f"""g (double[B, 3] x, double[B, 3] v, double[3] t) => (double[B, 3] s, double[B, 3] w) {{
            s, w = my.Neuron <hard: int = {hard}> (x, v, t) }}""",
        described(tmp_path, ENTRY),
    )
    assert (outcome.changes, missed) == (1, [])
    variant = ops.NeuronVariant("LIF", "cell", reset="to-value" if hard else "subtract", fire="ge")
    x, v = np.random.default_rng(1).normal(1, 1, (2, 5, 3))
    t = np.array([0.5, 1.0, 1.5])
    session = onnxruntime.InferenceSession(graph.to_onnx().SerializeToString())
    expected = ops.step(variant, [x, v, *map(np.float64, (0.75, 1.0)), t, np.float64(0)])
    for found, wanted in zip(session.run(None, {"x": x, "v": v, "t": t}), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_single_precision_attributes_are_read_as_written(tmp_path):
    graph, _, _ = run(
        """g (double[2, 3] x, double[2, 3] v, double t) => (double[2, 3] s, double[2, 3] w) {
            s, w = my.Neuron <hard: int = 1, tau: float = 1.1> (x, v, t) }""",
        described(tmp_path, ENTRY),
    )
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.to_onnx().graph.initializer}
    assert stored["ai.snn.beta"] == 1 - 1 / 1.1


def test_a_parameter_that_widens_the_signal_is_refused(tmp_path):
    _, outcome, missed = run(
        """g (float[2, 3] x, float[2, 3] v, float[2, 3] t) => (float[2, 3] s, float[2, 3] w) {
            s, w = my.Neuron <hard: int = 1> (x, v, t) }""",
        described(tmp_path, ENTRY),
    )
    assert (outcome.changes, [remark.rule for remark in missed]) == (0, ["parameter-shape"])


def test_second_order_neuron_with_outputs_in_another_order(tmp_path):
    entry = """[[op]]
        domain = "my"
        op = "Cuba"
        neuron = "CubaLIF"
        form = "step"
        inputs = ["v", "signal", "i", "none"]
        outputs = ["i", "v", "signal", "none"]
        reset = "attr:reset"
        [op.parameters]
        alpha = "exp(-1/attr:tau)"
        beta = "1-attr:leak"
        v_threshold = 0.5"""
    graph, outcome, _ = run(
        """g (double[2, 3] x, double[2, 3] i, double[2, 3] v) => (double[2, 3] j, double[2, 3] w, double[2, 3] s) {
            j, w, s = my.Cuba <reset: string = "none", tau: float = 5.0, leak: float = 0.1> (v, x, i) }""",
        described(tmp_path, entry),
    )
    assert outcome.changes == 1
    x, i, v = np.random.default_rng(1).normal(1, 1, (3, 2, 3))
    session = onnxruntime.InferenceSession(graph.to_onnx().SerializeToString())
    parameters = map(np.float64, (np.exp(-0.2), 0.9, 1.0, 0.5, 0.0))
    s, j, w = ops.step(ops.NeuronVariant("CubaLIF", "cell", reset="none"), [x, i, v, *parameters])
    for found, wanted in zip(session.run(None, {"x": x, "i": i, "v": v}), (j, w, s), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_sequence_without_a_state_starts_at_zero(tmp_path):
    entry = """[[op]]
        domain = "my"
        op = "Readout"
        neuron = "LI"
        form = "sequence"
        inputs = ["signal", "parameter"]
        outputs = ["signal"]
        arithmetic = "relax"
        parameters = { gain = "1/input:1" }"""
    graph, outcome, _ = run(
        "g (float[4, 2, 3] x) => (float[4, 2, 3] y) <float[3] tau = {2, 3, 4}> { y = my.Readout(x, tau) }",
        described(tmp_path, entry),
    )
    assert outcome.claim is Exactness.ALGEBRAIC
    x = np.random.default_rng(1).normal(1, 1, (4, 2, 3)).astype(np.float32)
    gain = (1 / np.array([2, 3, 4])).astype(np.float32)
    wanted = ops.sequence(
        ops.NeuronVariant("LI", arithmetic="relax"), [x, np.zeros((2, 3), np.float32), np.float32(0), gain]
    )
    session = onnxruntime.InferenceSession(graph.to_onnx().SerializeToString())
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], wanted[0])


def test_a_users_description_replaces_ours(tmp_path):
    entry = ENTRY.replace('"my"', '"snn"').replace('"Neuron"', '"LIF"')
    _, outcome, missed = run(
        """g (float[2, 3] x, float[2, 3] v) => (float[2, 3] s, float[2, 3] w) {
            s, w = snn.LIF <beta: float = 0.9, threshold: float = 1.0, reset: string = "subtract"> (x, v) }""",
        described(tmp_path, entry),
    )
    assert (outcome.changes, [remark.rule for remark in missed]) == (0, ["attribute"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fire =", "shoot =", "unknown key 'shoot'"),
        ('"LIF"', '"HH"', "operator must be 'LIF' or"),
        ('"step"', '"cell"', "form must be 'step' or 'sequence'"),
        ('"ge"', '"eq"', "fire must be 'gt' or 'ge', not 'eq'"),
        ('0 = "subtract"', '0 = "soft"', "reset must be"),
        ('"1-1/attr:tau"', '"2/attr:tau"', "parameters.beta must be a number"),
        ('beta = "1-1/attr:tau"\n', "", "parameters.beta is missing"),
        ('"input:2"', '"input:3"', "input 3 is not listed as 'parameter'"),
        ('["signal", "v"]', '["signal"]', "a step must have state 'v'"),
        ('["signal", "v", "parameter"]', '["v", "v", "parameter"]', "'v' occurs more than once"),
        ("tau = 4", "tau = [4]", "defaults.tau must be a text or a number"),
        ('op = "Neuron"\n', "op = 3\n", "op must be a text"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path, old, new, message):
    assert old in ENTRY
    with pytest.raises(InputError) as error:
        described(tmp_path, ENTRY.replace(old, new, 1))
    assert message in str(error.value)
    assert str(error.value).startswith(f"custom operators '{tmp_path / 'ops.toml'}': entry 1 (")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a = [", "not TOML"), ("a = 1", "unknown key 'a'"), ("", "no entries"), (None, "No such file")],
)
def test_files_that_are_no_descriptions(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        MapCustomOps(file=str(tmp_path / "absent.toml")) if text is None else described(tmp_path, text)
