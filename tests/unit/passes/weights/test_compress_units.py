"""Removal of units with refit: within the budget on samples the fit never saw, in every kind of network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from snn_optimizer.analyses import AnalysisManager, UnitGroups
from snn_optimizer.api import Job, run_job
from snn_optimizer.errors import PassOptionError
from snn_optimizer.execution import Session
from snn_optimizer.ir import SNNGraph
from snn_optimizer.passes import registry
from snn_optimizer.passes.weights.input_units import close_inputs, open_inputs
from snn_optimizer.pipeline.budget import Budget
from snn_optimizer.report import OptimizationReport
from tests.support.models import directly_fed, mlp, spike_trains, streaming

# measured shares of the parameters removed at 1 point: mlp .48, conv .53, residual .60, recurrent .39, cuba .66
MODELS = {"digits_mlp": 0.3, "digits_conv": 0.3, "digits_residual": 0.3, "digits_recurrent": 0.2, "digits_cuba": 0.4}


def compressed(model: Any, data: Any, *, pipeline: str = "compress-units", **options: Any):
    return run_job(model, Job(pipeline=pipeline, calibration=data, **options))


def missed(report: OptimizationReport) -> list[str]:
    return [remark.rule for remark in report.remarks if remark.kind == "missed"]


@pytest.mark.parametrize("name", MODELS)
def test_a_trained_network_loses_units_within_the_budget(name: str, models: Path) -> None:
    graph, report = compressed(
        models / f"{name}.onnx", models / f"{name}.calib.npz",
        test=models / f"{name}.test.npz", budget=Budget(accuracy_drop=0.01),
    )  # fmt: skip
    onnx.checker.check_model(graph.to_onnx(), full_check=True)
    assert 1 - report.after.params / report.before.params > MODELS[name]
    assert report.accuracy_before is not None
    assert report.accuracy_after is not None
    changed = report.decisions_changed or 0
    error = np.sqrt(changed * report.accuracy_samples) / report.accuracy_samples
    assert report.accuracy_before - report.accuracy_after <= 0.01 + 2 * error  # five networks, one error is not rare
    assert report.split == "weights fitted to 270 samples, the budget measured on 180 others"
    assert [r.status for r in report.pass_results] == ["kept"]


def test_non_zeros_of_a_pruned_network_never_grow(models: Path) -> None:
    graph, report = compressed(
        models / "digits_pruned.onnx", models / "digits_pruned.calib.npz", budget=Budget(accuracy_drop=0.01)
    )
    before = SNNGraph.from_onnx(models / "digits_pruned.onnx")
    assert report.after.nonzero_params < 0.8 * report.before.nonzero_params
    for old, new in zip(before.layers, graph.layers, strict=True):
        assert np.count_nonzero(new.weights) <= np.count_nonzero(old.weights)


def test_a_budget_without_labels(models: Path) -> None:
    data = {"x": np.load(models / "digits_mlp.calib.npz")["x"]}
    _, report = compressed(models / "digits_mlp.onnx", data, budget=Budget(decision_change=0.02))
    assert report.after.params < report.before.params
    assert "decision change" in report.pass_results[0].check


def test_the_frontier_is_told(models: Path) -> None:
    _, report = compressed(
        models / "digits_mlp.onnx", models / "digits_mlp.calib.npz", budget=Budget(accuracy_drop=0.01)
    )
    frontier = [remark for remark in report.remarks if remark.rule == "frontier"]
    assert len(frontier) > 3
    assert all("on 180 samples not used for the fit" in remark.message for remark in frontier)


def test_a_budget_of_zero_changes_no_decision(models: Path) -> None:
    data = models / "digits_mlp.calib.npz"
    graph, report = compressed(models / "digits_mlp.onnx", data, budget=Budget(spike_change=0.0))
    if report.pass_results[0].status == "kept":
        assert "spike change 0.00%" in report.pass_results[0].check
    assert graph.layers[-1].n_neurons == 10


def test_a_fraction_of_each_layer() -> None:
    model = mlp((8, 16, 4))
    graph, report = compressed(
        model, {"x": spike_trains(7, 60, 8)}, pipeline="compress-units{fraction=0.5}", verify=False
    )
    assert [layer.n_neurons for layer in graph.layers] == [8, 4]
    assert report.pass_results[0].neurons_removed == 8
    Session(graph.to_onnx()).run({"x": spike_trains(7, 3, 8)})


def test_a_network_fed_one_input_for_the_whole_run_is_refitted() -> None:
    rng = np.random.default_rng(7)
    current = rng.random((300, 8)).astype(np.float32)
    graph, report = compressed(directly_fed(), {"x": current}, budget=Budget(spike_change=0.05))
    assert not [remark.message for remark in report.remarks if remark.rule == "not-measured"]
    assert report.after.neurons < report.before.neurons
    fresh = rng.random((200, 8)).astype(np.float32)
    before, after = (Session(model).run({"x": fresh})["spikes"] for model in (directly_fed(), graph.to_onnx()))
    assert before.any()
    assert np.mean(before != after) < 0.05


def test_redundant_units_go_without_a_trace() -> None:
    """Each unit stands in the network twice, and once as a sum: half of them must go unseen."""
    rng = np.random.default_rng(0)
    rows = rng.normal(0.3, 0.5, (6, 8)).astype(np.float32)
    hidden, out = np.concatenate([rows, rows]), rng.normal(0.2, 0.5, (4, 12)).astype(np.float32)
    model = mlp((8, 12, 4), weights=[hidden, out])
    data = {"x": spike_trains(9, 80, 8)}
    graph, report = compressed(model, data, budget=Budget(spike_change=0.002))
    assert graph.layers[0].n_neurons <= 6
    feeds = {"x": spike_trains(9, 50, 8, seed=5)}
    old, new = (Session(each).run(feeds)["spikes"] for each in (model, graph.to_onnx()))
    assert np.mean(old != new) <= 0.005
    assert report.exactness == "lossy"


def test_without_data_or_budget_it_says_so() -> None:
    model, data = mlp(), {"x": spike_trains(6, 20, 8)}
    assert missed(run_job(model, Job(pipeline="compress-units"))[1]) == ["no-data"]
    assert missed(compressed(model, data)[1]) == ["no-budget"]


def idle_inputs(seed: int = 3, samples: int = 80) -> Any:
    """Trains of 40 inputs, of which the last 20 hardly ever spike."""
    trains = spike_trains(9, samples, 40, seed=seed)
    trains[:, :, 20:] *= np.random.default_rng(seed).random((9, samples, 20)) < 0.01
    return trains


def test_inputs_that_tell_nothing_are_not_read() -> None:
    model = mlp((40, 8), weights=[np.random.default_rng(2).normal(0.05, 0.3, (8, 40)).astype(np.float32)])
    graph, report = compressed(model, {"x": idle_inputs(samples=200)}, budget=Budget(spike_change=0.2))
    onnx.checker.check_model(graph.to_onnx(), full_check=True)
    assert graph.module.graph.inputs[0].shape[-1] == 40, "the interface stays"
    picks = [node for node in graph.module.graph.nodes if node.op == "Gather"]
    assert len(picks) == 1
    assert graph.layers[0].weights.shape[1] <= 24
    (remark,) = (r for r in report.remarks if r.kind == "applied" and "inputs" in r.message)
    assert remark.message.startswith(f"skips {40 - graph.layers[0].weights.shape[1]} of 40 inputs")
    session = Session(graph.to_onnx())
    for samples in (1, 7):
        feeds = {"x": idle_inputs(seed=8, samples=samples)}
        old, new = Session(model).run(feeds)["spikes"], session.run(feeds)["spikes"]
        assert np.mean(old != new) <= 0.25


def test_inputs_are_read_where_not_reading_them_does_not_pay_or_is_not_wanted() -> None:
    few = mlp((6, 8, 4))
    trains = spike_trains(9, 80, 6, seed=3)
    trains[:, :, 3:] = 0
    graph, _ = compressed(few, {"x": trains}, budget=Budget(spike_change=0.02))
    assert "Gather" not in {node.op for node in graph.module.graph.nodes}
    graph, _ = compressed(
        mlp((40, 60, 4)),
        {"x": idle_inputs()},
        pipeline="compress-units{inputs=false}",
        budget=Budget(spike_change=0.02),
    )
    assert "Gather" not in {node.op for node in graph.module.graph.nodes}


def test_a_pick_of_everything_is_closed() -> None:
    graph = SNNGraph.from_onnx(mlp((40, 8, 4)))
    groups = AnalysisManager(graph.module).get(UnitGroups)
    assert list(open_inputs(graph, groups).values()) == [40]
    pick = next(node for node in graph.module.graph.nodes if node.op == "Gather")
    close_inputs(graph, {pick.name: 40})
    assert "Gather" not in {node.op for node in graph.module.graph.nodes}
    onnx.checker.check_model(graph.to_onnx(), full_check=True)


def test_a_fixed_batch_is_parted_in_whole_batches() -> None:
    model = mlp(batch=4)
    _, report = compressed(model, {"x": spike_trains(6, 40, 8)}, budget=Budget(decision_change=0.5))
    assert report.split == "weights fitted to 24 samples, the budget measured on 16 others"
    _, report = compressed(model, {"x": spike_trains(6, 4, 8)}, budget=Budget(decision_change=0.5))
    assert missed(report) == ["no-data"]
    assert "too few" in report.warnings[0]


def test_a_model_of_one_step_is_left_whole_or_fitted() -> None:
    model = streaming()
    feeds = {
        port.name: np.zeros([20 if isinstance(size, str) else size for size in port.shape or ()], np.float32)
        for port in Session(model).inputs
    }
    feeds["x"] = spike_trains(20, feeds["x"].shape[1])
    graph, _ = compressed(model, feeds, budget=Budget(decision_change=0.1))
    onnx.checker.check_model(graph.to_onnx(), full_check=True)


@pytest.mark.parametrize(("options", "message"), [({"fraction": 1.0}, "fraction is 1"), ({"ridge": 0.0}, "ridge is 0")])
def test_options_are_checked(options: dict[str, float], message: str) -> None:
    with pytest.raises(PassOptionError, match=message):
        registry.create("compress-units", options)
