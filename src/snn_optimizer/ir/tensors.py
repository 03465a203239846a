"""Constant tensors that stay where they are stored until someone asks for their values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx_graphsurgeon.ir.tensor import LazyValues

from snn_optimizer.errors import ModelLoadError, UnsupportedModelError
from snn_optimizer.ir.elements import element_bits, numpy_dtype, unpack

__all__ = [
    "HeldTensor",
    "LazyTensor",
    "Region",
    "Source",
    "SparseTensor",
    "region_of",
]

# field that holds the values when `raw_data` does not, and values per element
_FIELD: Final[Mapping[int, tuple[str, int]]] = {
    TensorProto.FLOAT: ("float_data", 1),
    TensorProto.COMPLEX64: ("float_data", 2),
    TensorProto.DOUBLE: ("double_data", 1),
    TensorProto.COMPLEX128: ("double_data", 2),
    TensorProto.INT64: ("int64_data", 1),
    TensorProto.UINT32: ("uint64_data", 1),
    TensorProto.UINT64: ("uint64_data", 1),
    TensorProto.STRING: ("string_data", 1),
}
_LARGEST: Final = 2**63 - 1  # bytes; NumPy makes no array whose strides exceed it


class Source(Protocol):
    """Bytes in memory or in a mapped file."""

    @property
    def view(self) -> memoryview:
        """The bytes, read-only."""

    @property
    def descriptor(self) -> int | None:
        """An open file holding the same bytes, for copying without reading them."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A range of a source."""

    source: Source
    offset: int
    length: int

    @property
    def view(self) -> memoryview:
        """The bytes of the range, not copied."""
        return self.source.view[self.offset : self.offset + self.length]


@dataclass(frozen=True, slots=True, eq=False)
class _Memory:
    view: memoryview
    descriptor: None = None


def region_of(data: bytes) -> Region:
    """Wrap bytes in memory as a region."""
    return Region(_Memory(memoryview(data)), 0, len(data))


class HeldTensor(LazyValues):  # type: ignore[misc]  # the library has no types
    """What both kinds of stored tensor have in common; a ``LazyValues`` of the library.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    nbytes : int
        Size of the values in memory when loaded.
    stored_bytes : int
        Size of the values in a file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int
    stored_bytes: int

    def load(self) -> NDArray[Any]:
        """Return the values."""
        raise NotImplementedError

    def without_notes(self) -> HeldTensor:
        """Return the same tensor without documentation and metadata."""
        raise NotImplementedError


class LazyTensor(HeldTensor):
    """A dense tensor: its description, and its values in a region or in typed fields.

    Parameters
    ----------
    meta : onnx.TensorProto
        Everything but ``raw_data`` and external references. Not written to.
    data : Region or None
        The bytes of ``raw_data``; None when the values are in the typed fields of ``meta``.
    label : str
        What the tensor is called in messages.

    Raises
    ------
    ModelLoadError
        If the number of values is not what the shape says.
    UnsupportedModelError
        If the tensor is a segment of another.
    """

    def __init__(self, meta: TensorProto, data: Region | None, label: str) -> None:
        self.meta = meta
        self.data = data
        self.shape = tuple(int(size) for size in meta.dims)
        self._values: NDArray[Any] | None = None
        if meta.HasField("segment"):
            raise UnsupportedModelError(f"{label}: tensor segments are not supported; store it whole")
        if any(size < 0 for size in self.shape):
            raise ModelLoadError(f"{label}: the shape {list(self.shape)} has a negative size")
        dtype = numpy_dtype(meta.data_type)
        if dtype is None:
            raise ModelLoadError(f"{label}: unknown element type {meta.data_type}")
        self.dtype = dtype
        if math.prod(max(size, 1) for size in self.shape) * int(dtype.itemsize) > _LARGEST:  # even where it is empty
            raise ModelLoadError(f"{label}: the shape {list(self.shape)} is larger than any memory")
        count = math.prod(self.shape)
        self.nbytes = count * int(self.dtype.itemsize)
        self._check_size(count, label)
        self.stored_bytes = data.length if data is not None else self.nbytes
        if data is None and self.dtype == object:
            self.stored_bytes = self.nbytes = sum(map(len, meta.string_data))

    def _check_size(self, count: int, label: str) -> None:
        data_type = self.meta.data_type
        if self.data is not None:
            if data_type == TensorProto.STRING:
                raise ModelLoadError(f"{label}: strings cannot be stored as raw bytes")
            needed = -(-count * element_bits(data_type) // 8)
            if self.data.length != needed:
                raise ModelLoadError(
                    f"{label}: holds {self.data.length} bytes, the shape {list(self.shape)} needs {needed}"
                )
            return
        field, factor = _FIELD.get(data_type, ("int32_data", 1))
        bits = element_bits(data_type)
        needed = -(-count * bits // 8) if bits in (2, 4) else count * factor
        found = len(getattr(self.meta, field))
        if found != needed:
            raise ModelLoadError(f"{label}: holds {found} values, the shape {list(self.shape)} needs {needed}")

    @property
    def tensor(self) -> TensorProto:
        """The complete tensor, built anew; the graph library's own exporter asks for it."""
        proto = TensorProto()
        proto.CopyFrom(self.meta)
        if self.data is not None:
            proto.raw_data = bytes(self.data.view)
        return proto

    def without_notes(self) -> LazyTensor:
        """Return the same tensor without documentation and metadata."""
        if not self.meta.doc_string and not self.meta.metadata_props:
            return self
        bare = TensorProto()
        bare.CopyFrom(self.meta)
        bare.ClearField("doc_string")
        bare.ClearField("metadata_props")
        return LazyTensor(bare, self.data, self.meta.name)

    def load(self) -> NDArray[Any]:
        """Return the values; a view of the region where the type allows it."""
        if self._values is not None:
            return self._values
        data_type = self.meta.data_type
        if self.data is not None and element_bits(data_type) % 8 == 0:
            flat = np.frombuffer(self.data.view, dtype=self.dtype.newbyteorder("<"))
            return flat.reshape(self.shape)
        if self.data is not None:
            values = unpack(self.data.view, data_type, math.prod(self.shape)).reshape(self.shape)
        else:
            values = np.array(numpy_helper.to_array(self.meta)).astype(self.dtype).reshape(self.shape)
        values.flags.writeable = False
        self._values = values
        return values


