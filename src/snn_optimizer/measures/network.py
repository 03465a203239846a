"""Measure one model file: its bytes, the network in it, and what that costs on samples."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from snn_optimizer.execution import Session, load_dataset
from snn_optimizer.ir import SNNGraph
from snn_optimizer.measures.composition import composition_of
from snn_optimizer.raised import Raised, raise_model
from snn_optimizer.report.costs import AC_ENERGY, MAC_ENERGY, count_synapses, measure_costs

__all__ = ["Measured", "measure_model"]


@dataclass(frozen=True)
class Measured:
    """A model and its numbers.

    Attributes
    ----------
    path : Path
    raised : Raised
    values : dict
        By the names of ``MEASURES``; what cannot be told is missing.
    """

    path: Path
    raised: Raised
    values: dict[str, float]


def measure_model(
    path: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    mac_energy: float = MAC_ENERGY,
    ac_energy: float = AC_ENERGY,
) -> Measured:
    """Measure a model, and with samples what it costs to run.

    Parameters
    ----------
    path : path
    data : path, optional
        Samples (.npz); without them synaptic operations and energy are not measured.
    mac_energy, ac_energy : float
        Picojoule per operation.

    Raises
    ------
    InputError
        If the model or the samples cannot be read.
    ExecutionError
        If the model does not run on the samples.
    """
    path = Path(path)
    raised = raise_model(path)
    graph, found = raised.graph, composition_of(path)
    values: dict[str, float] = {
        "bytes": found.total,
        "bytes-weights": found.weights,
        "bytes-graph": found.graph,
        "bytes-functions": found.functions,
        "bytes-metadata": found.metadata,
        "nodes": raised.nodes,
        "parameters": graph.total_params,
        "nonzero-parameters": graph.nonzero_params,
        "neurons": graph.total_neurons,
        "state-bytes": state_bytes(graph),
    }
    synapses = count_synapses(graph)
    if synapses is not None:
        values["synapses"] = synapses
    if data is not None:
        dataset = load_dataset(data, Session(path).inputs)
        costs = measure_costs(graph, dataset, mac_energy=mac_energy, ac_energy=ac_energy)
        if all(layer.macs is not None for layer in costs.layers):
            # means of sums: the last digits depend on the order of the additions
            values["synaptic-operations"] = round(costs.effective_macs + costs.effective_acs, 6)
            values["energy"] = round(costs.energy, 6)
    return Measured(path, raised, values)


def state_bytes(graph: SNNGraph) -> int:
    """Return the bytes of the states of all populations for one sample: membranes and synaptic currents."""
    total = 0
    for layer in graph.layers:
        held = (layer.parameter(name) for name in layer.variant.inputs)
        width = next((one.dtype.itemsize for one in held if one is not None), 4)  # all inputs are of one type
        total += layer.n_neurons * len(layer.variant.states) * width
    return total
