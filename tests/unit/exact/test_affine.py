"""Arrays of affine functions: their values, and that rounding stays within what is claimed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

pytest.importorskip("scipy")

from onnx import helper

from snn_optimizer.exact.affine import COARSEST, Affine, grid_of
from snn_optimizer.exact.affine_rules import NotLinear, apply_rule, run_reference
from snn_optimizer.exact.program import MixedProgram

UNIT = 2.0**-24


def variables(*shape: int) -> tuple[MixedProgram, Affine]:
    program, size = MixedProgram(), int(np.prod(shape))
    numbers = program.variables(np.zeros(size), np.ones(size), integral=True)
    return program, Affine(shape, np.zeros(size), program.rows_of(numbers), np.ones(size), 0, 0)


def at(value: Affine, point: np.ndarray) -> np.ndarray:
    return (value.constant + value.terms @ point[: value.terms.shape[1]]).reshape(value.shape)


RULES = {
    "Add": ([2, 3], [np.float32([[0.1, 0.2, 0.3]])], {}),
    "Sub": ([2, 3], [np.float32([[0.1], [0.7]])], {}),
    "Mul": ([2, 3], [np.float32([0.3, -2, 5])], {}),
    "Div": ([2, 3], [np.float32([0.3, -2, 5])], {}),
    "Neg": ([2, 3], [], {}),
    "MatMul": ([2, 1, 3], [np.float32([[1, 2], [3, 4], [-5, 6.1]])], {}),
    "Gemm": ([2, 3], [np.float32([[1, 2, 3], [-5, 6.1, 0]]), np.float32([0.1, 0.2])], {"transB": 1, "alpha": 0.5}),
    "Conv": ([2, 2, 3, 3], [np.random.default_rng(0).normal(size=(2, 1, 2, 2)).astype(np.float32), np.float32([1, 2])],
             {"group": 2, "pads": [1, 0, 0, 1]}),
    "AveragePool": ([2, 2, 3, 3], [], {"kernel_shape": [2, 2]}),
    "GlobalAveragePool": ([2, 2, 3, 3], [], {}),
    "BatchNormalization": ([2, 2, 2, 2], [np.float32([a, b]) for a, b in ((2, 1), (0.5, 0), (0.3, 9), (1, 2))], {}),
    "ReduceMean": ([2, 3], [np.array([1])], {"keepdims": 0}),
    "ReduceSum": ([2, 3], [np.array([0])], {}),
    "Reshape": ([2, 3], [np.array([3, -1])], {}),
    "Transpose": ([2, 3], [], {"perm": [1, 0]}),
    "Flatten": ([2, 3, 2], [], {}),
    "Slice": ([2, 3], [np.array([1]), np.array([3]), np.array([1])], {}),
    "Gather": ([2, 3], [np.array([2, 0])], {"axis": 1}),
    "Concat": ([2, 3], [np.float32([[4, 5, 6]])], {"axis": 0}),
    "Expand": ([2, 1], [np.array([2, 3])], {}),
    "Unsqueeze": ([2, 3], [np.array([0])], {}),
}  # fmt: skip


@pytest.mark.parametrize("op", RULES)
def test_rules_compute_what_the_operator_does(op: str) -> None:
    shape, others, attributes = RULES[op]
    node = helper.make_node(op, ["x", *(f"c{i}" for i in range(len(others)))], ["y"], **attributes)
    _, signal = variables(*shape)
    result = apply_rule(node, [signal, *others], 18, UNIT)[0]
    assert isinstance(result, Affine)
    generator = np.random.default_rng(1)
    for _ in range(8):
        point = generator.integers(0, 2, signal.size).astype(np.float32)
        real = run_reference(
            node, [point.astype(np.float64).reshape(shape), *(o.astype(np.float64) if o.dtype.kind == "f" else o for o in others)], 18
        )[0]  # fmt: skip
        np.testing.assert_allclose(at(result, point), real, rtol=1e-12, atol=1e-12)
        floats = run_reference(node, [point.reshape(shape), *others], 18)[0]
        error = result.error(UNIT).reshape(result.shape) + 1e-12
        assert (np.abs(floats - real) <= error).all()


@pytest.mark.parametrize("op", ["Sigmoid", "MaxPool", "Exp", "Where"])
def test_other_operators_have_no_rule(op: str) -> None:
    node = helper.make_node(op, ["x"], ["y"])
    with pytest.raises(NotLinear, match=op):
        apply_rule(node, [variables(2, 3)[1]], 18, UNIT)


def test_products_of_two_signals_have_no_rule() -> None:
    _, signal = variables(2, 2)
    for op in ("Mul", "MatMul"):
        with pytest.raises(NotLinear, match=op):
            apply_rule(helper.make_node(op, ["x", "y"], ["z"]), [signal, signal], 18, UNIT)


def test_a_narrowing_cast_has_no_rule() -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.FLOAT16)
    with pytest.raises(NotLinear, match="float16"):
        apply_rule(node, [variables(2)[1]], 18, UNIT)


@pytest.mark.parametrize(
    ("values", "grid"), [([0.25, 1.5, -3], -2), ([4, 12], 2), ([0.0], COARSEST), ([0.1], -55), ([np.inf], None)]
)
def test_grids(values: list[float], grid: int | None) -> None:
    assert grid_of(np.asarray(values, np.float64)) == grid


def test_sums_on_a_grid_are_not_rounded_and_others_are() -> None:
    _, signal = variables(1, 4)
    exact = apply_rule(
        helper.make_node("MatMul", ["x", "w"], ["y"]), [signal, np.full((4, 1), 0.25, np.float32)], 18, UNIT
    )[0]
    rounded = apply_rule(
        helper.make_node("MatMul", ["x", "w"], ["y"]), [signal, np.full((4, 1), 0.1, np.float32)], 18, UNIT
    )[0]
    assert isinstance(exact, Affine)
    assert isinstance(rounded, Affine)
    assert exact.roundings == 0
    assert exact.error(UNIT).tolist() == [0]
    assert rounded.roundings > 0
    assert (rounded.error(UNIT) > 0).all()
    huge = exact.plus(Affine.of(2.0**24), UNIT)  # a quarter more does not fit the significand
    assert huge.roundings > 0