class SparseTensor(HeldTensor):
    """A sparse tensor: its stored values and their positions, in either ONNX layout."""

    def __init__(self, values: LazyTensor, indices: LazyTensor, dims: tuple[int, ...], label: str) -> None:
        self.values = values
        self.indices = indices
        self.shape = dims
        self.dtype = values.dtype
        self.nbytes = math.prod(dims) * int(self.dtype.itemsize)
        self.stored_bytes = values.stored_bytes + indices.stored_bytes
        count = math.prod(values.shape)
        layouts = ((count,), (count, len(dims)))
        if any(size < 0 for size in dims) or len(values.shape) != 1 or indices.shape not in layouts:
            raise ModelLoadError(
                f"{label}: {list(values.shape)} values and {list(indices.shape)} indices"
                f" do not fit the sparse shape {list(dims)}"
            )
        if indices.dtype != np.int64:
            raise ModelLoadError(f"{label}: sparse indices are {indices.dtype}, not int64")
        self._label = label
        places = indices.load()
        ends = math.prod(dims) if places.ndim == 1 else np.array(dims)
        if np.any(places < 0) or np.any(places >= ends):
            raise ModelLoadError(f"{label}: a sparse index lies outside the shape {list(dims)}")

    def without_notes(self) -> SparseTensor:
        """Return the same tensor without documentation and metadata."""
        return SparseTensor(self.values.without_notes(), self.indices.without_notes(), self.shape, self._label)

    def load(self) -> NDArray[Any]:
        """Return the values as a dense array, built anew at each call.

        Raises
        ------
        UnsupportedModelError
            If the dense array would not fit into memory.
        """
        try:
            dense: NDArray[Any] = np.zeros(self.shape, dtype=self.dtype)
        except (MemoryError, ValueError) as error:
            raise UnsupportedModelError(f"{self._label}: {list(self.shape)} is too large when dense") from error
        places = self.indices.load()
        if places.ndim == 1:
            dense.reshape(-1)[places] = self.values.load()
        else:
            dense[tuple(places.T)] = self.values.load()
        return dense
