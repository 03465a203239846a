r"""Pipeline text: which passes run, in which order, with which options.

.. code-block:: text

    pipeline ::= element ("," element)*
    element  ::= NAME options? | NAME options? "(" pipeline ")" | "@" NAME
    options  ::= "{" option (separator option)* "}"
    option   ::= KEY | KEY "=" value ("," value)*
    value    ::= INT | FLOAT | SIZE | "true" | "false" | WORD | STRING
    SIZE     ::= INT ("KiB" | "MiB" | "GiB")

``NAME`` is a letter, then letters, digits, ``-``, ``_`` and ``.``; ``KEY`` has no dot; ``WORD`` is
as ``NAME`` and may begin with ``_``. ``STRING`` stands in double or single quotes and knows ``\\``,
``\"``, ``\'``, ``\n``, ``\r``, ``\t``, ``\uXXXX`` and ``\UXXXXXXXX``. ``FLOAT`` includes ``inf`` and
``-inf``. Options are separated by a space, or by a comma where what follows cannot be one more value
of a list: before ``KEY "="`` and after an option without a value. An option without a value is true.
Space between tokens means nothing else. Empty text is the empty pipeline.

Parsing looks nothing up and imports no pass. ``str`` prints the canonical text, and
``parse(str(pipeline)) == pipeline``.
"""

from __future__ import annotations

import re
from typing import Final

from snn_optimizer.errors import PipelineSpecError
from snn_optimizer.pipeline.elements import (
    INTEGER_LIMIT,
    KEY,
    NAME,
    UNITS,
    WORD,
    Element,
    GroupSpec,
    Options,
    PassSpec,
    Pipeline,
    PresetSpec,
    Scalar,
    Size,
    Value,
    quoted,
)

__all__ = [
    "Element",
    "GroupSpec",
    "Options",
    "PassSpec",
    "Pipeline",
    "PresetSpec",
    "Scalar",
    "Size",
    "Value",
    "parse",
]

MAX_DEPTH: Final = 64

_ESCAPES: Final = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "r": "\r", "t": "\t"}
_SIZE: Final = re.compile(r"([0-9]+)(KiB|MiB|GiB)")
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_FLOAT: Final = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf)")
_LIKE_SIZE: Final = re.compile(r"[+-]?[0-9.]+(?:[kKmMgG][iI]?[bB]?|[bB])")
_SPACE: Final = re.compile(r"\s*")
_RUN: Final = re.compile(r"""[^\s,(){}="']+""")
_OPTION_FOLLOWS: Final = re.compile(r",\s*[A-Za-z][A-Za-z0-9_-]*\s*=")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)


def parse(text: str) -> Pipeline:
    """Read pipeline text.

    Parameters
    ----------
    text : str
        See the grammar above; groups nest at most 64 deep.

    Returns
    -------
    Pipeline

    Raises
    ------
    PipelineSpecError
        With the range of the first character that does not fit.
    """
    return _Parser(text).pipeline()


def _printable(text: str) -> str:
    """Return the text on one line, every character in its place, for messages that underline."""
    return "".join(c if c.isprintable() else " " for c in text)


