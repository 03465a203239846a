"""Which axes count samples and steps."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.execution.axes import batch_axes, output_axes, time_axis
from snn_optimizer.execution.ort import Port


def port(*shape, name="x") -> Port:
    return Port(name, np.dtype(np.float32), shape)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        (("T", "batch", 64), 1),
        ((25, "batch", 1, 8, 8), 1),
        (("batch", 20, 64), 0),  # batch-major, as one framework exports
        (("batch", 1, 8, 8), 0),
        (("batch", 64), 0),
        (("s77", 64), 0),
        ((25, "s0", 64), 1),
        (("T", 1, 64), 1),
        ((3, "T", 2, 4, 4), 0),  # batch-major with a batch of its own
        ((3, "T", 64), 0),
        (("steps", "n_units", 64), 1),
        (("s0", 1, 8, 8), 0),
        ((25, 16, 64), 1),
        ((1, 64), 0),
        ((64,), None),
        (("batch",), 0),
        ((), None),
    ],
)
def test_declared_shapes(shape, axis):
    assert batch_axes([port(*shape)]) == {"x": axis}


def test_the_number_of_labels_decides_where_no_symbol_does():
    data = {"x": np.zeros((64, 20, 5))}
    assert batch_axes([port(None, None, 5)], data, samples=64) == {"x": 0}
    assert batch_axes([port(None, None, 5)], data, samples=20) == {"x": 1}


def test_an_unknown_rank_follows_the_data():
    unknown = Port("x", np.dtype(np.float32), None)
    assert batch_axes([unknown]) == {"x": None}
    assert batch_axes([unknown], {"x": np.zeros((4, 3, 2))}) == {"x": 1}


def test_a_fixed_input_beside_a_batch_is_shared():
    assert batch_axes([port("T", "batch", 4), port(4, 4, name="w")])["w"] is None


def test_time():
    assert time_axis((5, 3, 2), 1) == 0
    assert time_axis((3, 2), 0) is None
    assert time_axis((5, 3), 1) is None


@pytest.mark.parametrize(
    ("declared", "shape", "axes"),
    [
        (("T", "batch", 4), (8, 8, 4), (0, 1)),
        (("batch", "units"), (8, 4), (None, 0)),
        ((None, None, None), (16, 8, 4), (0, 1)),
        ((None, None), (8, 4), (None, 0)),
        ((None, None), (16, 8), (0, 1)),
        ((None, None, None), (25, 8, 4), (0, 1)),  # steps of its own, as from a constant input
        ((), (), (None, None)),
    ],
)
def test_outputs(declared, shape, axes):
    assert output_axes(port(*declared), shape, steps=16, samples=8) == axes
