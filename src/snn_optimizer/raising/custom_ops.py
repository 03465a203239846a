"""Which operators without a body are neurons: the known ones, and those a TOML file describes.

A file holds one table ``[[op]]`` for each operator, or several for one operator, of which the
first one counts whose ``when`` fits the node::

    [[op]]
    domain = "my.domain"
    op = "LeakyNode"
    neuron = "LIF"                              # LIF, IF, LI or CubaLIF
    form = "sequence"                           # "step": x[B, N...]; "sequence": x[T, B, N...]
    inputs = ["signal", "v", "parameter"]       # by position; states are "v" and "i"
    outputs = ["signal", "none"]                # "v" in a sequence is the state after the last step
    when = { decay_input = 1 }                  # attributes that must have this value, or one of a list
    defaults = { tau = 2.0 }                    # values of attributes that a node may leave out
    reset = { attr = "hard", values = { 0 = "subtract", 1 = "to-value" } }
    reset_delay = 0
    fire = "ge"
    max_spikes = 1
    arithmetic = "relax"

    [op.parameters]                             # all of the neuron's; gain is 1, v_reset 0 where left out
    gain = "1/attr:tau"
    v_threshold = "input:2"
    v_reset = 0.0

``inputs``   an input that is a parameter says so, and ``input:K`` reads it, K counted from 0; what is
             ``none`` must be left out by the node. A step names every state; a sequence that does not
             name one starts it at zero.
``outputs``  ``none`` cannot be given, for example the potential of every step; a node that uses it is
             left alone. ``signal`` are the spikes, of ``LI`` the potentials.
parameters   a number, ``attr:NAME`` or ``input:K``, of which one of ``1/``, ``1-1/``, ``1-`` and
             ``exp(-1/...)`` may be taken: ``1-1/attr:tau`` is the decay of a neuron with time constant
             tau in steps. What is derived from an input needs a constant there.
choices      ``reset``, ``reset_delay``, ``fire``, ``max_spikes`` and ``arithmetic`` as ``ai.snn`` has
             them: a value, ``attr:NAME``, or a table that maps values of an attribute.

ONNX stores attributes in single precision: 0.9 as 0.899999976. They are read as the shortest decimal
number that is stored the same, so that ``1-1/attr:tau`` is what the framework computed in Python.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from snn_optimizer import ops
from snn_optimizer.errors import InputError

__all__ = ["CHOICES", "DERIVATIONS", "KNOWN", "Choice", "CustomOp", "Source", "plain", "read_custom_ops"]

Scalar = str | int | float

DERIVATIONS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "": lambda value: value,
    "1/": lambda value: 1.0 / value,
    "1-1/": lambda value: 1.0 - 1.0 / value,
    "1-": lambda value: 1.0 - value,
    "exp(-1/": lambda value: np.exp(-1.0 / value),
}
"""What may be taken of an attribute or an input, in double precision."""

CHOICES: Final = ("reset", "reset_delay", "fire", "max_spikes", "arithmetic")

_FORMS: Final = {"step": "cell", "sequence": "sequence"}
_SOURCE: Final = re.compile(
    r"(?P<how>|1/|1-1/|1-|(?P<open>exp\(-1/))(?:attr:(?P<attr>[A-Za-z_][\w.]*)|input:(?P<slot>\d{1,3}))(?(open)\))"
)
_OPTIONAL_PARAMETERS: Final = {"gain": 1.0, "v_reset": 0.0}
_KEYS: Final = ("domain", "op", "neuron", "form", "inputs", "outputs", "when", "defaults", "parameters", *CHOICES)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the value of a parameter comes from: a number, an attribute or an input, and what is taken of it."""

    number: float = 0.0
    attribute: str = ""
    slot: int | None = None
    derivation: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A property of the neuron: a value, or an attribute with the meaning of each of its values."""

    value: Scalar = ""
    attribute: str = ""
    values: Mapping[str, Scalar] | None = None


@dataclass(frozen=True, slots=True)
class CustomOp:
    """One operator as a neuron; the module docstring explains the fields.

    Attributes
    ----------
    form : {"cell", "sequence"}
    inputs, outputs : tuple of str
        Role of each position.
    """

    domain: str
    op: str
    neuron: str
    form: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[str, Source]
    when: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    defaults: Mapping[str, Scalar] = field(default_factory=dict)
    choices: Mapping[str, Choice] = field(default_factory=dict)

    def attributes(self, given: Mapping[str, object]) -> dict[str, object]:
        """Return the attributes of a node, decimal and with the defaults."""
        return {**self.defaults, **{name: plain(value) for name, value in given.items()}}

    def fits(self, given: Mapping[str, object]) -> bool:
        """Tell whether a node with these attributes is meant."""
        known = self.attributes(given)
        return all(name in known and known[name] in allowed for name, allowed in self.when.items())


def plain(value: object) -> object:
    """Return an attribute as written in Python: single precision as the shortest decimal number."""
    if isinstance(value, float):
        with np.errstate(over="ignore"):
            return float(str(np.float32(value)))
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def read_custom_ops(path: Path) -> tuple[CustomOp, ...]:
    """Read the operators that a TOML file describes.

    Raises
    ------
    InputError
        In one line with the file, the entry and what is wrong with it.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"custom operators '{path}': {error.strerror or 'cannot be read'}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"custom operators '{path}': not TOML: {' '.join(str(error).split())}") from error
    entries = data.get("op")
    unknown = [key for key in data if key != "op"]
    if unknown or not isinstance(entries, list) or not entries:
        what = f"unknown key '{unknown[0]}'" if unknown else "no entries"
        raise InputError(f"custom operators '{path}': {what}; each operator is a table [[op]]")
    return tuple(_located(path, number, entry) for number, entry in enumerate(entries, 1))


