"""Sessions: ports, runs, one-line errors, silence, models with weights beside them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from snn_optimizer.errors import ExecutionError, ModelLoadError
from snn_optimizer.execution import Session
from tests.support import models


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]> {text}')


def test_ports_carry_names_types_and_declared_sizes():
    session = Session(models.mlp((8, 16, 4), batch=3))
    assert [str(port) for port in session.inputs] == ["float32[T, 3, 8]"]
    assert session.outputs[0].shape == ("T", 3, 4)
    assert session.inputs[0].dtype == np.float32


def test_an_unknown_rank_is_not_taken_for_a_scalar():
    model = parsed("g (float x, float[2] y) => (float[2] z) { z = Add(x, y) }")
    assert Session(model).inputs[0].shape == ()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert Session(model).inputs[0].shape is None
    assert str(Session(model).inputs[0]) == "float32[...]"


def test_run_returns_outputs_by_name_in_the_order_asked_for():
    session = Session(models.streaming((8, 4)))
    feeds = {"x": np.ones((2, 8), np.float32), "v1": np.zeros((2, 4), np.float32)}
    assert list(session.run(feeds)) == ["spikes", "v1_next"]
    assert list(session.run(feeds, ["v1_next"])) == ["v1_next"]
    assert session.run(feeds, []) == {}


def test_scalars_keep_their_rank():
    session = Session(parsed("g (float x) => (float z) { z = Neg(x) }"))
    assert session.run({"x": np.float32(2)})["z"].shape == ()


@pytest.mark.parametrize(
    ("feeds", "outputs", "message"),
    [
        ({}, None, "input not fed: 'x'"),
        ({"x": np.zeros((2, 1, 8), np.float32), "y": 1}, None, "no such input: 'y'"),
        ({"x": np.zeros((2, 1, 8), np.float32)}, ["membrane"], "no such output: 'membrane'"),
        ({"x": np.zeros((2, 1, 8))}, None, "Unexpected input data type"),
        ({"x": np.zeros((2, 1, 7), np.float32)}, None, "Got: 7 Expected: 8"),
    ],
)
def test_wrong_feeds_are_refused_in_one_line(feeds, outputs, message):
    with pytest.raises(ExecutionError) as caught:
        Session(models.mlp((8, 4))).run(feeds, outputs)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failing_run_names_the_node_but_no_source_file_and_prints_nothing(capfd):
    session = Session(parsed("g (float[n] x, float[m] y) => (float[k] z) { z = Add(x, y) }"))
    with pytest.raises(ExecutionError) as caught:
        session.run({"x": np.zeros(3, np.float32), "y": np.zeros(5, np.float32)})
    message = str(caught.value)
    assert message.startswith("onnxruntime cannot run the model: ")
    assert "Add node" in message
    assert "onnxruntime_src" not in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("source", [b"nonsense", parsed("g (float[n] x) => (float[n] z) { z = Reshape(x, x) }")])
def test_a_model_the_runtime_refuses(source, capfd):
    with pytest.raises(ExecutionError, match=r"^onnxruntime cannot load the model: "):
        Session(source)
    assert capfd.readouterr() == ("", "")


def test_a_missing_file():
    with pytest.raises(ModelLoadError, match=r"'absent\.onnx': no such file"):
        Session("absent.onnx")


def test_types_that_are_no_arrays_are_refused_by_name():
    model = parsed("g (float[n] x) => (seq(float[n]) s) { s = SequenceConstruct(x) }")
    with pytest.raises(ExecutionError, match=r"'s' has type seq\(tensor\(float\)\)"):
        Session(model)


def test_wrong_symbolic_sizes_do_not_confuse_an_unoptimized_run():
    model = parsed(
        """g (float[n] x, bool[n] chosen) => (float[n] z) {
            few = Compress<axis = 0>(x, chosen)
            positive = Abs(few)
            sum = ReduceSum<keepdims = 1>(positive)
            a = Add(x, sum)
            b = Sub(x, a)
            z = Mul(a, b)
        }"""
    )
    # the claim that `few` is as long as `x` is wrong; a buffer reused on its strength does not fit
    for name in ("few", "positive"):
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]))
    feeds = {"x": np.ones(4, np.float32), "chosen": np.array([True, False, False, False])}
    np.testing.assert_array_equal(Session(model).run(feeds)["z"], np.full(4, -2))


def test_weights_in_another_file(tmp_path):
    model = models.mlp((8, 16, 4))
    x = models.spike_trains(5, 3, 8)
    expected = Session(model).run({"x": x})["spikes"]
    path = tmp_path / "network.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="network.data", size_threshold=100)
    np.testing.assert_array_equal(Session(path).run({"x": x})["spikes"], expected)
    skeleton = onnx.load_model(path, load_external_data=False)
    session = Session(skeleton, external_data=tmp_path)
    np.testing.assert_array_equal(session.run({"x": x})["spikes"], expected)


def test_the_optimizer_of_the_runtime_can_be_turned_on():
    x = models.spike_trains(5, 3, 8)
    outputs = [Session(models.mlp(), optimize=each).run({"x": x})["spikes"] for each in (False, True)]
    np.testing.assert_array_equal(*outputs)
