"""Any raised network can be written step by step, as a loop and over all steps, and runs the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from snn_optimizer.api import Job, run_job
from snn_optimizer.errors import UnsupportedModelError
from snn_optimizer.ir import SNNGraph
from snn_optimizer.lowering.emit import as_step, emit
from snn_optimizer.verification.forms import Form, compare_forms
from tests.support.unrolling import Habits, Layer, Network, scan_model, unroll

UNROLLED = [
    "snntorch_leaky_sub_rate_T25__ts",
    "snntorch_rleaky_T10__dynamo",
    "snntorch_synaptic_sub_T25__dynamo",
    "norse_conv_lif_T10__ts",
    "sinabs_iaf_mlp_T12__dynamo",
    "sj2_sew_resnet_add_m_T4__dynamo",
    "sj2_lif_hard_decay_s_T10__dynamo",
]
STEPS = ["snntorch_leaky_sub_rate_T25__step_ts", "norse_lif_li_T25__step_dynamo", "snntorch_rleaky_T10__step_ts"]


@pytest.mark.parametrize("name", UNROLLED)
def test_an_unrolled_export_becomes_a_streaming_model(corpus, name) -> None:
    graph, report = run_job(corpus / name / "model.onnx", Job(pipeline="@O1", emit="step", verify=False))
    assert "equal to those" in report.form
    step, streaming = as_step(graph)
    assert streaming
    assert set(step.states) <= {value.name for value in graph.module.graph.inputs}
    assert set(step.states.values()) <= {value.name for value in graph.module.graph.outputs}


@pytest.mark.parametrize("form", ["sequence", "scan"])
@pytest.mark.parametrize("name", STEPS)
def test_a_streaming_model_becomes_one_for_any_number_of_steps(corpus, name, form) -> None:
    graph, report = run_job(corpus / name / "model.onnx", Job(pipeline="@O1", emit=form, verify=False))
    assert "equal to those" in report.form
    assert any("T" in (value.shape or ()) for value in graph.module.graph.inputs)
    loops = [node.op for node in graph.module.graph.nodes if node.op == "Scan"]
    assert (form == "scan") <= bool(loops)


@pytest.mark.parametrize("name", ["digits_mlp", "digits_conv", "digits_residual", "digits_recurrent", "digits_cuba"])
@pytest.mark.parametrize("form", ["step", "scan"])
def test_our_own_models_have_every_form(models, name, form) -> None:
    _, report = run_job(models / f"{name}.onnx", Job(pipeline="@hygiene", emit=form, verify=False))
    assert "equal to those" in report.form


def test_there_and_back_is_the_network_of_before(corpus) -> None:
    path = corpus / "snntorch_leaky_sub_rate_T25__dynamo" / "model.onnx"
    step, _ = run_job(path, Job(pipeline="@O1", emit="step", verify=False))
    back, report = run_job(step, Job(pipeline="@O1", emit="sequence", verify=False))
    assert report.form
    assert back.total_neurons == step.total_neurons == 138
    assert [node.op for node in back.module.graph.nodes].count("Gemm") == 2


def test_what_needs_all_steps_at_once_is_refused_by_name() -> None:
    network = Network((Layer(5), Layer(3)))
    model = unroll(network, 6, Habits())
    model.graph.node.append(
        onnx.helper.make_node("Softmax", [model.graph.output[0].name], ["mixed"], axis=0, name="mix")
    )
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("mixed", onnx.TensorProto.FLOAT, [6, None, 3]))
    graph, _ = run_job(SNNGraph.from_onnx(model), Job(pipeline="@O1", verify=False))
    with pytest.raises(UnsupportedModelError, match=r"'mix' \(Softmax\) needs several steps"):
        emit(graph, "step")


def test_an_unknown_form_is_refused(models) -> None:
    with pytest.raises(UnsupportedModelError, match="sequence, step, scan"):
        emit(SNNGraph.from_onnx(models / "digits_mlp.onnx"), "parallel")


def test_a_batch_first_network_is_compared_with_its_time_first_loop() -> None:
    model = scan_model(Network((Layer(4), Layer(3))), Habits(time_axis=1))
    _, report = run_job(model, Job(pipeline="loop-to-scan", emit="scan", verify=False))
    assert "equal to those" in report.form


@pytest.mark.parametrize("shape", [(3, 8, 4), (8,)])
def test_outputs_of_other_shapes_are_a_problem_by_name(shape) -> None:
    text = '<ir_version: 10, opset_import: ["" : 18]> g (float[8, 3, 4] x) => (float[SHAPE] y) { y = Reshape(x, to) }'
    models = []
    for sizes in ((8, 3, 4), (*shape, 96 // int(np.prod(shape)))):
        model = onnx.parser.parse_model(text.replace("SHAPE", ", ".join("ABCD"[: len(sizes)])))
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(sizes, np.int64), "to"))
        models.append(model)
    form = Form(False, {"x": 0}, steps=8)
    check = compare_forms(models[0], form, models[1], form)
    assert "output 'y' has shape" in check.problem
