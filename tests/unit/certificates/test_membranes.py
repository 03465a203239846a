"""Bounds of the checker: never below what runs in float32 do, and equal to the analysis where that is exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_optimizer.certificates.facts import Facts
from snn_optimizer.certificates.intervals import Ends, linear, outward, product
from snn_optimizer.certificates.network import Network
from snn_optimizer.execution import Session
from snn_optimizer.execution.observe import Observer
from snn_optimizer.ops import NeuronVariant
from tests.support.models import ModelBuilder, spike_trains

VARIANTS = [
    NeuronVariant("LIF"),
    NeuronVariant("LIF", fire="ge", reset="to-value"),
    NeuronVariant("LIF", reset="none"),
    NeuronVariant("LIF", reset_delay=1),
    NeuronVariant("LIF", reset="to-value", reset_delay=1, fire="ge"),
    NeuronVariant("LIF", arithmetic="relax"),
    NeuronVariant("LIF", max_spikes=3),
    NeuronVariant("IF"),
    NeuronVariant("CubaLIF"),
    NeuronVariant(
        "CubaLIF", reset="subtract", reset_delay=1,
        arithmetic="i_next = (alpha * i) + x; v_next = (i_next + (beta * v)) - (v_threshold * gt(v, v_threshold)); "
        "s = gt(v_next, v_threshold)",
    ),
    NeuronVariant(
        "CubaLIF", reset="to-value", fire="ge",
        arithmetic="u = ((alpha * i) + x) + (beta * v); i_next = (alpha * i) + x; s = ge(u, v_threshold); "
        "v_next = u * (1.0 - s)",
    ),
    NeuronVariant(
        "LIF", reset="to-value", fire="ge",
        arithmetic="u = ((x - v) * gain) + v; s = ge(u, v_threshold); v_next = u * (1.0 - s)",
    ),
]  # fmt: skip


def random_network(variant: NeuronVariant, seed: int, steps: int | str) -> ModelBuilder:
    """Two populations with parameters per neuron, biases of both signs, thresholds of both signs."""
    generator = np.random.default_rng(seed)
    builder = ModelBuilder(seed)
    value, inputs = builder.input("x", (steps, "batch", 5)), 5
    for index, units in enumerate((9, 6), 1):
        weight = (generator.normal(size=(units, inputs)) * generator.choice([0.3, 1.0])).astype(np.float32)
        bias = (generator.normal(size=units) * generator.choice([0.2, 1.5])).astype(np.float32)
        rows = builder.reshape(value, f"fc{index}.rows", (-1, inputs))
        current = builder.linear(f"fc{index}", rows, weight, bias)
        lead = builder.node("Shape", [value], f"lead{index}", start=0, end=2)
        shape = builder.node("Concat", [lead, builder.constant(f"n{index}", [units], np.int64)], f"s{index}", axis=0)
        current = builder.node("Reshape", [current, shape], f"c{index}")
        parameters = {
            "beta": generator.uniform(0, 1, units), "alpha": generator.uniform(0, 0.9, units),
            "gain": generator.uniform(0.1, 1.2, units), "v_threshold": generator.uniform(-0.2, 1.5, units),
            "v_reset": generator.uniform(-0.5, 0.5, units),
        }  # fmt: skip
        used = {name: value for name, value in parameters.items() if name in variant.inputs}
        value, inputs = builder.neuron(f"n{index}", variant, current, **used)[0], units
    builder.output(value, (steps, "batch", 6))
    return builder


@pytest.mark.parametrize("steps", [1, 4, "T"])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.op_type)
def test_what_is_judged_never_fails_in_a_run(variant: NeuronVariant, steps: int | str) -> None:
    never = always = 0
    for seed in range(25):
        model = random_network(variant, seed, steps).build()
        network = Network.read(model)
        facts = Facts(network, {"x": Ends.of(0, 1)}, {})
        judged = {name: facts.judge(made) for name, made in network.populations().items()}
        length = 12 if steps == "T" else int(steps)
        for rate in (0.0, 0.2, 0.5, 1.0):
            for found in Observer(model).observe({"x": spike_trains(length, 40, 5, rate=rate, seed=seed)}):
                spikes, potential, said = found.spikes, found.potential.astype(np.float64), judged[found.population]
                assert not spikes[..., said.never].any()
                assert (spikes[..., said.always] >= 1).all()
                quiet = np.cumsum(spikes, axis=0) - spikes == 0  # no spike before this step
                if variant.reset_delay:  # nor one that was due when the run began
                    quiet &= said.threshold > 0
                assert (potential <= said.highest)[quiet].all()
        never += sum(int(each.never.sum()) for each in judged.values())
        always += sum(int(each.always.sum()) for each in judged.values())
    assert never
    assert always or variant.max_spikes != 1 or variant.arithmetic == "relax" or variant.written


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_linear_bounds_hold_for_every_order_of_summation(data: st.DataObject) -> None:
    columns = data.draw(st.integers(1, 30))
    numbers = st.floats(-1e6, 1e6, width=32)
    weights = np.asarray(data.draw(st.lists(numbers, min_size=columns, max_size=columns)), np.float32).reshape(1, -1)
    bias = np.asarray([data.draw(numbers)], np.float32)
    inputs = np.asarray(data.draw(st.lists(st.floats(0, 1, width=32), min_size=columns, max_size=columns)), np.float32)
    order = data.draw(st.permutations(range(columns)))
    total = np.float32(0)
    for index in order:
        total = np.float32(total + np.float32(weights[0, index] * inputs[index]))
    total = np.float32(total + bias[0])
    found = linear(weights, bias, np.abs(bias.astype(np.float64)), Ends(inputs.astype(float), inputs.astype(float)))
    assert found.low[0] <= total <= found.high[0]


def test_bounds_are_open_where_numbers_are_not() -> None:
    weights = np.asarray([[1.0, np.inf], [1.0, np.nan], [0.0, 1.0]], np.float32)
    found = linear(weights, np.zeros(3, np.float32), np.zeros(3), Ends.of(0, 1))
    assert np.isinf(found.high[:2]).all()
    assert found.high[2] == pytest.approx(1, abs=1e-5)
    found = linear(
        np.eye(2, dtype=np.float32), np.zeros(2, np.float32), np.zeros(2), Ends(np.zeros(2), np.array([1, np.inf]))
    )
    assert np.isfinite(found.high[0])
    assert np.isinf(found.high[1])
    zero_times_all = product(Ends.of(0, 0), Ends.unknown())
    assert zero_times_all.low[0] == zero_times_all.high[0] == 0


def test_rounding_is_outward() -> None:
    low, high = outward(np.array([0.1, 1.0]), np.array([0.1, 1.0]))
    assert low[0] < 0.1 < high[0]
    assert low[1] == high[1] == 1
    assert low.astype(np.float32).astype(np.float64)[0] == low[0]


def test_first_layers_are_bounded_exactly() -> None:
    """With free inputs and no reset before the first spike the bound is met, but for the room for rounding."""
    builder = ModelBuilder(0)
    builder.input("x", (3, "batch", 4))
    weight = np.asarray([[0.5, -1, 0.25, 0]], np.float32)
    rows = builder.reshape("x", "rows", (-1, 4))
    current = builder.reshape(builder.linear("fc", rows, weight, np.asarray([-0.25], np.float32)), "c", (3, -1, 1))
    spikes = builder.neuron("n", NeuronVariant("LIF"), current, beta=0.5, v_threshold=100.0)[0]
    builder.output(spikes, (3, "batch", 1))
    model = builder.build()
    facts = Facts(Network.read(model), {"x": Ends.of(0, 1)}, {})
    judged = facts.judge(facts.network.populations()["n"])
    assert judged.never.all()
    best = np.asarray([1, 0, 1, 0], np.float32) * np.ones((3, 1, 4), np.float32)
    (found,) = Observer(model).observe({"x": best})
    assert judged.highest[0] == pytest.approx(float(found.potential.max()), abs=1e-5)
    assert judged.highest[0] > found.potential.max()
    assert Session(model).run({"x": best})[spikes].sum() == 0
