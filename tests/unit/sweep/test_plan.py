"""What a sweep runs, and that a run's key is that of everything its result depends on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from snn_optimizer.errors import DataError, InputError, ModelLoadError, PassOptionError, UnknownPassError
from snn_optimizer.ir import InputDomain
from snn_optimizer.sweep import Plan


@pytest.fixture
def plan(models: Path, tmp_path: Path) -> Plan:
    for name in ("digits_mlp.onnx", "digits_mlp.calib.npz", "digits_mlp.test.npz"):
        shutil.copy(models / name, tmp_path)
    paths = (tmp_path / f"digits_mlp.{suffix}" for suffix in ("onnx", "calib.npz", "test.npz"))
    return Plan(*paths, pipelines=("@O2", "@Oz"), budgets=(0, 0.01), seeds=(0, 1))


def keys(plan: Plan) -> list[str]:
    return [run.key for run in plan.runs()]


def test_every_pipeline_runs_within_every_budget(plan: Plan) -> None:
    found = [(run.pipeline, run.budget, run.seed) for run in plan.runs()]
    exact = [("@O2", None, 0), ("@O2", None, 1)]
    assert found == [("", None, 0), *exact, ("@Oz", 0, 0), ("@Oz", 0, 1), ("@Oz", 0.01, 0), ("@Oz", 0.01, 1)]
    assert len(set(keys(plan))) == 7
    assert plan.runs()[-1].limits.limits() == [("accuracy_drop", 0.01)]


def test_the_same_asked_for_twice_runs_once(plan: Plan) -> None:
    assert keys(replace(plan, pipelines=("@O2", "@Oz", " @Oz"), budgets=(0, 0.01, 0.01))) == keys(plan)


def test_keys_hold_everything_the_result_depends_on(plan: Plan) -> None:
    before = keys(plan)
    assert keys(plan) == before
    assert not set(keys(replace(plan, domain=InputDomain((-1, 1))))) & set(before)
    other_kind = keys(replace(plan, budget_kind="spike-change"))
    assert other_kind[:3] == before[:3]  # neither the original nor an exact pipeline spends a budget
    assert not set(other_kind[3:]) & set(before)


@pytest.mark.parametrize("suffix", ["calib.npz", "test.npz"])
def test_keys_follow_the_data_and_not_its_packing(plan: Plan, suffix: str) -> None:
    before, path = keys(plan), plan.model.with_name(f"digits_mlp.{suffix}")
    arrays = dict(np.load(path))
    np.savez(path, **dict(reversed(arrays.items())))
    assert keys(plan) == before
    labels = arrays["labels"]
    np.savez(path, **(arrays | {"labels": np.roll(labels, 1)}))
    assert not set(keys(plan)) & set(before)


def test_keys_follow_the_model(plan: Plan) -> None:
    before, model = keys(plan), onnx.load(plan.model)
    onnx.save(model, plan.model)
    assert keys(plan) == before
    weights = np.array(onnx.numpy_helper.to_array(model.graph.initializer[0]))
    weights.flat[0] += 1
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, model.graph.initializer[0].name))
    onnx.save(model, plan.model)
    assert not set(keys(plan)) & set(before)


def test_a_drop_of_accuracy_needs_labels(plan: Plan) -> None:
    arrays = dict(np.load(plan.calibration))
    del arrays["labels"]
    np.savez(plan.calibration, **arrays)
    with pytest.raises(InputError, match=r"no labels.*--budget-kind decision-change"):
        plan.runs()
    assert len(replace(plan, budget_kind="decision-change").runs()) == 7
    assert len(replace(plan, pipelines=("@O2",)).runs()) == 3


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"budgets": (0, 1.5)}, InputError),
        ({"budgets": ()}, InputError),
        ({"pipelines": ()}, InputError),
        ({"pipelines": ("",)}, InputError),
        ({"pipelines": ("prun",)}, UnknownPassError),
        ({"pipelines": ("prune{sparsity=2}",)}, PassOptionError),
        ({"seeds": (-1,)}, InputError),
        ({"budget_kind": "size"}, InputError),
        ({"model": Path("absent.onnx")}, ModelLoadError),
        ({"test": Path("absent.npz")}, DataError),
    ],
)
def test_mistakes_are_found_before_anything_runs(plan: Plan, change: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        replace(plan, **change).runs()
