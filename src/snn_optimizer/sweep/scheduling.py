"""Where runs are carried out: in processes of this machine, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import joblib

from snn_optimizer.errors import ExecutionError, InputError
from snn_optimizer.sweep import measure
from snn_optimizer.sweep.plan import Run
from snn_optimizer.sweep.records import Record

__all__ = ["carried_out"]

PATIENCE = 10  # seconds for a scheduler, and then for its first worker, to answer


def carried_out(runs: Sequence[Run], folder: Path, *, jobs: int, scheduler: str) -> Iterator[Record]:
    """Yield the records of runs as they are finished.

    Parameters
    ----------
    jobs : int
        Processes of this machine, each with one thread.
    scheduler : str
        Address of a Dask scheduler, which then decides how many runs go on at a time; empty for this machine.

    Raises
    ------
    InputError
        If the cluster cannot be used, or a worker sees other files.
    ExecutionError
        If a worker dies.
    """
    if not runs:
        return
    calls = [joblib.delayed(measure.execute)(run, folder) for run in runs]
    if scheduler:
        yield from _on_cluster(calls, scheduler)
        return
    with joblib.parallel_config(backend="loky", n_jobs=jobs, inner_max_num_threads=1):
        pool = _pool()
    try:
        yield from pool(calls)
    except BrokenProcessPool:
        raise ExecutionError(
            "a worker process was killed, perhaps for want of memory; what is finished is kept: run the command again "
            "with fewer --jobs"
        ) from None


def _pool() -> Any:
    # each run is long: one at a time to each worker, and none waits for its elders to be returned
    return joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")


def _on_cluster(calls: Sequence[Any], address: str) -> Iterator[Record]:
    try:
        from distributed import Client, KilledWorker  # noqa: PLC0415 - optional, and heavy
        from distributed.comm import get_address_host_port  # noqa: PLC0415
    except ImportError:
        raise InputError("--scheduler needs Dask: pip install 'snn-optimizer[sweep-cluster]'") from None
    from snn_optimizer.sweep.cluster import ClusterBackend  # noqa: PLC0415 - needs Dask

    try:
        get_address_host_port(address)  # a client of no address would try until its own time limit
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"--scheduler '{address}': no Dask scheduler answers there ({_first_line(error)}); start one with "
            "'dask scheduler' and give the address it prints, such as tcp://10.0.0.1:8786"
        ) from None
    with client:
        try:
            with joblib.parallel_config(backend=ClusterBackend(client=client, wait_for_workers_timeout=PATIENCE)):
                pool = _pool()
            _check_workers(client, address)
            yield from pool(calls)
        except TimeoutError:
            raise InputError(
                f"--scheduler '{address}' has no worker; start some with 'dask worker {address}', with the files and "
                "the folder of results at the same paths"
            ) from None
        except (KilledWorker, CancelledError) as error:
            raise ExecutionError(
                f"--scheduler '{address}': the cluster gave a run up, perhaps because its workers were killed for "
                f"want of memory ({type(error).__name__}); what is finished is kept: run the command again"
            ) from None


def _check_workers(client: Any, address: str) -> None:
    """Refuse a cluster whose workers lack this package, before it is sent anything."""
    for worker, found in client.run(find_spec, "snn_optimizer").items():
        if found is None:
            raise InputError(
                f"--scheduler '{address}': the worker {worker} cannot import snn_optimizer; install it there"
            )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
