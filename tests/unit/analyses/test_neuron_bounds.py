"""Bounds of neurons: sound on every input tried, and exact where inputs are free."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from snn_optimizer import ops
from snn_optimizer.analyses.intervals import Range, contract, unit_roundoff
from snn_optimizer.analyses.neuron_bounds import neuron_facts

ROUNDOFF = unit_roundoff(np.float32)
VARIANTS = [
    ops.NeuronVariant(operator, reset=reset, reset_delay=delay, fire=fire, max_spikes=most, arithmetic=arithmetic)
    for operator, reset, delay, fire, most, arithmetic in itertools.product(
        ("LIF", "IF", "CubaLIF"), ("subtract", "to-value", "none"), (0, 1), ("gt", "ge"), (1, 4, 0), ("decay", "relax")
    )
    if not (operator == "IF" and arithmetic == "relax")
]


def draw(
    variant: ops.NeuronVariant, rng: np.random.Generator, neurons: int
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return operands of a sequence call (signal apart), and the lowest and highest current of each neuron."""
    values = {
        "alpha": rng.uniform(0, 0.9, neurons),
        "beta": rng.choice([0.5, 0.9, 1.0, 0.99], neurons),
        "gain": rng.choice([1.0, 0.5, 0.1], neurons),
        "v_threshold": rng.choice([1.0, 0.3, 2.0, -0.1], neurons, p=[0.5, 0.2, 0.2, 0.1]),
        "v_reset": rng.choice([0.0, -0.5, 0.2], neurons),
        "v0": rng.choice([0.0, 0.2, 1.5], neurons, p=[0.7, 0.2, 0.1]),
        "i0": rng.choice([0.0, 0.3], neurons),
    }
    if variant.arithmetic == "relax":
        values["beta"] = 1 - values["gain"]
    low = rng.uniform(-1, 1.2, neurons)
    high = low + rng.choice([0.0, 0.3, 1.0], neurons)
    operands = [values[name].astype(np.float32) for name in variant.inputs[1:]]
    return operands, low.astype(np.float32), high.astype(np.float32)


def facts_of(
    variant: ops.NeuronVariant, operands: list[np.ndarray], low: np.ndarray, high: np.ndarray, steps: int | None
):
    parameters = {name: Range.constant(a) for name, a in zip(variant.inputs[1:], operands, strict=True)}
    return neuron_facts(variant, Range.of(low, high), parameters, steps, ROUNDOFF)


def currents(low: np.ndarray, high: np.ndarray, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Return signals [T, B, N]: both ends throughout, random ends, random values, one pulse."""
    n = len(low)
    ends = np.where(rng.random((steps, 6, n)) < 0.5, low, high)
    middle = low + (high - low) * rng.random((steps, 6, n)).astype(np.float32)
    pulse = np.broadcast_to(low, (steps, 2, n)).copy()
    pulse[steps // 2] = high
    constant = np.broadcast_to(np.stack([low, high]), (steps, 2, n))
    return np.concatenate([constant, ends, middle, pulse], axis=1).astype(np.float32)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.op_type)
def test_never_and_always_hold_on_all_inputs_tried(variant: ops.NeuronVariant) -> None:
    rng = np.random.default_rng(len(variant.op_type))
    for steps, known in ((1, 1), (3, 3), (40, 40), (200, None)):
        operands, low, high = draw(variant, rng, 400)
        facts = facts_of(variant, operands, low, high, known)
        with np.errstate(all="ignore"):
            spikes = ops.sequence(variant, [currents(low, high, steps, rng), *operands])[0]
        assert not spikes[..., facts.never].any()
        assert (spikes[..., facts.always] == 1).all()
        assert facts.never.any()
        assert facts.always.any() or variant.max_spikes != 1


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.max_spikes == 1], ids=lambda v: v.op_type)
def test_what_is_not_proved_silent_can_be_made_to_fire(variant: ops.NeuronVariant) -> None:
    rng = np.random.default_rng(5)
    steps = 25
    operands, low, high = draw(variant, rng, 600)
    facts = facts_of(variant, operands, low, high, steps)
    names = dict(zip(variant.inputs[1:], operands, strict=True))
    signal = np.broadcast_to(high, (steps, 1, len(high))).astype(np.float32)
    fired = ops.sequence(variant, [signal, *operands])[0].any(axis=(0, 1))
    clear = np.abs(facts.highest - names["v_threshold"]) > 1e-4
    starts_low = names["v0"] <= names["v_threshold"] - 1e-4
    assert (fired | facts.never)[clear & starts_low].all()


def test_a_long_run_without_decay_drifts_over_any_threshold() -> None:
    variant = ops.NeuronVariant("IF")
    operands = [np.zeros(3), np.ones(3), np.array([5.0, 5.0, 5.0]), np.zeros(3)]
    high = np.array([1e-3, 0.0, -1e-3])
    bounded = facts_of(variant, operands, high - 1, high, 100)
    assert bounded.never.tolist() == [True, True, True]
    unbounded = facts_of(variant, operands, high - 1, high, None)
    assert unbounded.never.tolist() == [False, True, True]


def test_sums_are_bounded_in_every_order_of_summation() -> None:
    rng = np.random.default_rng(3)
    weights = rng.normal(0, 1, (50, 301)).astype(np.float32)
    weights[rng.random(weights.shape) < 0.3] = 0
    bias = rng.normal(0, 1, 50).astype(np.float32)
    bound = contract(weights, Range.of(np.zeros(301), np.ones(301)), bias, ROUNDOFF)
    for kind in range(30):
        x = (rng.random(301) < 0.5) if kind % 2 else rng.random(301)
        if kind < 2:
            x = (weights[7] > 0) if kind else (weights[7] < 0)
        x = x.astype(np.float32)
        for order in (np.arange(301), np.arange(301)[::-1], rng.permutation(301), np.argsort(weights[0])):
            total = bias.copy() if kind % 3 else np.zeros(50, np.float32)
            for k in order:
                total = (total + weights[:, k] * x[k]).astype(np.float32)
            total = total if kind % 3 else (total + bias).astype(np.float32)
            assert (total >= bound.low).all()
            assert (total <= bound.high).all()
    slack = bound.high - (np.maximum(weights.astype(np.float64), 0).sum(axis=1) + bias)
    assert slack.max() < 0.05


def test_negative_weights_do_not_widen_the_upper_bound() -> None:
    bound = contract(np.full((1, 30000), -1.0, np.float32), Range.of(np.zeros(30000), np.ones(30000)), None, ROUNDOFF)
    assert bound.high[0] == 0.0
    assert bound.low[0] < -30000


def test_nothing_is_claimed_with_nan() -> None:
    variant = ops.NeuronVariant("LIF")
    operands = [np.zeros(2), np.array([0.9, np.nan]), np.ones(2), np.ones(2), np.zeros(2)]
    facts = facts_of(variant, operands, np.array([-1.0, -1.0]), np.array([-0.5, -0.5]), 10)
    assert facts.never.tolist() == [True, False]
    bound = contract(np.array([[np.nan, 1.0]], np.float32), Range.of(np.zeros(2), np.ones(2)), None, ROUNDOFF)
    assert np.isneginf(bound.low[0])
    assert np.isposinf(bound.high[0])
