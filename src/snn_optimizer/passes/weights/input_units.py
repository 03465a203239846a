"""The elements of a model's inputs as units: what the first layers can do without, they need not read.

Before: ``Gemm(x, W)``, where ``x`` comes from outside and has no units
After:  ``Gemm(Gather(x, 0..n-1), W)``; an axis picked by constant indices has units, whose going takes
        an index and a column of the weights

Opened inputs are for the time of a search: ``close_inputs`` takes away the picks that left nothing out, or too
little to pay for themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses import NO_UNIT, Contraction, Role, UnitGroups
from snn_optimizer.ir import Rewriter, SNNGraph, array_of
from snn_optimizer.passes.unit_surgery import worth_a_gather

__all__ = ["close_inputs", "input_layers", "open_inputs", "pays"]


def open_inputs(graph: SNNGraph, groups: UnitGroups) -> dict[str, int]:
    """Put a Gather of everything before each linear layer of the main graph whose inputs have no units.

    Layers that read the same value share one. Returns how many elements each picks, by name.
    """
    readers: dict[int, list[Contraction]] = {}
    inner = {id(node) for node in graph.module.graph.nodes}
    for contraction in groups.contractions:
        weights = contraction.node.inputs[contraction.weight_slot]
        plain = bool((contraction.labels_in == NO_UNIT).all())
        if contraction.node.op != "Conv" and plain and id(contraction.node) in inner and len(weights.outputs) == 1:
            readers.setdefault(id(contraction.source), []).append(contraction)
    rewriter = Rewriter(graph.module)
    made: dict[str, int] = {}
    for reading in readers.values():
        source, size = reading[0].source, len(reading[0].labels_in)
        if any(len(each.labels_in) != size for each in reading):
            continue
        shape = None if source.shape is None else [*source.shape[:-1], size]
        picked = rewriter.value(f"{source.name}.read", source.dtype, shape)
        indices = rewriter.constant(f"{reading[0].node.name}.read_inputs", np.arange(size, dtype=np.int64))
        hint = f"{reading[0].node.name}.read"
        node = rewriter.add(graph.module.graph, "Gather", [source, indices], [picked], {"axis": -1}, name_hint=hint)
        made[node.name] = size
        for each in reading:
            rewriter.set_input(each.node, 0, picked)
    rewriter.finish()
    return made


def input_layers(groups: UnitGroups) -> list[tuple[str, npt.NDArray[np.int64]]]:
    """Return the names of the Gathers whose indices are units, and the classes of these."""
    return [
        (site.use.node.name, np.unique(groups.classes_at(site.labels)))
        for site in groups.sites
        if site.role is Role.INDEX
    ]


def pays(groups: UnitGroups, name: str, size: int) -> bool:
    """Tell whether a Gather that picked ``size`` elements once leaves out enough to pay for itself."""
    for site in groups.sites:
        if site.role is Role.INDEX and site.use.node.name == name:
            read = site.use.node.outputs[0]
            rows = [array_of(node.inputs[1]) for node in read.outputs]
            per_input = sum(array.nbytes / max(len(site.labels), 1) for array in rows if array is not None)
            return worth_a_gather(size - len(site.labels), len(site.labels), int(per_input))
    return True


def close_inputs(graph: SNNGraph, opened: Mapping[str, int]) -> None:
    """Remove the Gathers that pick everything.

    Parameters
    ----------
    opened : mapping from name to int
        What :func:`open_inputs` returned.
    """
    rewriter = Rewriter(graph.module)
    for node in list(graph.module.graph.nodes):
        if node.name in opened and node.op == "Gather":
            indices = array_of(node.inputs[1])
            if indices is not None and indices.size == opened[node.name]:
                rewriter.replace_uses(node.outputs[0], node.inputs[0])
                rewriter.erase(node)
    rewriter.finish()
