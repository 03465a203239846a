"""The arithmetic of one step, written out: what a raised neuron computes, operation by operation.

``v + (x - v)/tau`` and ``(1 - 1/tau)*v + x/tau`` differ in the last bit, so a neuron raised from
a framework's export keeps the framework's own order of operations. It is the attribute
``arithmetic`` of the call, a few statements such as::

    u = v + ((x - v) / tau); s = ge(u, v_threshold); v_next = (1 - s) * u

Operands are ``x`` (the current; ``x0``, ``x1`` when there are several), the states before the step
(``v``, and ``i`` for second-order neurons), parameters, numbers, and results of earlier statements.
Results are ``s`` (spikes, where the neuron spikes) and the states after the step, ``v_next`` and
``i_next``. Every operation is rounded once to the type of the signal. Functions: ``gt(a, b)`` and
``ge(a, b)`` are 1 where ``a`` is larger (or equal) and 0 elsewhere, ``eq(a, b)`` likewise;
``floor``, ``abs``, ``sign``, ``relu`` as usual; ``trunc`` drops the fraction; ``max(a, b)``, ``min(a, b)``.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["Expression", "Program", "is_program"]

Array = npt.NDArray[np.floating[Any]]

_LONGEST: Final = 4096  # characters; a step of a neuron has a few dozen operations
_STATES: Final = ("i", "v")
_LARGEST: Final = 2000  # operations with all statements written into each other
_IDENTIFIER: Final = re.compile(r"(?!x[0-9]$)[a-z][a-z0-9_]{0,31}")
_CURRENT: Final = re.compile(r"x[0-9]?")
_BINARY: Final = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_FROM_AST: Final[Mapping[type[ast.operator], str]] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
}
_ARITY: Final = {
    "gt": 2, "ge": 2, "eq": 2, "max": 2, "min": 2, "floor": 1, "abs": 1, "sign": 1, "relu": 1, "trunc": 1,
    "neg": 1,
}  # fmt: skip
_NUMPY: Final[Mapping[str, Callable[..., Any]]] = {
    "abs": np.abs,
    "add": np.add,
    "div": np.divide,
    "eq": np.equal,
    "floor": np.floor,
    "ge": np.greater_equal,
    "gt": np.greater,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "neg": np.negative,
    "relu": lambda a: np.maximum(a, np.zeros_like(a)),
    "sign": np.sign,
    "sub": np.subtract,
    "trunc": np.trunc,
}


@dataclass(frozen=True, slots=True)
class Expression:
    """One operation.

    Attributes
    ----------
    operation : str
        ``name``, ``number``, or an operation.
    operands : tuple of Expression
    symbol : str
        Of a name.
    number : float
    """

    operation: str
    operands: tuple[Expression, ...] = ()
    symbol: str = ""
    number: float = 0.0

    @classmethod
    def name(cls, symbol: str) -> Expression:
        """Return a reference."""
        return cls("name", symbol=symbol)

    @classmethod
    def literal(cls, number: float) -> Expression:
        """Return a number."""
        return cls("number", number=number)

    @property
    def text(self) -> str:
        """The expression as written, with parentheses around all but the outermost operation."""
        if self.operation in _BINARY:
            first, second = (operand._nested() for operand in self.operands)  # noqa: SLF001 - own class
            return f"{first} {_BINARY[self.operation]} {second}"
        if self.operation == "name":
            return self.symbol
        if self.operation == "number":
            return repr(self.number)
        return f"{self.operation}({', '.join(operand.text for operand in self.operands)})"

    def _nested(self) -> str:
        return f"({self.text})" if self.operation in _BINARY else self.text

    def names(self) -> Iterator[str]:
        """Yield the names it refers to, from left to right."""
        if self.operation == "name":
            yield self.symbol
        for operand in self.operands:
            yield from operand.names()

    def count(self) -> int:
        """Return the number of operations."""
        return (self.operation not in ("name", "number")) + sum(operand.count() for operand in self.operands)


@dataclass(frozen=True)
class Program:
    """The statements of one step.

    Attributes
    ----------
    statements : tuple of (str, Expression)
        In order; a name is given once.
    """

    statements: tuple[tuple[str, Expression], ...]

    @cached_property
    def text(self) -> str:
        """The statements as they stand in the attribute."""
        return "; ".join(f"{name} = {expression.text}" for name, expression in self.statements)

    @cached_property
    def digest(self) -> str:
        """Eight hexadecimal digits that tell programs apart in names."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:8]

    @cached_property
    def results(self) -> dict[str, Expression]:
        """The statements by name."""
        return dict(self.statements)

    @cached_property
    def currents(self) -> tuple[str, ...]:
        """The currents it reads, in order of their names."""
        return tuple(sorted({name for name in self._read() if _CURRENT.fullmatch(name)})) or ("x",)

    @cached_property
    def states(self) -> tuple[str, ...]:
        """The states, ``i`` before ``v``."""
        return tuple(state for state in _STATES if f"{state}_next" in self.results)

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The parameters, in order of first use."""
        known = {*self.currents, *self.states, *self.results}
        return tuple(dict.fromkeys(name for name in self._read() if name not in known))

    def _read(self) -> Iterator[str]:
        for _, expression in self.statements:
            yield from expression.names()

    def count(self) -> int:
        """Return the number of operations of a step."""
        return sum(expression.count() for _, expression in self.statements)

    def run(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Return the results of a step, each operation rounded to the type of the operands.

        Parameters
        ----------
        values : mapping from name to array
            Currents, states and parameters, all of one floating type.
        """
        known = dict(values)
        dtype = next(iter(values.values())).dtype
        with np.errstate(all="ignore"):
            for name, expression in self.statements:
                known[name] = _run(expression, known, dtype)
        return {name: known[name] for name in self.results}

    @classmethod
    def parse(cls, text: str) -> Program:
        """Read statements.

        Raises
        ------
        ValueError
            If the text is no such statements; the message says what is wrong.
        """
        try:
            return _parse(text)
        except RecursionError as error:
            raise ValueError("arithmetic is nested too deeply") from error


