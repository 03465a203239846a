"""What is known about spikes over time: that it is true, and that each kind of knowledge proves what no other does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from snn_optimizer.analyses import AnalysisManager, NeuronFacts, Range, ValueRanges, temporal_facts
from snn_optimizer.analyses.bounds import RangePropagation
from snn_optimizer.analyses.spike_trains import LONGEST_RUN, Clock, Train, discounted_sum
from snn_optimizer.ir import InputDomain, Module
from snn_optimizer.ops import NeuronVariant
from tests.support.tiny_networks import Claims, Layer, all_inputs, claims_of, network, random_layers, some_inputs

SUBTRACT = NeuronVariant("LIF")
TO_VALUE = NeuronVariant("LIF", reset="to-value")
FREE = NeuronVariant("LIF", reset="none")


def one(weight: float, *, beta: float, variant: NeuronVariant = SUBTRACT, inputs: int = 1, bias: float = 0.0) -> Layer:
    """A neuron of threshold 1 that weighs all inputs alike."""
    return Layer(np.full((1, inputs), weight, np.float32), np.array([bias], np.float32), beta=beta, variant=variant)


def own(weight: float, *, beta: float, units: int = 6) -> Layer:
    """Neurons with an input of their own each."""
    return Layer(weight * np.eye(units, dtype=np.float32), np.zeros(units, np.float32), beta=beta)


def facts_of(layers: list[Layer], steps: int | str, limit: int | None = None) -> list[NeuronFacts]:
    module = Module.load(network(layers, steps, rows=isinstance(steps, int)))
    facts = AnalysisManager(module, InputDomain(max_active=limit)).get(ValueRanges).facts
    names = {id(n): n.name for scope in module.scopes() if scope.kind != "function" for n in scope.graph.nodes}
    return [each for _, each in sorted((names[key], each) for key, each in facts.items())]


# -- each kind of knowledge proves what nothing else does ---------------------------------------------------------


LATE = one(0.3, beta=1.0, variant=FREE)  # fires from its fourth step on
PROOFS: dict[str, tuple[list[Layer], int | str, int | None, dict[str, Callable[[Train], Any]]]] = {
    # two spikes in five steps
    "first": ([LATE, one(0.4, beta=1.0)], 5, None, {"first": lambda t: np.ones_like(t.first)}),
    # every other step
    "interval": (
        [one(0.8, beta=0.5, variant=TO_VALUE), one(0.7, beta=0.5)], "T", None,
        {"interval": lambda t: np.ones_like(t.interval)},
    ),
    # six spikes in ten steps
    "caps": ([one(0.6, beta=0.9), one(0.15, beta=0.9)], "T", None, {"caps": lambda t: np.full_like(t.caps, np.inf)}),
    # one spike in a step
    "limit": ([own(1.5, beta=0.0), one(0.9, beta=0.0, inputs=6)], "T", 1, {"limit": lambda _: None}),
    # a spike and a half in a step, whoever fires
    "totals": ([own(1.5, beta=0.5), one(0.3, beta=0.5, inputs=6)], "T", 1, {"totals": lambda _: None}),
}  # fmt: skip


@pytest.mark.parametrize("kind", PROOFS)
def test_each_fact_proves_a_neuron_that_nothing_else_proves(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layers, steps, limit, blanks = PROOFS[kind]
    assert facts_of(layers, steps, limit)[1].never.all()

    derive = temporal_facts._Spikes.train

    def without(spikes: Any) -> Train:
        train = derive(spikes)
        return replace(train, **{name: blank(train) for name, blank in blanks.items()})

    monkeypatch.setattr(temporal_facts._Spikes, "train", without)
    assert not facts_of(layers, steps, limit)[1].never.any()


@pytest.mark.parametrize("kind", PROOFS)
def test_intervals_alone_prove_none_of_them(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layers, steps, _, _ = PROOFS[kind]
    monkeypatch.setattr(RangePropagation, "_incoming", lambda *_: None)
    assert not facts_of(layers, steps)[1].never.any()


@pytest.mark.parametrize("kind", PROOFS)
def test_a_little_more_weight_makes_them_fire_or_unproved(kind: str) -> None:
    """The proofs are near the truth: with half as much again the claim is gone."""
    layers, steps, limit, _ = PROOFS[kind]
    heavier = [*layers[:-1], replace(layers[-1], weights=layers[-1].weights * 1.5)]
    assert not facts_of(heavier, steps, limit)[1].never.any()


def test_few_active_inputs_keep_a_first_neuron_silent() -> None:
    layer = one(0.4, beta=0.0, inputs=5)
    assert facts_of([layer], "T", 2)[0].never.all()
    assert not facts_of([layer], "T", 3)[0].never.any()
    assert not facts_of([layer], "T")[0].never.any()


def test_few_active_inputs_cannot_keep_a_neuron_from_firing() -> None:
    layer = one(-0.4, beta=0.0, inputs=5, bias=2.0)
    assert facts_of([layer], "T", 2)[0].always.all()
    assert not facts_of([layer], "T", 3)[0].always.any()


def test_inhibition_that_comes_late_does_not_stop_a_neuron_that_always_fires() -> None:
    layers = [LATE, one(-0.7, beta=1.0, bias=1.2)]
    assert facts_of(layers, 4)[1].always.all()
    assert not facts_of(layers, 5)[1].always.any()


def test_neurons_of_a_ring_without_drive_never_start() -> None:
    ring = Layer(
        np.zeros((3, 1), np.float32), np.zeros(3, np.float32), beta=0.9,
        lateral=2 * np.roll(np.eye(3, dtype=np.float32), 1, axis=0),
    )  # fmt: skip
    assert facts_of([ring], "T")[0].never.all()
    driven = replace(ring, weights=np.array([[2.0], [0.0], [0.0]], np.float32))
    assert not facts_of([driven], "T")[0].never.any()


def test_a_neighbour_counts_only_after_its_first_spike() -> None:
    layer = Layer(
        np.array([[0.3], [0.0]], np.float32), np.zeros(2, np.float32), beta=1.0, variant=FREE,
        lateral=np.array([[0.0, 0.0], [0.4, 0.0]], np.float32),
    )  # fmt: skip
    assert facts_of([layer], 6)[0].never.tolist() == [False, True]
    assert facts_of([layer], 7)[0].never.tolist() == [False, False]
    train = facts_of([layer], 7)[0].train
    assert train is not None
    assert train.first.tolist() == [4, 7]


def test_a_limit_reaches_a_layer_behind_a_recurrent_one_only_by_its_range() -> None:
    """What a population feeds back is not limited by the inputs, so nothing is claimed of all of its neurons."""
    layer = replace(own(1.5, beta=0.0), lateral=np.full((6, 6), 2.0, np.float32))
    train = facts_of([layer], 4, 1)[0].train
    assert train is not None
    assert train.limit is None
    assert train.totals is None


def test_spikes_of_another_number_of_steps_are_not_taken_for_these() -> None:
    """Rows that are cut into other steps are other steps: [4, 2 B] is not [2, 4 B] by the first axis."""
    layers = [LATE, one(0.4, beta=1.0)]
    model = network(layers, 5)
    assert facts_of(layers, 5)[1].never.all()
    target = next(t for t in model.graph.initializer if t.name == "fc1.current.shape")
    target.raw_data = np.array([-1, 5, 1], np.int64).tobytes()
    facts = AnalysisManager(Module.load(model)).get(ValueRanges).facts
    assert len(facts) == 2
    assert not list(facts.values())[1].never.any()


# -- what is claimed is true ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(24))
def test_every_input_obeys_every_claim(seed: int) -> None:
    """All binary inputs of tiny networks, at most two of four in a step or all."""
    generator = np.random.default_rng(seed)
    steps = int(generator.integers(1, 5))
    features = int(generator.integers(1, 1 + min(4, 12 // steps)))
    limit = [None, 1, 2][seed % 3]
    layers = random_layers(generator, features, depth=1 + seed % 3, recurrent=seed % 2 == 1)
    model = network(layers, steps, rows=seed % 4 < 2)
    for number, claims in enumerate(claims_of(model, len(layers), all_inputs(steps, features, limit), InputDomain(max_active=limit))):  # fmt: skip
        assert claims.violated() is None, (number, layers[number])


@pytest.mark.slow
def test_sixteen_bits_of_input_obey_every_claim() -> None:
    for seed in range(6):
        generator = np.random.default_rng(1000 + seed)
        layers = random_layers(generator, 4, depth=2, recurrent=seed % 2 == 1)
        domain = InputDomain(max_active=[None, 1][seed % 2])
        inputs = all_inputs(4, 4, domain.max_active)
        assert all(claims.violated() is None for claims in claims_of(network(layers, 4), 2, inputs, domain))


@pytest.mark.parametrize("block", range(4))
def test_hard_inputs_obey_every_claim(block: int) -> None:
    """Longer runs, unknown numbers of steps, real numbers: random trains and the ones that drive neurons hardest."""
    claimed = {"never": 0, "first": 0, "interval": 0, "rarer": 0}
    for seed in range(block * 20, block * 20 + 20):
        generator = np.random.default_rng(seed)
        features, limit = int(generator.integers(1, 9)), [None, 1, 2, 3][seed % 4]
        layers = random_layers(generator, features, depth=1 + seed % 3, recurrent=True)
        declared: int | str = ["T", 5, 24, 70][seed % 4]
        steps = declared if isinstance(declared, int) else 40
        inputs = some_inputs(generator, steps, features, limit, layers, samples=120)
        if seed % 5 == 0:
            inputs = inputs * generator.random(inputs.shape).astype(np.float32)
        model = network(layers, declared, rows=seed % 2 == 0)
        for number, claims in enumerate(claims_of(model, len(layers), inputs, InputDomain(max_active=limit))):
            assert claims.violated() is None, (seed, number)
            train = claims.train
            if train is None:
                continue
            claimed["never"] += int(claims.facts.never.sum())
            claimed["first"] += int((np.isfinite(train.first) & (train.first > 1)).sum())
            claimed["interval"] += int((train.interval > 1).sum())
            claimed["rarer"] += int(train.informative)
    assert min(claimed.values()) > 5, claimed


@pytest.mark.parametrize("broken", ["never", "always", "first", "interval", "cap", "limit", "total"])
def test_the_comparison_with_spikes_finds_what_is_wrong(broken: str) -> None:
    layers = [own(1.5, beta=0.5, units=2), one(0.3, beta=0.5, inputs=2)]
    inputs = np.ones((4, 1, 2), np.float32)
    claims = claims_of(network(layers, 4), 2, inputs, InputDomain())[0]
    facts, train = claims.facts, claims.train
    assert train is not None
    assert claims.violated() is None
    match broken:
        case "never":
            facts = replace(facts, never=np.ones_like(facts.never))
        case "always":
            facts = replace(facts, always=np.ones_like(facts.always))
            claims = replace(claims, spikes=np.zeros_like(claims.spikes))
        case "first":
            facts = replace(facts, train=replace(train, first=train.first + 1))
        case "interval":
            facts = replace(facts, train=replace(train, interval=train.interval + 1))
        case "cap":
            facts = replace(facts, train=replace(train, caps=train.caps * 0))
        case "limit":
            facts = replace(facts, train=replace(train, limit=1))
        case "total":
            facts = replace(facts, train=replace(train, totals=np.ones(len(train.clock.ends))))
    assert Claims(facts, claims.spikes).violated() == broken


# -- how much is proved -----------------------------------------------------------------------------------------------


def shares(limit: int | None, declared: int | None) -> tuple[int, int]:
    """Neurons that no input with at most `limit` active entries makes fire, and how many of them are proved."""
    silent = proved = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        layers = random_layers(generator, 3, depth=3, recurrent=seed % 2 == 1)
        domain = InputDomain(max_active=declared)
        for claims in claims_of(network(layers, 4), 3, all_inputs(4, 3, limit), domain):
            quiet = ~claims.spikes.any(axis=(0, 1))
            silent += int(quiet.sum())
            proved += int((quiet & claims.facts.never).sum())
    return silent, proved


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "missed", "won"), [(None, 0.3, 0.01), (1, 0.3, 0.05)])
def test_more_of_the_neurons_that_never_fire_are_proved(
    limit: int | None, missed: float, won: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of networks all of whose inputs were tried: what ranges miss, and what is missed with facts over time."""
    silent, proved = shares(limit, limit)
    monkeypatch.setattr(RangePropagation, "_incoming", lambda *_: None)
    _, before = shares(limit, None)
    counts = f"{silent} silent, {before} proved by ranges, {proved} by facts"
    assert silent > 100
    assert proved - before >= won * silent, counts
    assert silent - proved <= missed * silent, counts


