"""Turn neurons that are custom operators without a body into calls of ``ai.snn``.

Before: ``s, u1 = snn.LIF <beta, threshold, reset> (x, u0)``, which no runtime knows
After:  ``s, u1 = ai.snn.LIFCell__subtract_gt_delayed(x, u0, beta, gain, v_threshold, v_reset)``

An operator without a body means what whoever made it says. :mod:`snn_optimizer.raising.custom_ops` holds
the ones we know, compared with the frameworks' own outputs, and reads the ones a user describes; the
user's description of an operator replaces ours. Nothing is guessed: what nobody described, or described
with other attributes, stays and is named in a remark.

The parameters become initializers of the type of the signal. Where the source divides by a time constant,
``ai.snn`` multiplies: the same bits if it is a power of two, else the claim is equality up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from snn_optimizer import ops
from snn_optimizer.analyses import StaticShapes
from snn_optimizer.ir import (
    Graph,
    GraphIndex,
    Module,
    Node,
    Rewriter,
    SNNGraph,
    Value,
    array_of,
    bodies_of,
    describe,
    is_missing,
)
from snn_optimizer.passes.base import BEYOND_LIMIT, Exactness, Outcome, Pass, PassContext, Refusal
from snn_optimizer.passes.cleanup.shared import Tally
from snn_optimizer.passes.cleanup.value_types import ValueTypes
from snn_optimizer.raising.custom_ops import CHOICES, DERIVATIONS, KNOWN, Choice, CustomOp, Source, read_custom_ops

__all__ = ["MapCustomOps"]

_RUNTIME_DOMAINS: Final = ("ai.onnx", "com.microsoft", "com.ms.", "org.pytorch.aten")
_SENTENCES: Final = {"known-neuron": "is now a neuron of ai.snn"}
_TYPES: Final = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True, slots=True)
class MapCustomOps(Pass):
    """Turn custom operators that are known neurons into neurons of ``ai.snn``.

    Works in the main graph and in bodies; functions are left alone. Idempotent:
    what it makes has a body.

    Attributes
    ----------
    file : str
        A TOML file that describes more operators; none when empty.
    """

    name: ClassVar[str] = "map-custom-ops"
    exactness: ClassVar[Exactness] = Exactness.ALGEBRAIC

    file: str = ""

    def __post_init__(self) -> None:
        self.described()

    def described(self) -> tuple[CustomOp, ...]:
        """Return the operators of the file.

        Raises
        ------
        InputError
            With the file, the entry and what is wrong with it.
        """
        return read_custom_ops(Path(self.file)) if self.file else ()

    def run(self, graph: SNNGraph, context: PassContext) -> Outcome:
        """Visit every node in the order of computation, so that types are known where they are needed."""
        table: dict[tuple[str, str], list[CustomOp]] = {}
        given = context.frontend.custom_ops
        more = read_custom_ops(Path(given)) if given else ()
        for described in (self.described(), more, KNOWN):
            taken = set(table)
            for entry in described:
                if (entry.domain, entry.op) not in taken:
                    table.setdefault((entry.domain, entry.op), []).append(entry)
        tally = Tally(context)
        mapper = _Mapper(graph.module, context, table, tally)
        mapper.run()
        tally.report(context, _SENTENCES)
        claim = Exactness.BITWISE if mapper.exact else Exactness.ALGEBRAIC
        return Outcome(changes=tally.changes, details=tally.counts(), claim=claim)


class _Mapper:
    """One run over one module."""

    def __init__(
        self,
        module: Module,
        context: PassContext,
        table: Mapping[tuple[str, str], Sequence[CustomOp]],
        tally: Tally,
    ) -> None:
        self.module = module
        self.context = context
        self.table = table
        self.tally = tally
        self.index = GraphIndex(module)
        self.rewriter = Rewriter(module)
        self.types = ValueTypes()
        self.constants: dict[tuple[object, ...], Value] = {}
        self.exact = True
        self.unknown: dict[str, list[str]] = {}

    def run(self) -> None:
        """Visit all nodes."""
        self.graph(self.module.graph)
        self.rewriter.finish()
        for title, places in self.unknown.items():
            refusal = Refusal("not-described", f"{title} has no body, and nobody described it")
            self.context.missed(refusal, places[0], op=title, number=len(places))

    def graph(self, graph: Graph) -> None:
        """Visit a graph and the bodies in it."""
        for node in list(graph.nodes):
            for _, body in bodies_of(node):
                self.types.enter(node, body)
                self.graph(body)
                self.types.leave(node, body)
            if self.is_opaque(node):
                refusal = self.node(node)
                if refusal is not None:
                    self.tally.missed(refusal, describe(node))
            self.types.learn(node)

    def is_opaque(self, node: Node) -> bool:
        """Tell whether no runtime can know what a node does."""
        domain = node.domain or ""
        if domain in {"", ops.DOMAIN} or domain.startswith(_RUNTIME_DOMAINS):
            return False
        return self.module.function_of(node) is None

    def node(self, node: Node) -> Refusal | None:
        """Turn one custom operator into a neuron."""
        title = f"{node.domain}::{node.op}"
        entries = self.table.get((node.domain or "", node.op))
        if entries is None:
            self.unknown.setdefault(title, []).append(describe(node))
            return None
        entry = next((one for one in entries if one.fits(node.attrs)), None)
        if entry is None:
            needed = dict.fromkeys(name for one in entries for name in one.when)
            shown = ", ".join(f"{name} {node.attrs.get(name, 'left out')}" for name in needed)
            return Refusal("other-attributes", f"{title} is not described for {shown}")
        opset = self.module.opset()
        if not ops.MINIMUM_OPSET <= opset <= ops.MAXIMUM_OPSET:
            return Refusal(
                "opset", f"the model has opset {opset}, neurons need {ops.MINIMUM_OPSET} to {ops.MAXIMUM_OPSET}"
            )
        variant = _variant(entry, node)
        if isinstance(variant, Refusal):
            return variant
        return self.ports_refusal(entry, node) or self.replace(entry, variant, node)

    def ports_refusal(self, entry: CustomOp, node: Node) -> Refusal | None:
        """Return why inputs and outputs of a node are not those of its description."""
        inputs = _trimmed(node.inputs)
        if len(inputs) > len(entry.inputs) or len(node.outputs) > len(entry.outputs):
            counts = f"{len(inputs)} inputs and {len(node.outputs)} outputs"
            return Refusal("other-ports", f"has {counts}, not {len(entry.inputs)} and {len(entry.outputs)}")
        for slot, role in enumerate(entry.inputs):
            given = slot < len(inputs) and not is_missing(inputs[slot])
            if role == "none" and given:
                return Refusal("input-not-described", f"reads '{inputs[slot].name}', of which nobody said what it does")
            if not given and (role in {"signal", "parameter"} or (role != "none" and entry.form == "cell")):
                return Refusal("input-missing", f"input {slot}, the {role}, is left out")
        for value, role in zip(node.outputs, entry.outputs, strict=False):
            if role == "none" and not is_missing(value) and (value.outputs or self.index.output_of(value)):
                return Refusal("output-not-available", f"'{value.name}' is used, and no neuron of ai.snn gives it")
        return None

    def replace(self, entry: CustomOp, variant: ops.NeuronVariant, node: Node) -> Refusal | None:
        """Give a node the operator, inputs and outputs of a neuron."""
        given = dict(zip(entry.inputs, node.inputs, strict=False))
        signal = given["signal"]
        dtype = next((t for t in map(self.types.of, (signal, *_states(given))) if t is not None), None)
        if dtype is None or dtype not in _TYPES:
            return Refusal("type", f"'{signal.name}' is {dtype or 'of unknown type'}, not float32 or float64")
        operands: dict[str, Value | np.ndarray[Any, Any]] = {}
        for parameter in variant.schema.inputs[1:]:
            if parameter.role == "state":
                state = given.get(parameter.name[0])
                operands[parameter.name] = np.zeros(()) if state is None or is_missing(state) else state
                continue
            operand = self.operand(entry, entry.parameters[parameter.name], node, signal)
            if isinstance(operand, Refusal):
                return operand
            operands[parameter.name] = operand
        if not self.tally.admits("known-neuron", describe(node)):
            return BEYOND_LIMIT
        inputs = [signal]
        for name, operand in operands.items():
            inputs.append(self.constant(name, operand, dtype) if isinstance(operand, np.ndarray) else operand)
        made = dict(zip(entry.outputs, node.outputs, strict=False))
        outputs = []
        for parameter in variant.schema.outputs:
            output = made.get("signal" if parameter.role == "signal" else parameter.name[0])
            fresh = output is None or is_missing(output)
            outputs.append(self.rewriter.value(f"{signal.name}.{parameter.name}", dtype, None) if fresh else output)
        place = describe(node)
        self.exact = self.exact and _is_exact(entry, node)
        self.module.add_function(ops.function_proto(variant, self.module.opset()))
        self.rewriter.retarget(node, (ops.DOMAIN, variant.op_type), inputs, variant.attributes())
        self.rewriter.set_ports(node, inputs, [output for output in outputs if output is not None])
        self.tally.applied("known-neuron", place)
        return None

    def operand(
        self, entry: CustomOp, source: Source, node: Node, signal: Value
    ) -> Value | np.ndarray[Any, Any] | Refusal:
        """Return the value of a parameter: an array where it is known, else what the node reads."""
        raw: Any = source.number
        if source.slot is not None:
            value = node.inputs[source.slot]
            known = array_of(value)
            if known is None and source.derivation:
                return Refusal("not-constant", f"'{value.name}' is computed at run time")
            shapes = self.context.analyses.get(StaticShapes).shapes
            rank, whole = shapes.rank(value), shapes.rank(signal)
            free = None if whole is None else whole - (2 if entry.form == "sequence" else 1)
            if rank is None or (rank > 0 and (free is None or rank > free)):
                return Refusal("parameter-shape", f"'{value.name}' may be more than one value per neuron")
            if known is None or not source.derivation:
                return value
            raw = known.astype(np.float64)
        elif source.attribute:
            raw = entry.attributes(node.attrs).get(source.attribute)
            if isinstance(raw, bool) or not isinstance(raw, int | float):
                return Refusal("attribute", f"attribute {source.attribute} is {raw!r}, not a number")
        with np.errstate(all="ignore"):
            array = np.asarray(DERIVATIONS[source.derivation](np.asarray(raw, dtype=np.float64)))
        if source.derivation and not np.isfinite(array).all():
            return Refusal("not-finite", f"{source.derivation} of {raw!r} is not finite")
        return array

    def constant(self, name: str, array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> Value:
        """Return an initializer; neurons that are alike share it."""
        held = array.astype(dtype)
        key = (name, dtype.str, held.shape, held.tobytes())
        if key not in self.constants:
            self.constants[key] = self.rewriter.constant(f"ai.snn.{name}", held)
        return self.constants[key]


def _variant(entry: CustomOp, node: Node) -> ops.NeuronVariant | Refusal:
    attributes = entry.attributes(node.attrs)
    chosen: dict[str, Any] = {}
    for key in CHOICES:
        if key in entry.choices:
            value = _chosen(entry.choices[key], attributes)
            if value is None:
                name = entry.choices[key].attribute
                return Refusal("attribute", f"attribute {name} is {attributes.get(name)!r}, which says no {key}")
            chosen[key] = value
    try:
        return ops.NeuronVariant(entry.neuron, entry.form, **chosen)
    except ValueError as error:
        return Refusal("attribute", str(error))


def _chosen(choice: Choice, attributes: Mapping[str, object]) -> object:
    if not choice.attribute:
        return choice.value
    value = attributes.get(choice.attribute)
    return value if choice.values is None else choice.values.get(str(value))


def _is_exact(entry: CustomOp, node: Node) -> bool:
    """Tell whether no parameter stands for a division that rounds otherwise."""
    attributes = entry.attributes(node.attrs)
    for source in entry.parameters.values():
        if source.derivation in {"1/", "1-1/"}:
            if source.slot is not None:
                return False
            if abs(np.frexp(float(str(attributes[source.attribute])))[0]) != 0.5:
                return False
    return True


def _states(given: Mapping[str, Value]) -> list[Value]:
    return [value for role, value in given.items() if role in {"v", "i"} and not is_missing(value)]


def _trimmed(values: Sequence[Value]) -> list[Value]:
    kept = list(values)
    while kept and is_missing(kept[-1]):
        kept.pop()
    return kept
