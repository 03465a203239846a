"""Functions of neurons whose arithmetic is written out, and of the flat form.

What depends on the currents and parameters only is computed for all steps at once, outside the
loop; so are spikes that nothing inside the loop reads. Runtimes spend their time per operation,
not per element, so the loop has as few as keep every bit:

* a test of a float32 potential against a number is one ``HardSigmoid`` of slope ``2 ** 100``: the scaled
  difference has the sign of the difference, and is at least 1 where it is not zero (:func:`steep`
  says for which numbers). ``u >= t`` is ``u`` above the float before ``t``. A potential that is NaN, which a
  network of finite weights and inputs does not have, gives NaN where the test would give 0;
* ``1 - gt(u, t)`` is the step the other way round;
* where a step counts the spikes of the potential it receives, it emits those, and the train
  is shifted by one step afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from snn_optimizer.ops.arithmetic import Expression
from snn_optimizer.ops.variants import NeuronVariant

__all__ = ["folded", "steep", "written_body"]

_SLOPE = 2.0**100
_SMALLEST, _LARGEST = 2.0**-70, 2.0**27

_OPERATORS = {
    "abs": "Abs", "add": "Add", "div": "Div", "floor": "Floor", "max": "Max", "min": "Min", "mul": "Mul",
    "neg": "Neg", "relu": "Relu", "sign": "Sign", "sub": "Sub",
}  # fmt: skip


_UNIT = "1.0"


def steep(threshold: float) -> bool:
    """Tell whether a test against this number can be one steep step, exact to the bit."""
    return _SMALLEST <= abs(threshold) < _LARGEST


def _is_steep(expression: Expression) -> bool:
    limit = expression.operands[1]
    return limit.operation == "number" and steep(limit.number)


def _complement(expression: Expression) -> Expression | None:
    """Return the test of ``1 - gt(u, t)`` or ``1 - ge(u, t)``."""
    if expression.operation != "sub" or expression.operands[0].text != _UNIT:
        return None
    test = expression.operands[1]
    return test if test.operation in ("gt", "ge") and _is_steep(test) else None


def _limit(test: Expression, *, silent: bool) -> float:
    """Return the float32 that the potential is above where the test holds, or below where it does not."""
    number = np.float32(test.operands[1].number)
    if test.operation == "ge":
        return float(number if silent else np.nextafter(number, np.float32(-np.inf)))
    return float(np.nextafter(number, np.float32(np.inf)) if silent else number)


class _Writer:
    """Lines of ONNX text that compute expressions; equal expressions once."""

    def __init__(self, like: str, prefix: str, known: dict[str, str]) -> None:
        self.lines: list[str] = []
        self.like = like
        self.prefix = prefix
        self.known = dict(known)  # text of an expression to the name of its value
        self.given: set[str] = set()

    def value(self, expression: Expression) -> str:
        """Return the name of the value of an expression."""
        text = expression.text
        if text not in self.known:
            if expression.operation == "name":
                return expression.symbol
            self.known[text] = self._operation(expression)
        return self.known[text]

    def _operation(self, expression: Expression) -> str:
        if (test := _complement(expression)) is not None:
            return self._step(test.operands[0], -_SLOPE, _SLOPE * _limit(test, silent=True))
        if expression.operation in ("gt", "ge") and _is_steep(expression):
            return self._step(expression.operands[0], _SLOPE, -_SLOPE * _limit(expression, silent=False))
        operands = [self.value(operand) for operand in expression.operands]
        if expression.operation in _OPERATORS:
            return self._line(f"{_OPERATORS[expression.operation]}({', '.join(operands)})")
        if expression.operation == "trunc":
            whole = self._line(f"Cast<to = 7>({operands[0]})")
            return self._line(f"CastLike({whole}, {self.like})")
        if expression.operation == "gt":
            compared = self._line(f"Greater({', '.join(operands)})")
        elif expression.operation == "eq":
            compared = self._line(f"Equal({', '.join(operands)})")
        else:
            # Not GreaterOrEqual: before 1.24 onnxruntime loses its shape in a loop body and refuses to run.
            larger = self._line(f"Max({', '.join(operands)})")
            compared = self._line(f"Equal({larger}, {operands[0]})")
        return self._line(f"CastLike({compared}, {self.like})")

    def _step(self, potential: Expression, slope: float, offset: float) -> str:
        return self._line(f"HardSigmoid<alpha = {slope:.9g}, beta = {offset:.9g}>({self.value(potential)})")

    def _line(self, call: str) -> str:
        name = f"{self.prefix}_{len(self.lines)}"
        self.lines.append(f"{name} = {call}")
        return name

    def give(self, name: str, expression: Expression) -> None:
        """Let ``name`` be the value of an expression."""
        text = expression.text
        made = self.value(expression)
        last = self.lines[-1] if self.lines else ""
        if last.startswith(f"{made} = ") and expression.operation != "name" and made not in self.given:
            self.lines[-1] = f"{name} = {last.partition(' = ')[2]}"
            self.known = {key: name if value == made else value for key, value in self.known.items()}
        else:
            self.lines.append(f"{name} = Identity({made})")
        self.given.add(name)
        self.known[text] = name
        self.known[name] = name


def written_body(variant: NeuronVariant) -> list[str]:
    """Return the lines of the function of a variant with written arithmetic."""
    return _cell(variant) if variant.form == "cell" else _sequence(variant)


def _literals(variant: NeuronVariant, like: str) -> tuple[list[str], dict[str, str]]:
    numbers: dict[str, float] = {_UNIT: 1.0} if variant.spiking else {}

    def collect(expression: Expression) -> None:
        if expression.operation == "number":
            numbers.setdefault(expression.text, expression.number)
        for operand in expression.operands:
            collect(operand)

    for _, expression in variant.program.statements:
        collect(expression)
    lines: list[str] = []
    known: dict[str, str] = {}
    for index, (text, number) in enumerate(numbers.items()):
        literal = f"{number:.9g}"
        literal = literal if any(mark in literal for mark in ".en") else f"{literal}.0"
        lines.append(f"literal{index} = Constant<value = float {{{literal}}}>()")
        lines.append(f"number{index} = CastLike(literal{index}, {like})")
        known[text] = f"number{index}"
    return lines, known


def _cell(variant: NeuronVariant) -> list[str]:
    first = variant.inputs[0]
    lines, known = _literals(variant, first)
    writer = _Writer(first, "t", known)
    results = _inlined(variant)
    for name in _order(variant):
        writer.give(name, results[name])
    lines += writer.lines
    if not variant.spiking:
        lines.append("y = Identity(v_next)")
    return lines


def _inlined(variant: NeuronVariant) -> dict[str, Expression]:
    """Return the results in terms of currents, states and parameters; spikes also of states after the step."""
    known: dict[str, Expression] = {}
    after = {f"{state}_next" for state in variant.program.states}
    for name, expression in variant.program.statements:
        names = after if name == "s" else set()
        known[name] = _replaced(expression, {key: value for key, value in known.items() if key not in names})
    return {name: known[name] for name in known if name in after or name == "s"}


def _replaced(expression: Expression, known: Mapping[str, Expression]) -> Expression:
    if expression.operation == "name":
        return known.get(expression.symbol, expression)
    if not expression.operands:
        return expression
    operands = tuple(_replaced(operand, known) for operand in expression.operands)
    return Expression(expression.operation, operands, expression.symbol, expression.number)


def _order(variant: NeuronVariant) -> list[str]:
    """Return the results so that each comes after those it reads."""
    return [*(f"{state}_next" for state in variant.program.states), *(["s"] if variant.spiking else [])]


def _sequence(variant: NeuronVariant) -> list[str]:
    program = variant.program
    results = _inlined(variant)
    trains = [name.upper() for name in program.currents]
    lines, known = _literals(variant, trains[0])
    lines += ["never = Constant<value = bool {0}>()", "first = Constant<value = int64 {0}>()"]
    lines += [f"template{index} = Gather({train}, first)" for index, train in enumerate(trains)]
    template = "template0"
    for index in range(1, len(trains)):
        lines.append(f"template{index}_all = Add({template}, template{index})")
        template = f"template{index}_all"
    lines += [f"{state}_start = Where(never, {template}, {state}0)" for state in program.states]

    outside = _Writer(trains[0], "h", known | dict(zip(program.currents, trains, strict=True)))
    inputs = _hoist(variant, results, outside)
    lines += outside.lines
    inside = _Writer("v", "t", known | {text: f"in{index}" for index, text in enumerate(inputs)})
    for state in program.states:
        inside.give(f"{state}_next", results[f"{state}_next"])
    finish = _Writer(trains[0], "z", known)
    emitted, closing = _spikes(variant, results, inside, finish) if variant.spiking else ([], [])
    stacked = sorted({f"{state}_next" for state in variant.record} | ({"v_next"} if not variant.spiking else set()))
    stacked += [name for name in finish.known if name.endswith("_next") and name not in stacked]
    for name in stacked:
        inside.lines.append(f"{name}_copy = Identity({name})")
        emitted.append((f"{name}_copy", f"{name}_stack"))
    received = ", ".join([*program.states, *(f"in{index}" for index in range(len(inputs)))])
    arguments = ", ".join([*(f"{state}_start" for state in program.states), *inputs.values()])
    scanned = ", ".join([*(f"{state}T" for state in program.states), *(stack for _, stack in emitted)])
    returned = ", ".join([*(f"{state}_next" for state in program.states), *(value for value, _ in emitted)])
    lines += [
        f"{scanned} = Scan<num_scan_inputs = {len(inputs)}, body = step ({received}) => ({returned}) {{",
        *inside.lines,
        f"}}>({arguments})",
        *closing,
    ]
    if not variant.spiking:
        lines.append("V = Identity(v_next_stack)")
    return [*lines, *(f"{state.upper()}_all = Identity({state}_next_stack)" for state in variant.record)]


def _spikes(
    variant: NeuronVariant, results: Mapping[str, Expression], inside: _Writer, finish: _Writer
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return what the loop emits for the spikes, and the lines that make the train of it."""
    spikes = results["s"]
    after = {f"{state}_next": Expression.name(state) for state in variant.program.states}
    names = set(spikes.names())
    if names <= set(after) | set(variant.program.parameters):
        received = _replaced(spikes, after)
        recorded = all(name in variant.record for name in (n.removesuffix("_next") for n in names & set(after)))
        if received.text in inside.known and not (recorded and names & set(after)):
            final = _Writer(finish.like, "z", finish.known)
            last = final.value(_replaced(spikes, {n: Expression.name(f"{n.removesuffix('_next')}T") for n in after}))
            return [(inside.known[received.text], "received")], [
                *final.lines,
                "from_second = Constant<value = int64[1] {1}>()",
                "to_end = Constant<value = int64[1] {9223372036854775807}>()",
                "at_front = Constant<value = int64[1] {0}>()",
                "shifted = Slice(received, from_second, to_end)",
                f"last_row = Unsqueeze({last}, at_front)",
                "S = Concat<axis = 0>(shifted, last_row)",
            ]
        finish.known |= {name: f"{name}_stack" for name in names & set(after)}
        finish.give("S", spikes)
        return [], finish.lines
    below = Expression("sub", (Expression.literal(1.0), spikes))
    if _complement(below) is not None and below.text in inside.known and spikes.text not in inside.known:
        return [(inside.known[below.text], "silent")], [f"S = Sub({finish.known[_UNIT]}, silent)"]
    return [(inside.value(spikes), "S")], []


