"""The network as one streaming step, and as a Scan over time."""

from __future__ import annotations

from dataclasses import replace

import onnx
from onnx import helper

from tests.support.unrolling.graph import GraphWriter, build, tensor_info
from tests.support.unrolling.habits import Habits
from tests.support.unrolling.layers import LayerWriter, State, integers
from tests.support.unrolling.network import Network
from tests.support.unrolling.unrolled import INPUT, PLAIN

Ends = list[tuple[str, list[int | str]]]


def write_step(writer: GraphWriter, network: Network, source: str) -> tuple[Ends, Ends, str]:
    """The nodes of one step: its states before and after with their shapes, and the output of the last layer.

    States are `membrane1`, `current1`, `spikes1`, ...; after the step `_next`.
    """
    batch = writer.habits.batch or "batch"
    before: Ends = []
    after: list[tuple[str, str, list[int | str]]] = []
    streams: list[str] = []
    value = source
    for index in range(len(network.layers)):
        layer = LayerWriter(writer, network, index)
        kinds = {"membrane": True, "current": layer.neuron.has_current, "spikes": layer.layer.recurrent is not None}
        names = {kind: writer.reserve(f"{kind}{index + 1}") for kind, present in kinds.items() if present}
        shape: list[int | str] = [batch, *layer.shape]
        before += [(name, shape) for name in names.values()]
        writer.layer = layer.name
        state = State(names["membrane"], names.get("current"), names.get("spikes"))
        residual = None if layer.layer.residual is None else streams[layer.layer.residual]
        value, state = layer.step(layer.drive(value), state, residual)
        streams.append(value)
        for kind, name in names.items():
            result = getattr(state, kind)
            after.append((writer.write(result), f"{name}_next", shape))
    writer.layer = "readout"
    output = writer.expose(value, "output_step")
    return before, [(writer.expose(result, name), shape) for result, name, shape in after], output


def step_model(network: Network, habits: Habits = PLAIN) -> onnx.ModelProto:
    """Inputs `x` [B, ...] and the states; outputs `output_step` and the states, `_next`."""
    writer = GraphWriter(habits)
    writer.reserve(INPUT)
    before, after, output = write_step(writer, network, INPUT)
    batch = habits.batch or "batch"
    inputs = [tensor_info(INPUT, [batch, *network.features]), *(tensor_info(*end) for end in before)]
    outputs = [tensor_info(output, [batch, *network.shapes[-1]]), *(tensor_info(*end) for end in after)]
    return build(writer, inputs, outputs)


def scan_model(network: Network, habits: Habits = PLAIN) -> onnx.ModelProto:
    """Input `x` [T, B, ...] (or the time on axis 1); outputs `stack` and, of habit, the final states `..._final`.

    The body reads the weights from around it. T is symbolic.
    """
    writer = GraphWriter(replace(habits, weights="shared"))
    writer.reserve(INPUT)
    frame = writer.reserve("x_step")
    before, after, output = write_step(writer, network, frame)
    batch = habits.batch or "batch"
    body = helper.make_graph(
        writer.nodes,
        "body",
        [*(tensor_info(*end) for end in before), tensor_info(frame, [batch, *network.features])],
        [*(tensor_info(*end) for end in after), tensor_info(output, [batch, *network.shapes[-1]])],
    )
    writer.nodes = []
    zeros = [_zeros(writer, shape) for _, shape in before]
    finals = [writer.reserve(f"{name}_final") for name, _ in before]
    writer.layer = "loop"
    axes = {} if habits.time_axis == 0 else {"scan_input_axes": [1], "scan_output_axes": [1]}
    writer.append(
        writer.nodes, "Scan", [*zeros, INPUT], [*finals, "stack"], "scan", body=body, num_scan_inputs=1, **axes
    )
    lead: list[int | str] = ["T", batch] if habits.time_axis == 0 else [batch, "T"]
    outputs = [tensor_info("stack", [*lead, *network.shapes[-1]])]
    if "finals" in habits.outputs:
        outputs += [tensor_info(name, shape) for name, (_, shape) in zip(finals, before, strict=True)]
    return build(writer, [tensor_info(INPUT, [*lead, *network.features])], outputs)


def _zeros(writer: GraphWriter, shape: list[int | str]) -> str:
    """Zeros of the batch of the input; equal ones are one value."""
    start = 1 - writer.habits.time_axis

    def write() -> str:
        size = writer.emit("Shape", [INPUT], "batch", start=start, end=start + 1)
        tail = integers([int(each) for each in shape[1:]], "units")
        return writer.emit("ConstantOfShape", [writer.emit("Concat", [size, tail], "shape", axis=0)], "initial")

    return writer.once(("zeros", tuple(shape)), write)
