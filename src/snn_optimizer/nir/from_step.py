"""From one step of a network to NIR: nodes and the edges between them.

A node of NIR adds up its inputs, so an addition is no node but two edges; so is what a state carries from the step
before, where it closes a loop.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from snn_optimizer import ops
from snn_optimizer.errors import UnsupportedModelError
from snn_optimizer.ir import Node, Shapes, Value, array_of, describe, is_constant, is_missing
from snn_optimizer.lowering.specialize import with_threshold
from snn_optimizer.lowering.step_form import StepForm
from snn_optimizer.nir.content import cut, settled
from snn_optimizer.nir.document import NirFile, NirNode
from snn_optimizer.nir.equations import equation_of
from snn_optimizer.nir.losses import Losses
from snn_optimizer.nir.node_rules import RULES
from snn_optimizer.nir.schemes import Discretization, Steps
from snn_optimizer.nir.signals import Signal

__all__ = ["StepReader", "Template", "Written", "nodes_of_step"]

Units = Mapping[str, npt.NDArray[np.int64]]

_MENDED: Final = {"BatchNormalization": "it has no batch norm; fold it first: snnopt optimize IN -o FOLDED.onnx -O2"}


@dataclass(frozen=True)
class Template:
    """The file a network came from, and which of its units are left.

    Attributes
    ----------
    file : NirFile or None
    neurons : mapping
        What its neuron nodes became.
    units : mapping
        Which units a population still has, by its name; populations that have all are left out.
    """

    file: NirFile | None = None
    neurons: Mapping[str, Steps] = field(default_factory=dict)
    units: Units = field(default_factory=dict)

    def node(self, name: str) -> NirNode | None:
        """Return the node of a name."""
        return None if self.file is None else self.file.nodes.get(name)

    def content(self, name: str) -> Mapping[str, Any] | None:
        """Return what the file holds under a full name."""
        return None if self.file is None else self.file.raw(name)


@dataclass
class Written:
    """Nodes and edges of a flat NIR network."""

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)


def nodes_of_step(
    step: StepForm, template: Template, time: Discretization, losses: Losses, finals: Collection[str] = ()
) -> Written:
    """Return the NIR network that steps like a network.

    Parameters
    ----------
    step : StepForm
    template : Template
    time : Discretization
    losses : Losses
    finals : collection of str
        Outputs that are states after the last step, which NIR has not.

    Raises
    ------
    UnsupportedModelError
        If a part of it has no counterpart; the message names it.
    """
    return StepReader(step, template, time, losses, frozenset(finals)).read()


@dataclass
class StepReader:
    """Reads one step, node by node; the rules for nodes are in :mod:`snn_optimizer.nir.node_rules`."""

    step: StepForm
    template: Template
    time: Discretization
    losses: Losses
    finals: frozenset[str]
    result: Written = field(default_factory=Written)
    signals: dict[int, Signal] = field(default_factory=dict)
    late: dict[str, Value] = field(default_factory=dict)
    fixed: set[int] = field(default_factory=set)

    def read(self) -> Written:
        """Return the whole network."""
        module = self.step.graph.module
        self.shapes = Shapes.compute(module)
        self.after = {value.name: value for value in module.graph.outputs}
        self.reserved = set(self.after) - set(self.step.states.values()) - self.finals
        for value in module.graph.inputs:
            shape = self.units(value)
            if value.name in self.step.states:
                self.late[f"\0{value.name}"] = value
                self.signals[id(value)] = Signal((f"\0{value.name}",), shape)
            elif value.name in self.step.signals:
                self._add(value.name, "Input", {"shape": np.array(shape, np.int64)}, ())
                self.signals[id(value)] = Signal((value.name,), shape)
            else:
                raise UnsupportedModelError(f"input '{value.name}' is the same for all steps; NIR has no such input")
        for node in module.graph.nodes:
            if all(is_missing(v) or is_constant(v) or id(v) in self.fixed for v in node.inputs):
                self.fixed.update(id(value) for value in node.outputs)  # weights that are stored in another way
            else:
                self._node(node)
        for value in module.graph.outputs:
            if value.name in self.step.states.values() or value.name in self.finals or self._is_potential(value):
                continue
            signal = self.signal(value, f"output '{value.name}'")
            self.reserved.discard(value.name)
            name = self._free(value.name)
            old = self.template.content(name) or {}
            # The interface stays, as the file says it: nir 1.0.8 miscounts behind kernels that are not square.
            declared = old["shape"] if old.get("type") == "Output" else np.array(signal.shape, np.int64)
            self._add(name, "Output", {"shape": declared}, signal.sources)
        self._close_loops()
        self._drop_unread()
        return self.result

    def is_kept(self, signal: Signal, result: Value) -> bool:
        """Tell whether a signal is the value of the step before of a result."""
        state = self.late.get(signal.sources[0]) if len(signal.sources) == 1 else None
        return state is not None and _origin(self.after[self.step.states[state.name]]) is result

    def _is_potential(self, output: Value) -> bool:
        """Tell whether an output is the potential of neurons that spike, which is lost then."""
        value = _origin(output)
        maker = value.inputs[0] if value.inputs else None
        if id(value) in self.signals or maker is None or not ops.is_neuron(maker.domain or "", maker.op):
            return False
        self.losses.take("potential", f"output '{output.name}' of neurons '{maker.name}'")
        return True

    # ------------------------------------------------------------------ signals

    def units(self, value: Value) -> tuple[int, ...]:
        """Return the shape of a value without the batch."""
        shape = self.shapes.shape(value)
        if shape is None or not all(isinstance(size, int) for size in shape[1:]):
            raise UnsupportedModelError(f"the shape of '{value.name}' is not known")
        return tuple(int(size) for size in shape[1:])  # type: ignore[arg-type]  # checked above

    def signal(self, value: Value, what: str) -> Signal:
        """Return what a value adds up; ``what`` names its reader in messages."""
        if id(value) not in self.signals:
            raise UnsupportedModelError(f"{what} does not depend on the inputs; NIR has no constants")
        return self.signals[id(value)]

    def _free(self, hint: str) -> str:
        clean = hint.replace("/", "_").strip("_.") or "node"
        name, number = clean, 0
        while name in self.result.nodes or name in self.reserved:
            number += 1
            name = f"{clean}_{number}"
        return name

    def _add(self, name: str, kind: str, fields: Mapping[str, Any], sources: tuple[str, ...]) -> None:
        self.result.nodes[name] = settled(kind, fields, self.template.content(name))
        self.result.edges.extend((source, name) for source in dict.fromkeys(sources))

    def emit(self, node: Node, kind: str, fields: Mapping[str, Any], signal: Signal, hint: str = "") -> str:
        """Write a node for a node and return its name."""
        name = self._free(hint or node.name or kind.lower())
        if len(set(signal.sources)) != len(signal.sources):
            raise UnsupportedModelError(f"node {describe(node)} reads one node twice, which NIR cannot say")
        self._add(name, kind, fields, signal.sources)
        self.signals[id(node.outputs[0])] = Signal((name,), self.units(node.outputs[0]))
        return name

    def _close_loops(self) -> None:
        """Let edges from states come from what the states are after the step."""
        resolved: dict[str, tuple[str, ...]] = {}
        for key, value in self.late.items():
            after = self.after[self.step.states[value.name]]
            signal = self.signals.get(id(after))
            resolved[key] = () if signal is None else signal.sources
        edges = []
        for source, target in self.result.edges:
            for found in resolved.get(source, (source,)):
                if found.startswith("\0"):
                    raise UnsupportedModelError(f"node '{target}' reads a value that is two steps old")
                if source in resolved and not self._closes(found, target):
                    raise UnsupportedModelError(
                        f"node '{target}' reads '{found}' one step late outside a loop; NIR says that with a Delay"
                    )
                edges.append((found, target))
        if len(set(edges)) != len(edges):
            raise UnsupportedModelError("a node reads another both at once and one step late, which NIR cannot say")
        self.result.edges = edges

    def _closes(self, source: str, target: str) -> bool:
        """Tell whether the network leads from the target back to the source."""
        reached, pending = {target}, [target]
        while pending:
            name = pending.pop()
            for first, second in self.result.edges:
                if first == name and second not in reached:
                    reached.add(second)
                    pending.append(second)
        return source in reached

    def _drop_unread(self) -> None:
        """Leave out nodes that no output depends on, inputs excepted."""
        wanted = {name for name, node in self.result.nodes.items() if node["type"] == "Output"}
        pending = list(wanted)
        while pending:
            target = pending.pop()
            for first, second in self.result.edges:
                if second == target and first not in wanted:
                    wanted.add(first)
                    pending.append(first)
        kept = {n for n, node in self.result.nodes.items() if n in wanted or node["type"] == "Input"}
        self.result.nodes = {name: node for name, node in self.result.nodes.items() if name in kept}
        self.result.edges = [(a, b) for a, b in self.result.edges if a in kept and b in kept]

    # -------------------------------------------------------------------- nodes

    def _node(self, node: Node) -> None:
        if ops.is_neuron(node.domain or "", node.op):
            self._neuron(node)
            return
        rule = None if node.domain else RULES.get(node.op)
        if rule is None:
            kind = f"{node.domain}.{node.op}" if node.domain else node.op
            raise self.refuse(node, _MENDED.get(kind, f"it has no '{kind}'"))
        rule(self, node)

    def refuse(self, node: Node, reason: str) -> UnsupportedModelError:
        """Return the error that says why a node has no counterpart."""
        return UnsupportedModelError(f"node {describe(node)} cannot be written to NIR: {reason}")

    def _neuron(self, node: Node) -> None:
        variant = ops.NeuronVariant.parse(node.op, node.attrs)
        what = f"neurons '{node.name}' ({variant.operator})"
        values: dict[str, Any] = {}
        for declared, value in zip(variant.schema.inputs, node.inputs, strict=True):
            if declared.role == "parameter":
                array = array_of(value)
                if array is None:
                    raise UnsupportedModelError(f"{what} cannot be written to NIR: '{declared.name}' is computed")
                values[declared.name] = array
        for before, out in variant.states:
            start = node.inputs[before]
            ends = self.step.states.get(start.name)
            if ends is None or _origin(self.after[ends]) is not node.outputs[out]:
                raise UnsupportedModelError(f"{what} cannot be written to NIR: a state is changed outside the neuron")
            if self.step.starts.get(start.name, 0.0) != 0.0:
                raise UnsupportedModelError(f"{what} cannot be written to NIR: it does not start from zero")
        signal = self._current(node, variant.currents, what)
        shape = self.units(node.outputs[0])
        kept = self._kept(node.name, variant, values, shape)
        if kept is None:
            equation = equation_of(variant, values, shape, self.time, self.losses, what)
            kept = (equation.kind, dict(equation.parameters))
        name = self.emit(node, kept[0], kept[1], signal)
        if not variant.spiking:  # its output and its potential are one
            for declared, value in zip(variant.schema.outputs, node.outputs, strict=True):
                if declared.name == "v_next":
                    self.signals[id(value)] = Signal((name,), shape)

    def _current(self, node: Node, count: int, what: str) -> Signal:
        """Return the sum of the currents a neuron reads."""
        read = [self.signal(value, what) for value in node.inputs[:count]]
        if any(signal.shape != read[0].shape for signal in read):
            raise UnsupportedModelError(f"{what} cannot be written to NIR: its currents have different shapes")
        return Signal(tuple(source for signal in read for source in signal.sources), read[0].shape)

    def _kept(
        self, name: str, variant: ops.NeuronVariant, values: Mapping[str, Any], shape: tuple[int, ...]
    ) -> tuple[str, dict[str, Any]] | None:
        """Return the parameters the file had, of the units that are left; None where a pass changed more than that."""
        old, node = self.template.neurons.get(name), self.template.node(name)
        if old is None or node is None or not _same_steps(old, variant):
            return None
        units = self.template.units.get(name)
        for parameter, found in old.parameters.items():
            if parameter not in values:  # it is in the arithmetic
                continue
            before = found if found.size == 1 else cut(found, units, shape[0] if shape else 1)
            if before is None:
                return None
            try:
                expected = np.broadcast_to(before.reshape(()) if before.size == 1 else before, shape)
                if not np.array_equal(expected, np.broadcast_to(values[parameter], shape), equal_nan=True):
                    return None
            except ValueError:  # a pass left other shapes
                return None
        fields = {key: cut(value, units, shape[0] if shape else 1) for key, value in node.values.items()}
        if any(value is None for value in fields.values()):
            return None
        return node.kind, fields


def _same_steps(old: Steps, variant: ops.NeuronVariant) -> bool:
    """Tell whether a neuron still has the arithmetic it was read with, or the same with its threshold written in."""
    before = old.variant.as_form(variant.form)
    threshold = old.parameters.get("v_threshold")
    if before != variant and before.written and threshold is not None and threshold.size == 1:
        before = with_threshold(before, float(threshold.reshape(())))
    return before == variant


def _origin(value: Value) -> Value:
    """Return what a value is a copy of."""
    while value.inputs and value.inputs[0].op == "Identity" and not is_missing(value.inputs[0].inputs[0]):
        value = value.inputs[0].inputs[0]
    return value
