"""Write models: complete messages, skeletons, and files streamed tensor by tensor."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Final

from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from snn_optimizer.errors import OutputError, UnsupportedModelError
from snn_optimizer.ir.atomic import AtomicFiles, copy_region
from snn_optimizer.ir.export import Payload, Sink, payload_size
from snn_optimizer.ir.tensors import Region
from snn_optimizer.ir.wire import Piece, marker, splice

__all__ = ["LIMIT", "build_complete", "build_skeleton", "write_files"]

LIMIT: Final = 2**31 - 1
"""Largest serialized message protobuf reads, in bytes."""

_EXTERNAL_FROM: Final = 1024  # bytes; smaller tensors stay in the model file
_PAGE: Final = 4096
_ALIGN_PAGES_FROM: Final = 1 << 20  # bytes; runtimes map large tensors, which needs whole pages
_SMALL_ALIGNMENT: Final = 64

Build = Callable[[Sink], ModelProto]


def _bytes_of(payload: Payload) -> bytes:
    return bytes(payload.view) if isinstance(payload, Region) else payload.tobytes()


def build_complete(build: Build) -> ModelProto:
    """Return a model with all its tensors inside.

    Raises
    ------
    UnsupportedModelError
        If it would be larger than protobuf allows.
    """
    total = 0

    def sink(tensor: TensorProto, payload: Payload) -> None:
        nonlocal total
        total += payload_size(payload)
        if total > LIMIT:
            raise UnsupportedModelError(
                "the model is larger than 2 GiB and cannot be one message; save it with external data"
            )
        tensor.raw_data = _bytes_of(payload)

    return build(sink)


def build_skeleton(build: Build, threshold: int) -> ModelProto:
    """Return a model whose tensors above ``threshold`` bytes are references without data."""

    def sink(tensor: TensorProto, payload: Payload) -> None:
        size = payload_size(payload)
        if size <= threshold:
            tensor.raw_data = _bytes_of(payload)
        else:
            _refer(tensor, "skeleton", 0, size)

    return build(sink)


def _refer(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def _write_payload(payload: Payload, target: BinaryIO) -> None:
    if isinstance(payload, Region):
        copy_region(payload, target)
    else:
        _write_array(payload, target)


def _write_array(array: NDArray[Any], target: BinaryIO) -> None:
    target.write(array.data)


class _Layout:
    """Collects payloads and decides which go into the data file."""

    def __init__(self, location: str | None) -> None:
        self.location = location
        self.token = os.urandom(16)
        self.inline: list[Payload] = []
        self.external: list[tuple[int, Payload]] = []
        self.end = 0

    def sink(self, tensor: TensorProto, payload: Payload) -> None:
        size = payload_size(payload)
        if self.location is not None and size >= _EXTERNAL_FROM:
            alignment = _PAGE if size >= _ALIGN_PAGES_FROM else _SMALL_ALIGNMENT
            offset = -(-self.end // alignment) * alignment
            self.external.append((offset, payload))
            self.end = offset + size
            _refer(tensor, self.location, offset, size)
        elif size < _EXTERNAL_FROM:
            tensor.raw_data = _bytes_of(payload)
        else:
            tensor.raw_data = marker(self.token, len(self.inline))
            self.inline.append(payload)

    def plan(self, skeleton: ModelProto) -> tuple[list[Piece], int]:
        return splice(skeleton.SerializeToString(), self.token, [payload_size(p) for p in self.inline])

    def write_model(self, pieces: list[Piece], target: BinaryIO) -> None:
        for piece in pieces:
            if isinstance(piece, int):
                _write_payload(self.inline[piece], target)
            else:
                target.write(piece)

    def write_data(self, target: BinaryIO) -> None:
        for offset, payload in self.external:
            target.seek(offset)
            _write_payload(payload, target)
        target.truncate(self.end)


def write_files(
    build: Build, path: Path, *, external: bool | None, was_external: bool, files: AtomicFiles | None = None
) -> int:
    """Write a model, and its data file where asked or needed, atomically.

    Parameters
    ----------
    build : callable
        Builds the model with a given sink.
    path : Path
    external : bool or None
        Whether tensors go to ``<path>.data``; None: when the model exceeds 2 GiB or
        ``was_external``.
    was_external : bool
    files : AtomicFiles, optional
        The group they appear with.

    Returns
    -------
    int
        Bytes written in all.

    Raises
    ------
    OutputError
        If a file cannot be written; files that were there before are unchanged.
    """
    layout = _Layout(f"{path.name}.data" if (was_external if external is None else external) else None)
    pieces, total = layout.plan(build(layout.sink))
    if total > LIMIT and layout.location is None:
        if external is not None:
            raise OutputError(f"'{path}': {total} bytes are too many for one file; use external data")
        layout = _Layout(f"{path.name}.data")
        pieces, total = layout.plan(build(layout.sink))
    if total > LIMIT:
        raise OutputError(f"'{path}': the model without its tensors has {total} bytes, more than 2 GiB")
    with nullcontext(files) if files is not None else AtomicFiles() as group:
        if layout.external:
            with group.open(path.with_name(f"{path.name}.data")) as stream:
                layout.write_data(stream)
        with group.open(path) as stream:
            layout.write_model(pieces, stream)
    return total + layout.end
