"""ShareInitializers: equal bytes, one constant per graph that stores it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from snn_optimizer.ir import SNNGraph
from snn_optimizer.ir.contents import digest, same_bytes
from snn_optimizer.passes.cleanup.share_initializers import ShareInitializers
from tests.unit.passes.cleanup.harness import HEADER, apply, check

W = np.random.default_rng(3).normal(size=(4, 5)).astype(np.float32)


def model(text: str, **arrays: np.ndarray) -> onnx.ModelProto:
    parsed = onnx.parser.parse_model(f"{HEADER} {text}")
    parsed.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return parsed


TWO = "g (float[N, 4] x, float[N, 4] z) => (float[N, 5] y) { a = MatMul(x, w) b = MatMul(z, u) y = Add(a, b) }"


def test_equal_weights_become_one():
    run = check(ShareInitializers(), model(TWO, w=W, u=W.copy()))
    assert run.outcome.changes == 1
    assert run.initializers == ["w"]


@pytest.mark.parametrize("other", [W.astype(np.float64), W.T.copy().reshape(4, 5), -W], ids=["type", "order", "sign"])
def test_different_weights_stay(other):
    if other.dtype == np.float64:
        text = "g (float[N, 4] x, double[N, 4] z) => (float[N, 5] y) { a = MatMul(x, w) b = MatMul(z, u) c = Cast <to: int = 1> (b) y = Add(a, c) }"
    else:
        text = TWO
    assert check(ShareInitializers(), model(text, w=W, u=other)).outcome.changes == 0


def test_bytes_decide_not_values():
    text = "g (float[20] x) => (float[20] y) { a = Add(x, p) b = Add(x, q) c = Div(a, r) d = Div(b, s) y = Sub(c, d) }"
    nan = np.full(20, np.nan, np.float32)
    run = check(
        ShareInitializers(), model(text, p=np.zeros(20, np.float32), q=-np.zeros(20, np.float32), r=nan, s=nan.copy())
    )
    assert run.outcome.changes == 1
    assert run.initializers == ["p", "q", "r"]


def test_small_constants_stay_unless_asked_for():
    small = {"w": W[:, :1].copy(), "u": W[:, :1].copy()}
    text = TWO.replace("[N, 5]", "[N, 1]")
    assert check(ShareInitializers(), model(text, **small)).outcome.changes == 0
    assert check(ShareInitializers(min_bytes=0), model(text, **small)).outcome.changes == 1


def test_rank_zero_and_empty():
    text = "g (float x) => (float y) { a = Add(x, p) b = Mul(a, q) c = Concat <axis: int = 0> (r, s) d = ReduceSum <keepdims: int = 0> (c) y = Add(b, d) }"
    arrays = {
        "p": np.array(2, np.float32), "q": np.array(2, np.float32),
        "r": np.zeros(0, np.float32), "s": np.zeros(0, np.float32),
    }  # fmt: skip
    run = check(ShareInitializers(min_bytes=0), model(text, **arrays))
    assert run.outcome.changes == 2
    assert run.initializers == ["p", "r"]


def test_an_output_keeps_its_constant():
    text = "g (float[20] x) => (float[20] y, float[20] u) { y = Add(x, w) }"
    flat = W.reshape(-1)
    run = check(ShareInitializers(), model(text, w=flat, u=flat.copy()))
    assert run.missed == ["graph-output"]
    first = "g (float[20] x) => (float[20] y, float[20] w) { y = Add(x, u) }"
    assert check(ShareInitializers(), model(first, w=flat, u=flat.copy())).initializers == ["w"]


def test_second_readers_and_three_of_a_kind():
    text = (
        "g (float[N, 5] x) => (float[N, 5] y) { a = Add(x, w) b = Mul(a, u) c = Sub(b, t) d = Mul(c, u) y = Add(d, w) }"
    )
    run = check(ShareInitializers(), model(text, t=W[0].copy(), w=W[0].copy(), u=W[0].copy()), sizes={"N": 2})
    assert run.outcome.changes == 0  # 20 bytes
    run = check(
        ShareInitializers(min_bytes=20), model(text, t=W[0].copy(), w=W[0].copy(), u=W[0].copy()), sizes={"N": 2}
    )
    assert (run.outcome.changes, run.initializers) == (2, ["t"])


def test_constant_nodes_join_initializers():
    text = "g (float[20] x) => (float[20] y) { a = Add(x, k) b = Mul(a, l) y = Sub(b, w) }"
    parsed = model(text, w=W.reshape(-1))
    nodes = [helper.make_node("Constant", [], [name], value=numpy_helper.from_array(W.reshape(-1))) for name in "kl"]
    for node in reversed(nodes):
        parsed.graph.node.insert(0, node)
    run = check(ShareInitializers(), parsed)
    assert run.ops == ["Add", "Mul", "Sub"]
    assert run.initializers == ["w"]


def test_an_input_with_a_default_is_not_constant():
    text = "g (float[20] x, float[20] u) => (float[20] y) { a = Add(x, w) y = Mul(a, u) }"
    assert check(ShareInitializers(), model(text, w=W.reshape(-1), u=W.reshape(-1).copy())).outcome.changes == 0


BODY = """<num_scan_inputs: int = 1, body: graph = {name} (float[20] x{name}) => (float[20] y{name}) {{
    a{name} = Add(x{name}, p{name}) y{name} = Mul(a{name}, {second}) }}>"""


def scans(**arrays: np.ndarray) -> onnx.ModelProto:
    text = (
        "g (float[T, 20] x) => (float[T, 20] y) { a = Scan "
        + BODY.format(name="b", second="qb")
        + " (x) b = Scan "
        + BODY.format(name="c", second="w")
        + " (a) y = Add(b, w) }"
    )
    flat = W.reshape(-1)
    parsed = onnx.parser.parse_model(f"{HEADER} {text}")
    parsed.graph.initializer.append(numpy_helper.from_array(flat, "w"))
    first, second = (next(a.g for a in node.attribute if a.name == "body") for node in parsed.graph.node[:2])
    first.initializer.extend(numpy_helper.from_array(flat, name) for name in ("pb", "qb"))
    second.initializer.append(numpy_helper.from_array(flat, "pc"))
    return parsed


def test_every_graph_shares_for_itself():
    run = check(ShareInitializers(), scans())
    assert run.outcome.changes == 1
    bodies = [next(a.g for a in node.attribute if a.name == "body") for node in run.after.graph.node[:2]]
    assert [[tensor.name for tensor in body.initializer] for body in bodies] == [["pb"], ["pc"]]
    assert run.initializers == ["w"]


def test_weights_captured_by_a_body():
    text = (
        "g (float[T, 20] x) => (float[T, 20] y) { a = Scan "
        + BODY.format(name="b", second="u")
        + " (x) y = Add(a, pb) }"
    )
    flat = W.reshape(-1)
    run = check(ShareInitializers(), model(text, pb=flat, u=flat.copy()))
    assert run.initializers == ["pb"]


def test_names_that_a_body_uses_for_itself():
    text = (
        "g (float[T, 20] x) => (float[T, 20] y) { a = Scan "
        + BODY.format(name="b", second="u").replace("ab ", "w ").replace("(ab,", "(w,")
        + " (x) y = Add(a, w) }"
    )
    flat = W.reshape(-1)
    run = check(ShareInitializers(), model(text, w=flat, u=flat.copy(), pb=-flat), execute=False)
    assert run.missed == ["name-hidden"]


def test_text_and_unread_constants_are_left_alone():
    parsed = model("g (float[20] x) => (float[20] y) { y = Add(x, w) }", w=W.reshape(-1), u=W.reshape(-1).copy())
    for name in "st":
        parsed.graph.initializer.append(helper.make_tensor(name, TensorProto.STRING, [9], [b"abcdefghi"] * 9))
    run = check(ShareInitializers(), parsed)
    assert run.outcome.changes == 0


def test_constants_made_by_other_passes():
    graph = SNNGraph.from_onnx(model(TWO, w=W, u=W.copy()))
    from snn_optimizer.ir import Rewriter

    rewriter = Rewriter(graph.module)
    for node in graph.module.graph.nodes[:2]:
        rewriter.set_input(node, 1, rewriter.constant("made", W * 2))
    rewriter.finish()
    outcome, _ = apply(ShareInitializers(), graph)
    assert outcome.changes == 1
    assert [tensor.name for tensor in graph.to_onnx().graph.initializer] == ["made"]


def test_weights_mapped_from_a_file(tmp_path):
    large = np.random.default_rng(0).normal(size=(600, 1000)).astype(np.float32)
    text = (
        "g (float[N, 600] x, float[N, 600] z) => (float[N, 1000] y) { a = MatMul(x, w) b = MatMul(z, u) y = Add(a, b) }"
    )
    path = tmp_path / "m.onnx"
    onnx.save_model(
        model(text, w=large, u=large.copy()), path, save_as_external_data=True, location="m.data", size_threshold=0
    )
    graph = SNNGraph.from_onnx(path)
    outcome, _ = apply(ShareInitializers(), graph)
    assert outcome.changes == 1
    written = graph.save(tmp_path / "out.onnx")
    assert written < 1.1 * large.nbytes


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.bool_, np.float16, np.complex64, "bfloat16", "int4"])
def test_contents(dtype):
    import ml_dtypes

    kind = np.dtype(getattr(ml_dtypes, dtype) if isinstance(dtype, str) else dtype)
    array = (np.arange(700_000) % 5).astype(kind).reshape(700, 1000)
    same = np.asfortranarray(array)
    assert digest(array) == digest(same)
    assert same_bytes(array, same)
    other = array.copy()
    other[-1, -1] = np.array(1 if array[-1, -1] != 1 else 0).astype(kind)
    assert digest(array) != digest(other)
    assert not same_bytes(array, other)
