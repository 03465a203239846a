"""Tensors of a model that is being read."""

from __future__ import annotations

from onnx import SparseTensorProto, TensorProto

from snn_optimizer.ir.files import ExternalData
from snn_optimizer.ir.tensors import LazyTensor, Region, Source, SparseTensor, region_of
from snn_optimizer.ir.wire import read_marker

__all__ = ["TensorReader"]


class TensorReader:
    """Turns tensor messages into lazy tensors; takes the data out of the messages.

    Parameters
    ----------
    source : Source
        The serialized model.
    token : bytes
        Starts the markers that stand for data of ``source``.
    external : ExternalData
    """

    def __init__(self, source: Source, token: bytes, external: ExternalData) -> None:
        self._source = source
        self._token = token
        self._external = external

    def dense(self, proto: TensorProto, label: str) -> LazyTensor:
        """Return a dense tensor; ``label`` is what messages call it."""
        region: Region | None = None
        if proto.data_location == TensorProto.EXTERNAL:
            region = self._external.region(proto, label)
            for field in ("external_data", "data_location", "raw_data"):
                proto.ClearField(field)
        elif proto.HasField("raw_data"):
            raw = proto.raw_data
            place = read_marker(raw, self._token)
            region = region_of(raw) if place is None else Region(self._source, *place)
            proto.ClearField("raw_data")
        return LazyTensor(proto, region, label)

    def sparse(self, proto: SparseTensorProto, label: str) -> SparseTensor:
        """Return a sparse tensor; ``label`` is what messages call it."""
        values = self.dense(proto.values, f"{label} values")
        indices = self.dense(proto.indices, f"{label} indices")
        return SparseTensor(values, indices, tuple(int(size) for size in proto.dims), label)
