"""Two minutes of the fuzzer, in two halves that two workers share; it prints what it did."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.fuzz.campaign import Settings, run_campaign
from tests.fuzz.execution import Comparison, Recorded, load
from tests.fuzz.oracle import Examined
from tests.fuzz.pipelines import cheap_gathers, describe, main
from tests.fuzz.plans import Plan, check_options, plan
from tests.fuzz.samples import KINDS, sample
from tests.fuzz.stimuli import stimuli

SECONDS = 60


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_minute_finds_nothing(seed: int, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    settings = Settings(SECONDS, seed, 1, tmp_path / "findings", cheap_gathers(tmp_path), shrinks=False)
    start = time.perf_counter()
    figures, found = run_campaign(settings)
    record_property("figures", describe(figures, time.perf_counter() - start))
    assert not figures.failures, found
    assert sum(figures.models.values()) >= 1
    assert sum(figures.runs.values()) >= 1
    assert sum(figures.counts.values()) > 0


def test_every_pass_and_option_is_drawn() -> None:
    check_options()
    kinds: Counter[str] = Counter()
    for index in range(16):
        made = sample(0, index)
        kinds[made.kind] += 1
        for number in range(3):
            drawn = plan(made, 0, index, number)
            assert Plan(**drawn.to_json()) == drawn
    assert set(kinds) == set(KINDS)


def test_a_seed_gives_the_same_models_and_plans() -> None:
    for index in range(8):
        first, second = sample(3, index), sample(3, index)
        assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)
        assert plan(first, 3, index, 1) == plan(second, 3, index, 1)


def test_stimuli_stay_in_the_declared_domain() -> None:
    made = sample(0, 0)
    declared = Plan("@O1", low=0.0, high=3.0, max_active=1)
    for _, feeds in stimuli(made, declared):
        for array in feeds.values():
            assert ((array >= 0) & (array <= 3)).all()
            assert (np.count_nonzero(array, axis=tuple(range(2, array.ndim))) <= 1).all()


def damaged(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with one weight changed by much."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        array = np.array(onnx.numpy_helper.to_array(tensor))
        if array.dtype == np.float32 and array.ndim >= 2:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array + np.float32(0.5), tensor.name))
    return changed


@pytest.mark.parametrize("claim", ["bitwise", "algebraic"])
def test_the_judge_sees_a_changed_weight(claim: str) -> None:
    seen = 0
    for index in range(0, 48, 8):
        made = sample(11, index, "functions")
        examined = Examined(made)
        run = load(damaged(made.model))
        for recorded in examined.recorded(Plan("")):
            seen += examined.comparison.difference(recorded, run(recorded.feeds), claim) is not None
    assert seen > 10


def test_the_judge_holds_exact_networks_to_their_spikes() -> None:
    made = sample(11, 0, "functions")
    outputs = {value.name: np.zeros((2, 3), np.float32) for value in made.model.graph.output}
    recorded = Recorded("made up", {}, outputs)
    changed = {name: np.eye(2, 3, dtype=np.float32) for name in outputs}
    comparison = Comparison(type(made)(made.kind, made.model, exact=True))
    assert "0.0 became 1.0" in str(comparison.difference(recorded, changed, "algebraic"))
    assert comparison.difference(recorded, outputs, "bitwise") is None
    negative = {name: -array for name, array in outputs.items()}
    assert comparison.difference(recorded, negative, "algebraic") is None
    assert "became -0.0" in str(comparison.difference(recorded, negative, "bitwise"))


def test_what_is_no_finding_cannot_be_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--replay", str(tmp_path / "nothing.json")])
    assert "is not a finding" in capsys.readouterr().err
