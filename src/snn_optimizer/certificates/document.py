"""The certificate as a file: JSON with a seal, and what each part of it says."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from snn_optimizer.certificates.network import Array, Network
from snn_optimizer.errors import DataError

__all__ = ["FORMAT", "bounds_to_json", "pack_witness", "read_document", "seal", "units_from_json", "units_to_json",
           "unpack_witness", "write_document"]  # fmt: skip

FORMAT: Final = "snn-optimizer certificate 1"
_INLINE: Final = 1 << 12  # bytes of a constant that are stored in the witness itself without looking further


def seal(content: Mapping[str, Any]) -> str:
    """Return a digest over everything but the seal, so that a damaged file is told from a wrong claim."""
    bare = {key: value for key, value in content.items() if key != "seal"}
    text = json.dumps(bare, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_document(content: Mapping[str, Any]) -> str:
    """Return the text of a certificate, sealed."""
    return json.dumps({**content, "seal": seal(content)}, indent=1, allow_nan=False) + "\n"


def read_document(path: Path) -> dict[str, Any]:
    """Read a certificate.

    Raises
    ------
    DataError
        If the file cannot be read, or is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise DataError(f"certificate '{path}' cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"certificate '{path}' is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"'{path}' is not a certificate: its format is not '{FORMAT}'")
    return content


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of a certificate")


# -- numbers -------------------------------------------------------------------------------


def bounds_to_json(values: Array) -> list[float | None]:
    """Return numbers for JSON; what is not finite is null."""
    return [float(v) if np.isfinite(v) else None for v in values.tolist()]


def units_to_json(units: Array) -> list[list[int]]:
    """Return sorted unit numbers as ranges, first and last of each."""
    if not len(units):
        return []
    breaks = np.flatnonzero(np.diff(units) != 1)
    firsts, lasts = units[np.r_[0, breaks + 1]], units[np.r_[breaks, len(units) - 1]]
    return np.stack([firsts, lasts], axis=1).tolist()  # type: ignore[no-any-return]  # of integers


def units_from_json(ranges: Any, count: int) -> Array:
    """Read ranges of units.

    Raises
    ------
    ValueError
        If they are not sorted ranges of existing units.
    """
    parts, last = [], -1
    for pair in ranges:
        first, end = pair
        if type(first) is not int or type(end) is not int or not last < first <= end < count:
            raise ValueError(f"{pair} is no range of the units 0 to {count - 1}")
        parts.append(np.arange(first, end + 1))
        last = end
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


# -- the raised form -----------------------------------------------------------------------


def pack_witness(witness: Network, before: Network) -> dict[str, Any]:
    """Return a network without the weights that the original has too."""
    known: dict[str, tuple[str, str]] = {}
    for name, array in before.constants():
        if array.ndim == 2:
            known.setdefault(_digest(array.T), ("transpose_of", name))
    for name, array in before.constants():
        known[_digest(array)] = ("same_as", name)
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(witness.model)
    weights: dict[str, Any] = {}
    for tensor in skeleton.graph.initializer:
        stored = witness.constant(tensor.name)
        if stored is None or stored.nbytes <= _INLINE:
            continue
        found = known.get(_digest(stored))
        if found is not None:
            weights[tensor.name] = {found[0]: found[1]}
            _emptied(tensor)
    packed = zlib.compress(skeleton.SerializeToString(deterministic=True), 9)
    return {"model": base64.b64encode(packed).decode(), "weights": weights}


def unpack_witness(packed: Any, before: Network) -> Network:
    """Return the network that a certificate holds.

    Raises
    ------
    ValueError
        If it is not one.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(zlib.decompress(base64.b64decode(packed["model"], validate=True)))
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        for name, source in packed["weights"].items():
            ((kind, origin),) = source.items()
            stored = before.constant(origin)
            if stored is None or kind not in ("same_as", "transpose_of"):
                raise ValueError(f"the original has no weights '{origin}'")
            tensors[name].CopyFrom(numpy_helper.from_array(stored if kind == "same_as" else stored.T.copy(), name))
    except (zlib.error, DecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the raised form cannot be read: {error}") from error
    return Network(model, before.folder)


def _emptied(tensor: onnx.TensorProto) -> None:
    bare = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    tensor.CopyFrom(bare)


def _digest(array: Array) -> str:
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()
