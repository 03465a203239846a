"""The reference of ONNX as a second implementation of the same models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from snn_optimizer.errors import ExecutionError
from snn_optimizer.execution import Session
from snn_optimizer.execution.reference import ReferenceSession
from tests.support import models


@pytest.mark.parametrize("model", [models.mlp((8, 16, 4)), models.recurrent(inputs=8), models.streaming()])
def test_it_computes_the_spikes_of_the_runtime(model):
    feeds = {
        port.name: models.spike_trains(*(3 if isinstance(size, str) else size for size in port.shape))
        for port in Session(model).inputs
    }
    expected, found = Session(model).run(feeds), ReferenceSession(model).run(feeds)
    assert list(found) == list(expected)
    assert expected["spikes"].any()
    np.testing.assert_array_equal(found["spikes"], expected["spikes"])


def test_weights_beside_the_file_are_read(tmp_path: Path):
    model = models.mlp((8, 16, 4))
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    feeds = {"x": models.spike_trains(6, 2, 8)}
    np.testing.assert_array_equal(
        ReferenceSession(tmp_path / "net.onnx").run(feeds)["spikes"],
        Session(models.mlp((8, 16, 4))).run(feeds)["spikes"],
    )
    (tmp_path / "net.data").unlink()
    with pytest.raises(ExecutionError, match="external weights"):
        ReferenceSession(tmp_path / "net.onnx")


def test_what_it_does_not_know_is_one_line():
    model = models.mlp((8, 16, 4))
    node = model.graph.node[0]
    node.domain, node.op_type = "nobody", "Knows"
    model.opset_import.append(onnx.helper.make_opsetid("nobody", 1))
    with pytest.raises(ExecutionError, match="reference cannot load the model") as caught:
        ReferenceSession(model)
    assert "\n" not in str(caught.value)


def test_a_wrong_input_is_one_line():
    with pytest.raises(ExecutionError, match="reference cannot run the model") as caught:
        ReferenceSession(models.mlp((8, 16, 4))).run({"x": np.zeros((2, 2, 9), np.float32)})
    assert "\n" not in str(caught.value)
