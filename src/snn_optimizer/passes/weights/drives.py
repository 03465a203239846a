"""The drive of a linear layer as its neurons feel it: signals filtered by the membrane, one row per observation.

A membrane that decays by ``beta`` holds ``sum_k beta^k I[t-k]`` of its current before any reset; behind a
synapse that decays by ``alpha`` the current itself is filtered so first. Both filters are linear and act on time
only, so they can be moved in front of the weights: regressing on filtered signals is regressing the membrane.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from snn_optimizer import ops
from snn_optimizer.analyses import NO_UNIT, Contraction, Population, UnitGroups
from snn_optimizer.analyses.rows import contraction_matrix
from snn_optimizer.ir import array_of, shape_of_constant

__all__ = ["Filters", "Reading", "closeness", "drive_weights", "driven_by", "filters_of", "is_supported", "read"]

Array = npt.NDArray[Any]
_MOST_ROWS: Final = 20_000  # observations a regression uses at most
_WIDTH: Final = 0.5  # distance to the threshold, as a share of it, at which an observation counts half


@dataclass(frozen=True, slots=True)
class Filters:
    """Decays per step of the membrane and of the synapse; zero filters nothing."""

    beta: float = 0.0
    alpha: float = 0.0


@dataclass(frozen=True, eq=False)
class Reading:
    """What a linear node reads over the data, filtered; one row per observation, the constant last.

    Attributes
    ----------
    rows : array, shape (observations, n + 1)
    at : tuple of index arrays
        Where in time, samples and space (if any) the observations lie.
    """

    rows: npt.NDArray[np.float32]
    at: tuple[npt.NDArray[np.int64], ...]

    @functools.cached_property
    def moments(self) -> npt.NDArray[np.float64]:
        """Mean second moments."""
        return self.cross(self)

    def cross(self, other: Reading) -> npt.NDArray[np.float64]:
        """Return mean moments of these signals with others."""
        with np.errstate(invalid="ignore", over="ignore"):  # signals of no size, which no fit takes
            return np.asarray(self.rows.T @ other.rows, np.float64) / max(len(self.rows), 1)


def filters_of(groups: UnitGroups, contraction: Contraction) -> Filters:
    """Return the filters of the neurons a contraction drives; none where it drives no neurons directly."""
    population = driven_by(groups, contraction)
    return Filters() if population is None else _filters(population)


def driven_by(groups: UnitGroups, contraction: Contraction) -> Population | None:
    """Return the neurons a contraction drives, ``None`` where it drives none directly."""
    wanted = np.unique(groups.classes_at(contraction.labels_out))
    wanted = wanted[wanted != NO_UNIT]
    for population in groups.populations:
        if len(wanted) and np.isin(groups.classes_at(population.labels), wanted).any():
            return population
    return None


def _filters(population: Population) -> Filters:
    variant, node = population.variant, population.node
    first = variant.currents + len(variant.states)
    names = variant.inputs[first:]
    constants = {name: array_of(value) for name, value in zip(names, node.inputs[first:], strict=False)}
    known = {name: array for name, array in constants.items() if array is not None}
    if variant.written:
        try:
            sense = ops.meaning(variant.program, known)
        except ops.NotUnderstood:
            return Filters()
        return Filters(_mean(sense.beta), _mean(sense.synaptic.get("i")))
    beta = 1.0 if variant.operator == "IF" else _mean(known.get("beta"))
    return Filters(beta, _mean(known.get("alpha")))


def _mean(values: Array | None) -> float:
    return 0.0 if values is None or not np.size(values) else float(np.clip(np.mean(values), 0, 1))


def is_supported(contraction: Contraction) -> bool:
    """Tell whether the signals of a linear node can be laid out as a regression."""
    node = contraction.node
    if node.op != "Conv":
        return node.op in ("Gemm", "MatMul")
    shape = shape_of_constant(node.inputs[contraction.weight_slot]) or ()
    padded = node.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    return len(shape) == 4 and int(node.attrs.get("group", 1)) == 1 and padded


def drive_weights(contraction: Contraction) -> npt.NDArray[np.float64]:
    """Return the weights as (rows, presynaptic x kernel + 1); the last column, of the bias, is zero."""
    weights = contraction_matrix(contraction)
    matrix = weights.reshape(len(weights), -1).astype(np.float64)
    return np.concatenate([matrix, np.zeros((len(matrix), 1))], axis=1)


def read(contraction: Contraction, signals: Array, filters: Filters) -> Reading:
    """Filter what a node reads and lay it out, one row per observation.

    Parameters
    ----------
    signals : array, shape (T, samples, ...)
        What the node reads.
    """
    steps = len(signals)
    constant = _filtered(np.ones((steps, 1), np.float32), filters)[:, 0]
    traces = _filtered(signals.astype(np.float32), filters)
    if contraction.node.op == "Conv":
        rows, at = _patches(contraction, traces)
    else:
        total = int(np.prod(traces.shape[:-1]))
        chosen = np.arange(total) if total <= _MOST_ROWS else _chosen(total)
        at = tuple(np.unravel_index(chosen, traces.shape[:-1]))
        rows = traces[at]
    return Reading(np.concatenate([rows, constant[at[0], np.newaxis]], axis=1), at)


def closeness(reading: Reading, distances: Array, neurons: int) -> npt.NDArray[np.float32] | None:
    """Return how much each observation matters to each neuron: 1 at its threshold, less the farther away.

    Where a membrane is far from its threshold an error changes no spike. The weights are those of a Cauchy
    distribution of the error.

    Parameters
    ----------
    distances : array, shape (T, samples, neurons or channels, ...)
        Of the potentials to the threshold, as a share of it.
    neurons : int
        Rows of the layer that drives them.

    Returns
    -------
    array, shape (observations, neurons), or None
        None when the neurons do not lie as the layer's results do.
    """
    by_unit = np.moveaxis(distances, 2, -1)
    reach = tuple(int(axis.max(initial=-1)) + 1 for axis in reading.at)
    if by_unit.shape[-1] != neurons or by_unit.ndim != len(reach) + 1:
        return None
    if any(size < need for size, need in zip(by_unit.shape, reach, strict=False)):
        return None
    found = by_unit[reading.at] / np.float32(_WIDTH)
    with np.errstate(over="ignore"):  # so far away that it does not matter
        return np.asarray(1 / (1 + np.square(np.nan_to_num(found, nan=np.inf, posinf=np.inf))), np.float32)


def _filtered(signals: Array, filters: Filters) -> Array:
    result = np.array(signals)
    for decay in (filters.alpha, filters.beta):
        if decay:
            for step in range(1, len(result)):
                result[step] += np.float32(decay) * result[step - 1]
    return result


def _chosen(number: int) -> npt.NDArray[np.int64]:
    """Return which rows to use, the same for signals of the same shape."""
    return np.sort(np.random.default_rng(0).choice(number, _MOST_ROWS, replace=False))


def _patches(contraction: Contraction, traces: Array) -> tuple[Array, tuple[npt.NDArray[np.int64], ...]]:
    node = contraction.node
    shape = shape_of_constant(node.inputs[contraction.weight_slot])
    assert shape is not None
    high, wide = int(shape[2]), int(shape[3])
    strides = [int(s) for s in node.attrs.get("strides") or (1, 1)]
    dilations = [int(d) for d in node.attrs.get("dilations") or (1, 1)]
    pads = [int(p) for p in node.attrs.get("pads") or (0, 0, 0, 0)]
    steps, samples = traces.shape[:2]
    maps = np.pad(traces, ((0, 0), (0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    reach = ((high - 1) * dilations[0] + 1, (wide - 1) * dilations[1] + 1)
    windows = np.lib.stride_tricks.sliding_window_view(maps, reach, axis=(3, 4))
    windows = windows[:, :, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    rows, columns = windows.shape[3:5]
    total = steps * samples * rows * columns
    chosen = np.arange(total) if total <= _MOST_ROWS else _chosen(total)
    t, b, y, x = np.unravel_index(chosen, (steps, samples, rows, columns))
    return windows[t, b, :, y, x].reshape(len(chosen), -1), (t, b, y, x)
