"""Sums on a grid are exact, and then structural passes promise every bit; off it they do not."""

from __future__ import annotations

import numpy as np
import pytest

from snn_optimizer.analyses import AnalysisManager
from snn_optimizer.analyses.exact_sums import ExactSums, grid_exponent
from snn_optimizer.analyses.whole_values import WholeValues
from snn_optimizer.api import Job, run_job
from snn_optimizer.execution import Session
from snn_optimizer.ir import SNNGraph
from snn_optimizer.ops import NeuronVariant
from tests.support.models import conv, mlp, spike_trains

GRID = 2.0**-8


@pytest.mark.parametrize(
    ("numbers", "exponent"),
    [([0.0], 0), ([3.0, -7.0], 0), ([0.5], 1), ([0.75, 2.0], 2), ([1 / 3], 25), ([2.0**-30], 30), ([1e-45], 149)],
)
def test_the_exponent_of_a_grid(numbers: list[float], exponent: int) -> None:
    array = np.array(numbers, np.float32)
    assert grid_exponent(array) == exponent
    assert (np.ldexp(array.astype(np.float64), exponent) % 1 == 0).all()


def layers(seed: int = 0) -> list[np.ndarray]:
    """Weights on a grid; in the second layer a neuron that never fires and two that are alike."""
    rng = np.random.default_rng(seed)
    shapes = ((12, 8), (10, 12), (4, 10))
    found = [np.rint(rng.normal(0.2, 0.4, shape) / GRID) * GRID for shape in shapes]
    found[1][3] = -np.abs(found[1][3])
    found[1][7] = found[1][5]
    return [weights.astype(np.float32) for weights in found]


def network(change: float = 0.0, variant: NeuronVariant | None = None):
    weights = layers()
    weights[2][0, 0] += np.float32(change)
    biases = [np.zeros(len(each), np.float32) for each in weights]
    return mlp((8, 12, 10, 4), weights=weights, biases=biases, variant=variant or NeuronVariant("LIF"))


def exact(model) -> set[str]:
    graph = SNNGraph.from_onnx(model)
    nodes = AnalysisManager(graph.module).get(ExactSums).nodes
    return {node.name for node in graph.module.graph.nodes if id(node) in nodes}


def test_layers_that_read_spikes_are_exact_on_the_grid() -> None:
    assert exact(network()) == {"fc2", "fc3"}
    assert exact(network(change=1 / 3)) == {"fc2"}
    assert exact(network(change=2.0**16)) == {"fc2"}
    assert exact(network(variant=NeuronVariant("LIF", max_spikes=0))) == set()


@pytest.mark.parametrize(("name", "removed"), [("dead-neuron-elimination", 1), ("redundancy-elimination", 1)])
@pytest.mark.parametrize("change", [0.0, 1 / 3])
def test_a_structural_pass_promises_every_bit_on_the_grid(name: str, removed: int, change: float) -> None:
    model = network(change)
    graph, report = run_job(model, Job(pipeline=name))
    (result,) = report.pass_results
    assert (result.status, result.neurons_removed) == ("kept", removed)
    assert result.claim == ("algebraic" if change else "bitwise")
    assert report.exactness == result.claim
    feeds = {"x": spike_trains(30, 40, 8, rate=0.6)}
    for old, new in zip(Session(model).run(feeds).values(), Session(graph.to_onnx()).run(feeds).values(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_whole_values_end_where_values_are_averaged() -> None:
    graph = SNNGraph.from_onnx(conv())
    whole = AnalysisManager(graph.module).get(WholeValues)
    by_op = {node.op: whole.of(node.outputs[0]) for node in graph.module.graph.nodes}
    assert by_op.get("AveragePool") is None
    spikes = [node.outputs[0] for node in graph.module.graph.nodes if node.domain == "ai.snn"]
    assert [whole.of(value) for value in spikes] == [1] * len(spikes)
