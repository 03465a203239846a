"""Verdicts: mutants are caught, equals pass, silence proves nothing."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
import pytest

from snn_optimizer.errors import DataError, ModelLoadError
from snn_optimizer.execution import Dataset, Session, load_dataset
from snn_optimizer.ops import NeuronVariant
from snn_optimizer.verification import Referee, Stimulus, Verdict, verify
from tests.support import models

GE = NeuronVariant("LIF", fire="ge")
LEVELS = ["bitwise", "algebraic"]


def grid(*shape: int, seed: int) -> np.ndarray:
    """Weights that sum exactly in float32, so that potentials meet thresholds exactly."""
    return (np.random.default_rng(seed).integers(-8, 16, shape) / 16).astype(np.float32)


def grid_mlp(**options) -> onnx.ModelProto:
    weights = [grid(16, 24, seed=0), grid(4, 16, seed=1)]
    biases = [np.zeros(16, np.float32), np.zeros(4, np.float32)]
    return models.mlp((24, 16, 4), weights=weights, biases=biases, beta=0.5, **options)


def nudged(model: onnx.ModelProto, name: str, change: float, *, everywhere: bool = False) -> onnx.ModelProto:
    values = models.initializer(model, name)
    if everywhere:
        values = values + np.float32(change)
    else:
        values.reshape(-1)[5 % values.size] += np.float32(change)
    return models.with_initializer(model, name, values)


def reassociated(model: onnx.ModelProto, columns: np.ndarray) -> onnx.ModelProto:
    """The same network with the inputs of `fc1` in another order: equal in real arithmetic."""
    weight = models.initializer(model, "fc1.weight")
    changed = models.with_initializer(model, "fc1.weight", weight[:, columns])
    order = onnx.numpy_helper.from_array(columns.astype(np.int64), "order")
    changed.graph.initializer.append(order)
    rows = next(node for node in changed.graph.node if node.output[0] == "fc1.rows")
    rows.input[0] = "x.ordered"
    gather = onnx.helper.make_node("Gather", ["x", "order"], ["x.ordered"], name="order", axis=2)
    changed.graph.node.insert(0, gather)
    return changed


def wide_tenths() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A network whose potentials meet thresholds up to rounding, and the same with another order of summation."""
    generator = np.random.default_rng(11)
    weights = [(generator.integers(-5, 10, shape) / 10).astype(np.float32) for shape in ((12, 30), (4, 12))]
    biases = [np.zeros(12, np.float32), np.zeros(4, np.float32)]
    model = models.mlp((30, 12, 4), weights=weights, biases=biases)
    return model, reassociated(model, np.random.default_rng(1).permutation(30))


@pytest.fixture(scope="module")
def referee() -> Referee:
    return Referee(models.mlp((24, 16, 4)))


@pytest.mark.parametrize("level", [*LEVELS, "ALGEBRAIC", "lossy"])
def test_a_model_equals_itself(referee, level):
    found = referee.check(models.mlp((24, 16, 4)), exactness=level)
    assert found.verdict is Verdict.EQUIVALENT
    assert found.reason == ""
    assert found.differing == found.near_ties == 0
    assert found.spikes_seen > 1000
    assert found.spikes_compared == found.values_compared == 16 * 4 * found.samples
    assert found.hidden_coverage == 1
    assert found.counterexample is None


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("fc1.weight", 0.01),
        ("fc2.weight", 0.05),
        ("fc1.bias", -0.002),
        ("lif1.v_threshold", 0.0005),
        ("lif2.v_threshold", -0.001),
        ("lif1.beta", 0.001),
        ("lif1.gain", 0.001),
        ("lif1.v0", 0.01),
    ],
)
def test_mutants_are_caught(referee, level, name, change):
    found = referee.check(nudged(models.mlp((24, 16, 4)), name, change), exactness=level)
    assert found.verdict is Verdict.DIFFERENT
    assert "output 'spikes', step" in found.reason
    assert found.first_case in found.reason
    assert found.counterexample["x"].shape == (16, 1, 24)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "model", [grid_mlp, lambda **options: models.mlp((24, 16, 4), **options)], ids=["grid", "real"]
)
def test_greater_is_not_greater_or_equal(model, level):
    assert verify(model(), model(variant=GE), exactness=level).verdict is Verdict.DIFFERENT
    assert verify(model(variant=GE), model(), exactness=level).verdict is Verdict.DIFFERENT


