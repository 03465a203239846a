"""Write the arithmetic of a region as a program, operation for operation.

Only spellings that give the same bits are unified: ``x * 1``, ``x / 1`` and ``x - 0`` are
``x``; ``x + 0`` is ``x`` but for the sign of a zero; a spike times zero is zero; ``-s + 1`` is ``1 - s``;
testing ``a - b`` against zero is testing ``a`` against ``b`` (with gradual underflow, a difference
is zero only between equals); where the threshold is 1 a spike is a spike times the
threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from snn_optimizer.ir import Array, Node, Value, array_of, is_constant
from snn_optimizer.ir.contents import value_key
from snn_optimizer.ops import Expression, Program
from snn_optimizer.raising.regions import Region
from snn_optimizer.raising.step_graph import State

__all__ = ["Transcript", "Untranscribed", "transcribe"]

_FLOAT, _INT64, _BOOL = 1, 7, 9
_BINARY: Final[Mapping[str, str]] = {
    "Add": "add", "Div": "div", "Equal": "eq", "Greater": "gt", "GreaterOrEqual": "ge", "Max": "max",
    "Min": "min", "Mul": "mul", "Sub": "sub",
}  # fmt: skip
_UNARY: Final[Mapping[str, str]] = {"Abs": "abs", "Floor": "floor", "Neg": "neg", "Relu": "relu", "Sign": "sign"}
_TEST_OPERATIONS: Final = ("gt", "ge", "eq")
_ZERO, _UNIT = Expression.literal(0.0), Expression.literal(1.0)


class Untranscribed(Exception):  # noqa: N818 - a refusal on its way to a remark
    """The region is no program; ``rule`` and the message say why."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


@dataclass(eq=False, slots=True)
class Transcript:
    """A program and what its names stand for.

    Attributes
    ----------
    program : Program
    currents : list of Value
        In the order of the program's currents.
    parameters : dict of str to array
        Shapes broadcast into the shape of the neurons.
    spikes : Value or None
        The value of the region that is the spikes.
    states : list of State
        In the order of the program's states.
    """

    program: Program
    currents: list[Value]
    parameters: dict[str, Array]
    spikes: Value | None
    states: list[State]


def transcribe(region: Region, spikes: Value | None, unit_rank: int) -> Transcript:
    """Write a region as a program.

    Parameters
    ----------
    region : Region
    spikes : Value or None
        Which of its values is the output.
    unit_rank : int
        Number of axes of the neurons, without batch.

    Raises
    ------
    Untranscribed
        If an operation or operand has no counterpart.
    """
    return _Transcriber(region, spikes, unit_rank).run()


