from __future__ import annotations

import itertools

import numpy as np
import pytest

from snn_optimizer.ops import NeuronVariant, membrane, sequence, step


def arrays(*values: object, dtype: type = np.float32) -> list[np.ndarray]:
    return [np.asarray(value, dtype) for value in values]


def train(*currents: float) -> np.ndarray:
    return np.array(currents, np.float32).reshape(-1, 1, 1)


# Dyadic numbers: exact in every order of operations, so the expectations are arithmetic on paper.
# The decay and, for relax, the part of the way to the current are a half; the threshold is one.
@pytest.mark.parametrize(
    ("fields", "spikes", "potentials"),
    [
        ({}, [0, 1, 0, 0], [0.75, 1.125, 0.5625, 0.28125]),
        ({"reset": "to-value"}, [0, 1, 0, 0], [0.75, 1.125, 0.375, 0.1875]),
        ({"reset": "none"}, [0, 1, 1, 0], [0.75, 1.125, 1.0625, 0.53125]),
        ({"reset_delay": 1}, [0, 1, 0, 0], [0.75, 1.125, 0.0625, 0.03125]),
        ({"reset": "to-value", "reset_delay": 1}, [0, 1, 0, 0], [0.75, 1.125, 0.625, 0.3125]),
        ({"arithmetic": "relax", "reset": "none"}, [0, 0, 0, 0], [0.375, 0.5625, 0.53125, 0.265625]),
    ],
)
def test_four_steps_on_paper(fields: dict, spikes: list[float], potentials: list[float]) -> None:
    relax = fields.get("arithmetic") == "relax"
    variant = NeuronVariant("LIF", **fields)
    reset_value = 0.25 if variant.reset_delay else -0.25
    inputs = [train(0.75, 0.75, 0.5, 0.0), *arrays(0, 0.5, 0.5 if relax else 1, 1, reset_value)]
    emitted, _ = sequence(variant, inputs)
    assert emitted.ravel().tolist() == spikes
    assert membrane(variant, inputs).ravel().tolist() == potentials


def test_a_delayed_reset_is_due_from_the_initial_state() -> None:
    inputs = [train(0, 0), *arrays(3, 0.5, 1, 1, 0)]
    subtracted = membrane(NeuronVariant("LIF", reset_delay=1), inputs)
    assert subtracted.ravel().tolist() == [0.5, 0.25]
    replaced = membrane(NeuronVariant("LIF", reset="to-value", reset_delay=1), inputs)
    assert replaced.ravel().tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("fire", "limit", "expected"),
    [
        ("gt", 1, [0, 0, 0, 1, 1, 1, 0]),
        ("ge", 1, [0, 0, 1, 1, 1, 1, 0]),
        ("gt", 2, [0, 0, 0, 1, 1, 2, 0]),
        ("ge", 2, [0, 0, 1, 1, 2, 2, 0]),
        ("gt", 0, [0, 0, 0, 1, 1, 4, 0]),
        ("ge", 0, [0, 0, 1, 1, 2, 5, 0]),
    ],
)
def test_number_of_spikes(fire: str, limit: int, expected: list[float]) -> None:
    potentials = np.array([[-7, 0.25, 0.5, 0.75, 1.0, 2.5, np.nan]], np.float32)
    variant = NeuronVariant("IF", "cell", fire=fire, max_spikes=limit)
    spikes, after = step(variant, [potentials, *arrays(0, 1, 0.5, 0)])
    assert spikes.tolist() == [expected]
    np.testing.assert_array_equal(after, potentials - 0.5 * spikes)


def test_integrators() -> None:
    inputs = [train(1, 2, 3), *arrays(0.5, 1, 10, 0)]
    spikes, final = sequence(NeuronVariant("IF"), inputs)
    assert spikes.ravel().tolist() == [0, 0, 0]
    assert final.ravel().tolist() == [6.5]
    values, final = sequence(NeuronVariant("LI"), [train(1, 2), *arrays(2, 0.5, 3)])
    assert values.ravel().tolist() == [4, 8]
    assert final.ravel().tolist() == [8]
    value, after = step(NeuronVariant("LI", "cell"), [train(1)[0], *arrays(2, 0.5, 3)])
    assert (value.item(), after.item()) == (4, 4)


def test_second_order() -> None:
    inputs = [train(1, 0, 0), *arrays(0.5, 0, 0.5, 0.5, 2, 3, 0)]
    spikes, current, potential = sequence(NeuronVariant("CubaLIF"), inputs)
    assert membrane(NeuronVariant("CubaLIF"), inputs).ravel().tolist() == [2.5, 2.5, 1.875]
    assert spikes.ravel().tolist() == [0, 0, 0]
    assert current.item() == 0.3125
    assert potential.item() == 1.875


def test_where_an_infinite_potential_resets() -> None:
    inputs = [np.full((1, 1), np.inf, np.float32), *arrays(0, 0.5, 1, 1, 0.25)]
    spikes, after = step(NeuronVariant("LIF", "cell", "to-value"), inputs)
    assert (spikes.item(), after.item()) == (1, 0.25)


@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("limit", [1, 4, 0])
@pytest.mark.parametrize("threshold", [np.inf, np.nan])
def test_a_neuron_that_cannot_fire_keeps_its_potential(delay: int, limit: int, threshold: float) -> None:
    variant = NeuronVariant("LIF", reset_delay=delay, max_spikes=limit)
    spikes, final = sequence(variant, [train(1, 1), *arrays(0, 0.5, 1, threshold, 0)])
    assert spikes.ravel().tolist() == [0, 0]
    assert final.item() == 1.5


