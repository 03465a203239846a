"""What an operator of ``ai.snn`` looks like: inputs, outputs, attributes, and their meaning.

A schema describes an operator in one of its two forms. Which of its functions a
call names is :class:`snn_optimizer.ops.variants.NeuronVariant`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

from snn_optimizer.ops.arithmetic import Program, is_program

__all__ = [
    "DOMAIN",
    "FORMS",
    "OPERATORS",
    "VERSION",
    "Attribute",
    "OpSchema",
    "Parameter",
    "Role",
    "schema",
]

DOMAIN = "ai.snn"
"""The operator domain of every neuron."""

VERSION = 1
"""The version of the domain; a model imports it."""

OPERATORS = ("LIF", "IF", "LI", "CubaLIF")
"""The operators, each in the two forms of :data:`FORMS`."""

FORMS = ("sequence", "cell", "flat")
"""``sequence`` runs all time steps, ``cell`` runs one, ``flat`` runs all with time and batch in one axis."""

Role = Literal["signal", "state", "parameter", "steps"]
"""Signals have a time axis in the sequence form, states do not, parameters lack the batch axis too; ``steps``
is the number of time steps in the flat form."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One input or output of an operator."""

    name: str
    role: Role
    shape: str
    doc: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute; every call writes all attributes of its operator.

    ``allowed`` lists the values; where it is ``None`` the value is an integer
    not below ``minimum``.
    """

    name: str
    kind: Literal["string", "int"]
    default: str | int
    allowed: tuple[str | int, ...] | None
    doc: str
    minimum: int = 0

    def validate(self, value: object) -> None:
        """Accept a value of this attribute.

        Raises
        ------
        ValueError
            If the value is not allowed; the message names attribute and allowed values.
        """
        kind = str if self.kind == "string" else int
        if self.allowed is None and self.kind == "string" and isinstance(value, str):
            return
        if isinstance(value, kind) and not isinstance(value, bool):
            if self.allowed is not None and value in self.allowed:
                return
            if self.allowed is None and isinstance(value, int) and self.minimum <= value < 2**63:
                return
        raise ValueError(f"{self.name} must be {self._expectation()}, not {value!r}")

    def _expectation(self) -> str:
        if self.allowed is None:
            return f"an integer of at least {self.minimum}"
        return " or ".join(repr(value) for value in self.allowed)


@dataclass(frozen=True, slots=True)
class OpSchema:
    """One operator in one form.

    Attributes
    ----------
    name : str
        The part of a call's op type before ``__``: ``LIF``, ``LIFCell``.
    operator, form : str
        Member of :data:`OPERATORS` and of :data:`FORMS`.
    since_version : int
        Version of the domain that introduced this meaning.
    inputs, outputs : tuple of Parameter
        In the order of a call; a call names all of them.
    attributes : tuple of Attribute
    types : tuple of str
        Element types. All inputs and outputs of a call have the same one.
    doc : str
        The meaning, in the order of evaluation.
    """

    name: str
    operator: str
    form: str
    since_version: int
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    attributes: tuple[Attribute, ...]
    types: tuple[str, ...]
    doc: str

    @property
    def states(self) -> tuple[tuple[int, int], ...]:
        """Input and output position of each state."""
        before = [index for index, value in enumerate(self.inputs) if value.role == "state"]
        after = [index for index, value in enumerate(self.outputs) if value.role == "state"]
        return tuple(zip(before, after, strict=True))


_TYPES = ("tensor(float)", "tensor(double)")

_PER_NEURON = "scalar, or broadcasts into [N...]"

_PARAMETERS = {
    "alpha": "decay of the synaptic current per step, dimensionless",
    "beta": "decay of the membrane per step, dimensionless; not read by the arithmetic 'relax'",
    "gain": "factor of the current, membrane units per current unit; with 'relax' the part of the way to "
    "the current that the membrane goes in one step",
    "v_threshold": "threshold, membrane units; 'subtract' takes nothing off a neuron whose threshold is "
    "infinite or NaN",
    "v_reset": "potential after a spike with 'to-value', membrane units, not read otherwise; a negative "
    "zero counts as zero",
}

_PARAMETERS_OF = {
    "LIF": ("beta", "gain", "v_threshold", "v_reset"),
    "IF": ("gain", "v_threshold", "v_reset"),
    "LI": ("beta", "gain"),
    "CubaLIF": ("alpha", "beta", "gain", "v_threshold", "v_reset"),
}

_STATES = {"i": "synaptic current, current units", "v": "membrane potential, membrane units"}

_SPIKING_ATTRIBUTES = (
    Attribute(
        "reset",
        "string",
        "subtract",
        ("subtract", "to-value", "none"),
        "what a spike does to the potential: take the threshold off per spike, set it to v_reset, or nothing",
    ),
    Attribute(
        "reset_delay",
        "int",
        0,
        (0, 1),
        "1: a spike resets at the next step, judged from the potential that step receives",
    ),
    Attribute(
        "fire",
        "string",
        "gt",
        ("gt", "ge"),
        "whether a potential must exceed the threshold to fire, or may equal it",
    ),
    Attribute("max_spikes", "int", 1, None, "most spikes of one neuron in one step; 0: no limit"),
)


_OTHER = Attribute(
    "reset",
    "string",
    "subtract",
    ("subtract", "to-value", "none", "other"),
    "what a spike does to the potential; other: what the arithmetic says",
)

_WRITTEN = Attribute("arithmetic", "string", "", None, "the statements of a step, see snn_optimizer.ops.arithmetic")

_RECORD = Attribute("record", "string", "", ("i", "v", "iv"), "states whose values after every step are outputs")


def _arithmetic(operator: str) -> Attribute:
    leak = "v" if operator == "IF" else "(beta * v)"
    doc = f"order of operations of the charge; decay: u = {leak} + (gain * j)"
    if operator == "IF":
        return Attribute("arithmetic", "string", "decay", ("decay",), doc)
    doc += "; relax: u = v + (gain * (j - v))"
    return Attribute("arithmetic", "string", "decay", ("decay", "relax"), doc)


def _doc(operator: str) -> str:
    evaluation = "Evaluated per step in this order, each operation rounded to the type of the signal.\n"
    current = "current: i' = (alpha * i) + x, j = i'\n" if operator == "CubaLIF" else "current: j = x\n"
    return evaluation + current + (_INTEGRATE_DOC if operator == "LI" else _FIRE_DOC)


_INTEGRATE_DOC = "charge: v' = u as the attribute arithmetic says; the output is v'"

_FIRE_DOC = """\
delayed reset, to-value: v = where(count(v) > 0, v_reset, v) before the charge
charge: u as the attribute arithmetic says
delayed reset, subtract: u = u - (count(v) * t) after the charge, v as received
fire: s = count(u)
reset, subtract: v' = u - (s * t); to-value: v' = where(s > 0, v_reset, u); none or delayed: v' = u
where t is v_threshold, or 0 for a neuron whose v_threshold is infinite or NaN,
and count(u) is, for max_spikes 1, 1 where u > v_threshold (ge: u >= v_threshold) and 0 elsewhere;
otherwise q = ceil(u / v_threshold) - 1 (ge: q = floor(u / v_threshold)), q where q > 0 and 0 elsewhere,
and at most max_spikes unless that is 0."""


_TRAIN = {"sequence": "[T, B, N...]", "flat": "[T * B, N...], time outside batch"}

_STEPS = Parameter("steps", "steps", "[1], int64", "number of time steps T in the first axis of the signal")


def _inputs(
    form: str, currents: tuple[str, ...], states: tuple[str, ...], parameters: tuple[str, ...]
) -> tuple[Parameter, ...]:
    whole = form != "cell"
    signals = (
        Parameter(name.upper(), "signal", _TRAIN[form], "current of every step; T is at least 1")
        if whole
        else Parameter(name, "signal", "[B, N...]", "current of this step")
        for name in currents
    )
    before = (
        Parameter(f"{state}0", "state", "broadcasts into [B, N...]", f"{_STATES[state]}, before the first step")
        if whole
        else Parameter(state, "state", "[B, N...]", f"{_STATES[state]}, before this step")
        for state in states
    )
    given = (
        Parameter(name, "parameter", _PER_NEURON, _PARAMETERS.get(name, "as the arithmetic says"))
        for name in parameters
    )
    return (*signals, *before, *given, *((_STEPS,) if form == "flat" else ()))


def _outputs(operator: str, form: str, states: tuple[str, ...], record: str) -> tuple[Parameter, ...]:
    whole = form != "cell"
    name, doc = ("v", "membrane potential") if operator == "LI" else ("s", "number of spikes")
    if whole:
        signal = Parameter(name.upper(), "signal", _TRAIN[form], f"{doc} of every step")
    else:
        signal = Parameter("y" if operator == "LI" else name, "signal", "[B, N...]", f"{doc} of this step")
    recorded = (
        Parameter(f"{state.upper()}_all", "signal", _TRAIN[form], f"{_STATES[state]}, after every step")
        for state in record
        if whole
    )
    after = "the last step" if whole else "this step"
    finals = (
        Parameter(f"{state}T" if whole else f"{state}_next", "state", "[B, N...]", f"{_STATES[state]}, after {after}")
        for state in states
    )
    return (signal, *recorded, *finals)


def _state_names(operator: str) -> tuple[str, ...]:
    return ("i", "v") if operator == "CubaLIF" else ("v",)


@functools.cache
def schema(operator: str, form: str = "sequence", arithmetic: str = "", record: str = "") -> OpSchema:
    """Return the schema of an operator.

    Parameters
    ----------
    operator : str
        Member of :data:`OPERATORS`.
    form : str
        Member of :data:`FORMS`.
    arithmetic : str
        Statements of a step (:mod:`snn_optimizer.ops.arithmetic`), where the neuron has its own.
    record : str
        States whose values after every step are outputs, as ``v`` or ``iv``.

    Raises
    ------
    ValueError
        If there is no such operator or form, or the arithmetic is no statements.
    """
    if operator not in OPERATORS:
        raise ValueError(f"operator must be {' or '.join(map(repr, OPERATORS))}, not {operator!r}")
    if form not in FORMS:
        raise ValueError(f"form must be {' or '.join(map(repr, FORMS))}, not {form!r}")
    spiking = () if operator == "LI" else _SPIKING_ATTRIBUTES
    currents: tuple[str, ...] = ("x",)
    states, parameters = _state_names(operator), _PARAMETERS_OF[operator]
    attributes = (*spiking, _arithmetic(operator))
    doc = _doc(operator)
    if is_program(arithmetic):
        program = Program.parse(arithmetic)
        currents, states, parameters = program.currents, program.states, program.parameters
        attributes = (*(_OTHER if a.name == "reset" else a for a in spiking), _WRITTEN)
        doc = f"Evaluated per step, each operation rounded to the type of the signal.\n{arithmetic}"
    if not set(record) <= set(states) or list(record) != sorted(record) or len(set(record)) != len(record):
        raise ValueError(f"record must name states of {operator} ({', '.join(states)}), not {record!r}")
    return OpSchema(
        name={"sequence": operator, "cell": f"{operator}Cell", "flat": f"{operator}Flat"}[form],
        operator=operator,
        form=form,
        since_version=1,
        inputs=_inputs(form, currents, states, parameters),
        outputs=_outputs(operator, form, states, record),
        attributes=(*attributes, *((_RECORD,) if record else ())),
        types=_TYPES,
        doc=doc,
    )
