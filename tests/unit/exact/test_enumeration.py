"""Equality and reachability on all inputs, against what plain NumPy finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from snn_optimizer import ops
from snn_optimizer.errors import ExecutionError
from snn_optimizer.exact import running
from snn_optimizer.exact.enumeration import reachable
from snn_optimizer.exact.equivalence import verify_exhaustively
from snn_optimizer.exact.space import NotEnumerable
from snn_optimizer.execution import Session
from snn_optimizer.ir import InputDomain
from snn_optimizer.ops import NeuronVariant
from tests.support.models import ModelBuilder
from tests.support.tiny_networks import Layer, all_inputs, network, random_layers


def one(*weights: float, threshold: float = 1.0, beta: float = 0.5) -> Layer:
    return Layer(np.array([weights], np.float32), np.zeros(1, np.float32), beta=beta, threshold=np.float32(threshold))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("memory", [1 << 10, 1 << 26])
def test_reachability_is_what_the_spikes_say(seed: int, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.affordable_samples, "__kwdefaults__", {"memory": memory})
    generator = np.random.default_rng(seed)
    limit = [None, 2][seed % 2]
    layers = random_layers(generator, 3, depth=2, recurrent=seed % 4 > 1)
    model = network(layers, 3)
    space, found = reachable(model, domain=InputDomain(max_active=limit))
    spikes = Session(model).run({"x": all_inputs(3, 3, limit)}, ["pop0.s", "pop1.s"])
    for number, layer in enumerate(layers):
        train = spikes[f"pop{number}.s"]
        one = found[f"pop{number}"]
        assert space.count == train.shape[1]
        assert one.never.tolist() == (~train.any(axis=(0, 1))).tolist()
        assert one.always.tolist() == (train != 0).all(axis=(0, 1)).tolist()
        for neuron in range(layer.units):
            for numbers, steps, wanted in ((one.fires, one.fires_at, True), (one.rests, one.rests_at, False)):
                if numbers[neuron] < 0:
                    continue
                witness = Session(model).run(space.feeds([numbers[neuron]]), [f"pop{number}.s"])[f"pop{number}.s"]
                happened = (witness[:, 0, neuron] != 0) == wanted
                assert happened.argmax() == steps[neuron]
                assert happened.any()


def test_peaks_are_those_before_the_first_spike() -> None:
    """Weights 0.4 and 0.7: 1.1 in the first step at most, 0.5 * 1 + 1.1 later without a spike of at most 1."""
    _, found = reachable(network([one(0.4, 0.7)], 2))
    np.testing.assert_allclose(found["pop0"].peak, [0.5 * 0.7 + 1.1], rtol=1e-6)
    np.testing.assert_allclose(found["pop0"].trough, [0.0])
    _, found = reachable(network([one(0.4, 0.7, threshold=9.0)], 2))
    np.testing.assert_allclose(found["pop0"].peak, [1.5 * 1.1], rtol=1e-6)


def test_a_single_input_of_all_is_found() -> None:
    """Two networks that differ only when all inputs fire at all steps."""
    first, second = (network([one(1.0, 1.0, threshold=t, beta=1.0)], 3) for t in (5.5, 6.5))
    found = verify_exhaustively(first, second)
    assert str(found).startswith("DIFFERENT on 1 of all 2^6 = 64 inputs (6 = 2 inputs x 3 steps)")
    counterexample = found.equivalence.counterexample
    assert counterexample is not None
    assert (counterexample["x"] == 1).all()
    assert str(verify_exhaustively(first, first)).startswith("EQUIVALENT on all 2^6 = 64 inputs")


def test_declared_activity_leaves_the_difference_out() -> None:
    first, second = (network([one(1.0, 1.0, threshold=t, beta=1.0)], 3) for t in (5.5, 6.5))
    found = verify_exhaustively(first, second, domain=InputDomain(max_active=1))
    assert found.differing == 0
    assert "27 inputs" in str(found)
    assert "the original puts out only zeros" in str(found)


def test_counts_do_not_depend_on_the_size_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [
        Layer(np.array([[1.2, 0, 0.5], [0.4, 0.4, 0.9]], np.float32), np.zeros(2, np.float32)),
        Layer(np.array([[1.1, 0.3], [0.4, 0.8], [-1, 1]], np.float32), np.zeros(3, np.float32)),
    ]
    first = network(layers, 3)
    second = network([layers[0], replace(layers[1], threshold=np.float32(1.2))], 3)
    whole = verify_exhaustively(first, second).to_json()
    monkeypatch.setattr(running.affordable_samples, "__kwdefaults__", {"memory": 5000})
    parts = verify_exhaustively(first, second).to_json()
    assert whole == parts
    assert whole["differing"] > 0
    before, after = (Session(m).run({"x": all_inputs(3, 3, None)}) for m in (first, second))
    differs = np.concatenate([(before[n] != after[n]).any(axis=(0, 2))[np.newaxis] for n in before]).any(axis=0)
    assert whole["inputs_differing"] == differs.sum()
    assert whole["spikes_differing"] == sum((before[n] != after[n]).sum() for n in before)
    assert whole["values_compared"] == sum(b.size for b in before.values())


def test_another_interface_is_a_difference() -> None:
    found = verify_exhaustively(network([one(1.0)], 3), network([one(1.0), one(1.0)], 3))
    assert str(found) == "DIFFERENT: output 'pop1.s' is new"


def test_other_last_bits_of_a_membrane_differ_only_byte_by_byte() -> None:
    def readout(scale: float) -> onnx.ModelProto:
        net = ModelBuilder()
        net.input("x", (2, "batch", 2))
        product = net.node(
            "MatMul", ["x", net.constant("w", np.array([[0.3], [0.7]], np.float32) * np.float32(scale))], "c"
        )
        variant = NeuronVariant("LI")
        out = net.neuron("li", variant, product, states=[net.constant("v0", 0.0)], beta=0.9, gain=1.0)[0]
        net.output(out, (2, "batch", 1))
        return net.build()

    first, second = readout(1.0), readout(1 + 1e-6)
    assert verify_exhaustively(first, second).differing == 0
    assert verify_exhaustively(first, second, exactness="bitwise").differing == 15  # all but silence
    assert ops.is_neuron("ai.snn", "LI__decay")


def test_samples_that_influence_each_other_are_noticed() -> None:
    net = ModelBuilder()
    net.input("x", (1, "batch", 2))
    mean = net.node("ReduceMax", ["x", net.constant("axes", [1], np.int64)], "largest", keepdims=1)
    net.output(net.node("Sub", ["x", mean], "y"), (1, "batch", 2))
    model = net.build()
    with pytest.raises(ExecutionError, match="depends on the other samples"):
        verify_exhaustively(model, model)


def test_too_many_inputs_are_refused_before_anything_runs() -> None:
    model = network([one(1.0, 1.0)], 4)
    with pytest.raises(NotEnumerable, match=r"2\^8 = 256 inputs .* more than 255"):
        reachable(model, limit=255)
    assert reachable(model, limit=256)[0].count == 256
