"""Passes with known mistakes are caught, rolled back and named by what they did and where."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from snn_optimizer.api import Job, bisect, run_job
from snn_optimizer.errors import InputError
from snn_optimizer.passes import registry
from snn_optimizer.pipeline.manager import Instrument
from snn_optimizer.pipeline.spec import PassSpec
from tests.support.broken_passes import BROKEN, Crashes, network

PLACES = {
    "wrong-column": "lif1",
    "forgotten-bias": "always-firing at lif1",
    "strict-comparison": "strict at lif1, strict at lif2",
    "lost-epsilon": "norm",
    "shifted-channel": "silent-units at lif1",
    "forgotten-reset": "duplicate-units at lif1",
}


pytestmark = pytest.mark.usefixtures("broken_passes")


@pytest.mark.parametrize("broken", BROKEN)
def test_default_settings_roll_a_broken_pass_back_and_name_it(broken: str) -> None:
    model = network(broken)
    _, report = run_job(model, Job(pipeline=f"canonicalize,{broken},dead-code"))
    (guilty,) = (r for r in report.pass_results if r.status == "rolled back")
    assert guilty.name == broken
    assert guilty.reason.startswith("DIFFERENT")
    assert PLACES[broken] in guilty.blame()
    assert report.evidence.verdict == "EQUIVALENT"


def test_a_broken_bitwise_pass_is_found_by_running_again_with_every_pass_checked() -> None:
    _, report = run_job(network("strict-comparison"), Job(pipeline="strict-comparison"))
    assert any("repeated with every pass checked" in warning for warning in report.warnings)
    _, report = run_job(network("strict-comparison"), Job(pipeline="strict-comparison", verify_each=True))
    assert not report.warnings
    assert [str(r.status) for r in report.pass_results] == ["rolled back"]


@pytest.mark.parametrize("broken", BROKEN)
def test_the_real_pass_in_its_place_is_kept(broken: str) -> None:
    """The networks are fair: what is rolled back is the mistake, not the rewrite."""
    _, report = run_job(network(broken), Job(pipeline="@O2", verify_each=True))
    assert "rolled back" not in [str(r.status) for r in report.pass_results]
    assert report.evidence.verdict == "EQUIVALENT"


def test_verify_each_checks_bitwise_passes_against_the_model_before_them() -> None:
    model = network("wrong-column")
    spare = onnx.helper.make_node("Identity", ["spikes"], ["unread"])
    model.graph.node.append(spare)
    plain = run_job(model, Job(pipeline="dead-code"))[1].pass_results[0]
    checked = run_job(model, Job(pipeline="dead-code", verify_each=True))[1].pass_results[0]
    assert (plain.status, plain.check) == ("kept", "")
    assert (checked.status, checked.check) == ("kept", "EQUIVALENT")


@pytest.mark.parametrize("broken", BROKEN)
def test_bisection_names_the_run_its_rules_and_its_places(broken: str) -> None:
    steps = []
    found = bisect(network(broken), Job(pipeline=f"@hygiene,{broken},@O2"), tell=steps.append)
    assert found.guilty is not None
    assert (found.guilty.name, found.guilty.number) == (broken, 6)
    assert PLACES[broken] in found.guilty.blame()
    assert found.alone
    assert found.finding.counterexample is not None
    assert found.steps == steps
    assert {s.limit: s.finding.wrong for s in steps if s.rewrites is None}[6]


def test_bisection_of_a_right_pipeline_finds_nothing() -> None:
    found = bisect(network("wrong-column"), Job(pipeline="@O2"))
    assert found.guilty is None
    assert found.finding.wrong is False
    assert [(s.limit > 0, s.level) for s in found.steps] == [(False, "algebraic"), (True, "algebraic")]


def test_the_limit_of_the_guilty_run_gives_the_models_around_it() -> None:
    model, pipeline = network("wrong-column"), "@hygiene,fixpoint(wrong-column,layer-fusion),@O2"
    found = bisect(model, Job(pipeline=pipeline))
    assert found.guilty is not None
    for limit, graph in ((found.guilty.number - 1, found.before), (found.guilty.number, found.after)):
        again, _ = run_job(model, Job(pipeline=pipeline, verify=False, limit=limit))
        assert again.to_onnx().SerializeToString() == graph.to_onnx().SerializeToString()


def test_every_run_has_a_number_and_those_beyond_the_limit_are_skipped() -> None:
    heard = []

    class Listener(Instrument):
        def before_pass(self, number: int, spec: PassSpec, *, runs: bool) -> None:
            heard.append((number, str(spec), runs))

    text = "dead-code,redundancy-elimination,layer-fusion{measured}"
    _, report = run_job(network("wrong-column"), Job(pipeline=text, limit=2, instruments=[Listener()]))
    assert heard == [(1, "dead-code", True), (2, "redundancy-elimination", True), (3, "layer-fusion{measured}", False)]
    assert [(r.number, str(r.status)) for r in report.pass_results] == [(1, "unchanged"), (2, "kept"), (3, "skipped")]


@pytest.mark.parametrize("name", ["cf_scan_layer_T25__dynamo_noopt", "snntorch_leaky_sub_rate_T25__ts"])
def test_raising_passes_stand_up_one_by_one(corpus: Path, name: str) -> None:
    """Each leaves a model that runs; one wrote a loop the next one mended."""
    path = next((corpus / name).glob("*.onnx"), None)
    assert path is not None
    _, report = run_job(path, Job(verify_each=True))
    assert [r.blame() for r in report.pass_results if r.status == "rolled back"] == []
    assert all(r.check for r in report.pass_results if r.status == "kept")


@pytest.mark.parametrize(
    ("pipeline", "guilty"), [("@hygiene,crashes", "crashes"), ("wrong-column,crashes", "wrong-column")]
)
def test_a_pass_that_raises_is_guilty_where_nothing_before_it_is(
    monkeypatch: pytest.MonkeyPatch, pipeline: str, guilty: str
) -> None:
    create = registry.create
    monkeypatch.setattr(registry, "create", lambda name, *rest: Crashes() if name == "crashes" else create(name, *rest))
    found = bisect(network("wrong-column"), Job(pipeline=pipeline))
    assert found.guilty is not None
    assert found.guilty.name == guilty
    assert found.alone
    assert (found.after is None) == (guilty == "crashes")
    assert found.before is not None


def test_bisection_refuses_what_it_cannot_judge() -> None:
    model = network("wrong-column")
    with pytest.raises(InputError, match="changes results on purpose"):
        bisect(model, Job(pipeline="prune{sparsity=0.5}"))
    with pytest.raises(InputError, match=r"write \{\} where its file goes"):
        bisect(model, Job(), ["true"])
    with pytest.raises(InputError, match="fails on the model before any pass"):
        bisect(model, Job(), ["false", "{}"])
    with pytest.raises(InputError, match="cannot be run"):
        bisect(model, Job(), ["no-such-command-anywhere", "{}"])
