"""Recorded trains and their moments."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.errors import DataError
from snn_optimizer.execution import Dataset, Recorder, Session
from tests.support import models


def recorder(model, *shape, batch_size=3) -> tuple[Recorder, Dataset]:
    data = Dataset.from_arrays({"x": models.spike_trains(*shape)}, Session(model).inputs)
    return Recorder(model, data, batch_size=batch_size), data


def test_spikes_of_the_last_population_are_the_output():
    model = models.mlp()
    recorded, data = recorder(model, 10, 7, 8)
    assert recorded.populations == ("lif1", "lif2")
    np.testing.assert_array_equal(recorded.spikes("lif2"), Session(model).run(data.feeds)["spikes"])
    assert recorded.spikes("lif1").shape == (10, 7, 16)


def test_moments_are_those_of_all_data_at_once():
    recorded, _ = recorder(models.conv(), 6, 5, 1, 6, 6)
    flat = recorded.spikes("lif1").reshape(6 * 5, -1).astype(np.float64)
    regressors = np.concatenate([flat, np.ones((30, 1))], axis=1)
    moments = recorded.gram("lif1")
    np.testing.assert_allclose(moments, regressors.T @ regressors / 30, rtol=1e-12)
    assert moments.dtype == np.float64
    assert moments[-1, -1] == 1
    np.testing.assert_allclose(moments[-1, :-1], flat.mean(axis=0))


def test_moments_are_the_callers_own():
    recorded, _ = recorder(models.recurrent(), 6, 5, 6)
    recorded.gram("lif1")[:] = 0
    assert recorded.gram("lif1").any()


def test_an_unknown_population_is_named_with_those_there_are():
    recorded, _ = recorder(models.mlp(), 4, 2, 8)
    for method in (recorded.spikes, recorded.gram):
        with pytest.raises(DataError, match="no population 'lif9'; the model has lif1, lif2"):
            method("lif9")
