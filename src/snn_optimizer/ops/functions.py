"""The model-local functions: each variant as standard ONNX, so that stock runtimes run it.

A body is written as ONNX text and parsed. The sequence form is a ``Scan`` over axis
0 whose body runs once per step, so whatever does not depend on the step stays
outside it: the spread of the initial state, the current times its gain, the comparison
of a neuron that never resets, the cast of spikes that nothing inside multiplies. A
delayed reset travels to the next step as one more loop state, computed from the
spikes at hand, instead of counting the received potential again.

Measured on onnxruntime 1.32: a ``Where`` on a full tensor costs five times a ``Mul``, so a
``subtract`` reset is a product. A body may not list one value as two outputs; ``Identity``
makes the copy. Runtimes fold what depends on constant parameters only, in loop bodies too.
Neither onnxruntime nor onnx.reference runs a loop of no steps: T is at least 1. Half
precision runs, exactly in onnx.reference; onnxruntime's CPU kernels keep intermediate
results of it in float32, so that the last bits differ and with them a rare spike.
"""

from __future__ import annotations

import functools

import onnx
import onnx.parser

from snn_optimizer.ops.schema import DOMAIN
from snn_optimizer.ops.variants import NeuronVariant
from snn_optimizer.ops.written import folded, written_body

__all__ = ["MAXIMUM_OPSET", "MINIMUM_OPSET", "function_proto"]

MINIMUM_OPSET = 16
"""The first opset whose comparisons, ``Where`` and ``Scan`` the functions use."""

MAXIMUM_OPSET = 28
"""The last opset the functions are tested with."""


def function_proto(variant: NeuronVariant, opset: int = 18) -> onnx.FunctionProto:
    """Return the function that a call of the variant runs.

    Parameters
    ----------
    variant : NeuronVariant
    opset : int
        Version of the standard domain that the function imports: that of the model.

    Returns
    -------
    onnx.FunctionProto
        A new object; equal arguments give equal bytes.

    Raises
    ------
    ValueError
        If the opset is below :data:`MINIMUM_OPSET` or above :data:`MAXIMUM_OPSET`.
    """
    if not MINIMUM_OPSET <= opset <= MAXIMUM_OPSET:
        raise ValueError(f"opset must be {MINIMUM_OPSET} to {MAXIMUM_OPSET}, not {opset}")
    return onnx.FunctionProto.FromString(_serialized(variant, opset))


@functools.cache
def _serialized(variant: NeuronVariant, opset: int) -> bytes:
    if variant.written:
        lines = written_body(variant)
    else:
        lines = _cell_body(variant) if variant.form == "cell" else _sequence_body(variant)
    if variant.form == "flat":
        lines = folded(variant, lines)
    text = "\n".join(
        [
            f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>',
            f"{variant.op_type} ({', '.join(variant.inputs)}) => ({', '.join(variant.outputs)}) {{",
            *lines,
            "}",
        ]
    )
    proto: bytes = onnx.parser.parse_function(text).SerializeToString(deterministic=True)
    return proto


# A body is a list of lines "result = Op(operands)". Lines of different functions below meet by name:
# zero, one, most      constants in the type of the signal
# drop, rest           what a subtract reset takes off per spike, what a to-value reset sets
# x, drive             current of a step, and the same times gain
# u                    charged potential of a neuron that may be reset in the same step
# loss, base           effect of a delayed reset: what to subtract, or the potential to charge from


def _cell_body(variant: NeuronVariant) -> list[str]:
    lines = _constants(variant, like="x")
    if due := _due_name(variant):
        lines += _count(variant, "v", "due", cast=variant.reset == "subtract")
        lines += _due(variant, "v", "due", due)
    lines += _advance(variant, hoisted=False)
    if not variant.spiking:
        return [*lines, "y = Identity(v_next)"]
    return [*lines, *_count(variant, _charged_name(variant), "s", cast=True), *_reset(variant)]


def _sequence_body(variant: NeuronVariant) -> list[str]:
    hoisted = variant.arithmetic == "decay" and variant.operator != "CubaLIF"
    states = ["i", "v"] if variant.operator == "CubaLIF" else ["v"]
    # Where spreads the states, not Expand: shape inference follows it, and loops need known ranks.
    lines = [
        *_constants(variant, like="X"),
        "never = Constant<value = bool {0}>()",
        "first = Constant<value = int64 {0}>()",
        "template = Gather(X, first)",
        *(f"{state}_start = Where(never, template, {state}0)" for state in states),
    ]
    if hoisted:
        lines.append("driven = Mul(gain, X)")
    results = [f"{state}T" for state in states]
    if due := _due_name(variant):
        lines += _count(variant, "v_start", "due", cast=variant.reset == "subtract")
        lines += _due(variant, "v_start", "due", f"{due}_start")
        states.append(due)
        results.append(f"{due}T")

    body = _advance(variant, hoisted=hoisted)
    if variant.reset == "none" or not variant.spiking:
        emitted, collected = "copy", "U" if variant.spiking else "V"
        body.append("copy = Identity(v_next)")
        after = _count(variant, "U", "S", cast=True) if variant.spiking else []
    else:
        body += _count(variant, _charged_name(variant), "s", cast=variant.reset == "subtract")
        body += _due(variant, "v_next", "s", f"{due}_next") if due else _reset(variant)
        counted = variant.reset == "subtract" or variant.max_spikes != 1
        emitted, collected = ("s", "S") if counted else ("s_fired", "fired")
        after = [] if counted else ["S = CastLike(fired, X)"]

    kept = [f"{state}_kept" for state in variant.record]
    body += [f"{state}_kept = Identity({state}_next)" for state in variant.record]
    received = ", ".join([*states, "drive" if hoisted else "x"])
    returned = ", ".join([*(f"{state}_next" for state in states), emitted, *kept])
    arguments = ", ".join([*(f"{state}_start" for state in states), "driven" if hoisted else "X"])
    scanned = ", ".join([*results, collected, *(f"{state.upper()}_all" for state in variant.record)])
    return [
        *lines,
        f"{scanned} = Scan<num_scan_inputs = 1, body = step ({received}) => ({returned}) {{",
        *body,
        f"}}>({arguments})",
        *after,
    ]


