"""What written arithmetic means: decay, gain, threshold and reset, read off by symbolic interpretation.

A step is interpreted as affine in states and currents, once for each outcome of its threshold
tests. The test that makes the spikes gives the charged potential and the threshold; what the
state after the step is with and without a spike gives the reset. Coefficients are numbers per
neuron, computed in double precision from the parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.ops.arithmetic import Expression, Program

__all__ = ["Meaning", "NotUnderstood", "meaning"]

Array = npt.NDArray[np.float64]
Affine = dict[str, Array]

ONE = "1"
COUNT = "n"
_MOST_TESTS = 4
_CLOSE = 1e-5


class NotUnderstood(ValueError):  # noqa: N818 - not an error of the program
    """The arithmetic is no neuron of a known kind; the message says why."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """A neuron in the terms of the field.

    Attributes
    ----------
    operator : {"LIF", "IF", "LI", "CubaLIF"}
    reset, reset_delay, fire, max_spikes
        As in :class:`~snn_optimizer.ops.variants.NeuronVariant`.
    charge : dict
        Coefficients of the charged potential: of the states, the currents and ``1``.
    synaptic : dict
        Coefficients of the synaptic current after the step; empty without one.
    v_threshold, v_reset : array or None
    clamped : bool
        Whether the potential has a floor.
    """

    operator: str
    reset: str
    reset_delay: int
    fire: str
    max_spikes: int
    charge: Affine
    synaptic: Affine
    v_threshold: Array | None
    v_reset: Array | None
    clamped: bool

    @property
    def beta(self) -> Array:
        """Decay of the membrane per step."""
        return self.charge.get("v", np.zeros(()))


@dataclass
class _Run:
    """One interpretation, for given outcomes of the tests."""

    values: dict[str, Affine]
    outcomes: Mapping[str, float]
    tests: dict[str, tuple[str, Affine, Affine]] = field(default_factory=dict)
    counted: dict[str, Affine] = field(default_factory=dict)
    clamped: bool = False

    def evaluate(self, expression: Expression) -> Affine:
        operation = expression.operation
        if operation == "name":
            return self.values[expression.symbol]
        if operation == "number":
            return {ONE: np.asarray(expression.number)}
        if operation in ("gt", "ge", "eq"):
            return self._test(expression)
        if operation == "mul" and (count := _count_operand(expression)) is not None:
            return self._count(count)
        if operation == "trunc":
            return self._count(expression.operands[0])
        operands = [self.evaluate(operand) for operand in expression.operands]
        if operation == "relu":
            self.clamped = True
            return operands[0]
        if operation == "neg":
            return _scaled(operands[0], np.asarray(-1.0))
        if operation in ("add", "sub"):
            sign = np.asarray(1.0 if operation == "add" else -1.0)
            return _sum(operands[0], _scaled(operands[1], sign))
        if operation == "mul":
            for one, other in (operands, operands[::-1]):
                if set(one) <= {ONE}:
                    return _scaled(other, one.get(ONE, np.zeros(())))
        if operation == "div" and set(operands[1]) <= {ONE}:
            return _scaled(operands[0], 1.0 / operands[1].get(ONE, np.zeros(())))
        raise NotUnderstood(f"'{expression.text}' is not affine in states and currents")

    def _test(self, expression: Expression) -> Affine:
        first, second = (self.evaluate(operand) for operand in expression.operands)
        if set(first) <= {ONE} and set(second) <= {ONE}:  # a test of an outcome, as eq(s, 0)
            return {ONE: np.asarray(_compare(expression.operation, first, second), np.float64)}
        text = expression.text
        self.tests[text] = (expression.operation, first, second)
        return {ONE: np.asarray(self.outcomes.get(text, 0.0))}

    def _count(self, argument: Expression) -> Affine:
        self.counted[argument.text] = self.evaluate(argument)
        return {COUNT: np.ones(())}


def _compare(operation: str, first: Affine, second: Affine) -> Any:
    left, right = first.get(ONE, np.zeros(())), second.get(ONE, np.zeros(()))
    return {"gt": left > right, "ge": left >= right, "eq": left == right}[operation]


def _count_operand(expression: Expression) -> Expression | None:
    """Return q of ``floor(abs(q)) * sign(q)``, which drops the fraction of q."""
    for first, second in (expression.operands, expression.operands[::-1]):
        if first.operation == "floor" and first.operands[0].operation == "abs" and second.operation == "sign":
            inner = first.operands[0].operands[0]
            if inner.text == second.operands[0].text:
                return inner
    return None


def _scaled(value: Affine, factor: Array) -> Affine:
    return {name: coefficient * factor for name, coefficient in value.items()}


def _sum(first: Affine, second: Affine) -> Affine:
    total = dict(first)
    for name, coefficient in second.items():
        total[name] = total[name] + coefficient if name in total else coefficient
    return total


def _differs(first: Affine, second: Affine) -> Affine:
    """Return the terms in which two affine values differ by more than rounding."""
    found: Affine = {}
    for name in {**first, **second}:
        one, other = first.get(name, np.zeros(())), second.get(name, np.zeros(()))
        if not np.allclose(one, other, rtol=_CLOSE, atol=_CLOSE):
            found[name] = np.asarray(one - other)
    return found


def meaning(program: Program, parameters: Mapping[str, npt.ArrayLike]) -> Meaning:
    """Read what a program with these parameters means.

    Parameters
    ----------
    program : Program
    parameters : mapping from name to array
        All parameters of the program; they broadcast into the shape of the neurons.

    Raises
    ------
    NotUnderstood
        If it is no neuron of a known kind.
    """
    missing = [name for name in program.parameters if name not in parameters]
    if missing:
        raise NotUnderstood(f"'{missing[0]}' is computed at run time")
    return _Reader(program, {name: np.asarray(value, np.float64) for name, value in parameters.items()}).read()


class _Reader:
    def __init__(self, program: Program, parameters: Mapping[str, Array]) -> None:
        self.program = program
        self.parameters = parameters

    def run(self, outcomes: Mapping[str, float]) -> _Run:
        values: dict[str, Affine] = {name: {ONE: value} for name, value in self.parameters.items()}
        values |= {name: {name: np.ones(())} for name in (*self.program.currents, *self.program.states)}
        run = _Run(values, outcomes)
        with np.errstate(all="ignore"):
            for name, expression in self.program.statements:
                run.values[name] = run.evaluate(expression)
        return run

    def read(self) -> Meaning:
        quiet = self.run({})
        if len(quiet.tests) > _MOST_TESTS:
            raise NotUnderstood(f"it has {len(quiet.tests)} threshold tests")
        synaptic = dict(quiet.values["i_next"]) if "i" in self.program.states else {}
        self._check_synaptic(synaptic)
        if "s" not in self.program.results:
            if quiet.tests or quiet.counted:
                raise NotUnderstood("it tests thresholds and gives no spikes")
            return self._readout(quiet, synaptic)
        fired = [text for text in quiet.tests if self.run({text: 1.0}).values["s"] != quiet.values["s"]]
        if len(fired) != 1:
            raise NotUnderstood(f"{len(fired)} threshold tests make the spikes, not one")
        return self._spiking(quiet, fired[0], synaptic)

    def _check_synaptic(self, synaptic: Affine) -> None:
        if synaptic.get("v") is not None and np.any(synaptic["v"]):
            raise NotUnderstood("the synaptic current depends on the membrane")
        for text in itertools.islice(self.run({}).tests, _MOST_TESTS):
            after = self.run({text: 1.0}).values.get("i_next", {})
            if _differs(after, synaptic):
                raise NotUnderstood("a spike changes the synaptic current")

    def _readout(self, quiet: _Run, synaptic: Affine) -> Meaning:
        charge = dict(quiet.values["v_next"])
        if not set(charge) & {*self.program.currents, "i"}:
            raise NotUnderstood("the potential does not integrate a current")
        return Meaning("LI", "subtract", 0, "gt", 1, charge, synaptic, None, None, quiet.clamped)

    def _spiking(self, quiet: _Run, fire: str, synaptic: Affine) -> Meaning:
        operation, left, right = quiet.tests[fire]
        if operation == "eq":
            raise NotUnderstood("spikes are made by a test for equality")
        counted = list(quiet.counted.values())
        if counted:
            return self._counting(quiet, fire, counted, synaptic)
        if not set(right) <= {ONE} or not {"v"} & set(left):
            raise NotUnderstood("the threshold test does not compare a potential with a number")
        threshold = right.get(ONE, np.zeros(()))
        delayed = [text for text in quiet.tests if text != fire]
        if len(delayed) > 1:
            raise NotUnderstood(f"{len(delayed)} tests besides the one that makes spikes")
        if delayed:
            return self._delayed(quiet, fire, delayed[0], synaptic)
        after, spiked = quiet.values["v_next"], self.run({fire: 1.0}).values["v_next"]
        reset, value = self._reset(left, after, spiked, threshold)
        return self._result(reset, 0, operation, 1, left, synaptic, threshold, value, quiet)

    def _reset(self, charge: Affine, after: Affine, spiked: Affine, threshold: Array) -> tuple[str, Array | None]:
        if _differs(after, charge):
            return "other", None
        change = _differs(spiked, after)
        if not change:
            return "none", None
        if set(change) <= {ONE} and np.allclose(change[ONE], -threshold, rtol=_CLOSE, atol=_CLOSE):
            return "subtract", None
        rest = {name: coefficient for name, coefficient in spiked.items() if np.any(np.abs(coefficient) > _CLOSE)}
        if set(rest) <= {ONE}:
            return "to-value", np.asarray(rest.get(ONE, np.zeros(())))
        return "other", None

    def _delayed(self, quiet: _Run, fire: str, before: str, synaptic: Affine) -> Meaning:
        operation, left, right = quiet.tests[fire]
        threshold = right.get(ONE, np.zeros(()))
        earlier, state, limit = quiet.tests[before]
        same = earlier == operation and not _differs(state, {"v": np.ones(())}) and not _differs(limit, right)
        both = self.run({before: 1.0})
        change = _differs(both.tests[fire][1], left)
        kept = not _differs(quiet.values["v_next"], left) and not _differs(
            self.run({fire: 1.0}).values["v_next"], quiet.values["v_next"]
        )
        reset: str = "other"
        value: Array | None = None
        if same and kept:
            if set(change) <= {ONE} and np.allclose(change.get(ONE, 0.0), -threshold, rtol=_CLOSE, atol=_CLOSE):
                reset = "subtract"
            elif np.allclose(both.tests[fire][1].get("v", np.zeros(())), 0.0, atol=_CLOSE):
                moved = both.tests[fire][1].get(ONE, np.zeros(())) - left.get(ONE, np.zeros(()))
                beta = left["v"]
                with np.errstate(all="ignore"):
                    value = np.where(np.abs(beta) > 0, moved / np.where(beta == 0, 1.0, beta), 0.0)
                reset = "to-value"
        return self._result(reset, 1, operation, 1, left, synaptic, threshold, value, quiet)

    def _counting(self, quiet: _Run, fire: str, counted: list[Affine], synaptic: Affine) -> Meaning:
        _, left, right = quiet.tests[fire]
        if len(counted) != 1 or set(right) - {ONE} or np.any(right.get(ONE, np.zeros(()))):
            raise NotUnderstood("several spikes are counted in a way that is not known")
        with np.errstate(all="ignore"):
            threshold = left["v"] / counted[0]["v"] if {"v"} <= set(left) & set(counted[0]) else None
        if threshold is None or _differs(left, _scaled(counted[0], threshold)):
            raise NotUnderstood("the count of spikes is no multiple of the charged potential")
        spiked = self.run({fire: 1.0}).values["v_next"]
        change = _differs({k: v for k, v in spiked.items() if k != COUNT}, left)
        taken = spiked.get(COUNT, np.zeros(()))
        subtracts = not change and np.allclose(taken, -threshold, rtol=_CLOSE, atol=_CLOSE)
        return self._result(
            "subtract" if subtracts else "other", 0, "ge", 0, left, synaptic, np.asarray(threshold), None, quiet
        )

    def _result(
        self, reset: str, delay: int, fire: str, most: int, charge: Affine, synaptic: Affine,
        threshold: Array, value: Array | None, quiet: _Run,
    ) -> Meaning:  # fmt: skip
        if "n" in charge or (set(charge) - {"v", "i", ONE} and not set(charge) & set(self.program.currents)):
            raise NotUnderstood("the potential does not integrate a current")
        operator = "CubaLIF" if synaptic else "LIF"
        if not synaptic and np.all(charge.get("v", np.zeros(())) == 1.0):
            operator = "IF"
        return Meaning(operator, reset, delay, fire, most, charge, synaptic, threshold, value, quiet.clamped)
