"""Neurons of ``ai.snn`` as NIR nodes: exact inverses, and losses that must be named."""

from __future__ import annotations

import nir
import numpy as np
import pytest

from snn_optimizer import LayerNode, SNNGraph, ops
from snn_optimizer.errors import InputError, UnsupportedModelError
from snn_optimizer.nir import Discretization, export
from snn_optimizer.nir.equations import equation_of
from snn_optimizer.nir.losses import Losses
from snn_optimizer.nir.schemes import NEURONS, steps_of_neuron
from tests.support.nir_networks import DT, chain, neuron, opened

SHAPE = (4,)


def read_back(variant, values, time=None, allowed=()):
    return equation_of(
        variant, values, SHAPE, time or Discretization(DT), Losses(allowed), "neurons 'n'"
    )  # fmt: skip


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("scheme", ["euler", "exponential"])
@pytest.mark.parametrize("kind", NEURONS)
def test_equations_are_found_again_from_the_steps_alone(kind, scheme, plain, tmp_path):
    time = Discretization(DT, scheme)
    node = opened(chain(neuron(kind, SHAPE, 4, plain=plain)), tmp_path, time).file.nodes[kind.lower()]
    steps = steps_of_neuron(node, time)
    found = read_back(steps.variant, steps.parameters, time)
    assert found.kind == kind
    for name, values in found.parameters.items():
        np.testing.assert_allclose(values, node.values[name], rtol=1e-4, atol=1e-6)
    again = steps_of_neuron(
        type(node)(node.name, node.kind, found.parameters, node.shape), time
    )  # fmt: skip
    for name, values in again.parameters.items():  # what is one is left out, and comes back as nearly one
        np.testing.assert_allclose(
            values, steps.parameters.get(name, 1.0 if name in ("r", "w_in") else 0.0), rtol=1e-6, atol=1e-6
        )


LOSSY = [
    ("soft-reset", {"reset": "subtract"}),
    ("no-reset", {"reset": "none"}),
    ("fire-at-threshold", {"reset": "to-value", "fire": "ge"}),
    ("multi-spike", {"reset": "to-value", "max_spikes": 3}),
]
LIF = {"beta": 0.9, "gain": 0.1, "v_threshold": 1.0, "v_reset": 0.0}


@pytest.mark.parametrize(("name", "fields"), LOSSY, ids=[name for name, _ in LOSSY])
def test_a_loss_is_refused_unless_it_is_named(name, fields):
    variant = ops.NeuronVariant("LIF", "cell", **fields)
    with pytest.raises(
        UnsupportedModelError, match=rf"neurons 'n' cannot be written to NIR: .*\(--allow-loss {name}\)"
    ):
        read_back(variant, LIF)
    others = [other for other, _ in LOSSY if other != name]
    with pytest.raises(UnsupportedModelError, match=name):
        read_back(variant, LIF, allowed=others)
    losses = Losses([name])
    found = equation_of(variant, LIF, SHAPE, Discretization(DT), losses, "n")
    assert found.kind == "LIF"
    assert len(losses.taken) == 1
    assert losses.taken[0].startswith(f"{name}: n: ")


def test_a_delayed_reset_is_a_loss_where_it_changes_spikes():
    late = {"reset_delay": 1}
    with pytest.raises(UnsupportedModelError, match="--allow-loss reset-delay"):
        read_back(ops.NeuronVariant("LIF", "cell", reset="subtract", **late), LIF, allowed=["soft-reset"])
    to_value = ops.NeuronVariant("LIF", "cell", reset="to-value", **late)
    assert read_back(to_value, LIF).kind == "LIF"
    with pytest.raises(UnsupportedModelError, match="--allow-loss reset-delay"):
        read_back(to_value, LIF | {"v_threshold": -0.1})


def test_a_floor_is_a_loss():
    text = "u = (beta * v) + x; s = gt(u, v_threshold); v_next = (1.0 - s) * relu(u)"
    variant = ops.NeuronVariant("LIF", "cell", reset="to-value", arithmetic=text)
    with pytest.raises(UnsupportedModelError, match="potential-floor"):
        read_back(variant, {"beta": 0.9, "v_threshold": 1.0})