def test_without_seekers_exact_ties_of_real_weights_go_unseen():
    plain, other = models.mlp((24, 16, 4)), models.mlp((24, 16, 4), variant=GE)
    assert verify(plain, other, seekers=False).verdict is Verdict.EQUIVALENT


@pytest.mark.parametrize(
    "variants",
    [
        ({"variant": NeuronVariant("LIF", reset="to-value")}),
        ({"variant": NeuronVariant("LIF", reset_delay=1)}),
        ({"variant": NeuronVariant("LIF", max_spikes=2)}),
        ({"variant": NeuronVariant("IF")}),
    ],
)
def test_other_neurons_are_caught(referee, variants):
    assert referee.check(models.mlp((24, 16, 4), **variants)).verdict is Verdict.DIFFERENT


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (models.recurrent(), "fc1.recurrent"),
        (models.conv(), "conv1.weight"),
        (models.streaming(), "fc2.weight"),
        (models.mlp((24, 16, 4), readout=NeuronVariant("LI")), "fc1.weight"),
        (models.mlp((24, 16, 4), batch=1, steps=8), "fc1.weight"),
    ],
    ids=["recurrent", "conv", "one step", "readout", "batch of one"],
)
def test_every_form_of_model(model, name):
    referee = Referee(model, batch=16)
    assert referee.check(model, exactness="bitwise").verdict is Verdict.EQUIVALENT
    assert referee.check(nudged(model, name, 0.1)).verdict is Verdict.DIFFERENT


def test_rounding_at_thresholds_is_counted_and_excused_on_stimuli_only():
    model, other = wide_tenths()
    found = verify(model, other)
    assert found.verdict is Verdict.EQUIVALENT
    assert found.near_ties > 0
    assert found.spikes_differing > 0
    assert verify(model, other, exactness="bitwise").verdict is Verdict.DIFFERENT
    # the same samples as the caller's own data are no excuse
    worst = max((case for case in found.cases), key=lambda case: case.near_ties)
    referee = Referee(model)
    referee.check(other)
    feeds = next(case.data.feeds for case in referee._original.cases if case.name == worst.name)
    data = Dataset.from_arrays(feeds, Session(model).inputs)
    on_data = verify(model, other, dataset=data, stimuli=())
    assert on_data.verdict is Verdict.DIFFERENT
    assert on_data.first_case == "data"


def test_a_wrong_result_does_not_hide_behind_near_ties():
    model, other = wide_tenths()
    assert verify(model, nudged(other, "fc2.weight", 0.01)).verdict is Verdict.DIFFERENT
    assert verify(model, nudged(other, "lif1.v_threshold", 0.001)).verdict is Verdict.DIFFERENT


def test_other_outputs_are_compared_with_a_tolerance():
    model = models.mlp((24, 16, 4), readout=NeuronVariant("LI"))
    slightly = nudged(model, "fc2.bias", 1e-6)
    assert verify(model, slightly).verdict is Verdict.EQUIVALENT
    assert verify(model, slightly, tolerance=1e-9).verdict is Verdict.DIFFERENT
    found = verify(model, slightly, exactness="bitwise")
    assert found.verdict is Verdict.DIFFERENT
    assert 0 < found.max_abs_difference < 1e-4
    assert verify(model, nudged(model, "fc2.bias", 0.1)).verdict is Verdict.DIFFERENT


def test_a_silent_model_is_inconclusive():
    model = models.mlp((24, 16, 4), v_threshold=1e9)
    found = verify(model, model)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason.startswith("no spike on 'spikes' in ")
    assert found.silent == ("lif1", "lif2")
    assert found.hidden_coverage == 0
    assert verify(model, nudged(model, "fc1.weight", 1.0)).verdict is Verdict.INCONCLUSIVE


def test_a_readout_behind_silent_neurons_is_inconclusive():
    model = models.mlp((24, 16, 4), readout=NeuronVariant("LI"), v_threshold=1e9)
    found = verify(model, model)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason.startswith("no population fired")


def test_silent_layers_are_listed():
    model = models.with_initializer(models.mlp((24, 16, 8, 4)), "lif2.v_threshold", 1e9)
    model = models.with_initializer(model, "lif3.v_threshold", 0.3)  # its bias drives it
    found = verify(model, model)
    assert found.verdict is Verdict.EQUIVALENT
    assert found.silent == ("lif2",)
    assert found.hidden_coverage == pytest.approx(2 / 3)


