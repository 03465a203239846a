"""Habits of exporters that hide the loop: the steps are gone all the same, and no bit changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from snn_optimizer.api import Job, run_job
from snn_optimizer.ops import DOMAIN
from tests.support.unrolling import Habits, Layer, Network, Neuron, binary_trains, unroll
from tests.unit.passes.cleanup.harness import session

SUBTRACT = Neuron(charge="decay", reset="subtract")
TWO = Network((Layer(4, "gemm", SUBTRACT), Layer(3, "gemm", SUBTRACT)))
FRAMES = Network((Layer(3, "conv", SUBTRACT), Layer(4, "conv", SUBTRACT, normalise=True)), features=(1, 4, 4))
DELAYED = Network((Layer(4, "gemm-plain", Neuron(charge="leak", reset="subtract", reset_delay=1)),))

READOUT = Network(
    (Layer(4, "gemm", SUBTRACT), Layer(3, "gemm", Neuron(charge="decay", reset="none", output="membrane")))
)
ALIKE = Network((Layer(4, "gemm", SUBTRACT), Layer(4, "gemm", SUBTRACT)))
SYNAPTIC = Network((Layer(4, "gemm", Neuron(charge="synaptic", reset="zero", reset_delay=1)),))
RESIDUAL = Network((Layer(4, "gemm", SUBTRACT), Layer(4, "gemm", SUBTRACT), Layer(4, "gemm", SUBTRACT, residual=0)))

CASES = {
    "an alias before some slots of the stack": (TWO, Habits(outputs=("stack",), identity_noise=0.2, seed=3)),
    "aliases before a sum of steps": (TWO, Habits(outputs=("sum-reduce",), identity_noise=0.2, time_axis=1, seed=5)),
    "a constant current, and the last step": (DELAYED, Habits(slicing="static", hoist="first", outputs=("last",))),
    "a constant current of fixed batch": (DELAYED, Habits(slicing="static", hoist="first", outputs=("max",), batch=1)),
    "time folded into the batch": (FRAMES, Habits(hoist="every", initial="folded")),
    "residuals of single steps around whole sequences": (RESIDUAL, Habits(hoist="every", time_axis=1)),
    "a mean and a maximum that run along with a readout": (READOUT, Habits(outputs=("mean", "max"), initial="folded")),
    "layers that start from the same fill": (ALIKE, Habits(outputs=("last", "finals"), initial="constant", batch=3)),
    "a current that a spike changes by nothing": (SYNAPTIC, Habits(reset_signal="recomputed")),
    "batch before time, folded": (FRAMES, Habits(hoist="every", initial="folded", time_axis=1)),
}


def raised(network: Network, habits: Habits, steps: int) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    model = unroll(network, steps, habits)
    graph, _ = run_job(model, Job(pipeline="@O1", verify=False))
    return model, graph.to_onnx()


WIPED = Neuron(charge="input-product", reset="zero", reset_delay=1, fire="ge", current_decay=0.25)
POOLED = Network((Layer(4, "conv", WIPED, pool="max"),), features=(2, 4, 4))
COUNTS = Neuron(charge="normalised", output="counts", reset="subtract")
CURRENT = Neuron(charge="current", reset="zero", fire="ge", threshold=0.75, reset_value=-0.25)
COUNTED = Network((Layer(3, "matmul", COUNTS), Layer(4, "matmul", COUNTS), Layer(3, "matmul", CURRENT, residual=0)))

TEMPTING = {  # what looks like one step more than the sequences have
    "two steps": (
        POOLED,
        Habits(
            slicing="split", hoist="every", outputs=("mean",), initial="constant", batch=3, order="layers",
            reset_signal="difference", graded_factor=True, swap_operands=True, dropout=True, seed=32,
        ),
        2,
    ),
    "a last step in part": (
        COUNTED,
        Habits(
            time_axis=1, slicing="split", hoist="every", outputs=("last",), initial="constant", batch=3, clip_decay=True,
            sum_from_zero=True, graded_factor=True, merge_constants=True, weights="copies", swap_operands=True,
            constants="everything", comparison="direct", one_minus="neg-add", reset_signal="recomputed", seed=43,
        ),
        5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_steps_are_gone(case: str) -> None:
    network, habits = CASES[case]
    (_, short), (model, long) = (raised(network, habits, steps) for steps in (5, 9))
    assert len(short.graph.node) == len(long.graph.node)
    assert sum(node.domain == DOMAIN for node in long.graph.node) >= len(network.layers)
    assert_same_results(model, long, 9, habits.batch or 3)


@pytest.mark.parametrize("outputs", ["stack", "sum", "last", "finals"])
@pytest.mark.parametrize("initial", ["shape", "folded"])
@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("steps", [2, 3, 5])
def test_few_steps_are_rolled(steps: int, delay: int, initial: str, outputs: str) -> None:
    neuron = Neuron(charge="decay", reset="subtract", reset_delay=delay)
    network = Network((Layer(4, "gemm", neuron), Layer(3, "gemm", neuron)))
    model, after = raised(network, Habits(outputs=(outputs,), initial=initial), steps)
    assert sum(node.domain == DOMAIN for node in after.graph.node) >= 2
    assert_same_results(model, after, steps, 3)


@pytest.mark.parametrize("case", TEMPTING)
def test_no_loop_reads_past_the_end_of_a_sequence(case: str) -> None:
    network, habits, steps = TEMPTING[case]
    model, after = raised(network, habits, steps)
    assert_same_results(model, after, steps, habits.batch or 3)


def assert_same_results(model: onnx.ModelProto, changed: onnx.ModelProto, steps: int, batch: int) -> None:
    before, after = session(model), session(changed)
    for seed, rate in enumerate((0.3, 0.7)):
        feeds = binary_trains(model, steps, batch, rate=rate, seed=seed)
        for old, new in zip(before.run(None, feeds), after.run(None, feeds), strict=True):
            np.testing.assert_array_equal(new, old)
