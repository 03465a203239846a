"""What a network is, whoever exports it: layers of a synapse and a neuron, and the numbers that follow from a seed.

On the `dyadic` grid the sums of a synapse are exact in any order. The weights of each layer are scaled such
that about a quarter of the spikes of a random binary train come out (`calibrate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np

from tests.support.unrolling.simulation import Arrays, run_layer

GRIDS = ("dyadic", "normal")
CHARGES = ("decay", "integrate", "input-decay", "input-product", "leak", "normalised", "current", "synaptic")
RESETS = ("subtract", "zero", "value", "none")
DENSE = ("gemm", "gemm-plain", "matmul-add", "matmul")
CONVOLUTIONS = ("conv", "conv-plain")
TARGET_RATE = 0.25
CLOSE = 0.06
EPSILON = np.float32(1e-5)


@dataclass(frozen=True)
class Neuron:
    """One update of a population.

    charge:  `decay` beta v + x, `integrate` v + x, `input-decay` v + (x - v) / tau, `input-product` the same with
             a factor 1 / tau, `leak` (v - v / tau) + x, `normalised` beta v + (1 - beta) x (sinabs), `current`
             Norse's LIF with rates `decay` and `current_decay`, `synaptic` snnTorch's.
    output:  `spikes`, `counts` (several spikes in a step, sinabs), `membrane` (a readout).
    reset_delay 1 computes the reset from the membrane of the step before, as snnTorch does.
    per_neuron: names of the parameters that are vectors.
    """

    charge: str = "decay"
    output: str = "spikes"
    reset: str = "subtract"
    reset_delay: int = 0
    fire: str = "gt"
    decay: float = 0.75
    tau: float = 2.0
    current_decay: float = 0.5
    threshold: float = 1.0
    reset_value: float = 0.0
    per_neuron: tuple[str, ...] = ()

    def __post_init__(self):
        if (
            self.charge not in CHARGES
            or self.reset not in RESETS
            or self.output not in {"spikes", "counts", "membrane"}
        ):
            raise ValueError(f"no such neuron: {self}")
        if self.output == "membrane" and self.reset != "none":
            raise ValueError("a readout is not reset")
        if self.output == "counts" and (self.reset, self.reset_delay, self.fire) != ("subtract", 0, "gt"):
            raise ValueError("a neuron of several spikes subtracts them in the same step")

    @property
    def has_current(self) -> bool:
        """Whether there is a second state."""
        return self.charge in {"current", "synaptic"}

    @property
    def delayed(self) -> bool:
        """Whether the step begins with the reset of the step before."""
        return self.reset_delay == 1 and self.reset != "none"


SNNTORCH_LEAKY = Neuron(reset_delay=1)
SNNTORCH_LEAKY_ZERO = Neuron(reset_delay=1, reset="zero")
SNNTORCH_SYNAPTIC = Neuron(charge="synaptic", reset_delay=1)
SPIKINGJELLY_LIF = Neuron(charge="input-decay", reset="value", fire="ge")
SPIKINGJELLY_SOFT = Neuron(charge="leak", fire="ge")
SPIKINGJELLY_PLIF = Neuron(charge="input-product", reset="value", fire="ge")
SPIKINGJELLY_IF = Neuron(charge="integrate", reset="value", fire="ge")
NORSE_LIF = Neuron(charge="current", reset="value", decay=0.5, current_decay=0.25)
NORSE_LI = Neuron(charge="current", output="membrane", reset="none", decay=0.5, current_decay=0.25)
SINABS_IAF = Neuron(charge="integrate", output="counts")
SINABS_LIF = Neuron(charge="normalised", output="counts")
READOUT = Neuron(output="membrane", reset="none")


@dataclass(frozen=True)
class Layer:
    """A synapse and what it drives.

    synapse:   `gemm`, `gemm-plain` (no bias), `matmul-add`, `matmul`, `conv`, `conv-plain` (3 x 3, same size).
    normalise: BatchNormalization after a convolution.
    pool:      `max` or `average`, 2 x 2, after a convolution.
    recurrent: `bias` or `plain`: a Gemm from the layer's own spikes of the step before.
    residual:  the earlier layer whose output is added to the spikes.
    """

    units: int
    synapse: str = "gemm"
    neuron: Neuron = SNNTORCH_LEAKY
    normalise: bool = False
    pool: str | None = None
    recurrent: str | None = None
    residual: int | None = None

    def __post_init__(self):
        if self.synapse not in DENSE + CONVOLUTIONS:
            raise ValueError(f"no such synapse: {self.synapse}")
        if self.is_convolution and self.recurrent:
            raise ValueError("only a dense layer is recurrent")
        if not self.is_convolution and (self.normalise or self.pool):
            raise ValueError("only a convolution is normalised or pooled")
        if self.neuron.output == "membrane" and (self.recurrent or self.residual is not None):
            raise ValueError("a readout has no spikes to feed back or to add to")

    @property
    def is_convolution(self) -> bool:
        """Whether frames come out."""
        return self.synapse in CONVOLUTIONS

    @property
    def has_bias(self) -> bool:
        """Whether the synapse adds one."""
        return self.synapse in {"gemm", "matmul-add", "conv"}


@dataclass(frozen=True)
class Network:
    """Layers behind an input of `features` (a number, or channels x height x width)."""

    layers: tuple[Layer, ...]
    features: tuple[int, ...] = (6,)
    grid: str = "dyadic"
    seed: int = 0

    def __post_init__(self):
        shapes = self.shapes
        for index, layer in enumerate(self.layers):
            if layer.is_convolution and len(shapes[index]) != 3:
                raise ValueError("a convolution reads frames")
            if layer.residual is not None and shapes[layer.residual + 1] != shapes[index + 1]:
                raise ValueError("a residual has the shape of the layer")

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the input and of each layer's output, without time and batch."""
        shapes = [self.features]
        for layer in self.layers:
            if not layer.is_convolution:
                shapes.append((layer.units,))
                continue
            _, height, width = shapes[-1]
            factor = 2 if layer.pool else 1
            shapes.append((layer.units, height // factor, width // factor))
        return shapes

    def arrays(self) -> tuple[Arrays, ...]:
        """The numbers of each layer."""
        return _arrays(self)


@lru_cache(maxsize=512)
def _arrays(network: Network) -> tuple[Arrays, ...]:
    generator = np.random.default_rng(network.seed)
    stream = (generator.random((8, 8, *network.features)) < 0.4).astype(np.float32)
    streams: list[np.ndarray] = []
    collected = []
    for layer, before in zip(network.layers, network.shapes[:-1], strict=True):
        residual = None if layer.residual is None else streams[layer.residual]
        arrays = calibrate(layer, [_draw(network, layer, before, generator) for _ in range(3)], stream)
        stream = run_layer(layer, arrays, stream, residual).output
        streams.append(stream)
        collected.append(arrays)
    return tuple(collected)


def calibrate(layer: Layer, draws: Sequence[Arrays], stream: np.ndarray) -> Arrays:
    """The draw, scaled and shifted, with which the layer fires at about `TARGET_RATE` and few units are silent."""
    best, distance = draws[0], np.inf
    if layer.neuron.output == "membrane":
        return best
    for arrays, scale, offset in product(draws, (1, 0.5, 2, 4, 8), (0, 0.125, -0.125, 0.5, 1)):
        candidate = replace(arrays, weight=(arrays.weight * np.float32(scale) + np.float32(offset)).astype(np.float32))
        fired = run_layer(layer, candidate, stream, None).spikes != 0
        missed = abs(fired.mean() - TARGET_RATE) + 0.25 * (1 - fired.any(axis=(0, 1)).mean())
        if missed < distance:
            best, distance = candidate, missed
        if distance < CLOSE:
            break
    return best


def _draw(network: Network, layer: Layer, before: tuple[int, ...], generator: np.random.Generator) -> Arrays:
    dyadic = network.grid == "dyadic"

    def numbers(*shape: int) -> np.ndarray:
        if dyadic:
            return (generator.integers(-6, 9, shape) / 8).astype(np.float32)
        return generator.normal(0.1, 0.5, shape).astype(np.float32)

    def parameter(name: str, value: float, spread: float) -> np.ndarray:
        if name not in layer.neuron.per_neuron:
            return np.asarray(value, np.float32)
        shape = (layer.units, 1, 1) if layer.is_convolution else (layer.units,)
        offsets = generator.integers(-1, 2, shape) if dyadic else generator.uniform(-1, 1, shape)
        return (value + offsets * spread).astype(np.float32)

    neuron, units = layer.neuron, layer.units
    inputs = before if layer.is_convolution else (int(np.prod(before)),)
    weight = numbers(units, inputs[0], 3, 3) if layer.is_convolution else numbers(units, *inputs)
    normalisation = None
    if layer.normalise:
        variance = np.where(generator.integers(0, 2, units), np.float32(4), np.float32(1)) - EPSILON
        scale = (generator.integers(2, 5, units) / 2).astype(np.float32)
        normalisation = (scale, numbers(units) / 4, numbers(units) / 4, variance.astype(np.float32))
    return Arrays(
        weight,
        numbers(units) / 4 if layer.has_bias else None,
        normalisation,
        numbers(units, units) / 4 if layer.recurrent else None,
        numbers(units) / 8 if layer.recurrent == "bias" else None,
        decay=parameter("decay", neuron.decay, 0.125),
        tau=parameter("tau", neuron.tau, 0.5),
        current_decay=parameter("current_decay", neuron.current_decay, 0.125),
        threshold=parameter("threshold", neuron.threshold, 0.25),
        reset_value=parameter("reset_value", neuron.reset_value, 0.125),
    )
