"""The inputs of a model: that all are there once, and none that was not declared."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from snn_optimizer.errors import InputError
from snn_optimizer.exact.space import InputSpace, NotEnumerable
from snn_optimizer.execution import Port
from snn_optimizer.ir import InputDomain

FLOAT, BYTE = np.dtype(np.float32), np.dtype(np.uint8)


def every(space: InputSpace, name: str, samples: int = 7) -> list[bytes]:
    """All samples of one input, in order, as bytes."""
    found = []
    for _, fresh, feeds in space.runs(samples):
        one = next(e for e in space.entries if e.name == name)
        parts = np.moveaxis(feeds[name], one.batch_axis or 0, 0)[:fresh]
        found += [np.ascontiguousarray(part).tobytes() for part in parts]
    return found


@pytest.mark.parametrize(("steps", "features"), [(1, 3), (3, 2), (2, 4)])
def test_all_spike_trains_once(steps: int, features: int) -> None:
    space = InputSpace([Port("x", FLOAT, (steps, "batch", features))], InputDomain())
    assert space.count == 2 ** (steps * features)
    found = every(space, "x")
    wanted = {np.array(bits, np.float32).tobytes() for bits in itertools.product((0, 1), repeat=steps * features)}
    assert len(found) == space.count
    assert set(found) == wanted


def test_open_time_takes_the_given_steps() -> None:
    space = InputSpace([Port("x", FLOAT, ("time", "batch", 2))], InputDomain(), steps=3)
    assert space.describe() == "2^6 = 64 inputs (6 = 2 inputs x 3 steps)"
    assert space.feeds([0, 63])["x"].shape == (3, 2, 2)


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_activity_limit_holds_at_every_step_and_leaves_out_nothing(limit: int) -> None:
    space = InputSpace([Port("x", FLOAT, (2, "batch", 4))], InputDomain(max_active=limit))
    everything = InputSpace([Port("x", FLOAT, (2, "batch", 4))], InputDomain())
    allowed = [
        raw for raw in every(everything, "x") if (np.frombuffer(raw, np.float32).reshape(2, 4).sum(1) <= limit).all()
    ]
    assert sorted(every(space, "x")) == sorted(allowed)
    assert space.count == len(allowed)


def test_ranges_of_single_entries() -> None:
    domain = InputDomain(named={"x": ([0, 0, 1], [0, 1, 1])})
    space = InputSpace([Port("x", FLOAT, (1, "batch", 3))], domain)
    assert sorted(np.frombuffer(raw, np.float32).tolist() for raw in every(space, "x")) == [[0, 0, 1], [0, 1, 1]]


def test_whole_numbers_take_every_value_of_their_range() -> None:
    space = InputSpace([Port("n", BYTE, ("batch", 2))], InputDomain(named={"n": (3, 5)}))
    found = {tuple(np.frombuffer(raw, np.uint8).tolist()) for raw in every(space, "n")}
    assert found == set(itertools.product((3, 4, 5), repeat=2))


def test_whole_numbers_under_an_activity_limit() -> None:
    space = InputSpace([Port("n", BYTE, ("batch", 3))], InputDomain(named={"n": (0, 2)}, max_active=1))
    found = {tuple(np.frombuffer(raw, np.uint8).tolist()) for raw in every(space, "n")}
    assert found == {p for p in itertools.product((0, 1, 2), repeat=3) if np.count_nonzero(p) <= 1}
    assert space.count == len(found)


def test_two_inputs_meet_in_every_combination() -> None:
    ports = [Port("a", FLOAT, (1, "batch", 2)), Port("b", FLOAT, ("batch", 1))]
    space = InputSpace(ports, InputDomain())
    pairs = set(zip(every(space, "a"), every(space, "b"), strict=True))
    assert len(pairs) == space.count == 8


def test_a_fixed_batch_is_filled_up() -> None:
    space = InputSpace([Port("x", FLOAT, (1, 3, 2))], InputDomain())
    runs = list(space.runs(100))
    assert [fresh for _, fresh, _ in runs] == [3, 1]
    assert all(feeds["x"].shape == (1, 3, 2) for _, _, feeds in runs)
    assert len(set(every(space, "x"))) == 4


@pytest.mark.parametrize(
    ("port", "domain", "states", "reason", "said"),
    [
        (Port("x", FLOAT, (5, "b", 5)), InputDomain(), (), "too-many-inputs", "2^25 = 33,554,432"),
        (Port("x", FLOAT, (50, "b", 50)), InputDomain(), (), "too-many-inputs", "about 2^2500"),
        (Port("x", FLOAT, (2, "b", 2)), InputDomain(default=(-1, 1)), (), "real-values", "-1..1"),
        (Port("x", BYTE, ("b", 2)), InputDomain(default=(0, np.inf)), (), "real-values", "no bounds"),
        (Port("v", FLOAT, ("b", 2)), InputDomain(), ("v",), "state-input", "--input-range v=0:0"),
        (Port("x", FLOAT, None), InputDomain(), (), "unknown-shape", "'x'"),
        (Port("x", FLOAT, (2, "b", "features")), InputDomain(), (), "open-size", "axis 2"),
    ],
)
def test_refusals_have_a_name_and_the_count(port, domain, states, reason: str, said: str) -> None:
    with pytest.raises(NotEnumerable, match=r"cannot decide for all inputs") as error:
        InputSpace([port], domain, states=states)
    assert error.value.reason == reason
    assert said in str(error.value)


def test_a_state_of_declared_value_is_no_choice() -> None:
    ports = [Port("x", FLOAT, ("b", 2)), Port("v", FLOAT, ("b", 2))]
    space = InputSpace(ports, InputDomain(named={"v": (0.5, 0.5)}), states=("v",))
    assert space.count == 4
    assert (space.feeds([0, 3])["v"] == 0.5).all()


def test_a_range_of_another_shape_is_the_callers_mistake() -> None:
    with pytest.raises(InputError, match=r"range of input 'x' has shape \(3,\)"):
        InputSpace([Port("x", FLOAT, (2, "b", 2))], InputDomain(named={"x": ([0, 0, 0], [1, 1, 1])}))
