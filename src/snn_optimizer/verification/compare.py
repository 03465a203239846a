"""Comparing what two models put out, element by element, at the level they claim."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Axes", "Comparison", "Difference", "Level", "compare_outputs", "is_spike_valued", "same_bits"]

Array = npt.NDArray[Any]
Axes = tuple[int | None, int | None]


class Level(StrEnum):
    """What two models must have in common."""

    BITWISE = "bitwise"
    ALGEBRAIC = "algebraic"
    PROFILED = "profiled"
    LOSSY = "lossy"


@dataclass(frozen=True, slots=True)
class Difference:
    """One element that differs.

    Attributes
    ----------
    output : str
    step, sample : int or None
        None where the output has no such axis.
    index : tuple of int
        The other axes.
    before, after : object
        The two values; two shapes when those differ.
    """

    output: str
    step: int | None
    sample: int | None
    index: tuple[int, ...]
    before: object
    after: object

    def __str__(self) -> str:
        place = "".join(
            f", {name} {value}" for name, value in (("step", self.step), ("sample", self.sample)) if value is not None
        )
        element = f", element {list(self.index)}" if self.index else ""
        return f"output '{self.output}'{place}{element}: {self.before} became {self.after}"

    def order(self) -> tuple[int, int]:
        """Earlier steps first, then earlier samples."""
        return (-1 if self.step is None else self.step, -1 if self.sample is None else self.sample)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome of comparing some outputs.

    Attributes
    ----------
    values_compared, differing : int
        Elements of all outputs.
    spikes_compared, spikes_differing : int
        Elements of spike-valued outputs, those that hold only integers from 0 up in both.
    spikes_seen : int
        Sum of the spike-valued outputs of the original.
    nonzero_seen : int
        Elements of the original that are not zero, of any output.
    identical : bool
        Whether all bytes are equal, whatever the level.
    max_abs_difference : float
        Infinite where a NaN or an infinity became something else.
    first : Difference or None
        Of the earliest step.
    first_steps : mapping from sample to int or None
        For each sample that differs, the first step at which it does; None where no
        output that differs has steps. The sample is None where an output has no samples.
    """

    values_compared: int = 0
    differing: int = 0
    spikes_compared: int = 0
    spikes_differing: int = 0
    spikes_seen: int = 0
    nonzero_seen: int = 0
    identical: bool = True
    max_abs_difference: float = 0.0
    first: Difference | None = None
    first_steps: Mapping[int | None, int | None] = field(default_factory=dict)

    def __add__(self, other: Comparison) -> Comparison:
        """Return the outcome of both; of equal samples the earlier step."""
        differences = [each for each in (self.first, other.first) if each is not None]
        steps = dict(self.first_steps)
        for sample, step in other.first_steps.items():
            known = steps.get(sample)
            steps[sample] = step if known is None or (step is not None and step < known) else known
        return Comparison(
            values_compared=self.values_compared + other.values_compared,
            differing=self.differing + other.differing,
            spikes_compared=self.spikes_compared + other.spikes_compared,
            spikes_differing=self.spikes_differing + other.spikes_differing,
            spikes_seen=self.spikes_seen + other.spikes_seen,
            nonzero_seen=self.nonzero_seen + other.nonzero_seen,
            identical=self.identical and other.identical,
            max_abs_difference=max(self.max_abs_difference, other.max_abs_difference),
            first=min(differences, key=Difference.order, default=None),
            first_steps=steps,
        )


def same_bits(before: Mapping[str, Array], after: Mapping[str, Array]) -> bool:
    """Tell whether two runs gave the same outputs, NaNs by their bits; text is never called the same."""
    return all(_same_bits(old, after[name]) for name, old in before.items())


def _same_bits(old: Array, new: Array) -> bool:
    same_kind = old.dtype == new.dtype and old.dtype.kind != "O" and old.shape == new.shape
    return same_kind and old.tobytes() == new.tobytes()


def is_spike_valued(array: Array) -> bool:
    """Tell whether an array holds only integers from 0 up."""
    if array.dtype.kind == "f":
        return bool(np.isfinite(array).all() and (array >= 0).all() and (array == np.floor(array)).all())
    return array.dtype.kind in "bu" or (array.dtype.kind == "i" and bool((array >= 0).all()))


def compare_outputs(
    before: Mapping[str, Array],
    after: Mapping[str, Array],
    *,
    level: Level,
    axes: Mapping[str, Axes],
    scales: Mapping[str, float] | None = None,
    tolerance: float = 1e-4,
    first_sample: int = 0,
    spike_outputs: Collection[str] | None = None,
    ignored: Collection[int | None] = (),
) -> Comparison:
    """Compare two runs on the same feeds.

    Parameters
    ----------
    before, after : mapping from output name to array
        The same names.
    level : Level
        At ``BITWISE`` bytes are compared (a NaN equals any NaN, -0 differs from 0). At
        the others, outputs that are spike-valued in both runs, and outputs that are
        not floats, are compared for equality, others within the tolerance.
    axes : mapping from output name to (time axis, batch axis)
    scales : mapping from output name to float, optional
        Magnitude the tolerance is relative to; of ``before`` by default.
    tolerance : float
        Largest difference of floats that are not spikes, relative to the scale.
    first_sample : int
        Number of the first sample of the run, for the places in the result.
    spike_outputs : collection of str, optional
        Outputs that may count as spike-valued; all by default. Silent potentials look like spikes.
    ignored : collection of int or None
        Samples whose differences do not count, by the numbers of the result.
    """
    total = Comparison()
    for name, old in before.items():
        scale = (scales or {}).get(name)
        if scale is None:
            scale = _magnitude(old) if old.dtype.kind == "f" else 0.0
        may_spike = spike_outputs is None or name in spike_outputs
        rule = _Rule(level, tolerance * scale, axes[name], first_sample, may_spike, frozenset(ignored))
        total += _compared(name, old, after[name], rule)
    return total


