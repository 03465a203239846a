"""Random networks through every level: what comes out runs anywhere, looks the same from outside, spikes the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from snn_optimizer.api import Job, run_job
from snn_optimizer.ir import SNNGraph
from snn_optimizer.pipeline import PassStatus
from snn_optimizer.pipeline.budget import Budget
from snn_optimizer.report import OptimizationReport
from tests.support.random_networks import RandomNetwork, grow

RATES = (0.0, 0.1, 0.4, 0.7, 1.0)
Arrays = dict[str, np.ndarray]


class DrawnChoices:
    """Decisions that hypothesis takes, and shrinks."""

    def __init__(self, draw: Callable):
        self.draw = draw
        self.generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.draw(st.integers(0, len(options) - 1))]


@st.composite
def networks(draw: Callable, **fixed: Any) -> RandomNetwork:
    return grow(DrawnChoices(draw), **fixed)


exact = networks(grid="dyadic", nan=False)
rounded = st.one_of(networks(grid="decimal", nan=False), networks(grid="normal", nan=False))


def load(model: onnx.ModelProto) -> Callable[[Arrays], Arrays]:
    """In the plain runtime: no library beside it, its own rewrites off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


def feeds_of(network: RandomNetwork) -> list[Arrays]:
    """Trains of several rates, of several lengths and batches where those are free."""
    sizes = [(6, 3), (1, 1), (9, 2), (6, 1), (2, 5)]
    return [
        network.inputs(index, rate=rate, steps=steps, batch=batch)
        for index, (rate, (steps, batch)) in enumerate(zip(RATES, sizes, strict=True))
    ]


def optimize(network: RandomNetwork, level: str, **options: Any) -> tuple[onnx.ModelProto, OptimizationReport]:
    note(onnx.printer.to_text(network.model))
    before = network.model.SerializeToString(deterministic=True)
    graph, report = run_job(network.model, Job(pipeline=f"@{level}", **options))
    assert network.model.SerializeToString(deterministic=True) == before, "the caller's model was changed"
    after = graph.to_onnx()
    onnx.checker.check_model(after, full_check=True)
    for side in ("input", "output"):
        old, new = (list(getattr(model.graph, side)) for model in (network.model, after))
        assert old == new, f"{side}s changed"
    assert report.after.neurons <= report.before.neurons
    return after, report


def assert_same_bytes(network: RandomNetwork, after: onnx.ModelProto) -> None:
    before, behind = load(network.model), load(after)
    for feeds in feeds_of(network):
        old, new = before(feeds), behind(feeds)
        for name, array in old.items():
            assert array.dtype == new[name].dtype
            np.testing.assert_array_equal(new[name], array, err_msg=name)


def assert_settled(after: onnx.ModelProto, level: str, report: OptimizationReport, **options: Any) -> None:
    """A second run finds nothing more."""
    again, second = run_job(after, Job(pipeline=f"@{level}", verify=False, **options))
    sizes = [(x.neurons, x.params, x.nodes) for x in (report.after, second.after)]
    assert sizes[0] == sizes[1], [str(r) for p in second.pass_results for r in p.remarks]
    if level == "O1":
        assert again.to_onnx().SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True)


def rolled_back(report: OptimizationReport) -> list[str]:
    return [f"{r.name}: {r.reason}" for r in report.pass_results if r.status is PassStatus.ROLLED_BACK]


@settings(max_examples=90)
@given(networks())
def test_o1_changes_no_bit(network: RandomNetwork) -> None:
    after, report = optimize(network, "O1", verify=False)
    assert report.exactness == "bitwise"
    assert_same_bytes(network, after)
    assert_settled(after, "O1", report)


@settings(max_examples=70)
@given(exact)
def test_o2_changes_no_bit_where_sums_are_exact(network: RandomNetwork) -> None:
    after, report = optimize(network, "O2", verify=False)
    assert_same_bytes(network, after)
    assert_settled(after, "O2", report)


@settings(max_examples=15)
@given(rounded)
def test_o2_changes_no_spike_but_by_rounding_at_a_threshold(network: RandomNetwork) -> None:
    _, report = optimize(network, "O2")
    assert report.evidence is not None
    assert report.evidence.verdict != "DIFFERENT", report.evidence.reason
    assert not rolled_back(report)


@settings(max_examples=15)
@given(st.one_of(exact, exact, rounded))
def test_o3_changes_no_spike_on_the_data_it_was_given(network: RandomNetwork) -> None:
    data = network.inputs(7, rate=0.3, steps=6, batch=8)
    after, report = optimize(network, "O3", calibration=data)
    assert report.evidence is not None
    assert report.evidence.verdict != "DIFFERENT", report.evidence.reason
    if network.grid != "dyadic":
        return
    assert not rolled_back(report)
    assert_settled(after, "O3", report, calibration=data)
    before, behind = load(network.model), load(after)
    width = network.batch or data["x"].shape[1]
    for start in range(0, data["x"].shape[1], width):
        feeds = {"x": data["x"][:, start : start + width]}
        old, new = before(feeds), behind(feeds)
        for name, array in old.items():
            np.testing.assert_array_equal(new[name], array, err_msg=name)


@settings(max_examples=10)
@given(networks(nan=False))
def test_oz_stays_within_the_budget(network: RandomNetwork) -> None:
    data = network.inputs(7, rate=0.3, steps=6, batch=16)
    after, report = optimize(network, "Oz", calibration=data, budget=Budget(decision_change=0.5))
    before, behind = load(network.model), load(after)
    for feeds in feeds_of(network):
        old, new = before(feeds), behind(feeds)
        assert {name: array.shape for name, array in old.items()} == {name: array.shape for name, array in new.items()}
    assert report.after.neurons <= report.before.neurons


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_the_same_model_gives_the_same_file(level: str) -> None:
    from tests.support.random_networks import random_network

    for seed in range(4):
        network = random_network(seed)
        files = [run_job(network.model, Job(pipeline=f"@{level}", verify=False))[0].to_onnx() for _ in range(2)]
        assert files[0].SerializeToString(deterministic=True) == files[1].SerializeToString(deterministic=True)


def test_a_graph_may_be_given_in_place_of_a_model() -> None:
    from tests.support.random_networks import random_network

    network = random_network(3, nan=False)
    graph = SNNGraph.from_onnx(network.model)
    first, _ = run_job(graph, Job(pipeline="@O2", verify=False))
    second, _ = run_job(network.model, Job(pipeline="@O2", verify=False))
    assert first.to_onnx().SerializeToString(deterministic=True) == second.to_onnx().SerializeToString(
        deterministic=True
    )
