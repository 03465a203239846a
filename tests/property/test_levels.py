"""Random networks of every layer kind keep their spikes at every level.

On the dyadic grid every sum is exact in any order, so what a level proves must keep every bit. On other grids a spike
may only change where a membrane came within rounding of its threshold, which the referee decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from snn_optimizer.api import Job, run_job
from snn_optimizer.execution import Session
from snn_optimizer.pipeline.budget import Budget
from tests.support.random_networks import RandomNetwork, grow

EXAMPLES = 50  # of each of the four levels: 200 in all
# an example takes a second, so a failure is shown as found; the seeds of `random_network` are quicker to look into
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


class DrawnChoices:
    """Decisions drawn by hypothesis, so that it can shrink them."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="numbers"))

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.data.draw(st.integers(0, len(options) - 1))]


def outputs(model: Any, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return Session(model).run(feeds)


def trains(network: RandomNetwork) -> list[dict[str, np.ndarray]]:
    """Binary trains at several rates, silence and noise without a pause."""
    return [network.inputs(seed, rate=rate) for seed, rate in enumerate((0.1, 0.3, 0.5, 0.8, 0.0, 1.0))]


def assert_interface_kept(before: Any, after: Any) -> None:
    for kind in ("input", "output"):
        old, new = getattr(before.graph, kind), getattr(after.graph, kind)
        assert [v.SerializeToString() for v in old] == [v.SerializeToString() for v in new]


def assert_same_bits(network: RandomNetwork, after: Any) -> None:
    for feeds in trains(network):
        old, new = outputs(network.model, feeds), outputs(after, feeds)
        for name, array in old.items():
            np.testing.assert_array_equal(array, new[name], err_msg=name)


def check(network: RandomNetwork, job: Job, *, exact: bool) -> None:
    graph, report = run_job(network.model, job)
    after = graph.to_onnx()
    assert_interface_kept(network.model, after)
    Session(after, optimize=True)
    assert report.evidence.verdict in {"EQUIVALENT", "INCONCLUSIVE"} or report.exactness == "lossy", report.evidence
    rejected = [
        r.name for r in report.pass_results if r.status == "rolled back" and r.claim in {"bitwise", "algebraic"}
    ]
    if exact:
        assert not rejected, report.pass_results
        assert_same_bits(network, after)
    again, _ = run_job(graph, job)
    assert (again.total_neurons, again.total_params) == (graph.total_neurons, graph.total_params)


@given(st.data())
@settings(max_examples=EXAMPLES, phases=PHASES)
def test_o1_keeps_every_bit(data: st.DataObject) -> None:
    network = grow(DrawnChoices(data))
    graph, report = run_job(network.model, Job(pipeline="@O1", verify=False))
    assert_interface_kept(network.model, graph.to_onnx())
    assert report.exactness == "bitwise"
    assert_same_bits(network, graph.to_onnx())


@given(st.data())
@settings(max_examples=EXAMPLES, phases=PHASES)
def test_o2_keeps_the_spikes(data: st.DataObject) -> None:
    network = grow(DrawnChoices(data))
    check(network, Job(pipeline="@O2"), exact=network.grid == "dyadic")


@given(st.data())
@settings(max_examples=EXAMPLES, phases=PHASES)
def test_o3_keeps_the_spikes_on_the_calibration_data(data: st.DataObject) -> None:
    network = grow(DrawnChoices(data))
    feeds = network.inputs(99, batch=12)
    graph, report = run_job(network.model, Job(pipeline="@O3", calibration=feeds))
    assert_interface_kept(network.model, graph.to_onnx())
    assert report.evidence.verdict in {"EQUIVALENT", "INCONCLUSIVE"}, report.evidence
    if network.grid == "dyadic":
        old, new = outputs(network.model, feeds), outputs(graph.to_onnx(), feeds)
        for name, array in old.items():
            np.testing.assert_array_equal(array, new[name], err_msg=name)


@given(st.data())
@settings(max_examples=EXAMPLES, phases=PHASES)
def test_oz_stays_within_its_budget(data: st.DataObject) -> None:
    network = grow(DrawnChoices(data))
    feeds = network.inputs(99, batch=12)
    job = Job(pipeline="@Oz", calibration=feeds, budget=Budget(spike_change=0.2))
    graph, report = run_job(network.model, job)
    assert_interface_kept(network.model, graph.to_onnx())
    Session(graph.to_onnx(), optimize=True)
    assert report.after.neurons <= report.before.neurons
    if report.exactness == "lossy":
        assert report.outputs_changed <= 0.2


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_float16_models_are_handled_or_refused_whole(level: str) -> None:
    for seed in range(6):
        network = grow(_Seeded(seed), dtype=np.float16)
        graph, report = run_job(network.model, Job(pipeline=f"@{level}"))
        assert_interface_kept(network.model, graph.to_onnx())
        assert report.evidence.verdict in {"EQUIVALENT", "INCONCLUSIVE"}


class _Seeded:
    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def pick(self, options: Sequence[Any]) -> Any:
        return options[int(self.generator.integers(len(options)))]
