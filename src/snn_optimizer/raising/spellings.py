"""Expressions in one spelling, where several give the same bits, and what is found in them.

``x * 1``, ``x / 1`` and ``x - 0`` are ``x``; ``x + 0`` is ``x`` but for the sign of a zero; a spike times
zero is zero; ``-s + 1`` is ``1 - s``; testing ``a - b`` against zero is testing ``a`` against ``b`` (with
gradual underflow, a difference is zero only between equals); sums and products have their operands in one
order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from snn_optimizer.ops import Expression

__all__ = [
    "combined",
    "compared",
    "contains",
    "find",
    "first_test",
    "is_spike",
    "ordered",
    "shared_parts",
    "substituted",
]

_TEST_OPERATIONS: Final = ("gt", "ge", "eq")
_ZERO, _UNIT = Expression.literal(0.0), Expression.literal(1.0)


def _is_number(expression: Expression, number: float) -> bool:
    return expression.operation == "number" and expression.number == number


def is_spike(expression: Expression) -> bool:
    """Tell whether an expression is a test: 0 or 1."""
    return expression.operation in _TEST_OPERATIONS


def combined(operation: str, first: Expression, second: Expression) -> Expression:
    """Return an operation of two operands without the parts that change no bit."""
    if operation in _TEST_OPERATIONS:
        return compared(operation, first, second)
    if operation == "mul":
        for one, other in ((first, second), (second, first)):
            if _is_number(one, 1.0):
                return other
            if _is_number(one, 0.0) and is_spike(other):
                return _ZERO
    if operation == "div" and _is_number(second, 1.0):
        return first
    if operation == "sub" and _is_number(second, 0.0):
        return first
    if operation == "add":
        for one, other in ((first, second), (second, first)):
            if _is_number(one, 0.0):
                return other
            if _is_number(one, 1.0) and other.operation == "neg":
                return Expression("sub", (_UNIT, other.operands[0]))
    return Expression(operation, (first, second))


def compared(operation: str, first: Expression, second: Expression) -> Expression:
    """Return a test of two operands; a difference against zero is a test of its operands."""
    if _is_number(second, 0.0) and first.operation == "sub" and operation != "eq":
        return Expression(operation, first.operands)
    return Expression(operation, (first, second))


def first_test(expression: Expression) -> Expression | None:
    """Return the outermost test in an expression, the leftmost where there are several."""
    if is_spike(expression):
        return expression
    return next((t for operand in expression.operands if (t := first_test(operand)) is not None), None)


def find(expression: Expression, wanted: Callable[[Expression], bool]) -> Expression | None:
    """Return the outermost part of an expression that is wanted."""
    if wanted(expression):
        return expression
    return next((f for operand in expression.operands if (f := find(operand, wanted)) is not None), None)


def contains(expression: Expression, part: Expression) -> bool:
    """Tell whether an expression has a part with the same text."""
    return find(expression, lambda e: e.text == part.text) is not None


def substituted(expression: Expression, given: Mapping[str, str]) -> Expression:
    """Return an expression that reads the parts that have a name, given by their text, by this name."""
    name = given.get(expression.text)
    if name is not None:
        return Expression.name(name)
    if not expression.operands:
        return expression
    return Expression(expression.operation, tuple(substituted(operand, given) for operand in expression.operands))


def shared_parts(expressions: Sequence[Expression]) -> dict[str, Expression]:
    """Name what several places compute, spikes first, and only the largest such parts."""
    counts: dict[str, int] = {}
    parts: dict[str, Expression] = {}

    def visit(expression: Expression) -> None:
        if expression.operation in ("name", "number"):
            return
        counts[expression.text] = counts.get(expression.text, 0) + 1
        if counts[expression.text] == 1:
            parts[expression.text] = expression
            for operand in expression.operands:
                visit(operand)

    for expression in expressions:
        visit(expression)
    whole = {expression.text for expression in expressions}
    repeated = [text for text, count in counts.items() if count > 1 and text not in whole]
    return {f"a{number}": parts[text] for number, text in enumerate(repeated)}


def ordered(expression: Expression) -> Expression:
    """Write the operands of sums and products in one order; IEEE 754 gives the same bits for both."""
    operands = tuple(map(ordered, expression.operands))
    if expression.operation == "add":
        operands = tuple(sorted(operands, key=lambda e: (not _has_state(e), e.text)))
    elif expression.operation == "mul":
        operands = tuple(sorted(operands, key=lambda e: (_has_state(e), bool(e.operands), e.text)))
    return Expression(expression.operation, operands, expression.symbol, expression.number)


def _has_state(expression: Expression) -> bool:
    return not {"v", "i"}.isdisjoint(expression.names())