def _constants(variant: NeuronVariant, like: str) -> list[str]:
    """Lines that depend on no signal and no state; runtimes fold them where parameters are constant."""
    if not variant.spiking:
        return []
    several = variant.max_spikes != 1
    values: list[tuple[str, str]] = []
    if several or variant.reset != "none":
        values.append(("zero", "float {0.0}"))
    if several and variant.fire == "gt":
        values.append(("one", "float {1.0}"))
    if variant.max_spikes > 1:
        values.append(("most", f"int64 {{{variant.max_spikes}}}"))
    lines = []
    for name, value in values:
        lines += [
            f"{name}_literal = Constant<value = {value}>()",
            f"{name} = CastLike({name}_literal, {like})",
        ]
    if variant.reset == "subtract":
        # Zero times infinity is NaN: such a threshold would spoil the potential of a silent neuron.
        lines += [
            "nought = Mul(v_threshold, zero)",
            "unbounded = IsNaN(nought)",
            "drop = Where(unbounded, zero, v_threshold)",
        ]
    if variant.reset == "to-value":
        # onnxruntime's Where turns a selected -0.0 of its second operand into +0.0; all shall do so.
        lines.append("rest = Add(v_reset, zero)")
    return lines


def _due_name(variant: NeuronVariant) -> str | None:
    if not variant.spiking or not variant.reset_delay or variant.reset == "none":
        return None
    return "base" if variant.reset == "to-value" else "loss"


def _charged_name(variant: NeuronVariant) -> str:
    resets_now = variant.spiking and variant.reset != "none" and not variant.reset_delay
    return "u" if resets_now else "v_next"


def _due(variant: NeuronVariant, potential: str, spikes: str, result: str) -> list[str]:
    """Lines from the potential a step receives and its spikes to what the step must undo."""
    if variant.reset == "to-value":
        return [f"{result} = Where({spikes}_fired, rest, {potential})"]
    return [f"{result} = Mul({spikes}, drop)"]


def _advance(variant: NeuronVariant, *, hoisted: bool) -> list[str]:
    """Lines from current, states and due reset to the charged potential."""
    lines = []
    current = "x"
    if variant.operator == "CubaLIF":
        lines += ["decayed = Mul(alpha, i)", "i_next = Add(decayed, x)"]
        current = "i_next"
    due = _due_name(variant)
    source = "base" if due == "base" else "v"
    result = "charged" if due == "loss" else _charged_name(variant)
    if variant.arithmetic == "relax":
        lines += [
            f"distance = Sub({current}, {source})",
            "approach = Mul(gain, distance)",
            f"{result} = Add({source}, approach)",
        ]
    else:
        if not hoisted:
            lines.append(f"drive = Mul(gain, {current})")
        if variant.operator == "IF":
            lines.append(f"{result} = Add({source}, drive)")
        else:
            lines += [f"leak = Mul(beta, {source})", f"{result} = Add(leak, drive)"]
    if due == "loss":
        lines.append("v_next = Sub(charged, loss)")
    return lines


def _count(variant: NeuronVariant, potential: str, spikes: str, *, cast: bool) -> list[str]:
    """Lines from a potential to whether (``<spikes>_fired``) and how often (``<spikes>``) it fires."""
    fired = f"{spikes}_fired"
    if variant.max_spikes == 1:
        lines = [f"{fired} = Greater({potential}, v_threshold)"]
        if variant.fire == "ge":
            # Not GreaterOrEqual: before 1.24 onnxruntime loses its shape in a loop body and refuses to run.
            lines = [f"{spikes}_larger = Max({potential}, v_threshold)"]
            lines.append(f"{fired} = Equal({spikes}_larger, {potential})")
        return [*lines, f"{spikes} = CastLike({fired}, {potential})"] if cast else lines
    level = f"{spikes}_level"
    lines = [f"{spikes}_ratio = Div({potential}, v_threshold)"]
    if variant.fire == "gt":
        lines += [f"{spikes}_ceiling = Ceil({spikes}_ratio)", f"{level} = Sub({spikes}_ceiling, one)"]
    else:
        lines.append(f"{level} = Floor({spikes}_ratio)")
    lines.append(f"{fired} = Greater({level}, zero)")
    limited = variant.max_spikes != 0
    lines.append(f"{spikes}{'_unlimited' if limited else ''} = Where({fired}, {level}, zero)")
    if limited:
        lines.append(f"{spikes} = Min({spikes}_unlimited, most)")
    return lines


def _reset(variant: NeuronVariant) -> list[str]:
    """Lines of a reset in the step of its spike; none where the reset is delayed or there is none."""
    if _charged_name(variant) != "u":
        return []
    if variant.reset == "to-value":
        return ["v_next = Where(s_fired, rest, u)"]
    return ["loss = Mul(s, drop)", "v_next = Sub(u, loss)"]
