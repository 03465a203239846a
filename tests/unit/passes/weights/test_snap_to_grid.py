"""On the grid every sum is exact: order, removal and merging change no bit. The coarsest grid within the budget is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from snn_optimizer.api import Job, run_job
from snn_optimizer.errors import PassOptionError
from snn_optimizer.execution import Session
from snn_optimizer.ir import SNNGraph
from snn_optimizer.passes import registry
from snn_optimizer.pipeline.budget import Budget
from tests.support.models import initializer, mlp, spike_trains, with_initializer


def snapped(model, exponent: int, **options):
    return run_job(model, Job(pipeline=f"snap-to-grid{{exponent={exponent}}}", verify=False, **options))


def is_on_grid(array: np.ndarray, exponent: int) -> bool:
    return bool((np.ldexp(np.asarray(array, np.float64), exponent) % 1 == 0).all())


@pytest.mark.parametrize("exponent", [3, 8, 12])
def test_everything_that_is_summed_or_compared_is_a_multiple(exponent: int) -> None:
    model = mlp(v_threshold=np.linspace(0.7, 1.3, 16).astype(np.float32), sizes=(8, 16))
    graph, report = snapped(model, exponent)
    (layer,) = graph.layers
    for array in (layer.weights, layer.bias, layer.threshold):
        assert is_on_grid(array, exponent)
    (before,) = SNNGraph.from_onnx(model).layers
    assert np.abs(layer.weights - before.weights).max() <= 2.0 ** -(exponent + 1)
    np.testing.assert_array_equal(layer.beta, before.beta)
    _, second = run_job(graph, Job(pipeline=f"snap-to-grid{{exponent={exponent}}}", verify=False))
    assert second.pass_results[0].changes == 0
    assert report.exactness == "lossy"


def test_on_the_grid_the_order_of_inputs_changes_no_bit(models: Path) -> None:
    graph, report = snapped(models / "digits_mlp.onnx", 12)
    exact = [remark for remark in report.remarks if remark.rule == "exact-sums"]
    assert len(exact) == 2
    model = graph.to_onnx()
    order = np.random.default_rng(0).permutation(128)
    names = {tensor.name: tensor for tensor in model.graph.initializer}
    first, second = (layer.projections[0] for layer in graph.layers)
    shuffled = model
    for use, axis in ((first.weight_use, first.axis_out), (second.weight_use, 1 - second.axis_out)):
        name = use.node.inputs[use.slot].name
        shuffled = with_initializer(shuffled, name, np.take(initializer(shuffled, name), order, axis=axis))
    name = first.bias.node.inputs[first.bias.slot].name
    shuffled = with_initializer(shuffled, name, initializer(shuffled, name)[order])
    assert name in names
    feeds = {"x": np.load(models / "digits_mlp.test.npz")["x"][:, :100]}
    for old, new in zip(Session(model).run(feeds).values(), Session(shuffled).run(feeds).values(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_sums_in_two_orders_are_equal_only_on_the_grid(models: Path) -> None:
    graph, _ = snapped(models / "digits_mlp.onnx", 12)
    order = np.random.default_rng(1).permutation(64)

    def differ(network: SNNGraph) -> bool:
        weights = network.layers[0].weights.astype(np.float32)
        return bool((np.cumsum(weights, axis=1)[:, -1] != np.cumsum(weights[:, order], axis=1)[:, -1]).any())

    assert differ(SNNGraph.from_onnx(models / "digits_mlp.onnx"))
    assert not differ(graph)


def test_the_coarsest_grid_within_the_budget(models: Path) -> None:
    data = models / "digits_conv.calib.npz"
    graph, report = run_job(
        models / "digits_conv.onnx",
        Job(pipeline="snap-to-grid", calibration=data, test=models / "digits_conv.test.npz", budget=Budget(0.01)),
    )
    tried = [remark.arguments["exponent"] for remark in report.remarks if remark.rule == "frontier"]
    assert tried == list(range(len(tried)))
    assert all(is_on_grid(layer.weights, tried[-1]) for layer in graph.layers)
    assert not all(is_on_grid(layer.weights, tried[-1] - 1) for layer in graph.layers)
    assert (report.accuracy_before or 0) - (report.accuracy_after or 0) <= 0.01


def test_sums_that_are_too_large_are_named() -> None:
    model = with_initializer(mlp(), "fc1.weight", np.full((16, 8), 4096.5, np.float32))
    _, report = snapped(model, 12)
    assert [remark.place for remark in report.remarks if remark.rule == "sums-too-large"] == ["fc1"]


def test_what_is_no_number_stays() -> None:
    weights = np.full((16, 8), 0.3, np.float32)
    weights[0, 0], weights[1, 1] = np.nan, np.inf
    graph, _ = snapped(with_initializer(mlp(), "fc1.weight", weights), 4)
    found = graph.layers[0].weights
    assert np.isnan(found[0, 0])
    assert np.isinf(found[1, 1])
    assert found[2, 2] == 0.3125


def test_without_a_budget_it_says_so() -> None:
    _, report = run_job(mlp(), Job(pipeline="snap-to-grid", calibration={"x": spike_trains(5, 10, 8)}))
    assert [remark.rule for remark in report.remarks if remark.kind == "missed"] == ["no-budget"]
    with pytest.raises(PassOptionError, match="exponent is 21"):
        registry.create("snap-to-grid", {"exponent": 21})
