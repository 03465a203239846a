"""Inputs solved for one neuron after another: sums that meet thresholds, crossings between neighbouring floats."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from snn_optimizer.execution import Dataset, Observer, Session
from snn_optimizer.ops import NeuronVariant
from snn_optimizer.verification import generate
from snn_optimizer.verification.crossings import solve_crossings
from snn_optimizer.verification.ties import exact_subset, grid_unit, solve_sums
from tests.support import models


def base(model, **options):
    return generate(Session(model).inputs, steps=6, batch=8, seed=0, **options)


def gaps(model, stimulus, population: str) -> np.ndarray:
    observer = Observer(model)
    data = Dataset.from_arrays(stimulus.feeds, observer.session.inputs)
    (seen,) = observer.observe(data.feeds, [observer.tap(population)])
    return seen.gap


@pytest.mark.parametrize("seed", range(20))
def test_subsets_are_found_where_there_are_any(seed):
    generator = np.random.default_rng(seed)
    numbers = generator.integers(-9, 10, 8).tolist()
    sums = {sum(chosen) for size in range(9) for chosen in itertools.combinations(numbers, size)}
    for target in range(-40, 41):
        found = exact_subset(numbers, target)
        if target == 0 or target in sums:
            assert found is None or sum(numbers[k] for k in found) == target
        assert (found is not None) == (target in sums), target
        assert found is None or len(set(found)) == len(found)


def test_sums_that_get_too_large_are_left():
    assert exact_subset([1 << 15, 1 << 15, 1], 1) is None
    assert exact_subset([], 0) is None


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([0.5, -1.25, 2], 0.25),
        (np.float32([0.1, 0.7, -0.9, 1.7]), 0.1),
        ([3 * 0.37, -5 * 0.37, 0.37], 0.37),
        ([0.1234567, 0.7654321, 0.3141592, 0.2718281], None),
        ([0.5], None),
        ([0.0, 0.0], None),
    ],
)
def test_the_unit_of_a_grid(values, unit):
    assert grid_unit(values) == (None if unit is None else pytest.approx(unit))


def tenths(inputs: int = 30, units: int = 12, **options):
    weight = (np.random.default_rng(11).integers(-5, 10, (units, inputs)) / 10).astype(np.float32)
    return models.mlp((inputs, units), weights=[weight], biases=[np.zeros(units, np.float32)], **options)


def test_weights_on_a_grid_tie_for_every_neuron():
    model = tenths()
    (found,) = solve_sums(Observer(model), base(model))
    assert found.name == "grid:lif1"
    near = np.abs(gaps(model, found, "lif1")[0]) < 1e-6
    assert near.any(axis=0).all()
    assert near.any(axis=1).all()
    plain = next(each for each in base(model) if each.name == "random:0.3")
    assert not (np.abs(gaps(model, plain, "lif1")[0]) < 1e-6).any(axis=0).all()


def test_real_weights_come_within_rounding_for_most_neurons():
    model = models.mlp((40, 30, 5))
    found = {each.name: each for each in solve_sums(Observer(model), base(model))}
    assert "sums:lif1" in found
    near = (np.abs(gaps(model, found["sums:lif1"], "lif1")[0]) <= 1e-5).any(axis=0)
    assert near.mean() > 0.8


def test_activity_limits_hold():
    model = tenths()
    (found,) = solve_sums(Observer(model), base(model), limits={"x": 3})
    assert (found.feeds["x"][0] != 0).sum(axis=-1).max() <= 3


def test_the_values_of_a_solution_are_allowed_ones_and_the_base_stays():
    model = tenths()
    start = base(model)
    copies = [each.feeds["x"].copy() for each in start]
    (found,) = solve_sums(Observer(model), start, seed=3)
    assert set(np.unique(found.feeds["x"])) == {0.0, 1.0}
    (again,) = solve_sums(Observer(model), start, seed=3)
    np.testing.assert_array_equal(found.feeds["x"], again.feeds["x"])
    for each, copy in zip(start, copies, strict=True):
        np.testing.assert_array_equal(each.feeds["x"], copy)


@pytest.mark.parametrize("variant", [NeuronVariant("LIF"), NeuronVariant("LIF", fire="ge")])
def test_states_are_moved_to_either_side_of_the_threshold_in_every_layer(variant):
    model = models.streaming((8, 16, 4), variant=variant)
    observer = Observer(model)
    start = generate(observer.session.inputs, steps=1, batch=8, seed=0, states=["v1", "v2"])
    found = {each.name: each for each in solve_crossings(observer, start)}
    assert set(found) == {"cross:lif1", "cross:lif2"}
    for population in ("lif1", "lif2"):
        gap = gaps(model, found[f"cross:{population}"], population)
        assert (gap == 0).any()
        spacing = np.spacing(np.float32(1))
        assert ((gap < 0) & (gap >= -spacing)).any()
        assert ((gap > 0) & (gap <= spacing)).any()


def test_intensities_cross_and_binary_inputs_do_not():
    model = models.mlp((8, 16, 4))
    assert solve_crossings(Observer(model), base(model)) == ()
    start = base(model, ranges={"x": (-0.5, 3.0)})
    found = {each.name: each for each in solve_crossings(Observer(model), start)}
    assert "cross:lif1" in found
    values = found["cross:lif1"].feeds["x"]
    assert values.min() >= -0.5
    assert values.max() <= 3
    assert (np.abs(gaps(model, found["cross:lif1"], "lif1")) <= 3e-7).any(axis=(0, 2)).mean() > 0.9
    assert solve_crossings(Observer(model), start, limits={"x": 2}) == ()


def test_a_batch_of_its_own_is_filled():
    model = models.mlp((20, 6), batch=5, steps=4)
    start = generate(Session(model).inputs, steps=4, batch=5, seed=0)
    for found in solve_sums(Observer(model), start):
        assert found.feeds["x"].shape[1] % 5 == 0
