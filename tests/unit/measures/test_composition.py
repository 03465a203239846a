"""The bytes of a file by kind add up, and each byte is where it belongs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from snn_optimizer.errors import ModelLoadError
from snn_optimizer.measures import composition_of
from tests.support.models import mlp, recurrent


def saved(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("model", [mlp(), mlp((64, 200, 10)), recurrent()], ids=["small", "large weights", "recurrent"])
def test_the_kinds_add_up_to_the_file(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = saved(model, tmp_path / "net.onnx")
    found = composition_of(path)
    assert found.total == path.stat().st_size
    assert found.functions == sum(len(helper_size(function)) for function in model.functions)
    held = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert held <= found.weights <= held + 6 * len(model.graph.initializer)  # tag and length of each
    assert found.metadata == 0


def helper_size(function: onnx.FunctionProto) -> bytes:
    one = onnx.ModelProto()
    one.functions.append(function)
    return one.SerializeToString()


@pytest.mark.parametrize(
    "annotate",
    [
        lambda model: setattr(model, "doc_string", "d" * 500),
        lambda model: setattr(model.graph.node[0], "doc_string", "d" * 500),
        lambda model: model.metadata_props.add(key="k" * 100, value="v" * 400),
        lambda model: model.graph.node[1].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="v" * 500),
        lambda model: model.graph.initializer[0].metadata_props.add(key="k" * 100, value="v" * 400),
    ],
)
def test_notes_are_metadata(annotate, tmp_path: Path) -> None:
    model = mlp((64, 200, 10))
    before = composition_of(saved(model, tmp_path / "before.onnx"))
    annotate(model)
    after = composition_of(saved(model, tmp_path / "after.onnx"))
    assert 500 < after.metadata < 560
    assert (after.weights, after.functions) == (before.weights, before.functions)
    assert abs(after.graph - before.graph) <= 8  # lengths of the enclosing messages


def test_external_weights_count(tmp_path: Path) -> None:
    model = mlp((64, 200, 10))
    inside = composition_of(saved(model, tmp_path / "inside.onnx"))
    onnx.save_model(model, tmp_path / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=1024)
    found = composition_of(tmp_path / "net.onnx")
    assert found.total == (tmp_path / "net.onnx").stat().st_size + (tmp_path / "w.bin").stat().st_size
    assert abs(found.weights - inside.weights) < 200
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelLoadError, match=r"w\.bin.*No such file"):
        composition_of(tmp_path / "net.onnx")


def test_tensors_in_bodies_and_attributes_are_weights(tmp_path: Path) -> None:
    large = numpy_helper.from_array(np.ones((100, 100), np.float32), "large")
    node = helper.make_node("Constant", [], ["y"], value=large)
    body = helper.make_graph([node], "body", [], [helper.make_tensor_value_info("y", 1, (100, 100))])
    outer = helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body)
    info = [helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, ())]
    graph = helper.make_graph([outer], "g", info, [helper.make_tensor_value_info("z", 1, (100, 100))])
    found = composition_of(saved(helper.make_model(graph), tmp_path / "net.onnx"))
    assert 80_000 <= found.weights < 80_100


def test_what_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(ModelLoadError, match="not an ONNX model"):
        composition_of(path)
