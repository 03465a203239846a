"""Element types of tensors, and how ONNX packs those smaller than a byte.

The tables of the onnx package changed over its versions: older ones map bfloat16 and the
8-bit floats to float32. Here the types are always those of ``ml_dtypes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

__all__ = ["element_bits", "numpy_dtype", "onnx_dtype", "pack", "unpack"]

_SMALL: Final[Mapping[str, tuple[str, int]]] = {
    "BFLOAT16": ("bfloat16", 16),
    "FLOAT8E4M3FN": ("float8_e4m3fn", 8),
    "FLOAT8E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "FLOAT8E5M2": ("float8_e5m2", 8),
    "FLOAT8E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "FLOAT8E8M0": ("float8_e8m0fnu", 8),
    "FLOAT6E2M3": ("float6_e2m3fn", 6),
    "FLOAT6E3M2": ("float6_e3m2fn", 6),
    "FLOAT4E2M1": ("float4_e2m1fn", 4),
    "UINT4": ("uint4", 4),
    "INT4": ("int4", 4),
    "UINT2": ("uint2", 2),
    "INT2": ("int2", 2),
}


def _tables() -> tuple[dict[int, np.dtype[Any]], dict[int, int]]:
    dtypes: dict[int, np.dtype[Any]] = {}
    bits: dict[int, int] = {}
    for name, number in TensorProto.DataType.items():
        if name == "UNDEFINED":
            continue
        if name not in _SMALL:
            dtypes[number] = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number))
            bits[number] = dtypes[number].itemsize * 8
        elif hasattr(ml_dtypes, _SMALL[name][0]):
            dtypes[number] = np.dtype(getattr(ml_dtypes, _SMALL[name][0]))
            bits[number] = _SMALL[name][1]
    return dtypes, bits


_DTYPES, _BITS = _tables()
_NUMBERS: Final = {dtype: number for number, dtype in _DTYPES.items()}


def numpy_dtype(data_type: int) -> np.dtype[Any] | None:
    """Return the NumPy type of an ONNX element type; None when it is not known."""
    return _DTYPES.get(data_type)


def onnx_dtype(dtype: np.dtype[Any]) -> int:
    """Return the ONNX element type of a NumPy type.

    Raises
    ------
    TypeError
        If ONNX has no such type.
    """
    if dtype.kind in "OUS":
        return int(TensorProto.STRING)
    number = _NUMBERS.get(dtype.newbyteorder("="))
    if number is None:
        raise TypeError(f"ONNX has no element type {dtype}")
    return number


def element_bits(data_type: int) -> int:
    """Return how many bits one element of a known type takes in ``raw_data``."""
    return _BITS[data_type]


def pack(array: NDArray[Any], bits: int) -> bytes:
    """Pack elements of 2, 4 or 6 bits, the first one in the lowest bits."""
    codes = np.ascontiguousarray(array).reshape(-1).view(np.uint8) & np.uint8((1 << bits) - 1)
    if 8 % bits:
        spread = np.unpackbits(codes[:, np.newaxis], axis=1, bitorder="little")[:, :bits]
        return np.packbits(spread, bitorder="little").tobytes()
    each = 8 // bits
    padded = np.zeros(-(-codes.size // each) * each, np.uint8)
    padded[: codes.size] = codes
    shifted = padded.reshape(-1, each) << np.arange(0, 8, bits, dtype=np.uint8)
    return bytes(np.bitwise_or.reduce(shifted, axis=1))


def unpack(data: memoryview, data_type: int, count: int) -> NDArray[Any]:
    """Return the elements that :func:`pack` packed, as a flat array."""
    bits = _BITS[data_type]
    raw = np.frombuffer(data, np.uint8)
    if 8 % bits:
        spread = np.unpackbits(raw, bitorder="little")[: count * bits].reshape(count, bits)
        codes = np.packbits(spread, axis=1, bitorder="little").reshape(-1)
    else:
        shifted = raw[:, np.newaxis] >> np.arange(0, 8, bits, dtype=np.uint8)
        codes = (shifted & np.uint8((1 << bits) - 1)).reshape(-1)[:count]
    return codes.view(_DTYPES[data_type])
