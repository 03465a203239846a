"""Reading models and telling them apart."""

from __future__ import annotations

import onnx
import pytest

from snn_optimizer.errors import ModelLoadError
from snn_optimizer.execution import model_digest
from snn_optimizer.execution.source import read_model
from tests.support import models


def test_a_file_its_bytes_and_its_message_have_one_digest(tmp_path):
    model = models.mlp()
    path = tmp_path / "network.onnx"
    onnx.save_model(model, path)
    assert model_digest(path) == model_digest(model) == model_digest(path.read_bytes())


def test_one_weight_changes_the_digest():
    model = models.mlp()
    weight = models.initializer(model, "fc1.weight")
    weight[0, 0] += 1
    assert model_digest(models.with_initializer(model, "fc1.weight", weight)) != model_digest(model)


def test_weights_in_another_file_count(tmp_path):
    path = tmp_path / "network.onnx"
    onnx.save_model(models.mlp(), path, save_as_external_data=True, location="weights", size_threshold=100)
    before = model_digest(path)
    data = bytearray((tmp_path / "weights").read_bytes())
    data[0] ^= 1
    (tmp_path / "weights").write_bytes(data)
    assert model_digest(path) != before
    (tmp_path / "weights").unlink()
    with pytest.raises(ModelLoadError, match="external data 'weights': No such file"):
        model_digest(path)


@pytest.mark.parametrize("content", [b"\xff" * 40, b"\x08"])
def test_files_that_are_no_models(tmp_path, content):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match="not an ONNX model, or truncated"):
        read_model(path)
    with pytest.raises(ModelLoadError, match="the bytes: not an ONNX model"):
        read_model(content)


def test_a_folder_is_no_model(tmp_path):
    with pytest.raises(ModelLoadError, match="cannot be read"):
        read_model(tmp_path)
