"""The pass manager: guarded passes, rollback, limits, broken passes, bounded fixpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from snn_optimizer import LayerNode, SNNGraph
from snn_optimizer.api import Job, run_job
from snn_optimizer.errors import ConvergenceError, InputError, PassError, UnknownPassError
from snn_optimizer.ir import InputDomain, Rewriter, Use, array_of
from snn_optimizer.passes import registry
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext
from snn_optimizer.pipeline.manager import Instrument
from tests.support.broken_passes import Crashes


def network() -> SNNGraph:
    rng = np.random.default_rng(4)
    bias = np.zeros(20)
    bias[[3, 7]] = -30
    hidden = LayerNode("hidden", 12, 20, rng.normal(0.2, 0.4, (20, 12)), bias=bias)
    return SNNGraph(layers=[hidden, LayerNode("readout", 20, 5, rng.normal(0.1, 0.4, (5, 20)))])


@dataclass(frozen=True, slots=True)
class Doubles(Pass):
    """Double a weight matrix and claim that nothing changed."""

    name: ClassVar[str] = "doubles"
    exactness: ClassVar[Exactness] = Exactness.ALGEBRAIC

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        rewriter = Rewriter(graph.module)
        node = next(n for n in graph.module.graph.nodes if n.op == "MatMul")
        rewriter.edit_constant([Use(node, 1)], array_of(node.inputs[1]) * 2)
        rewriter.finish()
        return Outcome(changes=1)


@dataclass(frozen=True, slots=True)
class Renames(Pass):
    """Change the interface."""

    name: ClassVar[str] = "renames"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        graph.module.graph.inputs[0].name = "y"
        return Outcome(changes=1)


@pytest.fixture(autouse=True)
def _broken_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {one.name: one for one in (Doubles, Crashes, Renames)}
    create = registry.create

    def wrapped(name: str, options: object = None) -> Pass:
        return broken[name]() if name in broken else create(name, options)

    monkeypatch.setattr(registry, "create", wrapped)


def test_a_pass_that_breaks_its_claim_is_rolled_back_and_named_and_the_rest_goes_on() -> None:
    graph, report = run_job(network(), Job(pipeline="doubles,dead-neuron-elimination"))
    first, second = report.pass_results
    assert (first.status, second.status) == ("rolled back", "kept")
    assert first.reason.startswith("DIFFERENT")
    assert "step" in first.reason
    assert second.neurons_removed == 2
    assert report.evidence.verdict == "EQUIVALENT"
    assert graph.total_neurons == 23


def test_without_verification_nothing_is_guarded_and_nothing_is_claimed() -> None:
    _, report = run_job(network(), Job(pipeline="doubles", verify=False))
    assert report.pass_results[0].status == "kept"
    assert report.evidence.verdict == ""


def test_a_rejected_pass_is_not_tried_again_in_a_fixpoint() -> None:
    _, report = run_job(network(), Job(pipeline="fixpoint(doubles,dead-neuron-elimination)"))
    assert [r.name for r in report.pass_results].count("doubles") == 1


@pytest.mark.parametrize(("name", "words"), [("crashes", "ZeroDivisionError"), ("renames", "inputs or outputs")])
def test_a_broken_pass_is_our_error_and_is_named(name: str, words: str) -> None:
    with pytest.raises(PassError, match=words) as caught:
        run_job(network(), Job(pipeline=f"dead-neuron-elimination,{name}"))
    assert name in str(caught.value)


def test_a_fixpoint_that_does_not_settle_is_an_error() -> None:
    with pytest.raises(ConvergenceError, match="3 rounds"):
        run_job(network(), Job(pipeline="fixpoint{max=3}(doubles)", verify=False))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("fixpoint", InputError),
        ("fixpoint{max=0}(dead-code)", InputError),
        ("fixpoint{max=2.5}(dead-code)", InputError),
        ("fixpoint{rounds=2}(dead-code)", InputError),
        ("bodies(dead-code)", InputError),
        ("@O9", UnknownPassError),
        ("dead-neuron-eliminatoin", UnknownPassError),
    ],
)
def test_mistakes_in_pipelines_are_found_before_anything_runs(text: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        run_job(network(), Job(pipeline=f"doubles,{text}"))


def test_nothing_runs_beyond_a_limit_of_zero() -> None:
    _, report = run_job(network(), Job(pipeline="layer-fusion,dead-neuron-elimination", limit=0))
    assert report.neurons_after == report.neurons_before
    assert [str(r.status) for r in report.pass_results] == ["skipped", "skipped"]


def test_instruments_see_every_pass() -> None:
    seen = []

    class Watcher(Instrument):
        def after_pass(self, result, graph) -> None:
            seen.append((result.name, str(result.status)))

    run_job(network(), Job(pipeline="layer-fusion,dead-neuron-elimination", instruments=[Watcher()]))
    assert seen == [("layer-fusion", "unchanged"), ("dead-neuron-elimination", "kept")]


def test_the_domain_is_the_premise_and_covers_the_data() -> None:
    graph = network()
    wide = InputDomain(default=(0.0, 100.0))
    _, report = run_job(graph, Job(pipeline="dead-neuron-elimination", domain=wide))
    assert report.neurons_after > 23
    x = np.random.default_rng(0).uniform(0, 100, (8, 30, 12)).astype(np.float32)
    _, report = run_job(graph, Job(pipeline="dead-neuron-elimination", calibration={"x": x}))
    assert report.neurons_after > 23
    assert "widened" in report.warnings[0]
