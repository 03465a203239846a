"""One step of neurons as linear constraints, operation by operation in the order their arithmetic has.

A threshold test is a binary variable s with the two implications ``s = 1 => u >= theta`` and ``s = 0 => u <= theta`` of
bounded u; a product of a spike and a potential is a variable with McCormick's four inequalities, which are exact for
binary s. Both sides of a test overlap by what rounding can do to u: every run of the model in floats is a point of the
program. Where nothing is rounded and all values lie on a grid, they do not overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from scipy import sparse

from snn_optimizer.exact.affine import Affine, Array, grid_of, widened
from snn_optimizer.exact.affine_rules import NotLinear
from snn_optimizer.exact.program import MixedProgram
from snn_optimizer.exact.state_bounds import separated
from snn_optimizer.ops import Expression, NeuronVariant

__all__ = ["NeuronSteps", "Step"]

SLACK: Final = 1e-7  # relative; the solver treats constraints as met within about as much
DROPPED: Final = 1e-9  # coefficients up to this size are zero to HiGHS (its option small_matrix_value)
FINEST: Final = 1e-4  # grids finer than this are not told apart from rounding


@dataclass(frozen=True, slots=True)
class Step:
    """What a step of neurons gives.

    Attributes
    ----------
    potential : Affine
        At the test that makes spikes.
    signal : Affine
    states : list of Affine
        After the step.
    fire : {"gt", "ge"}
    threshold : array or None
        What the potential is compared with; None for a readout.
    """

    potential: Affine
    signal: Affine
    states: list[Affine]
    fire: str = "gt"
    threshold: Array | None = None


@dataclass
class NeuronSteps:
    """Adds steps of neurons to a program.

    Attributes
    ----------
    program : MixedProgram
    dtype : numpy.dtype
        Of the model's floats.
    tests : dict
        Threshold tests already there, by what they compare: a reset one step later repeats a test.
    """

    program: MixedProgram
    dtype: np.dtype[Any]
    tests: dict[tuple[int, str, bytes], tuple[Affine, Affine]] = field(default_factory=dict)

    @property
    def unit(self) -> float:
        """Unit roundoff."""
        return float(np.finfo(self.dtype).eps) / 2

    def step(
        self, variant: NeuronVariant, currents: Sequence[Affine], states: Sequence[Affine],
        parameters: Mapping[str, Array], fixed: Mapping[int, float],
    ) -> Step:  # fmt: skip
        """Advance neurons by one step.

        Parameters
        ----------
        variant : NeuronVariant
        currents, states : sequence of Affine
            Of one shape.
        parameters : mapping from name to array
        fixed : mapping from neuron to 0 or 1
            Spikes that are assumed instead of tested.

        Raises
        ------
        NotLinear
            If the neuron does something that has no exact rule.
        """
        if variant.max_spikes == 0 or (variant.written and variant.max_spikes != 1):
            raise NotLinear("neurons of any number of spikes per step")
        if variant.written:
            return self._written(variant, currents, states, parameters, fixed)
        return self._plain(variant, currents, states, parameters, fixed)

    # -- the arithmetic of the known variants ----------------------------------------------

    def _plain(
        self, variant: NeuronVariant, currents: Sequence[Affine], states: Sequence[Affine],
        parameters: Mapping[str, Array], fixed: Mapping[int, float],
    ) -> Step:  # fmt: skip
        unit = self.unit
        current, received = currents[0], states[-1]
        synaptic: list[Affine] = []
        if variant.operator == "CubaLIF":
            current = states[0].scaled(parameters["alpha"], unit).plus(current, unit)
            synaptic = [current]
        if not variant.spiking:
            potential = self._charge(variant, received, current, parameters)
            return Step(potential, potential, [potential])
        threshold = parameters["v_threshold"]
        # the same test as in the step before, where the same spikes were assumed
        due = self._counts(variant, received, threshold, {}) if variant.reset_delay else None
        if due is not None and variant.reset == "to-value":
            received = self._set_to_value(due[0], received, parameters)
        potential = self._charge(variant, received, current, parameters)
        if due is not None and variant.reset == "subtract":
            potential = self._subtract(due, potential, threshold)
        counts = self._counts(variant, potential, threshold, fixed)
        after = potential
        if due is None and variant.reset == "to-value":
            after = self._set_to_value(counts[0], potential, parameters)
        elif due is None and variant.reset == "subtract":
            after = self._separated(
                variant, potential, counts[0], self._subtract(counts, potential, threshold), threshold
            )
        tested = potential if variant.max_spikes == 1 else self._relative(potential, threshold)[1]
        return Step(tested, self._total(counts), [*synaptic, after], variant.fire, threshold)

    def _separated(
        self, variant: NeuronVariant, potential: Affine, spikes: Affine, after: Affine, threshold: Array
    ) -> Affine:
        if variant.max_spikes != 1:
            return after
        limit = np.broadcast_to(threshold, potential.shape).ravel()
        room = self.dropped(after.terms)
        return separated(self.program, potential, spikes, after, self.limits(potential, variant.fire, limit), room)

    def _counts(
        self, variant: NeuronVariant, potential: Affine, threshold: Array, fixed: Mapping[int, float]
    ) -> list[Affine]:
        """Return whether there is a first, a second, ... spike in this step."""
        if variant.max_spikes == 1:
            return [self.test(potential, variant.fire, threshold, fixed)]
        if (threshold <= 0).any():
            raise NotLinear("counts of spikes with a threshold that is not positive")
        ratio = self._relative(potential, threshold)[0]
        none = {neuron: value for neuron, value in fixed.items() if value == 0}
        return [
            self.test(ratio, variant.fire, float(number), fixed if number == 1 else none)
            for number in range(1, variant.max_spikes + 1)
        ]

    def _relative(self, potential: Affine, threshold: Array) -> tuple[Affine, Affine]:
        """Return the potential in thresholds, and as it is with the roundings of that division."""
        key = (id(potential), "ratio", threshold.tobytes())
        if key not in self.tests:
            ratio = potential.scaled(1.0 / threshold, self.unit)
            self.tests[key] = potential, ratio
        ratio = self.tests[key][1]
        grid = potential.grid if ratio.roundings == 0 else None
        same = Affine(potential.shape, potential.constant, potential.terms, potential.magnitude, ratio.roundings, grid)
        return ratio, same

    def _total(self, counts: Sequence[Affine]) -> Affine:
        total = counts[0]
        for count in counts[1:]:
            total = total.plus(count, self.unit)
        return total

    def _charge(
        self, variant: NeuronVariant, potential: Affine, current: Affine, parameters: Mapping[str, Array]
    ) -> Affine:
        unit, gain = self.unit, parameters["gain"]
        if variant.arithmetic == "relax":
            difference = current.plus(potential.scaled(-1.0, unit), unit)
            return potential.plus(difference.scaled(gain, unit), unit)
        leaked = potential if variant.operator == "IF" else potential.scaled(parameters["beta"], unit)
        return leaked.plus(current.scaled(gain, unit), unit)

    def _subtract(self, counts: Sequence[Affine], potential: Affine, threshold: Array) -> Affine:
        return potential.plus(self._total(counts).scaled(-threshold, self.unit), self.unit)

    def _set_to_value(self, spikes: Affine, potential: Affine, parameters: Mapping[str, Array]) -> Affine:
        """Select the reset value where a neuron fired; nothing is rounded."""
        rest = parameters["v_reset"]
        quiet = spikes.scaled(-1.0, self.unit).plus(Affine.of(1.0), self.unit)
        kept, moved = self.multiply(quiet, potential), spikes.scaled(rest, self.unit)
        width = max(kept.terms.shape[1], moved.terms.shape[1])
        return Affine(
            kept.shape,
            kept.constant + moved.constant,
            widened(kept.terms, width) + widened(moved.terms, width),
            np.maximum(potential.magnitude, np.broadcast_to(np.abs(rest), potential.shape).ravel()),
            potential.roundings,
            None if potential.grid is None else min(potential.grid, grid_of(rest) or 0),
        )

    # -- arithmetic that is written out ----------------------------------------------------

    def _written(
        self, variant: NeuronVariant, currents: Sequence[Affine], states: Sequence[Affine],
        parameters: Mapping[str, Array], fixed: Mapping[int, float],
    ) -> Step:  # fmt: skip
        program = variant.program
        shape = np.broadcast_shapes(*(value.shape for value in (*currents, *states)))
        known: dict[str, Affine] = {name: Affine.of(parameters[name]) for name in program.parameters}
        known |= {name: value.spread(shape) for name, value in zip(program.currents, currents, strict=True)}
        known |= {name: value.spread(shape) for name, value in zip(program.states, states, strict=True)}
        fires = program.results["s"] if variant.spiking else None
        for name, expression in program.statements:
            known[name] = self._value(expression, known, fixed if expression is fires else {})
        after = [known[f"{state}_next"].spread(shape) for state in program.states]
        if fires is None:
            return Step(after[-1], after[-1], after)
        if fires.operation not in ("gt", "ge"):
            raise NotLinear("spikes that are more than one threshold test")
        potential, limit = (self._value(operand, known, {}) for operand in fires.operands)
        return Step(
            potential.spread(shape), known["s"].spread(shape), after, fires.operation, np.asarray(limit.value())
        )

    def _value(self, expression: Expression, known: Mapping[str, Affine], fixed: Mapping[int, float]) -> Affine:
        operation = expression.operation
        if operation == "name":
            return known[expression.symbol]
        if operation == "number":
            return Affine.of(np.asarray(expression.number, self.dtype))
        operands = [self._value(operand, known, fixed) for operand in expression.operands]
        if operation == "neg":
            return operands[0].scaled(-1.0, self.unit)
        if operation == "add":
            return operands[0].plus(operands[1], self.unit)
        if operation == "sub":
            return operands[0].plus(operands[1].scaled(-1.0, self.unit), self.unit)
        if operation == "mul":
            return self.multiply(operands[0], operands[1])
        if operation == "div" and operands[1].is_constant:
            inverse = 1.0 / operands[1].value()
            return operands[0].scaled(inverse, self.unit)
        if operation in ("gt", "ge", "eq"):
            return self._compared(operation, operands[0], operands[1], fixed)
        if operation == "relu":
            return self._positive_part(operands[0])
        if operation in ("max", "min"):
            first, second = (o if operation == "max" else o.scaled(-1.0, self.unit) for o in operands)
            larger = second.plus(self._positive_part(first.plus(second.scaled(-1.0, self.unit), self.unit)), self.unit)
            return larger if operation == "max" else larger.scaled(-1.0, self.unit)
        raise NotLinear(f"'{operation}' in the arithmetic of a neuron")

    def _positive_part(self, value: Affine) -> Affine:
        return self.multiply(self.test(value, "gt", 0.0, {}), value)

    def _compared(self, operation: str, left: Affine, right: Affine, fixed: Mapping[int, float]) -> Affine:
        if not right.is_constant:
            raise NotLinear("a threshold that is computed")
        if (columns := self._binary(left)) is not None and left.roundings == 0:
            limit = np.broadcast_to(right.value(), left.shape).ravel()
            compare = {"gt": np.greater, "ge": np.greater_equal, "eq": np.equal}[operation]
            slope = _slopes(left)
            low, high = compare(left.constant, limit) * 1.0, compare(left.constant + slope, limit) * 1.0
            rows = np.flatnonzero((columns >= 0) & (low != high))
            terms = sparse.csr_array(
                ((high - low)[rows], (rows, columns[rows])), shape=(left.size, left.terms.shape[1])
            )
            return Affine(left.shape, low, terms, np.maximum(low, high), 0, 0)
        if operation == "eq":
            raise NotLinear("'eq' of a potential")
        return self.test(left, operation, right.value(), fixed)

    # -- the two operations that are not linear ---------------------------------------------

    def test(self, potential: Affine, fire: str, threshold: Any, fixed: Mapping[int, float]) -> Affine:
        """Return the spikes of neurons with these potentials."""
        limit = np.broadcast_to(np.asarray(threshold, np.float64), potential.shape).ravel()
        key = (id(potential), fire, limit.tobytes())
        if key not in self.tests:  # the potential is kept too, so that its id stays its own
            self.tests[key] = potential, self._tested(potential, fire, limit, fixed)
        return self.tests[key][1]

    def limits(self, potential: Affine, fire: str, limit: Array) -> tuple[Array, Array]:
        """Return the least potential with which a neuron may fire and the largest with which it may not."""
        grid = None if potential.grid is None else min(potential.grid, grid_of(limit) or 0, 0)
        if potential.roundings == 0 and grid is not None and 2.0**grid >= FINEST:
            apart = 2.0**grid
            fires = limit + apart if fire == "gt" else limit
            return fires - apart / 4, fires - apart * 3 / 4
        slack = potential.error(self.unit) + SLACK * (1 + potential.magnitude) + self.dropped(potential.terms)
        return limit - slack, limit + slack

    def dropped(self, terms: Any) -> Array:
        """Bound what coefficients that the solver takes for zero can add up to."""
        largest = max(np.abs(self.program.low).max(initial=1.0), np.abs(self.program.high).max(initial=1.0))
        return np.asarray(DROPPED * largest * np.diff(terms.indptr))

    def _tested(self, potential: Affine, fire: str, limit: Array, fixed: Mapping[int, float]) -> Affine:
        program = self.program
        low, high = program.bounds(potential)
        fires, rests = self.limits(potential, fire, limit)
        constant = np.where(low > rests, 1.0, 0.0)
        open_ = (low <= rests) & (high >= fires)
        for neuron, value in fixed.items():
            constant[neuron], open_[neuron] = value, False
        rows = np.flatnonzero(open_)
        numbers = program.variables(np.zeros(len(rows)), np.ones(len(rows)), integral=True)
        terms = sparse.csr_array((np.ones(len(rows)), (rows, numbers)), shape=(potential.size, program.size))
        if len(rows):
            charged, spikes = widened(potential.terms, program.size)[rows], program.rows_of(numbers)
            base = potential.constant[rows]
            reach = sparse.diags_array(fires[rows] - low[rows])
            program.require(charged - reach @ spikes, low[rows] - base, np.full(len(rows), np.inf), numbers)
            rise = sparse.diags_array(high[rows] - rests[rows])
            program.require(charged - rise @ spikes, np.full(len(rows), -np.inf), rests[rows] - base, numbers)
        constant[rows] = 0.0
        magnitude = np.where(open_, 1.0, constant)
        return Affine(potential.shape, constant, terms, magnitude, 0, 0)

    def multiply(self, first: Affine, second: Affine) -> Affine:
        """Multiply, where one side is constant or depends on one binary variable per element."""
        if second.is_constant:
            return first.scaled(second.value(), self.unit)
        if first.is_constant:
            return second.scaled(first.value(), self.unit)
        shape = np.broadcast_shapes(first.shape, second.shape)
        first, second = first.spread(shape), second.spread(shape)
        for binary, other in ((first, second), (second, first)):
            columns = self._binary(binary)
            if columns is not None:
                return self._product(binary, columns, other)
        raise NotLinear("a product of two potentials")

    def _binary(self, value: Affine) -> Any:
        """Return the one binary variable of each element, -1 where it is constant; None if there is none such."""
        value.terms.eliminate_zeros()
        counts = np.diff(value.terms.indptr)
        numbers = value.terms.indices
        if (counts > 1).any():
            return None
        program = self.program
        if not (program.integral[numbers] & (program.low[numbers] == 0) & (program.high[numbers] == 1)).all():
            return None
        columns = np.full(value.size, -1, np.int64)
        columns[counts == 1] = numbers
        return columns

    def _product(self, binary: Affine, columns: Any, other: Affine) -> Affine:
        """``(c0 + c1 s) * y`` is ``c0 * y + c1 * p`` with ``p = s * y``."""
        program = self.program
        slope = _slopes(binary)
        rows = np.flatnonzero(columns >= 0)
        low, high = (end[rows] for end in program.bounds(other))
        numbers = program.variables(np.minimum(low, 0), np.maximum(high, 0), integral=False)
        picked, spikes = program.rows_of(numbers), program.rows_of(columns[rows])
        free, base = np.full(len(rows), np.inf), other.constant[rows]
        terms = widened(other.terms, program.size)[rows]
        low_diagonal, high_diagonal = sparse.diags_array(low), sparse.diags_array(high)
        program.require(picked - high_diagonal @ spikes, -free, np.zeros(len(rows)), numbers)
        program.require(picked - low_diagonal @ spikes, np.zeros(len(rows)), free, numbers)
        room = self.dropped(terms)
        program.require(picked - terms - low_diagonal @ spikes, -free, base - low + room, numbers)
        program.require(picked - terms - high_diagonal @ spikes, base - high - room, free, numbers)
        gains = np.abs(np.maximum(np.abs(binary.constant), np.abs(binary.constant + slope)))
        placed = sparse.csr_array((slope[rows], (rows, numbers)), shape=(other.size, program.size))
        kept = sparse.diags_array(binary.constant) @ widened(other.terms, program.size)
        whole = bool(np.isin(np.concatenate([binary.constant, binary.constant + slope]), (-1.0, 0.0, 1.0)).all())
        exact = whole and other.roundings == 0 and other.grid is not None
        return Affine(
            other.shape,
            binary.constant * other.constant,
            sparse.csr_array(kept + placed),
            gains * other.magnitude,
            other.roundings + (0 if whole else binary.roundings + 1),
            other.grid if exact else None,
        )


def _slopes(value: Affine) -> Array:
    """Return the only coefficient of each element."""
    return np.asarray(value.terms.sum(axis=1)).ravel()
