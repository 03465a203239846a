"""DeadCode: dead nodes everywhere, and states of Scan that only feed themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from snn_optimizer.ir import SNNGraph
from snn_optimizer.ops import DOMAIN, NeuronVariant, function_proto
from snn_optimizer.passes.cleanup.dead_code import DeadCode
from tests.support.growth import assert_linear
from tests.unit.passes.cleanup.harness import HEADER, apply, check


def scan_of(model: onnx.ModelProto, position: int = 0) -> onnx.NodeProto:
    return [node for node in model.graph.node if node.op_type == "Scan"][position]


def body_of(node: onnx.NodeProto) -> onnx.GraphProto:
    return next(attribute.g for attribute in node.attribute if attribute.name == "body")


def attribute_of(node: onnx.NodeProto, name: str):
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)


def test_nodes_initializers_and_functions():
    run = check(
        DeadCode(),
        """<ir_version: 9, opset_import: ["": 18, "own": 1]>
        g (float[N] x) => (float[N] y) <float c = {1}, float d = {2}, float e = {3}> {
            a = Add(x, c) b = Add(a, d) f = own.Twice(b) y = Sub(x, d) }
        <domain: "own", opset_import: ["": 18]> Twice (x) => (y) { y = Add(x, x) }
        <domain: "own", opset_import: ["": 18, "own": 1]> Thrice (x) => (y) { z = own.Twice(x) y = Add(x, z) }""",
    )
    assert run.ops == ["Sub"]
    assert run.initializers == ["d"]
    assert not run.after.functions
    assert run.applied["nodes"] == 3
    assert run.outcome.details["nodes"] == 3


@pytest.mark.parametrize(
    "text",
    [
        "g (float[N] x) => (float[N] y) { y = Neg(x) }",
        "g (float[N] x, float[N] unused) => (float[N] y) { y = Neg(x) }",
        "g (float[3] x) => (float[2] y) <int64[1] k = {2}> { y, i = TopK(x, k) }",
        "g (float x) => (float x, float y) { y = Neg(x) }",
        "g (float[4] x) => (float[2] y) { a, b = Split <num_outputs: int = 2> (x) y = Add(a, b) }",
    ],
)
def test_leaves_what_is_needed(text):
    run = check(DeadCode(), text, execute="=> (float x," not in text)
    assert run.outcome.changes == 0
    assert run.remarks == []


def test_only_unused_constants():
    run = check(DeadCode(), "g (float[N] x) => (float[N] y) <float c = {1}> { y = Neg(x) }")
    assert run.outcome.changes == 1
    assert run.outcome.details == {"constants-and-functions": 1}


def test_dead_nodes_in_bodies():
    run = check(
        DeadCode(),
        """g (bool c, float[2] x) => (float[2] y) {
            k = Neg(x)
            l = Exp(x)
            y = If <then_branch: graph = t () => (float[2] p) { p = Abs(k) r = Add(p, l) },
                    else_branch: graph = e () => (float[2] q) { q = Abs(x) }> (c)
            z = If <then_branch: graph = v () => (float[2] p2) { p2 = Abs(k) },
                    else_branch: graph = w () => (float[2] q2) { q2 = Abs(x) }> (c)
        }""",
    )
    assert run.ops == ["Neg", "If", "Abs", "Abs"]
    assert run.applied["nodes"] == 3


SCAN = """g (float[2] a0, float[2] b0, float[2] c0, float[T, 2] x, float[T, 2] u) => ({outputs}) {{
    [loop] a, b, c, y, z, w = Scan <num_scan_inputs: int = 2,
        scan_input_axes: ints = [0, 0], scan_input_directions: ints = [0, 1],
        scan_output_axes: ints = [0, 1, 0], scan_output_directions: ints = [0, 0, 1],
        body: graph = body (float[2] a1, float[2] b1, float[2] c1, float[2] x1, float[2] u1)
            => (float[2] a2, float[2] b2, float[2] c2, float[2] y1, float[2] z1, float[2] w1) {{
        {nodes}
    }}> (a0, b0, c0, x, u)
}}"""
NODES = """a2 = Add(a1, x1)
        b2 = Mul(b1, c1)
        c2 = Sub(c1, b1)
        y1 = Neg(a2)
        z1 = Exp(b2)
        w1 = Add(x1, u1)"""


def test_states_that_feed_each_other_only():
    run = check(DeadCode(), SCAN.format(outputs="float[T, 2] y", nodes=NODES))
    node = scan_of(run.after)
    assert list(node.input) == ["a0", "x"]
    assert list(node.output) == ["a", "y"]
    assert [value.name for value in body_of(node).input] == ["a1", "x1"]
    assert [value.name for value in body_of(node).output] == ["a2", "y1"]
    assert attribute_of(node, "num_scan_inputs") == 1
    assert attribute_of(node, "scan_input_axes") == [0]
    assert attribute_of(node, "scan_input_directions") == [0]
    assert attribute_of(node, "scan_output_axes") == [0]
    assert attribute_of(node, "scan_output_directions") == [0]
    assert run.applied == {"nodes": 4, "carried-states": 2, "scan-inputs": 1, "scan-outputs": 2}
    assert run.outcome.changes == 9


def test_a_state_read_at_the_end_keeps_what_it_needs():
    run = check(DeadCode(), SCAN.format(outputs="float[2] b", nodes=NODES))
    node = scan_of(run.after)
    assert list(node.input) == ["b0", "c0", "x"]  # one scan input counts the steps
    assert list(node.output) == ["b", "c"]
    assert attribute_of(node, "scan_output_axes") is None


def test_the_axes_of_what_stays():
    run = check(DeadCode(), SCAN.format(outputs="float[2, T] z, float[T, 2] w", nodes=NODES))
    node = scan_of(run.after)
    assert list(node.input) == ["b0", "c0", "x", "u"]
    assert list(node.output) == ["b", "c", "z", "w"]
    assert attribute_of(node, "scan_input_directions") == [0, 1]
    assert attribute_of(node, "scan_output_axes") == [1, 0]
    assert attribute_of(node, "scan_output_directions") == [0, 1]


def test_the_needed_direction_of_a_scan_input_stays():
    nodes = NODES.replace("Add(x1, u1)", "Neg(u1)")
    run = check(DeadCode(), SCAN.format(outputs="float[T, 2] w", nodes=nodes))
    node = scan_of(run.after)
    assert list(node.input) == ["u"]
    assert list(node.output) == ["w"]
    assert attribute_of(node, "scan_input_directions") == [1]


def test_all_needed_is_untouched():
    everything = "float[2] a, float[2] b, float[2] c, float[T, 2] y, float[2, T] z, float[T, 2] w"
    assert check(DeadCode(), SCAN.format(outputs=everything, nodes=NODES)).outcome.changes == 0


def test_a_whole_scan_goes():
    text = """g (float[2] a0, float[T, 2] x) => (float[T, 2] y) {
        n = Neg(x)
        a, z = Scan <num_scan_inputs: int = 1, body: graph = b (float[2] a1, float[2] x1) => (float[2] a2, float[2] z1) {
            a2 = Add(a1, x1) z1 = Exp(a2) }> (a0, n)
        y = Exp(x)
    }"""
    run = check(DeadCode(), text)
    assert run.ops == ["Exp"]
    assert run.applied == {"nodes": 2}


def test_what_fed_a_dead_state_goes_too():
    text = """g (float[2] a0, float[T, 2] x, float[2] w) => (float[T, 2] y) <float[2] k = {1, 2}> {
        s = Mul(w, k)
        a, b, y = Scan <num_scan_inputs: int = 1,
            body: graph = b (float[2] a1, float[2] b1, float[2] x1) => (float[2] a2, float[2] b2, float[2] y1) {
            a2 = Add(a1, x1) b2 = Add(b1, w) y1 = Identity(a1) }> (a0, s, x)
    }"""
    run = check(DeadCode(), text)
    assert run.ops == ["Scan", "Add", "Identity"]
    assert run.initializers == []


def test_scans_in_scans():
    text = """g (float[2] a0, float[2] b0, float[T, 3, 2] x) => (float[T, 3, 2] y) {
        a, b, y, z = Scan <num_scan_inputs: int = 1,
            body: graph = outer (float[2] a1, float[2] b1, float[3, 2] x1)
                => (float[2] a2, float[2] b2, float[3, 2] y1, float[3, 2] z1) {
            a2, b2, y1, z1 = Scan <num_scan_inputs: int = 1,
                body: graph = inner (float[2] a3, float[2] b3, float[2] x3)
                    => (float[2] a4, float[2] b4, float[2] y3, float[2] z3) {
                a4 = Add(a3, x3) b4 = Mul(b3, x3) y3 = Neg(a4) z3 = Neg(b4) }> (a1, b1, x1)
        }> (a0, b0, x)
    }"""
    run = check(DeadCode(), text)
    assert run.ops == ["Scan", "Scan", "Add", "Neg"]
    assert run.applied == {"nodes": 2, "carried-states": 2, "scan-outputs": 2}


def test_the_input_that_counts_the_steps_is_one_needed_elsewhere():
    text = """g (float[T, 2] p) => (float[T, 2] y, float[T, 2] o) {
        u = Exp(p)
        v = Neg(p)
        o = Abs(v)
        y = Scan <num_scan_inputs: int = 2, body: graph = b (float[2] u1, float[2] v1) => (float[2] y1)
            <float[2] c = {1, 2}> { y1 = Neg(c) }> (u, v)
    }"""
    run = check(DeadCode(), text)
    assert run.ops == ["Neg", "Abs", "Scan", "Neg"]


def test_a_choice_of_steps_that_a_later_choice_makes_needless():
    """The second scan needs only steps, which come from the first, which then needs an input of its own."""
    text = """g (float[T, 2] p, float[T, 2] q) => (float[2] n, float[T, 2] y) {
        u = Exp(p)
        v = Neg(q)
        n, o = Scan <num_scan_inputs: int = 2,
            body: graph = b (float[2] n1, float[2] u1, float[2] v1) => (float[2] n2, float[2] o1)
            <float[2] c = {1, 2}> { n2 = Add(n1, c) o1 = Neg(v1) }> (n0, u, v)
        y = Scan <num_scan_inputs: int = 1, body: graph = d (float[2] o2) => (float[2] y1)
            <float[2] e = {1, 2}> { y1 = Neg(e) }> (o)
    }"""
    model = onnx.parser.parse_model(f"{HEADER} {text}")
    model.graph.initializer.append(helper.make_tensor("n0", TensorProto.FLOAT, [2], [0.0, 0.0]))
    run = check(DeadCode(), model)
    assert list(scan_of(run.after).input) == ["n0", "v"]
    assert "Exp" not in run.ops


def test_a_state_that_is_only_written_keeps_its_slot():
    text = """g (float[2] a0, float[T, 2] x) => (float[2] a) {
        a = Scan <num_scan_inputs: int = 1, body: graph = b (float[2] a1, float[2] x1) => (float[2] a2) {
            a2 = Neg(x1) }> (a0, x)
    }"""
    assert check(DeadCode(), text).outcome.changes == 0


def test_an_input_needed_elsewhere_is_not_needed_here():
    text = """g (float[T, 2] p, float[T, 2] q) => (float[T, 2] o, float[T, 2] y) {
        u = Exp(p)
        o = Neg(u)
        y = Scan <num_scan_inputs: int = 2, body: graph = b (float[2] u1, float[2] q1) => (float[2] y1) {
            y1 = Neg(q1) }> (u, q)
    }"""
    assert list(scan_of(check(DeadCode(), text).after).input) == ["q"]


MALFORMED = {
    "body": lambda node: node.attribute.remove(next(a for a in node.attribute if a.name == "body")),
    "count": lambda node: node.attribute[0].CopyFrom(helper.make_attribute("num_scan_inputs", 9)),
    "inputs": lambda node: node.input.__setitem__(0, ""),
    "outputs": lambda node: node.output.insert(0, "more"),
    "output-lists": lambda node: node.attribute.append(helper.make_attribute("scan_output_axes", [0, 0, 0])),
    "lists": lambda node: node.attribute.append(helper.make_attribute("scan_input_axes", [0, 0, 0])),
    "number": lambda node: node.attribute.remove(next(a for a in node.attribute if a.name == "num_scan_inputs")),
    "ports": lambda node: body_of(node).input.pop(),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_scan_that_does_not_fit_is_kept_whole(name):
    text = """g (float[2] a0, float[2] b0, float[T, 2] x, float[T, 2] u) => (float[T, 2] y) {
        n = Exp(u)
        a, b, y = Scan <num_scan_inputs: int = 2,
            body: graph = b (float[2] a1, float[2] b1, float[2] x1, float[2] u1) => (float[2] a2, float[2] b2, float[2] y1) {
            d = Exp(x1) a2 = Add(a1, x1) b2 = Add(b1, b1) y1 = Neg(a2) }> (a0, b0, x, n)
    }"""
    model = onnx.parser.parse_model(f"{HEADER} {text}")
    MALFORMED[name](scan_of(model))
    run = check(DeadCode(), model, execute=False)
    assert run.missed == ["scan-form"]
    assert run.applied.get("nodes", 0) == (name != "body")  # inside the body, where no slot moves
    assert len(scan_of(run.after).input) == 4


def test_the_scan_of_opset_8_is_kept_whole():
    text = """<ir_version: 3, opset_import: ["": 8]> g (float[B, 2] a0, float[B, 2] b0, float[B, T, 2] x) => (float[B, T, 2] y) {
        a, b, y = Scan <num_scan_inputs: int = 1,
            body: graph = b (float[2] a1, float[2] b1, float[2] x1) => (float[2] a2, float[2] b2, float[2] y1) {
            a2 = Add(a1, x1) b2 = Add(b1, b1) y1 = Neg(a2) }> (, a0, b0, x)
    }"""
    run = check(DeadCode(), onnx.parser.parse_model(text), sizes={"B": 2})
    assert run.outcome.changes == 0
    assert run.missed == ["scan-form"]
    assert "opset 8" in run.remarks[0].message


def test_loops_keep_their_states():
    run = check(
        DeadCode(),
        """g (float[2] v0, float[2] w0) => (float[2] v) <int64 n = {3}> {
            v, w = Loop <body: graph = b (int64 i, bool c, float[2] s, float[2] r) => (bool d, float[2] t, float[2] q) {
                d = Identity(c)
                e = Exp(s)
                t = Add(s, s)
                q = Add(r, r)
            }> (n, , v0, w0)
        }""",
    )
    assert run.ops == ["Loop", "Identity", "Add", "Add"]
    assert len(run.after.graph.node[0].input) == 4


def test_calls_keep_all_their_outputs():
    variant = NeuronVariant("LIF")
    inputs = ["x", *["c"] * (len(variant.inputs) - 1)]
    calls = [
        helper.make_node(variant.op_type, inputs, [f"s{i}", f"v{i}"], f"n{i}", domain=DOMAIN, **variant.attributes())
        for i in range(2)
    ]
    graph = helper.make_graph(
        [*calls, helper.make_node("Neg", ["s0"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", 2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", 2, 3])],
        [helper.make_tensor("c", TensorProto.FLOAT, [], [0.5])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=[function_proto(variant)])
    run = check(DeadCode(), model)
    assert run.outcome.changes == 1
    assert list(run.after.graph.node[0].output) == ["s0", "v0"]
    assert len(run.after.functions) == 1


def test_inputs_with_defaults_stay():
    model = onnx.parser.parse_model(f"{HEADER} g (float[2] x, float[2] c) => (float[2] y) {{ y = Neg(x) }}")
    model.graph.initializer.append(helper.make_tensor("c", TensorProto.FLOAT, [2], [1.0, 2.0]))
    assert check(DeadCode(), model).outcome.changes == 0


def test_a_dead_state_that_is_a_shared_constant():
    text = """g (float[T, 2] x) => (float[T, 2] y, float[2] r) {
        a, b, y = Scan <num_scan_inputs: int = 1,
            body: graph = b (float[2] a1, float[2] b1, float[2] x1) => (float[2] a2, float[2] b2, float[2] y1) {
            a2 = Add(a1, x1) b2 = Add(b1, x1) y1 = Neg(a2) }> (k, k, x)
        r = Neg(k)
    }"""
    model = onnx.parser.parse_model(f"{HEADER} {text}")
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 2], np.float32), "k"))
    run = check(DeadCode(), model)
    assert list(scan_of(run.after).input) == ["k", "x"]
    assert run.initializers == ["k"]


def test_linear_time():
    def prepared(number: int) -> Callable[[], None]:
        nodes = []
        for i in range(number):
            nodes.append(helper.make_node("Neg", ["x" if i == 0 else f"a{i - 1}"], [f"a{i}"]))
            nodes.append(helper.make_node("Add", [f"a{i}", "x" if i == 0 else f"d{i - 1}"], [f"d{i}"]))
        nodes.append(helper.make_node("Exp", [f"a{number - 1}"], ["y"]))
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        )
        loaded = SNNGraph.from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))

        def task() -> None:
            outcome, _ = apply(DeadCode(), loaded)
            assert outcome.changes == number

        return task

    assert_linear(prepared, 1000)
