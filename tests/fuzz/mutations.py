"""Seeded damage to models: of the bytes of a file, and of what a message says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.fuzz.byte_mutations import BYTES
from tests.fuzz.tensor_mutations import ODD_SIZES, TENSORS, NothingToDamageError, graphs_of, nodes_of, pick

__all__ = ["STRUCTURE", "Damage", "damaged"]

_TEXTS: Final = ("", "x" * 5000, "a/b\\..", "nul\0byte", "../../etc/passwd", "ünïcödé\u202e", "line\nbreak", "'; {}")
Edit = Callable[[ModelProto, Random], None]


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged model.

    Attributes
    ----------
    data : bytes
    edits : tuple of str
        Names of what was done, in order.
    """

    data: bytes
    edits: tuple[str, ...]


def _info(model: ModelProto, rng: Random) -> Any:
    groups = [(*graph.input, *graph.output, *graph.value_info) for graph in graphs_of(model)]
    return pick([info for group in groups for info in group], rng)


def _names(model: ModelProto) -> list[str]:
    nodes = nodes_of(model)
    names = {name for node in nodes for name in (*node.input, *node.output)}
    return sorted(names | {t.name for t in model.graph.initializer})


def node_operator(model: ModelProto, rng: Random) -> None:
    node = pick(nodes_of(model), rng)
    others = sorted({(other.domain, other.op_type) for other in nodes_of(model)})
    others += [("", op) for op in ("If", "Loop", "Scan", "Reshape", "Gather", "Slice", "Conv", "Constant", "Einsum")]
    others += [("", "NoSuchOp"), ("no.such", "Op"), ("ai.snn", "LIF"), ("", ""), ("ai.onnx.ml", "Scaler")]
    node.domain, node.op_type = rng.choice(others)


def node_inputs(model: ModelProto, rng: Random) -> None:
    node = pick([node for node in nodes_of(model) if node.input], rng)
    index = rng.randrange(len(node.input))
    match rng.randrange(6):
        case 0:
            node.input[index] = rng.choice(_names(model))
        case 1:
            del node.input[index]
        case 2:
            node.input.append(rng.choice(_names(model)))
        case 3:
            node.input[index] = rng.choice(("", "nowhere", *_TEXTS))
        case 4 if node.output:
            node.input[index] = node.output[0]
        case _:
            shuffled = list(node.input)
            rng.shuffle(shuffled)
            node.input[:] = shuffled


def node_outputs(model: ModelProto, rng: Random) -> None:
    node = pick([node for node in nodes_of(model) if node.output], rng)
    index = rng.randrange(len(node.output))
    match rng.randrange(4):
        case 0:
            del node.output[index]
        case 1:
            node.output.append(f"extra{rng.randrange(1000)}")
        case 2:
            node.output[index] = rng.choice(_names(model))
        case _:
            node.output[index] = rng.choice(_TEXTS)


def node_list(model: ModelProto, rng: Random) -> None:
    graph = pick([graph for graph in (*graphs_of(model), *model.functions) if graph.node], rng)
    index = rng.randrange(len(graph.node))
    match rng.randrange(4):
        case 0:
            del graph.node[index]
        case 1:
            graph.node.append(graph.node[index])
        case 2:
            order = list(graph.node)
            rng.shuffle(order)
            kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in order]
            del graph.node[:]
            graph.node.extend(kept)
        case _:
            del graph.node[:]


def node_attribute(model: ModelProto, rng: Random) -> None:
    node = pick([node for node in nodes_of(model) if node.attribute], rng)
    index = rng.randrange(len(node.attribute))
    attribute = node.attribute[index]
    match rng.randrange(7):
        case 0:
            del node.attribute[index]
        case 1:
            node.attribute.append(attribute)
        case 2:
            attribute.type = rng.choice((*range(15), 77))
        case 3:
            attribute.ints[:] = [rng.choice(ODD_SIZES) for _ in attribute.ints or (1, 2)]
            attribute.i = rng.choice(ODD_SIZES)
            attribute.f = rng.choice((float("nan"), float("inf"), -1.0, 1e38))
        case 4:
            attribute.s = rng.choice(_TEXTS).encode() if rng.random() < 0.7 else b"\xff\xfe"
        case 5:
            attribute.name = rng.choice(_TEXTS)
        case _:
            attribute.ref_attr_name = "nothing"


def node_new_attribute(model: ModelProto, rng: Random) -> None:
    node = pick(nodes_of(model), rng)
    name = rng.choice(
        ("axis", "axes", "alpha", "to", "body", "num_scan_inputs", "reset", "group", "pads", "value", "k")
    )
    value = rng.choice(
        (rng.choice(ODD_SIZES), 1.5, "text", [1, 2**40], [0.5], numpy_helper.from_array(np.zeros((2, 0))))
    )
    node.attribute.append(helper.make_attribute(name, value))


def interface(model: ModelProto, rng: Random) -> None:
    graph = pick(graphs_of(model), rng)
    entries = rng.choice((graph.input, graph.output))
    if not len(entries):
        raise NothingToDamageError
    index = rng.randrange(len(entries))
    match rng.randrange(5):
        case 0:
            del entries[index]
        case 1:
            entries.append(entries[index])
        case 2:
            entries[index].name = rng.choice((*_names(model), *_TEXTS))
        case 3:
            entries[index].ClearField("type")
        case _:
            other = onnx.ValueInfoProto.FromString(entries[index].SerializeToString())
            other.name = rng.choice(_names(model))
            entries.append(other)


