"""The guard: what is excused as rounding, and what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from snn_optimizer.api import Job, run_job
from snn_optimizer.passes.base import Exactness
from snn_optimizer.pipeline.guard import Guard
from tests.support.broken_passes import registered
from tests.support.models import mlp


def test_a_wrong_cut_is_not_excused_because_membranes_sit_on_their_thresholds(tmp_path: Path) -> None:
    """On a coarse grid ties are everywhere; what moved further than rounding is still wrong."""
    rng = np.random.default_rng(0)
    first = (rng.integers(-4, 7, (300, 32)) / 8).astype(np.float32)
    second = (rng.integers(-4, 6, (10, 300)) / 8).astype(np.float32)
    first[7] = first[2]
    biases = [np.zeros(300, np.float32), np.zeros(10, np.float32)]
    model = mlp((32, 300, 10), steps=8, weights=[first, second], biases=biases, beta=0.5)
    with registered(tmp_path):
        wrong, report = run_job(model, Job(pipeline="wrong-column", verify=False))
        assert report.after.neurons < report.before.neurons
        guard = Guard(model)
        evidence = guard.evidence(wrong, Exactness.ALGEBRAIC)
        assert str(evidence.verdict) == "DIFFERENT"
        _, report = run_job(model, Job(pipeline="wrong-column"))
        assert [str(each.status) for each in report.pass_results] == ["rolled back"]
    _, report = run_job(model, Job(pipeline="redundancy-elimination"))
    assert report.evidence.verdict == "EQUIVALENT"
    assert report.after.neurons == report.before.neurons - 1
