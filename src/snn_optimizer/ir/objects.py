"""Make objects of the graph library quickly.

Its constructors go through a ``__setattr__`` that raises and catches an exception for
each list; a model has hundreds of thousands of lists. Here objects start as copies of a
model object's fields, so that fields of other versions of the library are there too.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.util.misc import SynchronizedList

from snn_optimizer.ir.tensors import HeldTensor
from snn_optimizer.ir.types import Dimension, Node, OpKey, Value

__all__ = ["building", "missing", "new_constant", "new_node", "new_variable"]

_VARIABLE: Final[dict[str, Any]] = dict(vars(gs.Variable("")))
_CONSTANT: Final[dict[str, Any]] = dict(vars(gs.Constant("", np.zeros(()))))
_NODE: Final[dict[str, Any]] = dict(vars(gs.Node("")))


@contextmanager
def building() -> Iterator[None]:
    """Pause the cyclic garbage collector while a model's objects are made.

    All of them stay, and looking at them again and again doubles the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _linked(parent: Any, field_name: str, initial: Iterable[Any]) -> list[Any]:
    """Return a list of the library without linking its elements back."""
    links = SynchronizedList.__new__(SynchronizedList)
    links.parent_obj = parent
    links.field_name = field_name
    list.extend(links, initial)
    return cast("list[Any]", links)


def new_variable(
    name: str,
    dtype: np.dtype[Any] | None = None,
    shape: Sequence[Dimension] | None = None,
    kind: str = "tensor_type",
) -> Value:
    """Return a value computed at run time; ``kind`` is the kind of type it has."""
    value = gs.Variable.__new__(gs.Variable)
    value.__dict__.update(
        _VARIABLE,
        name=name,
        inputs=_linked(value, "outputs", ()),
        outputs=_linked(value, "inputs", ()),
        dtype=dtype,
        shape=shape,
        type=kind,
    )
    return cast("Value", value)


def missing() -> Value:
    """Return the stand-in for an optional input or output that is left out."""
    return new_variable("")


def new_constant(name: str, held: NDArray[Any] | HeldTensor) -> Value:
    """Return a constant with values in memory or stored elsewhere."""
    value = gs.Constant.__new__(gs.Constant)
    value.__dict__.update(
        _CONSTANT,
        name=name,
        inputs=_linked(value, "outputs", ()),
        outputs=_linked(value, "inputs", ()),
        _values=held,
    )
    return cast("Value", value)


def new_node(key: OpKey, name: str, attrs: dict[str, Any], inputs: Sequence[Value], outputs: Sequence[Value]) -> Node:
    """Return a node linked to its inputs and outputs; it is in no graph yet."""
    node = gs.Node.__new__(gs.Node)
    node.__dict__.update(
        _NODE,
        domain=key[0],
        op=key[1],
        name=name,
        attrs=attrs,
        inputs=_linked(node, "outputs", inputs),
        outputs=_linked(node, "inputs", outputs),
    )
    for value in inputs:
        list.append(value.outputs, node)
    for value in outputs:
        list.append(value.inputs, node)
    return cast("Node", node)
