"""Name the parameters of a neuron by what they do: threshold, decay, gain, offset.

A parameter is what stands in a place: what a potential is compared with is the threshold, a
factor of the membrane its decay. Where the threshold is 1 a spike is a spike times the threshold.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from snn_optimizer.ops import Expression
from snn_optimizer.raising.spellings import find, first_test, is_spike

__all__ = ["ParameterNamer", "threshold_of"]


def threshold_of(expression: Expression) -> Expression | None:
    """Return what the first test compares a potential with, or what a counted potential is divided by."""
    counted = find(expression, lambda e: e.operation in ("trunc", "floor"))
    if counted is not None:
        quotient = find(counted, lambda e: e.operation == "div")
        return Expression.literal(1.0) if quotient is None else quotient.operands[1]
    test = first_test(expression)
    return None if test is None or test.operation == "eq" else test.operands[1]


@dataclass
class ParameterNamer:
    """Names parameters by the place they stand in.

    Attributes
    ----------
    taken : dict
        Key of each name given so far.
    threshold : Expression or None
        What the potential is compared with.
    keys : dict
        Key of each parameter, by the symbol it has before it is named.
    threshold_key, threshold_number
        Of a threshold that is a number.
    """

    taken: dict[str, Hashable]
    threshold: Expression | None
    keys: dict[str, Hashable]
    threshold_key: Hashable = None
    threshold_number: float | None = None

    def visit(self, expression: Expression, place: str) -> Expression:
        """Return an expression with names in place of symbols, itself read at ``place``."""
        if expression.operation == "name":
            key = self.keys.get(expression.symbol)
            return expression if key is None else self._name(key, place)
        if expression.operation == "number":
            if place == "v_threshold" and expression.number == self.threshold_number:
                return self._name(self.threshold_key, "v_threshold")
            return expression
        return self._operation(expression)

    def _operation(self, expression: Expression) -> Expression:
        operation, operands = expression.operation, expression.operands
        if operation in ("gt", "ge"):
            return Expression(operation, (self.visit(operands[0], "constant"), self._limit(operands[1])))
        if operation == "sub" and is_spike(operands[1]) and self.threshold_number == 1.0 and operands[0].operands:
            # a spike takes the threshold off, which is 1 here: the product changes no bit
            taken = Expression("mul", (self.visit(operands[1], ""), self._name(self.threshold_key, "v_threshold")))
            return Expression("sub", (self.visit(operands[0], "v_leak"), taken))
        if operation == "mul":
            return Expression("mul", tuple(self.visit(o, self._factor(other)) for o, other in _with_other(operands)))
        if operation == "div":
            place = "v_threshold" if self._is_threshold(operands[1]) else "tau"
            return Expression("div", (self.visit(operands[0], "constant"), self.visit(operands[1], place)))
        places = {"sub": ("v_leak", "floor"), "add": ("offset", "offset")}.get(operation, ("constant", "constant"))
        return Expression(operation, tuple(map(self.visit, operands, places)))

    def _limit(self, operand: Expression) -> Expression:
        return self.visit(operand, "v_threshold" if self._is_threshold(operand) else "constant")

    def _is_threshold(self, operand: Expression) -> bool:
        return self.threshold is not None and operand.text == self.threshold.text

    def _factor(self, other: Expression) -> str:
        """Return what a factor of ``other`` is."""
        if is_spike(other) or find(other, lambda e: e.operation in ("trunc", "floor")) is not None:
            return "v_threshold" if self.threshold is not None else "v_reset"
        names = set(other.names())
        if ("v" in names and len(names) == 1) or (other.operation == "mul" and "v" in names):
            return "beta"
        if names == {"i"}:
            return "alpha"
        return "gain" if all(name.startswith("x") for name in names) else "rate"

    def _name(self, key: Hashable, place: str) -> Expression:
        if place == "v_threshold" and self.threshold is not None and key != self._key_of(self.threshold):
            place = "v_reset"
        name, number = place or "constant", 2
        while self.taken.get(name, key) != key:
            name, number = f"{place}{number}", number + 1
        self.taken[name] = key
        return Expression.name(name)

    def _key_of(self, threshold: Expression) -> Hashable:
        return self.threshold_key if threshold.operation == "number" else self.keys.get(threshold.symbol)


def _with_other(operands: tuple[Expression, ...]) -> list[tuple[Expression, Expression]]:
    first, second = operands
    return [(first, second), (second, first)]
