"""The same bits whatever the number of threads.

Linear algebra on several threads splits sums elsewhere than on one: the last bits of a refitted
weight, and with them which unit goes next, would depend on the machine and on OMP_NUM_THREADS.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["one_thread"]


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all loaded libraries, which takes a millisecond


def one_thread() -> AbstractContextManager[Any]:
    """Let the linear algebra of NumPy use one thread in a block."""
    limit: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return limit
