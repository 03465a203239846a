"""One time step as a graph: what it receives, what it gives, and what travels to the next step.

The step graph is the same thing whatever form the model has: the body of a ``Scan``, or the
main graph of a model that runs one step per call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from snn_optimizer.ir import Graph, Node, Value, is_standard

__all__ = ["State", "StepGraph"]


@dataclass(eq=False, slots=True)
class State:
    """A value that travels from one step to the next.

    Attributes
    ----------
    before, after : Value
        As received and as returned by the step; the two may be one value.
    initial : Value or None
        What it is before the first step; None when the caller gives it.
    slot : int
        Position among the states.
    """

    before: Value
    after: Value
    initial: Value | None
    slot: int


@dataclass(eq=False, slots=True)
class StepGraph:
    """One step.

    Attributes
    ----------
    graph : Graph
        The body, or the main graph of a model in step form.
    states : list of State
    scan : Node or None
        The ``Scan`` whose body it is.
    """

    graph: Graph
    states: list[State]
    scan: Node | None = None

    @classmethod
    def of_scan(cls, scan: Node) -> StepGraph:
        """Return the step of a ``Scan``."""
        body: Graph = scan.attrs["body"]
        carried = len(scan.inputs) - int(scan.attrs["num_scan_inputs"])
        states = [State(body.inputs[k], body.outputs[k], scan.inputs[k], k) for k in range(carried)]
        return cls(body, states, scan)

    @classmethod
    def scans(cls, graph: Graph) -> Iterator[StepGraph]:
        """Yield the steps of all loops over time in a graph."""
        for node in graph.nodes:
            if is_standard(node, "Scan") and not any(node.attrs.get("scan_input_directions", ())):
                yield cls.of_scan(node)

    def emitted(self) -> list[Value]:
        """Return what the step gives besides its states."""
        outputs = list(self.graph.outputs)
        if self.scan is not None:
            return outputs[len(self.states) :]
        states = {id(state.after) for state in self.states}
        return [value for value in outputs if id(value) not in states]
