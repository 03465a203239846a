"""Making the inside of a model visible: the current and the spikes of every population as outputs.

A neuron call of the main graph is exposed by naming its values as outputs. A
call inside the body of a ``Scan`` or ``Loop`` has its values collected over the
iterations by one more scan output each. Calls in ``If`` branches, in loops within
loops and in model-local functions, and whole runs inside a loop, stay hidden.

With the runtime's optimizer off, exposing a value changes no other value.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from snn_optimizer import ops
from snn_optimizer.errors import UnsupportedModelError
from snn_optimizer.ops import NeuronVariant

__all__ = ["Exposed", "Source", "Tap", "expose", "instrument"]

Array = npt.NDArray[Any]

_LOOPS = ("Scan", "Loop")


@dataclass(frozen=True, slots=True)
class Exposed:
    """A value that is computed and therefore read from an output.

    Attributes
    ----------
    output : str
        The output of the instrumented model.
    value : str
        The name of the value in the model.
    stacked : bool
        Whether the output holds one value per iteration of a loop.
    """

    output: str
    value: str
    stacked: bool


Source: TypeAlias = npt.NDArray[Any] | Exposed
"""Where an operand of a population comes from: a constant of the model, or an output."""


@dataclass(frozen=True, slots=True, eq=False)
class Tap:
    """What to read to watch one population.

    Attributes
    ----------
    population : str
        The name of the node, or of its first output; unique within the model.
    variant : NeuronVariant
    currents : tuple of str
        Outputs that carry the currents, of which nearly all neurons have one.
    s : str
        Output that carries the spikes (``LI``: the potential).
    states : tuple of Source
        The states before the first step; in a loop, before each iteration.
    parameters : tuple of Source
        In the order of the operator's inputs.
    in_loop : bool
        Whether ``currents`` and ``s`` hold one value per iteration of a loop.
    steps : Source, optional
        The number of time steps, of a neuron with time and batch in one axis.
    """

    population: str
    variant: NeuronVariant
    currents: tuple[str, ...]
    s: str
    states: tuple[Source, ...]
    parameters: tuple[Source, ...]
    in_loop: bool
    steps: Source | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """All outputs the population is read from."""
        sources = (*self.states, *self.parameters, *(() if self.steps is None else (self.steps,)))
        exposed = (source.output for source in sources if isinstance(source, Exposed))
        return tuple(dict.fromkeys((*self.currents, self.s, *exposed)))

    def parameter(self, name: str) -> Source | None:
        """Return the source of a parameter, None when the operator has none of this name."""
        names = self.variant.inputs[self.variant.currents + len(self.states) :]
        if name in names:
            return self.parameters[names.index(name)]
        return _written_threshold(self.variant) if name == "v_threshold" else None


@functools.cache
def _written_threshold(variant: NeuronVariant) -> npt.NDArray[Any] | None:
    """Return the threshold that stands in the arithmetic of a neuron as a number."""
    if not variant.written or not variant.spiking:
        return None
    try:
        found = ops.meaning(variant.program, {name: np.ones(()) for name in variant.program.parameters}).v_threshold
    except ops.NotUnderstood:
        return None
    return None if found is None else np.asarray(found, np.float32)


def instrument(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[Tap, ...]]:
    """Expose every population of a model.

    Parameters
    ----------
    model : onnx.ModelProto
        Stays as it is.

    Returns
    -------
    onnx.ModelProto
        A copy whose first outputs are those of ``model``.
    tuple of Tap
        One per neuron call, in the order of the nodes.

    Raises
    ------
    UnsupportedModelError
        If a call's name and attributes contradict each other.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy, tuple(_Instrumenter(copy).taps())


