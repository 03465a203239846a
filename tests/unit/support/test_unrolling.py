"""Whatever the habits of the exporter, the model computes what plain numpy computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import unrolling
from tests.support.unrolling import Habits, Layer, Network, Neuron, binary_trains, damage, simulate, unroll
from tests.support.unrolling import network as network_module
from tests.support.unrolling.habits import CHOICES, OUTPUTS, SWITCHES

STEPS, BATCH = 6, 3
NEURONS = {
    name: value for name, value in vars(network_module).items() if isinstance(value, Neuron) and name != "READOUT"
}
ANY = settings(max_examples=100)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def expected(network: Network, sequence: np.ndarray, axis: int) -> dict[str, np.ndarray]:
    """All outputs an export may have, from an input [T, B, ...]."""
    traces = simulate(network, sequence)
    output = traces[-1].output
    found = {
        "stack": np.moveaxis(output, 0, axis),
        "membranes": np.moveaxis(traces[-1].membranes, 0, axis),
        "concat": np.concatenate(list(output), axis=1),
        "last": output[-1],
    }
    for kinds, value in (
        (("sum", "sum-reduce"), output.sum(axis=0)),
        (("mean", "mean-reduce"), output.mean(axis=0)),
        (("max", "max-reduce"), output.max(axis=0)),
    ):
        found |= dict.fromkeys(kinds, value)
    for index, trace in enumerate(traces, start=1):
        found |= {f"membrane{index}": trace.membranes[-1], f"current{index}": trace.currents[-1]}
    return found


def agree(network: Network, habits: Habits, steps: int = STEPS) -> dict[str, np.ndarray]:
    """Run an export and compare all of its outputs with the simulation."""
    model = unroll(network, steps, habits)
    feeds = binary_trains(model, steps, habits.batch or BATCH, seed=network.seed)
    given_input = feeds["x"]
    if habits.slicing == "static":
        sequence = np.stack([given_input] * steps)
    else:
        sequence = np.moveaxis(given_input, habits.time_axis, 0)
    found = run(model, feeds)
    wanted = expected(network, sequence, habits.time_axis)
    exact = network.layers[-1].neuron.output != "membrane"
    for name, value in found.items():
        assert value.shape == wanted[name].shape, name
        if exact and name in {"stack", "concat", "sum", "sum-reduce", "max", "max-reduce", "last"}:
            np.testing.assert_array_equal(value, wanted[name], err_msg=name)
        else:
            np.testing.assert_allclose(value, wanted[name], rtol=1e-5, atol=1e-5, err_msg=name)
    return found


def dense(neuron: Neuron, **options) -> Network:
    """Three layers with all kinds of dense synapses."""
    residual = None if neuron.output == "membrane" else 1
    first = Layer(5, "gemm", neuron, **options)
    return Network((first, Layer(4, "matmul-add", neuron), Layer(4, "gemm-plain", neuron, residual=residual)), seed=5)


FRAMES = Network(
    (
        Layer(3, "conv", network_module.SPIKINGJELLY_IF, normalise=True, pool="average"),
        Layer(3, "conv-plain", network_module.SNNTORCH_LEAKY, pool="max"),
        Layer(4, "matmul", network_module.SNNTORCH_LEAKY),
        Layer(3, "gemm", network_module.READOUT),
    ),
    features=(2, 4, 4),
)


@pytest.mark.parametrize("recurrent", [None, "bias", "plain"])
@pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS)
def test_each_neuron_is_simulated_and_written_alike(neuron: Neuron, recurrent: str | None) -> None:
    if neuron.output == "membrane":
        recurrent = None
    agree(dense(neuron, recurrent=recurrent), Habits(outputs=("stack", "membranes", "finals")))


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in CHOICES for value in CHOICES[name]])
@pytest.mark.parametrize(
    "network", [dense(network_module.SNNTORCH_LEAKY, recurrent="bias"), FRAMES], ids=["mlp", "cnn"]
)
def test_each_habit_alone(network: Network, name: str, value) -> None:
    batch = BATCH if name == "initial" else None
    agree(network, Habits(**{name: value}, batch=batch, outputs=OUTPUTS))


@pytest.mark.parametrize("name", SWITCHES)
def test_each_switch_alone(name: str) -> None:
    for neuron in NEURONS.values():
        agree(dense(neuron), Habits(**{name: True}, outputs=("sum", "stack", "finals")))


@given(unrolling.networks(), unrolling.habits(), st.integers(1, 7))
@ANY
def test_any_network_with_any_habits(network: Network, habits: Habits, steps: int) -> None:
    agree(network, habits, steps)


@given(unrolling.networks(grid="normal"), unrolling.habits())
@settings(ANY, max_examples=40)
def test_networks_of_arbitrary_weights(network: Network, habits: Habits) -> None:
    agree(network, habits)


@given(unrolling.networks(), unrolling.habits(slicing="gather", outputs=("stack", "finals")))
@settings(ANY, max_examples=60)
def test_a_step_and_a_scan_are_the_same_network(network: Network, habits: Habits) -> None:
    batch = habits.batch or BATCH
    scan = unrolling.scan_model(network, habits)
    feeds = binary_trains(scan, STEPS, batch)
    sequence = np.moveaxis(feeds["x"], habits.time_axis, 0)
    wanted = expected(network, sequence, habits.time_axis)
    found = run(scan, feeds)
    np.testing.assert_allclose(found["stack"], wanted["stack"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["membrane1_final"], wanted["membrane1"], rtol=1e-5, atol=1e-5)
    model = unrolling.step_model(network, habits)
    feeds = binary_trains(model, STEPS, batch)
    outputs = []
    for frame in sequence:
        found = run(model, feeds | {"x": frame})
        outputs.append(found.pop("output_step"))
        feeds = {name.removesuffix("_next"): value for name, value in found.items()}
    np.testing.assert_allclose(
        np.stack(outputs), np.moveaxis(wanted["stack"], habits.time_axis, 0), rtol=1e-5, atol=1e-5
    )


def test_networks_fire() -> None:
    rates = []

    @given(unrolling.networks())
    @settings(ANY, max_examples=100)
    def collect(network: Network) -> None:
        for layer, trace in zip(
            network.layers, simulate(network, binary_trains(network.features, 8, 8, seed=1)["x"]), strict=True
        ):
            if layer.neuron.output != "membrane":
                rates.append(np.count_nonzero(trace.spikes) / trace.spikes.size)

    collect()
    inside = [0.05 <= rate <= 0.5 for rate in rates]
    assert np.mean(inside) > 0.98, sorted(rates)
    assert min(rates) > 0.01


def test_names_and_aliases_follow_the_habits() -> None:
    network = dense(network_module.SNNTORCH_LEAKY)
    counted = {
        style: len(unroll(network, STEPS, Habits(weights=style)).graph.initializer) for style in CHOICES["weights"]
    }
    assert counted["shared"] == counted["identity"] < counted["copies"]
    merged = unroll(network, STEPS, Habits(merge_constants=True)).graph
    assert len(merged.initializer) < counted["shared"]
    assert not any(node.name for node in unroll(network, STEPS, Habits(names="none")).graph.node)
    folded = unroll(network, STEPS, Habits(initial="folded")).graph
    assert len(folded.node) < len(unroll(network, STEPS, Habits()).graph.node)


@given(unrolling.networks(), unrolling.habits(), st.integers(2, 5))
@settings(ANY, max_examples=60)
def test_nothing_is_written_that_is_not_read(network: Network, habits: Habits, steps: int) -> None:
    graph = unroll(network, steps, habits).graph
    read = {name for node in graph.node for name in node.input} | {each.name for each in graph.output}
    assert {each.name for each in graph.initializer} <= read
    results = [name for node in graph.node for name in node.output]
    assert len(set(results)) == len(results)


@pytest.mark.parametrize("kind", unrolling.KINDS)
@pytest.mark.parametrize("slicing", ["gather", "slice", "split"])
def test_damage_is_seen(kind: str, slicing: str) -> None:
    network = dense(network_module.SNNTORCH_LEAKY, recurrent="bias")
    model = unroll(network, STEPS, Habits(slicing=slicing, outputs=("stack", "membranes")))
    feeds = binary_trains(model, STEPS, 16)
    plain, seen, steps = run(model, feeds), 0, set()
    for seed in range(20):
        damaged, step = damage(model, np.random.default_rng(seed), kind)
        steps.add(step)
        found = run(damaged, feeds)
        different = [np.abs(found[name] - plain[name]).max(axis=(1, 2)) > 0 for name in found]
        seen += bool(np.any(different))
        assert not np.any(np.array(different)[:, :step]), "a step before was changed"
    assert seen >= 15
    assert len(steps) > 2


@given(unrolling.networks(), unrolling.habits(), st.sampled_from(unrolling.KINDS), st.integers(0, 9))
@settings(ANY, max_examples=80)
def test_a_damaged_model_is_a_model(network: Network, habits: Habits, kind: str, seed: int) -> None:
    model = unroll(network, 4, habits)
    before = model.SerializeToString()
    try:
        damaged, step = damage(model, np.random.default_rng(seed), kind)
    except unrolling.UndamagedError:
        return
    assert model.SerializeToString() == before != damaged.SerializeToString()
    assert 0 <= step < 4
    run(damaged, binary_trains(damaged, 4, habits.batch or BATCH))


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="habit"):
        Habits(slicing="never")
    with pytest.raises(ValueError, match="batch"):
        Habits(initial="constant")
    with pytest.raises(ValueError, match="readout"):
        replace(network_module.READOUT, reset="zero")
    with pytest.raises(unrolling.UndamagedError):
        damage(unroll(dense(NEURONS["SNNTORCH_LEAKY"]), 3, Habits(slicing="static")), np.random.default_rng(), "input")
