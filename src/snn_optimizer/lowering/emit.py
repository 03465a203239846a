"""Write a raised network in another form."""

from __future__ import annotations

from typing import Final

from snn_optimizer import ops
from snn_optimizer.errors import UnsupportedModelError
from snn_optimizer.ir import Shapes, SNNGraph
from snn_optimizer.lowering.loop_form import loop_form
from snn_optimizer.lowering.step_form import StepForm, step_form
from snn_optimizer.raising.streaming import find_streaming_step

__all__ = ["FORMS", "as_step", "emit"]

FORMS: Final = ("sequence", "step", "scan")
"""All steps in one call with neurons that run them; one step per call; a loop around one step."""


def as_step(graph: SNNGraph, states: dict[str, str] | None = None) -> tuple[StepForm, bool]:
    """Return the one-step form of a network, and whether it had it already.

    Raises
    ------
    UnsupportedModelError
        If the network has no one-step form.
    """
    has_cells = any(
        ops.is_neuron(node.domain or "", node.op) and ops.NeuronVariant.parse(node.op, node.attrs).form == "cell"
        for node in graph.module.graph.nodes
    )
    streaming = find_streaming_step(graph.module, Shapes.compute(graph.module), states) if has_cells else None
    if streaming is None:
        return step_form(graph), False
    pairs = {state.before.name: state.after.name for state in streaming.states}
    signals = {value.name: 0 for value in graph.module.graph.inputs if value.name not in pairs}
    return StepForm(graph, pairs, dict.fromkeys(pairs, 0.0), signals), True


def emit(graph: SNNGraph, form: str, states: dict[str, str] | None = None) -> tuple[SNNGraph, StepForm, bool]:
    """Write a network in a form; a ``sequence`` of a one-step model is a loop for ``distribute-time`` to split.

    Returns
    -------
    SNNGraph
        The graph itself where it has the form already.
    StepForm
        Its one-step form.
    bool
        Whether the network came in one-step form.

    Raises
    ------
    UnsupportedModelError
        If it has no such form; the message names the part.
    """
    if form not in FORMS:
        raise UnsupportedModelError(f"there is no form '{form}'; known: {', '.join(FORMS)}")
    step, streaming = as_step(graph, states)
    if form == "step":
        return step.graph, step, streaming
    if form == "sequence" and not streaming:
        return graph, step, streaming
    return loop_form(step), step, streaming
