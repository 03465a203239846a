"""Programs against all inputs: the same answers, witnesses that replay, bounds that hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("scipy")

from snn_optimizer.errors import InputError
from snn_optimizer.exact import query as asking
from snn_optimizer.exact.enumeration import reachable
from snn_optimizer.exact.query import query, query_layer
from snn_optimizer.exact.space import NotEnumerable
from snn_optimizer.execution import Session
from snn_optimizer.ir import InputDomain
from snn_optimizer.ops import NeuronVariant
from tests.support.models import ModelBuilder
from tests.support.tiny_networks import Layer, network, random_layers

DELAYED = NeuronVariant("LIF", reset_delay=1)
TO_VALUE = NeuronVariant("LIF", reset="to-value")


def dense(*rows: list[float], **options: Any) -> Layer:
    weights = np.array(rows, np.float32)
    return Layer(weights, np.zeros(len(weights), np.float32), **options)


def spikes(model: onnx.ModelProto, feeds: Any, population: str, neuron: int) -> np.ndarray:
    return Session(model).run(feeds, [f"{population}.s"])[f"{population}.s"][:, 0, neuron]


@pytest.mark.parametrize("block", range(6))
def test_programs_agree_with_all_inputs(block: int) -> None:
    """Random networks of every kind of neuron: leaks of 0 to 1, thresholds of any sign, delayed and hard resets."""
    outcomes: Counter[str] = Counter()
    for seed in range(block * 6, block * 6 + 6):
        generator = np.random.default_rng(seed)
        features, steps = int(generator.integers(1, 4)), int(generator.integers(1, 4))
        layers = random_layers(generator, features, depth=2, recurrent=seed % 2 == 1)
        layers = [replace(layer, variant=replace(layer.variant, max_spikes=1)) for layer in layers]
        model, domain = network(layers, steps), InputDomain(max_active=[None, 1][seed % 3 == 0])
        for name, truth in reachable(model, domain=domain)[1].items():
            for question, never in (("can-fire", truth.never), ("can-stay-silent", truth.always)):
                some = np.unique(np.r_[0, never.argmax(), len(never) - 1])
                for answer in query_layer(model, name, some.tolist(), question, method="milp", domain=domain):
                    where = (seed, name, answer.neuron, question)
                    outcomes[answer.outcome] += 1
                    if answer.outcome == "not decided":
                        continue
                    assert (answer.outcome == "no") == never[answer.neuron], where
                    if answer.outcome == "no":
                        bound, extreme = answer.bound, truth.peak if question == "can-fire" else -truth.trough
                        assert bound is not None
                        sign = 1 if question == "can-fire" else -1
                        assert sign * bound >= extreme[answer.neuron] - 1e-5, where
                    else:
                        train = spikes(model, answer.witness, name, answer.neuron)
                        assert (train[answer.step] != 0) == (question == "can-fire"), where
    assert outcomes["yes"] > 10
    assert outcomes["no"] > 10
    assert outcomes["not decided"] <= 0.05 * sum(outcomes.values()), outcomes


def test_silence_that_intervals_cannot_prove() -> None:
    """Two neurons of opposite weights never fire together, so the one that needs both is silent."""
    model = network([dense([2.0, -3.0], [-3.0, 2.0], beta=0.0), dense([0.6, 0.6], beta=0.0)], 2)
    answer = query(model, "pop1", 0, method="milp")
    assert answer.outcome == "no"
    assert answer.bound == pytest.approx(0.6)
    assert str(answer) == "pop1[0] never fires: its potential is at most 0.6, the threshold 1"
    assert query(model, "pop0", 0, method="milp").outcome == "yes"


@pytest.mark.parametrize("variant", [NeuronVariant("LIF"), DELAYED, TO_VALUE])
def test_resets_of_neurons_on_the_way_count(variant: NeuronVariant) -> None:
    """A neuron that resets fires every other step at most, and two spikes in a row are what the next one needs."""
    weight = 1.2 if variant.reset == "subtract" else 0.9
    first = dense(
        [weight], beta=0.5 if variant.reset == "subtract" else 0.3, threshold=np.float32(1.15), variant=variant
    )
    model = network([first, dense([0.6], beta=0.9)], 3)
    truth = reachable(model)[1]["pop1"]
    assert query(model, "pop1", 0, method="milp").outcome == ("no" if truth.never[0] else "yes")


def test_ties_on_a_grid_are_decided() -> None:
    """Sums that meet the threshold and do not pass it: no float is rounded here, so there is no doubt."""
    for fire, outcome in (("gt", "no"), ("ge", "yes")):
        variant = NeuronVariant("LIF", fire=fire)
        model = network([dense([0.25, 0.75], beta=0.0, variant=variant), dense([1.0], beta=0.0)], 2)
        assert query(model, "pop0", 0, method="milp").outcome == outcome


def test_a_tie_within_rounding_is_not_proved() -> None:
    """0.1 + 0.7 + 0.9 against 1.7 in floats: what the sum is depends on its order, so nothing is claimed unseen."""
    model = network([dense([0.1, 0.7, 0.9], beta=0.0, threshold=np.float32(1.7))], 1)
    answer = query(model, "pop0", 0, method="milp")
    fires = not reachable(model)[1]["pop0"].never[0]
    assert answer.outcome in (("yes",) if fires else ("no", "not decided"))
    if answer.outcome == "no":  # only after the one input that meets it was run
        assert answer.bound == pytest.approx(1.7)


def test_a_point_that_does_not_replay_is_no_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    from snn_optimizer.exact import solving

    model = network([dense([1.5, 1.5], beta=0.0)], 1)
    monkeypatch.setattr(solving._Replay, "step", lambda *_: None)
    answer = query(model, "pop0", 0, method="milp")
    assert answer.outcome == "no"  # every input that would do was tried and, here, found not to
    monkeypatch.setattr(solving, "ROUNDS", 2)
    answer = query(model, "pop0", 0, method="milp")
    assert answer.outcome == "not decided"
    assert "only within rounding" in answer.reason
    assert answer.witness is None


def test_real_inputs_are_followed_within_their_range() -> None:
    model = network([dense([1.0, -1.0], beta=0.0)], 2)
    for high, outcome in ((0.8, "no"), (1.2, "yes")):
        domain = InputDomain(named={"x": (0.0, high)})
        answer = query(model, "pop0", 0, domain=domain)
        assert (answer.method, answer.outcome) == ("milp", outcome)
        if answer.witness is not None:
            assert (answer.witness["x"] <= np.float32(high)).all()


def test_real_inputs_under_an_activity_limit() -> None:
    model = network([dense([0.6, 0.6, 0.6], beta=0.0)], 1)
    for limit, outcome in ((1, "no"), (2, "yes")):
        domain = InputDomain(default=(-1.0, 1.0), max_active=limit)
        answer = query(model, "pop0", 0, domain=domain)
        assert answer.outcome == outcome
        if answer.witness is not None:
            assert np.count_nonzero(answer.witness["x"]) <= limit


def test_pooled_spikes_and_convolutions() -> None:
    """A 2 x 2 image; a neuron behind a pool that needs more than the pool gives is silent, its twin is not."""
    net = ModelBuilder()
    net.input("x", (2, "batch", 1, 2, 2))
    rows = net.reshape("x", "rows", (-1, 1, 2, 2))
    kernel = np.full((1, 1, 1, 1), 1.5, np.float32)
    conv = net.node("Conv", [rows, net.constant("k", kernel), net.constant("kb", np.full(1, -0.1))], "conv")
    norm = net.node(
        "BatchNormalization",
        [conv, *(net.constant(n, np.full(1, v)) for n, v in (("g", 1.0), ("b", 0.1), ("m", 0.2), ("s", 1.0)))],
        "norm",
    )
    lif = NeuronVariant("LIF")
    first = net.neuron("first", lif, net.reshape(norm, "a", (2, -1, 1, 2, 2)), states=[net.constant("v0", 0.0)], beta=0.0,
                       gain=1.0, v_threshold=1.0, v_reset=0.0)[0]  # fmt: skip
    pool = net.node("MaxPool", [net.reshape(first, "c", (-1, 1, 2, 2))], "pool", kernel_shape=[2, 2])
    flat = net.node("Flatten", [pool], "flat")
    out = net.linear("fc", flat, np.array([[0.9], [1.1]], np.float32))
    second = net.neuron("second", lif, net.reshape(out, "d", (2, -1, 2)), states=[net.constant("w0", 0.0)], beta=0.0,
                        gain=1.0, v_threshold=1.0, v_reset=0.0)[0]  # fmt: skip
    net.output(second, (2, "batch", 2))
    model = net.build()
    answers = query_layer(model, "second", method="milp")
    assert [answer.outcome for answer in answers] == ["no", "yes"]
    assert answers[0].bound == pytest.approx(0.9, abs=1e-5)
    assert [a.outcome for a in query_layer(model, "second", method="enumerate")] == ["no", "yes"]


def test_what_has_no_rule_is_named() -> None:
    net = ModelBuilder()
    net.input("x", (1, "batch", 2))
    bent = net.node("Sigmoid", ["x"], "bent", name="squash")
    out = net.neuron("pop", NeuronVariant("LIF"), bent, states=[net.constant("v0", 0.0)], beta=0.5, gain=1.0,
                     v_threshold=1.0, v_reset=0.0)[0]  # fmt: skip
    net.output(out, (1, "batch", 2))
    answer = query(net.build(), "pop", 0, method="milp")
    assert (answer.outcome, answer.reason) == ("not decided", "node 'squash': no exact rule for 'Sigmoid'")


def test_the_time_limit_ends_the_search() -> None:
    generator = np.random.default_rng(0)
    layers = [
        Layer(generator.normal(0, 0.6, (24, 24)).astype(np.float32), np.zeros(24, np.float32), beta=0.9),
        Layer(generator.normal(0, 0.3, (24, 24)).astype(np.float32), np.zeros(24, np.float32), beta=0.9, threshold=np.float32(5)),
    ]  # fmt: skip
    answer = query(network(layers, 12), "pop1", 0, time_limit=0.001)
    assert answer.outcome == "not decided"
    assert answer.reason.startswith("the time limit was reached")
    assert answer.seconds < 20


@pytest.mark.parametrize("method", ["enumerate", "milp"])
def test_questions_about_nothing_are_refused(method: str) -> None:
    model = network([dense([1.0])], 2)
    with pytest.raises(InputError, match="no layer 'pop7'; layers that fire: pop0"):
        query(model, "pop7", 0, method=method)
    with pytest.raises(InputError, match="layer 'pop0' has neurons 0 to 0, not 1"):
        query(model, "pop0", 1, method=method)


def test_auto_tries_all_inputs_of_small_domains_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network([dense([1.0, 1.0])], 4)
    assert query(model, "pop0", 0).method == "enumerate"
    monkeypatch.setattr(asking, "AUTO", 255)
    assert query(model, "pop0", 0).method == "milp"
    with pytest.raises(NotEnumerable):
        query(model, "pop0", 0, method="enumerate", limit=255)