@dataclass
class _Transcriber:
    region: Region
    spikes: Value | None
    unit_rank: int
    currents: dict[int, Value] = field(default_factory=dict)
    constants: dict[Hashable, Array] = field(default_factory=dict)
    names: dict[str, Hashable] = field(default_factory=dict)
    known: dict[int, Expression] = field(default_factory=dict)

    def run(self) -> Transcript:
        names = ["i", "v"] if len(self.region.states) == 2 else ["v"]
        if len(self.region.states) > len(names):
            raise Untranscribed("many-states", f"{len(self.region.states)} states depend on each other")
        for name, state in zip(names, self._ordered(), strict=True):
            self.known[id(state.before)] = Expression.name(name)
        results: dict[str, Expression] = {}
        for name, state in zip(names, self._ordered(), strict=True):
            results[f"{name}_next"] = self.expression(state.after)
        if self.spikes is not None:
            results["s"] = self.expression(self.spikes)
        results = self._named(results)
        program = Program(tuple(self._statements(results)))
        parameters = {name: self.constants[self.names[name]] for name in program.parameters}
        renamed = self._renamed_currents(program)
        return Transcript(renamed, list(self.currents.values()), parameters, self.spikes, list(self._ordered()))

    def _ordered(self) -> list[State]:
        """Return the states, the synaptic current before the membrane that reads it."""
        states = self.region.states
        if len(states) < 2:
            return list(states)
        first, second = states
        return [first, second] if self._reads(second.after, first.before) else [second, first]

    def _reads(self, value: Value, wanted: Value) -> bool:
        pending, seen = [value], set()
        while pending:
            current = pending.pop()
            if current is wanted:
                return True
            if self.region.makes(current) and id(current) not in seen:
                seen.add(id(current))
                pending.extend(current.inputs[0].inputs)
        return False

    # ------------------------------------------------------------ expressions

    def expression(self, value: Value) -> Expression:
        """Return the expression of a value."""
        found = self.known.get(id(value))
        if found is None:
            if self.region.makes(value):
                found = self._operation(value.inputs[0])
            elif is_constant(value):
                found = self._constant(value)
            else:
                self.currents[id(value)] = value
                found = Expression.name(f"x{len(self.currents) - 1}")
            self.known[id(value)] = found
        return found

    def _constant(self, value: Value) -> Expression:
        array = array_of(value)
        if array is None or array.dtype != np.float32:
            raise Untranscribed("constant-type", f"constant '{value.name}' is not float32")
        if array.size == 1:
            number = float(array.reshape(()))
            if number in (0.0, 1.0, -1.0):
                return Expression.literal(0.0 if number == 0 else number)
            array = array.reshape(())
        while array.ndim > self.unit_rank and array.shape[0] == 1:
            array = array[0]
        if array.ndim > self.unit_rank:
            raise Untranscribed("constant-shape", f"constant '{value.name}' differs between samples")
        if not np.isfinite(array).all():
            raise Untranscribed("not-finite", f"constant '{value.name}' holds infinities or NaN")
        return self._token(value_key(value), array)

    def _token(self, key: Hashable, array: Array) -> Expression:
        """Return a stand-in for a parameter that has no name yet."""
        if key not in self.constants:
            self.constants[key] = array
        symbol = f"const{list(self.constants).index(key)}"
        return Expression("name", symbol=symbol)

    def _operation(self, node: Node) -> Expression:
        if node.op == "Cast":
            return self._cast(node)
        operands = [self.expression(value) for value in node.inputs]
        if node.op == "Identity":
            return operands[0]
        if node.op in _UNARY:
            return Expression(_UNARY[node.op], tuple(operands))
        if node.op in ("Less", "LessOrEqual"):
            return _test("gt" if node.op == "Less" else "ge", operands[1], operands[0])
        if len(operands) != 2 or node.op not in _BINARY:
            raise Untranscribed("operator", f"{node.op} has no counterpart in a neuron")
        return _binary(_BINARY[node.op], operands[0], operands[1])

    def _cast(self, node: Node) -> Expression:
        target = int(node.attrs["to"])
        inner = node.inputs[0]
        maker = inner.inputs[0] if self.region.makes(inner) else None
        if maker is not None and maker.op in (*_TESTS_OF_ONNX, "Not") and target == _FLOAT:
            return self.expression(inner)
        if maker is not None and maker.op == "Cast" and int(maker.attrs["to"]) == _INT64 and target == _FLOAT:
            return Expression("trunc", (self.expression(maker.inputs[0]),))
        if target == _INT64:
            raise Untranscribed("operator", "an integer is used as such")
        if target == _FLOAT and maker is not None and maker.op == "Cast" and int(maker.attrs["to"]) == _FLOAT:
            return self.expression(inner)
        raise Untranscribed("operator", f"a Cast to type {target} has no counterpart in a neuron")

    # ----------------------------------------------------------------- naming

    def _named(self, results: dict[str, Expression]) -> dict[str, Expression]:
        """Give parameters names by what they do."""
        threshold = next((t for e in results.values() if (t := _threshold(e)) is not None), None)
        namer = _Namer(self.names, threshold, {f"const{n}": key for n, key in enumerate(self.constants)})
        if threshold is not None and threshold.operation == "number":
            key = ("number", threshold.number)
            self.constants[key] = np.asarray(threshold.number, np.float32)
            namer.threshold_key = key
            namer.threshold_number = threshold.number
        return {name: _ordered(namer.visit(expression, "")) for name, expression in results.items()}

    def _statements(self, results: dict[str, Expression]) -> list[tuple[str, Expression]]:
        """Order the results and name what they share: the potential ``u`` and further steps ``a0``, ``a1``."""
        statements: list[tuple[str, Expression]] = []
        given: dict[str, str] = {}
        test = _first_test(results["s"]) if "s" in results else None
        shared = _shared(list(results.values()))
        if test is not None:
            potential = test.operands[0]
            if potential.text != results["v_next"].text and potential.operation != "name":
                shared = {name: part for name, part in shared.items() if part.text != potential.text}
                shared["u"] = potential
        order = sorted(shared.items(), key=lambda item: item[1].count())
        for name, expression in order:
            statements.append((name, _substituted(expression, given)))
            given[expression.text] = name
        names = [name for name in ("i_next", "v_next", "s") if name in results]
        if "s" in results and _contains(results["v_next"], results["s"]):
            names = [*(n for n in names if n == "i_next"), "s", "v_next"]
        for name in names:
            expression = results[name]
            statements.append((name, _substituted(expression, given)))
            if expression.operation not in ("name", "number"):
                given[expression.text] = name
        return statements

    def _renamed_currents(self, program: Program) -> Program:
        """Call a lone current ``x``."""
        read = list(dict.fromkeys(n for _, e in program.statements for n in e.names() if n.startswith("x")))
        if len(self.currents) > 9:
            raise Untranscribed("many-currents", f"{len(self.currents)} currents reach one neuron")
        if len(self.currents) != 1 or read != ["x0"]:
            return program
        swap = {"x0": "x"}
        return Program(tuple((name, _substituted(e, swap)) for name, e in program.statements))