def test_nothing_compared_is_inconclusive():
    model = models.mlp()
    found = verify(model, model, stimuli=())
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "nothing was compared")
    unknown = models.mlp()
    unknown.graph.input[0].type.tensor_type.ClearField("shape")
    found = verify(unknown, unknown)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "declares no shape" in found.reason


def test_models_that_do_not_load_or_run():
    broken = models.mlp()
    broken.graph.node[0].op_type = "Nonsense"
    fine = models.mlp()
    found = verify(broken, fine)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason.startswith("the original does not load: onnxruntime cannot load")
    found = verify(fine, broken)
    assert found.verdict is Verdict.DIFFERENT
    assert found.reason.startswith("the rewritten model does not load: ")
    jammed = reassociated(models.mlp(), np.arange(8))
    jammed = models.with_initializer(jammed, "order", np.arange(8) + 1)  # reads past the last input
    found = verify(fine, jammed)
    assert found.verdict is Verdict.DIFFERENT
    assert found.reason.startswith("the rewritten model does not run on 'zeros': ")
    found = verify(jammed, fine)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason.startswith("the original does not run on any stimulus: zeros, ones")
    data = Dataset.from_arrays({"x": models.spike_trains(5, 3, 8)}, Session(fine).inputs)
    found = verify(jammed, fine, dataset=data)
    assert found.reason.startswith("the original does not run on the data: ")
    with pytest.raises(ModelLoadError):
        verify(fine, "absent.onnx")


def test_measured_claims_are_judged_on_the_data_alone():
    model = models.mlp((24, 16, 4))
    narrow = models.spike_trains(16, 20, 24)
    narrow[..., 12:] = 0
    data = Dataset.from_arrays({"x": narrow}, Session(model).inputs)
    weight = models.initializer(model, "fc1.weight")
    weight[:, 12:] = 0
    cut = models.with_initializer(model, "fc1.weight", weight)
    referee = Referee(model, dataset=data)
    assert referee.check(cut, exactness="profiled").verdict is Verdict.EQUIVALENT
    assert referee.check(cut).verdict is Verdict.DIFFERENT
    lossy = referee.check(nudged(model, "lif2.v_threshold", 0.5), exactness="lossy")
    assert lossy.verdict is Verdict.DIFFERENT
    assert [case.name for case in lossy.cases] == ["data"]
    assert 0 < lossy.spike_change < 0.5
    without = verify(model, cut, exactness="profiled")
    assert without.verdict is Verdict.INCONCLUSIVE
    assert without.reason == "a claim about measured data needs data to check it on"


def test_counterexamples_reproduce_as_data(tmp_path):
    model = models.mlp((24, 16, 4))
    mutant = nudged(model, "fc1.weight", 0.01)
    found = verify(model, mutant)
    path = tmp_path / "counterexample.npz"
    found.save_counterexample(path)
    data = load_dataset(path, Session(model).inputs)
    assert data.samples == 1
    again = verify(model, mutant, dataset=data, stimuli=())
    assert again.verdict is Verdict.DIFFERENT
    assert (again.first.step, again.first.index) == (found.first.step, found.first.index)
    with pytest.raises(ValueError, match="no counterexample: the verdict is EQUIVALENT"):
        verify(model, model).save_counterexample(path)


def test_the_callers_stimuli_replace_the_generated_ones():
    model = models.mlp()
    stimulus = Stimulus("mine", {"x": models.spike_trains(12, 9, 8)})
    found = verify(model, model, stimuli=[stimulus], seekers=False)
    assert [(case.name, case.samples, case.generated) for case in found.cases] == [("mine", 9, True)]
    with pytest.raises(DataError, match="no array 'x'"):
        verify(model, model, stimuli=[Stimulus("mine", {})])


def test_stimuli_stay_within_the_declared_domain():
    model = models.mlp((24, 16, 4))
    weight = models.initializer(model, "fc1.weight")
    weight[:, 3] = 7
    other = models.with_initializer(model, "fc1.weight", weight)
    high = np.ones(24)
    high[3] = 0
    assert verify(model, other, ranges={"x": (np.zeros(24), high)}).verdict is Verdict.EQUIVALENT
    assert verify(model, other).verdict is Verdict.DIFFERENT


