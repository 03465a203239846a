"""Where one step is not like the others, the loop ends there, or there is none: the bits stay, and the step is named."""

from __future__ import annotations

import itertools
import re

import numpy as np
import onnx
import pytest

from snn_optimizer.api import Job, run_job
from snn_optimizer.ir import SNNGraph
from snn_optimizer.passes.raising.reroll import Reroll
from snn_optimizer.remarks import Remark, RemarkKind
from tests.support.unrolling import KINDS, Habits, Layer, Network, UndamagedError, binary_trains, damage, unroll
from tests.support.unrolling.network import NORSE_LIF, SNNTORCH_LEAKY, SPIKINGJELLY_SOFT
from tests.unit.passes.cleanup.harness import apply, session

STEPS = 7
SEEDS = range(5)
SHARE = 0.44  # measured: 33 of 74
NEURONS = {"leaky": SNNTORCH_LEAKY, "soft": SPIKINGJELLY_SOFT, "norse": NORSE_LIF}
HABITS = {
    "plain": Habits(outputs=("stack", "sum", "finals")),
    "slices": Habits(slicing="slice", outputs=("stack", "last"), constants="literals"),
    "folded": Habits(outputs=("last", "finals"), initial="folded"),
    "hoisted": Habits(hoist="first", time_axis=1, outputs=("stack", "mean")),
}


def network(name: str) -> Network:
    neuron = NEURONS[name]
    return Network((Layer(5, "gemm", neuron, recurrent="bias"), Layer(4, "matmul-add", neuron)), seed=5)


def damaged(name: str, habits: str, kind: str, seed: int, steps: int = STEPS) -> tuple[onnx.ModelProto, int]:
    try:
        return damage(unroll(network(name), steps, HABITS[habits]), np.random.default_rng(seed), kind)
    except UndamagedError:
        pytest.skip(f"there is no {kind} to damage")


def assert_same_bits(before: onnx.ModelProto, after: onnx.ModelProto, steps: int = STEPS) -> None:
    first, second = session(before), session(after)
    names = [output.name for output in first.get_outputs()]
    for batch, rate in ((1, 0.9), (8, 0.4)):
        feeds = binary_trains(before, steps, batch, rate=rate)
        for name, old, new in zip(names, first.run(names, feeds), second.run(names, feeds), strict=True):
            assert old.dtype == new.dtype
            np.testing.assert_array_equal(new, old, err_msg=name)


CASES = [("leaky", "plain"), ("soft", "slices"), ("norse", "hoisted")]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NEURONS)
def test_damage_in_a_model_of_two_steps_keeps_its_bits(name: str, kind: str, seed: int) -> None:
    model, _ = damaged(name, "folded", kind, seed, 2)
    graph, _ = run_job(SNNGraph.from_onnx(model), Job(pipeline="@O1", verify=False))
    assert_same_bits(model, graph.to_onnx(), 2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "habits"), CASES)
def test_a_damaged_model_keeps_its_bits(name: str, habits: str, kind: str, seed: int) -> None:
    model, _ = damaged(name, habits, kind, seed)
    graph, report = run_job(model, Job(pipeline="@O1", verify=False))
    assert report.exactness == "bitwise"
    assert_same_bits(model, graph.to_onnx())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "habits"), CASES)
def test_a_loop_never_runs_over_a_damaged_step(name: str, habits: str, kind: str, seed: int) -> None:
    model, step = damaged(name, habits, kind, seed)
    graph = SNNGraph.from_onnx(model)
    _, remarks = apply(Reroll(), graph)
    assert_same_bits(model, graph.to_onnx())
    rolled = [remark.arguments["steps"] for remark in remarks if remark.rule == "rolled"]
    plain = len(unroll(network(name), STEPS, HABITS[habits]).graph.node)
    read = len(model.graph.node) == plain or kind != "operator"  # else nothing needed what was damaged
    assert not read or all(steps <= max(step, STEPS - 1 - step) for steps in rolled)
    assert rolled or named_steps(remarks)


def named_steps(remarks: list[Remark]) -> set[int]:
    """The steps that refusals name."""
    refused = [remark for remark in remarks if remark.kind is RemarkKind.MISSED]
    return {int(found) for remark in refused for found in re.findall(r"step (\d+)", remark.message)}


def share_named() -> float:
    """The share of refusals that name the damaged step."""
    hits = []
    for (name, habits), kind, seed in itertools.product(CASES, KINDS, SEEDS):
        model, step = damaged(name, habits, kind, seed)
        _, remarks = apply(Reroll(), SNNGraph.from_onnx(model))
        if not any(remark.rule == "rolled" for remark in remarks):
            hits.append(step in named_steps(remarks))
    assert len(hits) > 60
    return float(np.mean(hits))


def test_many_refusals_name_the_damaged_step() -> None:
    assert share_named() >= SHARE
