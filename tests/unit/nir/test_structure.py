"""Networks: feedback, subgraphs, several inputs and outputs, sums; and what is written back."""

from __future__ import annotations

import nir
import numpy as np
import pytest

from snn_optimizer import optimize
from snn_optimizer.nir import Discretization, export, load
from tests.support.nir_networks import (
    DT,
    chain,
    datasets,
    neuron,
    opened,
    run,
    same,
    simulate,
    trains,
    written,
)

UNITS = 4


def weights(*shape, seed=2):
    return np.random.default_rng([seed, *shape]).normal(0, 1.2, shape).astype(np.float32)


def looped(bias=True):
    """A layer of neurons with feedback through weights."""
    rec = nir.Affine(weights(UNITS, UNITS), weights(UNITS)) if bias else nir.Linear(weights(UNITS, UNITS))
    return nir.NIRGraph(
        nodes={
            "input": nir.Input(np.array([3])), "fc": nir.Affine(weights(UNITS, 3), weights(UNITS)), "w_rec": rec,
            "lif": nir.IF(r=np.ones(UNITS), v_threshold=np.ones(UNITS)), "output": nir.Output(np.array([UNITS])),
        },
        edges=[("input", "fc"), ("fc", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")],
    )  # fmt: skip


def walked(graph, x, feedback):
    """Simulate :func:`looped` step by step."""
    fc, rec, lif = (graph.nodes[name] for name in ("fc", "w_rec", "lif"))
    bias = getattr(rec, "bias", np.zeros(UNITS))
    v, s, back, out = 0.0, np.zeros((x.shape[1], UNITS)), 0.0, []
    for now in x.astype(np.float64):
        late = s @ rec.weight.T + bias if feedback == "spikes" else back
        v = v + now @ fc.weight.T + fc.bias + late
        s = (v > lif.v_threshold).astype(np.float64)
        v = np.where(s > 0, 0.0, v)
        back = s @ rec.weight.T + bias
        out.append(s)
    return np.stack(out)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("feedback", ["spikes", "current"])
def test_feedback_is_one_step_late(feedback, bias, tmp_path):
    graph, x = looped(bias), trains((20, 3, 3))
    network = opened(graph, tmp_path, Discretization(DT, feedback=feedback))
    (found,) = run(network, x)
    np.testing.assert_array_equal(found, walked(graph, x, feedback))
    assert 0 < found.sum() < found.size
    made = export(network.graph, network.time, network)
    assert same(datasets(tmp_path / "net.nir"), datasets(made.data)) == []
    assert made.check.changed == 0 < made.check.spikes


def test_the_two_kinds_of_feedback_differ_by_the_bias_at_the_first_step(tmp_path):
    graph, x = looped(), trains((20, 3, 3))
    graph.nodes["w_rec"].bias[:] = 2
    runs = [run(opened(graph, tmp_path, Discretization(DT, feedback=f)), x)[0] for f in ("spikes", "current")]
    assert (runs[0] != runs[1]).any()


def test_a_loop_over_two_layers(tmp_path):
    forth, back = weights(UNITS, UNITS), weights(UNITS, UNITS, seed=3)
    unit = {"r": np.ones(UNITS), "v_threshold": np.ones(UNITS)}
    graph = nir.NIRGraph(
        nodes={
            "input": nir.Input(np.array([UNITS])), "a": nir.IF(**unit), "forth": nir.Linear(forth), "b": nir.IF(**unit),
            "back": nir.Linear(back), "output": nir.Output(np.array([UNITS])),
        },
        edges=[("input", "a"), ("a", "forth"), ("forth", "b"), ("b", "back"), ("back", "a"), ("b", "output")],
    )  # fmt: skip
    x = trains((25, 2, UNITS)) * 2
    network = opened(graph, tmp_path)
    (found,) = run(network, x)
    va = vb = s = np.zeros((2, UNITS))
    for step, now in enumerate(x):
        va = va + now + s @ back.T
        first = va > 1
        va = np.where(first, 0, va)
        vb = vb + first @ forth.T
        s = (vb > 1).astype(float)
        vb = np.where(s > 0, 0, vb)
        np.testing.assert_array_equal(found[step], s)
    assert 0 < found.sum() < found.size
    made = export(network.graph, network.time, network)
    assert same(datasets(tmp_path / "net.nir"), datasets(made.data)) == []


def test_several_inputs_and_outputs_and_sums(tmp_path):
    graph = nir.NIRGraph(
        nodes={
            "a": nir.Input(np.array([3])), "b": nir.Input(np.array([3])), "lif": neuron("LIF", (3,), 1),
            "li": neuron("LI", (3,), 2), "spikes": nir.Output(np.array([3])), "volts": nir.Output(np.array([3])),
        },
        edges=[("a", "lif"), ("b", "lif"), ("lif", "spikes"), ("lif", "li"), ("b", "li"), ("li", "volts")],
    )  # fmt: skip
    a, b = trains((15, 2, 3), 0.5, 1), trains((15, 2, 3), 0.5, 2)
    network = opened(graph, tmp_path)
    spikes, volts = run(network, a, b)
    expected, _ = simulate(graph.nodes["lif"], a + b)
    np.testing.assert_array_equal(spikes, expected)
    np.testing.assert_allclose(volts, simulate(graph.nodes["li"], expected + b)[0], atol=1e-5)
    made = export(network.graph, network.time, network)
    assert same(datasets(tmp_path / "net.nir"), datasets(made.data)) == []


def nested():
    """Feedback inside a subgraph, as snnTorch exports it."""
    inner = looped()
    inner.nodes.pop("fc")
    inner.nodes["input"] = nir.Input(np.array([UNITS]))
    inner = nir.NIRGraph(
        nodes=inner.nodes, edges=[("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
    )
    return nir.NIRGraph(
        nodes={
            "input": nir.Input(np.array([3])), "fc": nir.Affine(weights(UNITS, 3), weights(UNITS)), "rnn": inner,
            "readout": nir.Linear(weights(2, UNITS)), "li": neuron("LI", (2,)), "output": nir.Output(np.array([2])),
        },
        edges=[("input", "fc"), ("fc", "rnn"), ("rnn", "readout"), ("readout", "li"), ("li", "output")],
    )  # fmt: skip


def test_subgraphs_are_opened_and_closed_again(tmp_path):
    graph, x = nested(), trains((20, 3, 3))
    network = opened(graph, tmp_path)
    assert [layer.name for layer in network.graph.layers] == ["rnn.lif", "li"]
    flat = looped()
    flat.nodes |= {"fc": graph.nodes["fc"]} | {n: graph.nodes["rnn"].nodes[n] for n in ("lif", "w_rec")}
    spikes = walked(flat, x, "spikes")
    expected, _ = simulate(graph.nodes["li"], spikes @ graph.nodes["readout"].weight.T)
    np.testing.assert_allclose(run(network, x)[0], expected, atol=1e-4)
    made = export(network.graph, network.time, network)
    assert not made.flattened
    assert same(datasets(tmp_path / "net.nir"), datasets(made.data)) == []


def with_spare_units(dtype):
    """Two of five hidden units can never fire."""
    weight = np.abs(weights(5, 3)).astype(dtype) + dtype(1 / 3)
    weight[[1, 3]] = -1 / 3
    hidden = neuron("LIF", (5,), 7)
    hidden.metadata = {"note": "hidden"}
    hidden.v_leak[:] = 0
    return chain(
        nir.Affine(weight, np.full(5, 0.1, dtype) * np.array([1, -1, 1, -1, 1], dtype)), hidden,
        nir.Linear(weights(2, 5).astype(dtype)), neuron("LIF", (2,), 8),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_removed_units_leave_the_parameters_of_the_others_bit_for_bit(dtype, tmp_path):
    graph = with_spare_units(dtype)
    network = opened(graph, tmp_path)
    smaller, report = optimize(network.graph, level="O2")
    assert report.evidence.verdict == "EQUIVALENT"
    assert smaller.total_neurons == 5
    made = export(smaller, network.time, network)
    assert made.check.changed == 0
    found = made.again.file.nodes
    kept = [0, 2, 4]
    for name, before in (("affine", graph.nodes["affine"]), ("lif", graph.nodes["lif"])):
        for key, values in found[name].values.items():
            np.testing.assert_array_equal(values, getattr(before, key)[kept])
            assert values.dtype == getattr(before, key).dtype
    np.testing.assert_array_equal(found["linear"].values["weight"], graph.nodes["linear"].weight[:, kept])
    assert found["linear"].values["weight"].dtype == dtype
    assert made.again.file.content["nodes"]["lif"]["metadata"] == {"note": "hidden"}
    assert made.again.file.content["nodes"]["lif_1"].keys() == network.file.content["nodes"]["lif_1"].keys()


def test_a_cut_layer_of_channels(tmp_path):
    weight = np.abs(weights(4, 1, 3, 3))
    weight[2] *= -1
    weight = weight.astype(np.float64)
    unit = {"r": np.ones((4, 4, 4)), "v_threshold": np.random.default_rng(2).uniform(0.5, 1.0, (4, 4, 4))}
    graph = chain(
        nir.Conv2d((6, 6), weight, 1, 0, 1, 1, np.zeros(4)), nir.IF(**unit), nir.SumPool2d(*[np.array([2, 2])] * 2, np.zeros(2, int)),
        nir.Flatten({"input": np.array([4, 2, 2])}, 0, -1), nir.Linear(np.abs(weights(3, 16))),
        nir.IF(r=np.ones(3), v_threshold=np.ones(3)),
    )  # fmt: skip
    network = opened(graph, tmp_path, Discretization())
    smaller, report = optimize(network.graph, level="O2")
    assert report.evidence.verdict == "EQUIVALENT"
    made = export(smaller, network.time, network)
    assert made.check.changed == 0 < made.check.spikes
    found = made.again.file.nodes
    kept = [0, 1, 3]
    assert {name: node.kind for name, node in found.items()} == {n: k.kind for n, k in network.file.nodes.items()}
    np.testing.assert_array_equal(found["conv2d"].values["weight"], weight[kept])
    np.testing.assert_array_equal(found["if"].values["v_threshold"], unit["v_threshold"][kept])
    columns = np.arange(16).reshape(4, 4)[kept].reshape(-1)
    np.testing.assert_array_equal(found["linear"].values["weight"], graph.nodes["linear"].weight[:, columns])


def test_the_name_of_the_file_changes_nothing(tmp_path):
    graph = chain(neuron("LIF", (3,)))
    first, second = (load(written(graph, tmp_path, name), Discretization(DT)) for name in ("a.nir", "b.nir"))
    assert first.graph.to_onnx().SerializeToString() == second.graph.to_onnx().SerializeToString()


@pytest.mark.parametrize("front", [False, True])
def test_a_silent_layer_leaves_a_constant_current(front, tmp_path):
    silent = neuron("LIF", (3,), 1)
    silent.v_threshold[:] = 1e6
    bias = np.full(2, 0.7, np.float32)
    nodes = [
        nir.Affine(np.ones((3, 4), np.float32), np.zeros(3)),
        silent,
        nir.Affine(weights(2, 3), bias),
        neuron("LIF", (2,), 2),
    ]
    if front:
        nodes.insert(0, nir.Flatten({"input": np.array([1, 2, 2])}, 0, -1))
    network = opened(chain(*nodes), tmp_path)
    smaller, _ = optimize(network.graph, level="O2")
    assert smaller.total_neurons == 2
    made = export(smaller, network.time, network)
    assert made.check.changed == 0 < made.check.spikes
    found = made.again.file.nodes["affine_1"]
    assert not found.values["weight"].any()
    np.testing.assert_array_equal(found.values["bias"], bias)


def test_inputs_that_nothing_reads_stay_inputs(tmp_path):
    weight = np.abs(weights(30, 50)).astype(np.float64) / 3
    weight[:, :20] = 0
    network = opened(chain(nir.Linear(weight), neuron("LIF", (30,))), tmp_path)
    smaller, _ = optimize(network.graph, level="O2")
    assert any(node.op == "Gather" for node in smaller.module.graph.nodes)
    made = export(smaller, network.time, network)
    assert made.check.changed == 0 < made.check.spikes
    assert same(datasets(tmp_path / "net.nir"), datasets(made.data)) == []


def test_channels_that_nothing_reads_stay_channels(tmp_path):
    weight = np.abs(weights(2, 3, 3, 3))
    weight[:, 1] = 0
    conv = nir.Conv2d((5, 5), weight, 1, 0, 1, 1, np.zeros(2, np.float32))
    network = opened(chain(conv, neuron("LIF", (2, 3, 3))), tmp_path)
    smaller, _ = optimize(network.graph, level="O2")
    made = export(smaller, network.time, network)
    assert made.check.changed == 0 < made.check.spikes
    assert same(datasets(tmp_path / "net.nir"), datasets(made.data)) == []


@pytest.mark.parametrize("level", ["O0", "O2"])
def test_nodes_that_do_nothing_stay_where_they_fit(level, tmp_path):
    hidden = neuron("LIF", (3,), 1)
    hidden.v_threshold[1] = 1e6
    ones = nir.Scale(np.ones(3, np.float32))
    network = opened(
        chain(nir.Linear(np.ones((3, 2), np.float32)), hidden, ones, nir.Linear(weights(2, 3)), neuron("LI", (2,))),
        tmp_path,
    )
    smaller, _ = optimize(network.graph, level=level)
    made = export(smaller, network.time, network)
    assert made.check.changed == 0 < made.check.spikes
    assert ("scale" in made.again.file.nodes) == (level == "O0")
    assert made.again.file.nodes["lif"].shape == ((3,) if level == "O0" else (2,))
