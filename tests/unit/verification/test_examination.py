"""Whole verdicts: planted differences are found and explained, counterexamples replay, referees are heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import pytest

from snn_optimizer.errors import ExecutionError
from snn_optimizer.execution import Dataset, Observer, Session
from snn_optimizer.ops import NeuronVariant, function_proto
from snn_optimizer.verification import Stimulus, Verdict, examine, verify
from snn_optimizer.verification.referees import REFEREES
from tests.support import models

GE = NeuronVariant("LIF", fire="ge")
EXPORT = Path(__file__).parents[3] / "models/exports/digits_unrolled.onnx"


def with_variant(model: onnx.ModelProto, name: str, variant: NeuronVariant) -> onnx.ModelProto:
    """The same model, one population of another variant."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    node = next(node for node in changed.graph.node if node.name == name)
    node.op_type = variant.op_type
    del node.attribute[:]
    node.attribute.extend(onnx.helper.make_node("", [], [], **variant.attributes()).attribute)
    changed.functions.append(function_proto(variant, models.OPSET))
    return changed


def silenced_at_the_last_step(model: onnx.ModelProto, steps: int, classes: int, neuron: int) -> onnx.ModelProto:
    """The same model, whose output never shows a spike of one neuron at the last step."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    mask = np.ones((steps, 1, classes), np.float32)
    mask[-1, 0, neuron] = 0
    changed.graph.initializer.append(onnx.numpy_helper.from_array(mask, "mask"))
    last = changed.graph.node[-1]
    last.output[0] = "unmasked"
    changed.graph.node.append(onnx.helper.make_node("Mul", ["unmasked", "mask"], ["spikes"], name="masked"))
    return changed


def deep() -> onnx.ModelProto:
    """A second layer of weights so fine that random inputs do not bring its potentials onto thresholds."""
    generator = np.random.default_rng(1)
    weights = [generator.normal(0, 2 / np.sqrt(24), (16, 24)), generator.integers(-256, 512, (4, 16)) / 1024]
    biases = [np.full(16, 0.1, np.float32), np.zeros(4, np.float32)]
    return models.mlp((24, 16, 4), weights=[each.astype(np.float32) for each in weights], biases=biases, beta=0.5)


def replayed(before, after, feeds, **options):
    data = Dataset.from_arrays(feeds, Session(before).inputs)
    return verify(before, after, dataset=data, stimuli=(), **options)


def test_a_flip_of_the_comparison_in_the_second_layer_is_found_by_seekers_alone():
    before, after = deep(), with_variant(deep(), "lif2", GE)
    assert verify(before, after, seekers=False).verdict is Verdict.EQUIVALENT
    found = examine(before, after)
    assert found.equivalence.verdict is Verdict.DIFFERENT
    assert found.equivalence.first_case.startswith("seek:")
    where = found.divergence
    assert (where.population, where.what) == ("lif2", "spikes")
    assert where.potential_before == where.potential_after == where.threshold_before == 1
    assert (where.spikes_before, where.spikes_after) == (0, 1)
    assert found.equivalence.first.step == where.step == found.shrunk.steps - 1
    assert found.shrunk.minimal
    feeds = found.equivalence.counterexample
    assert feeds["x"].shape == (found.shrunk.steps, 1, 24)
    assert np.count_nonzero(feeds["x"]) == found.shrunk.active < 50
    assert replayed(before, after, feeds).verdict is Verdict.DIFFERENT
    for step, neuron in zip(*np.nonzero(feeds["x"][:, 0]), strict=True):  # every entry is needed
        fewer = feeds["x"].copy()
        fewer[step, 0, neuron] = 0
        assert replayed(before, after, {"x": fewer}).differing == 0


def test_a_difference_at_the_last_step_alone():
    model = models.mlp((12, 10, 4), steps=9)
    after = silenced_at_the_last_step(model, 9, 4, neuron=2)
    found = examine(model, after, exactness="bitwise", thorough=False)
    assert found.equivalence.verdict is Verdict.DIFFERENT
    assert (found.equivalence.first.step, found.equivalence.first.index) == (8, (2,))
    assert found.shrunk.steps == 9  # the model takes no other number
    assert replayed(model, after, found.equivalence.counterexample, exactness="bitwise").verdict is Verdict.DIFFERENT
    assert found.divergence is None  # the neurons inside do the same
    row = next(each for each in found.on_stimuli.decisions if each.rule == "count")
    assert row.samples == found.equivalence.samples
    trains = found.on_stimuli.outputs["spikes"]
    assert trains.equal < trains.trains
    assert trains.victor_purpura_max == trains.van_rossum_max == 1  # one spike less at most
    assert trains.spikes_before - trains.spikes_after == trains.victor_purpura_sum == trains.trains - trains.equal
    assert found.on_stimuli.populations["lif1"].exact_match == 1


def test_equal_models_with_everything_they_rest_on():
    model = models.mlp((24, 16, 4))
    data = Dataset.from_arrays({"x": models.spike_trains(16, 5, 24)}, Session(model).inputs)
    found = examine(model, model, dataset=data)
    assert found.equivalence.verdict is found.first_verdict is Verdict.EQUIVALENT
    assert found.equivalence.counterexample is found.shrunk is found.divergence is None
    assert {"data", "zeros", "ones", "random", "impulse", "bursts", "constant", "seek", "sums"} <= set(found.tried)
    assert sum(found.tried.values()) == found.equivalence.samples
    assert [(each.referee, each.verdict) for each in found.opinions] == [(name, "EQUIVALENT") for name in REFEREES]
    assert found.opinions[0].samples == found.equivalence.samples
    assert found.on_data.samples == 5
    assert found.on_stimuli.samples == found.equivalence.samples - 5
    assert all(each.share == 1 for each in [*found.on_data.decisions, *found.on_stimuli.decisions])
    assert found.coverage.populations["lif1"].near.sum() > 10


@pytest.mark.parametrize("level", ["profiled", "algebraic"])
def test_counterexamples_of_claims_about_data_are_data(level):
    model = models.mlp((24, 16, 4))
    after = models.with_initializer(model, "fc2.weight", models.initializer(model, "fc2.weight") + np.float32(0.3))
    data = Dataset.from_arrays({"x": models.spike_trains(16, 5, 24)}, Session(model).inputs)
    found = examine(model, after, dataset=data, exactness=level, thorough=False)
    assert found.equivalence.verdict is Verdict.DIFFERENT
    assert found.equivalence.first_case == "data"
    shown = found.equivalence.counterexample["x"]
    is_sample = any(np.array_equal(shown[:, 0], data.feeds["x"][: len(shown), k]) for k in range(5))
    assert is_sample == (level == "profiled")


def test_an_export_is_looked_into_through_its_raised_form():
    from snn_optimizer.api import examine as examine_files

    found = examine_files(EXPORT, EXPORT, thorough=False)
    assert found.equivalence.verdict is Verdict.EQUIVALENT
    assert found.coverage is not None
    assert sum(each.neurons for each in found.coverage.populations.values()) == 138
    assert "seek" in found.tried


def test_a_window_that_shows_another_model_is_not_used():
    window = models.with_initializer(models.mlp((24, 16, 4)), "fc1.bias", np.full(16, 0.2))
    plain = onnx.inliner.inline_local_functions(models.mlp((24, 16, 4)))
    assert not Observer(plain).taps
    assert examine(plain, plain, windows=(window, None), thorough=False).coverage is None
    assert examine(plain, plain, windows=(models.mlp((24, 16, 4)), None), thorough=False).coverage is not None


class Disturbed:
    """A referee that adds a spike to some outputs of some models."""

    def __init__(self, model, *, wrong):
        self._session = Session(model)
        self._wrong = wrong(model)

    def run(self, feeds):
        values = {name: array.copy() for name, array in self._session.run(feeds).items()}
        if self._wrong and feeds["x"].any():
            values["spikes"][0, -1] += 1
        return values


@pytest.fixture
def only_referee():
    """Put one further referee in the place of all."""
    known = dict(REFEREES)

    def put(name: str, runner) -> None:
        REFEREES.clear()
        REFEREES[name] = runner

    yield put
    REFEREES.clear()
    REFEREES.update(known)


@pytest.fixture
def disturbed(only_referee):
    return lambda wrong: only_referee("disturbed", lambda model: Disturbed(model, wrong=wrong))


def test_a_disagreement_about_the_original_is_reported_not_blamed(disturbed):
    disturbed(lambda _: True)
    model = models.mlp((24, 16, 4))
    stimuli = [Stimulus("mine", {"x": models.spike_trains(16, 5, 24)})]
    found = examine(model, model, stimuli=stimuli)
    assert found.equivalence.verdict is Verdict.EQUIVALENT
    (opinion,) = found.opinions
    assert opinion.disputed > 0
    assert opinion.disputed == opinion.disputed_after
    assert opinion.dispute.step == 0
    assert "spikes" in found.to_json()["referees"][1]["first_disagreement"]
    # where it disagrees about the original, it is not heard about the rewritten
    disturbed(lambda each: isinstance(each, onnx.ModelProto) and each.graph.name == "network")
    other = models.mlp((24, 16, 4))
    other.graph.name = "other"
    assert examine(model, other, stimuli=stimuli).equivalence.verdict is Verdict.EQUIVALENT


def test_a_referee_that_agrees_about_the_original_is_heard(disturbed):
    disturbed(lambda each: each.graph.name == "other")
    model, other = models.mlp((24, 16, 4)), models.mlp((24, 16, 4))
    other.graph.name = "other"
    feeds = {"x": models.spike_trains(16, 5, 24)}
    data = Dataset.from_arrays(feeds, Session(model).inputs)
    found = examine(model, other, dataset=data, stimuli=())
    assert found.first_verdict is Verdict.EQUIVALENT
    assert found.equivalence.verdict is Verdict.DIFFERENT
    assert found.decided_by == "disturbed"
    assert found.equivalence.reason.startswith("disturbed: data: output 'spikes', step 0, sample ")
    assert found.equivalence.counterexample is not None


def test_a_referee_that_cannot_run_the_original_says_so(only_referee):
    def refuse(_):
        raise ExecutionError("no such operator")

    only_referee("refusing", refuse)
    model = models.mlp((24, 16, 4))
    found = examine(model, model, stimuli=[Stimulus("mine", {"x": models.spike_trains(16, 5, 24)})])
    assert found.equivalence.verdict is Verdict.EQUIVALENT
    assert (found.opinions[0].verdict, found.opinions[0].failure) == ("INCONCLUSIVE", "no such operator")


def test_an_interface_that_changed_needs_no_run():
    found = examine(models.mlp((24, 16, 4)), models.mlp((25, 16, 4)))
    assert found.equivalence.verdict is Verdict.DIFFERENT
    assert found.opinions == ()
    assert found.to_json()["coverage"] is None


def test_silence_stays_inconclusive():
    model = models.mlp((24, 16, 4), v_threshold=1e9)
    found = examine(model, model, thorough=False)
    assert found.equivalence.verdict is Verdict.INCONCLUSIVE
    assert found.coverage.populations["lif1"].untested.all()


def test_states_of_an_export_of_one_step_are_real_and_moved_onto_thresholds():
    from snn_optimizer.api import examine as examine_files

    export = EXPORT.with_name("digits_step.onnx")
    found = examine_files(export, export)
    assert found.equivalence.verdict is Verdict.EQUIVALENT
    assert {"grid", "cross"} <= set(found.tried)
    assert all(each.met.any() for each in found.coverage.populations.values())


def test_progress_is_told_to_the_end():
    model = models.mlp((24, 16, 4))
    told: list[tuple[int, int]] = []
    after = models.with_initializer(model, "fc2.bias", np.full(4, 0.4))
    examine(model, after, thorough=False, progress=lambda *step: told.append(step))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
