"""Damage to the tensors of a model."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any, Final

import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

__all__ = ["ODD_SIZES", "TENSORS", "NothingToDamageError", "graphs_of", "nodes_of", "pick"]

_HUGE: Final = (2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1)
ODD_SIZES: Final = (0, -1, -(2**63), 1, 3, *_HUGE)
_LOCATIONS: Final = (
    "../../etc/passwd", "/etc/passwd", "", ".", "missing.bin", "model.onnx", "link.bin", "C:\\x", "a\0b", "*/_ORT_MEM_ADDR_/*",
)  # fmt: skip


class NothingToDamageError(Exception):
    """The model has none of what an edit needs."""


def graphs_of(model: ModelProto) -> list[Any]:
    """Return the main graph and all bodies."""
    found, pending = [], [model.graph]
    while pending:
        graph = pending.pop()
        found.append(graph)
        pending += [a.g for node in graph.node for a in node.attribute if a.type == AttributeProto.GRAPH]
    return found


def nodes_of(model: ModelProto) -> list[Any]:
    return [node for graph in (*graphs_of(model), *model.functions) for node in graph.node]


def pick(found: Iterable[Any], rng: Random) -> Any:
    choices = list(found)
    if not choices:
        raise NothingToDamageError
    return rng.choice(choices)


def _tensor(model: ModelProto, rng: Random) -> TensorProto:
    stored = [t for graph in graphs_of(model) for t in graph.initializer]
    held = [a.t for node in nodes_of(model) for a in node.attribute if a.type == AttributeProto.TENSOR]
    return pick(stored + held, rng)


def tensor_shape(model: ModelProto, rng: Random) -> None:
    tensor = _tensor(model, rng)
    dims = list(tensor.dims)
    match rng.randrange(4):
        case 0 if dims:
            dims[rng.randrange(len(dims))] = rng.choice(ODD_SIZES)
        case 1:
            dims.append(rng.choice((1, *ODD_SIZES)))
        case 2:
            rng.shuffle(dims)
        case _:
            dims = [int(np.prod([max(d, 1) for d in dims]))]
    tensor.dims[:] = [max(min(d, 2**63 - 1), -(2**63)) for d in dims]


def tensor_huge(model: ModelProto, rng: Random) -> None:
    """A huge tensor without values: shape and data agree where one dimension is zero."""
    tensor = _tensor(model, rng)
    tensor.ClearField("raw_data")
    tensor.dims[:] = rng.choice(([2**62, 0], [0], [2**31, 2**31], [2**40, 0, 2**40]))


def tensor_data(model: ModelProto, rng: Random) -> None:
    tensor = _tensor(model, rng)
    data = tensor.raw_data
    tensor.raw_data = rng.choice((data[:-1], data + b"\0", data[: len(data) // 2], b"", data * 2))


def tensor_type(model: ModelProto, rng: Random) -> None:
    _tensor(model, rng).data_type = rng.choice((*range(24), 77, -1))


def tensor_retyped(model: ModelProto, rng: Random) -> None:
    """A tensor of another type that is valid by itself."""
    tensor = _tensor(model, rng)
    values = numpy_helper.to_array(tensor)
    kind = rng.choice((np.float64, np.float16, np.int64, np.int8, np.uint8, np.bool_, np.complex64, np.str_, "bf16"))
    if kind == "bf16":
        made = helper.make_tensor(tensor.name, TensorProto.BFLOAT16, values.shape, values.astype(np.float32).ravel())
    else:
        with np.errstate(all="ignore"):
            cast = values.astype(kind)
        made = numpy_helper.from_array(cast.astype(object) if kind is np.str_ else cast, tensor.name)
    tensor.CopyFrom(made)


def tensor_values(model: ModelProto, rng: Random) -> None:
    tensor = _tensor(model, rng)
    if tensor.data_type != TensorProto.FLOAT:
        raise NothingToDamageError
    values = np.array(numpy_helper.to_array(tensor)).astype(np.float32)
    value = rng.choice((np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, 0.0))
    if values.ndim and values.size and rng.random() < 0.5:
        values.flat[rng.randrange(values.size)] = value
    else:
        values[...] = value
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def tensor_reshaped(model: ModelProto, rng: Random) -> None:
    """A tensor of another rank or size that is valid by itself."""
    tensor = _tensor(model, rng)
    values = np.array(numpy_helper.to_array(tensor))
    forms = [values.reshape(-1), values[np.newaxis], values.T, values[..., np.newaxis], values.reshape(-1)[:0]]
    forms += [values[:-1], values[:1]] if values.ndim and len(values) else []
    forms += [values.reshape(-1)[0]] if values.size else []
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(rng.choice(forms)), tensor.name))


def tensor_external(model: ModelProto, rng: Random) -> None:
    tensor = _tensor(model, rng)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    tensor.external_data.add(key="location", value=rng.choice(_LOCATIONS))
    for key in ("offset", "length"):
        if rng.random() < 0.5:
            tensor.external_data.add(key=key, value=rng.choice(("0", "8", "-1", "x", "9" * 25, str(2**40), "1e3")))


def tensor_sparse(model: ModelProto, rng: Random) -> None:
    tensor = pick(model.graph.initializer, rng)
    values = numpy_helper.from_array(np.float32([1.0]), tensor.name)
    indices = numpy_helper.from_array(np.int64([rng.choice((0, 5, -1, 2**62))]))
    dims = rng.choice((list(tensor.dims), [2**40], [2**31, 2**31], []))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, dims))
    model.graph.initializer.remove(tensor)


TENSORS: Final = (
    tensor_shape, tensor_huge, tensor_data, tensor_type, tensor_retyped, tensor_values, tensor_reshaped,
    tensor_external, tensor_sparse,
)  # fmt: skip
