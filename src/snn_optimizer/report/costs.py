"""What a network costs to run, as the field counts it, and an estimate of its energy.

Definitions of NeuroBench (Yik et al., Nature Communications 16, 2025; harness 2.x):

* footprint: bytes of all parameters, those of the neurons included;
* connection sparsity: share of the weights of linear layers that are zero;
* activation sparsity: share of the elements of all spike trains that are zero;
* synaptic operations of one sample, over all its steps: *dense* counts every connection of every input, *effective*
  only non-zero weights of non-zero inputs. They are accumulates (AC) where a layer reads -1, 0 and 1 only, else
  multiply-accumulates (MAC). Inputs of a convolution that are padding are no inputs.

What is the same at all steps and is computed once is counted once. Energy per operation is that of 32-bit
floating point in 45 nm: 4.6 pJ for a MAC, 0.9 pJ for an AC (Horowitz, ISSCC 2014).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from snn_optimizer.execution import Dataset, Observer
from snn_optimizer.execution.activity import MeasuredActivity
from snn_optimizer.execution.observe import steps_of
from snn_optimizer.ir import Node, Shapes, SNNGraph, is_standard, weights_of, weights_shape

__all__ = ["AC_ENERGY", "MAC_ENERGY", "Costs", "LayerCosts", "count_synapses", "measure_costs"]

MAC_ENERGY: Final = 4.6  # picojoule
AC_ENERGY: Final = 0.9  # picojoule

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class LayerCosts:
    """One linear layer; operations are means per sample, None where its inputs cannot be measured.

    Attributes
    ----------
    name, op : str
    weights, zeros : int
    dense, macs, acs : float or None
    """

    name: str
    op: str
    weights: int
    zeros: int
    dense: float | None
    macs: float | None
    acs: float | None


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of a network; operations and energy are means per sample.

    Attributes
    ----------
    footprint : int
        Bytes.
    connection_sparsity, activation_sparsity : float
    dense, effective_macs, effective_acs : float
    energy : float
        Picojoule, of the effective operations.
    layers : tuple of LayerCosts
    samples, steps : int
    """

    footprint: int
    connection_sparsity: float
    activation_sparsity: float
    dense: float
    effective_macs: float
    effective_acs: float
    energy: float
    layers: tuple[LayerCosts, ...]
    samples: int
    steps: int

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serializable dictionary."""
        return asdict(self)


def measure_costs(
    graph: SNNGraph, dataset: Dataset, *, mac_energy: float = MAC_ENERGY, ac_energy: float = AC_ENERGY
) -> Costs:
    """Run a network on data and count.

    Parameters
    ----------
    graph : SNNGraph
        Raised.
    dataset : Dataset
    mac_energy, ac_energy : float
        Picojoule per operation.

    Raises
    ------
    ExecutionError
        If the model does not run.
    """
    nodes = [node for scope in graph.module.scopes() for node in scope.graph.nodes]
    linear = [node for node in nodes if _is_linear(node)]
    signals = MeasuredActivity(dataset).read_by(graph, linear)
    layers = tuple(_layer(node, found, dataset.samples) for node, found in zip(linear, signals, strict=True))
    observer = Observer(graph.to_onnx())
    weights, zeros = sum(layer.weights for layer in layers), sum(layer.zeros for layer in layers)
    macs = sum(layer.macs or 0.0 for layer in layers)
    acs = sum(layer.acs or 0.0 for layer in layers)
    return Costs(
        footprint=graph.module.parameter_bytes(),
        connection_sparsity=zeros / weights if weights else 0.0,
        activation_sparsity=_activation_sparsity(observer, dataset),
        dense=sum(layer.dense or 0.0 for layer in layers),
        effective_macs=macs,
        effective_acs=acs,
        energy=macs * mac_energy + acs * ac_energy,
        layers=layers,
        samples=dataset.samples,
        steps=steps_of(observer, dataset),
    )


def count_synapses(graph: SNNGraph) -> int | None:
    """Count the connections with a non-zero weight, of one step; None where the size of a feature map is open.

    A weight of a convolution is a connection at each place it is applied to, padding excepted.
    """
    total = 0
    shapes: Shapes | None = None
    for node in (node for scope in graph.module.scopes() for node in scope.graph.nodes if _is_linear(node)):
        weights = weights_of(node.inputs[1])
        assert weights is not None
        if node.op != "Conv":
            total += int(np.count_nonzero(weights))
            continue
        shapes = shapes or Shapes.compute(graph.module)
        shape = shapes.shape(node.inputs[0]) or ()
        places = [size for size in shape[1:] if isinstance(size, int)]
        if len(places) != weights.ndim - 1:
            return None
        total += round(_convolved(node, np.ones((1, 1, *places), np.bool_), weights != 0))
    return total


def _activation_sparsity(observer: Observer, dataset: Dataset) -> float:
    spiking = {tap.population for tap in observer.taps if tap.variant.spiking}
    nonzero = total = 0
    for batch in dataset.batches(64):
        for name, train in observer.trains(batch.feeds).items():
            if name in spiking:
                nonzero += int(np.count_nonzero(train))
                total += train.size
    return 1 - nonzero / total if total else 0.0


def _is_linear(node: Node) -> bool:
    if not is_standard(node, "Gemm", "MatMul", "MatMulInteger", "Conv"):
        return False
    shape = weights_shape(node.inputs[1])
    return shape is not None and (node.op == "Conv" or len(shape) == 2)


def _layer(node: Node, signals: Array | None, samples: int) -> LayerCosts:
    weights = weights_of(node.inputs[1])
    assert weights is not None
    name, size, zeros = node.name, int(weights.size), int(weights.size - np.count_nonzero(weights))
    if signals is None:
        return LayerCosts(name, node.op, size, zeros, None, None, None)
    inputs = signals[:1] if signals.strides[0] == 0 else signals  # the same at all steps: computed once
    count = _convolved if node.op == "Conv" else _multiplied
    dense = count(node, np.ones(inputs.shape, np.bool_), np.ones(weights.shape, np.bool_)) / samples
    effective = count(node, inputs != 0, weights != 0) / samples
    spiking = bool(np.isin(inputs, (-1, 0, 1)).all())
    return LayerCosts(name, node.op, size, zeros, dense, 0.0 if spiking else effective, effective if spiking else 0.0)


def _multiplied(node: Node, inputs: Array, weights: Array) -> float:
    """Return the connections between marked inputs and marked weights of a matrix product."""
    fan_out = weights.sum(axis=0 if node.attrs.get("transB", 0) else 1, dtype=np.float64)
    return float(inputs.reshape(-1, inputs.shape[-1]).sum(axis=0, dtype=np.float64) @ fan_out)


def _convolved(node: Node, inputs: Array, weights: Array) -> float:
    """Return the connections of a convolution, of any number of spatial axes and groups."""
    attributes = node.attrs
    rank = weights.ndim - 2
    strides = list(attributes.get("strides") or [1] * rank)
    dilations = list(attributes.get("dilations") or [1] * rank)
    pads = _pads(node, inputs.shape[3:], weights.shape[2:], strides, dilations)
    maps = np.pad(inputs, [(0, 0)] * 3 + [(pads[axis], pads[axis + rank]) for axis in range(rank)])
    reach = [(k - 1) * d + 1 for k, d in zip(weights.shape[2:], dilations, strict=True)]
    places = [(n - r) // s + 1 for n, r, s in zip(maps.shape[3:], reach, strides, strict=True)]
    groups = int(attributes.get("group", 1))
    fan_out = weights.reshape(groups, -1, *weights.shape[1:]).sum(axis=1, dtype=np.float64)
    fan_out = fan_out.reshape(-1, *weights.shape[2:])  # by input channel and kernel position
    total = 0.0
    for offset in np.ndindex(*weights.shape[2:]):
        window = tuple(
            slice(o * d, o * d + (n - 1) * s + 1, s)
            for o, d, n, s in zip(offset, dilations, places, strides, strict=True)
        )
        marked = maps[(slice(None), slice(None), slice(None), *window)]
        by_channel = marked.sum(axis=(0, 1, *range(3, marked.ndim)), dtype=np.float64)
        total += float(by_channel @ fan_out[(slice(None), *offset)])
    return total


def _pads(
    node: Node, sizes: tuple[int, ...], kernel: tuple[int, ...], strides: list[int], dilations: list[int]
) -> list[int]:
    attributes = node.attrs
    automatic = str(attributes.get("auto_pad", "NOTSET"))
    if not automatic.startswith("SAME"):
        return [int(p) for p in attributes.get("pads") or [0] * 2 * len(sizes)]
    before, after = [], []
    for size, taps, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        missing = max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
        less, more = missing // 2, missing - missing // 2
        before.append(more if automatic == "SAME_LOWER" else less)
        after.append(less if automatic == "SAME_LOWER" else more)
    return before + after
