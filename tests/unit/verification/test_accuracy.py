"""Decisions and how they compare."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.errors import DataError
from snn_optimizer.execution import Dataset, Session
from snn_optimizer.ops import NeuronVariant
from snn_optimizer.verification import (
    accuracy,
    decision_agreement,
    decision_output,
    decisions,
    predict,
    score,
    spike_change,
)
from tests.support import models


def test_the_sum_over_time_decides():
    trains = np.zeros((3, 2, 4))
    trains[0, 0, 1] = trains[1, 0, 1] = trains[2, 0, 3] = 1
    trains[:, 1, 2] = 1
    np.testing.assert_array_equal(decisions({"spikes": trains}), [1, 2])


def test_rates_decide_directly_and_classes_are_decisions():
    np.testing.assert_array_equal(decisions({"rate": np.array([[0.1, 0.9], [0.6, 0.4]])}), [1, 0])
    np.testing.assert_array_equal(decisions({"class": np.array([4, 0, 2])}), [4, 0, 2])
    np.testing.assert_array_equal(decisions({"class": np.array(3)}), [3])


def test_the_lowest_class_wins_among_equals():
    np.testing.assert_array_equal(decisions({"spikes": np.ones((5, 2, 3))}), [0, 0])


def test_which_output_decides():
    potentials, spikes = np.full((2, 3, 4), 0.5), np.ones((2, 3, 4))
    assert decision_output({"mem": potentials, "spk": spikes}) == "spk"
    assert decision_output({"mem": potentials, "spk": 0 * spikes}) == "mem"
    assert decision_output({"loss": np.array(1.0), "mem": potentials}) == "mem"
    assert decision_output({"class": np.array([1, 2])}) == "class"
    assert decision_output({"names": np.array([["a"]])}) == "names"
    with pytest.raises(DataError, match="no output to decide by"):
        decision_output({})


def labelled(model, count: int = 20) -> Dataset:
    session = Session(model)
    x = models.spike_trains(10, count, 8)
    labels = decisions(session.run({"x": x}))
    return Dataset.from_arrays({"x": x}, session.inputs, labels)


def test_accuracy_over_batches():
    model = models.mlp()
    data = labelled(model)
    assert accuracy(Session(model), data, batch_size=3) == 1
    np.testing.assert_array_equal(predict(Session(model), data, batch_size=7), data.labels)
    wrong = Dataset.from_arrays(data.feeds, Session(model).inputs, np.where(np.arange(20) < 5, 9, data.labels))
    assert accuracy(Session(model), wrong) == 0.75
    bare = Dataset.from_arrays(data.feeds, Session(model).inputs)
    assert score(Session(model), bare).accuracy is None
    with pytest.raises(DataError, match="the data has no labels"):
        accuracy(Session(model), bare)


def test_a_chosen_output():
    model = models.streaming((8, 16, 4))
    feeds = {"x": models.spike_trains(5, 8), "v1": np.zeros((5, 16)), "v2": np.zeros((5, 4))}
    data = Dataset.from_arrays(feeds, Session(model).inputs)
    final = Session(model).run(data.feeds)["v2_next"]
    np.testing.assert_array_equal(predict(Session(model), data, output="v2_next"), final.argmax(axis=1))


def test_images_of_one_step_are_not_taken_for_time():
    builder = models.ModelBuilder()
    builder.node("Neg", [builder.input("x", ("batch", 3, 2, 2))], "y")
    builder.output("y", ("batch", 3, 2, 2))
    model = builder.build()
    x = np.random.default_rng(0).random((5, 3, 2, 2), np.float32)
    data = Dataset.from_arrays({"x": x}, Session(model).inputs)
    np.testing.assert_array_equal(predict(Session(model), data), (-x).reshape(5, -1).argmax(axis=1))


def test_agreement():
    assert decision_agreement([1, 2, 3, 4], [1, 2, 0, 4]) == 0.75
    for left, right in (([1], [1, 2]), ([], [])):
        with pytest.raises(DataError, match="cannot be compared"):
            decision_agreement(left, right)


def test_spike_change_counts_spikes_where_there_are_any():
    spikes, potentials = np.zeros((2, 2, 2)), np.full((2, 2, 2), 0.3)
    changed = spikes.copy()
    changed[0, 0, 0] = 1
    assert spike_change({"spk": spikes, "mem": potentials}, {"spk": changed, "mem": potentials + 1}) == 1 / 8
    assert spike_change({"mem": potentials}, {"mem": potentials + 1}) == 1
    with pytest.raises(DataError, match="the outputs spk cannot be compared with mem"):
        spike_change({"spk": spikes}, {"mem": spikes})
    with pytest.raises(DataError, match="output 'spk' has shape"):
        spike_change({"spk": spikes}, {"spk": spikes[:1]})
    with pytest.raises(DataError, match="there are no outputs to compare"):
        spike_change({}, {})


def test_scores_of_two_models():
    model = models.mlp()
    data = labelled(model)
    other = models.with_initializer(model, "lif2.v_threshold", 1.6)
    before, after = (score(Session(each), data, batch_size=6) for each in (model, other))
    assert before.accuracy == 1
    assert before.decided_by == "spikes"
    assert before.decisions_changed(before) == before.outputs_changed(before) == 0
    whole = [Session(each).run(data.feeds) for each in (model, other)]
    assert before.outputs_changed(after) == pytest.approx(spike_change(*whole))
    assert before.decisions_changed(after) == pytest.approx(1 - after.accuracy)


def test_a_readout_decides_by_its_potential():
    model = models.mlp(readout=NeuronVariant("LI"))
    assert accuracy(Session(model), labelled(model)) == 1


def test_decisions_and_labels_that_do_not_match_are_refused():
    model = models.mlp((8, 16, 4), steps=3, batch=2)
    session = Session(model)
    fed = {"x": models.spike_trains(3, 2, 8)}
    with pytest.raises(DataError, match=r"decisions on \d samples, and there are 5 labels"):
        score(session, Dataset(fed, np.zeros(5, np.int64), {"x": 1}))
