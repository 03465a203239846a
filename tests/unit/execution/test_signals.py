"""What linear nodes read, with time and samples in front."""

from __future__ import annotations

import numpy as np
import onnx

from snn_optimizer.execution import Dataset, Session
from snn_optimizer.execution.signals import Signals


def test_rows_with_as_many_channels_as_samples_are_rows() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 18]> g (float[3, 1, 4, 4] x) => (float[3, 1, 4, 4] y)
        <float[1, 1, 1, 1] w = {2.0}> { rows = Neg(x) y = Conv(rows, w) }"""
    )
    x = np.arange(48, dtype=np.float32).reshape(3, 1, 4, 4)
    data = Dataset.from_arrays({"x": x}, Session(model).inputs)
    assert (data.steps, data.samples) == (3, 1)
    (steps,) = Signals(model, data, ["rows"]).record().values()
    assert steps.shape == (3, 1, 4, 4)
    (rows,) = Signals(model, data, ["rows"], rows=["rows"]).record().values()
    assert rows.shape == (3, 1, 1, 4, 4)
    np.testing.assert_array_equal(rows[:, 0], -x)
