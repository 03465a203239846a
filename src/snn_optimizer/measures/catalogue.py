"""The measures there are: names, units, and what each needs to be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["MEASURES", "Measure", "Need"]


class Need(StrEnum):
    """What a measure is taken from."""

    FILE = "file"
    NETWORK = "network"
    SAMPLES = "samples"
    TURNS = "turns"
    OPTIMIZER = "optimizer"


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of a model; less is better for all of them.

    Attributes
    ----------
    name : str
        As configuration files and JSON spell it.
    label : str
        As people read it.
    unit : {"", "bytes", "energy", "ratio", "share"}
        Energies are picojoule, ratios and shares plain numbers.
    need : Need
    meaning : str
    """

    name: str
    label: str
    unit: str
    need: Need
    meaning: str


_ALL: Final = (
    Measure("bytes", "bytes", "bytes", Need.FILE, "the file, and the files of external weights"),
    Measure("bytes-weights", "bytes of weights", "bytes", Need.FILE, "data of tensors, external ones included"),
    Measure("bytes-graph", "bytes of the graph", "bytes", Need.FILE, "nodes, names and types"),
    Measure("bytes-functions", "bytes of functions", "bytes", Need.FILE, "model-local functions"),
    Measure("bytes-metadata", "bytes of metadata", "bytes", Need.FILE, "doc strings and metadata properties"),
    Measure("nodes", "nodes", "", Need.FILE, "nodes of the graph and of all bodies, as the file has them"),
    Measure("parameters", "parameters", "", Need.NETWORK, "weights and biases, each tensor once"),
    Measure("nonzero-parameters", "non-zero parameters", "", Need.NETWORK, "those that are not zero"),
    Measure("neurons", "neurons", "", Need.NETWORK, "of all populations, readouts included"),
    Measure("synapses", "synapses", "", Need.NETWORK, "connections with a weight that is not zero"),
    Measure("state-bytes", "bytes of state", "bytes", Need.NETWORK, "membranes and currents of one sample"),
    Measure("synaptic-operations", "synaptic operations", "", Need.SAMPLES, "effective ones, mean of the samples"),
    Measure("energy", "energy", "energy", Need.SAMPLES, "estimate per sample, 45 nm"),
    Measure("load-time", "load time", "ratio", Need.TURNS, "in onnxruntime, as a ratio to the baseline"),
    Measure("run-time", "run time", "ratio", Need.TURNS, "in onnxruntime, as a ratio to the baseline"),
    Measure("could-be-smaller", "could be smaller", "share", Need.OPTIMIZER, "share of the bytes that -O2 removes"),
)

MEASURES: Final[Mapping[str, Measure]] = {measure.name: measure for measure in _ALL}
