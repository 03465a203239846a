"""Where the bytes of a model file go: weights, graph, functions, metadata.

The four add up to the size of the file and the files of external weights. Data of large tensors is not read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from snn_optimizer.errors import ModelLoadError
from snn_optimizer.ir.files import open_source
from snn_optimizer.ir.wire import WireError, extract, read_marker

__all__ = ["Composition", "composition_of", "external_locations"]

_THRESHOLD: Final = 4096
_DATA: Final = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


@dataclass(frozen=True, slots=True)
class Composition:
    """Bytes of a model by kind; ``total`` is their sum."""

    weights: int
    graph: int
    functions: int
    metadata: int

    @property
    def total(self) -> int:
        """All bytes, external weights included."""
        return self.weights + self.graph + self.functions + self.metadata


def composition_of(path: str | os.PathLike[str]) -> Composition:
    """Measure a model file.

    Raises
    ------
    ModelLoadError
        If it is no ONNX model, or external weights are missing.
    """
    path = Path(path)
    source = open_source(path, f"'{path}'")
    token = os.urandom(16)
    try:
        model = ModelProto.FromString(extract(source.view, token, _THRESHOLD))
    except (WireError, DecodeError) as error:
        raise ModelLoadError(f"'{path}': not an ONNX model, or cut off ({error})") from error
    external = sum(_file_size(path, location) for location in external_locations(model))
    parts = ModelProto()
    parts.functions.extend(model.functions)
    functions = parts.ByteSize() + sum(_taken_out(tensor, token) for tensor in _tensors(parts))
    model.ClearField("functions")
    payloads = sum(_taken_out(tensor, token) for tensor in _tensors(model))
    whole = model.ByteSize()
    for tensor in _tensors(model):
        for field in _DATA:
            tensor.ClearField(field)
    bare = model.ByteSize()
    _clear_notes(model)
    stripped = model.ByteSize()
    weights, metadata = whole - bare + payloads, bare - stripped
    return Composition(weights + external, len(source.view) - weights - metadata - functions, functions, metadata)


def external_locations(model: ModelProto) -> list[str]:
    """Return the files that hold weights of a model, in order of first use."""
    found: dict[str, None] = {}
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            found.update((str(entry.value), None) for entry in tensor.external_data if entry.key == "location")
    return list(found)


def _file_size(path: Path, location: str) -> int:
    try:
        return (path.parent / location).stat().st_size
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelLoadError(f"'{path}': external data '{location}': {reason}") from error


def _taken_out(tensor: TensorProto, token: bytes) -> int:
    """Return the bytes of the data that a marker stands for, less those of the marker."""
    place = read_marker(tensor.raw_data, token)
    return 0 if place is None else place[1] - len(tensor.raw_data)


def _tensors(message: Any) -> Iterator[Any]:
    """Yield all tensors below a message, without recursion: bodies nest as deep as a file likes."""
    pending = [message]
    while pending:
        one = pending.pop()
        if one.DESCRIPTOR.name == "TensorProto":
            yield one
        else:
            pending += _children(one, ("TensorProto", "SparseTensorProto", "GraphProto", "FunctionProto",
                                       "NodeProto", "AttributeProto"))  # fmt: skip


def _clear_notes(model: ModelProto) -> None:
    pending: list[Any] = [model]
    while pending:
        one = pending.pop()
        for field in one.DESCRIPTOR.fields:
            if field.name in {"doc_string", "metadata_props"}:
                one.ClearField(field.name)
        pending += _children(one)


def _children(message: Any, kinds: tuple[str, ...] = ()) -> Iterator[Any]:
    for field, held in message.ListFields():
        kind = field.message_type
        if kind is None or (kinds and kind.name not in kinds):
            continue
        if isinstance(held, type(message)) or hasattr(held, "DESCRIPTOR"):
            yield held
        else:
            yield from held
