"""What can make a NaN is named; a neuron that could meet one is not specialized."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from snn_optimizer.api import Job, run_job
from snn_optimizer.ir import SNNGraph
from snn_optimizer.lowering.finite import nan_source
from tests.support.unrolling import Habits, Layer, Network, Neuron, unroll
from tests.unit.passes.cleanup.harness import session

LEAK = Neuron(charge="leak", threshold=0.75)


def source(text: str) -> str | None:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]> {text}')
    return nan_source(SNNGraph.from_onnx(model).module)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("g (float[2] x) => (float[2] y) <float[2] w = {1.0, -0.5}> { y = Mul(x, w) }", None),
        ("g (float[2] x) => (float[2] y) <float[2] w = {1.0, 1e30}> { y = Mul(x, w) }", "constant 'w'"),
        ("g (float[2] x) => (float[2] y) <float[2] w = {1.0, 2.0}> { y = Div(x, w) }", None),
        ("g (float[2] x) => (float[2] y) <float[2] w = {1.0, 0.0}> { y = Div(x, w) }", "divisor may be zero"),
        ("g (float[2] x) => (float[2] y) <float[2] w = {1.0, 1e-40}> { y = Div(x, w) }", "divisor may be zero"),
        ("g (float[2] x) => (float[2] y) { z = Abs(x) y = Div(x, z) }", "divisor may be zero"),
        ("g (float[2] x) => (float[2] y) { y = Sqrt(x) }", "Sqrt is not defined everywhere"),
    ],
)
def test_sources(text: str, found: str | None) -> None:
    named = source(text)
    assert named is None if found is None else named is not None and found in named


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(value: float) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> g (float[2] x) => (float[2] y) { y = Add(x, w) }'
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, value], np.float32), "w"))
    assert "constant 'w'" in str(nan_source(SNNGraph.from_onnx(model).module))


@pytest.mark.parametrize("variance", [1.0, 0.0, -1.0])
def test_variances(variance: float) -> None:
    text = (
        "g (float[1, 2] x) => (float[1, 2] y) <float[2] a = {1.0, 1.0}, float[2] v = {1.0, VARIANCE}> "
        "{ y = BatchNormalization <epsilon: float = 0.0> (x, a, a, a, v) }"
    )
    assert (source(text.replace("VARIANCE", str(variance))) is None) == (variance > 0)


@pytest.mark.parametrize("tau", [2.0, 0.0])
def test_a_time_constant_of_zero_keeps_the_plain_test(tau: float) -> None:
    model = unroll(Network((Layer(4, neuron=LEAK),)), 5, Habits(constants="initializers"))
    for tensor in model.graph.initializer:
        if tensor.name.endswith("tau"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(tau, np.float32), tensor.name))
    graph, report = run_job(model, Job(pipeline="@O1", verify=False))
    known = [r for p in report.pass_results for r in p.remarks if r.rule in {"threshold-known", "may-be-nan"}]
    assert [r.rule for r in known] == ["threshold-known" if tau else "may-be-nan"]
    feeds = {"x": (np.random.default_rng(0).random((5, 3, 6)) < 0.5).astype(np.float32)}
    before, after = (session(each).run(None, feeds) for each in (model, graph.to_onnx()))
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new, old)