def test_unknown_losses_are_refused():
    with pytest.raises(InputError, match="--allow-loss 'hard-reset' is no known loss; known: fire-at-threshold"):
        Losses(["hard-reset"])


def test_snntorch_neurons_have_the_parameters_that_snntorch_writes():
    """Leaky: tau = dt / (1 - beta), r = tau / dt."""
    variant = ops.NeuronVariant("LIF", "cell", reset="to-value")
    found = read_back(variant, {**LIF, "gain": 1.0})
    np.testing.assert_allclose(found.parameters["tau"], DT / 0.1)
    np.testing.assert_allclose(found.parameters["r"], 10.0)


@pytest.mark.parametrize(
    ("operator", "values", "scheme", "message"),
    [
        ("LIF", {"beta": 1.5}, "euler", "no time constant gives its decay of 1.5"),
        ("LIF", {"beta": -0.5}, "exponential", "no time constant gives its decay of -0.5"),
        ("LIF", {"beta": 0.0}, "exponential", "decay of 0 per step; --discretization euler can"),
        ("LIF", {"beta": np.array([0.9, 1.0, 1.0, 0.9])}, "euler", "some of its units leak and some do not"),
        ("CubaLIF", {"alpha": 1.0}, "euler", "no time constant gives its synaptic decay of 1"),
        ("CubaLIF", {"beta": 1.0}, "euler", "a synaptic current and no leak"),
    ],
)
def test_what_no_time_constant_gives_is_refused(operator, values, scheme, message):
    variant = ops.NeuronVariant(operator, "cell", reset="to-value")
    with pytest.raises(UnsupportedModelError, match=message):
        read_back(variant, LIF | {"alpha": 0.5} | values, Discretization(DT, scheme))


def test_a_leak_without_a_step_length_is_refused():
    with pytest.raises(InputError, match="--dt SECONDS"):
        read_back(ops.NeuronVariant("LIF", "cell", reset="to-value"), LIF, Discretization())


def layered(**options):
    rng = np.random.default_rng(0)
    hidden = LayerNode("a/b", 6, 5, rng.normal(0.3, 0.5, (5, 6)).astype(np.float32), bias=rng.normal(size=5), **options)
    readout = LayerNode("out", 5, 2, rng.normal(0, 0.5, (2, 5)).astype(np.float32), "LI", beta=0.8)
    return SNNGraph(layers=[hidden, readout])


def test_a_network_from_elsewhere_becomes_valid_nir():
    made = export(layered(reset="to-value", beta=0.75, gain=0.25), Discretization(DT))
    kinds = {name: node.kind for name, node in made.again.file.nodes.items()}
    assert kinds == {
        "x": "Input", "a_b.synapse": "Affine", "a_b": "LIF", "out.synapse": "Linear", "out": "LI", "membrane": "Output",
    }  # fmt: skip
    assert made.check.largest < 1e-6
    assert made.check.spikes
    assert made.losses == []


def test_losses_are_told():
    made = export(layered(reset="subtract"), Discretization(DT), allowed=["soft-reset"])
    assert [loss.split(":")[0] for loss in made.losses] == ["soft-reset"]
    assert made.check.changed


def test_what_nir_has_no_node_for_is_refused(tmp_path, models):
    from snn_optimizer.raised import raise_model

    with pytest.raises(UnsupportedModelError, match=r"'bn1' \(BatchNormalization\).*fold it first"):
        export(raise_model(models / "digits_conv.onnx").graph, Discretization(DT), allowed=["soft-reset"])


def test_a_bias_behind_a_sum_is_a_node_of_its_own(tmp_path):
    weight = np.eye(3, dtype=np.float32)
    graph = nir.NIRGraph(
        nodes={
            "input": nir.Input(np.array([3])), "a": nir.Linear(weight), "b": nir.Affine(weight * 2, np.ones(3)),
            "lif": nir.IF(np.ones(3), np.ones(3)), "output": nir.Output(np.array([3])),
        },
        edges=[("input", "a"), ("input", "b"), ("a", "lif"), ("b", "lif"), ("lif", "output")],
    )  # fmt: skip
    network = opened(graph, tmp_path)
    from snn_optimizer import optimize

    smaller, _ = optimize(network.graph, level="O2")  # parallel projections become one
    made = export(smaller, network.time, network)
    assert made.check.changed == 0 < made.check.spikes
