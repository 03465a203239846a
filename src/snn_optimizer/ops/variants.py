"""The variants of the operators: one model-local function each, told apart by name.

A call's op type is ``<operator>[Cell]__<variant>``. The name alone decides what
runs; the attributes of the call repeat it for readers and must agree with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from snn_optimizer.ops.schema import DOMAIN, OpSchema, schema

__all__ = ["NeuronVariant", "is_neuron"]

_NAME = re.compile(
    r"(?P<operator>LIF|IF|CubaLIF)(?P<cell>Cell)?__(?P<reset>subtract|to_value|none)_(?P<fire>gt|ge)"
    r"(?P<delayed>_delayed)?(?:_m(?P<limit>0|[1-9][0-9]{0,18}))?(?P<relax>_relax)?"
)
_LEAKY_INTEGRATOR_NAME = re.compile(r"LI(?P<cell>Cell)?__(?P<arithmetic>decay|relax)")


@dataclass(frozen=True, slots=True)
class NeuronVariant:
    """One neuron model down to its order of operations.

    Attributes
    ----------
    operator : {"LIF", "IF", "LI", "CubaLIF"}
    form : {"sequence", "cell"}
        All time steps, or one.
    reset : {"subtract", "to-value", "none"}
    reset_delay : {0, 1}
    fire : {"gt", "ge"}
    max_spikes : int
        At least 1, or 0 for no limit.
    arithmetic : {"decay", "relax"}
        ``IF`` knows only ``decay``.

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

    def __post_init__(self) -> None:
        attributes = {attribute.name: attribute for attribute in self.schema.attributes}
        for field in fields(self)[2:]:
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
        return schema(self.operator, self.form)

    @property
    def spiking(self) -> bool:
        """Whether the first output is spikes."""
        return self.operator != "LI"

    @property
    def op_type(self) -> str:
        """The op type of a call and the name of its function."""
        if not self.spiking:
            return f"{self.schema.name}__{self.arithmetic}"
        parts = [self.reset.replace("-", "_"), self.fire]
        if self.reset_delay:
            parts.append("delayed")
        if self.max_spikes != 1:
            parts.append(f"m{self.max_spikes}")
        if self.arithmetic != "decay":
            parts.append(self.arithmetic)
        return f"{self.schema.name}__{'_'.join(parts)}"

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
        variant = cls._from_name(op_type)
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
    def _from_name(cls, op_type: str) -> Self | None:
        match = _NAME.fullmatch(op_type) or _LEAKY_INTEGRATOR_NAME.fullmatch(op_type)
        if match is None:
            return None
        parts = match.groupdict()
        form = "cell" if parts["cell"] else "sequence"
        try:
            if "operator" in parts:
                variant = cls(
                    parts["operator"],
                    form,
                    reset=parts["reset"].replace("_", "-"),
                    reset_delay=1 if parts["delayed"] else 0,
                    fire=parts["fire"],
                    max_spikes=int(parts["limit"] or 1),
                    arithmetic="relax" if parts["relax"] else "decay",
                )
            else:
                variant = cls("LI", form, arithmetic=parts["arithmetic"])
        except ValueError:
            return None
        # One name per variant: "_m1" spells what no suffix means.
        return variant if variant.op_type == op_type else None


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.integer):
        return int(value)
    return value


def is_neuron(domain: str, op_type: str) -> bool:
    """Tell whether a call names a neuron of ``ai.snn``."""
    return domain == DOMAIN and NeuronVariant._from_name(op_type) is not None  # noqa: SLF001 - same module
