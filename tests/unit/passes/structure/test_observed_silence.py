"""Neurons that were only seen to be silent: what the report says of them, and what the caller can ask for."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from snn_optimizer.api import Job, run_job
from snn_optimizer.cli.main import cli, run
from snn_optimizer.errors import InputError
from snn_optimizer.execution import Session
from snn_optimizer.passes.structure.dead_neuron_elimination import rate_bound
from snn_optimizer.report import OptimizationReport
from tests.support.models import mlp, spike_trains

PIPELINE = "dead-neuron-elimination{threshold=0 measured}"


def remarks(report: OptimizationReport) -> list[dict[str, object]]:
    return [dict(remark.arguments) for remark in report.remarks if remark.rule == "silent-units"]


def hidden(weights: list[float]) -> np.ndarray:
    """Neurons that weigh all of ten inputs alike."""
    return np.repeat(np.array(weights, np.float32)[:, np.newaxis], 10, axis=1)


@pytest.mark.parametrize(("samples", "bound"), [(1, 0.95), (59, 0.0495), (450, 0.00663), (3000, 0.000998)])
def test_the_bound_is_that_of_clopper_and_pearson(samples: int, bound: float) -> None:
    assert rate_bound(samples) == pytest.approx(bound, rel=2e-3)
    assert (1 - rate_bound(samples)) ** samples == pytest.approx(0.05)


def test_proved_observed_and_refuted_are_told_apart() -> None:
    model = mlp((10, 4, 3), weights=[hidden([0.3, 0.04, 0.01, -1.0]), np.ones((3, 4), np.float32)])
    data = {"x": spike_trains(8, 40, 10, rate=0.3)}
    _, report = run_job(model, Job(pipeline=PIPELINE, calibration=data))
    (found,) = remarks(report)
    assert (found["proved"], found["observed"], found["witnessed"]) == (2, 1, 1)
    assert found["rate_bound"] == pytest.approx(rate_bound(40))
    message = next(remark.message for remark in report.remarks if remark.rule == "silent-units")
    assert re.search(r"fires on less than 7.22% of samples, 95 % confidence from 40; for 1 of these", message)


def test_spared_are_those_that_an_input_makes_fire() -> None:
    model = mlp((10, 4, 3), weights=[hidden([0.3, 0.04, 0.01, -1.0]), np.ones((3, 4), np.float32)])
    data = {"x": spike_trains(8, 40, 10, rate=0.3)}
    graph, report = run_job(model, Job(pipeline=PIPELINE.replace("}", " spare}"), calibration=data))
    assert graph.layers[0].n_neurons == 2
    assert remarks(report)[0]["observed"] == 0
    feeds = {"x": np.ones((8, 2, 10), np.float32)}
    old, new = (Session(each).run(feeds)["spikes"] for each in (model, graph.to_onnx()))
    np.testing.assert_array_equal(old, new)


def test_rates_given_by_hand_have_no_bound() -> None:
    graph, _ = run_job(mlp(), Job(pipeline="dead-code", verify=False))
    graph.layers[0].firing_rates = np.r_[np.zeros(1), np.ones(15)]
    _, report = run_job(graph, Job(pipeline=PIPELINE, verify=False))
    (found,) = remarks(report)
    assert found["observed"] == 1
    assert found["rate_bound"] is None


def test_too_little_data_is_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="450 calibration samples, fewer than the 500 of --min-calibration"):
        run_job(
            models / "digits_mlp.onnx",
            Job(pipeline="@O3", calibration=models / "digits_mlp.calib.npz", min_calibration=500),
        )
    arguments = ["optimize", str(models / "digits_mlp.onnx"), "-o", str(tmp_path / "o.onnx"), "-O3"]
    arguments += ["--calib", str(models / "digits_mlp.calib.npz"), "--min-calibration", "451"]
    assert run(arguments) == 2
    assert not (tmp_path / "o.onnx").exists()
    assert "--min-calibration" in CliRunner().invoke(cli, ["optimize", "--help"]).output
