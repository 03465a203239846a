"""Units that are the same up to a positive scale, or nearly the same.

Multiplying the incoming weights, bias, threshold, reset value and initial state of a
neuron by ``c > 0`` multiplies its membrane by ``c`` and changes no spike. So rows are
divided by the threshold before they are compared. Only units whose path from the
weights to the membrane is linear can be rescaled; others keep scale one.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses.input_paths import input_path, is_zero
from snn_optimizer.analyses.labels import NO_UNIT, Role, Site
from snn_optimizer.analyses.rows import contraction_matrix, position_ranks, site_rows
from snn_optimizer.analyses.unit_groups import Population, UnitGroups
from snn_optimizer.ir import array_of, is_constant

__all__ = ["UnitVectors", "near_pairs", "scaled_pairs", "unit_vectors"]

Array = npt.NDArray[np.float64]
ROUNDING = 8 * 2.0**-24  # rows one scale apart differ by the rounding of float32 parameters
SCALED = frozenset({"v_threshold", "v_reset", "v0", "v", "i0", "i"})
WIDEST = 30_000  # units of one population among which near duplicates are searched
LONGEST_RUN = 64  # units of equal projection that are compared with each other when none of them agree
CHUNK = 1 << 21  # numbers of scratch at a time: 16 MiB


@dataclass(frozen=True, slots=True)
class UnitVectors:
    """One row per unit of a population, in units of its threshold; rows are made on demand.

    Attributes
    ----------
    classes : array, shape (n,)
    parts : tuple of (rows, order)
        Incoming weights, biases and other parameters that scale with the threshold: arrays
        (n, width) as stored, and the row of each unit in them.
    unit : array, shape (n,)
        What the rows are divided by.
    exact : array, shape (n, width2)
        Parameters that must be equal whatever the scale.
    varied : bool
        Whether units have different scales at all; if not, scaled duplicates are exact ones.
    """

    population: Population
    classes: npt.NDArray[np.int64]
    parts: tuple[tuple[npt.NDArray[Any], npt.NDArray[np.int64]], ...]
    unit: Array
    exact: Array
    varied: bool

    def rows(self, units: npt.NDArray[np.int64]) -> Array:
        """Return the rows of some units."""
        stacked = np.concatenate([part[order[units]] for part, order in self.parts], axis=1, dtype=np.float64)
        stacked /= self.unit[units, None]
        return stacked

    def blocks(self, width: int) -> Iterator[tuple[npt.NDArray[np.int64], Array]]:
        """Yield the rows of all units, so many at a time that ``width`` numbers for each stay small."""
        step = max(1, CHUNK // max(width, 1))
        for start in range(0, len(self.classes), step):
            units = np.arange(start, min(start + step, len(self.classes)))
            yield units, self.rows(units)

    @property
    def width(self) -> int:
        """Length of a row."""
        return sum(part.shape[1] for part, _ in self.parts)


def unit_vectors(groups: UnitGroups, population: Population) -> UnitVectors | None:
    """Collect the rows of a population whose units are dense or channel units; ``None`` when not comparable."""
    if not population.variant.spiking:
        return None
    classes = groups.classes_at(population.labels)
    if (classes == NO_UNIT).any() or len(np.unique(classes)) != len(classes):
        return None
    if _shares_classes(groups, population, classes):
        return None
    threshold = _thresholds(population)
    if threshold is None:
        return None
    index = np.full(groups.classes + 1, -1, np.int64)
    index[classes] = np.arange(len(classes))
    parts: list[tuple[npt.NDArray[Any], npt.NDArray[np.int64]]] = []
    exact: list[Array] = []
    path = input_path(groups, population)
    linear = path is not None and not population.variant.written and _shared_start_scales(groups, population)
    for site in groups.incoming():
        at = groups.classes_at(site.labels)
        where = index[at]
        if not (where >= 0).any():
            continue
        if (where < 0).any() or len(at) != len(classes) or position_ranks(at).any():
            return None
        if site.role is Role.ROW:
            continue
        order = np.argsort(where)
        if _scales(site, population, path or frozenset()):
            parts.append((site_rows(site), order))
        else:
            exact.append(site_rows(site)[order].astype(np.float64))
    for contraction in groups.contractions:
        where = index[groups.classes_at(contraction.labels_out)]
        if (where >= 0).any():
            matrix = contraction_matrix(contraction)
            parts.append((matrix.reshape(len(where), -1), np.argsort(where)))
    if not parts:
        return None
    if not linear:
        exact.append(threshold[:, None])
    rest = np.concatenate(exact, axis=1) if exact else np.zeros((len(classes), 0))
    varied = linear and bool((threshold != threshold[0]).any())
    unit = threshold if linear else np.ones_like(threshold)
    return UnitVectors(population, classes, tuple(parts), unit, rest, varied)


def _scales(site: Site, population: Population, path: Container[int]) -> bool:
    """Tell whether a parameter is multiplied with the unit when its threshold is."""
    if site.use.node is population.node:
        return population.variant.inputs[site.use.slot] in SCALED
    if id(site.use.node) not in path:
        return False
    return site.role is Role.BIAS or (site.role is Role.PARAMETER and site.use.node.op in {"Add", "Sub"})


def _shares_classes(groups: UnitGroups, population: Population, classes: npt.NDArray[np.int64]) -> bool:
    """Tell whether another population's units must go with these."""
    mine = np.zeros(groups.classes, np.bool_)
    mine[classes] = True
    for other in groups.populations:
        if other is not population:
            theirs = groups.classes_at(other.labels)
            if mine[theirs[theirs != NO_UNIT]].any():
                return True
    return False


