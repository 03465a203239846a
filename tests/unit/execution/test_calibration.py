"""Calibration: every form that is measured computes the product, and the result is a cost model of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from snn_optimizer.errors import InputError
from snn_optimizer.execution import Session
from snn_optimizer.execution.calibration import SHARES, _model, _undisturbed, calibrate
from snn_optimizer.projection_costs import ProjectionCosts, SpikeRows


@pytest.mark.parametrize("form", ["single", "several", "pooled", "guarded"])
def test_the_forms_compute_what_the_dense_one_does(form: str) -> None:
    dense, other = (Session(_model(each, 9, 7, np.random.default_rng(1)).to_proto()) for each in ("dense", form))
    for rows in (1,) if form == "single" else (1, 5):
        for share in (0.0, 0.3, 1.0):
            x = (np.random.default_rng(rows).random((rows, 9)) < share).astype(np.float32)
            np.testing.assert_allclose(other.run({"x": x})["y"], dense.run({"x": x})["y"], rtol=1e-5, atol=1e-6)


def test_a_calibration_is_a_cost_model_of_this_machine(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = calibrate(sizes=(8, 256), rows=(1, 4), rounds=3, progress=lambda _, done, total: seen.append((done, total)))
    assert seen == [(number, 24) for number in range(1, 25)]
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(found.to_json()))
    loaded = ProjectionCosts.load(path)
    assert loaded.mismatch() is None
    assert loaded.shares == SHARES
    assert loaded.dense_seconds(256, 256, 4) >= loaded.dense_seconds(8, 8, 1)
    assert np.isfinite(loaded.gathered_seconds("pooled", 100, 100, SpikeRows(2, 0.01, 0.02), 2))


def test_a_point_that_took_longer_than_more_work_was_disturbed() -> None:
    table = np.array([[1.0, 9.0, 3.0], [8.0, 4.0, 5.0]])
    np.testing.assert_array_equal(_undisturbed(table), [[1.0, 3.0, 3.0], [4.0, 4.0, 5.0]])


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"sizes": (64,)}, "sizes 64: give two or more"),
        ({"sizes": (64, 8)}, "sizes 64,8"),
        ({"sizes": (0, 8)}, "sizes 0,8"),
        ({"rows": (2, 8)}, "rows 2,8: the first must be 1"),
    ],
)
def test_a_grid_that_is_none_is_refused(grid: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        calibrate(**grid)
