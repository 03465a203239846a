"""The rewrites inside a run of a pass: numbered, stopped at a limit, each right on its own, bisected."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from snn_optimizer.api import Job, bisect, verify
from snn_optimizer.errors import PassError
from snn_optimizer.job import prepare
from snn_optimizer.passes.base import Rewrites
from snn_optimizer.pipeline.recorder import Recorder
from tests.support.broken_passes import BROKEN, network
from tests.support.models import conv, mlp, recurrent, streaming

GUILTY = {
    "wrong-column": "duplicate-units at lif1, unit 7",
    "forgotten-bias": "always-firing at lif1, unit 5",
    "strict-comparison": "strict at lif1",
    "lost-epsilon": "batch-norm-into-linear at fc1",
    "shifted-channel": "silent-units at lif1, unit 1",
    "forgotten-reset": "duplicate-units at lif1, unit 7",
}


pytestmark = pytest.mark.usefixtures("broken_passes")


def limited(graph, text: str, limit: int):
    prepared = prepare(graph, Job(pipeline=text, verify=False, limit=1, rewrite_limit=limit))
    (result,) = prepared.manager.run(prepared.graph, prepared.pipeline)
    return prepared.graph, result


def assert_every_part_is_right(model) -> int:
    """Stop every run of ``@O2`` behind none, one, half and all but one of its rewrites; return how often."""
    recorder = Recorder()
    prepared = prepare(model, Job(verify=False, instruments=(recorder,)))
    before, tried = prepared.graph.copy(share_weights=True), 0
    prepared.manager.run(prepared.graph, prepared.pipeline)
    for full, after in recorder.models:
        assert full is not None
        for limit in sorted({0, 1, full.rewrites // 2, full.rewrites - 1} & set(range(full.rewrites))):
            part, result = limited(before, full.text, limit)
            assert result.rewrites == limit
            found = verify(before, part, exactness=full.claim)
            assert found.verdict != "DIFFERENT", f"{full.text}, {limit} of {full.rewrites}: {found.reason}"
            tried += 1
        before = after
    return tried


def _spare() -> onnx.ModelProto:
    """A network with equal nodes, nodes without effect, constants to fold and dead nodes that read each other."""
    model = mlp((8, 12, 4))
    make = onnx.helper.make_node
    model.graph.node.extend(
        [
            make("Gemm", ["fc1.rows", "fc1.weight", "fc1.bias"], ["again"], name="again", transB=1),
            make("Add", ["again", "fc1.out"], ["dead1"], name="dead1"),
            make("Relu", ["dead1"], ["dead2"], name="dead2"),
            make("Identity", ["dead2"], ["dead3"], name="dead3"),
        ]
    )
    return model


@pytest.mark.parametrize(
    "build",
    [conv, recurrent, streaming, _spare, *(lambda name=name: network(name) for name in BROKEN)],
    ids=["conv", "recurrent", "streaming", "spare", *BROKEN],
)
def test_every_part_of_a_pass_is_right(build) -> None:
    assert_every_part_is_right(build())


def test_every_part_of_a_pass_is_right_on_trained_weights(models: Path) -> None:
    assert assert_every_part_is_right(models / "digits_pruned.onnx") >= 4


def test_every_part_of_raising_is_right(corpus: Path) -> None:
    path = next((corpus / "snntorch_leaky_sub_rate_T25__ts").glob("*.onnx"))
    assert assert_every_part_is_right(path) >= 10


def test_dead_nodes_are_removed_from_behind() -> None:
    """What only a removed node read goes with it, so there is nothing to count in front of it."""
    spare = {"again", "dead1", "dead2", "dead3"}
    for limit, left in ((0, spare), (1, set()), (4, set())):
        graph, _ = limited(_spare(), "dead-code", limit)
        assert {node.name for node in graph.module.graph.nodes} & spare == left


def test_units_are_admitted_in_order() -> None:
    rewrites = Rewrites(limit=5)
    assert rewrites.admit("silent-units", "lif1", [3, 5, 8], number=3) == 3
    assert not rewrites.stopped
    assert rewrites.admit("silent-units", "lif2", [1, 4, 6], number=3) == 2
    assert (rewrites.made, rewrites.stopped, rewrites.last) == (5, True, "silent-units at lif2, unit 4")
    assert rewrites.admit("fused", "fc1") == 0


@pytest.mark.parametrize("broken", BROKEN)
def test_bisection_names_the_rule_the_layer_and_the_unit(broken: str) -> None:
    found = bisect(network(broken), Job(pipeline=f"@hygiene,{broken},@O2"))
    assert found.rewrite is not None
    assert found.rewrite.number == 1
    assert found.rewrite.text == GUILTY[broken]
    assert found.rewrite.finding.wrong
    inside = {step.rewrites: step.finding.wrong for step in found.steps if step.rewrites is not None}
    assert inside[0] is False
    assert inside[found.rewrite.number] is True


def test_a_pass_that_raises_says_which_rewrite_it_was_at(monkeypatch: pytest.MonkeyPatch) -> None:
    from snn_optimizer.passes.unit_surgery import Surgeon

    def broken(*_: object) -> None:
        raise IndexError("out of range")

    monkeypatch.setattr(Surgeon, "cut", broken)
    prepared = prepare(network("wrong-column"), Job(pipeline="redundancy-elimination", verify=False))
    with pytest.raises(PassError, match="in or behind its rewrite 1, duplicate-units at lif1, unit 7: out of range"):
        prepared.manager.run(prepared.graph, prepared.pipeline)
