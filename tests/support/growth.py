"""Cost grows with the number of nodes, not with its square."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

ROUNDS = 4


def assert_linear(prepared: Callable[[int], Callable[[], None]], small: int, factor: int = 8) -> None:
    """Time a task of two sizes; a quadratic one takes ``factor`` times too long, and three times are allowed.

    The least of several rounds counts, and the garbage collector, whose work grows with what the
    other tests of the process left in memory, is off.

    Parameters
    ----------
    prepared : callable
        Prepares the task for a size; the returned function runs it, once.
    small : int
        The smaller size.
    factor : int
        By how much the other size is larger.
    """

    def seconds(size: int) -> float:
        task = prepared(size)
        gc.collect()
        gc.disable()
        try:
            start = time.process_time()
            task()
            return time.process_time() - start
        finally:
            gc.enable()

    prepared(100)()
    rounds = [(seconds(small), seconds(factor * small)) for _ in range(ROUNDS)]
    least, most = (min(times) for times in zip(*rounds, strict=True))
    assert most < 3 * factor * max(least, 0.004), (least, most)
