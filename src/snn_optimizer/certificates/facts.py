"""What is known about every value of a network before anything is cut: bounds, and which units are cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import numpy_helper

from snn_optimizer.certificates.affine import Affine, affine_at
from snn_optimizer.certificates.intervals import Ends, hull, linear
from snn_optimizer.certificates.membranes import Judged, Neuron, judge
from snn_optimizer.certificates.network import RESHAPES, Array, Made, Network
from snn_optimizer.certificates.scans import SLICE, STACK, STATE
from snn_optimizer.certificates.signals import (
    CutUnits,
    Gaps,
    NotFollowed,
    Signal,
    joined,
    regrouped,
    side_by_side,
    tail_of,
)

__all__ = ["Facts"]

_SAME = ("Identity", "Dropout", "Relu")
_SHAPE = (*RESHAPES, "Transpose", "Expand")


class Facts:
    """Bounds of the values of one network and judgements of its populations.

    Parameters
    ----------
    network : Network
    domain : mapping from input name to Ends
    cuts : mapping from population name to CutUnits
    """

    def __init__(self, network: Network, domain: Mapping[str, Ends], cuts: Mapping[str, CutUnits]) -> None:
        self.network, self.domain = network, domain
        self.cuts: dict[str, CutUnits] = dict(cuts)
        self.judged: dict[str, Judged] = {}
        self._signals: dict[str, Signal] = {}
        self._neurons: dict[str, Neuron | None] = {}
        self._bounded: dict[str, tuple[Ends, Ends]] = {}  # what linear maps read, and make of it

    def claim(self, population: str, cut: CutUnits) -> None:
        """Take a claim for granted, and forget what followed without it."""
        self.cuts[population] = cut
        self.judged.clear()
        self._signals.clear()
        self._neurons.clear()

    def units(self, made: Made) -> int:
        """Return how many units a population has."""
        tail = self._units_on(made)
        return tail[0] if tail else 1

    def _units_on(self, made: Made) -> tuple[int, ...]:
        """Return the sizes of the axes of a population's signal that are not time and samples."""
        return self.network.shape(made.node.output[0])[self.network.variant(made).axes_before_units :]

    def judge(self, made: Made) -> Judged:
        """Return what is proved about a population, from the cuts before it."""
        name = self.network.population_name(made.node)
        if name not in self.judged:
            for value in self._needs(made.node.output[0]):
                self.signal(value)
            self.judged[name] = self._judge(made, self._units_on(made))
        return self.judged[name]

    def signal(self, value: str) -> Signal:
        """Return what is known about a value."""
        pending = [value]
        while pending:  # without recursion: networks are deep
            name = pending[-1]
            missing = [] if name in self._signals else [n for n in self._needs(name) if n not in self._signals]
            if missing:
                pending.extend(missing)
                continue
            pending.pop()
            if name not in self._signals:
                self._signals[name] = self._found(name)
        return self._signals[value]

    def _needs(self, value: str) -> list[str]:
        made = self.network.made.get(value)
        if made is None or self.network.constant(value) is not None:
            return []
        affine = affine_at(self.network, value)
        if affine is not None:
            return [affine.source]
        if made.op == STATE:  # what the last step returned is known by what is claimed of it
            return [name for name in made.inputs[:1] if self.network.constant(name) is None]
        return [name for name in made.inputs if name and self.network.constant(name) is None]

    def _found(self, value: str) -> Signal:
        constant = self.network.constant(value)
        if constant is not None:
            if constant.dtype.kind not in "fiub" or not constant.size:
                return Signal(Ends.unknown())
            return Signal(Ends.of(constant.min(), constant.max()))
        made = self.network.made.get(value)
        if made is None:
            ends = self.domain.get(value, Ends.unknown())
            size = ends.low.size
            return Signal(ends, (size,) if size > 1 else (), whole=None)
        if value in self._population_values(made):
            return self._population(made, value)
        affine = affine_at(self.network, value)
        if affine is not None:
            return self._linear(affine, value)
        return self._elsewhere(made, value)

    @staticmethod
    def _population_values(made: Made) -> list[str]:
        return list(made.node.output) if made.is_neuron else []

    # -- linear maps -----------------------------------------------------------------------

    def _linear(self, affine: Affine, value: str) -> Signal:
        source = self._signals[affine.source]
        ends = source.ends.with_zero() if affine.padded else source.ends
        rows, columns, kernel = affine.weights.shape
        if affine.groups > 1 and ends.low.size > 1:
            per_group = np.arange(rows) // (rows // affine.groups) * columns
            index = per_group[:, np.newaxis] + np.arange(columns)
            ends = Ends(np.repeat(ends.low[index], kernel, axis=1), np.repeat(ends.high[index], kernel, axis=1))
        elif ends.low.size > 1:
            if columns % ends.low.size:
                raise NotFollowed(f"'{affine.name}' reads {columns} inputs of {ends.low.size} units")
            ends = ends.repeated(columns // ends.low.size).repeated(kernel)
        # most claims change nothing here: bounds are a pass over all weights
        known = self._bounded.get(value)
        if known is None or not known[0].equals(ends):
            bounds = linear(affine.weights.reshape(rows, -1), affine.bias, affine.reach, ends, 2 * affine.fused)
            known = self._bounded[value] = ends, bounds
        shape = self.network.shape(value)
        tail = shape[-1:] if affine.kind == "dense" else shape[1:]
        return Signal(known[1], tuple(tail))

    # -- populations -----------------------------------------------------------------------

    def _population(self, made: Made, value: str) -> Signal:
        variant = self.network.variant(made)
        tail = self._units_on(made)
        name = self.network.population_name(made.node)
        units = tail[0] if tail else 1
        judged = self.judge(made)
        cut = self.cuts.get(name)
        if cut is not None and len(cut.twin) != units:
            raise NotFollowed(f"population '{name}' has {units} units, not {len(cut.twin)}")
        if value != made.node.output[0] or not variant.spiking:
            return Signal(Ends.unknown(), tail, None if cut is None else Gaps.of(cut))
        most = float(variant.max_spikes) if variant.max_spikes else np.inf
        low, high = np.where(judged.always, 1.0, 0.0), np.where(judged.never, 0.0, most)
        if cut is not None:  # what is only assumed counts too: what follows from it is marked with it
            low, high = np.where(cut.always, 1.0, low), np.where(cut.silent, 0.0, high)
        gaps = None if cut is None else Gaps.of(cut)
        return Signal(Ends.of(np.broadcast_to(low, (units,)), np.broadcast_to(high, (units,))), tail, gaps, 0)

    def neuron(self, made: Made) -> Neuron | None:
        """Return a population in the terms of the field, None where it is not understood or does not spike."""
        self.judge(made)
        return self._neurons[self.network.population_name(made.node)]

    def _judge(self, made: Made, tail: tuple[int, ...]) -> Judged:
        variant, units = self.network.variant(made), tail[0] if tail else 1
        current = self._signals[made.inputs[0]].ends if variant.currents == 1 else Ends.unknown()
        if current.low.size not in (1, units):
            raise NotFollowed(f"the current of '{made.node.name}' has {current.low.size} units, not {units}")
        given: dict[str, Ends] = {}
        exact: dict[str, Array] = {}
        for declared, name in zip(variant.schema.inputs, made.inputs, strict=True):
            if declared.role in ("signal", "steps"):
                continue
            value = self._start_of(name, made)
            constant = self.network.constant(value)
            if constant is None:
                ends = self.signal(value).ends
                given[declared.name] = ends if ends.low.size == 1 else hull(ends)
                continue
            given[declared.name], fixed = _per_unit(constant, tail)
            if fixed is not None:
                exact[declared.name] = fixed
        neuron = self._neurons[self.network.population_name(made.node)] = Neuron.read(variant, given, exact)
        nothing = np.zeros(units, np.bool_)
        if neuron is None:
            unbounded = np.full(units, np.inf)
            return Judged(nothing, nothing, unbounded, -unbounded, unbounded)
        found = judge(neuron, current, self._steps(made))
        if len(found.never) not in (1, units):
            raise NotFollowed(f"the parameters of '{made.node.name}' are not those of {units} units")
        return found.spread(units)

    def constant_of(self, value: str, made: Made) -> Array | None:
        """Return a parameter of a population, or what its state starts with, where that is a constant."""
        value = self._start_of(value, made)
        constant = self.network.constant(value)
        if constant is not None:
            return constant
        spread = self.network.made.get(value)
        if spread is not None and spread.op == "Expand":
            return self.network.constant(spread.inputs[0])
        if spread is not None and spread.op == "ConstantOfShape":
            return self._filled(spread).low
        return None

    def _start_of(self, value: str, made: Made) -> str:
        """Return what a state starts with that a loop carries for this population and nothing else."""
        state = self.network.made.get(value)
        if state is None or state.op != STATE:
            return value
        returned = self.network.made.get(self.network.source(state.inputs[1]))
        if returned is None or returned.node is not made.node or not returned.position:
            return value
        return state.inputs[0]

    def constants(self, made: Made) -> dict[str, Any]:
        """Return what the bounds of a population were computed from: its kind, steps and the hull of its parameters."""
        variant = self.network.variant(made)
        found: dict[str, Any] = {"neuron": variant.op_type, "steps": self._steps(made)}
        for declared, name in zip(variant.schema.inputs, made.inputs, strict=True):
            constant = self.network.constant(name)
            if declared.role not in ("signal", "steps") and constant is not None:
                found[declared.name] = [float(constant.min()), float(constant.max())]
        return found

    def _steps(self, made: Made) -> int | None:
        """Return the number of steps, None where the model leaves it open."""
        variant = self.network.variant(made)
        if variant.form == "cell":
            return None  # one step of a loop, or of nobody knows which run
        if variant.form == "flat":
            count = self.network.constant(made.inputs[-1])
            return None if count is None else int(count.reshape(-1)[0])
        sizes = {run[made.node.output[0]][0] for run in self.network.shapes.values()}
        return sizes.pop() if len(sizes) == 1 else None

    # -- everything else -------------------------------------------------------------------

    def _elsewhere(self, made: Made, value: str) -> Signal:
        signals = [self._signals[name] for name in made.inputs if name in self._signals]
        first = signals[0] if signals else Signal(Ends.unknown())
        if made.op in (SLICE, STACK):
            return first
        if made.op == STATE:
            return self._state(made)
        spread = made.op == "Expand" and self.network.constant(made.inputs[0]) is not None
        if spread or made.op == "ConstantOfShape":
            return Signal(self._filled(made))
        if made.op in _SAME and not made.position:
            return replace(first, ends=Ends.of(np.maximum(first.ends.low, 0), np.maximum(first.ends.high, 0))
                           if made.op == "Relu" else first.ends)  # fmt: skip
        if made.op in _SHAPE:
            return self._reshaped(made, first, value)
        if made.op in ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool") and not made.position:
            return self._pooled(made, first, value)
        if made.op == "Add" and len(signals) == 2:
            return self._added(made, *signals)
        if made.op == "Concat":
            return self._concatenated(made, value)
        if made.op == "Gather" and first.cut is None:
            return Signal(hull(first.ends), whole=first.whole)
        if any(signal.cut is not None for signal in signals):
            raise NotFollowed(f"units cannot be followed through {made.op} '{made.node.name}'")
        return Signal(Ends.unknown())

    def _filled(self, made: Made) -> Ends:
        """Return the bounds of a constant that is spread."""
        if made.op == "Expand":
            return self._found(made.inputs[0]).ends
        filled = made.attributes.get("value")
        number = 0.0 if filled is None else float(numpy_helper.to_array(filled).reshape(-1)[0])
        return Ends.of(number, number)

    def _state(self, made: Made) -> Signal:
        """Return what is known about a value of the last step.

        Spikes: what is claimed of the units that are gone holds after each step because it is proved to follow, so
        if it holds of the start, induction over the steps carries it. Nothing else is claimed.
        """
        source = self.network.source(made.inputs[1])
        population = self.network.made.get(source)
        if population is None or not population.is_neuron:
            return Signal(Ends.unknown())
        variant = self.network.variant(population)
        tail = self.network.shape(source)[1:]
        cut = self.cuts.get(self.network.population_name(population.node))
        if population.position or not variant.spiking:
            return Signal(Ends.unknown(), tail, None if cut is None else Gaps.of(cut))
        start = self._signals[made.inputs[0]] if made.inputs[0] in self._signals else self._found(made.inputs[0])
        low, high = float(start.ends.low.min()), float(start.ends.high.max())
        most = float(variant.max_spikes) if variant.max_spikes else np.inf
        units = tail[0] if tail else 1
        silent = np.zeros(units, np.bool_) if cut is None or (low, high) != (0.0, 0.0) else cut.silent
        ends = Ends.of(np.full(units, min(low, 0.0)), np.where(silent, 0.0, max(high, most)))
        gaps = None if cut is None else Gaps(cut.kept, np.where(silent, 0.0, np.nan), cut.twin)
        return Signal(ends, tail, gaps, 0 if (low, high) in ((0.0, 0.0), (0.0, 1.0)) else None)

    def _reshaped(self, made: Made, source: Signal, value: str) -> Signal:
        if not source.tail:
            return replace(source, ends=source.ends if source.ends.low.size == 1 else hull(source.ends))
        before, after = self.network.shape(made.inputs[0]), self.network.shape(value)
        if made.op == "Transpose":
            order = list(made.attributes.get("perm", range(len(before))[::-1]))
            lead = len(before) - len(source.tail)
            if order[lead:] == list(range(lead, len(before))):
                return source
        elif made.op == "Expand":
            if after[len(after) - len(source.tail) :] == source.tail:
                return source
        else:
            tail = tail_of(after, int(np.prod(source.tail)))
            if tail is not None and (found := regrouped(source, tail)) is not None:
                return found
        if source.cut is not None:
            raise NotFollowed(f"units cannot be followed through {made.op} '{made.node.name}'")
        return Signal(hull(source.ends), whole=source.whole)

    def _pooled(self, made: Made, source: Signal, value: str) -> Signal:
        shape = self.network.shape(value)
        tail = shape[1:] if source.tail else ()
        padded = any(made.attributes.get("pads", ())) or made.attributes.get("auto_pad", b"NOTSET") not in (
            b"NOTSET",
            b"VALID",
        )
        ends = source.ends
        whole = source.whole
        if "Average" in made.op:
            ends = (ends.with_zero() if padded or made.attributes.get("ceil_mode", 0) else ends).opened(
                np.where((ends.low == ends.high) & np.isin(ends.low, (0, 1)), 0.0, 1e-5 * ends.size)
            )
            window = int(np.prod(made.attributes.get("kernel_shape", ())))
            exact = made.op == "AveragePool" and window & (window - 1) == 0 and not padded
            whole = None if whole is None or not exact else whole - (window.bit_length() - 1)
        cut = source.cut
        if cut is not None and cut.holds_more_than_zeros and (padded or made.attributes.get("ceil_mode", 0)):
            raise NotFollowed(f"'{made.node.name}' pads what always fires with zeros")
        return Signal(ends, tail, cut, whole)

    def _concatenated(self, made: Made, value: str) -> Signal:
        """Put the positions of several values in one row."""
        signals = [self._signals.get(name, Signal(Ends.unknown())) for name in made.inputs]
        shapes = [self.network.shape(name) for name in made.inputs]
        shape = self.network.shape(value)
        axis = int(made.attributes.get("axis", 0)) % len(shape)
        lead = {len(dims) - len(each.tail) for dims, each in zip(shapes, signals, strict=True) if each.tail}
        if lead != {axis}:
            if any(each.cut is not None for each in signals):
                raise NotFollowed(f"'{made.node.name}' puts signals together along another axis than that of the units")
            return Signal(Ends.unknown())
        sizes = [dims[axis] for dims in shapes]
        low, high = (
            np.concatenate([np.broadcast_to(end, (n,)) for n, end in zip(sizes, ends, strict=True)])
            for ends in ([each.ends.low for each in signals], [each.ends.high for each in signals])
        )
        known = [each.whole for each in signals if each.whole is not None]
        whole = min(known) if len(known) == len(signals) else None
        if all(each.cut is None for each in signals):
            return Signal(Ends(low, high), shape[axis:], None, whole)
        return Signal(Ends(low, high), shape[axis:], side_by_side(signals, sizes), whole)

    def _added(self, made: Made, first: Signal, second: Signal) -> Signal:
        if first.tail and second.tail and first.tail != second.tail:
            if first.cut is not None or second.cut is not None:
                raise NotFollowed(f"'{made.node.name}' adds signals of different shape")
            return Signal(Ends.unknown())
        ends = first.ends.plus(second.ends)
        # sums of spikes are exact
        exact = first.whole is not None and second.whole is not None
        if exact:
            ends = Ends.of(first.ends.low + second.ends.low, first.ends.high + second.ends.high)
        cut = joined(first, second, str(made.node.name))
        return Signal(ends, first.tail or second.tail, cut, min(first.whole or 0, second.whole or 0) if exact else None)


def _per_unit(constant: Array, tail: tuple[int, ...]) -> tuple[Ends, Array | None]:
    """Return bounds of a parameter per unit, and its numbers where they are the same at all positions of a unit."""
    values = constant.astype(np.float64)
    if values.size == 1:
        return Ends.of(values.reshape(-1), values.reshape(-1)), values.reshape(-1)
    while values.ndim > len(tail) and values.shape[0] == 1:
        values = values[0]
    if values.ndim > len(tail):
        return Ends.of(values.min(), values.max()), None
    values = values.reshape((1,) * (len(tail) - values.ndim) + values.shape)
    other = tuple(range(1, values.ndim))
    low, high = values.min(axis=other), values.max(axis=other)
    fixed = low if np.array_equal(low, high) else None
    return Ends.of(low, high), fixed
