"""Where a model comes from: a message in memory, its bytes, or a file with weights beside it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TypeAlias

import onnx
from google.protobuf.message import DecodeError, EncodeError

from snn_optimizer.errors import ExecutionError, ModelLoadError
from snn_optimizer.ir.files import external_path, open_source

__all__ = ["ModelSource", "model_digest", "read_model", "serialize"]

ModelSource: TypeAlias = onnx.ModelProto | bytes | str | os.PathLike[str]
"""A model in memory, or a path; models above 2 GiB only as a path."""


def read_model(source: ModelSource) -> tuple[onnx.ModelProto, Path | None]:
    """Return the message and the folder its external weights lie in.

    Weights in files beside the model are not read; the runtime maps them itself.

    Raises
    ------
    ModelLoadError
        If the file cannot be read or is not an ONNX model.
    """
    if isinstance(source, onnx.ModelProto):
        return source, None
    try:
        if isinstance(source, bytes):
            return onnx.load_model_from_string(source), None
        path = Path(source)
        return onnx.load_model(path, load_external_data=False), path.resolve().parent
    except OSError as error:
        raise ModelLoadError(f"{os.fspath(source)!r} cannot be read: {error.strerror}") from error
    except DecodeError as error:
        place = "the bytes" if isinstance(source, bytes) else repr(os.fspath(source))
        raise ModelLoadError(f"{place}: not an ONNX model, or truncated") from error


def serialize(model: onnx.ModelProto) -> bytes:
    """Return the bytes of a message.

    Raises
    ------
    ExecutionError
        If it exceeds what a protobuf message can hold.
    """
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except (EncodeError, ValueError) as error:
        raise ExecutionError(
            "the model exceeds 2 GiB in memory; save it with external data and give its path"
        ) from error


def model_digest(source: ModelSource) -> str:
    """Return the SHA-256 of a model, external weights included, as hexadecimal text.

    A file and the message read from it have the same digest unless weights are external.
    """
    model, folder = read_model(source)
    digest = hashlib.sha256(serialize(model))
    if folder is not None:
        for location in _external_locations(model):
            digest.update(location.encode())
            what = f"external data '{location}'"
            digest.update(open_source(external_path(folder, location, what), what).view)
    return digest.hexdigest()


def _external_locations(model: onnx.ModelProto) -> list[str]:
    """Files that hold weights of the main graph, in order of first use."""
    locations: dict[str, None] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            locations.update((entry.value, None) for entry in tensor.external_data if entry.key == "location")
    return list(locations)
