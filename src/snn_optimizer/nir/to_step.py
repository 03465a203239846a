"""One step of a NIR network as an ONNX model: states come in as inputs and go out as outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from snn_optimizer import ops
from snn_optimizer.errors import UnsupportedModelError
from snn_optimizer.ir import Dimension, Module, Rewriter, SNNGraph, Value
from snn_optimizer.lowering.step_form import StepForm
from snn_optimizer.nir.document import NirFile, NirNode
from snn_optimizer.nir.feedback import Order, evaluation_order
from snn_optimizer.nir.schemes import NEURONS, Discretization, Steps, steps_of_neuron
from snn_optimizer.nir.windows import pads_of, per_axis

__all__ = ["LONGEST_DELAY", "step_network"]

LONGEST_DELAY: Final = 10_000
"""Steps; every one is a row of state."""

_BATCH: Final = "batch"


def step_network(network: NirFile, time: Discretization) -> tuple[StepForm, dict[str, Steps]]:
    """Return one step of a network, and what its neurons became.

    Raises
    ------
    InputError
        If a node has a time and nobody said how long a step is.
    UnsupportedModelError
        If a node has no such form; the message names it.
    """
    writer = _Writer(network, time, evaluation_order(network, time.feedback))
    return writer.write(), writer.neurons


@dataclass
class _Writer:
    network: NirFile
    time: Discretization
    order: Order
    neurons: dict[str, Steps] = field(default_factory=dict)
    made: dict[str, Value] = field(default_factory=dict)
    before: dict[str, Value] = field(default_factory=dict)
    states: list[tuple[Value, Value]] = field(default_factory=list)

    def write(self) -> StepForm:
        self.module = Module.empty(inputs=[], outputs=[], opset=18, name="nir")
        self.rewriter = Rewriter(self.module)
        graph = self.module.graph
        ends = [node for node in self.network.nodes.values() if node.kind == "Output"]
        if not ends or not any(node.kind == "Input" for node in self.network.nodes.values()):
            raise UnsupportedModelError(f"{self.network.label}: a network needs an Input and an Output")
        results = {node.name: self._value(node.name, node.shape) for node in ends}
        for name in sorted(name for name, node in self.network.nodes.items() if node.kind == "Input"):
            self.made[name] = self._value(name, self.network.nodes[name].shape)
            graph.inputs.append(self.made[name])
        for name in sorted({first for first, _ in self.order.late}):
            self.before[name] = self._state(f"{name}_prev", self.network.nodes[name].shape)
        signals = {value.name: 0 for value in graph.inputs if value in self.made.values()}
        for name in self.order.names:
            node = self.network.nodes[name]
            if node.kind == "Output":
                self._emit("Identity", [self._input(node)], results[name], name)
                graph.outputs.append(results[name])
            elif node.kind != "Input":
                self.made[name] = self._node(node)
        self.states.extend((state, self.made[name]) for name, state in self.before.items())
        pairs = {}
        for state, after in self.states:
            result = self._value(f"{state.name}_next", tuple(state.shape or ())[1:])
            self._emit("Identity", [after], result)
            graph.outputs.append(result)
            pairs[state.name] = result.name
        self.rewriter.finish()
        return StepForm(SNNGraph(module=self.module), pairs, dict.fromkeys(pairs, 0.0), signals)

    # ----------------------------------------------------------------- writing

    def _value(self, hint: str, shape: Sequence[Any] | None) -> Value:
        sizes: list[Dimension] | None = None if shape is None else [_BATCH, *shape]
        return self.rewriter.value(hint, np.float32, sizes)

    def _state(self, hint: str, shape: Sequence[Any]) -> Value:
        value = self._value(hint, shape)
        self.module.graph.inputs.append(value)
        return value

    def _emit(
        self, op: str, inputs: Sequence[Value | None], output: Value, name: str | None = None, **attrs: Any
    ) -> Value:
        self.rewriter.add(self.module.graph, op, inputs, [output], attrs, name_hint=name)
        return output

    def _constant(self, hint: str, values: Any) -> Value:
        return self.rewriter.constant(hint, np.ascontiguousarray(values, np.float32))

    def _input(self, node: NirNode) -> Value:
        """Return the sum of what a node reads; what is one step late comes last."""
        sources = self.network.inputs_of(node.name)
        if not sources:
            raise UnsupportedModelError(f"{self.network.label}: node '{node.name}' ({node.kind}) has no input")
        late = [(source, node.name) in self.order.late for source in sources]
        ranked = sorted(zip(late, map(self.order.names.index, sources), sources, strict=True))
        read = [self.before[source] if is_late else self.made[source] for is_late, _, source in ranked]
        total = read[0]
        for number, value in enumerate(read[1:], start=1):
            shape = tuple(total.shape or ())[1:]
            total = self._emit("Add", [total, value], self._value(f"{node.name}.sum{number}", shape))
        return total

    # ------------------------------------------------------------------- nodes

    def _node(self, node: NirNode) -> Value:
        source = self._input(node)
        if node.kind in NEURONS:
            return self._neuron(node, source)
        return _WRITERS[node.kind](self, node, source)

    def refuse(self, node: NirNode, reason: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"{self.network.label}: node '{node.name}' ({node.kind}) {reason}")

    def _neuron(self, node: NirNode, source: Value) -> Value:
        steps = steps_of_neuron(node, self.time, f"{self.network.label}: ")
        self.neurons[node.name] = steps
        variant = steps.variant
        inputs: list[Value] = []
        after: list[Value] = []
        for declared in variant.schema.inputs:
            if declared.role == "signal":
                inputs.append(source)
            elif declared.role == "state":
                state = self._state(f"{node.name}_{declared.name}", node.shape)
                after.append(self._value(f"{node.name}_{declared.name}_after", node.shape))
                self.states.append((state, after[-1]))
                inputs.append(state)
            else:
                inputs.append(self._constant(f"{node.name}.{declared.name}", steps.parameters[declared.name]))
        result = self._value(f"{node.name}_out", node.shape)
        self.rewriter.add(
            self.module.graph, variant.op_type, inputs, [result, *after], variant.attributes(), ops.DOMAIN, node.name
        )
        self.module.add_function(ops.function_proto(variant, self.module.opset()))
        return result

    def linear(self, node: NirNode, source: Value) -> Value:
        weight = np.asarray(node.values["weight"])
        if weight.ndim != 2:
            raise self.refuse(node, f"has a weight of {weight.ndim} axes; only matrices are supported")
        inputs = [source, self._constant(f"{node.name}.weight", weight)]
        if node.kind == "Affine":
            inputs.append(self._constant(f"{node.name}.bias", np.broadcast_to(node.values["bias"], weight.shape[:1])))
        return self._emit("Gemm", inputs, self._value(f"{node.name}_out", node.shape), node.name, transB=1)

    def convolution(self, node: NirNode, source: Value) -> Value:
        weight = np.asarray(node.values["weight"])
        axes = weight.ndim - 2
        inputs = [source, self._constant(f"{node.name}.weight", weight)]
        inputs.append(self._constant(f"{node.name}.bias", np.broadcast_to(node.values["bias"], weight.shape[:1])))
        attrs: dict[str, Any] = {
            "kernel_shape": list(weight.shape[2:]), "strides": per_axis(node.values["stride"], axes),
            "dilations": per_axis(node.values["dilation"], axes), "pads": pads_of(node, weight.shape[2:]),
            "group": int(np.asarray(node.values["groups"]).reshape(())),
        }  # fmt: skip
        return self._emit("Conv", inputs, self._value(f"{node.name}_out", node.shape), node.name, **attrs)

    def pooling(self, node: NirNode, source: Value) -> Value:
        kernel = per_axis(node.values["kernel_size"], 2)
        attrs = {
            "kernel_shape": kernel, "strides": per_axis(node.values["stride"], 2),
            "pads": per_axis(node.values["padding"], 2) * 2, "count_include_pad": 1,
        }  # fmt: skip
        if node.kind == "AvgPool2d":
            return self._emit("AveragePool", [source], self._value(f"{node.name}_out", node.shape), node.name, **attrs)
        mean = self._emit(
            "AveragePool", [source], self._value(f"{node.name}_mean", node.shape), f"{node.name}.mean", **attrs
        )
        size = self._constant(f"{node.name}.size", float(np.prod(kernel)))
        return self._emit("Mul", [mean, size], self._value(f"{node.name}_out", node.shape), node.name)

    def flatten(self, node: NirNode, source: Value) -> Value:
        shape = self.rewriter.constant(f"{node.name}.shape", np.array([0, *node.shape], np.int64))
        return self._emit("Reshape", [source, shape], self._value(f"{node.name}_out", node.shape), node.name)

    def scale(self, node: NirNode, source: Value) -> Value:
        factor = self._constant(f"{node.name}.scale", node.values["scale"])
        return self._emit("Mul", [source, factor], self._value(f"{node.name}_out", node.shape), node.name)

    def threshold(self, node: NirNode, source: Value) -> Value:
        level = self._constant(f"{node.name}.threshold", node.values["threshold"])
        sizes: list[Dimension] = [_BATCH, *node.shape]
        fired = self.rewriter.value(f"{node.name}_fired", np.bool_, sizes)
        self._emit("Greater", [source, level], fired, f"{node.name}.test")
        return self._emit("Cast", [fired], self._value(f"{node.name}_out", node.shape), node.name, to=1)

    def delay(self, node: NirNode, source: Value) -> Value:
        """Keep as many values as the longest delay; each unit reads the one of its delay."""
        what = f"{self.network.label}: node '{node.name}' ({node.kind})"
        delay = np.broadcast_to(node.array("delay") / self.time.step(what), node.shape)
        steps = np.rint(delay)
        if (np.abs(delay - steps) > 1e-3).any() or (steps < 0).any() or not np.isfinite(delay).all():
            raise self.refuse(node, "has delays that are no whole numbers of steps; choose another --dt")
        longest = int(steps.max(initial=0))
        if longest > LONGEST_DELAY:
            raise self.refuse(node, f"waits for {longest:,} steps; at most {LONGEST_DELAY:,} are supported")
        if not longest:
            return self._emit("Identity", [source], self._value(f"{node.name}_out", node.shape), node.name)
        state = self._state(f"{node.name}_queue", (longest, *node.shape))
        first = self._value(f"{node.name}_first", (1, *node.shape))
        axis = self.rewriter.constant(f"{node.name}.axis", np.array([1], np.int64))
        self._emit("Unsqueeze", [source, axis], first)
        line = self._emit(
            "Concat", [first, state], self._value(f"{node.name}_line", (longest + 1, *node.shape)), axis=1
        )
        bounds = [
            self.rewriter.constant(f"{node.name}.{hint}", np.array([at], np.int64))
            for hint, at in (("start", 0), ("stop", longest))
        ]
        kept = self._value(f"{node.name}_queue_after", (longest, *node.shape))
        self._emit("Slice", [line, *bounds, axis], kept, f"{node.name}.shift")
        self.states.append((state, kept))
        chosen = (np.arange(longest + 1).reshape(-1, *[1] * len(node.shape)) == steps).astype(np.float32)
        mask = self._constant(f"{node.name}.steps", chosen)
        picked = self._emit("Mul", [line, mask], self._value(f"{node.name}_picked", (longest + 1, *node.shape)))
        result = self._value(f"{node.name}_out", node.shape)
        return self._emit("ReduceSum", [picked, axis], result, node.name, keepdims=0)


_WRITERS: Final[dict[str, Callable[[_Writer, NirNode, Value], Value]]] = {
    "Affine": _Writer.linear,
    "AvgPool2d": _Writer.pooling,
    "Conv1d": _Writer.convolution,
    "Conv2d": _Writer.convolution,
    "Delay": _Writer.delay,
    "Flatten": _Writer.flatten,
    "Linear": _Writer.linear,
    "Scale": _Writer.scale,
    "SumPool2d": _Writer.pooling,
    "Threshold": _Writer.threshold,
}
