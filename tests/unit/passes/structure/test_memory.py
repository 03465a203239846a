"""Cutting weights makes one new copy of them, and looking at a linear map none."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest

from snn_optimizer.analyses import AnalysisManager, UnitGroups
from snn_optimizer.ir import GraphIndex, LayerNode, SNNGraph, Use
from snn_optimizer.passes.structure.linear_maps import affine_map
from snn_optimizer.passes.unit_surgery import _Edit

Result = TypeVar("Result")
ROWS, COLUMNS = 6_000, 3_000
WEIGHTS = 4 * ROWS * COLUMNS


def peak(call: Callable[[], Result]) -> tuple[Result, int]:
    tracemalloc.start()
    try:
        result = call()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("offset", [0, 3])  # where a file happens to put the numbers
@pytest.mark.parametrize("axis", [0, 1])
def test_a_cut_makes_one_copy(offset: int, axis: int) -> None:
    data = np.zeros(WEIGHTS + offset, np.uint8)
    array = np.frombuffer(memoryview(data)[offset:], np.float32).reshape(ROWS, COLUMNS)
    assert array.flags.aligned == (offset == 0)
    data[offset:].reshape(ROWS, -1)[:, ::401] = 1
    keep = np.arange(array.shape[axis]) % 50 != 7
    edit = _Edit(Use(None, 0), {axis: keep})  # type: ignore[arg-type]  # the node is not looked at
    result, most = peak(lambda: edit.applied(array))
    assert most < 1.2 * WEIGHTS
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, array[keep] if axis == 0 else array[:, keep])


def test_cuts_of_several_axes() -> None:
    array = np.random.default_rng(0).normal(size=(7, 5, 3, 2))
    keep = {0: np.arange(7) % 2 == 0, 1: np.arange(5) != 2, 3: np.array([False, True])}
    result = _Edit(Use(None, 0), keep).applied(array)  # type: ignore[arg-type]
    np.testing.assert_array_equal(result, array[keep[0]][:, keep[1]][..., keep[3]])
    nothing = _Edit(Use(None, 0), {1: np.zeros(5, np.bool_)}).applied(array)  # type: ignore[arg-type]
    assert nothing.shape == (7, 0, 3, 2)
    assert _Edit(Use(None, 0), {1: keep[1]}).applied(array[:0]).shape == (0, 4, 3, 2)  # type: ignore[arg-type]


def test_a_linear_map_is_looked_at_without_a_copy() -> None:
    weights = np.ones((ROWS, COLUMNS), np.float32)
    graph = SNNGraph(layers=[LayerNode("hidden", COLUMNS, ROWS, weights)])
    (contraction,) = AnalysisManager(graph.module).get(UnitGroups).contractions
    index = GraphIndex(graph.module)
    found, most = peak(lambda: affine_map(contraction, index))
    assert found is not None
    assert found.shape == (ROWS, COLUMNS)
    assert most < 0.1 * WEIGHTS
    assert found.weights.dtype == np.float64
