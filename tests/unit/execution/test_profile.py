"""Profiles: numbers against a plain reckoning, merging, files."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.errors import DataError
from snn_optimizer.execution import Dataset, Observer, Profile, Session, model_digest, profile_model
from snn_optimizer.execution import profile as profile_module
from snn_optimizer.ops import NeuronVariant
from tests.support import models


def dataset(model, *shape, seed=0) -> Dataset:
    return Dataset.from_arrays({"x": models.spike_trains(*shape, seed=seed)}, Session(model).inputs)


def assert_same(left: Profile, right: Profile) -> None:
    assert list(left.populations) == list(right.populations)
    assert (left.samples, left.steps, left.model_digest) == (right.samples, right.steps, right.model_digest)
    for name, one in left.populations.items():
        other = right.populations[name]
        assert (one.shape, one.observations, one.spiking) == (other.shape, other.observations, other.spiking)
        for field in ("spike_count", "v_min", "v_max", "margin", "rate"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_numbers_do_not_depend_on_the_batches(batch_size):
    model = models.mlp(readout=NeuronVariant("LI"))
    data = dataset(model, 10, 7, 8)
    found = profile_model(model, data, batch_size=batch_size)
    hidden, readout = Observer(model).observe(data.feeds)
    one = found.populations["lif1"]
    assert (found.samples, found.steps, found.model_digest) == (7, 10, model_digest(model))
    assert one.shape == (16,)
    np.testing.assert_array_equal(one.spike_count, hidden.spikes.sum(axis=(0, 1)))
    np.testing.assert_allclose(one.rate, hidden.spikes.mean(axis=(0, 1)), rtol=1e-6)
    np.testing.assert_array_equal(one.v_min, hidden.potential.min(axis=(0, 1)))
    np.testing.assert_array_equal(one.v_max, hidden.potential.max(axis=(0, 1)))
    np.testing.assert_array_equal(one.margin, np.abs(hidden.potential - np.float32(1)).min(axis=(0, 1)))
    last = found.populations["lif2"]
    assert not last.spiking
    assert np.isnan(last.rate).all()
    assert np.isnan(last.margin).all()
    np.testing.assert_array_equal(last.v_max, readout.potential.max(axis=(0, 1)))


def test_margins_of_several_spikes_are_to_the_nearest_level():
    model = models.mlp((8, 4), variant=NeuronVariant("IF", max_spikes=2), gain=0.0, v_threshold=1.0)
    data = dataset(model, 2, 3, 8)
    for start, margin in ((0.75, 0.25), (1.4, 0.4), (1.75, 0.25), (5.0, 3.0), (-2.0, 3.0)):
        # without input the potential is the initial state at the first step
        changed = models.with_initializer(model, "lif1.v0", start)
        found = Observer(changed).observe({"x": data.feeds["x"][:1]})
        np.testing.assert_allclose(next(iter(found)).distance, margin, rtol=1e-6)


def test_loops_and_convolutions():
    recurrent = profile_model(models.recurrent(), dataset(models.recurrent(), 9, 4, 6))
    assert recurrent.steps == 9
    assert recurrent.populations["lif1"].shape == (8,)
    conv = profile_model(models.conv(), dataset(models.conv(), 6, 4, 1, 6, 6))
    assert conv.populations["lif1"].shape == (4, 6, 6)


def test_a_model_of_one_step():
    model = models.streaming((8, 4))
    feeds = {"x": models.spike_trains(5, 8), "v1": np.full((5, 4), 0.5, np.float32)}
    found = profile_model(model, Dataset.from_arrays(feeds, Session(model).inputs))
    assert (found.steps, found.samples) == (1, 5)


def test_progress_counts_samples():
    told = []
    model = models.mlp()
    profile_model(model, dataset(model, 4, 7, 8), batch_size=3, progress=lambda *numbers: told.append(numbers))
    assert told == [(3, 7), (6, 7), (7, 7)]


def test_recordings_are_bounded(monkeypatch):
    model = models.mlp()
    data = dataset(model, 10, 8, 8)
    whole = profile_model(model, data)
    monkeypatch.setattr(profile_module, "_MEMORY", 3 * 3 * 4 * 10 * 20)
    told = []
    assert_same(profile_model(model, data, progress=lambda *numbers: told.append(numbers)), whole)
    assert told == [(3, 8), (6, 8), (8, 8)]


def test_merged_profiles_are_those_of_all_data():
    model = models.mlp(readout=NeuronVariant("LI"))
    data = dataset(model, 10, 7, 8)
    parts = [profile_model(model, data.take(part)) for part in (slice(0, 3), slice(3, 7))]
    assert_same(parts[0].merge(parts[1]), profile_model(model, data))


def test_profiles_of_different_things_do_not_merge():
    small, large = models.mlp(), models.mlp((8, 20, 4))
    one = profile_model(small, dataset(small, 10, 2, 8))
    with pytest.raises(DataError, match="different models"):
        one.merge(profile_model(large, dataset(large, 10, 2, 8)))
    with pytest.raises(DataError, match="one profile is of 10 steps per sample, the other of 6"):
        one.merge(profile_model(small, dataset(small, 6, 2, 8)))
    with pytest.raises(DataError, match=r"population 'lif1' \(16,\) is not 'lif2' \(4,\)"):
        one.populations["lif1"].merge(one.populations["lif2"])


def test_files(tmp_path):
    model = models.mlp(readout=NeuronVariant("LI"))
    found = profile_model(model, dataset(model, 10, 3, 8))
    first, second = tmp_path / "one.npz", tmp_path / "two.npz"
    found.save(first)
    found.save(second)
    assert first.read_bytes() == second.read_bytes()
    assert_same(Profile.load(first), found)


def test_a_model_without_neurons_has_an_empty_profile(tmp_path):
    builder = models.ModelBuilder()
    builder.node("Neg", [builder.input("x", ("T", "batch", 8))], "y")
    builder.output("y", ("T", "batch", 8))
    model = builder.build()
    found = profile_model(model, dataset(model, 5, 3, 8))
    found.save(tmp_path / "empty.npz")
    assert Profile.load(tmp_path / "empty.npz").populations == {}
    assert found.steps == 5


@pytest.mark.parametrize("damage", ["format", "shape", "type", "missing", "json", "steps", "foreign"])
def test_damaged_profiles(tmp_path, damage):
    path = tmp_path / "profile.npz"
    model = models.mlp()
    profile_model(model, dataset(model, 10, 3, 8)).save(path)
    arrays = dict(np.load(path))
    header = str(arrays["header"])
    if damage == "format":
        arrays["header"] = np.array(header.replace("profile 1", "profile 9"))
    elif damage == "shape":
        arrays["0.v_min"] = arrays["0.v_min"][:3]
    elif damage == "type":
        arrays["0.v_min"] = arrays["0.v_min"].astype(np.float32)
    elif damage == "missing":
        del arrays["1.margin"]
    elif damage == "json":
        arrays["header"] = np.array(header[:20])
    elif damage == "steps":
        arrays["header"] = np.array(header.replace('"steps": 10', '"steps": -1'))
    else:
        arrays = {"x": np.zeros(3)}
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="not a profile of this version"):
        Profile.load(path)
