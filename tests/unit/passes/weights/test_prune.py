"""Pruning: what goes is the smallest by the chosen measure, in the asked amount, and never more than the budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from snn_optimizer import LayerNode, SNNGraph
from snn_optimizer.analyses import AnalysisManager
from snn_optimizer.api import Job, run_job
from snn_optimizer.errors import PassOptionError
from snn_optimizer.execution import Session
from snn_optimizer.passes import registry
from snn_optimizer.passes.base import Outcome, PassContext
from snn_optimizer.pipeline.budget import Budget
from snn_optimizer.report.html.frontier import frontiers


def network(seed: int = 0, rates: np.ndarray | None = None) -> SNNGraph:
    rng = np.random.default_rng(seed)
    hidden = LayerNode("hidden", 12, 20, rng.normal(0.2, 0.4, (20, 12)), firing_rates=rates)
    return SNNGraph(layers=[hidden, LayerNode("readout", 20, 5, rng.normal(0.1, 0.1, (5, 20)))])


def prune(graph: SNNGraph, **options: object) -> Outcome:
    one = registry.create("prune", options)
    return one.run(graph, PassContext(AnalysisManager(graph.module), pass_name="prune"))


def zeros(graph: SNNGraph) -> list[float]:
    return [float((layer.weights == 0).mean()) for layer in graph.layers]


def test_global_magnitude_removes_the_smallest_of_all() -> None:
    graph = network()
    old = np.concatenate([layer.weights.reshape(-1) for layer in graph.layers])
    outcome = prune(graph, sparsity=0.5)
    new = np.concatenate([layer.weights.reshape(-1) for layer in graph.layers])
    assert outcome.changes == 170 == int((new == 0).sum())
    assert np.abs(new[new != 0]).min() >= np.abs(old[new == 0]).max()
    assert zeros(graph)[1] > zeros(graph)[0]


def test_local_magnitude_removes_the_same_fraction_of_each_layer() -> None:
    graph = network()
    prune(graph, sparsity=0.5, scope="local")
    assert zeros(graph) == [0.5, 0.5]


def test_threshold_and_default() -> None:
    graph = network()
    small = [int((np.abs(layer.weights) < 0.05).sum()) for layer in graph.layers]
    assert prune(graph, threshold=0.05).changes == sum(small)
    assert prune(graph, threshold=0.05).changes == 0


def test_contribution_weighs_by_the_presynaptic_rate() -> None:
    rates = np.r_[np.full(10, 0.001), np.full(10, 0.9)]
    graph = network(rates=rates)
    prune(graph, sparsity=0.5, scope="local", method="contribution")
    readout = graph.layers[1].weights
    assert (readout[:, :10] == 0).mean() > 0.9
    assert (readout[:, 10:] == 0).mean() < 0.1


def test_pattern_keeps_n_of_every_m_inputs() -> None:
    graph = network()
    old = graph.layers[0].weights.copy()
    prune(graph, pattern="2:4")
    groups = graph.layers[0].weights.reshape(20, 3, 4)
    assert ((groups != 0).sum(axis=2) == 2).all()
    kept = np.sort(np.abs(old.reshape(20, 3, 4)), axis=2)[:, :, 2:]
    np.testing.assert_array_equal(np.sort(np.abs(groups), axis=2)[:, :, 2:], kept)


def test_units_go_as_a_whole_with_their_mean_in_the_bias() -> None:
    rates = np.r_[np.full(5, 1e-4), np.full(15, 0.4)]
    graph = network(rates=rates)
    columns = graph.layers[1].weights.copy()
    outcome = prune(graph, units=True, sparsity=0.25)
    assert outcome.neurons_removed == 5
    assert graph.layers[0].n_neurons == 15
    np.testing.assert_array_equal(graph.layers[1].weights, columns[:, 5:])
    np.testing.assert_allclose(graph.layers[1].bias, columns[:, :5].sum(axis=1) * 1e-4, rtol=1e-5)
    np.testing.assert_array_equal(graph.layers[0].firing_rates, rates[5:])


def test_units_without_known_rates_stay() -> None:
    graph = network()
    assert prune(graph, units=True, sparsity=0.9).changes == 0


def test_shared_weights_stay_shared() -> None:
    graph = network()
    first = graph.module.graph.nodes[0]
    weight = first.inputs[1]
    from snn_optimizer.ir import Rewriter

    rewriter = Rewriter(graph.module)
    extra = rewriter.value("extra", np.float32, ["time", "batch", 20])
    rewriter.add(graph.module.graph, "MatMul", [graph.module.graph.inputs[0], weight], [extra], name_hint="again")
    total = rewriter.value("total", np.float32, ["time", "batch", 20])
    rewriter.replace_uses(first.outputs[0], total)
    rewriter.add(graph.module.graph, "Add", [first.outputs[0], extra], [total], name_hint="sum")
    rewriter.finish()
    size = graph.module.initializer_bytes()
    prune(graph, sparsity=0.5)
    assert graph.module.initializer_bytes() == size


@pytest.mark.parametrize("limit", [0.0, 0.05, 0.5])
def test_the_budget_is_never_exceeded_and_is_used(limit: float) -> None:
    rng = np.random.default_rng(1)
    graph = network(3)
    x = (rng.random((20, 300, 12)) < 0.5).astype(np.float32)
    reference = Session(graph.to_onnx()).run({"x": x})["spikes"]
    job = Job(pipeline="prune{budget}", calibration={"x": x}, budget=Budget(decision_change=limit))
    pruned, report = run_job(graph, job)
    result = Session(pruned.to_onnx()).run({"x": x})["spikes"]
    changed = (result.sum(0).argmax(-1) != reference.sum(0).argmax(-1)).mean()
    assert changed <= limit
    assert (pruned.nonzero_params < graph.nonzero_params) == (limit > 0.0) or limit == 0.0
    assert (report.exactness == "lossy") == (pruned.nonzero_params < graph.nonzero_params)
    (frontier,) = frontiers(report.pass_results)
    assert len(frontier.points) == sum(remark.rule == "frontier" for remark in report.remarks) > 3
    for point in frontier.points:
        assert point.within == (point.spent is not None and point.spent <= 1)
        assert point.found.startswith("decision change ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sparsity": 1.0}, "sparsity"),
        ({"sparsity": -0.1}, "sparsity"),
        ({"threshold": -1.0}, "threshold"),
        ({"pattern": "4"}, "N:M"),
        ({"pattern": "5:4"}, "N <= M"),
        ({"pattern": "2:4", "units": True}, "units"),
        ({"method": "luck"}, "luck"),
        ({"scope": "here"}, "here"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(PassOptionError, match=words):
        registry.create("prune", options)


# -- in the membrane domain ------------------------------------------------------------------


def pruned(models: Path, name: str, pipeline: str, **options: object):
    base = models / name
    return run_job(
        f"{base}.onnx",
        Job(pipeline=pipeline, calibration=f"{base}.calib.npz", test=f"{base}.test.npz", verify=False, **options),
    )


@pytest.mark.parametrize(
    ("name", "sparsity", "drop"),
    [("digits_mlp", 0.8, 0.02), ("digits_conv", 0.6, 0.03), ("digits_recurrent", 0.6, 0.05)],
)
def test_refitted_weights_keep_the_accuracy_that_magnitude_loses(
    models: Path, name: str, sparsity: float, drop: float
) -> None:
    lost = {}
    for method in ("magnitude", "membrane"):
        graph, report = pruned(models, name, f"prune{{sparsity={sparsity} method={method}}}")
        weights = sum(layer.weights.size for layer in graph.layers)
        nonzero = sum(int(np.count_nonzero(layer.weights)) for layer in graph.layers)
        assert nonzero <= (1 - sparsity) * weights + len(graph.layers) or name == "digits_recurrent"
        lost[method] = (report.accuracy_before or 0) - (report.accuracy_after or 0)
    assert lost["membrane"] <= drop
    assert lost["magnitude"] > 2 * max(lost["membrane"], 0.005)


def test_a_pattern_is_kept_by_the_refit(models: Path) -> None:
    graph, report = pruned(models, "digits_mlp", 'prune{pattern="2:4" method=membrane}')
    for layer in graph.layers:
        assert ((layer.weights.reshape(layer.weights.shape[0], -1, 4) != 0).sum(axis=2) <= 2).all()
    assert (report.accuracy_before or 0) - (report.accuracy_after or 0) <= 0.01


def test_the_membrane_method_searches_within_the_budget(models: Path) -> None:
    base = models / "digits_mlp"
    _, report = run_job(
        f"{base}.onnx",
        Job(
            pipeline="prune{budget method=membrane}", calibration=f"{base}.calib.npz", test=f"{base}.test.npz",
            budget=Budget(accuracy_drop=0.01),
        ),
    )  # fmt: skip
    assert report.split == "weights fitted to 270 samples, the budget measured on 180 others"
    assert report.after.nonzero_params < 0.6 * report.before.nonzero_params
    changed = (report.decisions_changed or 0) * report.accuracy_samples
    error = np.sqrt(changed) / report.accuracy_samples
    assert (report.accuracy_before or 0) - (report.accuracy_after or 0) <= 0.01 + error
    assert sum(remark.rule == "frontier" for remark in report.remarks) == 7


def test_the_membrane_method_needs_samples_and_an_amount() -> None:
    _, report = run_job(network(), Job(pipeline="prune{sparsity=0.5 method=membrane}", verify=False))
    assert [remark.rule for remark in report.remarks if remark.kind == "missed"] == ["no-data"]
    for options in ({}, {"units": True, "sparsity": 0.5}):
        with pytest.raises(PassOptionError, match="method=membrane needs"):
            registry.create("prune", {"method": "membrane", **options})
