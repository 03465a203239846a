"""Canonicalize: joined reshapes and transposes, and every place a value can be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from snn_optimizer.ir import SNNGraph
from snn_optimizer.passes.cleanup.canonicalize import Canonicalize
from tests.support.growth import assert_linear
from tests.unit.passes.cleanup.harness import HEADER, apply, check


def test_reshapes_become_one():
    run = check(
        Canonicalize(),
        """g (float[N, 2, 3] x) => (float[N, 3, 2] y) <int64[1] f = {-1}, int64[3] t = {-1, 3, 2}, int64[1] u = {1}> {
            a = Flatten(x)
            b = Unsqueeze(a, u)
            c = Squeeze(b, u)
            d = Reshape(c, f)
            e = Reshape(d, t)
            y = Neg(e)
        }""",
    )
    assert run.ops == ["Reshape", "Neg"]


def test_reshape_of_a_reshape_others_read():
    run = check(
        Canonicalize(),
        """g (float[N, 2, 3] x) => (float[N, 6] a, float[N, 3, 2] b) <int64[2] s = {-1, 6}, int64[3] t = {-1, 3, 2}> {
            a = Reshape(x, s)
            b = Reshape(a, t)
        }""",
    )
    assert run.ops == ["Reshape", "Reshape"]
    assert run.applied == {"reshape-of-reshape": 1}
    assert list(run.after.graph.node[1].input) == ["x", "t"]


def test_zero_that_is_a_size_copies_nothing():
    run = check(
        Canonicalize(),
        """g (float[A, B, 3] x) => (float[C, D] y) <int64[1] s = {-1}, int64[2] t = {0, 3}> {
            a = Reshape(x, s)
            b = Reshape <allowzero: int = 1> (a, t)
            y = Neg(b)
        }""",
        sizes={"A": 0, "B": 2},
    )
    assert run.ops == ["Reshape", "Neg"]


def test_reshapes_that_undo_each_other_disappear():
    run = check(
        Canonicalize(),
        """g (float[N, 2, 3] x) => (float[N, 2, 3] y) <int64[2] s = {-1, 6}, int64[3] t = {-1, 2, 3}> {
            a = Reshape(x, s)
            b = Reshape(a, t)
            y = Neg(b)
        }""",
    )
    assert run.ops == ["Neg"]
    assert run.outcome.changes == 2


def test_transposes_become_one():
    run = check(
        Canonicalize(),
        """g (float[2, 3, 4, 5] x) => (float[A, B, C, D] y) {
            a = Transpose <perm: ints = [0, 2, 3, 1]> (x)
            b = Transpose(a)
            c = Transpose <perm: ints = [1, 0, 2, 3]> (b)
            y = Neg(c)
        }""",
    )
    assert run.ops == ["Transpose", "Neg"]
    assert run.applied == {"transpose-of-transpose": 2}


def test_transposes_become_one_from_the_reversed_order_on():
    run = check(
        Canonicalize(),
        """g (float[2, 3, 4] x) => (float[A, B, C] y) {
            a = Transpose(x) b = Transpose <perm: ints = [1, 2, 0]> (a) y = Neg(b) }""",
    )
    assert run.ops == ["Transpose", "Neg"]
    assert list(run.after.graph.node[0].attribute[0].ints) == [1, 0, 2]


def test_transposes_between_an_input_and_an_output_stay():
    run = check(Canonicalize(), "g (float[2, 3] x) => (float[2, 3] y) { a = Transpose(x) y = Transpose(a) }")
    assert run.outcome.changes == 0
    assert run.missed == ["output-is-input"]


def test_a_transpose_without_order_joins_one_with():
    run = check(
        Canonicalize(),
        """g (float[2, 3, 4] x) => (float[A, B, C] y) {
            a = Transpose <perm: ints = [1, 2, 0]> (x) b = Transpose(a) y = Neg(b) }""",
    )
    assert run.ops == ["Transpose", "Neg"]
    assert list(run.after.graph.node[0].attribute[0].ints) == [0, 2, 1]


def test_a_reshape_by_sizes_that_may_hold_a_zero():
    run = check(
        Canonicalize(),
        """g (float[1, 4] x, int64[2] s) => (float[A, B] y) <int64[1] f = {-1}> {
            a = Reshape(x, f) b = Reshape(a, s) y = Neg(b) }""",
        feeds=[{"x": np.ones((1, 4), np.float32), "s": np.array([0, 1])}],
    )
    assert run.outcome.changes == 0
    assert run.missed == ["copies-middle-size", "operand-not-constant"]


def test_nodes_without_inputs():
    model = onnx.parser.parse_model(f"{HEADER} g (float[N] x) => (float[N] y) {{ a = Identity() y = Neg(x) }}")
    assert check(Canonicalize(), model, execute=False).outcome.changes == 0


def test_bodies_that_do_not_fit_their_node():
    text = SCAN.format(body="t = Add(s, x) y = Neg(t)").replace("v, ys = Scan", "v, ys, more = Scan")
    model = onnx.parser.parse_model(f"{HEADER} {text}".replace("(v0, xs)\n", "(v0, xs, xs)\n"))
    assert check(Canonicalize(), model, execute=False).outcome.changes == 0


def test_the_producer_makes_the_output():
    run = check(
        Canonicalize(),
        """g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z) {
            [worker] a = Relu(x)
            [copy] y = Identity(a)
            z = Neg(a)
        }""",
    )
    assert run.ops == ["Relu", "Neg"]
    worker, reader = run.after.graph.node
    assert (worker.name, list(worker.output), list(reader.input)) == ("worker", ["y"], ["y"])


def test_the_second_copy_of_an_output_stays():
    run = check(
        Canonicalize(),
        """g (float[N] x) => (float[N] a, float[N] b, float[N] c) {
            t = Neg(x) a = Identity(t) b = Identity(t) c = Identity(b) }""",
    )
    assert run.ops == ["Neg", "Identity", "Identity"]
    assert "output-twice" in run.missed


def test_the_right_output_of_several_is_renamed():
    run = check(
        Canonicalize(),
        "g (float[N, 4] x) => (float[N, 2] y, float[N, 2] z) {"
        " a, b = Split <axis: int = 1, num_outputs: int = 2> (x) y = Identity(b) z = Add(a, b) }",
    )
    assert list(run.after.graph.node[0].output) == ["a", "y"]


def test_a_declared_output_shape_proves_nothing():
    run = check(
        Canonicalize(),
        """g (float[2, 4] x, int64[2] s) => (float[2, 4] y, float[2, 4] z) { y = Reshape(x, s) z = Neg(y) }""",
        feeds=[{"x": np.ones((2, 4), np.float32), "s": np.array([2, 4])}],
    )
    assert run.missed == ["operand-not-constant"]


SCAN = """g (float[2] v0, float[T, 2] xs) => (float[2] v, float[T, 2] ys) {{
    [loop] v, ys = Scan <num_scan_inputs: int = 1, body: graph = b (float[2] s, float[2] x) => (float[2] t, float[2] y) {{
        {body}
    }}> (v0, xs)
}}"""


def test_inside_a_scan_body():
    run = check(Canonicalize(), SCAN.format(body="a = Identity(x) c = Add(s, a) t = Identity(c) y = Neg(c)"))
    assert run.ops == ["Scan", "Add", "Neg"]


def test_a_scan_body_that_returns_its_input():
    run = check(Canonicalize(), SCAN.format(body="t = Identity(s) y = Neg(x)"))
    assert run.ops == ["Scan", "Identity", "Neg"]
    assert run.missed == ["output-is-input"]


def test_a_cast_inside_a_scan_is_known_by_the_types_around_it():
    text = """g (float[T, 2] x, float[2] v0) => (float[2] v, float[T, 2] ys) {
        p = Relu(x)
        w, q = Scan <num_scan_inputs: int = 1, body: graph = b (s, x1) => (t, y) {
            a = Cast <to: int = 1> (x1)
            t = Add(s, a)
            y = Neg(t)
        }> (v0, p)
        v = Neg(w)
        r = Cast <to: int = 1> (q)
        ys = Neg(r)
    }"""
    model = onnx.parser.parse_model('<ir_version: 9, opset_import: ["": 18]>' + text)
    run = check(Canonicalize(), model)
    assert "Cast" not in run.ops


def test_a_value_captured_by_a_body():
    run = check(
        Canonicalize(),
        """g (float[2] v0, float[T, 2] xs, float[2] w) => (float[2] v, float[T, 2] ys) {
            k = Identity(w)
            v, ys = Scan <num_scan_inputs: int = 1, body: graph = b (float[2] s, float[2] x) => (float[2] t, float[2] y) {
                t = Add(s, k)
                y = Mul(x, k)
            }> (v0, xs)
        }""",
    )
    assert run.ops == ["Scan", "Add", "Mul"]


def test_a_body_output_captured_from_around_it():
    run = check(
        Canonicalize(),
        """g (bool c, float[2] x) => (float[2] y) {
            k = Neg(x)
            y = If <then_branch: graph = a () => (float[2] p) { p = Identity(k) },
                    else_branch: graph = b () => (float[2] q) { q = Abs(k) }> (c)
        }""",
    )
    assert run.missed == ["output-is-captured"]


def test_loop_bodies():
    run = check(
        Canonicalize(),
        """g (float[2] v0) => (float[2] v) <int64 n = {3}> {
            v = Loop <body: graph = b (int64 i, bool c, float[2] s) => (bool d, float[2] t) {
                d = Identity(c)
                a = Identity(s)
                e = Add(a, a)
                t = Identity(e)
            }> (n, , v0)
        }""",
    )
    assert run.ops == ["Loop", "Identity", "Add"]


def test_names_that_a_body_uses_for_itself():
    """A body may have an own value of a name around it; then it cannot be made to read the other one."""
    body = helper.make_graph(
        [
            helper.make_node("Neg", ["x"], ["a"]),
            helper.make_node("Add", ["a", "k"], ["y"]),
        ],
        "b",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["w"], ["a"]),
            helper.make_node("Identity", ["a"], ["k"]),
            helper.make_node("Scan", ["xs"], ["ys"], num_scan_inputs=1, body=body),
        ],
        "g",
        [
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("xs", TensorProto.FLOAT, ["T", 2]),
        ],
        [helper.make_tensor_value_info("ys", TensorProto.FLOAT, ["T", 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    run = check(Canonicalize(), model, execute=False)
    assert run.outcome.changes == 0
    assert run.missed == ["name-hidden"]


def test_functions_and_foreign_operators_are_left_alone():
    run = check(
        Canonicalize(),
        """<ir_version: 9, opset_import: ["": 18, "own": 1]>
        g (float[N] x) => (float[N] y) { a = own.Twice(x) b = Identity(a) y = Neg(b) }
        <domain: "own", opset_import: ["": 18]> Twice (x) => (y) { a = Identity(x) y = Add(a, a) }""",
    )
    assert run.ops == ["Twice", "Neg"]
    assert [node.op_type for node in run.after.functions[0].node] == ["Identity", "Add"]
    foreign = check(
        Canonicalize(),
        '<ir_version: 9, opset_import: ["": 18, "own": 1]> g (float[N] x) => (float[N] y) {'
        " a = own.Identity(x) b = Cast <to: int = 1> (a) y = Neg(b) }",
        execute=False,
    )
    assert foreign.outcome.changes == 0
    assert foreign.missed == ["type-unknown"]


def test_sizes_that_are_known_once_other_nodes_are_gone():
    run = check(
        Canonicalize(),
        """g (float[N, 4] x) => (float[N, 4] y) <int64[2] u = {0, 3}, int64[2] w = {3, -4}> {
            i = Identity(u)
            a = Unsqueeze(x, i)
            b = Squeeze(a, w)
            y = Neg(b)
        }""",
    )
    assert run.ops == ["Neg"]
    assert not run.missed


def test_a_shared_constant_stays_for_its_other_readers():
    run = check(
        Canonicalize(),
        "g (float[N] x) => (float[N] y) <float one = {1}> { a = Mul(x, one) b = Add(a, one) y = Neg(b) }",
    )
    assert run.ops == ["Add", "Neg"]
    assert run.initializers == ["one"]


def test_an_input_with_a_default_is_not_constant():
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18]> g (float[N] x, float one) => (float[N] y) { a = Mul(x, one) y = Neg(a) }'
    )
    model.graph.initializer.append(helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]))
    assert check(Canonicalize(), model).outcome.changes == 0


def test_metadata_and_names_of_other_nodes_stay():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]> g (float[N] x) => (float[N] y) { [first] a = Relu(x) [copy] y = Identity(a) }'
    )
    model.graph.node[0].metadata_props.add(key="k", value="v")
    run = check(Canonicalize(), model)
    assert run.after.graph.node[0].name == "first"
    assert run.after.graph.node[0].metadata_props[0].value == "v"


@pytest.mark.parametrize("fan_out", [False, True])
def test_linear_time(fan_out):
    def prepared(number: int) -> Callable[[], None]:
        names = ["x", *(f"v{i}" for i in range(number))]
        nodes = [helper.make_node("Identity", ["x" if fan_out else names[i]], [names[i + 1]]) for i in range(number)]
        sums = [*(f"s{i}" for i in range(number)), "y"]
        nodes += [
            helper.make_node("Add", [names[i + 1], "x" if i == 0 else sums[i]], [sums[i + 1]]) for i in range(number)
        ]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        )
        loaded = SNNGraph.from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))

        def task() -> None:
            outcome, _ = apply(Canonicalize(), loaded)
            assert outcome.changes == number

        return task

    assert_linear(prepared, 1000)
