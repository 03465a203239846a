"""Frames: what is counted, and what is left of too many."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.errors import InputError
from snn_optimizer.ir import InputDomain
from snn_optimizer.ir.activity_limit import frame_axes, largest_activity, thinned


@pytest.mark.parametrize(
    ("rank", "axes"), [(0, ()), (1, ()), (2, (1,)), (3, (2,)), (4, (2, 3)), (5, (2, 3, 4))]
)  # fmt: skip
def test_a_frame_is_what_lies_behind_steps_and_samples(rank: int, axes: tuple[int, ...]) -> None:
    assert frame_axes(rank) == axes


def test_activity_is_counted_per_frame() -> None:
    array = np.zeros((2, 3, 2, 2))
    array[1, 2, :, 0] = -1
    array[0, 0, 0, 0] = 1
    assert largest_activity(array) == 2
    assert largest_activity(np.zeros((0, 3))) == 0
    assert largest_activity(np.ones(5)) == 1


@pytest.mark.parametrize("limit", [1, 3, 7, 8, 20])
@pytest.mark.parametrize("shape", [(4, 5, 8), (4, 8), (3, 4, 2, 4)])
def test_thinned_frames_keep_as_many_as_allowed(limit: int, shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    array = (generator.random(shape) * (generator.random(shape) < 0.7)).astype(np.float32)
    found = thinned(array, limit, generator)
    assert found.dtype == array.dtype
    assert ((found == array) | (found == 0)).all()
    before, after = (np.count_nonzero(each, axis=frame_axes(len(shape))) for each in (array, found))
    np.testing.assert_array_equal(after, np.minimum(before, limit))


def test_what_is_preferred_stays() -> None:
    array = np.ones((2, 3, 6))
    array[0, 0, 5] = 0
    found = thinned(array, 2, np.random.default_rng(0), np.arange(6.0))
    assert (found[1, 2] == [0, 0, 0, 0, 1, 1]).all()
    assert (found[0, 0] == [0, 0, 0, 1, 1, 0]).all()


def test_a_domain_with_limits() -> None:
    domain = InputDomain(max_active=3, named_active={"y": 1})
    assert domain.active_limits(["x", "y"]) == {"x": 3, "y": 1}
    assert InputDomain(named_active={"y": 1}).active_limits(["x", "y"]) == {"y": 1}
    assert domain.widened("x", -1, 2).most_active("x") == 3
    assert any("at most 3 entries" in premise for premise in domain.premises())


def test_declarations_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        InputDomain(max_active=0)
    with pytest.raises(InputError, match="holds no zero"):
        InputDomain(named={"x": (0.5, 1.0)}, named_active={"x": 2})
    InputDomain(named={"x": (0.5, 1.0)}, named_active={"y": 2})