def test_a_negative_zero_reset_value_counts_as_zero() -> None:
    variant = NeuronVariant("LIF", "cell", "to-value")
    _, after = step(variant, [train(2)[0], *arrays(0, 0.5, 1, 1, -0.0)])
    assert not np.signbit(after.item())


ALL = [
    NeuronVariant(operator, "sequence", reset, delay, fire, limit, arithmetic)
    for operator, reset, delay, fire, limit, arithmetic in itertools.product(
        ("LIF", "IF", "CubaLIF"),
        ("subtract", "to-value", "none"),
        (0, 1),
        ("gt", "ge"),
        (1, 4, 0),
        ("decay", "relax"),
    )
    if not (operator == "IF" and arithmetic == "relax")
] + [NeuronVariant("LI"), NeuronVariant("LI", arithmetic="relax")]


def random_inputs(variant: NeuronVariant, steps: int = 6) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    ranges = {"beta": (0.5, 1), "alpha": (0.5, 1), "gain": (0.5, 2), "v_threshold": (0.25, 0.75)}
    signal = rng.normal(0.5, 1, (steps, 2, 3))
    others = [rng.uniform(*ranges.get(name, (-0.5, 0.5)), 3) for name in variant.inputs[1:]]
    return [array.astype(np.float32) for array in (signal, *others)]


@pytest.mark.parametrize("variant", ALL, ids=lambda variant: variant.op_type)
def test_membrane_sequence_and_step_agree(variant: NeuronVariant) -> None:
    inputs = random_inputs(variant)
    emitted, *final = sequence(variant, inputs)
    potentials = membrane(variant, inputs)
    assert potentials.dtype == emitted.dtype == np.float32

    threshold = inputs[-2]
    if not variant.spiking:
        np.testing.assert_array_equal(emitted, potentials)
    elif variant.max_spikes == 1:
        compare = np.greater if variant.fire == "gt" else np.greater_equal
        np.testing.assert_array_equal(emitted, compare(potentials, threshold).astype(np.float32))
    else:
        ratio = potentials / threshold
        count = np.ceil(ratio) - 1 if variant.fire == "gt" else np.floor(ratio)
        np.testing.assert_array_equal(emitted, np.clip(count, 0, variant.max_spikes or None))
    assert len(np.unique(emitted)) > 1

    states = [np.broadcast_to(inputs[before], (2, 3)) for before, _ in variant.states]
    for current, output in zip(inputs[0], emitted, strict=True):
        result, *states = step(variant.as_form("cell"), [current, *states, *inputs[1 + len(states) :]])
        np.testing.assert_array_equal(result, output)
    for state, last in zip(states, final, strict=True):
        np.testing.assert_array_equal(state, last)


@pytest.mark.parametrize("variant", ALL[::7], ids=lambda variant: variant.op_type)
def test_no_steps(variant: NeuronVariant) -> None:
    inputs = random_inputs(variant, steps=0)
    emitted, *final = sequence(variant, inputs)
    assert emitted.shape == membrane(variant, inputs).shape == (0, 2, 3)
    for (before, _), state in zip(variant.states, final, strict=True):
        np.testing.assert_array_equal(state, np.broadcast_to(inputs[before], (2, 3)))
        assert state.flags.owndata
        assert state.flags.writeable


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_type_of_the_signal_is_kept(dtype: type) -> None:
    inputs = [array.astype(dtype) for array in random_inputs(NeuronVariant("CubaLIF"))]
    for result in (*sequence(NeuronVariant("CubaLIF"), inputs), membrane(NeuronVariant("CubaLIF"), inputs)):
        assert result.dtype == dtype


def test_inputs_are_not_written() -> None:
    variant = NeuronVariant("CubaLIF", reset="to-value", reset_delay=1)
    inputs = random_inputs(variant)
    before = [array.copy() for array in inputs]
    sequence(variant, inputs)
    for array, copy in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, np.zeros((2, 3), np.int64), "X must be a floating array of shape .*, not int64"),
        (0, np.zeros(2, np.float32), r"X must be a floating array .* shape \(2,\)"),
        (1, np.zeros((2, 4, 3), np.float32), r"v0 of shape \(2, 4, 3\) does not broadcast into \(4, 3\)"),
        (1, np.zeros(4, np.float32), r"v0 of shape \(4,\) does not broadcast into \(4, 3\)"),
        (2, np.zeros((4, 3), np.float32), r"beta of shape \(4, 3\) does not broadcast into \(3,\)"),
        (3, np.zeros(2, np.float32), r"gain of shape \(2,\) does not broadcast into \(3,\)"),
        (4, np.zeros(3, np.float64), "v_threshold is float64, X is float32"),
    ],
)
def test_bad_inputs(position: int, value: np.ndarray, message: str) -> None:
    inputs = [np.zeros((2, 4, 3), np.float32), *arrays(0, 0.5, 1, 1, 0)]
    inputs[position] = value
    with pytest.raises(ValueError, match=message):
        sequence(NeuronVariant("LIF"), inputs)


def test_missing_inputs() -> None:
    with pytest.raises(ValueError, match=r"LIFCell__subtract_gt has 6 inputs \(x, v, beta, .*\), 2 given"):
        step(NeuronVariant("LIF"), arrays([[0]], 0))


def test_neurons_of_rank_zero() -> None:
    inputs = [np.ones((2, 3), np.float32), *arrays([0], 0.5, [1], 1, 0)]
    spikes, final = sequence(NeuronVariant("LIF"), inputs)
    assert spikes.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert final.tolist() == [0.5, 0.5, 0.5]
