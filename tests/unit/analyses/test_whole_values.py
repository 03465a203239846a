"""Whole numbers through the loops that carry them, and nothing that only looks like one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from snn_optimizer.analyses import AnalysisManager
from snn_optimizer.analyses.whole_values import WholeValues
from snn_optimizer.ir import SNNGraph, bodies_of
from snn_optimizer.ops import NeuronVariant
from tests.support.models import ModelBuilder, recurrent


def whole(model: onnx.ModelProto) -> dict[str, int]:
    """The largest number of every value that is whole, by name; those of bodies included."""
    module = SNNGraph.from_onnx(model).module
    facts = AnalysisManager(module).get(WholeValues)
    graphs = [module.graph, *(body for node in module.graph.nodes for _, body in bodies_of(node))]
    values = [v for g in graphs for v in (*g.inputs, *(out for node in g.nodes for out in node.outputs))]
    return {value.name: most for value in values if (most := facts.of(value)) is not None}


def test_spikes_that_a_layer_reads_of_the_step_before() -> None:
    found = whole(recurrent())
    assert {name: found.get(name) for name in ("s", "s_next", "s_out", "spikes", "s.final")} == dict.fromkeys(
        ("s", "s_next", "s_out", "spikes", "s.final"), 1
    )
    assert not {"v", "v_next", "v.final", "x", "x_step"} & set(found)


def test_counts_are_whole_up_to_their_limit() -> None:
    assert whole(recurrent(variant=NeuronVariant("LIF", max_spikes=3)))["s"] == 3
    assert "s" not in whole(recurrent(variant=NeuronVariant("LIF", max_spikes=0)))
    assert "s" not in whole(recurrent(variant=NeuronVariant("LIF", max_spikes=300)))


@pytest.mark.parametrize(("start", "expected"), [(0.0, 1), (4.0, 4), (0.5, None), (-1.0, None), (256.0, None)])
def test_a_loop_starts_with_whole_numbers(start: float, expected: int | None) -> None:
    model = recurrent()
    fill = next(node for node in model.graph.node if node.op_type == "ConstantOfShape")
    fill.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.array([start], np.float32))))
    found = whole(model)
    assert found.get("s") == expected
    assert found.get("s.final") == expected
    assert found["spikes"] == 1  # what a step emits does not depend on it


def test_what_a_loop_adds_up_has_no_limit() -> None:
    builder = ModelBuilder()
    builder.node("Add", ["total", "x_step"], "total_next")
    builder.node("Identity", ["total_next"], "out")
    body = builder.body("step", ("total", "x_step"), ("total_next", "out"), (None, None))
    builder.input("x", ("T", 2, 3), np.uint8)
    builder.node("Cast", ["x"], "real", to=1)
    builder.constant("start", np.zeros((2, 3)))
    builder.nodes.append(
        helper.make_node("Scan", ["start", "real"], ["final", "all"], name="loop", num_scan_inputs=1, body=body)
    )
    builder.output("all", ("T", 2, 3))
    found = whole(builder.build())
    assert found["x_step"] == 255
    assert not {"total", "total_next", "out", "final", "all"} & set(found)


def test_a_value_that_two_steps_pass_on() -> None:
    """What was a spike two steps ago is one."""
    builder = ModelBuilder()
    for source, target in (("b", "a_next"), ("x_step", "b_next"), ("a", "out")):
        builder.node("Identity", [source], target)
    body = builder.body("step", ("a", "b", "x_step"), ("a_next", "b_next", "out"), (None, None))
    builder.input("x", ("T", 2, 3), np.bool_)
    builder.node("Cast", ["x"], "real", to=1)
    builder.constant("start", np.zeros((2, 3)))
    builder.nodes.append(
        helper.make_node(
            "Scan", ["start", "start", "real"], ["a_last", "b_last", "all"], name="loop", num_scan_inputs=1, body=body
        )
    )
    builder.output("all", ("T", 2, 3))
    found = whole(builder.build())
    assert [found.get(name) for name in ("a", "b", "out", "all", "a_last")] == [1, 1, 1, 1, 1]
