"""A framework's export as a network, for those who want to look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from snn_optimizer.ir import SNNGraph
from snn_optimizer.job import Job, Model, run_job
from snn_optimizer.passes.base import Frontend
from snn_optimizer.remarks import RemarkKind

__all__ = ["Raised", "raise_model"]


@dataclass(frozen=True)
class Raised:
    """A network found in a file.

    Attributes
    ----------
    graph : SNNGraph
    form : str
        What the file was: an unrolled export, a loop, one step per call, or a network of ``ai.snn``.
    steps : int or None
        Time steps, where the file fixes them.
    producer : str
        What wrote the file.
    nodes : int
        Nodes of the file.
    origins : dict
        Class of the framework each population comes from, where the file says.
    refused : list of str
        What stayed as it was, and why.
    """

    graph: SNNGraph
    form: str
    steps: int | None
    producer: str
    nodes: int
    origins: dict[str, str | None]
    refused: list[str]


def raise_model(model: Model, frontend: Frontend | None = None) -> Raised:
    """Find the network in a framework's export, without optimizing it.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    before = SNNGraph.from_onnx(model) if not isinstance(model, SNNGraph) else model
    nodes, ops = before.module.count_nodes(), {node.op for node in before.module.graph.nodes}
    header = before.module.sidecar.header
    job = Job(pipeline="@raise,dead-code", verify=False, frontend=frontend or Frontend())
    graph, report = run_job(before, job)
    remarks = [remark for result in report.pass_results for remark in result.remarks]
    rolled = [r for r in remarks if r.kind is RemarkKind.APPLIED and r.rule == "rolled"]
    named = {r.place: r.arguments.get("origin") for r in remarks if r.rule == "recognized"}
    raising = ("reroll", "recognize-neurons", "distribute-time", "loop-to-scan", "map-custom-ops")
    refused = [
        f"{r.place}: {r.message}"
        for r in remarks
        if r.kind is RemarkKind.MISSED and r.pass_name in raising and r.rule != "one-loop"
    ]
    steps = next((int(str(r.arguments["steps"])) for r in rolled), None)
    return Raised(
        graph,
        _form(rolled, ops, graph),
        steps,
        f"{header.producer_name} {header.producer_version}".strip(),
        nodes,
        {layer.name: _text(named.get(layer.name)) for layer in graph.layers},
        list(dict.fromkeys(refused)),
    )


def _text(held: object) -> str | None:
    return None if held is None else str(held)


def _form(rolled: Sequence[Any], ops: set[str], graph: SNNGraph) -> str:
    if rolled:
        return "unrolled export"
    if "Loop" in ops or "Scan" in ops:
        return "loop over time"
    cells = any(layer.variant.form == "cell" for layer in graph.layers)
    return "one step per call" if cells else "network over all steps" if graph.layers else "plain graph"
