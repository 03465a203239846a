"""Units that are the same up to a positive scale, or nearly the same.

Multiplying the incoming weights, bias, threshold, reset value and initial state of a
neuron by ``c > 0`` multiplies its membrane by ``c`` and changes no spike. So rows are
divided by the threshold before they are compared. Only units whose path from the
weights to the membrane is linear can be rescaled; others keep scale one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses.labels import NO_UNIT, Role
from snn_optimizer.analyses.rows import contraction_matrix, position_ranks, site_rows
from snn_optimizer.analyses.unit_groups import Population, UnitGroups
from snn_optimizer.ir import array_of, is_constant
from snn_optimizer.ops import is_neuron

__all__ = ["UnitVectors", "near_pairs", "scaled_pairs", "unit_vectors"]

Array = npt.NDArray[np.float64]
ROUNDING = 8 * 2.0**-24  # rows one scale apart differ by the rounding of float32 parameters
SCALED = frozenset({"v_threshold", "v_reset", "v0", "v", "i0", "i"})
WIDEST = 30_000  # units of one population among which near duplicates are searched


@dataclass(frozen=True, slots=True)
class UnitVectors:
    """One row per class of a population, in units of the class's threshold.

    Attributes
    ----------
    classes : array, shape (n,)
    vectors : array, shape (n, width)
        Incoming weights and biases over threshold, other scaled parameters too.
    exact : array, shape (n, width2)
        Parameters that must be equal whatever the scale.
    """

    population: Population
    classes: npt.NDArray[np.int64]
    vectors: Array
    exact: Array


def unit_vectors(groups: UnitGroups, population: Population) -> UnitVectors | None:
    """Collect the rows of a population whose units are single dense or channel units; ``None`` when not comparable."""
    if not population.variant.spiking:
        return None
    classes = groups.classes_at(population.labels)
    if (classes == NO_UNIT).any() or len(np.unique(classes)) != len(classes):
        return None
    touched = groups.populations_of()
    if any(len(touched.get(int(c), ())) != 1 for c in classes):
        return None
    threshold = _thresholds(population)
    if threshold is None or not _scalars_scale(population):
        return None
    index = np.full(groups.classes + 1, -1, np.int64)
    index[classes] = np.arange(len(classes))
    scaled: list[Array] = []
    exact: list[Array] = []
    linear = True
    for site in groups.incoming():
        at = groups.classes_at(site.labels)
        where = index[at]
        if not (where >= 0).any():
            continue
        if (where < 0).any() or len(at) != len(classes) or position_ranks(at).any():
            return None
        if site.role is Role.ROW:
            continue
        rows = np.empty((len(classes), site_rows(site).shape[1]))
        rows[where] = site_rows(site)
        if is_neuron(site.use.node.domain or "", site.use.node.op):
            name = population.variant.inputs[site.use.slot]
            (scaled if name in SCALED else exact).append(rows)
        elif site.role is Role.BIAS or (site.role is Role.PARAMETER and site.use.node.op in {"Add", "Sub"}):
            scaled.append(rows)
        else:
            exact.append(rows)
            linear = False
    for contraction in groups.contractions:
        where = index[groups.classes_at(contraction.labels_out)]
        if not (where >= 0).any():
            continue
        matrix = contraction_matrix(contraction).reshape(len(contraction.labels_out), -1)
        rows = np.empty((len(classes), matrix.shape[1]))
        rows[where] = matrix
        scaled.append(rows)
    if not scaled:
        return None
    unit = threshold if linear else np.ones_like(threshold)
    vectors = np.concatenate(scaled, axis=1) / unit[:, None]
    if not linear:
        exact.append(threshold[:, None])
    rest = np.concatenate(exact, axis=1) if exact else np.zeros((len(classes), 0))
    return UnitVectors(population, classes, vectors, rest)


def _thresholds(population: Population) -> Array | None:
    variant = population.variant
    array = array_of(population.node.inputs[variant.inputs.index("v_threshold")])
    if array is None or array.size not in {1, len(population.labels)}:
        return None
    values = np.broadcast_to(array.reshape(-1).astype(np.float64), (len(population.labels),))
    return np.array(values) if bool((values > 0).all()) and bool(np.isfinite(values).all()) else None


def _scalars_scale(population: Population) -> bool:
    """A reset value or initial state that all units share scales only when it is zero."""
    variant = population.variant
    for slot, name in enumerate(variant.inputs):
        if name not in SCALED or name == "v_threshold" or (name == "v_reset" and variant.reset != "to-value"):
            continue
        value = population.node.inputs[slot]
        if not is_constant(value):
            continue  # a carried state starts where its own site or zero says
        array = array_of(value)
        if array is not None and array.size == 1 and float(array.reshape(-1)[0]) != 0:
            return False
    return True


def scaled_pairs(units: UnitVectors) -> Iterator[tuple[int, int]]:
    """Yield (keeper, duplicate) positions of units that agree up to rounding; linear but for sorting."""
    vectors = units.vectors
    if not np.isfinite(vectors).all():
        return
    direction = np.random.default_rng(0x5CA1E).standard_normal(vectors.shape[1])
    projected = vectors @ direction
    room = ROUNDING * (np.abs(vectors) @ np.abs(direction)) + 1e-300
    order = np.argsort(projected, kind="stable")
    apart = np.diff(projected[order]) > 2 * room[order[1:]]
    starts = np.r_[0, np.flatnonzero(apart) + 1, len(order)]
    for where in np.flatnonzero(np.diff(starts) > 1):
        yield from _match_run(units, np.sort(order[starts[where] : starts[where + 1]]))


def _match_run(units: UnitVectors, run: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Within a run of equal projections compare with the first unit, then the rest among themselves."""
    while len(run) > 1:
        keeper, rest = int(run[0]), run[1:]
        difference = np.abs(units.vectors[rest] - units.vectors[keeper])
        size = np.maximum(np.abs(units.vectors[rest]), np.abs(units.vectors[keeper]))
        same = (difference <= ROUNDING * size).all(axis=1) & (units.exact[rest] == units.exact[keeper]).all(axis=1)
        for duplicate in rest[same]:
            yield keeper, int(duplicate)
        run = rest[~same]
        if not same.any() and len(run) > 64:
            return


def near_pairs(units: UnitVectors, similarity: float) -> list[tuple[int, int]]:
    """Return (keeper, duplicate) pairs whose vectors are at least this similar, greedily in order.

    Similarity is ``2 a.b / (a.a + b.b)``: the cosine, reduced when the lengths differ,
    because rows w and 10 w have cosine 1 and different spikes.
    """
    vectors, number = units.vectors, len(units.classes)
    if number > WIDEST or not np.isfinite(vectors).all():
        return []
    squares = np.einsum("ij,ij->i", vectors, vectors)
    taken = np.zeros(number, np.bool_)
    pairs = []
    step = max(1, (1 << 22) // max(number, 1))
    for start in range(0, number, step):
        block = vectors[start : start + step] @ vectors.T
        scale = (squares[start : start + step, None] + squares[None]) / 2
        close = (block >= similarity * scale) & (scale > 0)
        for offset in np.flatnonzero(close.sum(axis=1) > 1):
            keeper = start + int(offset)
            if taken[keeper]:
                continue
            for duplicate in np.flatnonzero(close[offset]):
                if duplicate > keeper and not taken[duplicate]:
                    taken[duplicate] = True
                    pairs.append((keeper, int(duplicate)))
    return pairs
