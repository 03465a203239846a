"""Calls in a process of their own, which may crash, hang or eat memory."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Ended", "forked"]

_POLL = 0.005


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call ended.

    Attributes
    ----------
    code : int
        Exit code; negative: the number of the signal that ended it.
    out, err : str
        What it wrote.
    seconds : float
    late : bool
        Whether it was stopped because it took too long.
    """

    code: int
    out: str
    err: str
    seconds: float
    late: bool


def forked(call: Callable[[], int], folder: Path, *, seconds: float, memory: int) -> Ended:
    """Run a call in a fork of this process and wait for it.

    Parameters
    ----------
    call : callable
        Returns an exit code.
    folder : Path
        Where its output is kept meanwhile.
    seconds : float
        After which it is killed.
    memory : int
        Bytes of address space it may have.
    """
    out, err = folder / "stdout", folder / "stderr"
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _run(call, out, err, memory)
    status, late = 0, False
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - started > seconds:
            late = True
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(_POLL)
    texts = [path.read_text(errors="replace") if path.exists() else "" for path in (out, err)]
    return Ended(os.waitstatus_to_exitcode(status), *texts, time.monotonic() - started, late)


def _run(call: Callable[[], int], out: Path, err: Path, memory: int) -> None:
    """Be the child; never returns."""
    code = 97
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for path, descriptor in ((out, 1), (err, 2)):
            opened = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            os.dup2(opened, descriptor)
        code = call()
    except BaseException as error:  # noqa: BLE001 - the child must not go on as its parent
        sys.stderr.write(f"Traceback: {type(error).__name__}: {error}\n")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
