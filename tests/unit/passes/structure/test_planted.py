"""Each pass finds exactly what was planted, in networks of every form, and no output bit changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_optimizer.ops import NeuronVariant
from tests.support.planting import (
    KINDS,
    UNITS,
    Hidden,
    assert_same_bits,
    assert_same_population,
    build,
    healthy,
    read,
    run_pass,
)

CONVOLUTIONS = ("conv", "conv-conv")
FEEDBACK = ("residual", "recurrent")
kinds = pytest.mark.parametrize("kind", KINDS)
lengths = pytest.mark.parametrize("steps", [None, 7], ids=["any-length", "seven-steps"])


def choose(seed: int, number: int) -> list[int]:
    """Distinct units, in random places."""
    return [int(unit) for unit in np.random.default_rng(seed).permutation(UNITS)[:number]]


def check(name: str, kind: str, planted: Hidden, expected: Hidden, steps: int | None, **options) -> None:
    model = build(kind, planted, steps=steps)
    ran = run_pass(name, model, **options)
    assert_same_population(read(kind, ran.after), replace(expected, out_bias=read(kind, ran.after).out_bias))
    populations = 2 if kind == "residual" else 1
    positions = 9 if kind in CONVOLUTIONS else 1
    gone = planted.units - expected.units
    assert ran.outcome.changes == gone
    assert ran.outcome.neurons_removed == gone * populations * positions
    assert_same_bits(model, ran.after)


# -- dead --------------------------------------------------------------------------------------


def test_nothing_is_found_where_nothing_was_planted() -> None:
    for kind in KINDS:
        for seed in range(3):
            model = build(kind, healthy(kind, seed))
            for name in (
                "layer-fusion",
                "redundant-connection-removal",
                "dead-neuron-elimination",
                "constant-neuron-folding",
                "redundancy-elimination",
            ):
                assert run_pass(name, model).outcome.changes == 0


@kinds
@lengths
def test_units_that_their_bias_holds_down_are_removed(kind: str, steps: int | None) -> None:
    hidden = healthy(kind, 1)
    dead = choose(1, 3)
    check("dead-neuron-elimination", kind, planted := hidden.with_rows(dead, bias=-64.0), planted.without(dead), steps)


@kinds
@lengths
def test_units_that_their_weights_hold_down_are_removed(kind: str, steps: int | None) -> None:
    hidden = healthy(kind, 2)
    dead = choose(2, 3)
    planted = hidden.with_rows(dead, weight=-np.abs(hidden.weight[dead]), bias=0.0, v0=0.0)
    if hidden.back is not None:
        planted = planted.with_rows(dead, back=-np.abs(hidden.back[dead]))
    check("dead-neuron-elimination", kind, planted, planted.without(dead), steps)


@kinds
@lengths
def test_units_with_a_threshold_out_of_reach_are_removed(kind: str, steps: int | None) -> None:
    dead = choose(3, 2)
    planted = healthy(kind, 3).with_rows(dead, threshold=128.0)
    check("dead-neuron-elimination", kind, planted, planted.without(dead), steps)


@pytest.mark.parametrize("kind", ["gemm", "conv", "recurrent"])
@pytest.mark.parametrize("reset", ["subtract", "to-value", "none"])
@pytest.mark.parametrize(("delay", "fire", "most"), [(0, "ge", 1), (1, "gt", 1), (1, "ge", 3), (0, "gt", 0)])
def test_dead_units_are_removed_whatever_a_spike_does(kind: str, reset: str, delay: int, fire: str, most: int) -> None:
    variant = NeuronVariant("LIF", reset=reset, reset_delay=delay, fire=fire, max_spikes=most)
    dead = choose(4, 3)
    hidden = healthy(kind, 4)
    if hidden.back is not None:
        hidden = replace(hidden, back=hidden.back / 8)
    planted = hidden.with_rows(dead, bias=-64.0)
    model = build(kind, planted, variant=variant)
    ran = run_pass("dead-neuron-elimination", model)
    if most == 0 and kind == "recurrent":
        return  # nothing bounds what comes back: whatever was removed, the bits below tell
    assert_same_population(read(kind, ran.after), planted.without(dead))
    assert_same_bits(model, ran.after)


def test_a_ring_of_recurrent_units_that_nothing_starts_is_dead() -> None:
    ring = choose(5, 3)
    planted = healthy("recurrent", 5).with_rows(ring, weight=0.0, bias=0.0, v0=0.0, back=0.0)
    back = planted.back.copy()
    for unit, following in zip(ring, ring[1:] + ring[:1], strict=True):
        back[following, unit] = 4.0
    planted = replace(planted, back=back)
    check("dead-neuron-elimination", "recurrent", planted, planted.without(ring), None)


def test_a_ring_that_its_initial_state_starts_stays() -> None:
    ring = choose(5, 3)
    planted = healthy("recurrent", 5).with_rows(ring, weight=0.0, bias=0.0, v0=0.0, back=0.0)
    back = planted.back.copy()
    for unit, following in zip(ring, ring[1:] + ring[:1], strict=True):
        back[following, unit] = 4.0
    planted = replace(planted, back=back).with_rows(ring[0], v0=8.0)
    assert run_pass("dead-neuron-elimination", build("recurrent", planted)).outcome.changes == 0


# -- always firing -----------------------------------------------------------------------------


@kinds
@lengths
def test_units_that_fire_at_every_step_become_a_bias(kind: str, steps: int | None) -> None:
    always = choose(6, 2)
    planted = healthy(kind, 6).with_rows(always, bias=64.0)
    model = build(kind, planted, steps=steps)
    ran = run_pass("constant-neuron-folding", model)
    found = read(kind, ran.after)
    per_unit = planted.out[:, always].sum(axis=(1, 2)) * (2 if kind == "residual" else 1)
    expected = replace(planted.without(always), out_bias=planted.out_bias + per_unit)
    if kind == "residual":  # the second branch reads them too
        held = np.array(planted.bias + planted.back[:, always].sum(axis=1))
        second = next(t for t in ran.after.graph.initializer if t.name == "second.bias")
        np.testing.assert_array_equal(np.frombuffer(second.raw_data, np.float32), np.delete(held, always))
    if kind != "recurrent":
        assert_same_population(found, expected)
        assert ran.outcome.changes == len(always)
    assert_same_bits(model, ran.after)


@pytest.mark.parametrize("reset", ["subtract", "to-value", "none"])
@pytest.mark.parametrize("delay", [0, 1])
def test_a_spike_at_every_step_survives_its_own_resets(reset: str, delay: int) -> None:
    variant = NeuronVariant("LIF", reset=reset, reset_delay=delay)
    always = choose(7, 2)
    planted = healthy("gemm", 7).with_rows(always, bias=64.0)
    model = build("gemm", planted, variant=variant)
    ran = run_pass("constant-neuron-folding", model)
    assert ran.outcome.changes == 2
    assert_same_bits(model, ran.after)


def test_a_unit_that_fires_at_every_step_but_the_first_stays() -> None:
    """Its charge grows over the first step, so its train is not constant."""
    planted = healthy("gemm", 7).with_rows(0, weight=0.0, bias=0.75, threshold=0.875, beta=0.5, v0=0.0)
    variant = NeuronVariant("LIF", reset="none")
    model = build("gemm", planted, variant=variant)
    assert run_pass("constant-neuron-folding", model).outcome.changes == 0


# -- duplicates --------------------------------------------------------------------------------


@kinds
@lengths
def test_duplicates_are_merged_and_their_columns_summed(kind: str, steps: int | None) -> None:
    a, b, c, d, e = choose(8, 5)
    planted = healthy(kind, 8).twin(a, b).twin(a, c).twin(d, e)
    expected = planted
    for group in (sorted([a, b, c]), sorted([d, e])):
        for unit in group[1:]:
            expected = _sum_columns(expected, group[0], unit)
    gone = [*sorted([a, b, c])[1:], max(d, e)]
    check("redundancy-elimination", kind, planted, expected.without(gone), steps)


def _sum_columns(hidden: Hidden, source: int, target: int) -> Hidden:
    out = np.array(hidden.out)
    out[:, source] += out[:, target]
    if hidden.back is None:
        return replace(hidden, out=out)
    back = np.array(hidden.back)
    back[:, source] += back[:, target]
    return replace(hidden, out=out, back=back)


@pytest.mark.parametrize("kind", FEEDBACK)
def test_duplicates_that_feed_each_other_are_merged(kind: str) -> None:
    """Their rows differ: each weighs itself as the other weighs itself, and the other as the other does."""
    first, second = sorted(choose(9, 2))
    planted = healthy(kind, 9).twin(first, second)
    back = np.array(planted.back)
    back[first, [first, second]] = 0.75, -0.5
    back[second, [first, second]] = -0.5, 0.75
    planted = replace(planted, back=back)
    expected = _sum_columns(planted, first, second).without([second])
    check("redundancy-elimination", kind, planted, expected, None)


@kinds
@pytest.mark.parametrize("scale", [2.0, 0.5, 0.25])
def test_units_one_power_of_two_apart_are_merged_to_the_bit(kind: str, scale: float) -> None:
    a, b, c, d = choose(10, 4)
    hidden = healthy(kind, 10)
    if kind == "recurrent":
        hidden = replace(hidden, v0=np.zeros(UNITS))  # a state that is carried scales when it starts at zero
    planted = hidden.twin(a, b, scale).twin(c, d, scale)
    expected = planted
    for group in (sorted([a, b]), sorted([c, d])):
        expected = _sum_columns(expected, *group)
    model = build(kind, planted)
    ran = run_pass("redundancy-elimination", model)
    if kind == "residual":
        assert ran.outcome.changes == 0  # units of two populations: rescaling is not tried
    else:
        assert_same_population(read(kind, ran.after), expected.without([max(a, b), max(c, d)]))
        assert ran.outcome.details == {"scaled": 2}
    assert_same_bits(model, ran.after)


@pytest.mark.parametrize("kind", ["gemm", "conv", "recurrent", "cuba", "matmul"])
@pytest.mark.parametrize("scale", [3.0, 0.1])
def test_units_one_factor_apart_are_merged(kind: str, scale: float) -> None:
    a, b = choose(11, 2)
    hidden = healthy(kind, 11)
    if kind == "recurrent":
        hidden = replace(hidden, v0=np.zeros(UNITS))
    planted = hidden.twin(a, b, scale)
    planted = replace(planted, **{n: getattr(planted, n).astype(np.float32) for n in ("weight", "bias", "threshold")})
    ran = run_pass("redundancy-elimination", build(kind, planted))
    assert ran.outcome.details == {"scaled": 1}
    assert read(kind, ran.after).units == UNITS - 1


def test_a_negative_factor_is_no_duplicate() -> None:
    hidden = healthy("gemm", 11)
    planted = hidden.with_rows(1, weight=-hidden.weight[0], bias=-hidden.bias[0], threshold=hidden.threshold[0])
    assert run_pass("redundancy-elimination", build("gemm", planted)).outcome.changes == 0


@kinds
@pytest.mark.parametrize("name", ["bias", "threshold", "v0", "beta", "v_reset", "weight"])
def test_units_that_differ_in_one_number_are_no_duplicates(kind: str, name: str) -> None:
    first, second = choose(12, 2)
    planted = healthy(kind, 12).twin(first, second)
    changed = np.array(getattr(planted, name))
    where = (second, 0) if name == "weight" else second
    changed[where] = changed[where] + 0.125 if name != "beta" else 0.125
    planted = replace(planted, **{name: changed})
    variant = NeuronVariant("LIF", reset="to-value")
    assert run_pass("redundancy-elimination", build(kind, planted, variant=variant)).outcome.changes == 0


@kinds
def test_rows_ten_times_as_long_with_the_same_threshold_are_no_duplicates(kind: str) -> None:
    first, second = choose(13, 2)
    hidden = healthy(kind, 13)
    planted = hidden.twin(first, second).with_rows(
        second, weight=10 * hidden.weight[first], bias=10 * hidden.bias[first]
    )
    for similarity in (1.0, 0.99):
        ran = run_pass("redundancy-elimination", build(kind, planted), correlation_threshold=similarity)
        assert ran.outcome.changes == 0


# -- no effect ---------------------------------------------------------------------------------


@kinds
@lengths
def test_units_that_nobody_weighs_are_removed(kind: str, steps: int | None) -> None:
    idle = choose(14, 3)
    planted = healthy(kind, 14).with_rows(idle, out=0.0)
    if planted.back is not None:
        back = np.array(planted.back)
        back[:, idle] = 0
        planted = replace(planted, back=back)
    check("redundant-connection-removal", kind, planted, planted.without(idle), steps)


@pytest.mark.parametrize("kind", FEEDBACK)
def test_units_that_only_feed_each_other_are_removed(kind: str) -> None:
    idle = choose(15, 3)
    planted = healthy(kind, 15).with_rows(idle, out=0.0)
    others = np.setdiff1d(np.arange(UNITS), idle)
    back = np.array(planted.back)
    back[np.ix_(others, idle)] = 0
    back[np.ix_(idle, idle)] = 1.25
    planted = replace(planted, back=back)
    check("redundant-connection-removal", kind, planted, planted.without(idle), None)


@pytest.mark.parametrize("kind", FEEDBACK)
def test_a_unit_whose_way_to_the_output_is_long_stays(kind: str) -> None:
    """Read by one unit only, which is read by one unit only, which is read by an output."""
    a, b, c = choose(16, 3)
    planted = healthy(kind, 16).with_rows([a, b], out=0.0)
    back = np.array(planted.back)
    back[:, [a, b]] = 0
    back[b, a], back[c, b] = 0.25, 0.25
    planted = replace(planted, back=back)
    assert run_pass("redundant-connection-removal", build(kind, planted)).outcome.changes == 0


@kinds
def test_one_weight_in_one_place_keeps_a_unit(kind: str) -> None:
    unit = choose(17, 1)[0]
    planted = healthy(kind, 17).with_rows(unit, out=0.0)
    if planted.back is not None:
        back = np.array(planted.back)
        back[:, unit] = 0
        planted = replace(planted, back=back)
    out = np.array(planted.out)
    out[-1, unit, -1] = 0.25
    assert run_pass("redundant-connection-removal", build(kind, replace(planted, out=out))).outcome.changes == 0


# -- what is not dead --------------------------------------------------------------------------


@kinds
def test_an_empty_row_that_its_bias_lifts_stays(kind: str) -> None:
    """Nothing comes in, yet it fires: at the second step and then now and then."""
    unit = choose(18, 1)[0]
    planted = healthy(kind, 18).with_rows(unit, weight=0.0, bias=0.75, threshold=1.0, beta=0.5, v0=0.0)
    if planted.back is not None:
        planted = planted.with_rows(unit, back=0.0)
    for name in ("dead-neuron-elimination", "constant-neuron-folding"):
        model = build(kind, planted)
        ran = run_pass(name, model)
        assert ran.outcome.changes == 0
        assert_same_bits(model, ran.after)


@kinds
@pytest.mark.parametrize(("steps", "gone"), [(2, True), (3, False), (None, False)])
def test_a_unit_is_dead_as_long_as_the_train_is_short(kind: str, steps: int | None, *, gone: bool) -> None:
    """After two steps the membrane is at 0.75 b, after three at 0.875 b; b = 0.625 meets 0.5 in the third."""
    unit = choose(19, 1)[0]
    slow = {"beta": 0.5, "threshold": 1.0} if kind == "cuba" else {"beta": 0.5, "threshold": 0.5}
    planted = healthy(kind, 19).with_rows(unit, weight=0.0, bias=0.625 / 2, v0=0.0, **slow)
    if planted.back is not None:
        planted = planted.with_rows(unit, back=0.0)
    if kind == "cuba":  # the current itself builds up: 1, 1.5, 1.75, and the membrane over it
        planted = planted.with_rows(unit, bias=0.45)
    model = build(kind, planted, steps=steps)
    ran = run_pass("dead-neuron-elimination", model)
    assert ran.outcome.changes == int(gone)
    assert_same_bits(model, ran.after)


@kinds
def test_a_unit_that_starts_above_its_threshold_stays(kind: str) -> None:
    unit = choose(20, 1)[0]
    planted = healthy(kind, 20).with_rows(unit, bias=-4.0, weight=0.0, v0=32.0)
    model = build(kind, planted)
    assert run_pass("dead-neuron-elimination", model).outcome.changes == 0


def test_a_dead_branch_beside_a_living_one_stays() -> None:
    hidden = healthy("residual", 21)
    model = build("residual", hidden)
    for tensor in model.graph.initializer:
        if tensor.name == "second.bias":
            values = np.array(hidden.bias, np.float32)
            values[2] = -64
            tensor.raw_data = values.tobytes()
    assert run_pass("dead-neuron-elimination", model).outcome.changes == 0


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_channel_that_is_dead_in_some_places_only_stays(kind: str) -> None:
    """One start of the map lies above the threshold, the rest of the channel cannot fire."""
    planted = healthy(kind, 22).with_rows(3, bias=-64.0)
    model = build(kind, planted)
    starts = np.zeros((UNITS, 3, 3), np.float32)
    starts[3, 1, 2] = 2000
    for tensor in model.graph.initializer:
        if tensor.name == "hidden.v0":
            tensor.dims[:] = starts.shape
            tensor.raw_data = starts.tobytes()
    ran = run_pass("dead-neuron-elimination", model)
    assert ran.outcome.changes == 0
    assert_same_bits(model, ran.after)


@kinds
def test_a_row_with_a_weight_that_is_no_number_is_never_touched(kind: str) -> None:
    unit = choose(23, 1)[0]
    planted = healthy(kind, 23)
    weight = np.array(planted.weight)
    weight[unit, 0] = np.nan
    model = build(kind, replace(planted, weight=weight).with_rows(unit, bias=-64.0))
    for name in ("dead-neuron-elimination", "constant-neuron-folding", "redundancy-elimination"):
        assert run_pass(name, model).outcome.changes == 0


@kinds
def test_rows_that_are_no_numbers_do_not_keep_others_from_merging(kind: str) -> None:
    a, b, c, d = choose(24, 4)
    planted = healthy(kind, 24)
    weight = np.array(planted.weight)
    weight[a, 0] = np.nan
    planted = replace(planted, weight=weight).twin(a, b).twin(c, d)
    model = build(kind, planted)
    ran = run_pass("redundancy-elimination", model)
    assert ran.outcome.changes == 1
    assert read(kind, ran.after).units == UNITS - 1


@kinds
def test_a_dead_unit_that_is_weighed_with_no_number_stays(kind: str) -> None:
    """Zero times infinity is no number: without the unit its reader would wake up."""
    unit = choose(25, 1)[0]
    for value in (np.inf, np.nan):
        planted = healthy(kind, 25).with_rows(unit, bias=-64.0)
        out = np.array(planted.out)
        out[0, unit, 0] = value
        ran = run_pass("dead-neuron-elimination", build(kind, replace(planted, out=out)))
        assert ran.outcome.changes == 0
        assert ran.refused("weight-not-finite")
