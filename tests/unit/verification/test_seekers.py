"""The search for potentials at their thresholds."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.execution import Dataset, Exposed, Observer, Session
from snn_optimizer.ir import InputDomain
from snn_optimizer.ir.activity_limit import largest_activity
from snn_optimizer.ops import NeuronVariant
from snn_optimizer.verification import Stimulus, generate, seek_thresholds, seekers
from snn_optimizer.verification.sample_space import closest_subset
from tests.support import models


def base(model, *, steps=8, batch=4, **options):
    return generate(Session(model).inputs, steps=steps, batch=batch, seed=0, **options)


def closest(model, stimuli) -> dict[str, np.ndarray]:
    """Smallest distance to the threshold of each neuron, over all stimuli."""
    best: dict[str, np.ndarray] = {}
    observer = Observer(model)
    for stimulus in stimuli:
        data = Dataset.from_arrays(stimulus.feeds, observer.session.inputs)
        for batch in data.batches(64):
            for seen in observer.observe(batch.feeds):
                if seen.distance is not None:
                    flat = seen.distance.reshape(-1, *seen.distance.shape[2:]).min(axis=0).reshape(-1)
                    best[seen.population] = np.minimum(best.get(seen.population, np.inf), flat)
    return best


def needle(inputs: int = 24) -> tuple:
    """One neuron that meets its threshold exactly only for one rare subset of its inputs in a step.

    The weights are multiples of 1/1024 of both signs; the threshold is the sum of a random third of them.
    """
    generator = np.random.default_rng(7)
    weight = generator.integers(-1023, 1024, (1, inputs)) / 1024
    subset = generator.choice(inputs, inputs // 3, replace=False)
    threshold = abs(weight[0, subset].sum())
    return models.mlp(
        (inputs, 1),
        weights=[weight.astype(np.float32)],
        biases=[np.zeros(1, np.float32)],
        beta=0.0,
        v_threshold=threshold,
    ), threshold


def test_a_planted_tie_is_found():
    model, _ = needle()
    start = base(model)
    assert closest(model, start)["lif1"].min() > 0
    assert closest(model, seek_thresholds(model, start))["lif1"].min() == 0


def test_ties_on_a_coarse_grid_are_found_for_every_reachable_neuron():
    generator = np.random.default_rng(3)
    weights = [generator.integers(-4, 8, shape) / 8 for shape in ((12, 10), (4, 12))]
    biases = [np.zeros(12, np.float32), np.zeros(4, np.float32)]
    model = models.mlp((10, 12, 4), weights=[each.astype(np.float32) for each in weights], biases=biases, beta=0.5)
    best = closest(model, seek_thresholds(model, base(model)))
    assert (best["lif1"] == 0).all()
    assert (best["lif2"] == 0).any()


def test_real_weights_come_within_rounding_of_the_threshold():
    model = models.mlp((40, 30, 5))
    start = base(model)
    found = seek_thresholds(model, start)
    before, after = closest(model, start), closest(model, found)
    assert np.median(before["lif1"]) > 1e-3
    assert np.median(after["lif1"]) < 1e-4
    assert (after["lif1"] < 1e-6).sum() >= 5
    assert after["lif2"].min() < before["lif2"].min()


def test_evolution_reaches_deep_layers(monkeypatch):
    model = models.mlp((40, 60, 60, 10))
    start = base(model)
    deep = closest(model, seek_thresholds(model, start))["lif3"]
    monkeypatch.setattr(seekers._Search, "evolve", lambda _: None)
    without = closest(model, seek_thresholds(model, start))["lif3"]
    assert np.median(deep) < np.median(without) / 2
    assert np.median(deep) < 1e-3


def test_the_result_is_made_of_allowed_values_and_reproducible():
    model = models.mlp((10, 6, 3))
    start = base(model, ranges={"x": (np.zeros(10), np.arange(10) / 8)})
    first, again = (seek_thresholds(model, start, rounds=4, seed=5) for _ in range(2))
    assert [stimulus.name for stimulus in first] == ["seek:lif1", "seek:lif2"]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.feeds["x"], other.feeds["x"])
        assert (one.feeds["x"] >= 0).all()
        assert (one.feeds["x"] <= np.arange(10) / 8).all()
    other_seed = seek_thresholds(model, start, rounds=4, seed=6)
    assert any(
        one.feeds["x"].shape != other.feeds["x"].shape or (one.feeds["x"] != other.feeds["x"]).any()
        for one, other in zip(first, other_seed, strict=True)
    )


def test_the_base_stays_as_it_is():
    model = models.mlp((10, 6, 3))
    start = base(model)
    copies = [{name: array.copy() for name, array in stimulus.feeds.items()} for stimulus in start]
    seek_thresholds(model, start, rounds=2)
    for stimulus, copy in zip(start, copies, strict=True):
        np.testing.assert_array_equal(stimulus.feeds["x"], copy["x"])


@pytest.mark.parametrize(
    "model",
    [
        models.recurrent(),
        models.conv(),
        models.mlp(batch=1),
        models.mlp(batch=3, steps=7),
        models.mlp(variant=NeuronVariant("IF", max_spikes=0)),
        models.mlp(readout=NeuronVariant("LI")),
    ],
    ids=["recurrent", "conv", "batch of one", "batch of three", "several spikes", "readout"],
)
def test_every_form_of_model_gets_closer(model):
    start = base(model)
    before, after = closest(model, start), closest(model, seek_thresholds(model, start, rounds=6))
    assert sum(np.log(each + 1e-9).sum() for each in after.values()) < sum(
        np.log(each + 1e-9).sum() for each in before.values()
    )


def test_states_of_one_step_models_are_searched_too():
    model = models.streaming((12, 6))
    observer = Observer(model)
    states = [source.value for tap in observer.taps for source in tap.states if isinstance(source, Exposed)]
    assert states == ["v1"]
    start = base(model, states=states)
    assert closest(model, seek_thresholds(model, start))["lif1"].min() < closest(model, start)["lif1"].min()


def test_nothing_to_search():
    model = models.mlp((8, 4), variant=NeuronVariant("LI"))
    assert seek_thresholds(model, base(model)) == ()
    assert seek_thresholds(models.mlp(), ()) == ()
    frozen = base(models.mlp(), ranges={"x": (0.0, 0.0)})
    assert seek_thresholds(models.mlp(), frozen) == ()


def test_integer_inputs():
    builder = models.ModelBuilder()
    cast = builder.node("Cast", [builder.input("x", ("T", "batch", 6), np.uint8)], "cast", to=1)
    builder.neuron("lif", models.LIF, cast, outputs=("spikes", "v"), gain=np.linspace(0.1, 0.9, 6))
    builder.output("spikes", ("T", "batch", 6))
    model = builder.build()
    (found,) = seek_thresholds(model, base(model), rounds=3)
    assert found.feeds["x"].dtype == np.uint8
    assert set(np.unique(found.feeds["x"])) == {0, 1}


def test_subset_sums():
    generator = np.random.default_rng(0)
    effects = generator.normal(size=20)
    chosen = generator.random(20) < 0.5
    found = closest_subset(effects, float(effects[chosen].sum()))
    assert abs(effects[found].sum() - effects[chosen].sum()) < 1e-9
    assert abs(effects[closest_subset(effects, 0.321)].sum() - 0.321) < 1e-4
    assert not closest_subset(np.ones(3), -5.0).any()
    assert closest_subset(np.ones(3), 50.0).all()


def test_limits_on_active_entries_are_kept():
    model = models.mlp()
    domain = InputDomain(max_active=2)
    found = seek_thresholds(model, base(model, ranges=domain), seed=1, limits={"x": 2})
    assert found
    assert all(largest_activity(stimulus.feeds["x"]) <= 2 for stimulus in found)
    free = seek_thresholds(model, base(model), seed=1)
    assert any(largest_activity(stimulus.feeds["x"]) > 2 for stimulus in free)


def test_where_samples_cannot_be_told_nothing_is_searched():
    model = models.mlp((8, 6, 4), steps=3, batch=2)
    observer = Observer(model)
    base = [Stimulus("x", {"x": models.spike_trains(3, 2, 8)})]
    search = seekers._Search(observer, base, 0, {}, seekers.QUICK)
    assert search.pool.closest
    search.space.axes, search.space.fixed_batch = {"x": 0}, None  # wrong: the steps
    assert not search._scored({"x": models.spike_trains(3, 2, 8)}).closest
