"""Files that appear complete or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from snn_optimizer.errors import OutputError
from snn_optimizer.ir.tensors import Region

__all__ = ["AtomicFiles", "copy_region", "write_text"]

_CHUNK: Final = 4 << 20


class AtomicFiles:
    """A group of files written under temporary names and moved into place together.

    On any failure, the files that were there before are as they were and the temporary
    ones are gone. ``OSError`` becomes :class:`OutputError`.
    """

    def __init__(self) -> None:
        self._staged: list[tuple[Path, Path]] = []  # temporary, target

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
        mode = None
        if "\0" in str(target):
            raise OutputError(f"{str(target)!r}: is not a file name")
        with suppress(FileNotFoundError):
            status = target.stat()
            if not stat.S_ISREG(status.st_mode):
                raise OutputError(f"'{target}': is not a regular file, it is not replaced")
            mode = stat.S_IMODE(status.st_mode)
        for number in range(1000):
            temporary = target.with_name(f".{target.name}.{os.getpid()}.{number}.tmp")
            with suppress(FileExistsError):
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
            if kind is None:
                self._commit()
        finally:
            for temporary, _ in self._staged:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)

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


def write_text(path: Path, text: str) -> None:
    """Write a text file; it appears complete or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with AtomicFiles() as files, files.open(path) as stream:
        stream.write(text.encode())
