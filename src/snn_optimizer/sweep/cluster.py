"""joblib's Dask backend, with the errors of the cluster itself reported."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from joblib._dask import DaskDistributedBackend

__all__ = ["ClusterBackend"]


class ClusterBackend(DaskDistributedBackend):  # type: ignore[misc]  # joblib has no types
    """Reports tasks that Dask gives up: their worker died, or cannot read them, or the scheduler is gone.

    joblib's own (1.6) hears of what a task returns and raises, and waits without end for a task that never ran.
    """

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Send a batch; ``callback`` hears of its end, whichever that is."""
        future = super().submit(func, callback)

        def report(done: Future[Any]) -> None:
            if callback is not None and done.exception() is not None:
                callback(done.exception())

        future.add_done_callback(report)
        return future

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return what a batch returned, or raise why there is nothing."""
        if isinstance(out, BaseException):
            raise out
        return super().retrieve_result_callback(out)