class _Parser:
    """Recursive descent; ``position`` is always at a token, a closing one included, or at the end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.depth = 0
        self.skip(0)

    def error(self, message: str, start: int, end: int | None = None) -> PipelineSpecError:
        return PipelineSpecError(message, _printable(self.text), start, start + 1 if end is None else end)

    def skip(self, length: int) -> None:
        """Go past a token and the space after it."""
        space = _SPACE.match(self.text, self.position + length)
        assert space is not None
        self.position = space.end()

    def at(self, character: str) -> bool:
        return self.text.startswith(character, self.position)

    def accept(self, character: str) -> bool:
        if not self.at(character):
            return False
        self.skip(len(character))
        return True

    def run(self) -> str:
        """Return the characters up to the next delimiter."""
        found = _RUN.match(self.text, self.position)
        return found.group() if found else ""

    def pipeline(self) -> Pipeline:
        if self.position == len(self.text):
            return Pipeline()
        elements = self.elements()
        if self.at(")"):
            raise self.error("')' closes no group", self.position)
        if self.position < len(self.text):
            raise self.error("expected ',' between passes", self.position)
        return Pipeline(elements)

    def elements(self) -> tuple[Element, ...]:
        elements = [self.element()]
        while self.accept(","):
            elements.append(self.element())
        return tuple(elements)

    def element(self) -> Element:
        if self.accept("@"):
            preset = PresetSpec(self.name("preset"))
            if self.at("{") or self.at("("):
                raise self.error(f"the preset '{preset}' takes neither options nor a body", self.position)
            return preset
        name = self.name("pass")
        options = self.options() if self.at("{") else ()
        return GroupSpec(name, options, self.body()) if self.at("(") else PassSpec(name, options)

    def name(self, kind: str) -> str:
        start, name = self.position, self.run()
        if not name:
            raise self.error(f"expected a {kind} name", start)
        if not NAME.fullmatch(name):
            raise self.error(
                f"'{_printable(name)}' is not a {kind} name: a letter, then letters, digits, '-', '_', '.'",
                start, start + len(name),
            )  # fmt: skip
        self.skip(len(name))
        return name

    def body(self) -> tuple[Element, ...]:
        opening = self.position
        if self.depth == MAX_DEPTH:
            raise self.error(f"groups nest more than {MAX_DEPTH} deep", opening)
        self.depth += 1
        self.skip(1)
        body = self.elements()
        if self.position == len(self.text):
            raise self.error("this '(' is never closed", opening)
        if not self.accept(")"):
            raise self.error("expected ',' or ')'", self.position)
        self.depth -= 1
        return body

    def options(self) -> Options:
        opening = self.position
        self.skip(1)
        found: dict[str, Value] = {}
        while True:
            start, written = self.position, self.key(opening)
            key = written.replace("_", "-")
            if key in found:
                raise self.error(f"option '{key}' is given twice", start, start + len(written))
            found[key] = self.values(written, opening) if self.accept("=") else True
            if self.accept("}"):
                return tuple(found.items())
            if not self.accept(",") and not self.text[self.position - 1].isspace():
                raise self.error_in_options("expected a space or '}' after the option", opening)

    def error_in_options(self, message: str, opening: int) -> PipelineSpecError:
        """Blame this place, or the brace when the text ends before it closes."""
        if self.position == len(self.text):
            return self.error("this '{' is never closed", opening)
        return self.error(message, self.position)

    def key(self, opening: int) -> str:
        start, key = self.position, self.run()
        if not key:
            raise self.error_in_options("expected an option name", opening)
        if not KEY.fullmatch(key):
            raise self.error(
                f"'{_printable(key)}' is not an option name: a letter, then letters, digits, '-', '_'",
                start, start + len(key),
            )  # fmt: skip
        self.skip(len(key))
        return key

    def values(self, key: str, opening: int) -> Value:
        values = [self.value(key, opening)]
        while self.at(",") and not _OPTION_FOLLOWS.match(self.text, self.position):
            self.skip(1)
            values.append(self.value(key, opening))
        return values[0] if len(values) == 1 else tuple(values)

    def value(self, key: str, opening: int) -> Scalar:
        if self.at('"') or self.at("'"):
            return self.string()
        start, word = self.position, self.run()
        if not word:
            raise self.error_in_options(f"expected a value for '{key}'", opening)
        value = self.scalar(word, start)
        self.skip(len(word))
        return value

    def scalar(self, word: str, start: int) -> Scalar:
        end = start + len(word)
        if word in {"true", "false"}:
            return word == "true"
        if size := _SIZE.fullmatch(word):
            return Size(self.bounded(size[1], UNITS[size[2]], start, end))
        if _INTEGER.fullmatch(word):
            return self.bounded(word, 1, start, end)
        if _FLOAT.fullmatch(word):
            return float(word)
        if WORD.fullmatch(word):
            return word
        if _LIKE_SIZE.fullmatch(word):
            raise self.error("a size is a whole number of KiB, MiB or GiB, as in 4KiB", start, end)
        raise self.error(f"'{_printable(word)}' is no number and no word; as text it is {quoted(word)}", start, end)

    def bounded(self, digits: str, factor: int, start: int, end: int) -> int:
        # The length first: int() refuses thousands of digits with an error of its own.
        number = int(digits) * factor if len(digits) <= 20 else None
        if number is None or not -INTEGER_LIMIT <= number < INTEGER_LIMIT:
            raise self.error("the number does not fit in 64 bits", start, end)
        return number

    def string(self) -> str:
        start, quote = self.position, self.text[self.position]
        parts: list[str] = []
        cursor = start + 1
        while not self.text.startswith(quote, cursor):
            if cursor >= len(self.text):
                raise self.error("this quote is never closed", start, len(self.text))
            if self.text[cursor] == "\\":
                part, cursor = self.escape(cursor)
            else:
                part, cursor = self.text[cursor], cursor + 1
            parts.append(part)
        self.skip(cursor + 1 - start)
        return "".join(parts)

    def escape(self, start: int) -> tuple[str, int]:
        found = _ESCAPE.match(self.text, start)
        if found is None:
            raise self.error("this backslash escapes nothing", start)
        short, long, single = found.groups()
        if single in _ESCAPES:
            return _ESCAPES[single], found.end()
        if single is None and (code := int(short or long, 16)) <= 0x10FFFF:
            return chr(code), found.end()
        known = ", ".join([*("\\" + c for c in _ESCAPES), "\\uXXXX", "\\UXXXXXXXX"])
        raise self.error(f"'{_printable(found.group())}' is not an escape; there are {known}", start, found.end())
