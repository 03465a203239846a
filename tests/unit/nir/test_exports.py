"""Exports of frameworks, raised, as NIR files."""

from __future__ import annotations

import pytest

from snn_optimizer.errors import UnsupportedModelError
from snn_optimizer.nir import Discretization, export
from snn_optimizer.raised import raise_model
from tests.support.nir_networks import DT

# what is lost in each, the kinds of nodes it becomes, and whether the rest is the same but for rounding
EXPORTS = {
    "norse_lif_li_T25__step_ts": ([], {"Input", "Affine", "Linear", "CubaLIF", "CubaLI", "Output"}),
    "sj14_lif_hard_decay_s_T10__step_ts": (["fire-at-threshold"], {"Input", "Affine", "LIF", "Output"}),
    "sj2_lif_hard_decay_m_T10__dynamo": (["fire-at-threshold"], {"Input", "Affine", "LIF", "I", "Scale", "Output"}),
    "snntorch_leaky_zero_direct_T10__step_ts": ([], {"Input", "Affine", "LIF", "Output"}),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_becomes_nir_that_runs_like_it(name, corpus):
    needed, kinds = EXPORTS[name]
    raised = raise_model(corpus / name / "model.onnx")
    for left_out in needed:
        allowed = [loss for loss in needed if loss != left_out]
        with pytest.raises(UnsupportedModelError, match=f"--allow-loss {left_out}"):
            export(raised.graph, Discretization(DT), allowed=allowed)
    made = export(raised.graph, Discretization(DT), allowed=needed)
    assert sorted({loss.split(":")[0] for loss in made.losses}) == sorted(needed)
    assert made.check.spikes
    assert made.check.largest < 1e-6
    assert {node.kind for node in made.again.file.nodes.values()} == kinds


def test_several_currents_are_added_up(corpus):
    raised = raise_model(corpus / "snntorch_rleaky_T10__ts" / "model.onnx")
    made = export(raised.graph, Discretization(DT), allowed=["soft-reset", "reset-delay", "potential"])
    file = made.again.file
    loops = [(a, b) for a, b in file.edges if (b, a) in file.edges]
    assert loops
    assert any(len(file.inputs_of(name)) == 2 for name, node in file.nodes.items() if node.kind == "LIF")


def test_potentials_are_named_when_they_are_lost(corpus):
    raised = raise_model(corpus / "snntorch_leaky_sub_rate_T25__ts" / "model.onnx")
    losses = ["soft-reset", "reset-delay"]
    with pytest.raises(UnsupportedModelError) as refusal:
        export(raised.graph, Discretization(DT), allowed=losses)
    assert "output 'mem_rec' of neurons 'lif2' cannot be written to NIR: its potential is an output" in str(
        refusal.value
    )
    made = export(raised.graph, Discretization(DT), allowed=[*losses, "potential"])
    assert [name for name, node in made.again.file.nodes.items() if node.kind == "Output"] == ["spk_rec"]


def test_a_count_is_an_integrator_and_a_last_potential_is_left_out(corpus):
    raised = raise_model(corpus / "cf_jitloop_count_T25__ts" / "model.onnx")
    made = export(raised.graph, Discretization(DT), allowed=["soft-reset", "reset-delay"])
    nodes = made.again.file.nodes
    assert [name for name, node in nodes.items() if node.kind == "Output"] == ["count"]
    assert [node.values["r"].tolist() for node in nodes.values() if node.kind == "I"] == [[1.0] * 10]
    assert made.left_out == ["mem"]