def _located(path: Path, number: int, entry: object) -> CustomOp:
    named = entry if isinstance(entry, dict) else {}
    title = f"{named.get('domain', '?')}::{named.get('op', '?')}"
    try:
        return _entry(entry)
    except ValueError as error:
        raise InputError(f"custom operators '{path}': entry {number} ({title}): {error}") from error


def _entry(entry: object) -> CustomOp:
    if not isinstance(entry, dict):
        raise ValueError("must be a table")  # noqa: TRY004 -- reported as an InputError like every other mistake
    _known(entry, _KEYS)
    neuron = _text(entry, "neuron")
    form = _text(entry, "form")
    if form not in _FORMS:
        raise ValueError(f"form must be 'step' or 'sequence', not {form!r}")
    schema = ops.schema(neuron, _FORMS[form])
    states = tuple("v" if name.startswith("v") else "i" for name in (schema.inputs[k].name for k, _ in schema.states))
    inputs = _roles(entry, "inputs", (*states, "parameter"))
    outputs = _roles(entry, "outputs", states)
    if form == "step" and (absent := [s for s in states if s not in inputs or s not in outputs]):
        raise ValueError(f"a step must have state '{absent[0]}' among inputs and outputs")
    known = {attribute.name: attribute for attribute in schema.attributes}
    if useless := [key for key in CHOICES if key in entry and key not in known]:
        raise ValueError(f"{neuron} has no '{useless[0]}'")
    return CustomOp(
        domain=_text(entry, "domain"),
        op=_text(entry, "op"),
        neuron=neuron,
        form=_FORMS[form],
        inputs=inputs,
        outputs=outputs,
        parameters=_parameters(entry, schema, inputs),
        when={name: _scalars(f"when.{name}", value) for name, value in _table(entry, "when").items()},
        defaults={name: _scalar(f"defaults.{name}", value) for name, value in _table(entry, "defaults").items()},
        choices={key: _choice(known[key], entry[key]) for key in CHOICES if key in entry},
    )


def _parameters(entry: Mapping[str, object], schema: ops.OpSchema, inputs: Sequence[str]) -> dict[str, Source]:
    names = [value.name for value in schema.inputs if value.role == "parameter"]
    given = {**_OPTIONAL_PARAMETERS, **_table(entry, "parameters")}
    _known(_table(entry, "parameters"), names, "parameters.")
    unread = {"beta"} if entry.get("arithmetic") == "relax" else set()
    found = {}
    for name in names:
        if name not in given and name not in unread:
            raise ValueError(f"parameters.{name} is missing")
        source = found[name] = _source(name, given.get(name, 0.0))
        if source.slot is not None and inputs[source.slot : source.slot + 1] != ("parameter",):
            raise ValueError(f"parameters.{name}: input {source.slot} is not listed as 'parameter'")
    return found


def _source(name: str, value: object) -> Source:
    if isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value):
        return Source(number=float(value))
    match = _SOURCE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"parameters.{name} must be a number, 'attr:NAME' or 'input:K', not {value!r}")
    slot = match["slot"]
    return Source(attribute=match["attr"] or "", slot=None if slot is None else int(slot), derivation=match["how"])


