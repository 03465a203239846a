"""Write the arithmetic of a region as a program, operation for operation.

Only spellings that give the same bits are unified (:mod:`snn_optimizer.raising.spellings`); parameters are
named by what they do (:mod:`snn_optimizer.raising.parameter_names`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from snn_optimizer.ir import Array, Node, Value, array_of, is_constant
from snn_optimizer.ir.contents import value_key
from snn_optimizer.ops import Expression, Program
from snn_optimizer.raising.parameter_names import ParameterNamer, threshold_of
from snn_optimizer.raising.regions import TESTS, Region
from snn_optimizer.raising.spellings import combined, compared, contains, first_test, ordered, shared_parts, substituted
from snn_optimizer.raising.step_graph import State

__all__ = ["Transcript", "Untranscribed", "transcribe"]

_FLOAT, _INT64, _BOOL = 1, 7, 9
_BINARY: Final[Mapping[str, str]] = {
    "Add": "add", "Div": "div", "Equal": "eq", "Greater": "gt", "GreaterOrEqual": "ge", "Max": "max",
    "Min": "min", "Mul": "mul", "Sub": "sub",
}  # fmt: skip
_UNARY: Final[Mapping[str, str]] = {"Abs": "abs", "Floor": "floor", "Neg": "neg", "Relu": "relu", "Sign": "sign"}


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
        """Tell whether a value changes with another otherwise than by a threshold test of it."""
        pending, seen = [value], set()
        while pending:
            current = pending.pop()
            if current is wanted:
                return True
            if self.region.makes(current) and current.inputs[0].op not in TESTS and id(current) not in seen:
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
            return compared("gt" if node.op == "Less" else "ge", operands[1], operands[0])
        if len(operands) != 2 or node.op not in _BINARY:
            raise Untranscribed("operator", f"{node.op} has no counterpart in a neuron")
        return combined(_BINARY[node.op], operands[0], operands[1])

    def _cast(self, node: Node) -> Expression:
        target = int(node.attrs["to"])
        inner = node.inputs[0]
        maker = inner.inputs[0] if self.region.makes(inner) else None
        if maker is not None and maker.op in (*TESTS, "Not") and target == _FLOAT:
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
        threshold = next((t for e in results.values() if (t := threshold_of(e)) is not None), None)
        namer = ParameterNamer(self.names, threshold, {f"const{n}": key for n, key in enumerate(self.constants)})
        if threshold is not None and threshold.operation == "number":
            key = ("number", threshold.number)
            self.constants[key] = np.asarray(threshold.number, np.float32)
            namer.threshold_key = key
            namer.threshold_number = threshold.number
        return {name: ordered(namer.visit(expression, "")) for name, expression in results.items()}

    def _statements(self, results: dict[str, Expression]) -> list[tuple[str, Expression]]:
        """Order the results and name what they share: the potential ``u`` and further steps ``a0``, ``a1``."""
        statements: list[tuple[str, Expression]] = []
        given: dict[str, str] = {}
        test = first_test(results["s"]) if "s" in results else None
        shared = shared_parts(list(results.values()))
        if test is not None:
            potential = test.operands[0]
            if potential.text != results["v_next"].text and potential.operation != "name":
                shared = {name: part for name, part in shared.items() if part.text != potential.text}
                shared["u"] = potential
        order = sorted(shared.items(), key=lambda item: item[1].count())
        for name, expression in order:
            statements.append((name, substituted(expression, given)))
            given[expression.text] = name
        names = [name for name in ("i_next", "v_next", "s") if name in results]
        if "s" in results and contains(results["v_next"], results["s"]):
            names = [*(n for n in names if n == "i_next"), "s", "v_next"]
        for name in names:
            expression = results[name]
            statements.append((name, substituted(expression, given)))
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
        return Program(tuple((name, substituted(e, swap)) for name, e in program.statements))