@dataclass(frozen=True, slots=True)
class _Rule:
    """How to compare one output."""

    level: Level
    allowed: float
    axes: Axes
    first_sample: int
    may_spike: bool
    ignored: frozenset[int | None]

    def counted(self, differs: Array) -> Array:
        """Return the differences that are not to be ignored."""
        _, batch = self.axes
        if not self.ignored:
            return differs
        if batch is None:
            return np.zeros_like(differs) if None in self.ignored else differs
        numbers = self.first_sample + np.arange(differs.shape[batch])
        kept = np.array([int(number) not in self.ignored for number in numbers], np.bool_)
        return np.asarray(differs & kept.reshape([-1 if axis == batch else 1 for axis in range(differs.ndim)]))


def _compared(name: str, old: Array, new: Array, rule: _Rule) -> Comparison:
    if old.shape != new.shape:
        difference = Difference(name, None, None, (), f"shape {old.shape}", f"shape {new.shape}")
        return Comparison(
            values_compared=old.size,
            differing=max(1, old.size),
            identical=False,
            max_abs_difference=np.inf,
            first=difference,
            first_steps={None: None},
        )
    spikes = rule.may_spike and is_spike_valued(old) and is_spike_valued(new)
    bits = _bits_differ(old, new)
    if rule.level is Level.BITWISE:
        differs = bits
    elif spikes or old.dtype.kind != "f":
        differs = np.asarray(old != new)
    else:
        differs = _beyond(old, new, rule.allowed)
    differs = rule.counted(differs)
    differing = int(np.count_nonzero(differs))
    return Comparison(
        values_compared=old.size,
        differing=differing,
        spikes_compared=old.size if spikes else 0,
        spikes_differing=differing if spikes else 0,
        spikes_seen=int(old.sum(dtype=np.float64)) if spikes else 0,
        nonzero_seen=int(np.count_nonzero(old)),
        identical=not bits.any(),
        max_abs_difference=_largest(old, new) if old.dtype.kind in "biuf" else float(differing > 0),
        first=_first(name, old, new, differs, rule) if differing else None,
        first_steps=dict(_first_steps(differs, rule)) if differing else {},
    )


def _bits_differ(old: Array, new: Array) -> Array:
    if old.dtype.kind != "f":
        return np.asarray(old != new)
    bits = np.dtype(f"u{old.dtype.itemsize}")
    left, right = np.ascontiguousarray(old).view(bits), np.ascontiguousarray(new).view(bits)
    return np.asarray((left != right).reshape(old.shape) & ~(np.isnan(old) & np.isnan(new)))


def _beyond(old: Array, new: Array, allowed: float) -> Array:
    with np.errstate(invalid="ignore"):
        close = np.abs(_wide(new) - _wide(old)) <= allowed
    return np.asarray(~(close | (old == new) | (np.isnan(old) & np.isnan(new))))


def _magnitude(array: Array) -> float:
    return float(np.abs(_wide(array)).max(initial=0.0, where=np.isfinite(array)))


def _largest(old: Array, new: Array) -> float:
    if old.size == 0:
        return 0.0
    with np.errstate(invalid="ignore"):
        difference = np.abs(_wide(new) - _wide(old))
    same = (old == new) | (np.isnan(_wide(old)) & np.isnan(_wide(new)))
    return float(np.where(same, 0.0, np.nan_to_num(difference, nan=np.inf, posinf=np.inf)).max())


def _wide(array: Array) -> Array:
    return array.astype(np.float64, copy=False)


def _first(name: str, old: Array, new: Array, differs: Array, rule: _Rule) -> Difference:
    time, batch = rule.axes
    ordered = differs if time is None else np.moveaxis(differs, time, 0)
    place = [int(each) for each in np.unravel_index(int(ordered.argmax()), ordered.shape)]
    if time is not None:
        place.insert(time, place.pop(0))
    index = tuple(place)
    return Difference(
        output=name,
        step=None if time is None else index[time],
        sample=None if batch is None else index[batch] + rule.first_sample,
        index=tuple(each for axis, each in enumerate(index) if axis not in rule.axes),
        before=old[index].item() if old.dtype.kind != "O" else old[index],
        after=new[index].item() if new.dtype.kind != "O" else new[index],
    )


def _first_steps(differs: Array, rule: _Rule) -> Iterator[tuple[int | None, int | None]]:
    time, batch = rule.axes
    if batch is None:
        yield None, None
        return
    kept = [batch] if time is None else [time, batch]
    ordered = np.moveaxis(differs, kept, range(len(kept)))
    columns = ordered.reshape(-1 if time is not None else 1, differs.shape[batch], _size(ordered.shape[len(kept) :]))
    table = np.any(columns, axis=2)
    for sample in np.flatnonzero(np.any(table, axis=0)):
        step = None if time is None else int(np.argmax(table[:, sample]))
        yield int(sample) + rule.first_sample, step


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
