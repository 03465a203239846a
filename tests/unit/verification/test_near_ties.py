"""Which differences rounding explains."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner

from snn_optimizer.execution import Dataset, Observer, Session
from snn_optimizer.ops import NeuronVariant
from snn_optimizer.verification.near_ties import NearTies
from tests.support import models

ULP = float(np.spacing(np.float32(1)))


def single(current: float, *, threshold: float = 1.0, variant: NeuronVariant = models.LIF) -> onnx.ModelProto:
    """One neuron that receives `current` while its input is on."""
    weight = [np.full((1, 1), current, np.float32)]
    return models.mlp(
        (1, 1), weights=weight, biases=[np.zeros(1, np.float32)], beta=0.0, v_threshold=threshold, variant=variant
    )


def excused(before, after, *, step: int | None = 2, observer: Observer | None = None) -> bool:
    train = np.zeros((4, 1, 1), np.float32)
    train[2] = 1
    batch = Dataset.from_arrays({"x": train}, Session(before).inputs)
    watching = Observer(before) if observer is None else observer
    return NearTies(watching, after).excused(batch, {0: step}) == {0}


def test_rounding_moved_the_potential_over_the_threshold():
    assert excused(single(1 + ULP), single(1.0))
    assert excused(single(1.0), single(1 + ULP))


def test_the_potential_was_far_away():
    assert not excused(single(1.1), single(1.0))
    assert not excused(single(1.1), single(0.9))


def test_the_potential_moved_further_than_rounding_does():
    assert not excused(single(1 + ULP), single(0.99))


def test_an_equal_potential_that_fires_differently_is_another_comparison():
    assert not excused(single(1.0), single(1.0, variant=NeuronVariant("LIF", fire="ge")))


def test_a_threshold_alone_may_round():
    assert excused(single(1 + ULP), single(1 + ULP, threshold=1 + ULP))


def test_scaled_neurons_are_compared_in_units_of_their_threshold():
    assert excused(single(1 + ULP), single(10.0, threshold=10.0))
    assert not excused(single(1 + ULP), single(9.9, threshold=10.0))


def test_a_tie_after_the_difference_explains_nothing():
    assert not excused(single(1 + ULP), single(1.0), step=1)


def test_without_steps_the_whole_run_counts():
    assert excused(single(1 + ULP), single(1.0), step=None)


def test_a_difference_behind_the_last_spike_is_not_excused():
    assert not excused(single(1.0), single(1.0))


def test_a_candidate_with_other_populations_is_judged_by_the_original_alone():
    renamed = single(1.0)
    next(node for node in renamed.graph.node if node.name == "lif1").name = "other"
    assert excused(single(1 + ULP), renamed)
    assert not excused(single(1.1), renamed)
    foreign = onnx.inliner.inline_local_functions(single(1.0))
    assert excused(single(1 + ULP), foreign)


def test_nothing_is_excused_without_a_view_into_the_original():
    batch = Dataset.from_arrays({"x": np.ones((4, 1, 1))}, Session(single(1.0)).inputs)
    assert NearTies(None, single(1.0)).excused(batch, {0: 0}) == set()


def test_outputs_without_samples_concern_all():
    batch = Dataset.from_arrays({"x": np.ones((4, 2, 1))}, Session(single(1.0)).inputs)
    assert NearTies(Observer(single(1.0)), single(1 + ULP)).excused(batch, {None: None}) == {None}


def test_only_the_first_change_needs_an_excuse():
    def chain(current: float) -> onnx.ModelProto:
        weights = [np.full((1, 1), current, np.float32), np.full((1, 1), 5, np.float32)]
        biases = [np.zeros(1, np.float32)] * 2
        return models.mlp((1, 1, 1), weights=weights, biases=biases, beta=0.0)

    assert excused(chain(1 + ULP), chain(1.0))  # the second neuron is far from its threshold, but follows the first
    assert not excused(chain(1.1), chain(1.0))