def expose(model: onnx.ModelProto, names: Iterable[str]) -> tuple[onnx.ModelProto, dict[str, Exposed]]:
    """Expose values by name, of the main graph and of the bodies of its loops.

    Returns
    -------
    onnx.ModelProto
        A copy whose first outputs are those of ``model``.
    dict of Exposed
        By name; a value that is in another place is missing.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy, _Instrumenter(copy).values(set(names))


@dataclass(slots=True)
class _Scope:
    """A graph whose values calls can read, and how to expose them."""

    graph: onnx.GraphProto
    loop: onnx.NodeProto | None = None
    outer: _Scope | None = None
    constants: dict[str, onnx.TensorProto] = field(init=False)
    local: set[str] = field(init=False)
    outputs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.graph
        overridable = {info.name for info in graph.input}
        self.constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in overridable}
        self.local = overridable | {tensor.name for tensor in graph.initializer}
        for node in graph.node:
            self.local.update(node.output)
            if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
                for attribute in node.attribute:
                    if attribute.name == "value":
                        self.constants[node.output[0]] = attribute.t

    def owner(self, value: str) -> _Scope:
        """Return the innermost scope that defines a value."""
        scope = self
        while value not in scope.local and scope.outer is not None:
            scope = scope.outer
        return scope


class _Instrumenter:
    """Adds the outputs to one model, in place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.names = set(_value_names(model.graph))
        self.populations: set[str] = set()
        self.interface = {info.name for info in (*model.graph.input, *model.graph.initializer)}
        self.counter = 0

    def taps(self) -> Iterator[Tap]:
        main = _Scope(self.graph, outputs={info.name: info.name for info in self.graph.output})
        for node in list(self.graph.node):
            if ops.is_neuron(node.domain, node.op_type):
                yield self._tap(node, main)
            elif node.op_type in _LOOPS and node.domain in ("", "ai.onnx"):
                yield from self._loop(node, main)

    def values(self, names: Collection[str]) -> dict[str, Exposed]:
        main = _Scope(self.graph, outputs={info.name: info.name for info in self.graph.output})
        loops = [node for node in self.graph.node if node.op_type in _LOOPS and node.domain in ("", "ai.onnx")]
        bodies = [next(each.g for each in node.attribute if each.name == "body") for node in loops]
        scopes = [main, *(_Scope(body, node, main) for body, node in zip(bodies, loops, strict=True))]
        found: dict[str, Exposed] = {}
        for scope in scopes:
            for name in sorted((scope.local - scope.constants.keys()) & (set(names) - found.keys())):
                found[name] = Exposed(self._expose(name, scope), name, scope.loop is not None)
        return found

    def _loop(self, loop: onnx.NodeProto, main: _Scope) -> Iterator[Tap]:
        body = next(attribute.g for attribute in loop.attribute if attribute.name == "body")
        scope = _Scope(body, loop, main)
        for node in list(body.node):
            if ops.is_neuron(node.domain, node.op_type) and _variant(node).form == "cell":
                yield self._tap(node, scope)

    def _tap(self, node: onnx.NodeProto, scope: _Scope) -> Tap:
        variant = _variant(node)
        state_count = len(variant.states)
        sources = [self._source(value, scope) for value in node.input[variant.currents :]]
        steps = sources.pop() if variant.form == "flat" else None
        return Tap(
            population=self._population(node),
            variant=variant,
            currents=tuple(self._expose(value, scope) for value in node.input[: variant.currents]),
            s=self._expose(node.output[0], scope),
            states=tuple(sources[:state_count]),
            parameters=tuple(sources[state_count:]),
            in_loop=scope.loop is not None,
            steps=steps,
        )

    def _population(self, node: onnx.NodeProto) -> str:
        name: str = node.name or node.output[0]
        if name in self.populations:
            name = node.output[0]
        base, number = name, 2
        while name in self.populations:
            name, number = f"{base}#{number}", number + 1
        self.populations.add(name)
        return name

    def _source(self, value: str, scope: _Scope) -> Source:
        owner = scope.owner(value)
        tensor = owner.constants.get(value)
        if tensor is not None and tensor.data_location != onnx.TensorProto.EXTERNAL:
            return np.asarray(onnx.numpy_helper.to_array(tensor))
        return Exposed(self._expose(value, owner), value, owner.loop is not None)

    def _expose(self, value: str, scope: _Scope) -> str:
        if value not in scope.outputs:
            expose = self._expose_in_loop if scope.loop is not None else self._expose_in_main
            scope.outputs[value] = expose(value, scope)
        return scope.outputs[value]

    def _expose_in_main(self, value: str, scope: _Scope) -> str:
        if value in self.interface:  # an input or initializer is no output of a graph, a copy is
            value = self._copied(value, scope.graph)
        self.graph.output.add(name=value)
        return value

    def _expose_in_loop(self, value: str, scope: _Scope) -> str:
        assert scope.loop is not None
        scope.graph.output.add(name=self._copied(value, scope.graph))
        for attribute in scope.loop.attribute:
            if attribute.name in ("scan_output_axes", "scan_output_directions"):
                attribute.ints.append(0)
        collected = self._fresh(value)
        scope.loop.output.append(collected)
        self.graph.output.add(name=collected)
        return collected

    def _copied(self, value: str, graph: onnx.GraphProto) -> str:
        name = self._fresh(value)
        graph.node.add(op_type="Identity", input=[value], output=[name], name=f"{name}.copy")
        return name

    def _fresh(self, value: str) -> str:
        name = f"{value}.tap"
        while name in self.names:
            self.counter += 1
            name = f"{value}.tap{self.counter}"
        self.names.add(name)
        return name


def _variant(node: onnx.NodeProto) -> NeuronVariant:
    try:
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        return NeuronVariant.parse(node.op_type, attributes)
    except ValueError as error:  # also of an attribute that refers to one of a function
        raise UnsupportedModelError(f"node '{node.name or node.output[0]}': {error}") from error


def _value_names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (info.name for info in (*graph.input, *graph.output, *graph.initializer))
    for node in graph.node:
        yield from node.output
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _value_names(attribute.g)
