"""How many vectors a product reads, and how active they are."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.execution import Dataset, Session
from snn_optimizer.execution.spike_counts import count_spikes
from tests.support.models import mlp, recurrent, spike_trains


def counted(model, x, names):
    dataset = Dataset.from_arrays({"x": x}, Session(model).inputs)
    return count_spikes(model, dataset, names)


def test_counts_of_an_input_with_time_and_batch_in_one_axis() -> None:
    x = spike_trains(6, 70, 8, rate=0.2)  # more samples than one run takes
    (found,) = counted(mlp((8, 16, 4), steps=6), x, ["fc1.rows"]).values()
    assert found.rows == 6
    assert found.share == pytest.approx(x.mean())
    assert found.pooled == pytest.approx(x[:, :64].any(axis=0).mean(axis=1).mean())


def test_the_batch_of_a_file_that_fixes_it() -> None:
    x = spike_trains(6, 8, 8, rate=0.2)
    (found,) = counted(mlp((8, 16, 4), steps=6, batch=4), x, ["fc1.rows"]).values()
    assert found.rows == 24
    assert found.pooled == pytest.approx(
        np.mean([x[:, part].any(axis=(0, 1)).mean() for part in (slice(4), slice(4, 8))])
    )


def test_what_a_loop_reads_is_counted_step_by_step() -> None:
    model = recurrent()
    x = spike_trains(9, 5, 6)
    found = counted(model, x, ["s", "spikes"])
    spikes = Session(model).run({"x": x})["spikes"]
    before = np.concatenate([np.zeros_like(spikes[:1]), spikes[:-1]])
    assert found["s"].rows == 1
    assert found["s"].share == pytest.approx(before.mean())
    assert found["s"].pooled == pytest.approx(before.mean())
    assert found["spikes"].rows == 9


def test_what_is_not_there_is_missing() -> None:
    assert counted(mlp(), spike_trains(3, 2, 8), ["nothing"]) == {}
