"""What pipeline text says, as values; ``str`` of each is its canonical text.

A value that exists can be written: whatever text cannot express is refused on construction.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

__all__ = [
    "INTEGER_LIMIT",
    "KEY",
    "NAME",
    "UNITS",
    "WORD",
    "Element",
    "GroupSpec",
    "Options",
    "PassSpec",
    "Pipeline",
    "PresetSpec",
    "Scalar",
    "Size",
    "Value",
    "quoted",
]

UNITS: Final = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10}
INTEGER_LIMIT: Final = 2**63

NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")

# Words that are values of another type; as text they need quotes.
_KEYWORDS: Final = frozenset({"true", "false", "inf"})
_ESCAPED: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Size(int):
    """A number of bytes that prints as it is written: ``Size(4096)`` is ``4KiB``."""

    __slots__ = ()

    def __new__(cls, value: int) -> Self:
        """Accept whole KiB only; other numbers of bytes are written as plain integers."""
        if not 0 <= value < INTEGER_LIMIT or value % 1024:
            raise ValueError(f"{int(value)} bytes are not a whole number of KiB below 2**63")
        return super().__new__(cls, value)

    def __str__(self) -> str:
        for unit, factor in UNITS.items():
            if self and not self % factor:
                return f"{self // factor}{unit}"
        return "0KiB"

    def __repr__(self) -> str:
        return f"Size({int(self)})"


Scalar: TypeAlias = bool | int | float | str
Value: TypeAlias = Scalar | tuple[Scalar, ...]
Options: TypeAlias = tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class PassSpec:
    """A pass by name, or by one of its aliases, with the options that were written.

    Attributes
    ----------
    name : str
    options : tuple of (str, value)
        In the order written, keys in kebab-case. A value is ``bool``, ``int``, ``Size``, ``float``,
        ``str`` or a tuple of at least two of these.

    Raises
    ------
    ValueError
        If this cannot be written as pipeline text.
    """

    name: str
    options: Options = ()

    def __post_init__(self) -> None:
        _check_name(self.name)
        object.__setattr__(self, "options", _normal_options(self.options))

    def __str__(self) -> str:
        return self.name + _options_text(self.options)


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """A group such as ``fixpoint{max=8}(...)``; its body has at least one element.

    Attributes
    ----------
    name : str
    options : tuple of (str, value)
        As of ``PassSpec``.
    body : tuple of elements

    Raises
    ------
    ValueError
        If this cannot be written as pipeline text.
    """

    name: str
    options: Options
    body: tuple[Element, ...]

    def __post_init__(self) -> None:
        _check_name(self.name)
        object.__setattr__(self, "options", _normal_options(self.options))
        object.__setattr__(self, "body", tuple(self.body))
        if not self.body:
            raise ValueError(f"the group '{self.name}' is empty")

    def __str__(self) -> str:
        return f"{self.name}{_options_text(self.options)}({','.join(map(str, self.body))})"


@dataclass(frozen=True, slots=True)
class PresetSpec:
    """A preset by name, without the ``@`` it is written with."""

    name: str

    def __post_init__(self) -> None:
        _check_name(self.name)

    def __str__(self) -> str:
        return f"@{self.name}"


Element: TypeAlias = PassSpec | GroupSpec | PresetSpec


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Elements in the order they run; ``str`` is the canonical text."""

    elements: tuple[Element, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(self.elements))

    def __str__(self) -> str:
        return ",".join(map(str, self.elements))


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(f"'{name}' is not a name in pipeline text")


def _normal_options(options: Iterable[tuple[str, Value]]) -> Options:
    normal: dict[str, Value] = {}
    for written, value in options:
        key = written.replace("_", "-")
        if not KEY.fullmatch(key):
            raise ValueError(f"'{written}' is not an option name in pipeline text")
        if key in normal:
            raise ValueError(f"option '{key}' is given twice")
        values = [_normal_scalar(key, v) for v in (value if isinstance(value, tuple) else (value,))]
        if not values:
            raise ValueError(f"option '{key}' is an empty list, which pipeline text cannot express")
        normal[key] = values[0] if len(values) == 1 else tuple(values)
    return tuple(normal.items())


def _normal_scalar(key: str, value: object) -> Scalar:
    """Return a value of exactly one of the types that text can hold; subclasses print differently."""
    if isinstance(value, bool | Size):
        return value
    if isinstance(value, int) and -INTEGER_LIMIT <= value < INTEGER_LIMIT:
        return int(value)
    if isinstance(value, float) and not math.isnan(value):
        return float(value)
    if isinstance(value, str):
        return str(value)
    raise ValueError(f"option '{key}' has the value {value!r}, which pipeline text cannot express")


def _options_text(options: Options) -> str:
    written = [key if value is True else f"{key}={_value_text(value)}" for key, value in options]
    return f"{{{' '.join(written)}}}" if written else ""


def _value_text(value: Value) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_value_text, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value if WORD.fullmatch(value) and value not in _KEYWORDS else quoted(value)
    return str(value)


def quoted(text: str) -> str:
    """Return a string of pipeline text, on one line, that means ``text``."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPED:
        return _ESCAPED[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