def declared_shape(model: ModelProto, rng: Random) -> None:
    info = _info(model, rng)
    shape = info.type.tensor_type.shape
    match rng.randrange(5):
        case 0 if shape.dim:
            shape.dim[rng.randrange(len(shape.dim))].dim_value = rng.choice(ODD_SIZES)
        case 1:
            shape.dim.add().dim_value = rng.choice((1, 2, *ODD_SIZES))
        case 2 if shape.dim:
            del shape.dim[rng.randrange(len(shape.dim))]
        case 3 if shape.dim:
            shape.dim[rng.randrange(len(shape.dim))].dim_param = rng.choice(("T", "B", *_TEXTS))
        case _:
            info.type.tensor_type.ClearField("shape")


def declared_type(model: ModelProto, rng: Random) -> None:
    info = _info(model, rng)
    match rng.randrange(3):
        case 0:
            info.type.sequence_type.elem_type.tensor_type.elem_type = 1
        case 1:
            info.type.map_type.key_type = 7
        case _:
            info.type.tensor_type.elem_type = rng.choice((*range(24), 77))


def versions(model: ModelProto, rng: Random) -> None:
    match rng.randrange(5):
        case 0:
            del model.opset_import[:]
        case 1 if model.opset_import:
            pick(model.opset_import, rng).version = rng.choice((1, 6, 8, 11, 999, *ODD_SIZES))
        case 2 if model.opset_import:
            model.opset_import.append(pick(model.opset_import, rng))
        case 3 if model.opset_import:
            pick(model.opset_import, rng).domain = rng.choice(_TEXTS)
        case _:
            model.ir_version = rng.choice((0, 1, 2, 3, 99, 2**31))


def functions(model: ModelProto, rng: Random) -> None:
    function = pick(model.functions, rng)
    match rng.randrange(6):
        case 0:
            model.functions.remove(function)
        case 1:
            function.input.append("more")
        case 2:
            del function.output[-1:]
        case 3:
            del function.opset_import[:]
        case 4:
            pick(function.node, rng).CopyFrom(
                helper.make_node(function.name, list(function.input), list(function.output), domain=function.domain)
            )
        case _:
            del function.node[:]


def metadata(model: ModelProto, rng: Random) -> None:
    for entry in model.metadata_props:
        entry.value = rng.choice(_TEXTS)
    model.metadata_props.add(key=rng.choice(_TEXTS), value=rng.choice(_TEXTS))
    for node in nodes_of(model):
        for entry in node.metadata_props:
            if rng.random() < 0.3:
                entry.value = rng.choice(_TEXTS)


def renamed(model: ModelProto, rng: Random) -> None:
    """Give a value another name everywhere."""
    old, new = rng.choice(_names(model)), rng.choice(_TEXTS)
    for node in nodes_of(model):
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for graph in graphs_of(model):
        for entry in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            entry.name = new if entry.name == old else entry.name


def nested(model: ModelProto, rng: Random) -> None:
    """Put bodies into bodies, some deeper than any reader can follow."""
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "deep_condition"))
    name = model.graph.output[0].name if model.graph.output else "y"
    inner = helper.make_graph([helper.make_node("Identity", ["deep_condition"], ["b"])], "g", [], [_bool("b")])
    for depth in range(rng.choice((3, 30, 45, 90, 400))):
        node = helper.make_node("If", ["deep_condition"], [f"d{depth}"], then_branch=inner, else_branch=_leaf())
        inner = helper.make_graph([node], "g", [], [_bool(f"d{depth}")])
    model.graph.node.add().CopyFrom(inner.node[0])
    model.graph.node[-1].output[0] = f"{name}_deep"
    model.graph.output.append(_bool(f"{name}_deep"))


def _bool(name: str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.BOOL, [])


def _leaf() -> Any:
    return helper.make_graph([helper.make_node("Identity", ["deep_condition"], ["c"])], "l", [], [_bool("c")])


STRUCTURE: Final[dict[str, Edit]] = {
    edit.__name__: edit
    for edit in (
        *TENSORS, node_operator, node_inputs, node_outputs, node_list, node_attribute,
        node_new_attribute, interface, declared_shape, declared_type, versions, functions, metadata, renamed, nested,
    )
}  # fmt: skip


def damaged(model: ModelProto, seed: int) -> Damage:
    """Return a damaged copy of a model; the same seed gives the same damage."""
    rng = Random(seed)  # noqa: S311 - nothing secret
    copy = ModelProto()
    copy.CopyFrom(model)
    done: list[str] = []
    in_bytes = rng.random() < 0.2
    wanted = 0 if in_bytes else rng.choice((1, 1, 1, 2, 3))
    while len(done) < wanted:
        name = rng.choice(list(STRUCTURE))
        try:
            STRUCTURE[name](copy, rng)
        except NothingToDamageError:
            continue
        except Exception:  # noqa: BLE001, S112 - what makes the damage met damage; another edit will do
            continue
        done.append(name)
    data = copy.SerializeToString(deterministic=True)
    if in_bytes or rng.random() < 0.05:
        name = rng.choice(list(BYTES))
        raw = bytearray(data)
        BYTES[name](raw, rng)
        data, done = bytes(raw), [*done, name]
    return Damage(data, tuple(done))