def test_batches_do_not_change_the_counts():
    model, mutant = models.mlp(), nudged(models.mlp(), "fc1.weight", 0.1)
    data = Dataset.from_arrays({"x": models.spike_trains(10, 30, 8)}, Session(model).inputs)
    whole, split = (verify(model, mutant, dataset=data, stimuli=(), batch_size=size) for size in (64, 7))
    assert whole.to_json() == split.to_json()
    assert whole.first == split.first


def test_results_are_reproducible():
    model, mutant = models.mlp(), nudged(models.mlp(), "fc1.weight", 0.1)
    assert verify(model, mutant, seed=3).to_json() == verify(model, mutant, seed=3).to_json()


class TestForeignOriginals:
    """An original without our neurons: its inside is seen through the first equal candidate that has them."""

    def original(self, **options) -> onnx.ModelProto:
        return onnx.inliner.inline_local_functions(grid_mlp(**options))

    def test_seekers_work_through_an_equal_candidate(self):
        assert not any(node.domain for node in self.original().graph.node)
        found = verify(self.original(), grid_mlp(), exactness="bitwise")
        assert found.verdict is Verdict.EQUIVALENT
        assert found.populations == ("lif1", "lif2")
        assert {"seek:lif1", "seek:lif2"} <= {case.name for case in found.cases}

    def test_another_comparison_is_caught(self):
        assert verify(self.original(), grid_mlp(variant=GE), exactness="bitwise").verdict is Verdict.DIFFERENT

    def test_what_only_the_search_finds_is_caught_in_the_same_check(self):
        plain = models.mlp((24, 16, 4))
        foreign = onnx.inliner.inline_local_functions(plain)
        other = models.mlp((24, 16, 4), variant=GE)
        assert verify(foreign, other, seekers=False).verdict is Verdict.EQUIVALENT
        referee = Referee(foreign)
        assert referee.check(other).verdict is Verdict.DIFFERENT
        # the deceiver is no window into the original
        assert referee.check(other).populations == ()
        found = referee.check(plain, exactness="bitwise")
        assert found.verdict is Verdict.EQUIVALENT
        assert found.populations == ("lif1", "lif2")

    def test_nothing_is_excused_before_the_inside_was_seen(self):
        model, other = wide_tenths()
        foreign = Referee(onnx.inliner.inline_local_functions(model))
        assert foreign.check(other).verdict is Verdict.DIFFERENT
        assert foreign.check(model, exactness="bitwise").verdict is Verdict.EQUIVALENT
        excused = foreign.check(other)
        assert excused.verdict is Verdict.EQUIVALENT
        assert excused.near_ties > 0


def test_json_has_plain_types():
    found = verify(models.mlp(), nudged(models.mlp(), "fc1.weight", 0.5))
    record = found.to_json()
    assert record["verdict"] == "DIFFERENT"
    assert record["spikes_differing"] == found.spikes_differing
    assert record["first_difference"].startswith(found.first_case)
    assert {type(value) for value in record.values()} <= {str, int, float, list, bool, type(None)}


def test_a_candidate_judged_last_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = grid_mlp()
    referee = Referee(model)
    verdicts = [referee.check(model, exactness="bitwise")]
    monkeypatch.setattr(Session, "run", lambda *_: pytest.fail("ran again"))
    verdicts.append(referee.check(model, exactness="bitwise"))
    assert verdicts[0] == verdicts[1]
    assert verdicts[0].spikes_seen > 0


def test_a_wrong_candidate_between_equal_ones_is_caught() -> None:
    model = grid_mlp()
    referee = Referee(model)
    candidates = [model, nudged(model, "fc1.weight", 0.5, everywhere=True), model]
    found = [referee.check(candidate, exactness="bitwise") for candidate in candidates]
    assert [each.verdict for each in found] == [Verdict.EQUIVALENT, Verdict.DIFFERENT, Verdict.EQUIVALENT]
    assert found[0].spikes_seen == found[2].spikes_seen > 0


def test_a_model_of_one_sample_a_run_is_judged_on_fewer_samples() -> None:
    model, single = grid_mlp(), grid_mlp(batch=1)
    many, few = (verify(each, each, exactness="bitwise", seekers=False).samples for each in (model, single))
    assert many == 4 * few
