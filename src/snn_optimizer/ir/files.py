"""Files a model is read from: small ones in memory, large ones mapped.

A mapped file stays readable after it was replaced by ``os.replace``, so a model can be
written over the file it was read from. Small files are copied into memory, so that
someone who truncates them in place cannot crash the process.
"""

from __future__ import annotations

import mmap
import os
import stat
import weakref
from pathlib import Path
from typing import Final

from onnx import TensorProto

from snn_optimizer.errors import ModelLoadError
from snn_optimizer.ir.elements import element_bits
from snn_optimizer.ir.tensors import Region, Source

__all__ = ["ExternalData", "MappedFile", "MemoryFile", "external_path", "open_source"]

_KEEP_BELOW: Final = 64 << 20  # bytes of one model that are read instead of mapped
_ALWAYS_READ: Final = 1 << 20  # mapping costs two file descriptors


class MemoryFile:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self.view = memoryview(data)
        self.descriptor = None


class MappedFile:
    """A file mapped read-only, closed when nothing refers to it any more."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        self.view = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))


def open_source(path: Path, what: str, *, keep_below: int = _KEEP_BELOW) -> Source:
    """Open a file for reading, mapped when it is large.

    Parameters
    ----------
    path : Path
    what : str
        How messages begin, with the name of the file in it.
    keep_below : int
        Files smaller than this are read into memory.

    Raises
    ------
    ModelLoadError
        If the file is missing, not a regular file, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ModelLoadError(f"{what}: {reason}") from error
    mapped: MappedFile | None = None
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise ModelLoadError(f"{what}: is a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise ModelLoadError(f"{what}: is not a regular file")
        if status.st_size > max(keep_below, 0):
            mapped = MappedFile(descriptor)
            return mapped
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            return MemoryFile(stream.read())
    except OSError as error:
        raise ModelLoadError(f"{what}: {error.strerror}") from error
    finally:
        if mapped is None:
            os.close(descriptor)


class ExternalData:
    """Finds the bytes of tensors stored outside the model file.

    Parameters
    ----------
    folder : Path or None
        The folder of the model file; None when the model did not come from a file.

    Attributes
    ----------
    count : int
        Tensors found so far.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._sources: dict[str, Source] = {}
        self._in_memory = 0
        self.count = 0

    def region(self, tensor: TensorProto, where: str) -> Region:
        """Return where the values of an external tensor are; ``where`` starts messages.

        Raises
        ------
        ModelLoadError
            If the reference leaves the model's folder, or the data is missing or short.
        """
        self.count += 1
        entries = {entry.key: entry.value for entry in tensor.external_data}
        source = self._source(str(entries.get("location", "")), where)
        numbers: dict[str, int] = {}
        for key in ("offset", "length"):
            text = str(entries.get(key, ""))
            if text and not (text.isascii() and text.isdigit()):
                raise ModelLoadError(f"{where}: external {key} '{text}' is not a number of bytes")
            if text:
                numbers[key] = int(text)
        needed = numbers.get("length")
        if needed is None:
            needed = self._needed(tensor, where)
        offset = numbers.get("offset", 0)
        if offset + needed > len(source.view):
            raise ModelLoadError(
                f"{where}: external data '{entries['location']}' has {len(source.view)} bytes,"
                f" {needed} at offset {offset} are needed"
            )
        return Region(source, offset, needed)

    def _needed(self, tensor: TensorProto, where: str) -> int:
        try:
            bits = element_bits(tensor.data_type)
        except KeyError:
            raise ModelLoadError(f"{where}: unknown element type {tensor.data_type}") from None
        for size in tensor.dims:
            bits *= max(int(size), 0)
        return -(-bits // 8)

    def _source(self, location: str, where: str) -> Source:
        if location in self._sources:
            return self._sources[location]
        if self._folder is None:
            raise ModelLoadError(
                f"{where}: is stored in '{location}', but the model was given without a path; pass the path"
            )
        source = open_source(
            external_path(self._folder, location, where),
            f"{where}: external data '{location}'",
            keep_below=max(_ALWAYS_READ, _KEEP_BELOW - self._in_memory),
        )
        if source.descriptor is None:
            self._in_memory += len(source.view)
        self._sources[location] = source
        return source


def external_path(folder: Path, location: str, where: str) -> Path:
    """Return where external data is; ``where`` starts messages.

    Raises
    ------
    ModelLoadError
        If the place is not below the model's folder, links followed.
    """
    parts = location.replace("\\", "/").split("/")
    if not location or "\0" in location:
        raise ModelLoadError(f"{where}: has no usable external location")
    if ".." in parts or Path(location).is_absolute() or location[1:2] == ":" or not parts[0]:
        raise ModelLoadError(f"{where}: external location '{location}' leaves the model's folder")
    inside = os.path.realpath(folder)
    target = os.path.realpath(os.path.join(inside, location))  # noqa: PTH118 -- as the OS resolves it
    if os.path.commonpath([inside, target]) != inside:
        raise ModelLoadError(f"{where}: external location '{location}' is a link out of the model's folder")
    return Path(target)
