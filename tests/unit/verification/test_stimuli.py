"""Generated inputs: kinds, ranges, seeds, sizes."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.errors import DataError
from snn_optimizer.execution import Port
from snn_optimizer.ir import InputDomain
from snn_optimizer.ir.activity_limit import largest_activity
from snn_optimizer.verification import generate

KINDS = ["zeros", "ones", "random:0.05", "random:0.3", "random:0.7", "impulse", "bursts", "constant"]


def port(*shape, name="x", dtype=np.float32) -> Port:
    return Port(name, np.dtype(dtype), shape)


def made(*ports, steps=16, batch=8, seed=0, **options) -> dict[str, dict[str, np.ndarray]]:
    stimuli = generate(ports, steps=steps, batch=batch, seed=seed, **options)
    return {stimulus.name: dict(stimulus.feeds) for stimulus in stimuli}


def test_the_kinds_of_binary_trains():
    feeds = {name: each["x"] for name, each in made(port("T", "batch", 50)).items()}
    assert list(feeds) == KINDS
    for array in feeds.values():
        assert array.shape == (16, 8, 50)
        assert array.dtype == np.float32
        assert set(np.unique(array)) <= {0.0, 1.0}
    assert not feeds["zeros"].any()
    assert feeds["ones"].all()
    for rate in (0.05, 0.3, 0.7):
        assert feeds[f"random:{rate:g}"].mean() == pytest.approx(rate, abs=0.02)
    np.testing.assert_array_equal(feeds["impulse"].sum(axis=(0, 2)), np.ones(8))
    assert (feeds["constant"] == feeds["constant"][0]).all()
    assert 0 < feeds["constant"][0].mean() < 1
    active = feeds["bursts"].any(axis=2)
    assert active.any(axis=0).all()
    assert not active.all(axis=0).any()
    edges = np.abs(np.diff(np.pad(active.astype(int), ((1, 1), (0, 0))), axis=0)).sum(axis=0)
    np.testing.assert_array_equal(edges, np.full(8, 2))  # one burst per sample


def test_seeds():
    first, again, other = (made(port("T", "batch", 20), seed=seed) for seed in (1, 1, 2))
    for name in KINDS:
        np.testing.assert_array_equal(first[name]["x"], again[name]["x"])
    assert any((first[name]["x"] != other[name]["x"]).any() for name in KINDS)


@pytest.mark.parametrize(
    ("ports", "shapes"),
    [
        ([port(25, "batch", 4)], [(25, 8, 4)]),
        ([port("T", 1, 4)], [(16, 8, 4)]),  # filled sample by sample
        ([port("T", 3, 4)], [(16, 9, 4)]),
        ([port("batch", 4)], [(8, 4)]),
        ([port("batch", "time", 4)], [(8, 16, 4)]),
        ([port("T", "batch", "width")], [(16, 8, 8)]),
        ([port("T", "batch", 4), port("batch", 7, name="v")], [(16, 8, 4), (8, 7)]),
        ([port("T", "batch", "n"), port("n", name="v")], [(16, 8, 8), (8,)]),
        ([port(None, None, None)], [(16, 8, 8)]),
        ([port()], [()]),
    ],
)
def test_sizes(ports, shapes):
    for feeds in made(*ports).values():
        assert [feeds[each.name].shape for each in ports] == shapes


def test_a_declared_range_is_kept_and_its_inside_used():
    kinds = made(port("T", "batch", 40), ranges={"x": (-2.0, 0.5)})
    assert list(kinds) == [*KINDS, "uniform", "grid"]
    assert (kinds["zeros"]["x"] == -2).all()
    assert (kinds["ones"]["x"] == 0.5).all()
    uniform = kinds["uniform"]["x"]
    assert -2 <= uniform.min() < -1.9
    assert 0.4 < uniform.max() <= 0.5
    assert len(np.unique(uniform)) > 1000


def test_the_grid_is_of_multiples_of_a_power_of_two():
    feeds = made(port("batch", 40), port("batch", 20, name="v"), states=["v"], ranges={"x": (-2.0, 0.75)})["grid"]
    assert (feeds["x"] * 4 % 1 == 0).all()
    assert -2 <= feeds["x"].min() < feeds["x"].max() <= 0.75
    assert (feeds["v"] * 4 % 1 == 0).all()
    assert len(np.unique(feeds["v"])) > 5
    whole = made(port("batch", 400, dtype=np.int32), ranges={"x": (0, 100)})["grid"]["x"]
    assert (whole % 8 == 0).mean() > 0.9
    assert len(np.unique(whole)) > 5


def test_ranges_per_feature():
    domain = InputDomain(named={"x": (np.zeros(3), np.array([1.0, 0.0, 5.0]))})
    for feeds in made(port("T", "batch", 3), ranges=domain).values():
        assert (feeds["x"][..., 1] == 0).all()
        assert feeds["x"].max() <= 5
    assert (made(port("T", "batch", 3), ranges=domain)["ones"]["x"] == [1, 0, 5]).all()


def test_another_default_range():
    feeds = made(port("T", "batch", 3), ranges=InputDomain(default=(0.0, 3.0)))
    assert feeds["ones"]["x"].max() == 3
    assert "uniform" in feeds


def test_endless_ranges_are_cut():
    feeds = made(port("T", "batch", 3), ranges={"x": (-np.inf, np.inf)})
    assert all(np.isfinite(each["x"]).all() for each in feeds.values())


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_other_types(dtype):
    for feeds in made(port("T", "batch", 30, dtype=dtype)).values():
        assert feeds["x"].dtype == dtype
        assert set(np.unique(feeds["x"].astype(int))) <= {0, 1}


def test_integers_within_a_range():
    feeds = made(port("T", "batch", 30, dtype=np.int32), ranges={"x": (0.5, 4.5)})
    assert set(np.unique(feeds["uniform"]["x"])) == {1, 2, 3, 4}


def test_states_take_real_values():
    ports = (port("batch", 30), port("batch", 20, name="v"))
    feeds = made(*ports, states=["v"])
    assert list(feeds) == [*KINDS, "grid"]
    assert not feeds["zeros"]["v"].any()
    values = feeds["random:0.3"]["v"]
    assert len(np.unique(values)) > 100
    assert values.min() < 0
    assert values.max() > 1
    assert set(np.unique(feeds["random:0.3"]["x"])) == {0.0, 1.0}
    declared = made(*ports, states=["v"], ranges={"v": (0.0, 0.25)})
    assert declared["ones"]["v"].max() <= 0.25


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Port("x", np.dtype(object), ("T", "batch", 3)), "input 'x' is object"),
        (Port("x", np.dtype(np.float32), None), "input 'x' declares no shape"),
    ],
)
def test_inputs_no_values_can_be_made_for(bad, message):
    with pytest.raises(DataError, match=message):
        made(bad)


def test_limits_on_active_entries_hold_for_every_kind():
    domain = InputDomain(default=(-1.0, 1.0), max_active=2)
    feeds = made(port("T", "batch", 9), port("batch", 9, name="v"), ranges=domain, states={"v"})
    for name, each in feeds.items():
        assert largest_activity(each["x"]) <= 2, name
    assert largest_activity(feeds["random:0.7"]["v"]) > 2  # a state is no input
    held = made(port("T", "batch", 9), ranges=InputDomain(max_active=2))
    for name in ("ones", "constant"):
        assert (held[name]["x"] == held[name]["x"][0]).all()
    assert largest_activity(held["ones"]["x"]) == 2
