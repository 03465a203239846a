"""Random networks, written as exporters write them, through raising: not a bit changes, and the steps are gone."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import Phase, given, note, seed, settings
from hypothesis import strategies as st

from snn_optimizer.api import Job, run_job
from snn_optimizer.ops import DOMAIN
from tests.support.unrolling import (
    Habits,
    Layer,
    Network,
    Neuron,
    binary_trains,
    habits,
    networks,
    scan_model,
    step_model,
    unroll,
)
from tests.unit.passes.cleanup.harness import interface, session

RATES = (0.4, 0.0, 0.8, 1.0)
BATCHES = (3, 1, 2, 5)
SEEDS = 60
# Of 60; measured 59 and 56: what hypothesis draws for a seed changes a little with the modules that are loaded.
FLOOR = 55
RECOGNIZED = 50


def optimized(model: onnx.ModelProto) -> onnx.ModelProto:
    graph, report = run_job(model, Job(pipeline="@O1", verify=False))
    assert report.exactness == "bitwise"
    return graph.to_onnx()


def assert_same_bits(model: onnx.ModelProto, steps: int, batch: int | None) -> None:
    note(onnx.printer.to_text(model))
    after = optimized(model)
    onnx.checker.check_model(after, full_check=True)
    assert interface(after) == interface(model)
    before, behind = session(model), session(after)
    names = [output.name for output in before.get_outputs()]
    for index, (rate, size) in enumerate(zip(RATES, BATCHES, strict=True)):
        feeds = binary_trains(model, steps, batch or size, rate=rate, seed=index)
        for name, old, new in zip(names, before.run(names, feeds), behind.run(names, feeds), strict=True):
            assert (old.dtype, old.shape) == (new.dtype, new.shape)
            np.testing.assert_array_equal(new, old, err_msg=name)


def nodes_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """All nodes, those of bodies too."""

    def walk(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
        bodies = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
        return [*graph.node, *(node for body in bodies for node in walk(body))]

    return walk(model.graph)


@settings(max_examples=60)
@given(networks(), habits(), st.integers(1, 7))
def test_an_unrolled_network_keeps_its_bits(network: Network, style: Habits, steps: int) -> None:
    assert_same_bits(unroll(network, steps, style), steps, style.batch)


@settings(max_examples=20)
@given(networks(), habits(outputs=("stack", "finals"), slicing="gather"))
def test_a_network_of_one_step_keeps_its_bits(network: Network, style: Habits) -> None:
    assert_same_bits(step_model(network, style), 1, style.batch)


@settings(max_examples=20)
@given(networks(), habits(outputs=("stack", "finals"), slicing="gather"), st.integers(1, 7))
def test_a_network_in_a_scan_keeps_its_bits(network: Network, style: Habits, steps: int) -> None:
    assert_same_bits(scan_model(network, style), steps, style.batch)


def drawn(number: int) -> tuple[Network, Habits]:
    """One network and its habits, the same in every run; the first examples are the simplest, and are passed over."""
    found: list[tuple[Network, Habits]] = []

    @seed(number)
    @settings(max_examples=4, database=None, derandomize=False, phases=[Phase.generate])
    @given(networks(), habits())
    def collect(network: Network, style: Habits) -> None:
        found.append((network, style))

    collect()
    return found[-1]


def test_most_unrolled_networks_lose_their_steps() -> None:
    rolled = recognized = 0
    for network, style in map(drawn, range(SEEDS)):
        found = [nodes_of(optimized(unroll(network, steps, style))) for steps in (5, 8)]
        rolled += len(found[0]) == len(found[1])
        recognized += sum(node.domain == DOMAIN for node in found[0]) >= len(network.layers)
    assert rolled >= FLOOR, rolled
    assert recognized >= RECOGNIZED, recognized


def test_a_residual_around_a_synapse_over_all_steps() -> None:
    neuron = Neuron(charge="integrate")
    network = Network((Layer(4, "gemm", neuron), Layer(4, "gemm", neuron, residual=0)))
    optimized(unroll(network, 4, Habits(hoist="every")))


def test_a_running_sum_is_no_state_of_the_neuron_before() -> None:
    counts = Neuron(charge="integrate", output="counts", reset="subtract", fire="gt")
    network = Network((Layer(3, "gemm", counts), Layer(3, "gemm", Neuron(charge="decay", reset="none"), residual=0)))
    optimized(unroll(network, 4, Habits(outputs=("sum",))))
