"""What products of spikes with weights cost on one machine, as measured: a file that lowering reads.

``snnopt bench --calibrate`` writes it, :mod:`snn_optimizer.passes.lowering.event_driven` reads it. Between
measured points the logarithm of the time is interpolated along the logarithms of the sizes; along the share of
active inputs the time itself is, because every event adds one row of weights.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from platformdirs import user_cache_path

from snn_optimizer.errors import InputError

__all__ = ["VARIABLE", "GatheredForm", "ProjectionCosts", "SpikeRows", "default_path", "this_machine"]

VARIABLE: Final = "SNNOPT_COSTS"
"""Environment variable that names another file than the one in the user's cache."""

_FORMAT: Final = "snn_optimizer projection costs"
_VERSION: Final = 1

Array = npt.NDArray[np.float64]
GatheredForm: TypeAlias = Literal["single", "several", "pooled"]
"""For one vector; for several, one by one; for several, by the inputs that fire in any of them."""


@dataclass(frozen=True, slots=True)
class SpikeRows:
    """What a product with spikes was seen to read.

    Attributes
    ----------
    rows : int
        Vectors in one call of the node with the smallest batch the model takes.
    share : float
        Elements that are not zero.
    pooled : float
        Share of the inputs that are not zero in any of the vectors of such a call.
    """

    rows: int
    share: float
    pooled: float


@dataclass(frozen=True, slots=True, eq=False)
class ProjectionCosts:
    """Seconds of one product in each of its forms.

    Attributes
    ----------
    machine : dict
        See :func:`this_machine`.
    onnxruntime : str
        Version it was measured with.
    threads : int
    date : str
        ISO 8601.
    inputs, outputs, rows, shares : tuple
        The points that were measured, increasing; ``rows`` starts with 1 and ``shares`` with 0.
    guard : float
        What a choice between two forms by the number of rows adds.
    dense : array, shape (inputs, outputs, rows)
    single : array, shape (inputs, outputs, shares)
        Of the form for one row.
    several : array, shape (inputs, outputs, rows, shares)
        Of the form that goes through the rows one by one.
    pooled : array, shape (inputs, outputs, rows, shares)
        Of the form that leaves out the inputs that are zero in all rows; the share is that of the others.
    """

    machine: dict[str, Any]
    onnxruntime: str
    threads: int
    date: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    rows: tuple[int, ...]
    shares: tuple[float, ...]
    guard: float
    dense: Array
    single: Array
    several: Array
    pooled: Array

    def covers(self, inputs: int, outputs: int) -> bool:
        """Tell whether weights of this shape lie between measured ones."""
        return self.inputs[0] <= inputs <= self.inputs[-1] and self.outputs[0] <= outputs <= self.outputs[-1]

    def dense_seconds(self, inputs: int, outputs: int, rows: int) -> float:
        """Return the time of the dense product."""
        return self._at(self.dense, inputs, outputs, rows)

    def gathered_seconds(self, form: GatheredForm, inputs: int, outputs: int, seen: SpikeRows, rows: int) -> float:
        """Return the time of an event-driven form at the activity seen; infinite above the largest measured share."""
        share = seen.pooled if form == "pooled" else seen.share
        if form == "single":
            ends = [self._at(self.single[..., i], inputs, outputs) for i in self._ends(share)]
        else:
            table = self.several if form == "several" else self.pooled
            ends = [self._at(table[..., i], inputs, outputs, rows) for i in self._ends(share)]
        return self._along_shares(ends, share)

    def _ends(self, share: float) -> tuple[int, ...]:
        if share > self.shares[-1]:
            return ()
        upper = max(1, int(np.searchsorted(self.shares, share)))
        return upper - 1, upper

    def _along_shares(self, ends: list[float], share: float) -> float:
        if not ends:
            return float("inf")
        lower, upper = self._ends(share)
        return float(np.interp(share, [self.shares[lower], self.shares[upper]], ends))

    def _at(self, table: Array, inputs: int, outputs: int, rows: int | None = None) -> float:
        """Interpolate a table whose axes are inputs, outputs and, if given, rows; more rows cost in proportion."""
        found = np.log(table)
        axes: list[tuple[tuple[int, ...], int]] = [(self.inputs, inputs), (self.outputs, outputs)]
        beyond = 1.0
        if rows is not None:
            beyond = max(1.0, rows / self.rows[-1])
            axes.append((self.rows, min(rows, self.rows[-1])))
        for points, size in axes:
            found = _interpolated(found, points, size)
        return float(np.exp(found)) * beyond

    def mismatch(self) -> str | None:
        """Return in one sentence what differs from this machine and its runtime, None when they are the same."""
        here = this_machine() | {"onnxruntime": _runtime_version(self.onnxruntime)}
        there = self.machine | {"onnxruntime": self.onnxruntime}
        for name in sorted({*here, *there}):
            if here.get(name) != there.get(name):
                return f"it was measured where {name} is {there.get(name)!r}, here it is {here.get(name)!r}"
        return None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serializable form."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "machine": self.machine,
            "onnxruntime": self.onnxruntime,
            "threads": self.threads,
            "date": self.date,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "rows": list(self.rows),
            "shares": list(self.shares),
            "guard": self.guard,
            "dense": self.dense.tolist(),
            "single": self.single.tolist(),
            "several": self.several.tolist(),
            "pooled": self.pooled.tolist(),
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ProjectionCosts:
        """Read a file.

        Raises
        ------
        InputError
            If there is none, or it holds something else.
        """
        name = os.fspath(path)
        try:
            stored = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                f"cost model '{name}': no such file; 'snnopt bench --calibrate -o FILE' writes one"
            ) from None
        except OSError as error:
            raise InputError(f"cost model '{name}': cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise InputError(f"cost model '{name}': not JSON, or damaged") from error
        if not isinstance(stored, dict) or stored.get("format") != _FORMAT or stored.get("version") != _VERSION:
            raise InputError(f"cost model '{name}': not written by this version of 'snnopt bench --calibrate'")
        try:
            found = cls._from_json(stored)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"cost model '{name}': damaged: {error}; measure it again") from error
        return found

    @classmethod
    def _from_json(cls, stored: dict[str, Any]) -> ProjectionCosts:
        inputs, outputs, rows = (tuple(map(int, stored[key])) for key in ("inputs", "outputs", "rows"))
        shares = tuple(map(float, stored["shares"]))
        for key, points, first in (("inputs", inputs, 1), ("outputs", outputs, 1), ("rows", rows, 1)):
            if not points or points[0] < first or any(np.diff(points) <= 0):
                raise ValueError(f"'{key}' must be increasing sizes")
        if rows[0] != 1 or len(shares) < 2 or shares[0] != 0 or any(np.diff(shares) <= 0):
            raise ValueError("'rows' must start with 1, 'shares' with 0 and have two values, both increasing")
        sizes = {"inputs": len(inputs), "outputs": len(outputs), "rows": len(rows), "shares": len(shares)}
        tables = {
            key: _table(stored, key, tuple(sizes[axis] for axis in axes))
            for key, axes in (
                ("guard", ()),
                ("dense", ("inputs", "outputs", "rows")),
                ("single", ("inputs", "outputs", "shares")),
                ("several", ("inputs", "outputs", "rows", "shares")),
                ("pooled", ("inputs", "outputs", "rows", "shares")),
            )
        }
        return cls(
            machine=dict(stored["machine"]),
            onnxruntime=str(stored["onnxruntime"]),
            threads=int(stored["threads"]),
            date=str(stored["date"]),
            inputs=inputs,
            outputs=outputs,
            rows=rows,
            shares=shares,
            guard=float(tables["guard"]),
            dense=tables["dense"],
            single=tables["single"],
            several=tables["several"],
            pooled=tables["pooled"],
        )


