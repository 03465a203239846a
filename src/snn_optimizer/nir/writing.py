"""Networks as NIR files: written, read back, and compared with the network by running both."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from snn_optimizer import ops
from snn_optimizer.errors import UnsupportedModelError
from snn_optimizer.ir import Shapes, SNNGraph, Value
from snn_optimizer.lowering.emit import as_step
from snn_optimizer.lowering.step_form import StepForm
from snn_optimizer.nir.document import NirFile, encode
from snn_optimizer.nir.from_step import Template, Written, nodes_of_step
from snn_optimizer.nir.losses import Losses
from snn_optimizer.nir.network import NirNetwork, load
from snn_optimizer.nir.schemes import Discretization
from snn_optimizer.nir.wires import restore_wires
from snn_optimizer.verification.forms import Form, FormCheck, compare_forms

__all__ = ["Export", "export"]


@dataclass(frozen=True)
class Export:
    """A NIR file that says what a network does.

    Attributes
    ----------
    data : bytes
        The file.
    again : NirNetwork
        The network that the file gives when it is read.
    check : FormCheck
        What running both found.
    losses : list of str
        What NIR could not say, as the caller allowed.
    flattened : bool
        Whether subgraphs of the original had to be opened.
    left_out : list of str
        Outputs that are states after the last step, which NIR has not.
    """

    data: bytes
    again: NirNetwork
    check: FormCheck
    losses: list[str] = field(default_factory=list)
    flattened: bool = False
    left_out: list[str] = field(default_factory=list)


def export(
    graph: SNNGraph, time: Discretization, origin: NirNetwork | None = None, *, allowed: Collection[str] = (),
    states: Mapping[str, str] | None = None, label: str = "the network", seed: int = 0,
) -> Export:  # fmt: skip
    """Return a network as a NIR file.

    Parameters
    ----------
    graph : SNNGraph
        Over all steps or of one step; it is not changed.
    time : Discretization
    origin : NirNetwork, optional
        What the network was read from: names, metadata and structure of what no pass touched stay, and so do
        its parameters, bit for bit.
    allowed : collection of str
        Losses the caller accepts, names out of :data:`~snn_optimizer.nir.losses.LOSSES`.
    states : mapping, optional
        States of a one-step network that its dataflow does not tell.
    label : str
        Names it in messages.
    seed : int
        Of the spike trains that both are run with.

    Raises
    ------
    UnsupportedModelError
        If a part of it has no counterpart, or one that loses something the caller does not allow.
    InputError
        If it has time constants and nobody said how long a step is.
    """
    losses = Losses(allowed)
    step, streaming = as_step(graph, dict(states or {}))
    template = Template() if origin is None else Template(origin.file, origin.neurons, graph.unit_origins)
    finals = [] if streaming else _final_states(graph, step)
    written = nodes_of_step(step, template, time, losses, finals)
    data, flattened = _encoded(written, None if origin is None else origin.file, label)
    again = _read_again(data, time)
    first = Form(True, dict(step.signals), step.states, step.starts)
    source = graph if streaming else step.graph
    check = compare_forms(
        source.to_onnx(), first, again.graph.to_onnx(), Form(False, dict.fromkeys(step.signals, 0)), seed=seed
    )
    if not check.problem and not check.compared:
        check = replace(check, problem="the two have no output in common that could be compared")
    if check.problem:
        raise UnsupportedModelError(f"{label}: the NIR file does not run like the network: {check.problem}")
    return Export(data, again, check, losses.taken, flattened, finals)


def _final_states(graph: SNNGraph, step: StepForm) -> list[str]:
    """Return the outputs of a network over all steps that are states after the last one."""
    shapes, inner = Shapes.compute(graph.module), Shapes.compute(step.graph.module)
    made = {value.name: value for value in step.graph.module.graph.outputs}
    return [
        value.name
        for value in graph.module.graph.outputs
        if shapes.rank(value) is not None
        and shapes.rank(value) == inner.rank(made[value.name])
        and _is_state(made[value.name])
    ]


def _is_state(value: Value) -> bool:
    """Tell whether a value of a step is what a neuron that spikes hands on to the next, or a copy of it."""
    while value.inputs and value.inputs[0].op == "Identity":
        value = value.inputs[0].inputs[0]
    maker = value.inputs[0] if value.inputs else None
    if maker is None or not ops.is_neuron(maker.domain or "", maker.op):
        return False
    return ops.NeuronVariant.parse(maker.op, maker.attrs).spiking and value is not maker.outputs[0]


def _read_again(data: bytes, time: Discretization) -> NirNetwork:
    handle, name = tempfile.mkstemp(suffix=".nir")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        return load(Path(name), time)
    finally:
        Path(name).unlink()


def _encoded(written: Written, file: NirFile | None, label: str) -> tuple[bytes, bool]:
    """Return the file, with the nodes that do nothing where they still fit, and whether subgraphs were opened."""
    if file is not None:
        nodes = dict(written.nodes)
        edges = restore_wires(nodes, set(written.edges), file)
        if len(nodes) > len(written.nodes):
            with suppress(UnsupportedModelError):  # of another size than what is left of the units around them
                content, flattened = _content(Written(nodes, sorted(edges)), file)
                return encode(content, label), flattened
    content, flattened = _content(written, file)
    return encode(content, label), flattened


def _content(written: Written, file: NirFile | None) -> tuple[dict[str, Any], bool]:
    """Return what to write; the subgraphs of the original stay where its nodes and edges do."""
    if file is not None and set(written.nodes) == set(file.nodes) and set(written.edges) == set(file.edges):
        content = copy.deepcopy(file.content)
        _replace(content, written.nodes, "")
        return content, False
    content = {"type": "NIRGraph", "nodes": written.nodes, "edges": sorted(written.edges)}
    if file is not None and "metadata" in file.content:
        content["metadata"] = file.content["metadata"]
    nested = file is not None and any(node.get("type") == "NIRGraph" for node in file.content["nodes"].values())
    return content, nested


def _replace(content: dict[str, Any], nodes: Mapping[str, dict[str, Any]], prefix: str) -> None:
    for name, node in content["nodes"].items():
        if node["type"] == "NIRGraph":
            _replace(node, nodes, f"{prefix}{name}.")
        elif prefix + name in nodes:
            content["nodes"][name] = nodes[prefix + name]