def _thresholds(population: Population) -> Array | None:
    variant = population.variant
    if "v_threshold" not in variant.inputs:  # written arithmetic with a threshold of its own, the same for all
        return np.ones(len(population.labels))
    array = array_of(population.node.inputs[variant.inputs.index("v_threshold")])
    if array is None or array.size not in {1, len(population.labels)}:
        return None
    values = np.broadcast_to(array.reshape(-1).astype(np.float64), (len(population.labels),))
    return np.array(values) if bool((values > 0).all()) and bool(np.isfinite(values).all()) else None


def _shared_start_scales(groups: UnitGroups, population: Population) -> bool:
    """A reset value or initial state that all units share scales only when it is zero, a carried one likewise."""
    variant, node = population.variant, population.node
    states = dict(variant.states)
    for slot, name in enumerate(variant.inputs):
        if name not in SCALED or name == "v_threshold" or (name == "v_reset" and variant.reset != "to-value"):
            continue
        value = node.inputs[slot]
        if is_constant(value):
            array = array_of(value)
            if array is not None and array.size == 1 and bool(array.any()):
                return False
            continue
        start, following = groups.carried.get(id(value), (value, value))
        if slot not in states or following is not node.outputs[states[slot]] or not is_zero(start):
            return False
    return True


def scaled_pairs(units: UnitVectors) -> Iterator[tuple[int, int]]:
    """Yield (keeper, duplicate) positions of units that agree up to rounding; linear but for sorting."""
    if not units.varied:
        return
    number = len(units.classes)
    direction = np.random.default_rng(0x5CA1E).standard_normal(units.width)
    projected, room = np.empty(number), np.empty(number)
    with np.errstate(invalid="ignore", over="ignore"):
        for which, rows in units.blocks(units.width):
            projected[which] = rows @ direction
            room[which] = ROUNDING * (np.abs(rows) @ np.abs(direction)) + 1e-300
    order = np.argsort(projected, kind="stable")  # NaN last, and apart from everything
    apart = ~(np.diff(projected[order]) <= 2 * room[order[1:]])
    starts = np.r_[0, np.flatnonzero(apart) + 1, len(order)]
    for where in np.flatnonzero(np.diff(starts) > 1):
        yield from _match_run(units, np.sort(order[starts[where] : starts[where + 1]]))


def _match_run(units: UnitVectors, run: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Compare a run of equal projections with its first unit, then the rest among themselves."""
    while len(run) > 1:
        keeper, rest = run[:1], run[1:]
        same = np.zeros(len(rest), np.bool_)
        first = units.rows(keeper)
        step = max(1, CHUNK // max(units.width, 1))
        for start in range(0, len(rest), step):
            part = rest[start : start + step]
            rows = units.rows(part)
            close = np.abs(rows - first) <= ROUNDING * np.maximum(np.abs(rows), np.abs(first))
            same[start : start + step] = close.all(axis=1) & (units.exact[part] == units.exact[keeper]).all(axis=1)
        for duplicate in rest[same]:
            yield int(keeper[0]), int(duplicate)
        run = rest[~same]
        if not same.any() and len(run) > LONGEST_RUN:
            return


def near_pairs(units: UnitVectors, similarity: float) -> list[tuple[int, int]]:
    """Return (keeper, duplicate) pairs whose vectors are at least this similar, greedily in order.

    Similarity is ``2 a.b / (a.a + b.b)``: the cosine, reduced when the lengths differ,
    because rows w and 10 w have cosine 1 and different spikes.
    """
    number = len(units.classes)
    if number > WIDEST:
        return []
    vectors = units.rows(np.arange(number))
    squares = np.einsum("ij,ij->i", vectors, vectors)
    taken = np.zeros(number, np.bool_)
    pairs: list[tuple[int, int]] = []
    step = max(1, CHUNK // max(number, 1))
    for start in range(0, number, step):
        block = vectors[start : start + step] @ vectors.T
        scale = (squares[start : start + step, None] + squares[None]) / 2
        close = (block >= similarity * scale) & (scale > 0)
        for offset in np.flatnonzero(close.sum(axis=1) > 1):
            keeper = start + int(offset)
            if taken[keeper]:
                continue
            alike = np.flatnonzero(close[offset] & ~taken & (np.arange(number) > keeper))
            alike = alike[(units.exact[alike] == units.exact[keeper]).all(axis=1)]
            taken[alike] = True
            pairs.extend((keeper, int(duplicate)) for duplicate in alike)
    return pairs
