"""From the arithmetic around a state to a neuron of ``ai.snn``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from snn_optimizer import ops
from snn_optimizer.ir import GraphIndex, Module, Node, Rewriter, Shapes, Value
from snn_optimizer.ops import Meaning, NeuronVariant, NotUnderstood, meaning
from snn_optimizer.raising.naming import origin_class, population_name
from snn_optimizer.raising.regions import TESTS, Region, apart, regions_of
from snn_optimizer.raising.step_graph import StepGraph
from snn_optimizer.raising.transcribe import Transcript, Untranscribed, transcribe

__all__ = ["Recognized", "Unrecognized", "recognize"]

_LARGEST = 64  # nodes of a region


@dataclass(frozen=True, slots=True)
class Recognized:
    """A neuron that replaced the nodes of a region; ``origin`` is the framework's class, where the file says."""

    node: Node
    variant: NeuronVariant
    meaning: Meaning
    origin: str | None


@dataclass(frozen=True, slots=True)
class Unrecognized:
    """A region that stays as it is: around which state, and why."""

    state: str
    rule: str
    reason: str


def recognize(
    rewriter: Rewriter,
    step: StepGraph,
    index: GraphIndex,
    shapes: Shapes,
    admits: Callable[[str], bool] = lambda _: True,
) -> tuple[list[Recognized], list[Unrecognized]]:
    """Replace the regions of a step that are neurons by calls of their one-step form.

    ``admits`` is asked with the name of a neuron's state before it is replaced.
    """
    found: list[Recognized] = []
    left: list[Unrecognized] = []
    states = {id(state.after) for state in step.states}
    pending = regions_of(step, index)[::-1]
    replaced: set[int] = set()
    while pending:
        region = pending.pop()
        try:
            if not replaced.isdisjoint(region.nodes):
                raise Untranscribed("inside-read", "it starts inside a neuron that was recognized before")
            found.append(_replace(rewriter, step, index, shapes, region, states, admits))
            replaced.update(region.nodes)
        except (Untranscribed, NotUnderstood) as refusal:
            pieces = apart(step, index, region)
            pending += reversed(pieces)
            if not pieces:
                rule = refusal.rule if isinstance(refusal, Untranscribed) else "not-a-neuron"
                left.append(Unrecognized(region.states[-1].before.name, rule, str(refusal)))
    return found, left


def _replace(
    rewriter: Rewriter,
    step: StepGraph,
    index: GraphIndex,
    shapes: Shapes,
    region: Region,
    states: set[int],
    admits: Callable[[str], bool],
) -> Recognized:
    if len(region.nodes) > _LARGEST:
        raise Untranscribed("too-large", f"{len(region.nodes)} nodes around one state")
    _check_convex(region, index)
    twin = _readout(region, index)
    spikes = None if twin is not None else _spikes(region, index, states)
    if spikes is not None and spikes.inputs and spikes.inputs[0].op in TESTS:
        raise Untranscribed("inside-read", f"the test '{spikes.name}' itself is read outside, not its spikes")
    if spikes is not None and any(state.after is spikes for state in region.states):
        raise Untranscribed("state-is-output", f"'{spikes.name}' is both what it emits and its next state")
    rank = shapes.rank(region.states[-1].before)
    if rank is None:
        rank = shapes.rank(region.states[-1].after)
    if rank is None:
        raise Untranscribed("rank-unknown", "the rank of the state is not known")
    transcript = transcribe(region, spikes, max(rank - 1, 0))
    sense = meaning(transcript.program, transcript.parameters)
    variant = NeuronVariant(sense.operator, "cell", arithmetic=transcript.program.text)
    if variant.spiking:
        variant = replace(
            variant, reset=sense.reset, reset_delay=sense.reset_delay, fire=sense.fire, max_spikes=sense.max_spikes
        )
    if not admits(f"state '{region.states[-1].before.name}'"):
        raise Untranscribed("bisect-limit", "it comes after the rewrites that --bisect-limit admits")
    origin = origin_class(rewriter.module, region.nodes.values())
    node = _call(rewriter, step, region, transcript, variant, twin if variant.operator == "LI" else None)
    return Recognized(node, variant, sense, origin)


