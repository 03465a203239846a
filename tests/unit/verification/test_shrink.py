"""Counterexamples get as small as they can, and stay counterexamples."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.execution import Dataset, Port
from snn_optimizer.verification.shrink import shrink

OPEN = (Port("x", np.dtype(np.float32), ("T", "batch", 5)),)
FIXED = (Port("x", np.dtype(np.float32), (12, "batch", 5)),)


def run(inputs=OPEN, samples: int = 4, *, low: float = 0.0) -> Dataset:
    values = (np.random.default_rng(2).random((12, samples, 5)) < 0.5).astype(np.float32)
    values[3, :, 2] = values[8, :, 1] = 1
    return Dataset.from_arrays({"x": np.where(values > 0, 1, low).astype(np.float32)}, inputs)


def one_after_two(data: Dataset) -> bool:
    """Entry 2 is active at some step, and entry 1 at a later one."""
    x = data.feeds["x"]
    seen = np.cumsum(x[:, :, 2] == 1, axis=0) - (x[:, :, 2] == 1)
    return bool(((seen > 0) & (x[:, :, 1] == 1)).any())


def counted(predicate):
    calls = []

    def differs(data: Dataset) -> bool:
        calls.append(data)
        return predicate(data)

    return differs, calls


def test_steps_and_entries_that_do_not_matter_are_left_out():
    small = shrink(run(), 2, one_after_two, OPEN)
    assert (small.data.samples, small.steps, small.active) == (1, 2, 2)
    np.testing.assert_array_equal(small.data.feeds["x"][:, 0], [[0, 0, 1, 0, 0], [0, 1, 0, 0, 0]])
    assert small.alone
    assert small.minimal


def test_a_fixed_number_of_steps_stays():
    small = shrink(run(FIXED), 2, one_after_two, FIXED)
    assert (small.steps, small.active) == (12, 2)
    assert one_after_two(small.data)


def test_the_model_gets_as_many_samples_as_it_wants():
    inputs = (Port("x", np.dtype(np.float32), ("T", 4, 5)),)
    small = shrink(run(inputs), 1, one_after_two, inputs)
    assert small.data.feeds["x"].shape == (2, 4, 5)
    assert (small.data.feeds["x"] == small.data.feeds["x"][:, :1]).all()
    assert small.active == 2


def test_entries_rest_at_the_end_of_their_range_nearest_to_zero():
    data = run(low=0.5)
    small = shrink(data, 0, one_after_two, OPEN, ranges={"x": (0.5, 1.0)})
    assert set(np.unique(small.data.feeds["x"])) == {0.5, 1.0}
    assert small.active == 2


def test_what_differs_only_in_company_is_kept_whole():
    data = run()
    small = shrink(data, 1, lambda each: each.samples == 4, OPEN)
    assert small.data is data
    assert not small.alone
    assert shrink(data, None, lambda _: True, OPEN).data is data


def test_values_of_measured_claims_stay():
    data = run()
    small = shrink(data, 2, one_after_two, OPEN, fixed_inputs=True)
    assert small.steps < 12
    np.testing.assert_array_equal(small.data.feeds["x"], data.feeds["x"][: small.steps, 2:3])
    assert not one_after_two(Dataset.from_arrays({"x": data.feeds["x"][: small.steps - 1, 2:3]}, OPEN))


def test_attempts_are_bounded():
    differs, calls = counted(one_after_two)
    small = shrink(run(), 2, differs, OPEN, attempts=5)
    assert len(calls) == 6  # and the one that runs the sample alone
    assert not small.minimal
    assert one_after_two(small.data)


@pytest.mark.parametrize("needed", [0, 1, 7])
def test_nothing_more_can_be_left_out(needed):
    """Any set of entries of one step may be needed."""

    def differs(data: Dataset) -> bool:
        return bool((data.feeds["x"].sum(axis=(0, 2)) >= needed).all()) and data.steps >= 1

    small = shrink(run(), 0, differs, OPEN)
    assert small.active == needed
    assert small.minimal
