"""Networks of every form with a hidden population in which faults are planted by index.

A `Hidden` is the population as arrays, whatever the form of the network around it; `build` writes it as a model
and `read` finds it in an optimized one again, so that a test can say which units must be left, and with which
weights. All numbers are multiples of small powers of two: sums are exact and rewrites must not change a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from snn_optimizer.analyses import AnalysisManager
from snn_optimizer.execution import Session
from snn_optimizer.ir import InputDomain, SNNGraph, verify_structure
from snn_optimizer.ops import NeuronVariant
from snn_optimizer.passes import registry
from snn_optimizer.passes.base import Outcome, PassContext
from snn_optimizer.remarks import Remark, RemarkKind
from tests.support.models import ModelBuilder

KINDS = ("gemm", "gemm-untransposed", "matmul", "conv", "conv-conv", "residual", "recurrent", "cuba", "concat")
FEATURES, OUTPUTS, UNITS = 6, 5, 9
OTHERS = 3  # units of the population that a concatenation puts in front
LIF = NeuronVariant("LIF")


@dataclass(frozen=True)
class Hidden:
    """A population: what comes in, what it is, what goes out.

    `weight` is (units, fan-in), `out` (outputs, units, positions), `back` (units, units) the synapses from the
    population to itself (recurrent) or to its second branch (residual), else None.
    """

    weight: np.ndarray
    bias: np.ndarray
    threshold: np.ndarray
    beta: np.ndarray
    v0: np.ndarray
    v_reset: np.ndarray
    out: np.ndarray
    out_bias: np.ndarray
    back: np.ndarray | None = None

    @property
    def units(self) -> int:
        return len(self.weight)

    def with_rows(self, units: Sequence[int] | int, **values) -> Hidden:
        """The same with other values at some units; `out` is addressed by column."""
        changed = {}
        for name, value in values.items():
            array = np.array(getattr(self, name))
            if name == "out":
                array[:, units] = value
            else:
                array[units] = value
            changed[name] = array
        return replace(self, **changed)

    def without(self, units: Sequence[int]) -> Hidden:
        """The population after units are cut out."""
        keep = np.setdiff1d(np.arange(self.units), units)
        cut = {name: getattr(self, name)[keep] for name in ("weight", "bias", "threshold", "beta", "v0", "v_reset")}
        back = None if self.back is None else self.back[np.ix_(keep, keep)]
        return replace(self, **cut, out=self.out[:, keep], back=back)

    def twin(self, source: int, target: int, scale: float = 1.0) -> Hidden:
        """Make `target` a duplicate of `source`, with all its incoming numbers scaled."""
        names = ("weight", "bias", "threshold", "v0", "v_reset")
        result = self.with_rows(target, **{name: getattr(self, name)[source] * scale for name in names})
        result = result.with_rows(target, beta=self.beta[source])
        return result if self.back is None else result.with_rows(target, back=self.back[source] * scale)

    def merged(self, source: int, target: int) -> Hidden:
        """The population after `target` was merged into `source`."""
        out = np.array(self.out)
        out[:, source] += out[:, target]
        back = self.back
        if back is not None:
            back = np.array(back)
            back[:, source] += back[:, target]
        return replace(self, out=out, back=back).without([target])


def healthy(kind: str, seed: int, units: int = UNITS) -> Hidden:
    """Units that fire for some inputs, not for silence, all different, all read."""
    generator = np.random.default_rng([seed, KINDS.index(kind)])
    fan_in = 8 if kind.startswith("conv") else FEATURES
    positions = {"conv": 9, "conv-conv": 4}.get(kind, 1)
    weight = generator.integers(-3, 4, (units, fan_in)) / 4
    for row in weight:
        row[generator.choice(fan_in, 2, replace=False)] = generator.integers(4, 7, 2) / 4
    out = generator.integers(-4, 5, (OUTPUTS, units, positions)) / 4
    out[generator.integers(OUTPUTS, size=units), np.arange(units), 0] = 1.5
    return Hidden(
        weight=weight,
        bias=-generator.integers(0, 2, units) / 4,
        threshold=generator.choice([1.0, 0.75, 1.25], units),
        beta=generator.choice([0.5, 0.25], units),
        v0=generator.choice([0.0, 0.25, -0.5], units),
        v_reset=generator.choice([0.0, -0.25], units),
        out=out,
        out_bias=generator.integers(-1, 2, OUTPUTS) / 4,
        back=generator.integers(-3, 4, (units, units)) / 4 if kind in {"residual", "recurrent"} else None,
    )


# -- models ------------------------------------------------------------------------------------


def build(kind: str, hidden: Hidden, *, steps: int | None = None, variant: NeuronVariant = LIF) -> onnx.ModelProto:
    """Write the population as a network: `x` in, `spikes` out."""
    builder = _Builder(steps)
    return builder.maps(kind, hidden, variant) if kind.startswith("conv") else builder.vectors(kind, hidden, variant)


class _Builder(ModelBuilder):
    def __init__(self, steps: int | None):
        super().__init__()
        self.steps = steps

    def unfold(self, rows: str, output: str, *shape: int) -> str:
        if self.steps is not None:
            return self.reshape(rows, output, (self.steps, -1, *shape))
        if "x.lead" not in {result for node in self.nodes for result in node.output}:
            self.node("Shape", ["x"], "x.lead", start=0, end=2)
        tail = self.constant(f"{output}.units", shape, np.int64)
        target = self.node("Concat", ["x.lead", tail], f"{output}.shape", axis=0)
        return self.node("Reshape", [rows, target], output)

    def fold(self, value: str, output: str, *shape: int) -> str:
        return self.reshape(value, output, (-1, *shape))

    def dense(self, kind: str, name: str, value: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """[T, B, F] to [T, B, units]."""
        if kind == "matmul":
            product = self.node("MatMul", [value, self.constant(f"{name}.weight", weight.T)], f"{name}.out", name=name)
            return self.node("Add", [product, self.constant(f"{name}.bias", bias)], f"{name}.x")
        transposed = kind != "gemm-untransposed"
        rows = self.fold(value, f"{name}.rows", weight.shape[1])
        operands = [rows, self.constant(f"{name}.weight", weight if transposed else weight.T)]
        operands.append(self.constant(f"{name}.bias", bias))
        self.node("Gemm", operands, f"{name}.out", name=name, transB=int(transposed))
        return self.unfold(f"{name}.out", f"{name}.x", len(weight))

    def cells(self, hidden: Hidden, *spatial: int) -> dict[str, np.ndarray]:
        names = {"beta": "beta", "v_threshold": "threshold", "v_reset": "v_reset"}
        return {role: getattr(hidden, name).reshape(-1, *[1] * len(spatial)) for role, name in names.items()}

    def state(self, variant: NeuronVariant, name: str, array: np.ndarray) -> list[str]:
        """Initial states in order: the synaptic current starts at zero."""
        names = [variant.inputs[slot][0] for slot, _ in variant.states]
        zero = [self.constant(f"{name}.i0", 0.0)] if "i" in names else []
        return [*zero, self.constant(f"{name}.v0", array)]

    def vectors(self, kind: str, hidden: Hidden, variant: NeuronVariant) -> onnx.ModelProto:
        self.input("x", (self.steps or "T", "batch", hidden.weight.shape[1]))
        if kind == "recurrent":
            spikes, width = self.recurrent(hidden, variant), hidden.units
        else:
            current = self.dense(kind, "hidden", "x", hidden.weight, hidden.bias)
            if kind == "cuba":
                variant = replace(variant, operator="CubaLIF")
            states = self.state(variant, "hidden", hidden.v0)
            spikes = self.neuron("pop", variant, current, states=states, alpha=0.5, **self.shared_parameters(hidden))[0]
            width = hidden.units
        out = hidden.out[:, :, 0]
        if kind == "residual":
            current = self.dense(kind, "second", spikes, hidden.back, hidden.bias)
            branch = self.neuron("branch", variant, current, states=["hidden.v0"], **self.shared_parameters(hidden))[0]
            spikes = self.node("Add", [spikes, branch], "sum", name="residual")
        if kind == "concat":
            other = healthy("gemm", 99, OTHERS)
            current = self.dense("gemm", "other", "x", other.weight, other.bias)
            beside = self.neuron("beside", variant, current, v_threshold=other.threshold)[0]
            spikes = self.node("Concat", [beside, spikes], "joined", name="concat", axis=-1)
            width += OTHERS
            out = np.concatenate([other.out[:, :, 0], out], axis=1)
        current = self.dense(kind if kind == "matmul" else "gemm", "out", spikes, out, hidden.out_bias)
        assert out.shape[1] == width
        self.neuron("last", LIF, current, outputs=("spikes", "last.v"), beta=0.5)
        self.output("spikes", (self.steps or "T", "batch", OUTPUTS))
        return self.build(kind)

    def shared_parameters(self, hidden: Hidden, *spatial: int) -> dict[str, str]:
        """Store the parameters once; a second population of the same units reads the same tensors."""
        for role, array in self.cells(hidden, *spatial).items():
            self.constant(f"hidden.{role}", array)
        return {role: f"hidden.{role}" for role in ("beta", "v_threshold", "v_reset")}

    def recurrent(self, hidden: Hidden, variant: NeuronVariant) -> str:
        units = hidden.units
        current = self.dense("gemm", "hidden", "x", hidden.weight, hidden.bias)
        outer, self.nodes = self.nodes, []
        cell = variant.as_form("cell")
        back = self.node(
            "Gemm", ["s", self.constant("hidden.recurrent", hidden.back)], "back", name="recurrent", transB=1
        )
        drive = self.node("Add", ["x_step", back], "drive")
        self.neuron("pop", cell, drive, states=["v"], outputs=("fired", "v_next"), **self.shared_parameters(hidden))
        self.node("Identity", ["fired"], "s_next")
        body = self.body("step", ("v", "s", "x_step"), ("v_next", "s_next", "fired"), ("batch", None))
        self.nodes = outer
        batch = self.node("Shape", ["x"], "x.batch", start=1, end=2)
        one = self.node("Concat", [batch, self.constant("one", [1], np.int64)], "rows", axis=0)
        start = self.node("Expand", [self.constant("hidden.v0", hidden.v0[None]), one], "v_start")
        width = self.constant("width", [units], np.int64)
        shape = self.node("Concat", [batch, width], "s_shape", axis=0)
        zeros = self.node("ConstantOfShape", [shape], "s_start")
        inputs = [start, zeros, current]
        scan = helper.make_node("Scan", inputs, ["v_last", "s_last", "train"], "loop", body=body, num_scan_inputs=1)
        self.nodes.append(scan)
        return "train"

    def maps(self, kind: str, hidden: Hidden, variant: NeuronVariant) -> onnx.ModelProto:
        self.input("x", (self.steps or "T", "batch", 2, 4, 4))
        frames = self.fold("x", "frames", 2, 4, 4)
        kernel = self.constant("hidden.weight", hidden.weight.reshape(-1, 2, 2, 2))
        bias = self.constant("hidden.bias", hidden.bias)
        self.node("Conv", [frames, kernel, bias], "hidden.out", name="hidden")
        current = self.unfold("hidden.out", "hidden.x", hidden.units, 3, 3)
        states = self.state(variant, "hidden", hidden.v0.reshape(-1, 1, 1))
        spikes = self.neuron("pop", variant, current, states=states, **self.shared_parameters(hidden, 3, 3))[0]
        if kind == "conv":
            flat = self.fold(spikes, "flat", hidden.units * 9)
            weight = self.constant("out.weight", hidden.out.reshape(OUTPUTS, -1))
            self.node(
                "Gemm", [flat, weight, self.constant("out.bias", hidden.out_bias)], "out.out", name="out", transB=1
            )
            shape: tuple[int, ...] = (OUTPUTS,)
        else:
            images = self.fold(spikes, "images", hidden.units, 3, 3)
            weight = self.constant("out.weight", hidden.out.reshape(OUTPUTS, -1, 2, 2))
            self.node("Conv", [images, weight, self.constant("out.bias", hidden.out_bias)], "out.out", name="out")
            shape = (OUTPUTS, 2, 2)
        current = self.unfold("out.out", "out.x", *shape)
        self.neuron("last", LIF, current, outputs=("spikes", "last.v"), beta=0.5)
        self.output("spikes", (self.steps or "T", "batch", *shape))
        return self.build(kind)


def read(kind: str, model: onnx.ModelProto) -> Hidden:
    """Find the population in a model again."""
    held = {tensor.name: np.array(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    weight, out = held["hidden.weight"], held["out.weight"]
    if kind in {"gemm-untransposed", "matmul"}:
        weight = weight.T
    if kind == "matmul":
        out = out.T
    units = weight.shape[0]
    if kind == "concat":
        out = out[:, OTHERS:]
    back = {"residual": "second.weight", "recurrent": "hidden.recurrent"}.get(kind)
    return Hidden(
        weight=weight.reshape(units, -1),
        bias=held["hidden.bias"],
        threshold=held["hidden.v_threshold"].reshape(-1),
        beta=held["hidden.beta"].reshape(-1),
        v0=held["hidden.v0"].reshape(-1),
        v_reset=held["hidden.v_reset"].reshape(-1),
        out=out.reshape(OUTPUTS, units, -1),
        out_bias=held["out.bias"],
        back=None if back is None else held[back],
    )


def assert_same_population(found: Hidden, expected: Hidden) -> None:
    for name in Hidden.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


# -- running passes ------------------------------------------------------------------------------


@dataclass
class Ran:
    """What a pass did to a model."""

    before: onnx.ModelProto
    after: onnx.ModelProto
    outcome: Outcome
    remarks: list[Remark]

    def refused(self, rule: str) -> bool:
        return any(remark.kind is RemarkKind.MISSED and remark.rule == rule for remark in self.remarks)


def run_pass(
    name: str,
    model: onnx.ModelProto,
    *,
    domain: InputDomain | None = None,
    prepare: Callable[[SNNGraph], None] | None = None,
    **options,
) -> Ran:
    """Run one pass, check what every pass owes: a valid model, the same interface, no more to do a second time."""
    graph = SNNGraph.from_onnx(model)
    if prepare is not None:
        prepare(graph)
    one = registry.create(name, options)
    context = PassContext(AnalysisManager(graph.module, domain), pass_name=name)
    outcome = one.run(graph, context)
    verify_structure(graph.module)
    after = graph.to_onnx()
    onnx.checker.check_model(after)
    for side in ("input", "output"):
        assert list(getattr(after.graph, side)) == list(getattr(model.graph, side))
    if not outcome.changes:
        assert after.graph.SerializeToString(deterministic=True) == SNNGraph.from_onnx(
            model
        ).to_onnx().graph.SerializeToString(deterministic=True)
    again = one.run(graph, PassContext(AnalysisManager(graph.module, domain), pass_name=name))
    assert again.changes == 0
    return Ran(model, after, outcome, context.remarks)


def trains(model: onnx.ModelProto, *, steps: int = 7, batch: int = 3, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Binary trains of several rates for every input."""
    feeds = []
    for index, rate in enumerate((0.0, 0.1, 0.3, 0.5, 0.8, 1.0)):
        generator = np.random.default_rng([seed, index])
        feed = {}
        for value in model.graph.input:
            sizes = {"T": steps, "batch": batch}
            kind = value.type.tensor_type
            shape = [d.dim_value or sizes[d.dim_param] for d in kind.shape.dim]
            drawn = generator.random(shape) < rate
            feed[value.name] = drawn.astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
        feeds.append(feed)
    return feeds


def assert_same_bits(before: onnx.ModelProto, after: onnx.ModelProto, *, must_bite: bool = True, **sizes: int) -> None:
    """Both models give the same bytes on all trains; their outputs are not constant unless that is allowed."""
    first, second = Session(before), Session(after)
    seen: list[np.ndarray] = []
    for feed in trains(before, **sizes):
        old, new = first.run(feed), second.run(feed)
        for name, array in old.items():
            assert array.dtype == new[name].dtype
            np.testing.assert_array_equal(new[name], array, err_msg=name)
            seen.append(array.reshape(-1))
    values = np.concatenate(seen)
    assert not must_bite or values.min() != values.max(), "the outputs never change: nothing was tested"
