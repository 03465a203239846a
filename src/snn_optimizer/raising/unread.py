"""Ports of a loop that nothing reads."""

from __future__ import annotations

from snn_optimizer.ir import GraphIndex, Module, Rewriter
from snn_optimizer.raising.step_graph import StepGraph

__all__ = ["drop_unread_ports"]


def drop_unread_ports(module: Module) -> int:
    """Take states and results out of loops that neither the step nor anything after the loop reads."""
    rewriter, index = Rewriter(module), GraphIndex(module)
    dropped = sum(_drop(rewriter, step, index) for step in StepGraph.scans(module.graph))
    rewriter.finish()
    return dropped


def _drop(rewriter: Rewriter, step: StepGraph, index: GraphIndex) -> int:
    scan = step.scan
    if scan is None:
        return 0
    body, carried = step.graph, len(step.states)

    def is_read(position: int) -> bool:
        result = scan.outputs[position]
        return bool(result.name) and (bool(index.consumers(result)) or index.output_of(result))

    def is_needed(slot: int) -> bool:
        before = step.states[slot].before
        return bool(index.consumers(before)) or index.output_of(before) or is_read(slot)

    states = [slot for slot in range(carried) if is_needed(slot)]
    results = [position for position in range(carried, len(scan.outputs)) if is_read(position)]
    dropped = len(scan.outputs) - len(states) - len(results)
    if not dropped or not (states or results):
        return 0
    rewriter.set_ports(
        body,
        [*(body.inputs[k] for k in states), *body.inputs[carried:]],
        [*(body.outputs[k] for k in states), *(body.outputs[k] for k in results)],
    )
    rewriter.set_ports(
        scan,
        [*(scan.inputs[k] for k in states), *scan.inputs[carried:]],
        [*(scan.outputs[k] for k in states), *(scan.outputs[k] for k in results)],
    )
    for name in ("scan_output_axes", "scan_output_directions"):
        listed = scan.attrs.get(name)
        if listed is not None:
            rewriter.set_attribute(scan, name, [int(listed[k - carried]) for k in results] or None)
    return dropped