# -- the parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 7, 16, 17, 100, LONGEST_RUN, LONGEST_RUN + 1, None])
def test_a_clock_counts_every_step_once(steps: int | None) -> None:
    clock = Clock.of(steps)
    assert clock.starts[0] == 1
    assert (clock.starts[1:] == clock.ends[:-1] + 1).all()
    assert (clock.ends >= clock.starts).all()
    assert clock.ends[-1] == (steps if steps is not None and steps <= LONGEST_RUN else np.inf)
    assert Clock.of(steps) is clock


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_discounted_sums(decay: float, count: int) -> None:
    np.testing.assert_allclose(discounted_sum(decay, count), sum(decay**k for k in range(count)), rtol=1e-12)


def test_discounted_sums_of_infinitely_many() -> None:
    assert discounted_sum(0.75, np.inf) == pytest.approx(4)
    assert np.isinf(discounted_sum(1.0, np.inf))


@pytest.mark.parametrize("decay", [0.3, 0.5, 0.8, 1.0])
def test_a_cap_holds_for_other_decays(decay: float) -> None:
    """A train of the densest kind a cap allows, summed with another decay."""
    own_decay, length = 0.5, 12
    generator = np.random.default_rng(3)
    clock = Clock.of(length)
    for _ in range(50):
        spikes = (generator.random(length) < generator.random()).astype(float)
        sums = [sum(own_decay ** (t - k) * spikes[k] for k in range(t + 1)) for t in range(length)]
        caps = np.maximum.accumulate(sums)[:, np.newaxis]
        train = Train(clock, length, False, 1, np.ones(1), np.ones(1), np.full(1, own_decay), caps)
        bound = train.discounted(Range.of(np.zeros(1), np.ones(1)), decay, decay)
        found = [sum(decay ** (t - k) * spikes[k] for k in range(t + 1)) for t in range(length)]
        assert (np.array(found) <= bound.high[:, 0] + 1e-9).all()
