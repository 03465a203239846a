"""Neuron nodes against a plain simulation of their equations."""

from __future__ import annotations

import nir
import numpy as np
import pytest

from snn_optimizer.errors import InputError, UnsupportedModelError
from snn_optimizer.nir import Discretization
from tests.support.nir_networks import DT, chain, neuron, opened, run, simulate, trains

KINDS = ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF")


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("scheme", ["euler", "exponential"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_neuron_steps_as_its_equation(kind, scheme, plain, tmp_path):
    node = neuron(kind, (5,), seed=3, plain=plain)
    x = trains((40, 2, 5), 0.7) * 2
    expected, nearest = simulate(node, x, scheme)
    network = opened(chain(node), tmp_path, Discretization(DT, scheme))
    (found,) = run(network, x)
    assert nearest > 1e-5  # otherwise single and double precision may disagree on a spike
    np.testing.assert_allclose(found, expected, atol=2e-5 * max(1.0, np.abs(expected).max()))
    assert 0 < np.count_nonzero(found) < found.size or kind in ("I", "LI", "CubaLI")


@pytest.mark.parametrize("kind", KINDS)
def test_units_may_have_several_axes(kind, tmp_path):
    node = neuron(kind, (2, 3, 4), seed=1)
    x = trains((12, 2, 2, 3, 4), 0.6)
    expected, nearest = simulate(node, x)
    (found,) = run(opened(chain(node), tmp_path), x)
    assert nearest > 1e-6
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_an_integrator_may_take_its_input_as_a_current(tmp_path):
    node = nir.IF(r=np.full(3, 1 / DT), v_threshold=np.full(3, 2.5))
    x = np.ones((9, 1, 3), np.float32)
    (impulse,) = run(opened(chain(node), tmp_path), x)
    (current,) = run(opened(chain(node), tmp_path, Discretization(DT, integrator="current")), x)
    assert impulse.all()
    assert current[:, 0, 0].tolist() == [0, 0, 1, 0, 0, 1, 0, 0, 1]


def test_a_neuron_at_its_threshold_is_silent(tmp_path):
    node = nir.IF(r=np.ones(1), v_threshold=np.ones(1))
    (found,) = run(opened(chain(node), tmp_path), np.array([1, 0, 1], np.float32).reshape(3, 1, 1))
    assert found.reshape(-1).tolist() == [0, 0, 1]


def test_a_spike_resets_to_the_reset_value_in_the_same_step(tmp_path):
    node = nir.IF(r=np.ones(1), v_threshold=np.full(1, 2.0), v_reset=np.full(1, -1.0))
    (found,) = run(opened(chain(node), tmp_path), np.full((8, 1, 1), 3, np.float32))
    assert found.reshape(-1).tolist() == [1, 0, 1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("kind", ["LI", "LIF", "CubaLI", "CubaLIF"])
def test_a_time_constant_needs_the_length_of_a_step(kind, tmp_path):
    with pytest.raises(InputError, match=rf"node '{kind.lower()}' \({kind}\) has time constants: .*--dt SECONDS"):
        opened(chain(neuron(kind, (2,))), tmp_path, Discretization())


@pytest.mark.parametrize("kind", ["I", "IF"])
def test_a_network_without_time_constants_needs_none(kind, tmp_path):
    (found,) = run(opened(chain(neuron(kind, (2,))), tmp_path, Discretization()), trains((5, 1, 2)))
    assert found.shape == (5, 1, 2)


@pytest.mark.parametrize("tau", [0.0, -1.0, np.nan])
def test_a_time_constant_must_be_positive(tau, tmp_path):
    node = nir.LI(tau=np.full(2, tau), r=np.ones(2), v_leak=np.zeros(2))
    with pytest.raises(UnsupportedModelError, match="time constant"):
        opened(chain(node), tmp_path)


def test_a_parameter_must_be_finite(tmp_path):
    node = nir.LI(tau=np.ones(2), r=np.full(2, np.inf), v_leak=np.zeros(2))
    with pytest.raises(UnsupportedModelError, match="not a finite number"):
        opened(chain(node), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "magic"}, "there is no discretization 'magic'; known: exponential, euler"),
        ({"integrator": "x"}, "there is no integrator 'x'"),
        ({"feedback": "x"}, "there is no feedback 'x'"),
        ({"dt": 0.0}, "above 0"),
        ({"dt": float("nan")}, "above 0"),
    ],
)
def test_a_discretization_is_checked(options, message):
    with pytest.raises(InputError, match=message):
        Discretization(**options)


def test_equal_parameters_are_stored_once(tmp_path):
    network = opened(chain(nir.IF(r=np.ones((4, 5)), v_threshold=np.full((4, 5), 0.3))), tmp_path)
    steps = network.neurons["if"]
    assert {name: values.shape for name, values in steps.parameters.items()} == {
        "gain": (1,),
        "v_threshold": (1,),
        "v_reset": (1,),
    }
