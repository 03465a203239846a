"""FoldConstants: what is evaluated, what it may cost, and what is never touched."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from snn_optimizer.ir import SNNGraph
from snn_optimizer.passes.cleanup.fold_constants import FoldConstants
from tests.support.growth import assert_linear
from tests.unit.passes.cleanup.harness import HEADER, apply, check, evaluator, parse


def test_a_chain_goes_in_one_run():
    run = check(
        FoldConstants(),
        """g (float[N, 2] x) => (float[N, 3] y) <float[3, 2] w = {1, 2, 3, 4, 5, 6}, float two = {2}> {
            a = Transpose(w)
            b = Mul(a, two)
            c = Neg(b)
            y = MatMul(x, c)
        }""",
    )
    assert run.ops == ["MatMul"]
    assert run.outcome.changes == 3
    assert run.applied == {"constant-inputs": 3}
    (weight,) = run.after.graph.initializer
    assert numpy_helper.to_array(weight).tolist() == [[-2, -6, -10], [-4, -8, -12]]


def test_special_values_and_constant_nodes():
    run = check(
        FoldConstants(),
        """g (float[3] x) => (float[3] y) {
            c = Constant <value: tensor = float[3] {-0.0, 1e38, 1e-45}> ()
            i = Constant <value_ints: ints = [1, 1, 1]> ()
            f = Cast <to: int = 1> (i)
            d = Mul(c, c)
            e = Div(f, d)
            y = Add(x, e)
        }""",
    )
    assert run.ops == ["Add"]


def test_declared_types_agree():
    run = check(
        FoldConstants(),
        "g (float[2] x) => (float[2] y) <float[2] c = {1, 2}, float[2] a> { a = Neg(c) y = Add(x, a) }",
    )
    assert run.ops == ["Add"]


def test_rank_zero_and_several_outputs():
    run = check(
        FoldConstants(),
        """g (float x) => (float y) <float[2] w = {1, 2}, float half = {0.5}, int64[1] zero = {0}> {
            a, b = Split <axis: int = 0, num_outputs: int = 2> (w)
            c = Squeeze(a, zero)
            d = Squeeze(b, zero)
            e = Mul(c, half)
            f = Add(e, d)
            y = Add(x, f)
        }""",
    )
    assert run.ops == ["Add"]


def test_missing_inputs_and_outputs_keep_their_places():
    run = check(
        FoldConstants(max_growth=64),
        """g (float[3] x) => (float[3] y) <float[3] w = {1, 5, 5}, float high = {4}> {
            a = Clip(w, , high)
            b, , c = Unique(a)
            d = Cast <to: int = 1> (c)
            y = Add(x, d)
        }""",
    )
    assert run.ops == ["Add"]


SHAPES = {
    "fixed": ("float[2, 3] x", "s = Shape(x)", [2, 3]),
    "fixed-in-part": ("float[N, 3] x", "s = Shape <start: int = -1> (x)", [3]),
    "from-the-middle": ("float[2, 3, 4] x", "s = Shape <start: int = 1, end: int = 2> (x)", [3]),
    "rank-zero": ("float x", "s = Shape(x)", []),
    "of-a-value": ("float[N, 3] x", "t = Transpose(x) n = Neg(t) s = Shape <end: int = 1> (n)", [3]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_fixed_sizes(name):
    declared, nodes, sizes = SHAPES[name]
    text = f"g ({declared}) => (int64[K] y) {{ {nodes} y = Neg(s) }}"
    run = check(FoldConstants(), text, evaluate=False)
    assert run.ops == ["Neg"]
    assert run.applied == {"fixed-shape": 1}
    assert numpy_helper.to_array(run.after.graph.initializer[0]).tolist() == sizes


def test_sizes_of_a_constant_are_evaluated_too():
    run = check(
        FoldConstants(), "g (int64[1] x) => (int64[1] y) <float[3] c = {1, 2, 3}> { s = Shape(c) y = Add(x, s) }"
    )
    assert run.ops == ["Add"]


REFUSALS = {
    "graph-output": "g (float[N] x) => (float[N] z, float[2] y) <float[2] c = {1, 2}> { z = Neg(x) y = Neg(c) }",
    "random": """g (float[2] x) => (float[2] y) <float[2] c = {1, 2}> {
        a = RandomNormalLike <seed: float = 1> (c) b = Mul(a, x) c2 = Sub(b, b) y = Add(c2, x) }""",
    "quantization": """g (float[2] x) => (float[2] y)
        <int8[2] q = {1, 2}, float scale = {0.5}> { w = DequantizeLinear(q, scale) y = Add(x, w) }""",
    "grows": "g (float[64] x) => (float[64] y) <int64[1] n = {64}> { a = ConstantOfShape(n) y = Add(x, a) }",
    "size-unknown": "g (float[N, 3] x) => (int64[2] y) { s = Shape(x) y = Neg(s) }",
    "rank-unknown": "g (float[2, 3] x, int64[M] r) => (int64[M] y) { a = Reshape(x, r) s = Shape(a) y = Neg(s) }",
    "has-body": """g (float[2] x) => (float[2] y) <bool c = {1}> {
        a = If <then_branch: graph = t () => (float[2] p) { p = Neg(x) },
                else_branch: graph = e () => (float[2] q) { q = Abs(x) }> (c) y = Neg(a) }""",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refuses(name):
    feeds = None
    if name == "random":
        feeds = [{"x": np.zeros(2, np.float32)}]
    if name == "rank-unknown":
        feeds = [{"x": np.ones((2, 3), np.float32), "r": np.array([3, 2])}]
    run = check(FoldConstants(), REFUSALS[name], feeds=feeds)
    assert run.outcome.changes == 0
    assert run.missed == [name]


def test_sizes_that_are_known_once_other_nodes_are_folded():
    run = check(
        FoldConstants(),
        """g (float[2, 3] x, int64[3] z) => (int64[3] y) <int64[1] minus = {-1}> {
            axes = Neg(minus) a = Unsqueeze(x, axes) s = Shape(a) y = Add(s, z) }""",
    )
    assert run.ops == ["Add"]
    assert not run.missed


def test_what_a_loop_read_stays_for_others_when_the_loop_goes():
    """Its last reader asked for its sizes; the value its body reads many times has another reader."""
    run = check(
        FoldConstants(),
        """g (float[2, 2] x, float[2] s0, int64[2] z) => (float[2] y, int64[2] n) {
            k = Neg(s0)
            v, w = Scan <num_scan_inputs: int = 1, body: graph = b (float[2] s, float[2] x1) => (float[2] t, float[2] u) {
                a = Add(k, k) c = Mul(k, a) d = Sub(c, k) t = Add(s, d) u = Neg(x1) }> (s0, x)
            m = Shape(w)
            n = Add(m, z)
            y = Exp(k)
        }""",
    )
    assert run.ops == ["Neg", "Add", "Exp"]


def test_sizes_that_are_an_output_stay():
    run = check(FoldConstants(), "g (float[2, 3] x) => (int64[2] y) { y = Shape(x) }")
    assert run.missed == ["graph-output"]


def test_a_declared_output_shape_proves_nothing():
    run = check(
        FoldConstants(),
        """g (float[2, 3] x, int64[2] r) => (float[2, 3] y, int64[2] z) { y = Reshape(x, r) s = Shape(y) z = Neg(s) }""",
        feeds=[{"x": np.ones((2, 3), np.float32), "r": np.array([2, 3])}],
    )
    assert run.missed == ["rank-unknown"]


def test_operators_of_other_domains_stay():
    run = check(
        FoldConstants(),
        """<ir_version: 9, opset_import: ["": 18, "own": 1]>
        g (float[2] x) => (float[2] y) <float[2] c = {1, 2}> { a = own.Twice(c) y = Add(x, a) }
        <domain: "own", opset_import: ["": 18]> Twice (x) => (y) { a = Constant <value_float: float = 2.0> () b = Neg(a)
            c = Neg(b) y = Mul(x, c) }""",
    )
    assert run.outcome.changes == 0
    assert run.missed == ["foreign-domain"]


def test_without_an_evaluator():
    run = check(
        FoldConstants(),
        "g (float[2] x) => (float[2] y) <float[2] c = {1, 2}> { a = Neg(c) y = Add(x, a) }",
        evaluate=False,
    )
    assert run.missed == ["no-evaluator"]


BROKEN = {
    "raises": lambda node, arrays: 1 / 0,  # noqa: ARG005
    "too-few": lambda node, arrays: [],  # noqa: ARG005
    "another-type": lambda node, arrays: [arrays[0].astype(np.int16)],  # noqa: ARG005
    "text": lambda node, arrays: [np.array(["a"], dtype=object)],  # noqa: ARG005
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_evaluated_stays(name):
    declared = "" if name == "text" else ", float[2] a"
    model = parse(f"g (float[2] x) => (float[2] y) <float[2] c = {{1, 2}}{declared}> {{ a = Neg(c) y = Add(x, a) }}")
    graph = SNNGraph.from_onnx(model)
    outcome, remarks = apply(FoldConstants(), graph, BROKEN[name])
    assert outcome.changes == 0
    assert [remark.rule for remark in remarks] == ["not-evaluable"]
    assert graph.to_onnx() == SNNGraph.from_onnx(model).to_onnx()


def test_operators_that_are_no_tensors():
    run = check(
        FoldConstants(),
        """g (float[2] x) => (float[2] y) <float[2] c = {1, 2}, int64 i = {0}> {
            s = SequenceConstruct(c) a = SequenceAt(s, i) y = Add(x, a) }""",
    )
    assert run.outcome.changes == 0
    assert run.missed == ["not-evaluable"]


def test_a_shared_input_does_not_count_as_freed():
    text = """g (float[N, 16] x) => (float[N, 16] y) {
        a = Transpose(w) b = MatMul(x, w) y = MatMul(b, a) }"""
    model = onnx.parser.parse_model(f"{HEADER} {text}".replace("{\n", "{\n", 1))
    model.graph.initializer.append(numpy_helper.from_array(np.eye(16, dtype=np.float32) * 0.5, "w"))
    run = check(FoldConstants(), model)
    assert run.outcome.changes == 0
    assert run.missed == ["grows"]
    allowed = check(FoldConstants(max_growth=1024), model)
    assert allowed.ops == ["MatMul", "MatMul"]


def test_a_fold_that_frees_an_input_of_an_earlier_node():
    text = """g (float[N, 16] x) => (float[N, 16] y) {
        a = Transpose(w) s = ReduceSum <keepdims: int = 0> (w) b = MatMul(x, a) y = Mul(b, s) }"""
    model = onnx.parser.parse_model(f"{HEADER} {text}")
    model.graph.initializer.append(numpy_helper.from_array(np.eye(16, dtype=np.float32) * 0.5, "w"))
    run = check(FoldConstants(), model)
    assert run.ops == ["MatMul", "Mul"]
    assert run.outcome.changes == 2
    assert not run.missed
    assert "w" not in run.initializers


def test_a_fill_of_gigabytes_is_not_tried():
    text = f"{HEADER} g (float[N] x) => (float[N] y) <int64[1] n = {{4000000000}}> {{ a = ConstantOfShape(n) b = ReduceSum(a) y = Add(x, b) }}"
    graph = SNNGraph.from_onnx(onnx.parser.parse_model(text))
    asked = []
    outcome, remarks = apply(FoldConstants(), graph, lambda node, arrays: asked.append(node) or arrays)
    assert (outcome.changes, asked) == (0, [])
    assert [remark.rule for remark in remarks] == ["grows"]


def test_a_result_of_unforeseen_size():
    run = check(
        FoldConstants(),
        "g (float[64] x) => (float[64] y) <int64[1] n = {-64}> { m = Neg(n) a = ConstantOfShape(m) y = Add(x, a) }",
    )
    assert run.ops == ["ConstantOfShape", "Add"]
    assert run.missed == ["grows"]


def test_a_constant_that_is_an_output_is_not_freed():
    model = onnx.parser.parse_model(
        f"{HEADER} g (float[N, 16] x) => (float[N, 16] y, float[16, 16] w) {{ a = Transpose(w) y = MatMul(x, a) }}"
    )
    model.graph.initializer.append(numpy_helper.from_array(np.eye(16, dtype=np.float32) * 0.5, "w"))
    assert check(FoldConstants(), model).missed == ["grows"]


def test_nodes_without_inputs_are_none_of_its_business():
    text = "g (float[2] x) => (float[2] y) { a = RandomNormal <shape: ints = [2]> () b = Sub(a, a) y = Add(x, b) }"
    assert check(FoldConstants(), text).remarks == []


def test_a_fill_may_grow_when_allowed():
    run = check(FoldConstants(max_growth=256), REFUSALS["grows"])
    assert run.ops == ["Add"]


def test_inside_a_scan_body_and_captured():
    run = check(
        FoldConstants(),
        """g (float[2] v0, float[T, 2] xs) => (float[2] v, float[T, 2] ys) <float[2] w = {1, 2}> {
            k = Neg(w)
            v, ys = Scan <num_scan_inputs: int = 1, body: graph = b (float[2] s, float[2] x) => (float[2] t, float[2] y)
                <float[2] u = {3, 4}> {
                c = Mul(k, u)
                n = Shape(x)
                f = Cast <to: int = 1> (n)
                d = Add(c, f)
                t = Add(s, d)
                y = Mul(x, d)
            }> (v0, xs)
        }""",
    )
    assert run.ops == ["Scan", "Add", "Mul"]


def test_a_body_output_stays():
    run = check(
        FoldConstants(),
        """g (float[T, 2] xs) => (float[T, 2] ys, float[T, 2] zs) {
            ys, zs = Scan <num_scan_inputs: int = 1, body: graph = b (float[2] x) => (float[2] y, float[2] z)
                <float[2] u = {3, 4}> { y = Neg(u) z = Add(x, y) }> (xs)
        }""",
    )
    assert run.missed == ["graph-output"]


def test_an_input_with_a_default_is_not_constant():
    model = onnx.parser.parse_model(
        f"{HEADER} g (float[2] x, float[2] c) => (float[2] y) {{ a = Neg(c) y = Add(x, a) }}"
    )
    model.graph.initializer.append(helper.make_tensor("c", TensorProto.FLOAT, [2], [1.0, 2.0]))
    assert check(FoldConstants(), model).outcome.changes == 0


def test_neurons_are_not_folded():
    from snn_optimizer.ops import DOMAIN, NeuronVariant, function_proto

    variant = NeuronVariant("IF", form="cell")
    node = helper.make_node(
        variant.op_type, ["c", "c", "c", "c", "c"], ["s", "v"], domain=DOMAIN, **variant.attributes()
    )
    graph = helper.make_graph(
        [node, helper.make_node("Add", ["s", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [helper.make_tensor("c", TensorProto.FLOAT, [], [1.0])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=[function_proto(variant)])
    assert check(FoldConstants(), model).missed == ["foreign-domain"]


def test_linear_time():
    def prepared(number: int) -> Callable[[], None]:
        """A shared scalar, and a chain on it whose links each read it."""
        nodes = [helper.make_node("Add", [f"a{i}", "one"], [f"a{i + 1}"], name=f"node{i}") for i in range(number)]
        nodes.append(helper.make_node("Add", ["x", f"a{number}"], ["y"]))
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
            [helper.make_tensor(name, TensorProto.FLOAT, [], [1.0]) for name in ("a0", "one")],
        )
        loaded = SNNGraph.from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))

        def task() -> None:
            outcome, _ = apply(FoldConstants(), loaded, lambda node, arrays: [arrays[0] + arrays[1]])  # noqa: ARG005
            assert outcome.changes == number

        return task

    assert_linear(prepared, 500)


def test_the_test_evaluator_runs_the_operator():
    model = parse("g (float[2] x) => (float[2] y) <float[2] c = {1, 2}> { a = Neg(c) y = Add(x, a) }")
    node = SNNGraph.from_onnx(model).module.graph.nodes[0]
    (result,) = evaluator(model)(node, [np.array([1, 2], np.float32)])
    assert result.tolist() == [-1, -2]
