"""Explain a first step that the exporter folded: find the initial states that give it.

At step 0 the states are known, and exporters simplify: ``0 + x`` becomes ``x``, ``beta * 0`` a
constant. Then some nodes of the step have no counterpart at step 0. Each is replaced by what
its readers read there, and that must be what the node computes from *some* initial states:

* ``a + b`` that is ``b`` needs ``a == -0.0``, which changes no bit of any ``b``; ``a - b`` that is
  ``a`` needs ``b == 0``; ``a * b`` that is ``b`` needs ``a == 1``; ``max(a, b)`` that is ``b`` needs
  ``a == -inf``;
* a node of the same operator needs its operands to agree;
* a value that is known needs the node to compute it from the initial states.

States that nothing determines start at zero; what they then give is computed in the
element type of the model and compared exactly. Where such a result is added as ``0.0`` it turns ``-0.0``
into ``0.0``, the only freedom taken.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from snn_optimizer.ir import Array, Value, is_constant
from snn_optimizer.raising.loop import Lane, Loop, Operand
from snn_optimizer.raising.shift import COMMUTATIVE, Shift, origin, producer_of
from snn_optimizer.raising.slices import Step
from snn_optimizer.raising.uniform import apply, uniform

__all__ = ["FirstStep", "Unexplained"]

_NEUTRAL = {"Add": -0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0, "Max": -np.inf, "Min": np.inf}


class Unexplained(Exception):  # noqa: N818 - control flow between this module and its caller
    """No initial states were found that give the first step."""


class FirstStep:
    """Absorbs the first step of a loop that has no node there for some lanes."""

    def __init__(self, loop: Loop, shift: Shift, steps: Mapping[int, Step]) -> None:
        self.loop = loop
        self.shift = shift
        self.steps = steps
        self.required: list[tuple[Lane, float]] = []
        self.known: dict[int, Array | None] = {}

    def absorb(self) -> None:
        """Explain every missing lane, readers before what they read.

        Raises
        ------
        Unexplained
            If a lane cannot be explained; the loop must then start a step later.
        """
        for lane in reversed(self.loop.lanes):
            value = self.loop.missing.get(id(lane))
            if value is not None:
                self._explain(lane, value)
        for lane in self.loop.lanes:
            for operand in self.loop.operands[id(lane)]:
                if operand.lag and operand.lane is not None:
                    self._settle(operand)
        for lane, number in self.required:
            found = self._evaluate(lane)
            if found is None or not bool((found == number).all()):
                raise Unexplained
        for key, value in self.loop.missing.items():
            lane = next(lane for lane in self.loop.lanes if id(lane) == key)
            fill = uniform(value)
            if fill is not None:
                found = self._evaluate(lane)
                if found is None or not bool(np.all(found == fill)):
                    raise Unexplained

    # ---------------------------------------------------------------- matching

    def _explain(self, lane: Lane, value: Value) -> None:
        """Require what makes ``lane`` compute ``value`` at the first step."""
        if uniform(value) is not None:
            return  # compared by computation once all states are settled
        operands = self.loop.operands[id(lane)]
        model = lane.nodes[-1]
        producer = producer_of(value)
        if producer is not None and self.shift.key(producer) == self.shift.key(model):
            orders = [list(producer.inputs)]
            if model.op in COMMUTATIVE and not model.domain:
                orders.append(list(reversed(producer.inputs)))
            for order in orders:
                if all(map(self._may_be, operands, order)):
                    for operand, read in zip(operands, order, strict=True):
                        self._require(operand, read)
                    return
        if model.domain or model.op not in _NEUTRAL or len(operands) != 2:
            raise Unexplained
        neutral = _NEUTRAL[model.op]
        sides = ((1, 0), (0, 1)) if model.op in COMMUTATIVE else ((0, 1),)
        for kept, gone in sides:
            if self._may_be(operands[kept], value) and self._may_be_number(operands[gone]):
                self._require(operands[kept], value)
                self._require_number(operands[gone], neutral)
                return
        raise Unexplained

    def _may_be(self, operand: Operand, value: Value) -> bool:
        """Tell whether an operand could be ``value`` at the first step."""
        if operand.value is not None:
            return self.shift.same(operand.value, value)
        if operand.step is not None:
            step = self.steps.get(id(origin(value)))
            return step is not None and step.train == operand.step.train and step.index == operand.step.index
        assert operand.lane is not None  # the third kind
        if operand.lag:
            known = operand.past.get(operand.lag)
            return self.shift.same(known, value) if known is not None else uniform(value) is not None
        node = operand.lane.at(self.loop.first)
        if node is not None:
            return node.outputs[operand.output] is origin(value)
        assigned = self.loop.missing.get(id(operand.lane))
        return assigned is None or self.shift.same(assigned, value)

    def _may_be_number(self, operand: Operand) -> bool:
        return operand.lane is not None or (operand.value is not None and is_constant(operand.value))

    def _require(self, operand: Operand, value: Value) -> None:
        if operand.lane is None:
            return
        if operand.lag:
            operand.past.setdefault(operand.lag, value)
        elif operand.lane.at(self.loop.first) is None:
            self.loop.missing.setdefault(id(operand.lane), value)

    def _require_number(self, operand: Operand, number: float) -> None:
        if operand.lane is None:
            known = None if operand.value is None else uniform(operand.value)
            if known is None or not bool(np.all(known == number)):
                raise Unexplained
        elif operand.lag:
            known = uniform(operand.past[operand.lag]) if operand.lag in operand.past else None
            if operand.lag in operand.past and (known is None or not bool(np.all(known == number))):
                raise Unexplained
            operand.fill = number
        else:
            self.required.append((operand.lane, number))

    def _settle(self, operand: Operand) -> None:
        """Let a state that nothing determines start at zero."""
        if operand.lag > 1 and len(operand.past) < operand.lag:
            raise Unexplained
        if operand.lag == 1 and not operand.past and operand.fill is None:
            operand.fill = 0.0

    # -------------------------------------------------------------- evaluation

    def _evaluate(self, lane: Lane) -> Array | None:
        """Return what a lane computes at the first step, where only known numbers go in."""
        if id(lane) in self.known:
            return self.known[id(lane)]
        self.known[id(lane)] = None
        node = lane.at(self.loop.first)
        found = uniform(node.outputs[0]) if node is not None else None
        if found is None and node is None:
            arrays = [self._operand_value(operand) for operand in self.loop.operands[id(lane)]]
            known = [array for array in arrays if array is not None]
            found = apply(lane.nodes[-1], known) if len(known) == len(arrays) else None
        self.known[id(lane)] = found
        return found

    def _operand_value(self, operand: Operand) -> Array | None:
        if operand.value is not None:
            return uniform(operand.value)
        if operand.lane is None:
            return None
        if operand.lag == 0:
            return self._evaluate(operand.lane)
        if operand.lag in operand.past:
            return uniform(operand.past[operand.lag])
        return None if operand.fill is None else np.asarray(operand.fill, self.loop.dtype(operand.lane, operand.output))