def _check_convex(region: Region, index: GraphIndex) -> None:
    """Make sure that no current of the neuron depends on what the neuron gives in the same step."""
    pending = [value for node in region.nodes.values() for value in node.outputs]
    seen: set[int] = set()
    while pending:
        for use in index.consumers(pending.pop()):
            if id(use.node) in seen or id(use.node) in region.nodes:
                continue
            seen.add(id(use.node))
            if any(id(after.node) in region.nodes for value in use.node.outputs for after in index.consumers(value)):
                raise Untranscribed(
                    "needs-itself", f"a current depends on the neuron's own output by '{use.node.name}'"
                )
            pending.extend(use.node.outputs)


def _readout(region: Region, index: GraphIndex) -> Value | None:
    """Return the value that others read of a readout whose state is a copy of it."""
    tests = any(node.op in TESTS for node in region.nodes.values())
    for state in region.states:
        maker = state.after.inputs[0] if state.after.inputs else None
        if not tests and maker is not None and maker.op == "Identity" and index.output_of(maker.inputs[0]):
            _read_outside(region, index, {id(maker.inputs[0])})
            return maker.inputs[0]
    return None


def _read_outside(region: Region, index: GraphIndex, known: set[int]) -> Value | None:
    """Return the value of a region that others read, None when there is none; states and those known do not count."""
    own = known | {id(state.after) for state in region.states}
    used: dict[int, Value] = {}
    for node in region.nodes.values():
        for value in node.outputs:
            outside = any(id(use.node) not in region.nodes for use in index.consumers(value))
            if id(value) not in own and (outside or index.output_of(value)):
                used[id(value)] = value
    if len(used) > (0 if known else 1):
        names = ", ".join(f"'{value.name}'" for value in used.values())
        raise Untranscribed("inside-read", f"values inside the neuron are read outside: {names}")
    return next(iter(used.values()), None)


def _spikes(region: Region, index: GraphIndex, states: set[int]) -> Value | None:
    """Return which value of a region is its output: the one that others read, or the last test."""
    if (used := _read_outside(region, index, set())) is not None:
        return used
    own = {id(state.after) for state in region.states}
    tests = [node for node in region.nodes.values() if node.op == "Cast" and _turns_test(region, node)]
    needed = [node for node in tests if any(_reads(region, state.after, node) for state in region.states)]
    return needed[-1].outputs[0] if needed and not states.isdisjoint(own) else None


def _turns_test(region: Region, node: Node) -> bool:
    return region.makes(node.inputs[0]) and node.inputs[0].inputs[0].op in TESTS


def _reads(region: Region, value: Value, wanted: Node) -> bool:
    """Tell whether a value of a region is computed from a node of it."""
    pending, seen = [value], set()
    while pending:
        current = pending.pop()
        if region.makes(current) and id(current.inputs[0]) not in seen:
            node = current.inputs[0]
            if node is wanted:
                return True
            seen.add(id(node))
            pending.extend(node.inputs)
    return False


def _call(
    rewriter: Rewriter,
    step: StepGraph,
    region: Region,
    transcript: Transcript,
    variant: NeuronVariant,
    readout: Value | None,
) -> Node:
    module = rewriter.module
    by_name = {
        name: (state.before, state.after) for name, state in zip(_state_names(variant), transcript.states, strict=True)
    }
    inputs: list[Value] = []
    for declared in variant.schema.inputs:
        if declared.role == "signal":
            inputs.append(transcript.currents[len(inputs)])
        elif declared.role == "state":
            inputs.append(by_name[declared.name][0])
        else:
            inputs.append(rewriter.constant(declared.name, transcript.parameters[declared.name]))
    afters = [by_name[name][1] for name in _state_names(variant)]
    last = region.states[-1].after
    nodes = list(region.nodes.values())
    found = population_name(module, nodes)
    rewriter.erase(nodes)
    spikes = transcript.spikes or readout
    if spikes is None:
        spikes = rewriter.value(f"{last.name}_out", last.dtype, last.shape)
    name = found or (spikes.name or last.name).replace("/", "_").strip("_")
    attributes = variant.attributes()
    node = rewriter.add(step.graph, variant.op_type, inputs, [spikes, *afters], attributes, ops.DOMAIN, name)
    module.add_function(ops.function_proto(variant, _opset(module)))
    return node


def _opset(module: Module) -> int:
    return min(max(module.opset(), ops.MINIMUM_OPSET), ops.MAXIMUM_OPSET)


def _state_names(variant: NeuronVariant) -> list[str]:
    return [variant.inputs[before] for before, _ in variant.states]
