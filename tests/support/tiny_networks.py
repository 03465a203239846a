"""Tiny dense spiking networks whose inputs can all be tried, for claims about neurons that must hold for each of them.

Weights, biases and parameters come from a coarse grid, so that sums meet thresholds, or from tenths, so that they
meet them up to rounding. Every population's spikes are an output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper

from snn_optimizer.analyses import AnalysisManager, NeuronFacts, ValueRanges
from snn_optimizer.analyses.spike_trains import Train
from snn_optimizer.execution import Session
from snn_optimizer.ir import InputDomain, Module
from snn_optimizer.ops import NeuronVariant
from tests.support.models import ModelBuilder

ALL_INPUTS = 16  # bits up to which every binary input is tried


LIF = NeuronVariant("LIF")


@dataclass(frozen=True)
class Layer:
    """A dense layer of neurons; with `lateral` weights it reads its own spikes of the step before."""

    weights: np.ndarray
    bias: np.ndarray
    beta: np.ndarray | float = 0.5
    threshold: np.ndarray | float = 1.0
    v_reset: float = 0.0
    v0: float = 0.0
    alpha: float = 0.5
    gain: float = 1.0
    lateral: np.ndarray | None = None
    variant: NeuronVariant = LIF

    @property
    def units(self) -> int:
        return len(self.bias)


def network(layers: Sequence[Layer], steps: int | str, *, rows: bool = True, dtype=np.float32) -> onnx.ModelProto:
    """Layers one after another; with `rows` products run over steps and samples in one axis."""
    net = ModelBuilder()
    value = net.input("x", (steps, "batch", layers[0].weights.shape[1]), dtype)
    for number, layer in enumerate(layers):
        current = _current(net, f"fc{number}", value, layer, steps, rows=rows and isinstance(steps, int))
        add = _recurrent if layer.lateral is not None else _population
        value = add(net, f"pop{number}", current, layer)
        net.output(value, (steps, "batch", layer.units), dtype)
    return net.build()


def _current(net: ModelBuilder, name: str, value: str, layer: Layer, steps: int | str, *, rows: bool) -> str:
    if not rows:
        product = net.node("MatMul", [value, net.constant(f"{name}.w", layer.weights.T)], f"{name}.product")
        return net.node("Add", [product, net.constant(f"{name}.b", layer.bias)], f"{name}.current")
    flat = net.reshape(value, f"{name}.rows", (-1, layer.weights.shape[1]))
    return net.reshape(net.linear(name, flat, layer.weights, layer.bias), f"{name}.current", (steps, -1, layer.units))


def _parameters(layer: Layer) -> dict[str, float | np.ndarray]:
    return {"beta": layer.beta, "v_threshold": layer.threshold, "v_reset": layer.v_reset, "gain": layer.gain,
            "alpha": layer.alpha}  # fmt: skip


def _population(net: ModelBuilder, name: str, current: str, layer: Layer) -> str:
    states = [net.constant(f"{name}.i0", 0.0)] if layer.variant.operator == "CubaLIF" else []
    states.append(net.constant(f"{name}.v0", layer.v0))
    return net.neuron(name, layer.variant, current, states=states, **_parameters(layer))[0]


def _recurrent(net: ModelBuilder, name: str, current: str, layer: Layer) -> str:
    outside, net.nodes = net.nodes, []
    feedback = net.linear(f"{name}.lateral", f"{name}.before", layer.lateral)
    drive = net.node("Add", [f"{name}.x", feedback], f"{name}.drive")
    cell = layer.variant.as_form("cell")
    after = [f"{name}.{state}_next" for state in ("i", "v")[-len(cell.states) :]]
    states = [f"{name}.{state}" for state in ("i", "v")[-len(cell.states) :]]
    net.neuron(name, cell, drive, states=states, outputs=(f"{name}.fired", *after), **_parameters(layer))
    net.node("Identity", [f"{name}.fired"], f"{name}.s_next")
    net.node("Identity", [f"{name}.fired"], f"{name}.s_out")
    ends = [*states, f"{name}.before", f"{name}.x"]
    body = net.body(f"{name}.body", ends, [*after, f"{name}.s_next", f"{name}.s_out"], ("batch", layer.units))
    net.nodes = outside
    size = net.node("Shape", ["x"], f"{name}.samples", start=1, end=2)
    target = net.node("Concat", [size, net.constant(f"{name}.units", [layer.units], np.int64)], f"{name}.shape", axis=0)
    starts = []
    for position, state in enumerate((*states, f"{name}.before")):
        level = layer.v0 if position == len(states) - 1 else 0.0
        starts.append(net.node("Expand", [net.constant(f"{state}.level", level), target], f"{state}.start"))
    finals = [f"{state}.final" for state in (*states, f"{name}.before")]
    node = helper.make_node(
        "Scan", [*starts, current], [*finals, f"{name}.s"], f"{name}.scan", body=body, num_scan_inputs=1
    )
    net.nodes.append(node)
    return f"{name}.s"


GRIDS = ("quarters", "tenths", "reals")


def numbers(generator: np.random.Generator, grid: str, *shape: int) -> np.ndarray:
    if grid == "quarters":
        return (generator.integers(-4, 5, shape) / 4).astype(np.float32)
    if grid == "tenths":
        return (generator.integers(-8, 9, shape) / 10).astype(np.float32)
    return generator.normal(0, 0.5, shape).astype(np.float32)


def random_layers(generator: np.random.Generator, inputs: int, *, depth: int, recurrent: bool) -> list[Layer]:
    """Layers of all kinds of neurons."""
    layers = []
    grid = str(generator.choice(GRIDS))
    for _ in range(depth):
        units = int(generator.choice([1, 2, 3, 4, 5, 12]))
        operator = str(generator.choice(["LIF", "LIF", "LIF", "IF", "CubaLIF"]))
        variant = NeuronVariant(
            operator,
            reset=str(generator.choice(["subtract", "subtract", "to-value", "none"])),
            reset_delay=int(generator.integers(2)),
            fire=str(generator.choice(["gt", "ge"])),
            max_spikes=int(generator.choice([1, 1, 1, 1, 2])),
            arithmetic=str(generator.choice(["decay", "relax"])) if operator == "LIF" else "decay",
        )
        layer = Layer(
            numbers(generator, grid, units, inputs) * float(generator.choice([1.0, 0.5])),
            numbers(generator, grid, units) * float(generator.choice([0.0, 0.25, 1.0])),
            beta=np.float32(generator.choice([0.0, 0.25, 0.5, 0.9, 1.0, -0.5], p=[0.15, 0.15, 0.25, 0.25, 0.15, 0.05])),
            threshold=np.float32(
                generator.choice([1.0, 1.0, 0.5, 0.3, 2.0, 0.0, -0.5], p=[0.3, 0.2, 0.15, 0.1, 0.15, 0.05, 0.05])
            ),
            v_reset=float(generator.choice([0.0, 0.0, 0.25, -0.5])),
            v0=float(generator.choice([0.0, 0.0, 0.0, 0.25, -0.5, 1.5])),
            alpha=float(generator.choice([0.0, 0.5, 0.8])),
            gain=float(generator.choice([1.0, 1.0, 0.5])),
            variant=variant,
        )
        if not layers and generator.random() < 0.25:  # neurons of their own input each: few active inputs, few spikes
            chosen = generator.integers(inputs, size=units)
            layer = replace(
                layer,
                weights=np.eye(inputs, dtype=np.float32)[chosen] * np.float32(generator.choice([1.0, 1.25, 1.5, 0.8])),
                bias=np.zeros(units, np.float32),
                beta=np.float32(generator.choice([0.0, 0.25, 0.5])),
                threshold=np.float32(1.0),
                v0=0.0,
                v_reset=float(generator.choice([0.0, -0.5])),
                variant=replace(variant, operator="LIF", arithmetic="decay", max_spikes=1),
            )
        if recurrent and generator.random() < 0.5:
            layer = replace(layer, lateral=numbers(generator, grid, units, units))
        layers.append(layer)
        inputs = units
    return layers


def all_inputs(steps: int, features: int, limit: int | None) -> np.ndarray:
    """Every binary input with at most `limit` ones in a step, as samples."""
    bits = steps * features
    assert bits <= ALL_INPUTS
    table = ((np.arange(1 << bits)[:, np.newaxis] >> np.arange(bits)) & 1).reshape(-1, steps, features)
    if limit is not None:
        table = table[(table.sum(axis=2) <= limit).all(axis=1)]
    return np.ascontiguousarray(table.transpose(1, 0, 2)).astype(np.float32)


def some_inputs(
    generator: np.random.Generator,
    steps: int,
    features: int,
    limit: int | None,
    layers: Sequence[Layer],
    samples: int = 600,
) -> np.ndarray:
    """Random trains of several rates, and those that push one first neuron up or down, held, late or with pauses."""
    rates = generator.choice([0.1, 0.3, 0.6, 1.0], (1, samples, 1))
    drawn = (generator.random((steps, samples, features)) < rates).astype(np.float32)
    pushed = []
    for row in layers[0].weights:
        for sign in (1, -1):
            order = np.argsort(-sign * row)[: limit or features]
            best = np.zeros((steps, features), np.float32)
            best[:, [i for i in order if sign * row[i] > 0]] = 1
            for period in (1, 2, 3):
                for start in range(min(3, steps)):
                    one = np.zeros_like(best)
                    one[start::period] = best[start::period]
                    pushed.append(one)
    joined = np.concatenate([drawn, np.stack(pushed, axis=1)], axis=1)
    if limit is not None:
        ranks = np.argsort(np.argsort(-(joined + generator.random(joined.shape) / 2), axis=2), axis=2)
        joined = np.where(ranks < limit, joined, 0)
    return joined.astype(np.float32)


@dataclass(frozen=True)
class Claims:
    """What is claimed of one population, and what it does."""

    facts: NeuronFacts
    spikes: np.ndarray

    @property
    def train(self) -> Train | None:
        return self.facts.train

    def violated(self) -> str | None:
        """The name of a claim that the spikes refute."""
        units = self.spikes.shape[2:]
        never, always = (np.broadcast_to(m, units) for m in (self.facts.never, self.facts.always))
        if self.spikes[:, :, never].any():
            return "never"
        if (self.spikes[:, :, always] != 1).any():
            return "always"
        return None if self.train is None else self._violated_over_time(self.train, units)

    def _violated_over_time(self, train: Train, units: tuple[int, ...]) -> str | None:
        first, interval, decay = (np.broadcast_to(a, units) for a in (train.first, train.interval, train.decay))
        last = np.full(self.spikes.shape[1:], -np.inf)
        total = np.zeros(self.spikes.shape[1:])
        for step, fired in enumerate(self.spikes, start=1):
            active = fired != 0
            if (active & (step < first)).any():
                return "first"
            if (active & (step - last < interval)).any():
                return "interval"
            last = np.where(active, step, last)
            total = decay * total + fired
            segment = int(np.searchsorted(train.clock.ends, step))
            if (total > np.broadcast_to(train.caps[segment], units)).any():
                return "cap"
            if train.limit is not None and (active.sum(axis=-1) > train.limit).any():
                return "limit"
            if train.totals is not None and (total.sum(axis=-1) > train.totals[segment]).any():
                return "total"
        return None


def claims_of(model: onnx.ModelProto, layers: int, inputs: np.ndarray, domain: InputDomain) -> list[Claims]:
    """Bound a network and run it."""
    module = Module.load(model)
    facts = AnalysisManager(module, domain).get(ValueRanges).facts
    named = {node.name: node for scope in module.scopes() if scope.kind != "function" for node in scope.graph.nodes}
    found = Session(model).run({"x": inputs}, [f"pop{i}.s" for i in range(layers)])
    return [Claims(facts[id(named[f"pop{i}"])], found[f"pop{i}.s"]) for i in range(layers)]
