"""CommonSubexpressions: what is equal, and which equal nodes stay."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from snn_optimizer.ir import SNNGraph
from snn_optimizer.ir.contents import attribute_key
from snn_optimizer.ops import DOMAIN, NeuronVariant, function_proto
from snn_optimizer.passes.cleanup.common_subexpressions import CommonSubexpressions
from tests.support.growth import assert_linear
from tests.unit.passes.cleanup.harness import HEADER, apply, check

MERGES = {
    "same-inputs": ("g (float[N] x) => (float[N] y) { a = Neg(x) b = Neg(x) y = Add(a, b) }", 1),
    "chains": ("g (float[N] x) => (float[N] y) { a = Neg(x) b = Neg(x) c = Exp(a) d = Exp(b) y = Add(c, d) }", 2),
    "equal-constants": (
        """g (float[N] x) => (float[N] y) <float[1] c = {1}, float[1] d = {1}> {
            a = Add(x, c) b = Add(x, d) y = Mul(a, b) }""",
        1,
    ),
    "constant-nodes": (
        """g (float[N] x) => (float[N] y) {
            c = Constant <value_float: float = 2.0> () d = Constant <value_float: float = 2.0> ()
            a = Add(x, c) b = Add(x, d) y = Mul(a, b) }""",
        2,
    ),
    "constant-tensors": (
        """g (float[2] x) => (float[2] y) {
            c = Constant <value: tensor = float[2] {1, 2}> () d = Constant <value: tensor = float[2] {1, 2}> ()
            a = Add(x, c) b = Add(x, d) y = Mul(a, b) }""",
        2,
    ),
    "constants-of-two-kinds": (
        """g (float[2] x) => (float[2] y) <float[2] c = {1, 2}> {
            d = Constant <value_floats: floats = [1.0, 2.0]> () a = Add(x, c) b = Add(x, d) y = Mul(a, b) }""",
        1,
    ),
    "attributes": (
        """g (float[2, 3] x) => (float[3, 2] y) {
            a = Transpose <perm: ints = [1, 0]> (x) b = Transpose <perm: ints = [1, 0]> (x) y = Add(a, b) }""",
        1,
    ),
    "several-outputs": (
        """g (float[4] x) => (float[2] y) {
            a, b = Split <num_outputs: int = 2> (x) c, d = Split <num_outputs: int = 2> (x) e = Sub(a, d) f = Sub(b, c)
            y = Mul(e, f) }""",
        1,
    ),
    "missing-inputs": (
        """g (float[N] x) => (float[N] y) <float high = {1}> {
            a = Clip(x, , high) b = Clip(x, , high) y = Add(a, b) }""",
        1,
    ),
    "rank-zero": ("g (float x) => (float y) { a = Neg(x) b = Neg(x) y = Add(a, b) }", 1),
    "the-first-is-an-output": (
        "g (float[N] x) => (float[N] a, float[N] y) { a = Neg(x) b = Neg(x) y = Exp(b) }",
        1,
    ),
    "a-shape-of-symbols": (
        """g (float[A, B] x) => (int64[2] y) { a = Shape(x) b = Shape(x) y = Add(a, b) }""",
        1,
    ),
    "second-reader": (
        "g (float[N] x) => (float[N] y, float[N] z) { a = Neg(x) b = Neg(x) y = Add(a, b) z = Exp(b) }",
        1,
    ),
}


@pytest.mark.parametrize("name", MERGES)
def test_merges(name):
    text, number = MERGES[name]
    run = check(CommonSubexpressions(), text)
    assert run.outcome.changes == number
    assert not run.missed


DIFFERENT = {
    "attributes": """g (float[2, 2] x) => (float[2, 2] y) {
        a = Transpose <perm: ints = [1, 0]> (x) b = Transpose <perm: ints = [0, 1]> (x) y = Add(a, b) }""",
    "inputs": "g (float[N] x, float[N] z) => (float[N] y) { a = Sub(x, z) b = Sub(z, x) y = Mul(a, b) }",
    "signs-of-zero": """g (float[N] x) => (float[N] y) {
        c = Constant <value_float: float = 0.0> () d = Constant <value_float: float = -0.0> ()
        a = Add(x, c) b = Add(x, d) y = Add(a, b) }""",
    "tensors-without-names": """g (float[2] x) => (float[2] y) {
        c = Constant <value: tensor = float[2] {1, 2}> () d = Constant <value: tensor = float[2] {1, 3}> ()
        a = Add(x, c) b = Add(x, d) y = Mul(a, b) }""",
    "types-of-a-constant": """g (float[N] x) => (float[N] y) <int64[1] c = {1}, int32[1] d = {1}> {
        a = Cast <to: int = 1> (c) b = Cast <to: int = 1> (d) e = Mul(a, x) y = Mul(e, b) }""",
    "shapes-of-a-constant": """g (float[1] x) => (float[1] y) <float[1] c = {1}, float d = {1}> {
        a = Add(x, c) b = Add(x, d) y = Add(a, b) }""",
    "outputs": """g (float[1, 1, 4] x) => (float[1, 1, 2] y, int64[1, 1, 2] z) {
        a = MaxPool <kernel_shape: ints = [2], strides: ints = [2]> (x)
        b, i = MaxPool <kernel_shape: ints = [2], strides: ints = [2]> (x) y = Add(a, b) z = Neg(i) }""",
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_leaves_what_differs(name):
    run = check(CommonSubexpressions(), DIFFERENT[name])
    assert run.outcome.changes == 0
    assert run.remarks == []


def test_two_outputs_stay_two():
    run = check(CommonSubexpressions(), "g (float[N] x) => (float[N] a, float[N] b) { a = Neg(x) b = Neg(x) }")
    assert run.missed == ["graph-output"]


def test_random_nodes_stay():
    run = check(
        CommonSubexpressions(),
        """g (float[N] x) => (float[N] y) {
            a = RandomNormalLike(x) b = RandomNormalLike(x) c = Sub(a, b) d = Abs(c) e = Relu(x) y = Max(e, e) }""",
    )
    assert run.outcome.changes == 0
    assert run.missed == ["random"]


def test_foreign_nodes_stay():
    run = check(
        CommonSubexpressions(),
        """<ir_version: 9, opset_import: ["": 18, "own": 1]>
        g (float[N] x) => (float[N] y) { a = own.Twice(x) b = own.Twice(x) y = Add(a, b) }
        <domain: "own", opset_import: ["": 18]> Twice (x) => (y) { a = Neg(x) b = Neg(x) y = Add(a, b) }""",
    )
    assert run.outcome.changes == 0
    assert run.missed == ["foreign-domain"]


def test_equal_populations_are_one():
    variant = NeuronVariant("LIF")
    inputs = ["x", *["c"] * (len(variant.inputs) - 1)]
    calls = [
        helper.make_node(variant.op_type, inputs, [f"s{i}", f"v{i}"], f"n{i}", domain=DOMAIN, **variant.attributes())
        for i in range(2)
    ]
    graph = helper.make_graph(
        [*calls, helper.make_node("Add", ["s0", "s1"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", 2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", 2, 3])],
        [helper.make_tensor("c", TensorProto.FLOAT, [], [0.5])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=[function_proto(variant)])
    assert check(CommonSubexpressions(), model).outcome.changes == 1


def test_inside_a_scan_body_but_not_across():
    run = check(
        CommonSubexpressions(),
        """g (float[2] v0, float[T, 2] xs, float[2] w) => (float[2] v, float[T, 2] ys, float[2] z) {
            k = Neg(w)
            l = Neg(w)
            z = Add(k, l)
            v, ys = Scan <num_scan_inputs: int = 1, body: graph = b (float[2] s, float[2] x) => (float[2] t, float[2] y) {
                c = Neg(w)
                d = Add(s, c)
                e = Add(s, c)
                f = Add(d, k)
                h = Add(e, l)
                t = Add(f, h)
                y = Mul(x, d)
            }> (v0, xs)
        }""",
    )
    assert run.outcome.changes == 3
    assert run.ops.count("Neg") == 2


def test_nodes_with_bodies_stay():
    branch = "<then_branch: graph = t () => (float[2] p) { p = Neg(x) }, else_branch: graph = e () => (float[2] q) { q = Abs(x) }>"
    text = f"g (float[2] x, bool c) => (float[2] y) {{ a = If {branch} (c) b = If {branch} (c) y = Add(a, b) }}"
    run = check(CommonSubexpressions(), text)
    assert run.outcome.changes == 0


def test_large_constants_are_known_by_object():
    model = onnx.parser.parse_model(
        f"{HEADER} g (float[65] x) => (float[65] y) {{ a = Add(x, c) b = Add(x, d) y = Mul(a, b) }}"
    )
    for name in "cd":
        model.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [65], [1.0] * 65))
    assert check(CommonSubexpressions(), model).outcome.changes == 0


def test_names_that_a_body_uses_for_itself():
    body = helper.make_graph(
        [helper.make_node("Exp", ["x"], ["a"]), helper.make_node("Add", ["a", "k"], ["y"])],
        "b",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Neg", ["w"], ["a"]),
            helper.make_node("Neg", ["w"], ["k"]),
            helper.make_node("Scan", ["xs"], ["ys"], num_scan_inputs=1, body=body),
            helper.make_node("Exp", ["a"], ["z"]),
        ],
        "g",
        [
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("xs", TensorProto.FLOAT, ["T", 2]),
        ],
        [
            helper.make_tensor_value_info("ys", TensorProto.FLOAT, ["T", 2]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, [2]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    assert check(CommonSubexpressions(), model, execute=False).missed == ["name-hidden"]


def test_attributes_are_compared_by_value():
    text, other = helper.make_tensor_type_proto(TensorProto.STRING, None), helper.make_tensor_type_proto(1, [2])
    same = [
        (1, 1), (1.5, np.float32(1.5)), (np.nan, np.nan), ("a", "a"), ([1, 2], (1, 2)), (text, copy.deepcopy(text)),
        (np.ones(2), np.ones(2)), (np.array(["a"], object), np.array(["a"], object)),
    ]  # fmt: skip
    assert all(attribute_key(first) == attribute_key(second) for first, second in same)
    different = [1, 1.0, -1, "1", b"1", 0.0, -0.0, [1], [1.0], [], text, other, np.ones(1), np.ones(1, np.float32)]
    assert len({attribute_key(held) for held in different}) == len(different)


def test_linear_time():
    def prepared(number: int) -> Callable[[], None]:
        nodes = [helper.make_node("Neg", ["x"], [f"a{i}"]) for i in range(number)]
        sums = ["x", *(f"s{i}" for i in range(number - 1)), "y"]
        nodes += [helper.make_node("Add", [f"a{i}", sums[i]], [sums[i + 1]]) for i in range(number)]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        )
        loaded = SNNGraph.from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))

        def task() -> None:
            outcome, _ = apply(CommonSubexpressions(), loaded)
            assert outcome.changes == number - 1

        return task

    assert_linear(prepared, 1000)