def _table(stored: dict[str, Any], key: str, shape: tuple[int, ...]) -> Array:
    table = np.asarray(stored[key], np.float64)
    if table.shape != shape or not np.isfinite(table).all() or (table <= 0).any():
        raise ValueError(f"'{key}' must be {shape} positive seconds")
    return table


def _interpolated(table: Array, points: tuple[int, ...], size: int) -> Array:
    """Interpolate the first axis at a size, linearly in its logarithm."""
    upper = min(max(1, int(np.searchsorted(points, size))), len(points) - 1)
    lower = max(upper - 1, 0)
    if lower == upper:
        return np.asarray(table[0])
    span = np.log(points[upper]) - np.log(points[lower])
    weight = (np.log(size) - np.log(points[lower])) / span
    return np.asarray(table[lower] * (1 - weight) + table[upper] * weight)


def default_path() -> Path:
    """Return where the cost model of this machine is: what ``SNNOPT_COSTS`` names, or in the user's cache."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else user_cache_path("snn_optimizer", appauthor=False) / "projection-costs.json"


def this_machine() -> dict[str, Any]:
    """Return what tells apart machines on which the same product takes another time."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
    }


def _runtime_version(unknown: str) -> str:
    """Return the version of the installed runtime without loading it; ``unknown`` where it is installed otherwise."""
    try:
        return metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:
        return unknown


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Hardware")))
    return next(names, "") or platform.processor()
