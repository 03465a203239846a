"""A sweep on a Dask cluster of two processes finds what it finds alone; a cluster that fails is named."""

from __future__ import annotations

import builtins
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import joblib
import pytest

from snn_optimizer.errors import ExecutionError, InputError
from snn_optimizer.sweep import Plan, latency, run_sweep, scheduling

distributed = pytest.importorskip("distributed", reason="Dask is not installed (extra 'sweep-cluster')")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of Dask's own sockets and loops


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    import dask

    settings = {"distributed.scheduler.allowed-failures": 0, "distributed.comm.timeouts.connect": "10s"}
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            processes=True, n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as local,
    ):
        yield local.scheduler_address


@pytest.fixture
def plan(models: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(latency, "SECONDS", 0.0)
    paths = (models / f"digits_mlp.{suffix}" for suffix in ("onnx", "calib.npz", "test.npz"))
    return Plan(*paths, pipelines=("prune{sparsity=0.3}",), budgets=(0.1, 0.5))


def test_a_cluster_finds_the_same(plan: Plan, cluster: str, tmp_path: Path) -> None:
    far = run_sweep(plan, tmp_path / "far", scheduler=cluster)
    near = run_sweep(plan, tmp_path / "near", jobs=1)
    assert far.executed == 3
    timed = {"latency": None, "latency_ms": None, "seconds": 0.0}
    assert [replace(r.record, **timed) for r in far.rows] == [replace(r.record, **timed) for r in near.rows]
    assert run_sweep(plan, tmp_path / "far", scheduler=cluster).executed == 0


def test_an_error_of_a_worker_arrives(plan: Plan, cluster: str, tmp_path: Path) -> None:
    runs = [replace(run, version="0.0") for run in plan.runs()]
    with pytest.raises(InputError, match=r"the sweep was planned with 0\.0"):
        list(scheduling.carried_out(runs, tmp_path, jobs=1, scheduler=cluster))


def test_a_worker_that_dies_is_reported(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExecutionError, match=r"the cluster gave a run up.*KilledWorker"):
        list(scheduling._on_cluster([joblib.delayed(os._exit)(1)], cluster))


def test_nobody_at_the_address(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "PATIENCE", 1)
    start = time.monotonic()
    for address in ("tcp://127.0.0.1:9", "nowhere", "foo://127.0.0.1:9"):
        with pytest.raises(InputError, match=f"--scheduler '{address}': no Dask scheduler answers there"):
            run_sweep(plan, tmp_path, scheduler=address)
    assert time.monotonic() - start < 60
    assert not list((tmp_path / "runs").iterdir())


def test_a_cluster_without_workers(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "PATIENCE", 2)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=None, host="127.0.0.1") as empty,
        pytest.raises(InputError, match="has no worker"),
    ):
        run_sweep(plan, tmp_path, scheduler=empty.scheduler_address)


def test_without_dask(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name, *arguments, **more):
        if name.startswith("distributed"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InputError, match=r"pip install 'snn-optimizer\[sweep-cluster\]'"):
        run_sweep(plan, tmp_path, scheduler="tcp://127.0.0.1:9")
