"""Fewer time steps, and numbers for symbolic sizes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from snn_optimizer.reduction.candidate import Candidate, graphs_of

__all__ = ["leading_sizes", "pinned", "symbols", "with_leading_size"]


def symbols(model: onnx.ModelProto) -> list[str]:
    """Return the symbolic sizes of the inputs, in order."""
    return list(
        dict.fromkeys(
            dim.dim_param
            for info in model.graph.input
            for dim in info.type.tensor_type.shape.dim
            if dim.dim_param and not dim.HasField("dim_value")
        )
    )


def pinned(candidate: Candidate, symbol: str, size: int) -> Candidate | None:
    """Return the model with a number for a symbol; None where the samples have another number there."""
    model = onnx.ModelProto()
    model.CopyFrom(candidate.model)
    for info in model.graph.input:
        array = None if candidate.samples is None else candidate.samples.get(info.name)
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            if dim.dim_param == symbol and array is not None and array.shape[axis] % size:
                return None
    for graph in graphs_of(model.graph):
        for infos in (graph.input, graph.output):
            for info in infos:
                for dim in info.type.tensor_type.shape.dim:
                    if dim.dim_param == symbol:
                        dim.dim_value = size
        del graph.value_info[:]
    return Candidate(model, candidate.pipeline, candidate.samples)


def leading_sizes(model: onnx.ModelProto) -> Iterator[int]:
    """Yield the fixed first sizes of inputs of at least two axes, largest first: steps, or samples of a step."""
    found = {
        info.type.tensor_type.shape.dim[0].dim_value
        for info in model.graph.input
        if len(info.type.tensor_type.shape.dim) >= 2
    }
    yield from sorted((size for size in found if size > 1), reverse=True)


def with_leading_size(candidate: Candidate, old: int, new: int, *, first: bool) -> Candidate:
    """Return the candidate with another number of steps, in its inputs, shape vectors and samples.

    Whether a number in a shape vector means steps is not known: the candidate is judged like any other.

    Parameters
    ----------
    candidate : Candidate
    old, new : int
    first : bool
        Change shape vectors where they begin with the number, and not everywhere.
    """
    model = onnx.ModelProto()
    model.CopyFrom(candidate.model)
    cut = set()
    for info in (*model.graph.input, *model.graph.output):
        dims = info.type.tensor_type.shape.dim
        if len(dims) and dims[0].dim_value == old:
            dims[0].dim_value = new
            cut.add(info.name)
    for graph in graphs_of(model.graph):
        for tensor in graph.initializer:
            _resize(tensor, old, new, first=first)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    _resize(attribute.t, old, new, first=first)
        del graph.value_info[:]
    samples = candidate.samples
    if samples is not None:
        samples = {name: array[:new] if name in cut else array for name, array in samples.items()}
    return Candidate(model, candidate.pipeline, samples)


def _resize(tensor: onnx.TensorProto, old: int, new: int, *, first: bool) -> None:
    if tensor.data_type != onnx.TensorProto.INT64 or len(tensor.dims) > 1:
        return
    array = numpy_helper.to_array(tensor)
    meant = array == old
    if first:
        meant = meant & (np.arange(array.size).reshape(array.shape) == 0)
    if meant.any():
        changed = np.where(meant, np.int64(new), array)
        tensor.CopyFrom(numpy_helper.from_array(changed.astype(np.int64).reshape(array.shape), tensor.name))
