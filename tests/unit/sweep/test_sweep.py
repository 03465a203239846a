"""A sweep computes what is missing, once, and records what fails."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from snn_optimizer.api import optimize
from snn_optimizer.errors import ExecutionError, InputError, OutputError
from snn_optimizer.execution import Session, load_dataset
from snn_optimizer.raised import raise_model
from snn_optimizer.report.costs import measure_costs
from snn_optimizer.sweep import Plan, Record, Sweep, latency, measure, run_sweep
from snn_optimizer.sweep.tables import rows_of
from snn_optimizer.verification import accuracy

CHEAP = ("dead-code", "prune{sparsity=0.3}")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.0)


@pytest.fixture
def plan(models: Path) -> Plan:
    return plan_of(models)


def plan_of(models: Path) -> Plan:
    paths = (models / f"digits_mlp.{suffix}" for suffix in ("onnx", "calib.npz", "test.npz"))
    return Plan(*paths, pipelines=CHEAP, budgets=(0.1, 0.5))


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, float | None]]:
    """Counts the runs that are carried out."""
    counts: Counter[tuple[str, float | None]] = Counter()
    real = measure.execute

    def counted(run, folder):
        counts[run.pipeline, run.budget] += 1
        return real(run, folder)

    monkeypatch.setattr(measure, "execute", counted)
    return counts


@pytest.fixture(scope="module")
def swept_once(models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Path]:
    folder = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "SECONDS", 0.0)
        return swept(plan_of(models), folder), folder


@pytest.fixture
def first(swept_once: tuple[Sweep, Path], tmp_path: Path) -> Sweep:
    """A finished sweep, and a copy of its folder in ``tmp_path``."""
    shutil.copytree(swept_once[1], tmp_path, dirs_exist_ok=True)
    return swept_once[0]


def swept(plan: Plan, folder: Path, **options) -> Sweep:
    return run_sweep(plan, folder, jobs=1, **options)


def records(sweep: Sweep) -> list[Record]:
    return [row.record for row in sweep.rows]


def test_the_figures_are_those_of_single_commands(plan: Plan, tmp_path: Path) -> None:
    found = swept(plan, tmp_path, keep_models=True)
    original, exact, _, wide = records(found)
    session = Session(plan.model)
    test = load_dataset(plan.test, session.inputs)
    assert original.verdict == "original"
    assert (original.bytes, original.latency, original.decision_change) == (plan.model.stat().st_size, 1.0, 0.0)
    assert original.accuracy_test == accuracy(session, test)
    assert original.effective_acs == measure_costs(raise_model(plan.model).graph, test).effective_acs
    assert exact.verdict == "equivalent"
    assert exact.accuracy_test == original.accuracy_test
    assert wide.verdict == "within budget"
    assert wide.nonzero_parameters < original.nonzero_parameters
    assert wide.parameters == original.parameters
    assert 0 < wide.effective_acs < original.effective_acs
    graph, report = optimize(plan.model, pipeline="prune{sparsity=0.3}", calibration=plan.calibration,
                             max_accuracy_drop=0.5, test=plan.test)  # fmt: skip
    assert wide.nonzero_parameters == graph.nonzero_params
    assert (wide.accuracy_test, wide.decision_change) == (report.accuracy_after, report.decisions_changed)
    model = tmp_path / found.rows[3].model
    assert wide.bytes == model.stat().st_size
    assert accuracy(Session(model), load_dataset(plan.calibration, session.inputs)) == wide.accuracy_calibration
    assert all(record.latency > 0 and record.latency_ms > 0 for record in records(found))


def test_a_second_sweep_computes_nothing(first: Sweep, plan: Plan, tmp_path: Path, executed) -> None:
    assert (first.executed, first.reused) == (4, 0)
    table = (tmp_path / "sweep.csv").read_bytes()
    second = swept(plan, tmp_path)
    assert not executed
    assert (second.executed, second.reused) == (0, 4)
    assert records(second) == records(first)
    assert (tmp_path / "sweep.csv").read_bytes() == table


def test_another_budget_computes_only_what_is_new(first: Sweep, plan: Plan, tmp_path: Path, executed) -> None:
    found = swept(replace(plan, budgets=(0.5, 0.7)), tmp_path)
    assert executed == {(CHEAP[1], 0.7): 1}
    assert [record.budget for record in records(found)] == [None, None, 0.5, 0.7]


@pytest.mark.parametrize("damage", ["", "{", "[]", "no-field", "wrong-type", "wrong-key"])
def test_a_damaged_result_is_computed_again(first: Sweep, plan: Plan, tmp_path: Path, executed, damage: str) -> None:
    record = first.rows[2].record
    path = tmp_path / "runs" / f"{record.key}.json"
    data = json.loads(path.read_text())
    if damage == "no-field":
        del data["neurons"]
    data |= {"wrong-type": {"neurons": "many"}, "wrong-key": {"key": first.rows[3].record.key}}.get(damage, {})
    path.write_text(damage if len(damage) < 3 else json.dumps(data))
    again = swept(plan, tmp_path)
    assert executed == {(record.pipeline, record.budget): 1}
    assert again.rows[2].record.nonzero_parameters == record.nonzero_parameters


def test_fresh_starts_over(first: Sweep, plan: Plan, tmp_path: Path, executed) -> None:
    assert swept(plan, tmp_path, fresh=True).executed == 4
    assert sum(executed.values()) == 4


def test_an_interrupted_sweep_goes_on(plan: Plan, tmp_path: Path, executed, monkeypatch) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swept(plan, tmp_path, progress=interrupt)
    done = len(list((tmp_path / "runs").iterdir()))
    assert done == 2
    assert not (tmp_path / "sweep.json").exists()
    found = swept(plan, tmp_path)
    assert set(executed.values()) == {1}
    assert (found.executed, found.reused) == (2, 2)
    assert all(record.latency is not None for record in records(found))


def test_models_are_kept_when_asked_for(first: Sweep, plan: Plan, tmp_path: Path, executed) -> None:
    assert not list((tmp_path / "models").iterdir())
    assert {row.model for row in first.rows} == {""}
    kept = swept(plan, tmp_path, keep_models=True)
    assert sum(executed.values()) == 3  # all but the original: their models were not there
    assert all((tmp_path / row.model).is_file() for row in kept.rows[1:])
    executed.clear()
    (tmp_path / kept.rows[3].model).write_bytes(b"broken")
    swept(plan, tmp_path, keep_models=True)
    assert executed == {(CHEAP[1], 0.5): 1}


def test_what_a_budget_forbids_is_rolled_back_and_said(plan: Plan, tmp_path: Path) -> None:
    found = swept(replace(plan, pipelines=("prune{sparsity=0.9}",), budgets=(0.0,)), tmp_path)
    record = records(found)[1]
    assert record.reason.startswith("prune rolled back: ")
    assert record.nonzero_parameters == records(found)[0].nonzero_parameters
    assert (record.verdict, found.exit_code) == ("equivalent", 0)


def test_a_run_that_fails_is_a_row_and_ends_nothing(plan: Plan, tmp_path: Path, executed, monkeypatch) -> None:
    real = measure.run_job

    def failing(model, job):
        if job.pipeline == "dead-code":
            raise ExecutionError("the runtime gave up")
        return real(model, job)

    monkeypatch.setattr(measure, "run_job", failing)
    found = swept(plan, tmp_path)
    failed = records(found)[1]
    assert (failed.verdict, failed.reason, failed.exit_code) == ("failed", "the runtime gave up", 4)
    assert failed.bytes is None
    assert found.rows[1].fronts == ()
    assert found.exit_code == 4
    assert all(record.latency is not None for record in records(found) if record is not failed)
    executed.clear()
    assert swept(plan, tmp_path).exit_code == 4
    assert not executed


def test_a_defect_is_shown_and_tried_again(plan: Plan, tmp_path: Path, executed, monkeypatch) -> None:
    real = measure.run_job

    def failing(model, job):
        if job.pipeline == "dead-code":
            raise ZeroDivisionError("a defect")
        return real(model, job)

    monkeypatch.setattr(measure, "run_job", failing)
    found = swept(plan, tmp_path)
    assert records(found)[1].reason == "internal error: ZeroDivisionError: a defect"
    assert found.exit_code == 3
    monkeypatch.setattr(measure, "run_job", real)
    executed.clear()
    assert swept(plan, tmp_path).exit_code == 0
    assert executed == {("dead-code", None): 1}


def test_data_that_changes_under_way_ends_the_sweep(plan: Plan, tmp_path: Path, monkeypatch) -> None:
    calibration = tmp_path / "calib.npz"
    shutil.copy(plan.calibration, calibration)
    changed = replace(plan, calibration=calibration)
    runs = changed.runs()
    arrays = dict(np.load(calibration))
    np.savez(calibration, **(arrays | {"labels": arrays["labels"][::-1]}))
    with pytest.raises(InputError, match=r"calib.npz' has changed since the sweep began"):
        measure.execute(runs[0], tmp_path)
    with pytest.raises(InputError, match=r"a worker has snn_optimizer .*, the sweep was planned with 0.0"):
        measure.execute(replace(runs[0], version="0.0"), tmp_path)


def test_processes_find_the_same(first: Sweep, plan: Plan, tmp_path: Path) -> None:
    together = run_sweep(plan, tmp_path / "two", jobs=2)
    timed = {"latency": None, "latency_ms": None, "seconds": 0.0}
    assert [replace(r, **timed) for r in records(first)] == [replace(r, **timed) for r in records(together)]


def test_the_files_hold_the_rows(first: Sweep, tmp_path: Path) -> None:
    data = json.loads((tmp_path / "sweep.json").read_text())
    with (tmp_path / "sweep.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert data == first.to_json()
    assert data["merit"] == "accuracy_test"
    assert [row["pipeline"] for row in table] == ["", "dead-code", CHEAP[1], CHEAP[1]]
    for line, row in zip(table, data["rows"], strict=True):
        assert line == {name: "" if value is None else str(value) for name, value in row.items()}


def test_an_unusable_folder_is_refused_before_anything_runs(plan: Plan, tmp_path: Path, executed) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        swept(plan, tmp_path / "file")
    assert not executed


def test_only_sound_results_stand_on_a_front() -> None:
    def record(key: str, accuracy: float, size: int, **more) -> Record:
        costs = {"effective_macs": 0.0, "effective_acs": float(size), "latency": size / 10}
        return Record(key, "p", 0.0, 0, "within budget", accuracy_test=accuracy, bytes=size, **(costs | more))

    found = rows_of(
        [
            record("a", 0.9, 10),
            record("b", 0.8, 5, latency=2.0),
            record("c", 0.99, 1, exit_code=1),
            record("d", 0.8, 6),
        ],
        ["", "", "", ""],
    )
    assert [row.fronts for row in found] == [
        ("bytes", "operations", "latency"), ("bytes", "operations"), (), ("latency",),
    ]  # fmt: skip


def test_without_labels_decisions_are_compared() -> None:
    plain = Record("a", "", None, 0, "original", bytes=9, decision_change=0.0)
    other = Record("b", "p", 0.1, 0, "within budget", bytes=5, decision_change=0.25)
    assert [row.merit for row in rows_of([plain, other], ["", ""])] == [1.0, 0.75]


def test_records_survive_json() -> None:
    record = Record("a", "p", 0.0, 3, "failed", "why", 4, decision_change=0.5)
    assert Record.from_json(json.loads(json.dumps(asdict(record)))) == record
