"""Canonicalize: what does nothing, what works, and what cannot be told apart."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from snn_optimizer.ops import DOMAIN, NeuronVariant, function_proto
from snn_optimizer.passes.cleanup.canonicalize import Canonicalize
from tests.unit.passes.cleanup.harness import HEADER, check

OPSET_11 = '<ir_version: 7, opset_import: ["": 11]>'
OPSET_6 = '<ir_version: 3, opset_import: ["": 6]>'

APPLIES = {
    "identity": "g (float[N, 4] x) => (float[N, 4] y) { a = Relu(x) b = Identity(a) y = Neg(b) }",
    "identity-chain": "g (float[N, 4] x) => (float[N, 4] y) { a = Identity(x) b = Identity(a) c = Identity(b) y = Neg(c) }",
    "cast": "g (float[N, 4] x) => (float[N, 4] y) { a = Relu(x) b = Cast <to: int = 1> (a) y = Neg(b) }",
    "cast-of-a-constant-node": """g (float[N, 4] x) => (float[N, 4] y) {
        c = Constant <value_float: float = 2.0> () a = Cast <to: int = 1> (c) b = Add(x, a) y = Neg(b) }""",
    "cast-of-sizes": "g (float[N, 4] x) => (int64[2] y) { s = Shape(x) a = Cast <to: int = 7> (s) y = Neg(a) }",
    "cast-of-truth-and-back": """g (float[N, 4] x, float[N, 4] z) => (float[N, 4] y) {
        a = Greater(x, z) b = Cast <to: int = 1> (a) c = Cast <to: int = 9> (b) y = Where(c, x, z) }""",
    "cast-of-whole-numbers-and-back": """g (int32[N] x) => (int32[N] y) {
        b = Cast <to: int = 11> (x) c = Cast <to: int = 6> (b) y = Neg(c) }""",
    "reshape-to-the-same-sizes": """g (float[2, 6] x) => (float[2, 6] y) <int64[2] s = {2, -1}> {
        a = Reshape(x, s) y = Neg(a) }""",
    "reshape-that-copies-sizes": """g (float[N, 6] x) => (float[N, 6] y) <int64[2] s = {0, 6}> {
        a = Reshape(x, s) y = Neg(a) }""",
    "reshape-that-infers-the-symbol": """g (float[N, 6] x) => (float[N, 6] y) <int64[2] s = {-1, 6}> {
        a = Reshape(x, s) y = Neg(a) }""",
    "reshape-by-computed-sizes": """g (float[2, 6] x) => (float[2, 6] y) {
        s = Shape(x) a = Reshape(x, s) y = Neg(a) }""",
    "reshape-that-copies-one-symbol-and-infers-the-other": """g (float[A, B] x) => (float[A, B] y) <int64[2] s = {0, -1}> {
        a = Reshape(x, s) y = Neg(a) }""",
    "reshape-that-infers-a-number": """g (float[A, 6] x) => (float[A, 6] y) <int64[2] s = {0, -1}> {
        a = Reshape(x, s) y = Neg(a) }""",
    "reshape-that-fits-one-size-only": """g (float[A, 6] x) => (float[A, 6] y) <int64[2] s = {3, 6}> {
        a = Reshape(x, s) y = Neg(a) }""",
    "flatten-of-rank-two": """g (float[N, 6] x) => (float[N, 6] y) { a = Flatten <axis: int = -1> (x) y = Neg(a) }""",
    "flatten-of-a-row": """g (float[1, N] x) => (float[1, N] y) { a = Flatten <axis: int = 0> (x) y = Neg(a) }""",
    "flatten-of-a-column": """g (float[N, 1] x) => (float[N, 1] y) { a = Flatten <axis: int = 2> (x) y = Neg(a) }""",
    "transpose": "g (float[N, 4] x) => (float[N, 4] y) { a = Transpose <perm: ints = [0, 1]> (x) y = Neg(a) }",
    "transpose-of-rank-one": "g (float[N] x) => (float[N] y) { a = Transpose(x) y = Neg(a) }",
    "transpose-twice": """g (float[N, 4, 5] x) => (float[N, 4, 5] y) {
        a = Transpose <perm: ints = [1, 2, 0]> (x) b = Transpose <perm: ints = [2, 0, 1]> (a) y = Neg(b) }""",
    "transpose-twice-without-order": """g (float[N, 4] x) => (float[N, 4] y) {
        a = Transpose(x) b = Transpose(a) y = Neg(b) }""",
    "unsqueeze-then-squeeze": """g (float[N, 4] x) => (float[N, 4] y) <int64[2] s = {0, 2}, int64[2] u = {2, 0}> {
        a = Unsqueeze(x, s) b = Squeeze(a, u) y = Neg(b) }""",
    "squeeze-then-unsqueeze": """g (float[N, 1] x) => (float[N, 1] y) <int64[1] s = {-1}, int64[1] u = {1}> {
        a = Squeeze(x, s) b = Unsqueeze(a, u) y = Neg(b) }""",
    "dropout": "g (float[N, 4] x) => (float[N, 4] y) { a = Dropout(x) y = Neg(a) }",
    "dropout-that-says-so": """g (float[N, 4] x) => (float[N, 4] y) <float r = {0.5}, bool t = {0}> {
        a, m = Dropout(x, r, t) y = Neg(a) }""",
    "dropout-of-old": f"{OPSET_11} g (float[N, 4] x) => (float[N, 4] y) {{ a = Dropout <ratio: float = 0.3> (x) y = Neg(a) }}",
    "concat-of-one": "g (float[N, 4] x) => (float[N, 4] y) { a = Concat <axis: int = 1> (x) y = Neg(a) }",
    "slice-of-everything": """g (float[N, 4] x) => (float[N, 4] y)
        <int64[2] b = {0, -9}, int64[2] e = {9223372036854775807, 4}, int64[2] axes = {0, 1}, int64[2] steps = {1, 1}> {
        a = Slice(x, b, e, axes, steps) y = Neg(a) }""",
    "slice-without-axes": """g (float[2, 4] x) => (float[2, 4] y)
        <int64[2] b = {0, 0}, int64[2] e = {9, 4}, int64[2] steps = {1, 1}> { a = Slice(x, b, e, , steps) y = Neg(a) }""",
    "slice-of-old": """<ir_version: 4, opset_import: ["": 9]> g (float[N, 4] x) => (float[N, 4] y) {
        a = Slice <starts: ints = [0], ends: ints = [4], axes: ints = [1]> (x) y = Neg(a) }""",
    "pad-by-nothing": """g (float[N, 4] x) => (float[N, 4] y) <int64[4] p = {0, 0, 0, 0}> {
        a = Pad <mode: string = "reflect"> (x, p) y = Neg(a) }""",
    "expand-by-ones": """g (float[N, 4] x) => (float[N, 4] y) <int64[2] s = {1, 4}> {
        a = Expand(x, s) y = Neg(a) }""",
    "expand-to-nothing": "g (float x) => (float y) <int64[0] s = {}> { a = Expand(x, s) y = Neg(a) }",
    "expand-by-computed-sizes": """g (float[2, 4] x) => (float[2, 4] y) { s = Shape(x) a = Expand(x, s) y = Neg(a) }""",
    "mul-by-one": "g (float[N, 4] x) => (float[N, 4] y) <float one = {1}> { a = Mul(x, one) y = Neg(a) }",
    "one-mul-by": "g (float[N, 4] x) => (float[N, 4] y) <float[1, 4] one = {1, 1, 1, 1}> { a = Mul(one, x) y = Neg(a) }",
    "div-by-one": "g (float[N, 4] x) => (float[N, 4] y) <float[1] one = {1}> { a = Div(x, one) y = Neg(a) }",
    "sub-zero": "g (float[N, 4] x) => (float[N, 4] y) <float zero = {0}> { a = Sub(x, zero) y = Neg(a) }",
    "add-of-whole-numbers": "g (int64[N] x) => (int64[N] y) <int64[1] zero = {0}> { a = Add(zero, x) y = Neg(a) }",
    "rank-zero": "g (float x) => (float y) <float one = {1}> { a = Mul(x, one) y = Neg(a) }",
    "second-reader": """g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z) {
        a = Relu(x) b = Identity(a) y = Neg(b) z = Add(a, b) }""",
}


@pytest.mark.parametrize("name", APPLIES)
def test_removes_what_does_nothing(name):
    run = check(Canonicalize(), APPLIES[name])
    assert run.outcome.changes >= 1
    assert not run.missed
    gone = ("Identity", "Cast", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Dropout", "Concat")
    assert not set(run.ops) & {*gone, "Slice", "Pad", "Expand", "Mul", "Div", "Sub"}
    assert "Neg" in run.ops or "Where" in run.ops


def test_multiplies_halves():
    text = "g (float16[N] x) => (float16[N] y) <float16 one = {15360}> { a = Mul(x, one) y = Neg(a) }"
    assert check(Canonicalize(), text).ops == ["Neg"]


def test_a_negative_zero_may_be_added():
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18]> g (float[4] x) => (float[4] y) <float z = {-0.0}> { a = Add(x, z) y = Neg(a) }'
    )
    del model.graph.initializer[:]
    model.graph.initializer.add(name="z", data_type=TensorProto.FLOAT, float_data=[-0.0])
    assert check(Canonicalize(), model).ops == ["Neg"]


WORKS = {
    "cast": "g (float[N] x) => (int32[N] y) { y = Cast <to: int = 6> (x) }",
    "cast-that-rounds-and-back": """g (int64[N] x) => (int64[N] y) {
        a = Cast <to: int = 1> (x) b = Cast <to: int = 7> (a) y = Neg(b) }""",
    "cast-of-fractions-and-back": """g (float[N] x) => (float[N] y) {
        a = Cast <to: int = 6> (x) b = Cast <to: int = 1> (a) y = Neg(b) }""",
    "cast-of-fractions-to-wider-and-back": """g (float[N] x) => (float[N] y) {
        a = Cast <to: int = 11> (x) b = Cast <to: int = 1> (a) y = Neg(b) }""",
    "cast-to-narrower-twice": """g (float[N] x) => (int8[N] y) {
        a = Cast <to: int = 6> (x) y = Cast <to: int = 3> (a) }""",
    "cast-of-whole-numbers-to-fractions-and-back": """g (int32[N] x) => (int32[N] y) {
        a = Cast <to: int = 1> (x) b = Cast <to: int = 6> (a) y = Neg(b) }""",
    "cast-of-large-numbers-to-double-and-back": """g (int64[N] x) => (int64[N] y) {
        a = Cast <to: int = 11> (x) b = Cast <to: int = 7> (a) y = Neg(b) }""",
    "cast-to-text-and-back": """g (int32[N] x) => (int32[N] y) {
        a = Cast <to: int = 8> (x) b = Cast <to: int = 6> (a) y = Neg(b) }""",
    "reshape-to-another-rank": "g (float[N, 6] x) => (float[M] y) <int64[1] s = {-1}> { y = Reshape(x, s) }",
    "reshape-to-other-sizes": "g (float[2, 6] x) => (float[3, 4] y) <int64[2] s = {3, 4}> { y = Reshape(x, s) }",
    "flatten-of-rank-three": "g (float[N, 2, 3] x) => (float[N, 6] y) { y = Flatten(x) }",
    "flatten-to-a-row": "g (float[2, 3] x) => (float[1, 6] y) { y = Flatten <axis: int = 0> (x) }",
    "flatten-of-a-column-to-a-row": "g (float[3, 1] x) => (float[1, 3] y) { y = Flatten <axis: int = 0> (x) }",
    "flatten-of-a-row-to-a-column": "g (float[1, 3] x) => (float[3, 1] y) { y = Flatten <axis: int = 2> (x) }",
    "flatten-to-a-column": "g (float[2, 3] x) => (float[6, 1] y) { y = Flatten <axis: int = 2> (x) }",
    "transpose": "g (float[N, 4] x) => (float[4, N] y) { y = Transpose(x) }",
    "squeeze-of-other-axes": """g (float[N, 1] x) => (float[1, N] y) <int64[1] s = {1}, int64[1] u = {0}> {
        a = Squeeze(x, s) y = Unsqueeze(a, u) }""",
    "squeeze-of-other-axes-from-the-end": """g (float[N, 1] x) => (float[1, N] y) <int64[1] s = {1}, int64[1] u = {-2}> {
        a = Squeeze(x, s) y = Unsqueeze(a, u) }""",
    "squeeze-of-fewer-axes": """g (float[N] x) => (float[N, 1] y) <int64[2] u = {0, 2}, int64[1] s = {0}> {
        a = Unsqueeze(x, u) y = Squeeze(a, s) }""",
    "concat-of-two": "g (float[N, 4] x) => (float[N, 8] y) { y = Concat <axis: int = 1> (x, x) }",
    "slice": """g (float[N, 4] x) => (float[N, 2] y) <int64[1] b = {0}, int64[1] e = {2}, int64[1] axes = {1}> {
        y = Slice(x, b, e, axes) }""",
    "slice-from-one-on": """g (float[N] x) => (float[M] y) <int64[1] b = {1}, int64[1] e = {9223372036854775807}> {
        y = Slice(x, b, e) }""",
    "slice-but-the-last": """g (float[N] x) => (float[M] y) <int64[1] b = {0}, int64[1] e = {-1}> { y = Slice(x, b, e) }""",
    "slice-in-steps": """g (float[4] x) => (float[2] y) <int64[1] b = {0}, int64[1] e = {4}, int64[1] axes = {0}, int64[1] s = {2}> {
        y = Slice(x, b, e, axes, s) }""",
    "pad": "g (float[N, 4] x) => (float[N, 5] y) <int64[4] p = {0, 0, 0, 1}> { y = Pad(x, p) }",
    "expand": "g (float[1, 4] x) => (float[2, 4] y) <int64[2] s = {2, 4}> { y = Expand(x, s) }",
    "expand-to-another-rank": "g (float[4] x) => (float[1, 4] y) <int64[2] s = {1, 4}> { y = Expand(x, s) }",
    "one-divided": "g (float[N] x) => (float[N] y) <float one = {1}> { y = Div(one, x) }",
    "zero-minus": "g (float[N] x) => (float[N] y) <float zero = {0}> { y = Sub(zero, x) }",
    "mul-by-nearly-one": "g (float[4] x) => (float[4] y) <float[4] c = {1, 1, 1, 1.0000001}> { y = Mul(x, c) }",
    "mul-of-nothing": "g (float[0] x) => (float[0] y) <float[0] c = {}> { y = Mul(x, c) }",
    "clip-twice": """g (float[N] x) => (float[N] y) <float low = {0}, float high = {1}> {
        a = Clip(x, low, high) y = Clip(a, low, high) }""",
}


@pytest.mark.parametrize("name", WORKS)
def test_leaves_what_works(name):
    run = check(Canonicalize(), WORKS[name])
    assert run.outcome.changes == 0
    assert run.remarks == []


REFUSALS = {
    "type-unknown": (
        "g (float[N] x) => (float[N] y) { s = SequenceConstruct(x) i = Constant <value_int: int = 0> () "
        "a = SequenceAt(s, i) b = Cast <to: int = 1> (a) y = Neg(b) }"
    ),
    "operand-not-constant": "g (float[N, 4] x, int64[2] s) => (float[A, B] y) { a = Reshape(x, s) y = Neg(a) }",
    "rank-unknown": """g (float[N, 4] x, int64[M] s) => (float[A, B] y) <int64[2] t = {2, 6}> {
        a = Reshape(x, s) b = Neg(a) y = Flatten(b) }""",
    "size-unknown": "g (float[A, B] x) => (float[C, D] y) <int64[2] s = {3, -1}> { a = Reshape(x, s) y = Neg(a) }",
    "mask-used": "g (float[N] x) => (float[N] y, bool[N] m) { a, m = Dropout(x) y = Neg(a) }",
    "may-train": "g (float[N] x, bool t) => (float[N] y) <float r = {0.0}> { a = Dropout(x, r, t) y = Neg(a) }",
    "axes-unknown": """g (float[N, 2] x, int64[1] s) => (float[A, B] y) {
        a = Unsqueeze(x, s) b = Squeeze(a, s) y = Neg(b) }""",
    "may-widen": "g (float x) => (float[1] y) <float[1] one = {1}> { a = Mul(x, one) y = Neg(a) }",
    "signed-zero": "g (float[N] x) => (float[N] y) <float zero = {0}> { a = Add(x, zero) y = Neg(a) }",
    "copies-middle-size": """g (float[N, 2, 3] x) => (float[N, A, 2] y) <int64[2] s = {-1, 6}, int64[3] t = {0, 3, 2}> {
        a = Reshape(x, s) b = Reshape(a, t) y = Neg(b) }""",
    "output-is-input": "g (float[N] x) => (float[N] y) { y = Identity(x) }",
    "output-is-constant": "g (float[N] x) => (float[N] z, float[2] y) <float[2] c = {1, 2}> { z = Neg(x) y = Identity(c) }",
    "output-twice": "g (float[N] x) => (float[N] a, float[N] b) { a = Neg(x) b = Identity(a) }",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refuses(name):
    feeds = None
    text = REFUSALS[name]
    if name == "axes-unknown":
        feeds = [{"x": np.ones((3, 2), np.float32), "s": np.array([1])}]
    elif "int64[2] s)" in text or "int64[M] s)" in text:
        feeds = [{"x": np.ones((3, 4), np.float32), "s": np.array([6, 2])}]
    elif name == "may-train":
        feeds = [{"x": np.ones(3, np.float32), "t": np.array(False)}]
    run = check(Canonicalize(), text, feeds=feeds)
    assert run.outcome.changes == 0
    assert name in run.missed


MORE_REFUSALS = [
    ("may-widen", "g (float[N] x) => (float[4] y) <float[4] one = {1, 1, 1, 1}> { a = Mul(x, one) y = Neg(a) }", 1),
    ("may-widen", "g (float[4] x) => (float[1, 4] y) <float[1, 1] zero = {0}> { a = Sub(x, zero) y = Neg(a) }", 0),
    ("size-unknown", "g (float[A, B] x) => (float[C, D] y) <int64[2] s = {1, 5}> { a = Expand(x, s) y = Neg(a) }", 1),
    ("size-unknown", "g (float[A, B] x) => (float[C, D] y) <int64[2] s = {0, 5}> { a = Reshape(x, s) y = Neg(a) }", 5),
    (
        "size-unknown",
        """g (float[A, 2] x) => (float[B, 2] y) <int64[1] b = {0}, int64[1] e = {3}, int64[1] axes = {0}> {
            a = Slice(x, b, e, axes) y = Neg(a) }""",
        4,
    ),
    (
        "operand-not-constant",
        """g (float[4] x, int64[1] e) => (float[B] y) <int64[1] b = {0}> { a = Slice(x, b, e) y = Neg(a) }""",
        4,
    ),
    (
        "operand-not-constant",
        "g (float[4] x, int64[1] b) => (float[B] y) <int64[1] e = {4}> { a = Slice(x, b, e) y = Neg(a) }",
        4,
    ),
    (
        "operand-not-constant",
        """g (float[4] x, int64[1] i) => (float[B] y) <int64[1] b = {0}, int64[1] e = {4}, int64[1] m = {-1}> {
            z = Add(i, m) a = Slice(x, b, e, z) y = Neg(a) }""",
        4,
    ),
    (
        "operand-not-constant",
        """g (float[4] x, int64[1] s) => (float[B] y) <int64[1] b = {0}, int64[1] e = {4}> {
            a = Slice(x, b, e, , s) y = Neg(a) }""",
        4,
    ),
    (
        "axes-unknown",
        "g (float[1, 1] x, int64[1] s) => (float[A, B] y) <int64[1] u = {1}> { a = Unsqueeze(x, s) b = Squeeze(a, u) y = Neg(b) }",
        1,
    ),
    (
        "axes-unknown",
        "g (float[1, 1] x, int64[1] s) => (float[A, B] y) <int64[1] u = {1}> { a = Unsqueeze(x, u) b = Squeeze(a, s) y = Neg(b) }",
        1,
    ),
    ("operand-not-constant", "g (float[A, 2] x) => (float[A, 2] y) { s = Shape(x) a = Reshape(x, s) y = Neg(a) }", 4),
    ("operand-not-constant", "g (float[A, 2] x) => (float[A, 2] y) { s = Shape(x) a = Expand(x, s) y = Neg(a) }", 4),
    ("size-unknown", "g (float[A, B] x) => (float[C, D] y) <int64[2] s = {-1, 3}> { a = Reshape(x, s) y = Neg(a) }", 3),
    (
        "size-unknown",
        "g (float[A, 0] x) => (float[C, 0] y) <int64[2] s = {4, 0}> { a = Reshape(x, s) y = Neg(a) }",
        4,
    ),
    ("operand-not-constant", "g (float[4] x, int64[2] p) => (float[B] y) { a = Pad(x, p) y = Neg(a) }", 4),
    ("operand-not-constant", "g (float[1] x, int64[1] s) => (float[B] y) { a = Expand(x, s) y = Neg(a) }", 4),
]


@pytest.mark.parametrize(("name", "text", "size"), MORE_REFUSALS)
def test_refuses_sizes_it_does_not_know(name, text, size):
    feeds = None
    if "int64[" in text.partition("=>")[0]:
        operand = text.partition(", int64[")[2].partition(")")[0].split("]")
        shape = [int(width) for width in text.partition("float[")[2].partition("]")[0].split(",")]
        feeds = [{"x": np.ones(shape, np.float32), operand[1].strip(): np.ones(int(operand[0]), np.int64)}]
    run = check(Canonicalize(), text, sizes={"A": size, "B": size, "N": size}, feeds=feeds)
    assert run.outcome.changes == 0
    assert run.missed == [name]


def test_rank_unknown_everywhere():
    text = """g (float[N, 4] x, int64[M] s) => (float[A, B] y) <int64[2] t = {6, 2}, int64[1] w = {1},
        int64[1] low = {0}, int64[1] high = {6}, int64[1] axes = {0}, int64[1] u = {-1}, int64[1] v = {2}> {
        a = Reshape(x, s)
        b = Neg(a)
        c = Expand(b, w)
        d = Slice(c, low, high, axes)
        f = Unsqueeze(d, u)
        h = Squeeze(f, v)
        i = Transpose(h)
        j = Transpose(i)
        k = Abs(j)
        l = Flatten(k)
        m = Transpose(l)
        n = Neg(m)
        y = Reshape(n, t)
    }"""
    feeds = [{"x": np.ones((3, 4), np.float32), "s": np.array([6, 2])}]
    run = check(Canonicalize(), text, feeds=feeds)
    counted = {r.rule: r.arguments["number"] for r in run.remarks if r.rule == "rank-unknown"}
    assert counted["rank-unknown"] >= 4
    assert run.ops.count("Transpose") == 1  # the pair cancels whatever the rank


def test_a_constant_with_axes_may_change_an_unknown_shape():
    run = check(
        Canonicalize(),
        """g (float[3, 4] x, int64[M] s) => (float[A, B] y) <float[1] one = {1}> {
            a = Reshape(x, s) b = Mul(a, one) y = Neg(b) }""",
        feeds=[{"x": np.ones((3, 4), np.float32), "s": np.array([6, 2])}],
    )
    assert run.missed == ["operand-not-constant", "may-widen"]


def test_types_whose_arithmetic_is_not_known_are_left_alone():
    text = "g (bfloat16[N] x) => (bfloat16[N] y) <bfloat16 one = {16256}> { a = Mul(x, one) y = Neg(a) }"
    assert check(Canonicalize(), text, execute=False).outcome.changes == 0


def test_a_number_changes_no_shape_known_or_not():
    run = check(
        Canonicalize(),
        """g (float[3, 4] x, int64[M] s) => (float[A, B] y) <float one = {1}> {
            a = Reshape(x, s) b = Mul(a, one) y = Neg(b) }""",
        feeds=[{"x": np.ones((3, 4), np.float32), "s": np.array([6, 2])}],
    )
    assert run.ops == ["Reshape", "Neg"]


def test_a_mask_that_is_read():
    run = check(Canonicalize(), "g (float[N] x) => (float[N] y, bool[N] z) { a, m = Dropout(x) y = Neg(a) z = Not(m) }")
    assert run.missed == ["mask-used"]


def test_a_dropout_that_trains():
    text = "g (float[N] x) => (float[N] y) <float r = {0.0}, bool t = {1}> { a = Dropout(x, r, t) y = Neg(a) }"
    assert check(Canonicalize(), text).missed == ["may-train"]


def test_the_oldest_dropout():
    text = f"{OPSET_6} g (float[3] x) => (float[3] y) {{ a = Dropout <is_test: int = 1> (x) y = Neg(a) }}"
    assert check(Canonicalize(), onnx.parser.parse_model(text), execute=False).ops == ["Neg"]


def test_the_mask_alone():
    model = onnx.parser.parse_model(f"{HEADER} g (float[N] x) => (bool[N] m) {{ , m = Dropout(x) }}")
    run = check(Canonicalize(), model, execute=False)
    assert run.outcome.changes == 0
    assert run.remarks == []


def test_old_broadcasting_and_old_dropout_are_left_alone():
    text = f"""{OPSET_6} g (float[3] x, float[1] one) => (float[3] y) <float[1] one = {{1}}> {{
        a = Mul <broadcast: int = 1> (x, one) b = Dropout(a) y = Neg(b) }}"""
    model = onnx.parser.parse_model(text)
    run = check(Canonicalize(), model, execute=False)
    assert run.outcome.changes == 0
    assert run.missed == ["may-train"]


def test_the_old_reshape_is_left_alone():
    model = onnx.parser.parse_model(
        '<ir_version: 3, opset_import: ["": 4]> g (float[2, 3] x) => (float[2, 3] y) {'
        " a = Reshape <shape: ints = [2, 3]> (x) y = Neg(a) }"
    )
    assert check(Canonicalize(), model, execute=False).outcome.changes == 0


def test_types_of_fills_and_neurons():
    variant = NeuronVariant("LI")
    inputs = ["f", *["c"] * (len(variant.inputs) - 1)]
    nodes = [
        helper.make_node("Shape", ["x"], ["n"]),
        helper.make_node("ConstantOfShape", ["n"], ["e"]),
        helper.make_node("Cast", ["e"], ["f"], to=TensorProto.FLOAT),
        helper.make_node(variant.op_type, inputs, ["s", "v"], domain=DOMAIN, **variant.attributes()),
        helper.make_node("Cast", ["s"], ["t"], to=TensorProto.FLOAT),
        helper.make_node("ConstantOfShape", ["n"], ["h"], value=helper.make_tensor("", TensorProto.INT32, [1], [3])),
        helper.make_node("Cast", ["h"], ["i"], to=TensorProto.INT32),
        helper.make_node("CastLike", ["i", "t"], ["j"]),
        helper.make_node("Cast", ["j"], ["k"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["k", "t"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", 2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", 2, 3])],
        [helper.make_tensor("c", TensorProto.FLOAT, [], [0.5])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=[function_proto(variant)])
    run = check(Canonicalize(), model)
    assert "Cast" not in run.ops


def test_an_element_type_of_the_future():
    model = onnx.parser.parse_model(
        f"{HEADER} g (float[N] x) => (float[N] y) {{ a = Cast <to: int = 99> (x) y = Neg(a) }}"
    )
    assert check(Canonicalize(), model, execute=False).missed == ["type-unknown"]