def _hoist(variant: NeuronVariant, results: Mapping[str, Expression], outside: _Writer) -> dict[str, str]:
    """Compute outside the loop what needs currents and parameters only; return what the loop scans, by text."""
    program = variant.program
    currents = set(program.currents)
    known = currents | set(program.parameters)
    scanned: dict[str, str] = {}

    def visit(expression: Expression) -> None:
        names = set(expression.names())
        if names <= known and names & currents:
            scanned.setdefault(expression.text, outside.value(expression))
            return
        for operand in expression.operands:
            visit(operand)

    for expression in results.values():
        visit(expression)
    if not scanned:
        scanned[program.currents[0]] = outside.known[program.currents[0]]
    return scanned


def folded(variant: NeuronVariant, lines: list[str]) -> list[str]:
    """Wrap the lines of the sequence form: time and batch are one axis outside."""
    schema = variant.schema
    signals = [value.name for value in schema.inputs if value.role == "signal"]
    results = [value.name for value in schema.outputs if value.role == "signal"]
    renamed = [re.sub(rf"\b({'|'.join((*signals, *results))})\b", r"\1_steps", line) for line in lines]
    opening = [
        "one = Constant<value = int64[1] {1}>()",
        "end = Constant<value = int64[1] {9223372036854775807}>()",
        "any = Constant<value = int64[1] {-1}>()",
    ]
    for signal in signals:
        opening += [
            f"{signal}_shape = Shape({signal})",
            f"{signal}_units = Slice({signal}_shape, one, end)",
            f"{signal}_split = Concat<axis = 0>(steps, any, {signal}_units)",
            f"{signal}_steps = Reshape({signal}, {signal}_split)",
        ]
    return [*opening, *renamed, *(f"{result} = Reshape({result}_steps, {signals[0]}_shape)" for result in results)]
