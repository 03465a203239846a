"""NIR files as networks over all steps, ready for every pass."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from snn_optimizer.execution.evaluate import node_evaluator
from snn_optimizer.ir import SNNGraph
from snn_optimizer.lowering.loop_form import loop_form
from snn_optimizer.nir.document import NirFile, read_file
from snn_optimizer.nir.schemes import Discretization, Steps
from snn_optimizer.nir.to_step import step_network
from snn_optimizer.pipeline.manager import PassManager
from snn_optimizer.pipeline.spec import parse

__all__ = ["NirNetwork", "is_nir", "load"]

_SPLIT = "@raise,@hygiene"


@dataclass(frozen=True)
class NirNetwork:
    """A NIR file and the network that was made of it.

    Attributes
    ----------
    graph : SNNGraph
        Over all steps: inputs and outputs have the shape (T, B, ...) and the names of the NIR nodes.
    file : NirFile
    neurons : dict
        What each neuron node became, by its full name.
    time : Discretization
    """

    graph: SNNGraph
    file: NirFile
    neurons: Mapping[str, Steps]
    time: Discretization


def is_nir(path: str | os.PathLike[str]) -> bool:
    """Tell whether a name is that of a NIR file."""
    return Path(path).suffix == ".nir"


def load(path: str | os.PathLike[str], time: Discretization | None = None) -> NirNetwork:
    """Read a NIR file as a network over all steps; the same file gives the same bytes, whatever its name.

    Parameters
    ----------
    path : path
    time : Discretization, optional
        How time becomes steps; needed where a node has time constants.

    Raises
    ------
    ModelLoadError
        If it is no NIR file, or one that the ``nir`` package refuses.
    UnsupportedModelError
        If a node has no meaning here; the message names it.
    InputError
        If a node has time constants and nobody said how long a step is.
    """
    file, time = read_file(path), time or Discretization()
    step, neurons = step_network(file, time)
    graph = loop_form(step)
    module = graph.module
    ends = {node.name for node in file.nodes.values() if node.kind == "Output"}
    module.graph.outputs[:] = [value for value in module.graph.outputs if value.name in ends]
    PassManager(evaluate_node=node_evaluator).run(graph, parse(_SPLIT))
    return NirNetwork(graph, file, neurons, time)
