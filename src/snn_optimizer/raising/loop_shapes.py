"""Shape inference of the model around a ``Loop``, and of one step of its body.

Only the inputs of the model are believed: what a file declares about inner values, and about the inputs
and outputs of bodies, is dropped before ONNX infers. Sizes that are no numbers are symbols, and an input
that names none gets one of its own, so that equal symbols are equal sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import onnx

from snn_optimizer.ir import (
    Dimension,
    Graph,
    Module,
    Node,
    Value,
    array_of,
    dtype_of_constant,
    is_standard,
    shape_of_constant,
)
from snn_optimizer.raising.shift import origin

__all__ = ["LoopShapes", "Sizes", "integer", "starts_below", "truth"]

Sizes: TypeAlias = tuple[int | str, ...]

_RESHAPING: Final = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze")


class LoopShapes:
    """Sizes and element types of the values of a model, and of those of a step once it is entered."""

    def __init__(self, module: Module, node: Node) -> None:
        self.proto = module.skeleton()
        graph = self.proto.graph
        place = next(place for place, one in enumerate(module.graph.nodes) if one is node)
        self.body = next(attribute.g for attribute in graph.node[place].attribute if attribute.name == "body")
        self.step = onnx.GraphProto()
        self.step.CopyFrom(self.body)
        self.symbols = {size.dim_param for value in graph.input for size in value.type.tensor_type.shape.dim}
        for value in graph.input:
            for axis, size in enumerate(value.type.tensor_type.shape.dim):
                if not size.dim_value and not size.dim_param and not size.HasField("dim_value"):
                    size.dim_param = f"{value.name}.{axis}"
        del graph.value_info[:]
        for value in graph.output:
            value.ClearField("type")
        for one in graph.node:
            _forget_shapes(one)
        self.found: dict[str, tuple[int, Sizes]] = {}
        self.infer()

    def infer(self) -> None:
        """Infer what can be."""
        inferred = onnx.shape_inference.infer_shapes(self.proto, data_prop=True).graph
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            tensor = value.type.tensor_type
            if value.type.HasField("tensor_type") and tensor.HasField("shape"):
                sizes = tuple(
                    int(size.dim_value) if size.HasField("dim_value") else size.dim_param or f"{value.name}.{axis}"
                    for axis, size in enumerate(tensor.shape.dim)
                )
                self.found.setdefault(value.name, (tensor.elem_type, sizes))

    def enter(self, body: Graph, given: Sequence[tuple[Value, int, Sizes]], skipped: Sequence[Node]) -> bool:
        """Infer one step with the given inputs; what is skipped is given too.

        Returns
        -------
        bool
            False where names of the body hide names around it.
        """
        graph = self.proto.graph
        names = {name for one in graph.node for name in one.output} | {value.name for value in graph.input}
        shadowed = names.intersection(name for one in self.step.node for name in one.output if name)
        if shadowed or names.intersection(value.name for value in body.inputs):
            return False
        graph.input.extend(onnx.helper.make_tensor_value_info(v.name, kind, sizes) for v, kind, sizes in given)
        graph.initializer.extend(self.step.initializer)
        gone = {id(node) for node in skipped}
        for node, proto in zip(body.nodes, self.step.node, strict=True):
            if id(node) not in gone and node.op != "SequenceInsert":
                _forget_shapes(proto)
                graph.node.append(proto)
        self.infer()
        return True

    def declared(self, sizes: Sizes) -> tuple[Dimension, ...]:
        """Return sizes as a file may name them: without the symbols that are no one's but inference's."""
        return tuple(size if isinstance(size, int) or size in self.symbols else None for size in sizes)

    def sizes(self, value: Value) -> Sizes | None:
        """Return the sizes of a value, None when the number of axes is unknown."""
        known = shape_of_constant(value)
        return known if known is not None else self.found.get(value.name, (0, None))[1]

    def kind(self, value: Value) -> int | None:
        """Return the element type of a value as ONNX numbers it."""
        known = dtype_of_constant(value)
        return self.found.get(value.name, (None,))[0] if known is None else onnx.helper.np_dtype_to_tensor_dtype(known)

    def length(self, value: Value) -> int | str | None:
        """Return the size of an axis that an integer of the main graph is, None when it is none."""
        maker = value.inputs[0] if len(value.inputs) == 1 else None
        if maker is None or not is_standard(maker):
            return None
        data = maker.inputs[0] if maker.inputs else value
        if maker.op == "Shape":
            whole = self.vector(value) or ()
            return whole[0] if len(whole) == 1 else None
        if maker.op in _RESHAPING:
            return self.length(data)
        sizes, at = self.vector(data), integer(maker.inputs[1]) if len(maker.inputs) > 1 else None
        if sizes is None or at is None or not -len(sizes) <= at < len(sizes):
            return None
        if maker.op == "Gather":
            return sizes[at]
        end = integer(maker.inputs[2]) if maker.op == "Slice" and len(maker.inputs) < 5 else None
        return sizes[at] if end is not None and len(sizes[at:end]) == 1 else None

    def vector(self, value: Value) -> Sizes | None:
        """Return the sizes that a Shape node gives."""
        maker = value.inputs[0] if len(value.inputs) == 1 else None
        if maker is None or not is_standard(maker, "Shape"):
            return None
        sizes = self.sizes(maker.inputs[0])
        return None if sizes is None else sizes[int(maker.attrs.get("start", 0)) : maker.attrs.get("end")]


def _forget_shapes(node: onnx.NodeProto) -> None:
    """Remove what the bodies of a node declare about shapes."""
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            del graph.value_info[:]
            for value in (*graph.input, *graph.output):
                if value.type.HasField("tensor_type"):
                    value.type.tensor_type.ClearField("shape")
            for inner in graph.node:
                _forget_shapes(inner)


def integer(value: Value) -> int | None:
    """Return the only element of an integer constant."""
    array: Any = array_of(origin(value))
    return int(array.reshape(-1)[0]) if array is not None and array.size == 1 and array.dtype.kind in "iu" else None


def truth(value: Value) -> bool | None:
    """Return a constant condition, None when it is computed."""
    value = origin(value)
    while len(value.inputs) == 1 and is_standard(value.inputs[0], "Cast"):
        value = origin(value.inputs[0].inputs[0])
    array = array_of(value)
    return None if array is None or array.size != 1 else bool(array.reshape(-1)[0])


def starts_below(condition: Value, bound: Value) -> bool:
    """Tell whether a condition of the main graph is ``0 < bound``."""
    maker = condition.inputs[0] if len(condition.inputs) == 1 else None
    if maker is None or not is_standard(maker, "Less", "Greater"):
        return False
    small, large = maker.inputs if maker.op == "Less" else maker.inputs[::-1]
    return integer(small) == 0 and origin(large) is bound