_TESTS_OF_ONNX = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")


def _is_number(expression: Expression, number: float) -> bool:
    return expression.operation == "number" and expression.number == number


def _is_spike(expression: Expression) -> bool:
    return expression.operation in _TEST_OPERATIONS


def _binary(operation: str, first: Expression, second: Expression) -> Expression:
    if operation in _TEST_OPERATIONS:
        return _test(operation, first, second)
    if operation == "mul":
        for one, other in ((first, second), (second, first)):
            if _is_number(one, 1.0):
                return other
            if _is_number(one, 0.0) and _is_spike(other):
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


def _test(operation: str, first: Expression, second: Expression) -> Expression:
    if _is_number(second, 0.0) and first.operation == "sub" and operation != "eq":
        return Expression(operation, first.operands)
    return Expression(operation, (first, second))


def _first_test(expression: Expression) -> Expression | None:
    if _is_spike(expression):
        return expression
    return next((t for operand in expression.operands if (t := _first_test(operand)) is not None), None)


def _threshold(expression: Expression) -> Expression | None:
    """Return what the first test compares a potential with, or what a counted potential is divided by."""
    counted = _find(expression, lambda e: e.operation in ("trunc", "floor"))
    if counted is not None:
        quotient = _find(counted, lambda e: e.operation == "div")
        return _UNIT if quotient is None else quotient.operands[1]
    test = _first_test(expression)
    return None if test is None or test.operation == "eq" else test.operands[1]


def _find(expression: Expression, wanted: Callable[[Expression], bool]) -> Expression | None:
    if wanted(expression):
        return expression
    return next((f for operand in expression.operands if (f := _find(operand, wanted)) is not None), None)


def _contains(expression: Expression, part: Expression) -> bool:
    return _find(expression, lambda e: e.text == part.text) is not None


def _substituted(expression: Expression, given: Mapping[str, str]) -> Expression:
    name = given.get(expression.text)
    if name is not None:
        return Expression.name(name)
    if not expression.operands:
        return expression
    return Expression(expression.operation, tuple(_substituted(operand, given) for operand in expression.operands))


def _shared(expressions: Sequence[Expression]) -> dict[str, Expression]:
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


@dataclass
class _Namer:
    """Names parameters by the place they stand in."""

    taken: dict[str, Hashable]
    threshold: Expression | None
    keys: dict[str, Hashable]
    threshold_key: Hashable = None
    threshold_number: float | None = None

    def visit(self, expression: Expression, place: str) -> Expression:
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
        if operation == "sub" and _is_spike(operands[1]) and self.threshold_number == 1.0 and operands[0].operands:
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
        if _is_spike(other) or _find(other, lambda e: e.operation in ("trunc", "floor")) is not None:
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


def _ordered(expression: Expression) -> Expression:
    """Write the operands of sums and products in one order; IEEE 754 gives the same bits for both."""
    operands = tuple(map(_ordered, expression.operands))
    if expression.operation == "add":
        operands = tuple(sorted(operands, key=lambda e: (not _has_state(e), e.text)))
    elif expression.operation == "mul":
        operands = tuple(sorted(operands, key=lambda e: (_has_state(e), bool(e.operands), e.text)))
    return Expression(expression.operation, operands, expression.symbol, expression.number)


def _has_state(expression: Expression) -> bool:
    return not {"v", "i"}.isdisjoint(expression.names())


def _with_other(operands: tuple[Expression, ...]) -> list[tuple[Expression, Expression]]:
    first, second = operands
    return [(first, second), (second, first)]
