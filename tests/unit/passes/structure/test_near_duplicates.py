"""Similar neurons: merged on request, refitted on measured spikes, held to the budget."""

from __future__ import annotations

import numpy as np

from snn_optimizer import LayerNode, SNNGraph
from snn_optimizer.api import Job, run_job
from snn_optimizer.execution import Session
from snn_optimizer.pipeline.budget import Budget

NOISE = 0.03


def network(rng: np.random.Generator) -> SNNGraph:
    weights = rng.normal(0.2, 0.4, (20, 12))
    weights[10:] = weights[:10] * (1 + NOISE * rng.normal(size=(10, 12)))
    readout = rng.normal(0.05, 0.3, (5, 20))
    return SNNGraph(layers=[LayerNode("hidden", 12, 20, weights), LayerNode("readout", 20, 5, readout)])


def test_refitting_beats_summing() -> None:
    rng = np.random.default_rng(11)
    graph = network(rng)
    x = (rng.random((20, 200, 12)) < 0.5).astype(np.float32)
    fresh = (rng.random((20, 200, 12)) < 0.5).astype(np.float32)
    budget = Budget(spike_change=1.0)
    pipeline = "redundancy-elimination{correlation-threshold=0.99}"
    fitted, report = run_job(graph, Job(pipeline=pipeline, calibration={"x": x}, budget=budget))
    summed = graph.copy()
    from snn_optimizer import redundancy_elimination

    assert redundancy_elimination(summed).neurons_removed == report.pass_results[0].neurons_removed >= 8
    assert report.exactness == "lossy"

    def current(one: SNNGraph) -> np.ndarray:
        model = one.to_onnx()
        before = next(n for n in model.graph.node if n.name == "readout").input[0]
        model.graph.output.add(name=before)
        return Session(model).run({"x": fresh})[before]

    truth = current(graph)
    assert ((current(fitted) - truth) ** 2).mean() < 0.9 * ((current(summed) - truth) ** 2).mean()


def test_without_a_budget_a_change_is_rolled_back() -> None:
    graph = network(np.random.default_rng(11))
    _, report = run_job(graph, Job(pipeline="redundancy-elimination{correlation-threshold=0.99}"))
    assert report.pass_results[0].status == "rolled back"
    assert report.neurons_after == report.neurons_before


def test_rows_of_other_length_bias_or_threshold_are_not_similar() -> None:
    rng = np.random.default_rng(2)
    weights = rng.normal(0.2, 0.4, (6, 12))
    weights[1] = weights[0] * 10
    weights[3] = weights[2]
    weights[5] = weights[4]
    bias = np.array([0, 0, 0, 1.5, 0, 0])
    threshold = np.array([1, 1, 1, 1, 1, 2.0])
    hidden = LayerNode("hidden", 12, 6, weights, bias=bias, threshold=threshold)
    graph = SNNGraph(layers=[hidden, LayerNode("readout", 6, 3, rng.normal(0, 1, (3, 6)))])
    from snn_optimizer import redundancy_elimination

    assert redundancy_elimination(graph, correlation_threshold=0.99).neurons_removed == 0
