"""The networks in plain numpy, layer by layer, with no notion of a graph: what every export must compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tests.support.unrolling.network import Layer, Network, Neuron

FLOAT = np.float32


@dataclass(frozen=True, eq=False)
class Arrays:
    """The numbers of one layer; `normalisation` is scale, shift, mean and variance."""

    weight: np.ndarray
    bias: np.ndarray | None
    normalisation: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None
    recurrent: np.ndarray | None
    recurrent_bias: np.ndarray | None
    decay: np.ndarray
    tau: np.ndarray
    current_decay: np.ndarray
    threshold: np.ndarray
    reset_value: np.ndarray


@dataclass(frozen=True, eq=False)
class Trace:
    """What a layer did: [T, B, ...]. `output` is the spikes (or membranes) with the residual."""

    output: np.ndarray
    spikes: np.ndarray
    membranes: np.ndarray
    currents: np.ndarray


def simulate(network: Network, sequence: np.ndarray) -> list[Trace]:
    """The traces of all layers on an input [T, B, ...]."""
    traces: list[Trace] = []
    stream = sequence
    for layer, arrays in zip(network.layers, network.arrays(), strict=True):
        traces.append(
            run_layer(layer, arrays, stream, None if layer.residual is None else traces[layer.residual].output)
        )
        stream = traces[-1].output
    return traces


def run_layer(layer: Layer, arrays: Arrays, sequence: np.ndarray, residual: np.ndarray | None) -> Trace:
    """One layer over all steps."""
    spikes, membranes, currents = [], [], []
    membrane = current = spike = FLOAT(0)
    for frame in sequence:
        drive = synapse(layer, arrays, frame)
        if arrays.recurrent is not None:
            before = np.broadcast_to(spike, drive.shape)
            fed_back = before @ arrays.recurrent.T
            if arrays.recurrent_bias is not None:
                fed_back = fed_back + arrays.recurrent_bias
            drive = drive + fed_back
        spike, membrane, current = update(layer.neuron, arrays, drive, membrane, current)
        spikes.append(spike)
        membranes.append(membrane)
        currents.append(np.broadcast_to(current, membrane.shape))
    stacked = np.stack(spikes)
    output = stacked if residual is None else stacked + residual
    return Trace(output, stacked, np.stack(membranes), np.stack(currents))


def synapse(layer: Layer, arrays: Arrays, frame: np.ndarray) -> np.ndarray:
    """The drive of one step."""
    if not layer.is_convolution:
        drive = frame.reshape(len(frame), -1) @ arrays.weight.T
        return drive if arrays.bias is None else drive + arrays.bias
    padded = np.pad(frame, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = frame.shape[2:]
    drive = np.zeros((len(frame), layer.units, height, width), FLOAT)
    for row in range(3):
        for column in range(3):
            shifted = padded[:, :, row : row + height, column : column + width]
            drive += np.einsum("bchw,oc->bohw", shifted, arrays.weight[:, :, row, column])
    if arrays.bias is not None:
        drive = drive + arrays.bias[:, None, None]
    if arrays.normalisation is not None:
        scale, shift, mean, variance = (each[:, None, None] for each in arrays.normalisation)
        drive = (drive - mean) / np.sqrt(variance + FLOAT(1e-5)) * scale + shift
    if layer.pool:
        tiles = drive.reshape(*drive.shape[:2], height // 2, 2, width // 2, 2)
        drive = tiles.max(axis=(3, 5)) if layer.pool == "max" else tiles.mean(axis=(3, 5), dtype=FLOAT)
    return drive


def update(
    neuron: Neuron, arrays: Arrays, drive: np.ndarray, membrane: np.ndarray, current: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spikes (of a readout, the membrane), the membrane after the step, and the current."""
    fired = np.zeros_like(membrane)
    in_charge = neuron.charge == "synaptic" and neuron.reset == "zero"
    if neuron.delayed:
        fired = fires(neuron, arrays, membrane)
        if neuron.reset in {"zero", "value"} and not in_charge:
            membrane = reset(neuron, arrays, membrane, fired)
    charged, current = charge(neuron, arrays, drive, membrane, current)
    if neuron.output == "membrane":
        return charged, charged, current
    if neuron.output == "counts":
        counts = np.where(charged > 0, np.trunc(charged / arrays.threshold), 0).astype(FLOAT)
        return counts, charged - counts * arrays.threshold, current
    if neuron.delayed and (neuron.reset == "subtract" or in_charge):
        charged = charged - charged * fired if in_charge else charged - fired * arrays.threshold
    spikes = fires(neuron, arrays, charged)
    if neuron.reset == "none" or neuron.delayed:
        return spikes, charged, current
    return spikes, reset(neuron, arrays, charged, spikes), current


def fires(neuron: Neuron, arrays: Arrays, membrane: np.ndarray) -> np.ndarray:
    """1 where the threshold is passed."""
    passed = membrane > arrays.threshold if neuron.fire == "gt" else membrane >= arrays.threshold
    return np.asarray(passed).astype(FLOAT)


def reset(neuron: Neuron, arrays: Arrays, membrane: np.ndarray, fired: np.ndarray) -> np.ndarray:
    """The membrane after the spikes."""
    if neuron.reset == "subtract":
        return membrane - fired * arrays.threshold
    target = arrays.reset_value if neuron.reset == "value" else FLOAT(0)
    return np.where(fired == 1, target, membrane).astype(FLOAT)


def charge(
    neuron: Neuron, arrays: Arrays, drive: np.ndarray, membrane: np.ndarray, current: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The membrane before the threshold, and the current."""
    rest = arrays.reset_value if neuron.reset == "value" else FLOAT(0)
    match neuron.charge:
        case "integrate":
            return membrane + drive, current
        case "input-decay":
            return membrane + (drive - (membrane - rest)) / arrays.tau, current
        case "input-product":
            return membrane + (drive - (membrane - rest)) * (FLOAT(1) / arrays.tau), current
        case "leak":
            return membrane - membrane / arrays.tau + drive, current
        case "normalised":
            return arrays.decay * membrane + (FLOAT(1) - arrays.decay) * drive, current
        case "current":
            current = current + drive
            return membrane + arrays.decay * (current - membrane), current - arrays.current_decay * current
        case "synaptic":
            current = arrays.current_decay * current + drive
            return arrays.decay * membrane + current, current
        case _:
            return arrays.decay * membrane + drive, current
