"""Running single nodes on constants."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from snn_optimizer.errors import ExecutionError
from snn_optimizer.execution.evaluate import node_evaluator
from snn_optimizer.ir import SNNGraph


def graph(body: str) -> SNNGraph:
    text = (
        f'<ir_version: 9, opset_import: ["": 18]> g (float[2] x) => (float[2] y) <float[2] c = {{1, 2}}> {{ {body} }}'
    )
    return SNNGraph.from_onnx(onnx.parser.parse_model(text))


def test_a_node_whose_output_has_no_declared_type_is_run() -> None:
    one = graph("a = Identity(c) y = Add(x, a)")
    result = node_evaluator(one)(one.module.graph.nodes[0], [np.array([1, 2], np.float32)])
    assert [a.dtype for a in result] == [np.float32]
    np.testing.assert_array_equal(result[0], [1, 2])


def test_attributes_and_several_outputs_are_kept() -> None:
    one = graph(
        "a, b = Split <axis: int = 0, num_outputs: int = 2> (c) d = Concat <axis: int = 0> (b, a) y = Add(x, d)"
    )
    first, second = node_evaluator(one)(one.module.graph.nodes[0], [np.array([1, 2], np.float32)])
    assert (first.tolist(), second.tolist()) == ([1], [2])


def test_what_the_runtime_cannot_run_is_an_execution_error() -> None:
    one = graph("a = Identity(c) y = Add(x, a)")
    node = one.module.graph.nodes[0]
    node.op = "NoSuchOperator"
    with pytest.raises(ExecutionError):
        node_evaluator(one)(node, [np.array([1, 2], np.float32)])