def is_program(arithmetic: str) -> bool:
    """Tell written-out arithmetic from the name of a known one."""
    return "=" in arithmetic


def _run(expression: Expression, known: Mapping[str, Array], dtype: np.dtype[Any]) -> Array:
    if expression.operation == "name":
        return known[expression.symbol]
    if expression.operation == "number":
        return np.asarray(expression.number, dtype)
    operands = [_run(operand, known, dtype) for operand in expression.operands]
    return np.asarray(_NUMPY[expression.operation](*operands), dtype)


@functools.lru_cache(maxsize=1024)
def _parse(text: str) -> Program:
    if len(text) > _LONGEST:
        raise ValueError(f"arithmetic is longer than {_LONGEST} characters")
    statements: list[tuple[str, Expression]] = []
    given: set[str] = set()
    sizes: dict[str, int] = {}
    for part in text.split(";"):
        name, equals, body = part.partition("=")
        name = name.strip()
        if not equals or not _IDENTIFIER.fullmatch(name) or name in given or name in (*_STATES, "x"):
            raise ValueError(f"'{part.strip()}' is no statement 'name = expression' of a new name")
        given.add(name)
        statements.append((name, _read_expression(body.strip())))
        sizes[name] = _size(statements[-1][1], sizes)
        if sizes[name] > _LARGEST:
            raise ValueError(f"arithmetic has more than {_LARGEST} operations written out")
    program = Program(tuple(statements))
    if "v_next" not in given:
        raise ValueError("arithmetic must give v_next")
    if program.text != text:
        raise ValueError(f"arithmetic is not in its one spelling, which is '{program.text}'")
    return program


def _size(expression: Expression, sizes: Mapping[str, int]) -> int:
    """Return the number of operations with earlier statements written in."""
    if expression.operation == "name":
        return sizes.get(expression.symbol, 0)
    return 1 + sum(_size(operand, sizes) for operand in expression.operands)


def _read_expression(text: str) -> Expression:
    try:
        tree = ast.parse(text, mode="eval").body
        return _convert(tree)
    except (SyntaxError, RecursionError, MemoryError, TypeError, OverflowError) as error:
        raise ValueError(f"'{text[:60]}' is no expression") from error


def _convert(node: ast.expr) -> Expression:
    if isinstance(node, ast.BinOp) and type(node.op) in _FROM_AST:
        return Expression(_FROM_AST[type(node.op)], (_convert(node.left), _convert(node.right)))
    if isinstance(node, ast.Name):
        return Expression.name(node.id)
    if isinstance(node, ast.Constant) and type(node.value) is float:
        return Expression.literal(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        operand = _convert(node.operand)
        if operand.operation == "number" and operand.number > 0:
            return Expression.literal(-operand.number)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        arity = _ARITY.get(node.func.id)
        if arity is not None and arity == len(node.args):
            return Expression(node.func.id, tuple(map(_convert, node.args)))
    raise ValueError(f"'{ast.unparse(node)[:60]}' is no operation of a step")
