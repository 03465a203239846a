"""Loops over time become Scans: same bytes, and a name for every Loop that stays."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from snn_optimizer.ir import SNNGraph
from snn_optimizer.passes.raising.loop_to_scan import LoopToScan
from tests.unit.passes.cleanup.harness import apply, assert_same_results, check, interface

CORPUS = Path(os.environ.get("SNN_CORPUS") or Path(__file__).parents[5] / "shared" / "corpus")
NAMES = ("cf_jitloop_count_T25__ts", "cf_jitloop_list_T25__ts", "cf_scriptmodule_T25__ts")
STEP = "a = Gather(x, t) w = Add(v, a) p = Tanh(w)"
SIGNATURE = "(float[5, 2, 3] x, float[2, 3] v0) => (float[A, B] vT, float[T, E, F] y)"


def loop(
    *,
    signature=SIGNATURE,
    before="",
    given="m, yes",
    carried="v0",
    inputs="float[2, 3] v",
    outputs="float[G, H] w, float[I, J] p",
    step=STEP,
    goes_on="go = Identity(c)",
    made="vT, y",
    after="",
    constants="",
):
    """Return a model with one Loop."""
    return f"""g {signature} <int64 m = {{5}}, int64 zero = {{0}}, int64 one = {{1}}, bool yes = {{1}} {constants}> {{
        {before}
        {made} = Loop ({given}, {carried}) <body = b (int64 t, bool c, {inputs}) => (bool go, {outputs}) {{
            {step}
            {goes_on}
        }}>
        {after}
    }}"""


def converted(text, **options):
    run = check(LoopToScan(), text, **options)
    assert run.missed == []
    assert "Loop" not in run.ops
    return run, next(node for node in run.after.graph.node if node.op_type == "Scan")


def attributes(node):
    return {one.name: helper.get_attribute_value(one) for one in node.attribute if one.name != "body"}


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus of exported models in {CORPUS}")
@pytest.mark.parametrize("name", NAMES)
def test_exported_loops(name):
    model = onnx.load(CORPUS / name / "model.onnx")
    graph = SNNGraph.from_onnx(model)
    assert apply(LoopToScan(), graph)[0].changes == 1
    assert apply(LoopToScan(), graph)[0].changes == 0
    after = graph.to_onnx()
    onnx.checker.check_model(after, full_check=True)
    assert interface(after) == interface(model)
    assert not {node.op_type for node in after.graph.node} & {"Loop", "SequenceEmpty", "ConcatFromSequence", "Range"}
    x = np.load(CORPUS / name / "inputs.npz")["x"]
    assert_same_results(model, after, [{"x": x}, {"x": x[:, :1]}])


def test_constant_trip_count():
    _, scan = converted(loop())
    assert list(scan.input) == ["v0", "x"]
    assert list(scan.output) == ["vT", "y"]
    assert attributes(scan) == {"num_scan_inputs": 1}


@pytest.mark.parametrize("bound", ["m", "length"])
@pytest.mark.parametrize("start", ["yes", "start"])
def test_condition_on_a_carried_counter(bound, start):
    _, scan = converted(
        loop(
            before=f"s = Shape(x) length = Gather(s, zero) start = Less(zero, {bound})",
            given=f", {start}",
            carried="zero, v0",
            inputs="int64 k, float[2, 3] v",
            outputs="int64 k1, float[G, H] w, float[I, J] p",
            step=STEP.replace("t)", "k)"),
            goes_on=f"k1 = Add(k, one) go = Less(k1, {bound})",
            made="kT, vT, y",
        )
    )
    assert list(scan.input) == ["v0", "x"]


def test_condition_on_the_number_of_the_iteration():
    _, scan = converted(loop(given=", ", goes_on="n = Add(one, t) go = Greater(m, n)"))
    assert list(scan.input) == ["v0", "x"]


def test_batch_first_slices():
    _run, scan = converted(
        loop(
            signature="(float[2, 5, 3] x, float[2, 3] v0) => (float[A, B] vT, float[T, E, F] y)",
            constants=", int64[1] axis = {1}",
            before="s = Shape <start: int = 1, end: int = 2> (x) m5 = Squeeze(s)",
            given="m5, yes",
            step="f = Unsqueeze(t, zero1) e = Add(f, axis) d = Slice(x, f, e, axis) a = Squeeze(d, axis)"
            " w = Add(v, a) p = Tanh(w)",
        ).replace("int64[1] axis", "int64[1] zero1 = {0}, int64[1] axis")
    )
    assert attributes(scan)["scan_input_axes"] == [1]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_stacked_sequences(axis):
    _, scan = converted(
        loop(
            before="empty = SequenceEmpty()",
            carried="v0, empty",
            inputs="float[2, 3] v, seq(float[2, 3]) list",
            outputs="float[G, H] w, seq(float[2, 3]) longer",
            step=f"{STEP} longer = SequenceInsert(list, w)",
            made="vT, all",
            after=f"y = ConcatFromSequence <axis: int = {axis}, new_axis: int = 1> (all)",
        )
    )
    assert attributes(scan).get("scan_output_axes", [0]) == [axis]


def test_values_that_never_change_are_captured():
    _, scan = converted(
        loop(
            signature="(float[5, 2, 3] x, float[2, 3] v0) => (float[A, B] vT, float[K, L, M] same, float[T, E, F] y)",
            carried="v0, x",
            inputs="float[2, 3] v, float[5, 2, 3] z",
            outputs="float[G, H] w, float[N, O, P] q, float[I, J] p",
            step=STEP.replace("x", "z") + " q = Identity(z)",
            made="vT, same, y",
        )
    )
    assert list(scan.input) == ["v0", "x"]
    assert list(scan.output) == ["vT", "y"]


@pytest.mark.parametrize("start", ["zero", "one"])
def test_carried_counters_go_and_those_that_are_needed_stay(start):
    _, scan = converted(
        loop(
            carried=f"{start}, one, v0",
            inputs="int64 k, int64 n, float[2, 3] v",
            outputs="int64 k1, int64 n1, float[G, H] w, float[I, J] p",
            step=f"k1 = Add(k, one) n1 = Add(one, n) j = Sub(k, {start}) a = Gather(x, j) f = CastLike(n, a)"
            " d = Mul(a, f) w = Add(v, d) p = Tanh(w)",
            made="kT, nT, vT, y",
        )
    )
    assert list(scan.input) == ["one", "v0", "x"]


def test_reading_in_another_order_stays_a_gather():
    run, _ = converted(
        loop(constants=", int64 four = {4}", step="r = Sub(four, t) a = Gather(x, r) w = Add(v, a) p = Tanh(w)")
    )
    assert run.ops[:2] == ["Range", "Scan"]
    assert "Gather" in run.ops


def test_bodies_in_the_body_read_the_step():
    converted(
        loop(
            step="""a = Gather(x, t) k = Less(t, one) p = Tanh(a)
            w = If (k) <then_branch = h () => (float[2, 3] q) { q = Add(v, a) },
                else_branch = e () => (float[2, 3] r) { r = Sub(v, a) }>"""
        )
    )


def test_number_of_the_iteration_in_arithmetic():
    run, _ = converted(loop(step="a = Gather(x, t) f = CastLike(t, a) b = Mul(a, f) w = Add(v, b) p = Tanh(w)"))
    assert "Range" in run.ops


def test_input_that_is_the_same_in_every_step():
    _run, scan = converted(
        loop(
            signature="(float[2, 3] x, float[2, 3] v0, int64[1] n) => (float[A, B] vT, float[T, E, F] y)",
            given="n, yes",
            step="w = Add(v, x) p = Tanh(w)",
        ),
        feeds=[{"x": np.full((2, 3), 0.3, "f4"), "v0": np.ones((2, 3), "f4"), "n": np.array([4])}],
    )
    assert scan.input[1] == "iterations"


def test_outputs_that_are_inputs_or_come_twice():
    converted(
        loop(
            signature="(float[5, 2, 3] x, float[2, 3] v0) => (float[A, B] vT, float[C, D] uT, float[T, E, F] y, float[K, L, M] z)",
            carried="v0, v0",
            inputs="float[2, 3] v, float[2, 3] u",
            outputs="float[G, H] w, float[I, J] u1, float[N, O] w1, float[P, Q] a1",
            step=f"{STEP} u1 = Identity(v) w1 = Identity(w) a1 = Identity(a)",
            made="vT, uT, y, z",
        )
    )


def test_shared_initial_values_and_two_loops():
    run = check(
        LoopToScan(),
        """g (float[T, B, 3] x) => (float[B, 3] vT, float[C, D] uT) <int64 zero = {0}, bool yes = {1}> {
            first = Gather(x, zero)
            s = Shape(first)
            z = ConstantOfShape(s)
            l = Shape(x)
            m = Gather(l, zero)
            vT, wT, y = Loop (m, yes, z, z) <body = b (int64 t, bool c, float[D, E] v, float[D, E] w)
                => (bool go, float[D, E] v1, float[D, E] w1, float[D, E] o) {
                a = Gather(x, t) v1 = Add(v, a) w1 = Sub(w, v1) o = Tanh(w1) go = Identity(c) }>
            uT = Loop (m, yes, z) <body = d (int64 t2, bool c2, float[D, E] u) => (bool go2, float[D, E] u1) {
                e = Gather(y, t2) u1 = Add(u, e) go2 = Identity(c2) }>
        }""",
        sizes={"T": 4, "B": 2},
    )
    assert run.missed == []
    assert run.outcome.changes == 2


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"constants": ", int64 four = {4}", "given": "four, yes"}, "other-length"),
        ({"before": "k = ReduceSum <keepdims: int = 0> (x) n = Cast <to: int = 7> (k)", "given": "n, yes"}, "other-length"),
        ({"goes_on": "n = ReduceMax <keepdims: int = 0> (w) go = Less(n, big)", "constants": ", float big = {9.0}"}, "condition-computed"),
        ({"given": ", "}, "endless"),
        ({"given": "m, no", "constants": ", bool no = {0}"}, "never-runs"),
        ({"goes_on": "n = Add(one, t) go = Less(n, m)"}, "two-limits"),
        ({"carried": "seed", "constants": ", float[1, 1] seed = {0.0}", "inputs": "float[Q, R] v"}, "shape-changes"),
        ({"carried": "seed", "before": "k = NonZero(x) seed = Cast <to: int = 1> (k)", "inputs": "float[Q, R] v",
          "step": "a = Gather(x, t) b = ReduceSum <keepdims: int = 0> (a) w = Add(v, b) p = Concat <axis: int = 0> (v, w)",
          "outputs": "float[Q, S] p, float[I, J] w"}, "shape-changes"),
    ],
)  # fmt: skip
def test_refusals(changed, rule):
    run = check(LoopToScan(), loop(**changed), execute=False)
    assert run.outcome.changes == 0
    assert run.missed == [rule]


@pytest.mark.parametrize(
    ("made", "step", "after", "rule"),
    [
        ("SequenceEmpty()", "longer = SequenceInsert(list, w)", "y = SequenceAt(all, zero)", "sequence-read"),
        ("SequenceEmpty()", "longer = SequenceInsert(list, w)", "y = ConcatFromSequence <axis: int = 0> (all)", "sequence-read"),
        ("SequenceEmpty()", "longer = SequenceInsert(list, w, zero)", "y = ConcatFromSequence <axis: int = 0, new_axis: int = 1> (all)", "sequence-not-appended"),
        ("SequenceConstruct(v0)", "longer = SequenceInsert(list, w)", "y = ConcatFromSequence <axis: int = 0, new_axis: int = 1> (all)", "sequence-not-empty"),
    ],
)  # fmt: skip
def test_sequences_that_stay(made, step, after, rule):
    text = loop(
        signature="(float[5, 2, 3] x, float[2, 3] v0) => (float[A, B] vT, float y)",
        before=f"empty = {made}",
        carried="v0, empty",
        inputs="float[2, 3] v, seq(float[2, 3]) list",
        outputs="float[G, H] w, seq(float[2, 3]) longer",
        step=f"{STEP} {step}",
        made="vT, all",
        after=after,
    )
    run = check(LoopToScan(), text, execute=False)
    assert (run.outcome.changes, run.missed) == (0, [rule])


def test_symbols_that_exporters_made_up_prove_nothing():
    """Both sizes are called K in the body, and the state grows."""
    text = """g (float[5, 1, 1] x, float[1, 1] v0) => (float[A, B] vT) <int64 m = {5}, bool yes = {1}, float[1, 4] k = {1, 2, 3, 4}> {
        vT = Loop (m, yes, v0) <body = b (int64 t, bool c, float[K, K] v) => (bool go, float[K, K] w) {
            a = Gather(x, t) e = Add(v, a) w = Mul(e, k) go = Identity(c) }>
    }"""
    run = check(LoopToScan(), text, execute=False)
    assert (run.outcome.changes, run.missed) == (0, ["shape-changes"])
