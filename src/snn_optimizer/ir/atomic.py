"""Files that appear complete or not at all."""

from __future__ import annotations

import errno
import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from snn_optimizer.errors import OutputError
from snn_optimizer.ir.tensors import Region

__all__ = ["AtomicFiles", "check_targets", "copy_region", "discard_unfinished", "write_text"]

_CHUNK: Final = 4 << 20
_SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP")
_UNFINISHED: Final[dict[int, AtomicFiles]] = {}


class AtomicFiles:
    """A group of files written under temporary names and moved into place together.

    On any failure, the files that were there before are as they were and the temporary
    ones are gone. ``OSError`` becomes :class:`OutputError`.
    """

    def __init__(self) -> None:
        self._staged: list[tuple[Path, Path]] = []  # temporary, target
        _UNFINISHED[id(self)] = self

    def __enter__(self) -> Self:
        return self

    @contextmanager
    def open(self, target: Path) -> Iterator[BinaryIO]:
        """Open a file to write; it gets the permissions of the one it replaces."""
        try:
            temporary = self._create(target)
            with temporary.open("r+b") as stream:
                yield stream
        except OSError as error:
            raise OutputError(f"'{target}': cannot write: {error.strerror or error}") from error

    def _create(self, target: Path) -> Path:
        mode = _mode(target)
        for number in range(1000):
            temporary = target.with_name(f".{target.name}.{os.getpid()}.{number}.tmp")
            with suppress(FileExistsError), _signals_deferred():
                os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
                self._staged.append((temporary, target))
                if mode is not None:
                    temporary.chmod(mode)
                return temporary
        raise OutputError(f"'{target}': no free temporary name beside it")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with _signals_deferred():
                if kind is None:
                    self._commit()
        finally:
            self._discard()

    def _discard(self) -> None:
        for temporary, _ in self._staged:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        _UNFINISHED.pop(id(self), None)

    def _commit(self) -> None:
        """Move all files into place; on failure put back what was there before."""
        backups: list[tuple[Path, Path]] = []
        created: list[Path] = []
        try:
            for temporary, target in self._staged:
                if not target.exists():
                    created.append(target)
                elif len(self._staged) > 1:
                    backups.append((target, temporary.with_suffix(".old")))
                _move(temporary, target, backups)
        except OutputError:
            for replaced, backup in reversed(backups):
                with suppress(OSError):
                    backup.replace(replaced)
            for new in created:
                with suppress(OSError):
                    new.unlink(missing_ok=True)
            raise
        finally:
            for _, backup in backups:
                with suppress(OSError):
                    backup.unlink(missing_ok=True)


def discard_unfinished() -> None:
    """Remove the temporary files of groups that an interruption left; for the end of a process."""
    for group in list(_UNFINISHED.values()):
        group._discard()  # noqa: SLF001 - one module


def _mode(target: Path) -> int | None:
    """Return the permissions of the file that is replaced, None when there is none."""
    if "\0" in str(target):
        raise OutputError(f"{str(target)!r}: is not a file name")
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OutputError(f"'{target}': is not a regular file, it is not replaced")
    return stat.S_IMODE(status.st_mode)


def check_targets(*targets: Path | None) -> None:
    """Refuse files that cannot be written, or would be written twice, before work is spent on them.

    Raises
    ------
    OutputError
        Names the file and what is in the way.
    """
    seen: dict[str, Path] = {}
    for target in targets:
        if target is None:
            continue
        try:
            _mode(target)
            folder = target.absolute().parent
            if not folder.is_dir():
                raise OutputError(f"'{target}': cannot write: there is no folder '{folder}'")
            if not os.access(folder, os.W_OK | os.X_OK):
                raise OutputError(f"'{target}': cannot write: the folder '{folder}' is read-only")
        except OSError as error:
            raise OutputError(f"'{target}': cannot write: {error.strerror or error}") from error
        place = os.path.realpath(target)
        if place in seen:
            raise OutputError(f"'{target}': two results would be written to it; give one of them another name")
        seen[place] = target


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Let signals that end the process wait until the block is done.

    Handlers are replaced instead of blocking the signals: one that is blocked here may be
    taken by a thread of the runtime, and Python then runs its handler in the middle of this.
    """
    handlers: dict[int, Any] = {}
    arrived: list[tuple[int, Any]] = []
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)):
            if callable(handler := signal.getsignal(number)):
                handlers[number] = handler
                signal.signal(number, lambda which, frame: arrived.append((which, frame)))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in arrived:
            handlers[number](number, frame)


def _move(temporary: Path, target: Path, backups: list[tuple[Path, Path]]) -> None:
    """Move a file into place after what it replaces was kept under the name of its backup."""
    try:
        if backups and backups[-1][0] == target:
            _keep_as(*backups[-1])
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"'{target}': cannot write: {error.strerror or error}") from error


def _keep_as(target: Path, backup: Path) -> None:
    """Give a file a second name, or another name where the file system has no links."""
    try:
        os.link(target, backup)
    except OSError:
        target.rename(backup)


def copy_region(region: Region, target: BinaryIO) -> None:
    """Append a region to a file without holding it in memory.

    Ranges the source's file system does not store, all zeros, are not stored in the copy.
    """
    descriptor = region.source.descriptor
    if descriptor is None or not hasattr(os, "pread"):
        target.write(region.view)
        return
    position, end = region.offset, region.offset + region.length
    while position < end:
        stored = min(_next_stored(descriptor, position), end)
        if stored > position:
            target.seek(stored - position, os.SEEK_CUR)
            position = stored
            continue
        chunk = os.pread(descriptor, min(_CHUNK, end - position), position)
        if not chunk:
            raise OSError(None, "the file the weights are read from became shorter")
        target.write(chunk)
        position += len(chunk)
    here = target.tell()
    if target.seek(0, os.SEEK_END) < here:  # it ends in zeros that are not stored
        target.truncate(here)
    target.seek(here)


def _next_stored(descriptor: int, position: int) -> int:
    """Return where the next stored byte of a file is."""
    if not hasattr(os, "SEEK_DATA"):
        return position
    try:
        return os.lseek(descriptor, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # only zeros to the end
            return os.fstat(descriptor).st_size
        return position


def write_text(path: Path, text: str, *, files: AtomicFiles | None = None) -> None:
    """Write a text file; it appears complete or not at all.

    Parameters
    ----------
    path : Path
    text : str
    files : AtomicFiles, optional
        The group it appears with.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with nullcontext(files) if files is not None else AtomicFiles() as group, group.open(path) as stream:
        stream.write(text.encode(errors="backslashreplace"))
