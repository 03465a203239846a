"""The cost model: measured points come back, points between them lie between, damaged files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from snn_optimizer.errors import InputError
from snn_optimizer.projection_costs import ProjectionCosts, SpikeRows, default_path, this_machine
from tests.support.costs import imagined_costs, write_costs

ROWS, SHARES = (1, 4, 16), (0.0, 0.1, 0.4)


def measured() -> ProjectionCosts:
    generator = np.random.default_rng(0)
    dense = np.array([[[1.0, 2, 4], [2, 4, 8]], [[4, 8, 16], [8, 16, 32]]]) * 1e-6
    return imagined_costs(
        dense=dense, single=generator.random((2, 2, 3)) + 1, several=generator.random((2, 2, 3, 3)) + 1,
        pooled=generator.random((2, 2, 3, 3)) + 1, sizes=(64, 256), rows=ROWS, shares=SHARES,
    )  # fmt: skip


def test_measured_points_come_back() -> None:
    costs = measured()
    for i, inputs in enumerate(costs.inputs):
        for j, outputs in enumerate(costs.outputs):
            for k, rows in enumerate(ROWS):
                assert costs.dense_seconds(inputs, outputs, rows) == pytest.approx(costs.dense[i, j, k])
                for s, share in enumerate(SHARES):
                    seen = SpikeRows(rows, share, share)
                    for form, table in (("several", costs.several), ("pooled", costs.pooled)):
                        found = costs.gathered_seconds(form, inputs, outputs, seen, rows)
                        assert found == pytest.approx(table[i, j, k, s])
                    assert costs.gathered_seconds("single", inputs, outputs, seen, 1) == pytest.approx(
                        costs.single[i, j, s]
                    )


def test_times_between_follow_powers_of_the_sizes_and_the_share_itself() -> None:
    costs = measured()
    assert costs.dense_seconds(128, 64, 1) == pytest.approx(2e-6)  # half way on both logarithmic scales
    assert costs.dense_seconds(64, 64, 8) == pytest.approx(np.sqrt(2 * 4) * 1e-6)
    half = costs.gathered_seconds("single", 64, 64, SpikeRows(1, 0.25, 0.25), 1)
    assert half == pytest.approx((costs.single[0, 0, 1] + costs.single[0, 0, 2]) / 2)


def test_the_two_shares_are_read_by_the_forms_they_belong_to() -> None:
    costs = measured()
    seen = SpikeRows(4, 0.1, 0.4)
    assert costs.gathered_seconds("several", 64, 64, seen, 4) == pytest.approx(costs.several[0, 0, 1, 1])
    assert costs.gathered_seconds("pooled", 64, 64, seen, 4) == pytest.approx(costs.pooled[0, 0, 1, 2])


def test_more_rows_than_measured_cost_in_proportion_and_more_activity_is_unknown() -> None:
    costs = measured()
    assert costs.dense_seconds(64, 64, 48) == pytest.approx(3 * costs.dense_seconds(64, 64, 16))
    assert costs.gathered_seconds("single", 64, 64, SpikeRows(1, 0.41, 0.41), 1) == np.inf
    assert costs.covers(64, 256)
    assert not costs.covers(63, 64)
    assert not costs.covers(64, 257)


def test_a_file_keeps_everything(tmp_path: Path) -> None:
    costs = measured()
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(costs.to_json()))
    loaded = ProjectionCosts.load(path)
    assert loaded.to_json() == costs.to_json()
    assert loaded.mismatch() is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not written by this version"),
        ({"version": 99}, "not written by this version"),
        ({"rows": [2, 8, 64]}, "'rows' must start with 1"),
        ({"inputs": [64, 64]}, "'inputs' must be increasing"),
        ({"dense": [[1.0]]}, "'dense' must be"),
        ({"guard": 0}, "'guard' must be"),
        ({"single": None}, "damaged"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    path = write_costs(tmp_path / "costs.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message) as refused:
        ProjectionCosts.load(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; 'snnopt bench --calibrate"):
        ProjectionCosts.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        ProjectionCosts.load(tmp_path)
    (tmp_path / "text").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        ProjectionCosts.load(tmp_path / "text")


def test_another_machine_or_runtime_is_noticed() -> None:
    other = this_machine() | {"processor": "Abacus"}
    assert "processor is 'Abacus'" in (imagined_costs(machine=other).mismatch() or "")
    assert "onnxruntime is '0.1'" in (imagined_costs(runtime="0.1").mismatch() or "")


def test_the_place_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SNNOPT_COSTS", str(tmp_path / "here.json"))
    assert default_path() == tmp_path / "here.json"
    monkeypatch.delenv("SNNOPT_COSTS")
    assert default_path().name == "projection-costs.json"
    assert default_path().parent.name == "snn_optimizer"
