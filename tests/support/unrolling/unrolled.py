"""The network with its steps written one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from tests.support.unrolling.graph import GraphWriter, build, tensor_info
from tests.support.unrolling.habits import Habits
from tests.support.unrolling.layers import LayerWriter, State, integers, literal
from tests.support.unrolling.network import Network

INPUT = "x"
PLAIN = Habits()


def unroll(network: Network, steps: int, habits: Habits = PLAIN) -> onnx.ModelProto:
    """Input `x` [T, B, ...], [B, T, ...] or, static, [B, ...]; outputs have the names of `habits.outputs`.

    `finals` are `membrane1`, `current1`, ... of the layers after the last step.
    """
    return Unroller(network, steps, habits).model()


class Unroller:
    """Writes one model."""

    def __init__(self, network: Network, steps: int, habits: Habits):
        self.network = network
        self.steps = steps
        self.habits = habits
        self.writer = GraphWriter(habits)
        self.layers = [LayerWriter(self.writer, network, index) for index in range(len(network.layers))]
        self.streams: list[list[str]] = [[] for _ in self.layers]
        self.membranes: list[str] = []
        self.states: list[State | None] = [None] * len(self.layers)
        self.batch: int | str = habits.batch or "batch"
        self.ends: list[tuple[str, str, Sequence[int | str]]] = []

    def model(self) -> onnx.ModelProto:
        """The whole model."""
        static = self.habits.slicing == "static"
        shape = self._sequence_shape(self.network.features) if not static else [self.batch, *self.network.features]
        self.writer.reserve(INPUT)
        inputs = [tensor_info(INPUT, shape)]
        if self.habits.order == "slices-first" and not static and self._drives(0) is None:
            for step in range(self.steps):
                self._frame(step)
        for step, index in self._schedule():
            self._advance(index, step)
        self.writer.layer, self.writer.step = "readout", -1
        for kind in self.habits.outputs:
            self._output(kind)
        outputs = [tensor_info(self.writer.expose(value, name), shape) for value, name, shape in self.ends]
        return build(self.writer, inputs, outputs)

    def _schedule(self) -> list[tuple[int, int]]:
        layers, steps = range(len(self.layers)), range(self.steps)
        if self.habits.order == "layers" or self.habits.hoist == "every":
            return [(step, index) for index in layers for step in steps]
        return [(step, index) for step in steps for index in layers]

    def _sequence_shape(self, shape: Sequence[int]) -> list[int | str]:
        lead = [self.steps, self.batch] if self.habits.time_axis == 0 else [self.batch, self.steps]
        return [*lead, *shape]

    # -- inputs of steps --------------------------------------------------------------------

    def _slice(self, stack: str, step: int, role: str) -> str:
        """One step of a stack."""
        writer, axis = self.writer, self.habits.time_axis
        if self.habits.slicing == "split":
            parts = self._split(stack, role)
            writer.step = step
            return writer.emit("Squeeze", [parts[step], integers([axis], f"{role}.axes")], role)
        writer.step = step
        if self.habits.slicing in {"gather", "static"}:
            return writer.emit("Gather", [stack, integers(step, f"{role}.index")], role, axis=axis)
        ends = [integers([step], f"{role}.start"), integers([step + 1], f"{role}.end")]
        part = writer.emit("Slice", [stack, *ends, integers([axis], f"{role}.axes")], f"{role}.part")
        return writer.emit("Squeeze", [part, integers([axis], f"{role}.axes")], role)

    def _split(self, stack: str, role: str) -> list[str]:
        writer = self.writer
        names = [f"{role}.part.{step}" for step in range(self.steps)]

        def write() -> str:
            writer.step = -1
            sizes = writer.write(integers([1] * self.steps, f"{role}.sizes"))
            results = [writer.fresh(f"{writer.layer}.{name}") for name in names]
            axis = self.habits.time_axis
            return " ".join(writer.append(writer.nodes, "Split", [stack, sizes], results, f"{role}.split", axis=axis))

        return writer.once(("split", stack), write).split(" ")

    def _frame(self, step: int) -> str:
        """The input of a step."""
        if self.habits.slicing == "static":
            return INPUT
        self.writer.layer = "input"
        return self.writer.once(("frame", step), lambda: self._slice(INPUT, step, "slice"))

    def _drives(self, index: int) -> str | None:
        """The current of all steps at once, if it is computed so; of a static input, of each step."""
        hoist, writer = self.habits.hoist, self.writer
        if hoist == "none" or (hoist == "first" and index):
            return None
        layer = self.layers[index]

        def write() -> str:
            writer.layer, writer.step = layer.name, -1
            if index == 0 and self.habits.slicing == "static":
                return layer.drive(INPUT)
            stack = INPUT if index == 0 else self._stack(self.streams[index - 1], "restack")
            drives = layer.drives(stack, self.steps)
            if self.habits.order == "slices-first":
                for step in range(self.steps):
                    self._current(index, step, drives)
            return drives

        return writer.once(("drives", index), write)

    def _current(self, index: int, step: int, drives: str) -> str:
        self.writer.layer = self.layers[index].name
        return self.writer.once(("current", index, step), lambda: self._slice(drives, step, "slice"))

    def _drive(self, index: int, step: int) -> str:
        drives = self._drives(index)
        if drives is not None:
            static = index == 0 and self.habits.slicing == "static"
            return drives if static else self._current(index, step, drives)
        value = self._frame(step) if index == 0 else self.streams[index - 1][step]
        self.writer.layer, self.writer.step = self.layers[index].name, step
        return self.layers[index].drive(value)

    def _advance(self, index: int, step: int) -> None:
        """One step of one layer."""
        layer = self.layers[index]
        drive = self._drive(index, step)
        self.writer.layer, self.writer.step = layer.name, step
        state = self.states[index] or layer.initial(drive)
        source = layer.layer.residual
        residual = None if source is None else self.streams[source][step]
        output, state = layer.step(drive, state, residual)
        self.states[index] = state
        self.streams[index].append(output)
        if index == len(self.layers) - 1:
            self.membranes.append(self.writer.write(state.membrane))

    # -- outputs ---------------------------------------------------------------------------

    def _stack(self, values: Sequence[str], role: str) -> str:
        writer, axis = self.writer, self.habits.time_axis
        parts = []
        for step, value in enumerate(values):
            writer.step = step
            parts.append(writer.emit("Unsqueeze", [value, integers([axis], f"{role}.axes")], f"{role}.part"))
        writer.step = -1
        return writer.emit("Concat", parts, role, axis=axis)

    def _chain(self, op: str, values: Sequence[str], role: str) -> str:
        total, *others = values
        if op == "Add" and self.habits.sum_from_zero:
            total = self.writer.emit("Add", [total, literal(0, f"{role}.zero")], f"{role}.first")
        for step, value in enumerate(others, start=1):
            self.writer.step = step
            total = self.writer.emit(op, [total, value], role)
        self.writer.step = -1
        return total

    def _reduced(self, op: str, values: Sequence[str]) -> str:
        stack = self._stack(values, f"{op}.stack")
        axes = integers([self.habits.time_axis], f"{op}.axes")
        return self.writer.emit(op, [stack, axes], op, keepdims=0)

    def _output(self, kind: str) -> None:
        values, shape, writer = self.streams[-1], list(self.network.shapes[-1]), self.writer
        frame: list[int | str] = [self.batch, *shape]
        match kind:
            case "stack" | "membranes":
                chosen = values if kind == "stack" else self.membranes
                self._end(self._stack(chosen, kind), kind, self._sequence_shape(shape))
            case "concat":
                joined = writer.emit("Concat", values, kind, axis=1)
                self._end(joined, kind, [self.batch, shape[0] * self.steps, *shape[1:]])
            case "sum":
                self._end(self._chain("Add", values, kind), kind, frame)
            case "mean":
                total = self._chain("Add", values, kind)
                self._end(writer.emit("Div", [total, literal(self.steps, "steps")], kind), kind, frame)
            case "max":
                self._end(self._chain("Max", values, kind), kind, frame)
            case "last":
                self._end(values[-1], kind, frame)
            case "finals":
                self._finals()
            case _:
                op = {"sum-reduce": "ReduceSum", "mean-reduce": "ReduceMean", "max-reduce": "ReduceMax"}[kind]
                self._end(self._reduced(op, values), kind, frame)

    def _finals(self) -> None:
        for index, state in enumerate(self.states):
            assert state is not None
            frame = [self.batch, *self.network.shapes[index + 1]]
            self._end(self.writer.write(state.membrane), f"membrane{index + 1}", frame)
            if state.current is not None:
                self._end(self.writer.write(state.current), f"current{index + 1}", frame)

    def _end(self, value: str, name: str, shape: Sequence[int | str]) -> None:
        self.ends.append((value, name, shape))


def feeds_like(model: onnx.ModelProto, steps: int, batch: int) -> dict[str, tuple[int, ...]]:
    """The shape of each input, where a symbolic `batch` and other symbols (the steps) are chosen."""
    return {
        each.name: tuple(
            dimension.dim_value or (batch if dimension.dim_param == "batch" else steps)
            for dimension in each.type.tensor_type.shape.dim
        )
        for each in model.graph.input
    }


def binary_trains(
    model_or_shape: onnx.ModelProto | Sequence[int], steps: int = 6, batch: int = 3, rate: float = 0.4, seed: int = 0
) -> dict[str, np.ndarray]:
    """Feeds: random spikes for `x` and zeros for states. A shape is that of one step of one sample."""
    if isinstance(model_or_shape, onnx.ModelProto):
        shapes = feeds_like(model_or_shape, steps, batch)
    else:
        shapes = {INPUT: (steps, batch, *model_or_shape)}
    generator = np.random.default_rng(seed)
    return {
        name: (generator.random(shape) < (rate if name == INPUT else 0)).astype(np.float32)
        for name, shape in shapes.items()
    }
