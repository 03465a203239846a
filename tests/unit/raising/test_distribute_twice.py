"""Distributing again finds nothing to do."""

from __future__ import annotations

import pytest

from snn_optimizer.api import Job, run_job
from tests.support.unrolling import Habits, Layer, Network, Neuron, scan_model


@pytest.mark.parametrize("charge", ["input-decay", "decay", "current"])
@pytest.mark.parametrize("output", ["spikes", "membrane"])
def test_copies_that_results_of_a_loop_need_stay(charge: str, output: str) -> None:
    reset = "none"
    last = Neuron(charge=charge, output=output, reset=reset)
    model = scan_model(Network((Layer(3), Layer(3, neuron=last))), Habits(time_axis=1, outputs=("stack", "finals")))
    graph, report = run_job(model, Job(pipeline="fixpoint{max=3}(distribute-time)", verify=False))
    changes = [each.changes for each in report.pass_results]
    assert changes[0] == 1
    assert changes[-1] == 0
    again, _ = run_job(graph, Job(pipeline="distribute-time", verify=False))
    assert again.to_onnx().SerializeToString(deterministic=True) == graph.to_onnx().SerializeToString(
        deterministic=True
    )
