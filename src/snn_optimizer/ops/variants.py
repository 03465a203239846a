"""The variants of the operators: one model-local function each, told apart by name.

A call's op type is ``<operator>[Cell]__<variant>``. The name alone decides what
runs; the attributes of the call repeat it for readers and must agree with it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np

from snn_optimizer.ops.arithmetic import Program, is_program
from snn_optimizer.ops.schema import DOMAIN, OpSchema, schema

__all__ = ["NeuronVariant", "is_neuron"]

_FORM = r"(?P<form>Cell|Flat)?"
_WRITTEN = r"source_(?P<digest>[0-9a-f]{8})"
_RECORD = r"(?:_rec_(?P<record>i|v|iv))?"
_NAME = re.compile(
    rf"(?P<operator>LIF|IF|CubaLIF){_FORM}__(?P<reset>subtract|to_value|none|other)_(?P<fire>gt|ge)"
    rf"(?P<delayed>_delayed)?(?:_m(?P<limit>0|[1-9][0-9]{{0,18}}))?(?:_(?P<arithmetic>relax|{_WRITTEN}))?{_RECORD}"
)
_LEAKY_INTEGRATOR_NAME = re.compile(rf"(?P<operator>LI){_FORM}__(?P<arithmetic>decay|relax|{_WRITTEN}){_RECORD}")
_FORMS = {None: "sequence", "Cell": "cell", "Flat": "flat"}


@dataclass(frozen=True, slots=True)
class NeuronVariant:
    """One neuron model down to its order of operations.

    Attributes
    ----------
    operator : {"LIF", "IF", "LI", "CubaLIF"}
    form : {"sequence", "cell", "flat"}
        All time steps, one, or all with time and batch in one axis.
    reset : {"subtract", "to-value", "none", "other"}
        ``other`` only with statements.
    reset_delay : {0, 1}
    fire : {"gt", "ge"}
    max_spikes : int
        At least 1, or 0 for no limit.
    arithmetic : {"decay", "relax"} or str
        ``IF`` knows only ``decay``. Or the statements of a step
        (:mod:`snn_optimizer.ops.arithmetic`), which then say all; the other fields are their meaning.
    record : str
        States whose values after every step are outputs: ``""``, ``"i"``, ``"v"`` or ``"iv"``.

    Raises
    ------
    ValueError
        If a field has a value its operator does not allow. ``LI`` does not spike:
        its ``reset``, ``reset_delay``, ``fire`` and ``max_spikes`` stay at the defaults.
    """

    operator: str
    form: str = "sequence"
    reset: str = "subtract"
    reset_delay: int = 0
    fire: str = "gt"
    max_spikes: int = 1
    arithmetic: str = "decay"
    record: str = ""

    def __post_init__(self) -> None:
        attributes = {attribute.name: attribute for attribute in self.schema.attributes}
        for field in fields(self)[2:-1]:
            value = getattr(self, field.name)
            if field.name in attributes:
                attributes[field.name].validate(value)
            elif value != field.default or isinstance(value, bool):
                raise ValueError(
                    f"{field.name} must be {field.default!r} for {self.operator}, not {value!r}: "
                    f"{self.operator} has no such attribute"
                )

    @property
    def schema(self) -> OpSchema:
        """The schema of the operator in this form."""
        return schema(self.operator, self.form, self.arithmetic if self.written else "", self.record)

    @property
    def written(self) -> bool:
        """Whether the arithmetic is written out as statements."""
        return is_program(self.arithmetic)

    @property
    def program(self) -> Program:
        """The statements of a step, where the arithmetic is written out."""
        return Program.parse(self.arithmetic)

    @property
    def spiking(self) -> bool:
        """Whether the first output is spikes."""
        return self.operator != "LI"

    @property
    def op_type(self) -> str:
        """The op type of a call and the name of its function."""
        arithmetic = f"source_{self.program.digest}" if self.written else self.arithmetic
        recorded = [f"rec_{self.record}"] if self.record else []
        if not self.spiking:
            return f"{self.schema.name}__{'_'.join([arithmetic, *recorded])}"
        parts = [self.reset.replace("-", "_"), self.fire]
        if self.reset_delay:
            parts.append("delayed")
        if self.max_spikes != 1:
            parts.append(f"m{self.max_spikes}")
        if arithmetic != "decay":
            parts.append(arithmetic)
        return f"{self.schema.name}__{'_'.join([*parts, *recorded])}"

    @property
    def currents(self) -> int:
        """The number of signals among the inputs; they come first."""
        return sum(value.role == "signal" for value in self.schema.inputs)

    @property
    def axes_before_units(self) -> int:
        """The number of axes of the signal before those of the neurons: time and batch, or one for both."""
        return 2 if self.form == "sequence" else 1

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs, in order."""
        return tuple(value.name for value in self.schema.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs, in order; a call names all of them."""
        return tuple(value.name for value in self.schema.outputs)

    @property
    def states(self) -> tuple[tuple[int, int], ...]:
        """Input and output position of each state."""
        return self.schema.states

    def attributes(self) -> dict[str, str | int]:
        """Return the attributes a call must write, in the order of the schema."""
        return {attribute.name: getattr(self, attribute.name) for attribute in self.schema.attributes}

    def as_form(self, form: str) -> Self:
        """Return the same neuron in the given form."""
        return self if form == self.form else replace(self, form=form)

    @classmethod
    def parse(cls, op_type: str, attributes: Mapping[str, object]) -> Self:
        """Read the variant of a call.

        Parameters
        ----------
        op_type : str
            The op type of the call.
        attributes : mapping
            All attributes of the call; strings may be ``bytes``, as in a ``NodeProto``.

        Raises
        ------
        ValueError
            If the name is none of ours, or an attribute is missing, unknown or says
            something else than the name.
        """
        variant = cls._from_name(op_type, str(_plain(attributes.get("arithmetic", ""))))
        if variant is None:
            raise ValueError(f"'{op_type}' is not a neuron of {DOMAIN}")
        expected = variant.attributes()
        for name, value in expected.items():
            if name not in attributes:
                raise ValueError(f"{op_type}: attribute {name} is missing, the name says {value!r}")
            given = _plain(attributes[name])
            if type(given) is not type(value) or given != value:
                raise ValueError(f"{op_type}: attribute {name} is {given!r}, the name says {value!r}")
        unknown = [name for name in attributes if name not in expected]
        if unknown:
            raise ValueError(f"{op_type}: attribute {unknown[0]} is unknown, known are {', '.join(expected)}")
        return variant

    @classmethod
    def _from_name(cls, op_type: str, arithmetic: str = "") -> Self | None:
        parts = _parts(op_type)
        if parts is None:
            return None
        fields_of = {"form": _FORMS[parts["form"]], "record": parts["record"] or ""}
        if parts["digest"] is None:
            arithmetic = parts["arithmetic"] or "decay"
        elif not is_program(arithmetic):
            raise ValueError(f"{op_type}: attribute arithmetic must hold the statements of a step")
        if parts["operator"] != "LI":
            fields_of |= {"reset": parts["reset"].replace("_", "-"), "fire": parts["fire"]}
        try:
            variant = cls(
                parts["operator"],
                arithmetic=arithmetic,
                reset_delay=1 if parts.get("delayed") else 0,
                max_spikes=int(parts.get("limit") or 1),
                **fields_of,
            )
        except ValueError as error:
            if parts["digest"] is not None:
                raise ValueError(f"{op_type}: {error}") from error
            return None
        # One name per variant: "_m1" spells what no suffix means.
        if variant.op_type == op_type:
            return variant
        if parts["digest"] is not None:
            raise ValueError(f"{op_type}: attribute arithmetic belongs to {variant.op_type}")
        return None


@functools.cache
def _parts(op_type: str) -> dict[str, Any] | None:
    match = _NAME.fullmatch(op_type) or _LEAKY_INTEGRATOR_NAME.fullmatch(op_type)
    return None if match is None else match.groupdict()


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.integer):
        return int(value)
    return value


@functools.cache
def is_neuron(domain: str, op_type: str) -> bool:
    """Tell whether a call names a neuron of ``ai.snn``."""
    if domain != DOMAIN:
        return False
    parts = _parts(op_type)
    if parts is None:
        return False
    return parts["digest"] is not None or NeuronVariant._from_name(op_type, "") is not None  # noqa: SLF001 - same module
