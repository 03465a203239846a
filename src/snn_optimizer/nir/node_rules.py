"""What the nodes of one step are in NIR, neurons left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from snn_optimizer.ir import Node, Value, array_of, describe, is_constant, weights_of
from snn_optimizer.nir.content import cut, recovered, settled
from snn_optimizer.nir.linear_nodes import flattened_axes, read_convolution, read_linear, read_pooling
from snn_optimizer.nir.signals import Signal

if TYPE_CHECKING:
    from snn_optimizer.nir.from_step import StepReader

__all__ = ["RULES"]


def _linear(reader: StepReader, node: Node) -> None:
    weight, bias = read_linear(node, reader.refuse)
    weight = reader.signal(node.inputs[0], describe(node)).weights(weight)
    _affine(reader, node, weight, bias)


def _affine(reader: StepReader, node: Node, weight: npt.NDArray[Any], bias: npt.NDArray[Any] | None) -> None:
    old = reader.template.content(node.name) or {}
    if bias is None and old.get("type") == "Affine":
        bias = np.zeros(weight.shape[0], weight.dtype)
    fields = {"weight": _recovered(reader, weight, old.get("weight"))}
    if bias is not None:
        fields["bias"] = _recovered(reader, bias, old.get("bias"))
    reader.emit(node, "Linear" if bias is None else "Affine", fields, reader.signal(node.inputs[0], describe(node)))


def _recovered(reader: StepReader, found: npt.NDArray[Any], template: Any) -> npt.NDArray[Any]:
    return recovered(found, template, list(reader.template.units.values()))


def _convolution(reader: StepReader, node: Node) -> None:
    signal = reader.signal(node.inputs[0], describe(node))
    kind, fields = read_convolution(node, signal.shape, reader.template.node(node.name), reader.refuse)
    fields["weight"] = signal.weights(fields["weight"])
    old = reader.template.content(node.name) or {}
    for name in ("weight", "bias"):
        fields[name] = _recovered(reader, fields[name], old.get(name))
    reader.emit(node, kind, fields, signal)


def _pooling(reader: StepReader, node: Node) -> None:
    signal = reader.signal(node.inputs[0], describe(node))
    fields = read_pooling(node, reader.refuse)
    following = node.outputs[0].outputs
    count = float(np.prod(fields["kernel_size"]))
    if len(following) == 1 and following[0].op == "Mul" and not following[0].domain:
        factor = next((array_of(v) for v in following[0].inputs if is_constant(v)), None)
        if factor is not None and factor.size == 1 and float(factor.reshape(-1)[0]) == count:
            reader.emit(following[0], "SumPool2d", fields, signal)
            return
    name = node.name.removesuffix(".mean")
    old = reader.template.node(name)
    if old is not None and old.kind == "SumPool2d" and _feeds_weights(node.outputs[0]):
        reader.emit(node, "SumPool2d", fields, signal, name)
        summed = reader.signals[id(node.outputs[0])]
        reader.signals[id(node.outputs[0])] = Signal(summed.sources, summed.shape, 1.0 / count)
        return
    reader.emit(node, "AvgPool2d", fields, signal)


def _feeds_weights(value: Value) -> bool:
    """Tell whether only linear nodes read a value: they can take a factor in that a pass put into their weights."""
    readers = value.outputs
    return bool(readers) and all(
        _feeds_weights(node.outputs[0]) if node.op in ("Reshape", "Flatten") else node.op in ("Conv", "Gemm", "MatMul")
        for node in readers
    )


def _product(reader: StepReader, node: Node) -> None:
    if id(node.outputs[0]) in reader.signals:  # the second half of a sum pooling
        return
    factor = next((weights_of(value) for value in node.inputs if is_constant(value)), None)
    if node.op == "Div" and factor is not None:
        if not is_constant(node.inputs[1]) or not (factor != 0).all():
            raise reader.refuse(node, "it divides by a signal or by zero")
        factor = np.asarray(1.0 / factor, factor.dtype)
    varying = next((value for value in node.inputs if not is_constant(value)), None)
    if factor is None or varying is None:
        raise reader.refuse(node, "it multiplies two signals")
    if id(varying) not in reader.signals and varying.inputs and varying.inputs[0].op == "Concat":
        return  # a queue of delayed values: the sum that picks one of them reads it
    signal = reader.signal(varying, describe(node))
    old = reader.template.content(node.name) or {}
    try:
        scale = np.ascontiguousarray(np.broadcast_to(factor, (1, *signal.shape))[0])
    except ValueError as error:
        raise reader.refuse(node, "it widens its input") from error
    reader.emit(node, "Scale", {"scale": _recovered(reader, scale, old.get("scale"))}, signal)


def _addition(reader: StepReader, node: Node) -> None:
    varying = [value for value in node.inputs if not is_constant(value)]
    signals = [reader.signal(value, describe(node)) for value in varying]
    if len(signals) == 2:
        for own, other in (signals, signals[::-1]):
            if reader.is_kept(own, node.outputs[0]):  # a sum over the steps so far
                charge = reader.time.charge(describe(node))
                reader.emit(node, "I", {"r": np.full(other.shape, 1.0 / charge)}, other)
                return
        if signals[0].shape != signals[1].shape:
            raise reader.refuse(node, "it adds signals of different shapes")
        sources = (*signals[0].sources, *signals[1].sources)
        reader.signals[id(node.outputs[0])] = Signal(sources, signals[0].shape)
        return
    bias = next(array_of(value) for value in node.inputs if is_constant(value))
    assert bias is not None  # a constant
    _bias(reader, node, varying[0], signals[0], bias)


def _bias(reader: StepReader, node: Node, source: Value, signal: Signal, bias: npt.NDArray[Any]) -> None:
    """Put a constant into the linear node that makes the other operand; NIR adds nothing else."""
    maker = source.inputs[0] if source.inputs else None
    owner = signal.sources[0]
    content = reader.result.nodes.get(owner, {})
    if maker is None or len(signal.sources) != 1 or len(source.outputs) != 1 or content.get("type") != "Linear":
        if len(signal.shape) != 1:
            raise reader.refuse(node, "it adds a constant that no linear node can take")
        full = np.ascontiguousarray(np.broadcast_to(bias, (1, *signal.shape))[0])
        weight = np.eye(signal.shape[0], dtype=full.dtype)
        reader.emit(node, "Affine", {"weight": weight, "bias": full}, signal)
        return
    full = np.ascontiguousarray(np.broadcast_to(bias, (1, *signal.shape))[0])
    old = reader.template.content(owner)
    fields = {"weight": content["weight"], "bias": _recovered(reader, full, (old or {}).get("bias"))}
    reader.result.nodes[owner] = settled("Affine", fields, old)
    reader.signals[id(node.outputs[0])] = signal


def _reshape(reader: StepReader, node: Node) -> None:
    signal = reader.signal(node.inputs[0], describe(node))
    shape = reader.units(node.outputs[0])
    if shape == signal.shape:
        reader.signals[id(node.outputs[0])] = signal
        return
    axes = flattened_axes(signal.shape, shape)
    if axes is None:
        raise reader.refuse(node, f"it turns {list(signal.shape)} into {list(shape)}; NIR has Flatten only")
    old = reader.template.node(node.name)
    if old is not None and old.kind == "Flatten":
        start, end = (int(np.asarray(old.values[key]).reshape(())) for key in ("start_dim", "end_dim"))
        if (start % len(signal.shape), end % len(signal.shape)) == axes:
            axes = (start, end)
    fields = {
        "input_type": np.array(signal.shape, np.int64),
        "start_dim": np.int64(axes[0]), "end_dim": np.int64(axes[1]),
    }  # fmt: skip
    name = reader.emit(node, "Flatten", fields, signal)
    reader.signals[id(node.outputs[0])] = Signal((name,), shape, signal.factor)


def _copy(reader: StepReader, node: Node) -> None:
    if id(node.inputs[0]) in reader.signals:
        reader.signals[id(node.outputs[0])] = reader.signals[id(node.inputs[0])]


def _cast(reader: StepReader, node: Node) -> None:
    made = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
    if made is None or made.op not in ("Greater", "GreaterOrEqual"):
        _copy(reader, node)
        return
    level = array_of(made.inputs[1])
    if level is None:
        raise reader.refuse(made, "it compares two signals")
    if made.op == "GreaterOrEqual":
        reader.losses.take("fire-at-threshold", f"threshold '{node.name}'")
    signal = reader.signal(made.inputs[0], describe(made))
    old = reader.template.content(node.name) or {}
    values = np.ascontiguousarray(np.broadcast_to(level, (1, *signal.shape))[0])
    reader.emit(node, "Threshold", {"threshold": _recovered(reader, values, old.get("threshold"))}, signal)


def _skip(reader: StepReader, node: Node) -> None:
    """Leave a node to the one that reads it."""


def _delay(reader: StepReader, node: Node) -> None:
    """Read a queue of past values: of each unit one place is picked."""
    picked = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
    line = picked.inputs[0].inputs[0] if picked is not None and picked.op == "Mul" and picked.inputs[0].inputs else None
    first = line.inputs[0].inputs[0] if line is not None and line.op == "Concat" and line.inputs[0].inputs else None
    if picked is None or line is None or first is None or first.op != "Unsqueeze" or len(line.inputs) != 2:
        raise reader.refuse(node, "only sums that pick a delayed value are known")
    mask = array_of(picked.inputs[1])
    if mask is None or not ((mask == 0) | (mask == 1)).all() or not (mask.sum(axis=0) == 1).all():
        raise reader.refuse(node, "it does not pick one delayed value per unit")
    signal = reader.signal(first.inputs[0], describe(node))
    steps = np.broadcast_to(np.argmax(mask, axis=0), signal.shape)
    delay = steps * reader.time.step(f"node '{node.name}'")
    old = reader.template.node(node.name)
    if old is not None and old.kind == "Delay":
        same = cut(old.values["delay"], None, signal.shape[0] if signal.shape else 1)
        if (
            same is not None
            and same.shape == delay.shape
            and np.allclose(same, delay, rtol=0, atol=1e-3 * (reader.time.dt or 1))
        ):
            delay = same
    reader.emit(node, "Delay", {"delay": delay}, signal)


def _pick(reader: StepReader, node: Node) -> None:
    """Remember which entries are read; the weights that read them say it in NIR."""
    signal = reader.signal(node.inputs[0], describe(node))
    index = array_of(node.inputs[1])
    axis = int(node.attrs.get("axis", 0)) % (len(signal.shape) + 1)
    linear = all(reading.op in ("Conv", "Gemm", "MatMul") for reading in node.outputs[0].outputs)
    if index is None or index.ndim != 1 or axis != 1 or not linear or signal.picked is not None:
        raise reader.refuse(node, "it picks entries for something else than weights")
    entries = np.asarray(index, np.int64) % signal.shape[0]
    reader.signals[id(node.outputs[0])] = Signal(
        signal.sources, (len(entries), *signal.shape[1:]), signal.factor, entries, signal.shape[0]
    )


def _constant(reader: StepReader, node: Node) -> None:
    """Write what is the same at every step: a node of zero weights whose bias it is."""
    values = array_of(node.inputs[0])
    shape = reader.units(node.outputs[0])
    inputs = [name for name, held in reader.result.nodes.items() if held["type"] == "Input"]
    if values is None or len(shape) != 1 or not inputs:
        raise reader.refuse(node, "it is the same at every step and no row of numbers; NIR has no constants")
    name = node.name.removesuffix(".expand")
    source = inputs[0]
    size = tuple(int(n) for n in reader.result.nodes[source]["shape"])
    signal = Signal((source,), size)
    if len(size) != 1:
        fields = {"input_type": np.array(size, np.int64), "start_dim": np.int64(0), "end_dim": np.int64(-1)}
        signal = Signal((reader.emit(node, "Flatten", fields, signal, f"{name}.input"),), (int(np.prod(size)),))
    bias = np.ascontiguousarray(np.broadcast_to(values, (1, *shape))[0])
    old = reader.template.content(name) or {}
    full = recovered(bias, old.get("bias"), list(reader.template.units.values()))
    weight = np.zeros((*shape, *signal.shape), full.dtype)
    reader.emit(node, "Affine", {"weight": weight, "bias": full}, signal, name)


RULES: Final[dict[str, Callable[[StepReader, Node], None]]] = {
    "Add": _addition,
    "AveragePool": _pooling,
    "Cast": _cast,
    "Concat": _skip,
    "Conv": _convolution,
    "Div": _product,
    "Expand": _constant,
    "Gather": _pick,
    "Shape": _skip,
    "Flatten": _reshape,
    "Gemm": _linear,
    "Greater": _skip,
    "GreaterOrEqual": _skip,
    "Identity": _copy,
    "MatMul": _linear,
    "Mul": _product,
    "ReduceSum": _delay,
    "Reshape": _reshape,
    "Slice": _skip,
    "Unsqueeze": _skip,
}  # fmt: _skip
