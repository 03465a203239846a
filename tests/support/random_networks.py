"""Small random spiking networks in `ai.snn` form, full of what passes look for and must not be fooled by.

A network is grown block by block from choices (`Choices`): seeded ones here, hypothesis draws them in property
tests. Inputs are `x` [T, B, features] or [T, B, C, H, W]; the output is `spikes` (`membrane` of a readout), and
sometimes a hidden population, `hidden`, or a final state, `final`, is an output too.

On the `dyadic` grid all weights, parameters and inputs are multiples of small powers of two: every sum is exact in
any order, so a sound rewrite changes no bit. On the `decimal` grid sums meet thresholds up to rounding all the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import helper, numpy_helper

from snn_optimizer.ops import DOMAIN, VERSION, NeuronVariant, function_proto

OPSET = 18
IR_VERSION = 10
GRIDS = ("dyadic", "decimal", "normal")


class Choices(Protocol):
    """Where a network takes its decisions from."""

    generator: np.random.Generator

    def pick(self, options: Sequence[Any]) -> Any: ...


class SeededChoices:
    """Decisions of one seed."""

    def __init__(self, seed: int):
        self.generator = np.random.default_rng(seed)

    def pick(self, options: Sequence[Any]) -> Any:
        return options[int(self.generator.integers(len(options)))]


@dataclass(frozen=True)
class RandomNetwork:
    """A model and what it takes to feed it."""

    model: onnx.ModelProto
    grid: str
    steps: int | None
    batch: int | None
    shape: tuple[int, ...]
    dtype: Any

    def inputs(self, seed: int, *, rate: float = 0.5, steps: int = 6, batch: int = 3) -> dict[str, np.ndarray]:
        """Binary trains."""
        size = (self.steps or steps, self.batch or batch, *self.shape)
        return {"x": (np.random.default_rng(seed).random(size) < rate).astype(self.dtype)}


@dataclass
class Stream:
    """A value [T, B, *shape] in the making."""

    value: str
    shape: tuple[int, ...]


@dataclass
class NetworkBuilder:
    """Collects a network of one element type."""

    choices: Choices
    grid: str = "dyadic"
    dtype: Any = np.float32
    steps: int | None = None
    batch: int | None = None
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    functions: dict[str, onnx.FunctionProto] = field(default_factory=dict)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    shared: dict[tuple[int, ...], str] = field(default_factory=dict)
    count: int = 0
    hidden: bool = False
    nan: bool = False

    # -- parts -----------------------------------------------------------------------------

    def fresh(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def constant(self, name: str, array: Any, dtype: Any = None) -> str:
        stored = np.ascontiguousarray(np.asarray(array, dtype or self.dtype)).reshape(np.shape(array))
        self.constants[name] = numpy_helper.from_array(stored, name)
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, *, name: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name or f"{output}.{op}", **attributes))
        return output

    def tensor_info(self, name: str, shape: Sequence[int | str | None]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)), shape)

    def sequence_shape(self, shape: Sequence[int]) -> list[int | str]:
        return [self.steps or "T", self.batch or "batch", *shape]

    def fold(self, value: str, shape: Sequence[int]) -> str:
        """[T, B, ...] to [T B, ...]."""
        output = self.fresh("rows")
        return self.node("Reshape", [value, self.constant(f"{output}.shape", (-1, *shape), np.int64)], output)

    def unfold(self, value: str, shape: Sequence[int]) -> str:
        """[T B, ...] to [T, B, ...]."""
        output = self.fresh("steps")
        if self.steps is not None:
            target = self.constant(f"{output}.shape", (self.steps, -1, *shape), np.int64)
        elif self.batch is not None:
            target = self.constant(f"{output}.shape", (-1, self.batch, *shape), np.int64)
        else:
            lead = self.node("Shape", ["x"], f"{output}.lead", start=0, end=2)
            tail = self.constant(f"{output}.tail", tuple(shape), np.int64)
            target = self.node("Concat", [lead, tail], f"{output}.shape", axis=0)
        return self.node("Reshape", [value, target], output)

    # -- numbers ---------------------------------------------------------------------------

    def numbers(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        generator = self.choices.generator
        if self.grid == "dyadic":
            return generator.integers(-6, 7, shape) / 4 * scale
        if self.grid == "decimal":
            return np.round(generator.integers(-15, 16, shape) / 10 * scale, 1)
        return generator.normal(0, 0.8 * scale, shape)

    def rows(self, units: int, *fan_in: int, bias: bool) -> tuple[np.ndarray, np.ndarray]:
        """Weights and bias with some duplicate, dead, constant and empty units and unread inputs."""
        pick = self.choices.pick
        weights = self.numbers(units, *fan_in)
        offset = self.numbers(units, scale=0.5) if bias else np.zeros(units)
        for unit in range(units):
            match pick(("plain", "plain", "plain", "twin", "dead", "always", "empty", "negative")):
                case "twin" if unit:
                    twin = int(pick(range(unit)))
                    weights[unit], offset[unit] = weights[twin], offset[twin]
                case "dead" if bias:
                    offset[unit] = -32.0
                case "always" if bias:
                    offset[unit] = 32.0
                case "empty":
                    weights[unit] = 0
                case "negative":
                    weights[unit], offset[unit] = -np.abs(weights[unit]), -np.abs(offset[unit])
        if pick((False, False, True)):
            weights[:, int(pick(range(fan_in[0])))] = 0
        if self.nan and pick((False, True)):
            weights.reshape(units, -1)[int(pick(range(units))), 0] = np.nan
        return weights, offset

    def weight(self, name: str, array: np.ndarray, *, share: bool = True) -> str:
        """Store a weight, or read one of an earlier layer of the same shape instead."""
        known = self.shared.get(array.shape)
        if share and known is not None and self.choices.pick((False, True)):
            return known
        self.shared[array.shape] = self.constant(name, array)
        return name

    # -- neurons ---------------------------------------------------------------------------

    def variant(self, *operators: str, form: str = "sequence") -> NeuronVariant:
        """Any kind of neuron; only feed-forward ones without a limit of spikes, others could explode."""
        pick = self.choices.pick
        operator = pick(operators or ("LIF", "LIF", "IF", "CubaLIF"))
        if operator == "LI":
            return NeuronVariant("LI", form, arithmetic=pick(("decay", "relax")))
        return NeuronVariant(
            operator,
            form,
            reset=pick(("subtract", "to-value", "none")),
            reset_delay=pick((0, 1)),
            fire=pick(("gt", "ge")),
            max_spikes=pick((1, 1, 1, 3, 0) if form == "sequence" else (1, 1, 3)),
            arithmetic="decay" if operator == "IF" else pick(("decay", "decay", "relax")),
        )

    def parameter(self, name: str, role: str, shape: Sequence[int], variant: NeuronVariant) -> str:
        """A neuron parameter or initial state: one scalar for several layers, one for this layer, or one per unit.

        A neuron that may fire several times per step counts quotients: its threshold is positive.
        """
        pick = self.choices.pick
        values = {
            "alpha": (0.5, 0.25),
            "beta": (0.5, 0.5, 1.0, 0.0),
            "gain": (1.0, 1.0, 0.5),
            "v_threshold": (1.0, 1.0, 0.75, 0.5, 2.0, -0.25, 0.0),
            "v_reset": (0.0, 0.0, 0.25, -0.5),
            "v0": (0.0, 0.0, 0.5, 1.5),
            "i0": (0.0, 0.0, 0.5, 1.0),
        }[role]
        shared = f"shared.{role}"
        if role == "v_threshold" and variant.max_spikes != 1:
            values, shared = values[:5], "shared.positive_threshold"
        if self.grid != "dyadic" and role in {"alpha", "beta"}:
            values = (0.9, 0.9, 0.8, 1.0)
        kind = pick(("scalar", "shared", "unit", "vector"))
        if kind == "shared":
            return shared if shared in self.constants else self.constant(shared, pick(values))
        if kind == "scalar":
            return self.constant(name, pick(values))
        if kind == "unit":
            return self.constant(name, np.full((shape[0], *[1] * (len(shape) - 1)), pick(values)))
        options = [pick(values) for _ in range(2)]
        drawn = self.choices.generator.choice(options, shape[0])
        return self.constant(name, drawn.reshape(shape[0], *[1] * (len(shape) - 1)))

    def call(self, name: str, variant: NeuronVariant, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        node = helper.make_node(variant.op_type, inputs, outputs, name, domain=DOMAIN, **variant.attributes())
        self.nodes.append(node)
        self.functions.setdefault(variant.op_type, function_proto(variant, OPSET))

    def population(self, current: str, shape: Sequence[int], *operators: str, output: str | None = None) -> Stream:
        name, variant = self.fresh("pop"), self.variant(*operators)
        if output is None and not self.hidden and self.choices.pick((False,) * 5 + (True,)):
            self.hidden, output = True, "hidden"
            self.outputs.append(self.tensor_info("hidden", self.sequence_shape(shape)))
        spikes = output or f"{name}.out"
        inputs = [self.parameter(f"{name}.{role}", role, shape, variant) for role in variant.inputs[1:]]
        self.call(name, variant, [current, *inputs], [spikes, *(f"{name}.{final}" for final in variant.outputs[1:])])
        return Stream(spikes, tuple(shape))

    # -- synapses --------------------------------------------------------------------------

    def linear(self, stream: Stream, units: int) -> str:
        """[T, B, F] to currents [T, B, units], in one of the forms that exporters write."""
        pick = self.choices.pick
        name, features = self.fresh("fc"), stream.shape[0]
        weights, offset = self.rows(units, features, bias=(bias := pick((True, True, False))))
        if pick(("gemm", "matmul")) == "matmul":
            product = f"{name}.product"
            self.node("MatMul", [stream.value, self.weight(f"{name}.weight", weights.T)], product, name=name)
            if not bias:
                return product
            operands = [product, self.constant(f"{name}.bias", offset)]
            return self.node("Add", operands[:: pick((1, -1))], f"{name}.out")
        rows = self.fold(stream.value, stream.shape)
        if pick((False,) * 4 + (True,)):
            rows = self.batch_norm(rows, features)
        transposed = pick((1, 0))
        operands = [rows, self.weight(f"{name}.weight", weights if transposed else weights.T)]
        if bias:
            operands.append(self.constant(f"{name}.bias", offset if pick((True, False)) else offset[None]))
        scale = {"alpha": 0.5, "beta": 2.0} if pick((False,) * 5 + (True,)) else {}
        result = self.node("Gemm", operands, f"{name}.out", name=name, transB=transposed, **scale)
        if pick((False,) * 4 + (True,)):
            result = self.batch_norm(result, units)
        if pick((False,) * 5 + (True,)):
            factor = self.constant(f"{name}.scale", pick((0.5, np.full(units, 2.0))))
            result = self.node("Mul", [result, factor], f"{name}.scaled")
        return self.unfold(result, (units,))

    def batch_norm(self, value: str, channels: int) -> str:
        name, generator = self.fresh("bn"), self.choices.generator
        if self.grid == "dyadic":
            statistics = [generator.choice(v, channels) for v in ((1.0, 0.5, 2.0), (0, 0.25), (0, 0.5), (1.0, 0.25))]
            epsilon = 0.0
        else:
            statistics = [
                generator.uniform(low, high, channels) for low, high in ((0.5, 1.5), (-1, 1), (-1, 1), (0.5, 2))
            ]
            epsilon = 1e-5
        roles = ("scale", "shift", "mean", "var")
        inputs = [self.constant(f"{name}.{role}", array) for role, array in zip(roles, statistics, strict=True)]
        return self.node("BatchNormalization", [value, *inputs], f"{name}.out", name=name, epsilon=epsilon)

    def convolution(self, frames: str, shape: Sequence[int], *, same: bool) -> tuple[str, tuple[int, ...]]:
        """[R, C, H, W] to currents; returns them with their shape."""
        pick = self.choices.pick
        name = self.fresh("conv")
        channels, height, width = shape
        depthwise = not same and channels > 1 and pick((False, False, True))
        units = channels if depthwise or same else pick((2, 3, 4))
        kernel = 3 if same or (min(height, width) >= 3 and pick((True, False))) else pick((1, 2))
        kernel = min(kernel, height, width) if not same else 3
        pad = 1 if same else pick((0, 1)) if kernel == 3 else 0
        stride = 1 if same else pick((1, 1, 2))
        weights, offset = self.rows(units, 1 if depthwise else channels, kernel, kernel, bias=pick((True, False)))
        operands = [frames, self.weight(f"{name}.weight", weights * 0.5, share=same)]
        if offset.any():
            operands.append(self.constant(f"{name}.bias", offset))
        attributes: dict[str, Any] = {"group": channels} if depthwise else {}
        attributes |= {"kernel_shape": [kernel] * 2, "pads": [pad] * 4, "strides": [stride] * 2}
        result = self.node("Conv", operands, f"{name}.out", name=name, **attributes)
        size = tuple((n + 2 * pad - kernel) // stride + 1 for n in (height, width))
        return result, (units, *size)

    def pool(self, frames: str, shape: Sequence[int]) -> tuple[str, tuple[int, ...]]:
        if min(shape[1:]) < 2:
            return frames, tuple(shape)
        name, op = self.fresh("pool"), self.choices.pick(("AveragePool", "MaxPool"))
        result = self.node(op, [frames], f"{name}.out", name=name, kernel_shape=[2, 2], strides=[2, 2])
        return result, (shape[0], shape[1] // 2, shape[2] // 2)

    # -- blocks ----------------------------------------------------------------------------

    def dense_block(self, stream: Stream) -> Stream:
        units = self.choices.pick((2, 3, 4, 5))
        current = self.linear(stream, units)
        if self.choices.pick((False,) * 4 + (True,)):
            current = self.node("Add", [current, self.linear(stream, units)], f"{self.fresh('sum')}.out")
        return self.population(current, (units,))

    def residual_block(self, stream: Stream) -> Stream:
        if len(stream.shape) == 1:
            inner = self.population(self.linear(stream, stream.shape[0]), stream.shape)
        else:
            current, shape = self.convolution(self.fold(stream.value, stream.shape), stream.shape, same=True)
            inner = self.population(self.unfold(current, shape), shape)
        value = self.node("Add", [stream.value, inner.value], f"{self.fresh('residual')}.out")
        return Stream(value, stream.shape)

    def concat_block(self, stream: Stream) -> Stream:
        first, second = self.dense_block(stream), self.dense_block(stream)
        value = self.node("Concat", [first.value, second.value], f"{self.fresh('concat')}.out", axis=-1)
        return Stream(value, (first.shape[0] + second.shape[0],))

    def conv_block(self, stream: Stream) -> Stream:
        pick = self.choices.pick
        frames = self.fold(stream.value, stream.shape)
        if pick((False,) * 5 + (True,)):
            frames = self.batch_norm(frames, stream.shape[0])
        current, shape = self.convolution(frames, stream.shape, same=False)
        if pick((False, False, True)):
            current = self.batch_norm(current, shape[0])
        if pick((False,) * 4 + (True,)):
            current, shape = self.pool(current, shape)
        result = self.population(self.unfold(current, shape), shape)
        if pick((False, False, True)):
            pooled, shape = self.pool(self.fold(result.value, shape), shape)
            result = Stream(self.unfold(pooled, shape), shape)
        return result

    def flatten(self, stream: Stream) -> Stream:
        size = int(np.prod(stream.shape))
        if self.choices.pick((True, False)):
            flat = self.fresh("flat")
            return Stream(
                self.unfold(self.node("Flatten", [self.fold(stream.value, stream.shape)], flat), (size,)), (size,)
            )
        return Stream(self.unfold(self.fold(stream.value, (size,)), (size,)), (size,))

    def recurrent_block(self, stream: Stream) -> Stream:
        """A `Scan` over the cell; the body captures its weights, the drive is computed outside or inside."""
        pick = self.choices.pick
        name, units = self.fresh("loop"), pick((2, 3, 4))
        variant = self.variant("LIF", "LIF", "IF", "CubaLIF", form="cell")
        inside = pick((True, False))
        scanned = stream.value if inside else self.linear(stream, units)
        body = NetworkBuilder(self.choices, self.grid, self.dtype)
        states = [variant.inputs[slot] for slot, _ in variant.states]
        weights, _ = self.rows(units, units, bias=False)
        back = self.weight(f"{name}.recurrent", weights.T if (flip := pick((True, False))) else weights)
        drive = f"{name}.x"
        if inside:
            feed, offset = self.rows(units, stream.shape[0], bias=True)
            operands = [f"{name}.x", self.weight(f"{name}.weight", feed), self.constant(f"{name}.bias", offset)]
            drive = body.node("Gemm", operands, f"{name}.feed", name=f"{name}.fc", transB=1)
        if pick((True, False)):
            product = body.node("Gemm", [f"{name}.s", back, drive], f"{name}.current", transB=int(not flip))
        else:
            transposed = back if flip else body.node("Transpose", [back], f"{name}.recurrent.T", perm=[1, 0])
            product = body.node("MatMul", [f"{name}.s", transposed], f"{name}.back")
            product = body.node("Add", [drive, product], f"{name}.current")
        parameters = [
            self.parameter(f"{name}.{role}", role, (units,), variant) for role in variant.inputs[1 + len(states) :]
        ]
        after = [f"{name}.{state}.after" for state in states]
        body.call(
            f"{name}.cell", variant, [product, *(f"{name}.{s}" for s in states), *parameters], [f"{name}.fired", *after]
        )
        body.node("Identity", [f"{name}.fired"], f"{name}.carried")
        carried = [*after, f"{name}.carried"]
        info = self.tensor_info
        width = stream.shape[0] if inside else units
        graph = helper.make_graph(
            body.nodes,
            f"{name}.step",
            [*(info(f"{name}.{s}", (None, units)) for s in (*states, "s")), info(f"{name}.x", (None, width))],
            [*(info(value, (None, units)) for value in carried), info(f"{name}.fired", (None, units))],
        )
        self.functions |= body.functions
        starts = [self.initial(f"{name}.{state}0", units) for state in states] + [
            self.initial(f"{name}.s0", units, spikes=True)
        ]
        finals = [f"{name}.{state}.final" for state in (*states, "s")]
        scan = helper.make_node(
            "Scan", [*starts, scanned], [*finals, f"{name}.out"], name, num_scan_inputs=1, body=graph
        )
        self.nodes.append(scan)
        return Stream(f"{name}.out", (units,))

    def initial(self, name: str, units: int, *, spikes: bool = False) -> str:
        pick = self.choices.pick
        values = (0.0, 0.0, 1.0) if spikes else (0.0, 0.0, 0.5)
        batch = self.node("Shape", ["x"], f"{name}.batch", start=1, end=2)
        kind = pick(("expand", "expand-unit", "fill", "constant" if self.batch is not None else "fill"))
        if kind == "fill":
            width = self.constant(f"{name}.width", [units], np.int64)
            shape = self.node("Concat", [batch, width], f"{name}.shape", axis=0)
            fill = numpy_helper.from_array(np.array([pick(values)], self.dtype), "value")
            return self.node("ConstantOfShape", [shape], name, value=fill)
        row = self.choices.generator.choice([pick(values), pick(values)], (1, units))
        if kind == "constant":
            return self.constant(name, np.repeat(row, self.batch or 1, axis=0))
        last = self.constant(f"{name}.width", [1 if kind == "expand-unit" else units], np.int64)
        shape = self.node("Concat", [batch, last], f"{name}.shape", axis=0)
        return self.node("Expand", [self.constant(f"{name}.row", row), shape], name)

    # -- the whole -------------------------------------------------------------------------

    def grow(self) -> RandomNetwork:
        """Choose a network."""
        pick = self.choices.pick
        maps = pick((False, False, True)) and self.dtype == np.float32  # no runtime convolves doubles
        shape: tuple[int, ...] = (pick((1, 2)), 4, 4) if maps else (pick((3, 4, 6)),)
        stream = Stream("x", shape)
        if maps:
            stream = self.conv_block(stream)
            for _ in range(pick((0, 1))):
                stream = self.residual_block(stream) if pick((True, False)) else self.conv_block(stream)
            stream = self.flatten(stream)
        blocks = (self.dense_block, self.dense_block, self.residual_block, self.concat_block, self.recurrent_block)
        for _ in range(pick((1, 2) if maps else (1, 2, 3))):
            stream = pick(blocks)(stream)
        stream = self.close(stream)
        self.outputs.append(self.tensor_info(stream.value, self.sequence_shape(stream.shape)))
        graph = helper.make_graph(
            self.nodes,
            "random",
            [self.tensor_info("x", self.sequence_shape(shape))],
            self.outputs,
            list(self.constants.values()),
        )
        model = helper.make_model(
            graph,
            functions=list(self.functions.values()),
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)],
            ir_version=IR_VERSION,
            producer_name="tests",
        )
        onnx.checker.check_model(model)
        return RandomNetwork(model, self.grid, self.steps, self.batch, shape, self.dtype)

    def close(self, stream: Stream) -> Stream:
        """The last layer: spikes, a leaky readout, or a bare linear map."""
        pick = self.choices.pick
        units = pick((2, 3))
        match pick(("spikes", "spikes", "readout", "product")):
            case "product":
                weights, _ = self.rows(units, stream.shape[0], bias=False)
                weight = self.weight("logits.weight", weights.T)
                return Stream(self.node("MatMul", [stream.value, weight], "logits"), (units,))
            case "readout":
                return self.population(self.linear(stream, units), (units,), "LI", output="membrane")
            case _:
                return self.population(self.linear(stream, units), (units,), output="spikes")


def grow(choices: Choices, *, grid: str | None = None, dtype: Any = None, nan: bool | None = None) -> RandomNetwork:
    """A network of these choices; what is not given is chosen too."""
    pick = choices.pick
    builder = NetworkBuilder(
        choices,
        grid or pick(GRIDS),
        dtype or pick((np.float32, np.float32, np.float32, np.float64)),
        steps=pick((None, 5, 1, 3)),
        batch=pick((None, None, 1)),
        nan=pick((False,) * 7 + (True,)) if nan is None else nan,
    )
    return builder.grow()


def random_network(seed: int, **fixed: Any) -> RandomNetwork:
    """The network of a seed."""
    return grow(SeededChoices(seed), **fixed)
