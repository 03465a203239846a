"""Simpler numbers: zeros, and few digits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from snn_optimizer.reduction.candidate import Candidate, graphs_of

__all__ = ["ROUNDINGS", "float_tensors", "nonzero_entries", "simplified", "with_zeros"]

Array = npt.NDArray[Any]


def _whole(array: Array) -> Array:
    return np.round(array)


def _quarters(array: Array) -> Array:
    return np.round(array * 4) / 4


def _tenth_bits(array: Array) -> Array:
    return np.round(array * 1024) / 1024


ROUNDINGS: Sequence[tuple[str, Callable[[Array], Array]]] = (
    ("whole numbers", _whole),
    ("quarters", _quarters),
    ("ten bits", _tenth_bits),
)


def float_tensors(model: onnx.ModelProto) -> list[str]:
    """Return the names of the float initializers of all graphs, largest first."""
    found = {
        tensor.name: int(np.prod(tensor.dims))
        for graph in graphs_of(model.graph)
        for tensor in graph.initializer
        if tensor.data_type in {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}
    }
    return sorted(found, key=lambda name: -found[name])


def nonzero_entries(model: onnx.ModelProto, name: str) -> list[int]:
    """Return the flat positions of a tensor that are not zero."""
    for graph in graphs_of(model.graph):
        for tensor in graph.initializer:
            if tensor.name == name:
                return [int(i) for i in np.flatnonzero(numpy_helper.to_array(tensor))]
    return []


def simplified(candidate: Candidate, names: Sequence[str], change: Callable[[Array], Array]) -> Candidate | None:
    """Return the candidate with changed values in these initializers; None where nothing changes."""
    model = onnx.ModelProto()
    model.CopyFrom(candidate.model)
    changes = 0
    for graph in graphs_of(model.graph):
        for tensor in graph.initializer:
            if tensor.name in names:
                array = numpy_helper.to_array(tensor)
                new = np.asarray(change(array), array.dtype) + 0  # no negative zeros
                if not np.array_equal(new, array):
                    tensor.CopyFrom(numpy_helper.from_array(new.reshape(array.shape), tensor.name))
                    changes += 1
    return Candidate(model, candidate.pipeline, candidate.samples) if changes else None


def with_zeros(candidate: Candidate, name: str, kept: Sequence[int]) -> Candidate | None:
    """Return the candidate with zeros everywhere in a tensor but at these positions."""

    def change(array: Array) -> Array:
        found = np.zeros(array.size, array.dtype)
        found[list(kept)] = array.reshape(-1)[list(kept)]
        return found.reshape(array.shape)

    return simplified(candidate, [name], change)