def _choice(attribute: ops.Attribute, value: object) -> Choice:
    if isinstance(value, str) and value.startswith("attr:"):
        return Choice(attribute=value.removeprefix("attr:"))
    if not isinstance(value, dict):
        attribute.validate(value)
        return Choice(value=_scalar(attribute.name, value))
    _known(value, ("attr", "values"), f"{attribute.name}.")
    meanings = {key: _scalar(attribute.name, meaning) for key, meaning in _table(value, "values").items()}
    for meaning in meanings.values():
        attribute.validate(meaning)
    if not meanings:
        raise ValueError(f"{attribute.name}.values must map the values of the attribute")
    return Choice(attribute=_text(value, "attr"), values=meanings)


def _roles(entry: Mapping[str, object], key: str, others: Sequence[str]) -> tuple[str, ...]:
    allowed = ("signal", *others, "none")
    value = entry.get(key)
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key} must be a list of roles: {', '.join(allowed)}")
    if wrong := [role for role in value if role not in allowed]:
        raise ValueError(f"{key}: role {wrong[0]!r} is none of {', '.join(allowed)}")
    if repeated := [role for role in value if role not in {"parameter", "none"} and value.count(role) > 1]:
        raise ValueError(f"{key}: '{repeated[0]}' occurs more than once")
    if "signal" not in value:
        raise ValueError(f"{key}: 'signal' is missing")
    return tuple(value)


def _known(table: Mapping[str, object], keys: Sequence[str], prefix: str = "") -> None:
    if unknown := [key for key in table if key not in keys]:
        raise ValueError(f"unknown key '{prefix}{unknown[0]}'; known: {', '.join(keys)}")


def _text(table: Mapping[str, object], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is missing" if value is None else f"{key} must be a text, not {value!r}")
    return value


def _table(table: Mapping[str, object], key: str) -> dict[str, object]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"{key} must be a table, not {value!r}")  # noqa: TRY004 -- see above
    return value


def _scalars(key: str, value: object) -> tuple[Scalar, ...]:
    return tuple(_scalar(key, one) for one in value) if isinstance(value, list) else (_scalar(key, value),)


def _scalar(key: str, value: object) -> Scalar:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{key} must be a text or a number, not {value!r}")  # noqa: TRY004 -- see above
    return value


def _spikingjelly(op: str, neuron: str, arithmetic: str, **known: Any) -> CustomOp:
    """Return an operator that runs a whole sequence and also gives the potentials of every step."""
    return CustomOp(
        domain="ai.spikingjelly",
        op=op,
        neuron=neuron,
        form="sequence",
        inputs=("signal", "v"),
        outputs=("signal", "none", "none"),
        choices={"reset": Choice("to-value"), "fire": Choice("ge"), "arithmetic": Choice(arithmetic)},
        **known,
    )


_RESETS: Final = {"v_threshold": Source(attribute="v_threshold"), "v_reset": Source(attribute="v_reset")}

KNOWN: Final = (
    # u = beta * v + x - (v > threshold) * threshold, spikes where u > threshold (torch.library, after snnTorch)
    CustomOp(
        domain="snn",
        op="LIF",
        neuron="LIF",
        form="cell",
        inputs=("signal", "v"),
        outputs=("signal", "v"),
        parameters={
            "beta": Source(attribute="beta"),
            "gain": Source(number=1.0),
            "v_threshold": Source(attribute="threshold"),
            "v_reset": Source(),
        },
        when={"reset": ("subtract",)},
        choices={"reset": Choice("subtract"), "reset_delay": Choice(1), "fire": Choice("gt")},
    ),
    # h = v + (x - v) / tau; SpikingJelly lets v leak to v_reset, which only zero makes the same
    _spikingjelly(
        "LIFNode",
        "LIF",
        "relax",
        when={"decay_input": (1,), "v_reset": (0.0,)},
        parameters={"beta": Source(), "gain": Source(attribute="tau", derivation="1/"), **_RESETS},
    ),
    # without decay of the input h is v - v / tau + x
    _spikingjelly(
        "LIFNode",
        "LIF",
        "decay",
        when={"decay_input": (0,), "v_reset": (0.0,)},
        parameters={"beta": Source(attribute="tau", derivation="1-1/"), "gain": Source(number=1.0), **_RESETS},
    ),
    # the neuron without a leak: h is v + x, whatever v_reset is
    _spikingjelly("IFNode", "IF", "decay", parameters={"gain": Source(number=1.0), **_RESETS}),
)
"""The operators whose meaning is certain."""
