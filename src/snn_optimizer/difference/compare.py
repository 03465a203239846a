"""Compare two models as networks: layers, neurons, weights, parameters of neurons, and what they cost."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from snn_optimizer.difference.between import OperatorChange, compare_interfaces, compare_operators
from snn_optimizer.difference.fingerprint import fingerprint
from snn_optimizer.difference.layers import Described, describe_layers, match_layers
from snn_optimizer.execution import model_digest
from snn_optimizer.ir import Array
from snn_optimizer.measures import measure_model

__all__ = ["Difference", "LayerChange", "TensorChange", "compare_models"]

_CHUNK: Final = 1 << 20  # elements compared at a time


@dataclass(frozen=True, slots=True)
class TensorChange:
    """Weights, or parameters of neurons, that are not the same.

    Attributes
    ----------
    name : str
    before, after : str
        Shape and type, or the value where all elements have the same; empty where there is none.
    changed, elements : int or None
        How many elements differ; None where shapes do not allow to say.
    largest : float or None
        The largest difference.
    """

    name: str
    before: str
    after: str
    changed: int | None = None
    elements: int | None = None
    largest: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serializable form."""
        return {
            "name": self.name, "before": self.before or None, "after": self.after or None,
            "changed": self.changed, "elements": self.elements,
            "largest": None if self.largest is None or not np.isfinite(self.largest) else self.largest,
        }  # fmt: skip


@dataclass(frozen=True)
class LayerChange:
    """One layer of either network; ``before`` or ``after`` is None where it was added or removed."""

    before: Described | None
    after: Described | None
    kind: tuple[tuple[str, str, str], ...] = ()
    synapses: bool = False
    tensors: tuple[TensorChange, ...] = ()

    @property
    def name(self) -> str:
        """Name in the second network, where it is there."""
        one = self.after or self.before
        assert one is not None
        return one.name

    @property
    def renamed(self) -> bool:
        """Whether it has another name."""
        return self.before is not None and self.after is not None and self.before.name != self.after.name

    @property
    def status(self) -> str:
        """``added``, ``removed``, ``changed``, ``renamed`` or ``same``."""
        if self.before is None or self.after is None:
            return "added" if self.before is None else "removed"
        if self.kind or self.synapses or self.tensors or self.before.neurons != self.after.neurons:
            return "changed"
        return "renamed" if self.renamed else "same"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serializable form."""
        old, new = self.before, self.after
        return {
            "status": self.status,
            "name_before": None if old is None else old.name,
            "name_after": None if new is None else new.name,
            "neurons_before": None if old is None else old.neurons,
            "neurons_after": None if new is None else new.neurons,
            "kind_before": None if old is None else dict(old.kind),
            "kind_after": None if new is None else dict(new.kind),
            "synapses_before": None if old is None else list(old.synapses),
            "synapses_after": None if new is None else list(new.synapses),
            "tensors": [change.to_json() for change in self.tensors],
        }


@dataclass(frozen=True)
class Difference:
    """What differs between two models.

    Attributes
    ----------
    names : (str, str)
    layers : tuple of LayerChange
        All layers, also those that are the same.
    operators : tuple of OperatorChange
        What differs between the layers.
    interface : tuple of (str, str)
        Inputs and outputs that differ, in either model; empty text where there is none.
    measures : tuple of (mapping, mapping)
        By the names of ``MEASURES``.
    same_network : bool
        Both compute the same from the same weights: all operators, constants and connections agree.
    same_file : bool
        Both files hold the same model.
    """

    names: tuple[str, str]
    layers: tuple[LayerChange, ...]
    operators: tuple[OperatorChange, ...]
    interface: tuple[tuple[str, str], ...]
    measures: tuple[Mapping[str, float], Mapping[str, float]]
    same_network: bool
    same_file: bool

    @property
    def changed_layers(self) -> list[LayerChange]:
        """The layers that are not the same."""
        return [layer for layer in self.layers if layer.status != "same"]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serializable form."""
        return {
            "before": self.names[0],
            "after": self.names[1],
            "same_network": self.same_network,
            "same_file": self.same_file,
            "layers": [layer.to_json() for layer in self.layers],
            "operators": [change.to_json() for change in self.operators],
            "interface": [{"before": old or None, "after": new or None} for old, new in self.interface],
            "measures": {
                name: {"before": self.measures[0].get(name), "after": self.measures[1].get(name)}
                for name in dict.fromkeys((*self.measures[0], *self.measures[1]))
            },
        }


def compare_models(
    before: str | os.PathLike[str], after: str | os.PathLike[str], data: str | os.PathLike[str] | None = None
) -> Difference:
    """Compare two model files.

    Parameters
    ----------
    before, after : path
    data : path, optional
        Samples (.npz) to count synaptic operations and estimate energy on.

    Raises
    ------
    InputError
        If a model or the samples cannot be read.
    """
    old, new = measure_model(before, data), measure_model(after, data)
    first, second = old.raised.graph, new.raised.graph
    pairs = match_layers(describe_layers(first), describe_layers(second))
    interface = compare_interfaces(first, second)
    return Difference(
        (os.fspath(before), os.fspath(after)),
        tuple(_compared(one, other) for one, other in pairs),
        compare_operators(first, second),
        interface,
        (old.values, new.values),
        not interface and fingerprint(first.module) == fingerprint(second.module),
        model_digest(old.path) == model_digest(new.path),
    )


def _compared(before: Described | None, after: Described | None) -> LayerChange:
    if before is None or after is None:
        return LayerChange(before, after)
    kind = tuple((name, old, after.kind[name]) for name, old in before.kind.items() if old != after.kind[name])
    names = dict.fromkeys((*before.tensors, *after.tensors))
    changes = (_tensor(name, before.tensors.get(name), after.tensors.get(name)) for name in names)
    found = tuple(change for change in changes if change is not None)
    return LayerChange(before, after, kind, before.synapses != after.synapses, found)


def _tensor(name: str, before: Array | None, after: Array | None) -> TensorChange | None:
    if before is None or after is None:
        return TensorChange(name, _summary(before), _summary(after))
    old, new = before, after
    if old.size == 1 or new.size == 1:  # one for all neurons, or one for each
        old, new = np.broadcast_arrays(old.reshape(-1), new.reshape(-1))
    if old.shape != new.shape:
        return TensorChange(name, _summary(before), _summary(after))
    changed, largest = _differences(old, new)
    if before.dtype == after.dtype and not changed:
        return None
    return TensorChange(name, _summary(before), _summary(after), changed, int(old.size), largest)


def _differences(old: Array, new: Array) -> tuple[int, float]:
    """Return how many elements differ, and by how much at most; a piece at a time, since weights may be large."""
    changed, largest = 0, 0.0
    rows = max(1, _CHUNK * len(old) // max(old.size, 1))
    for start in range(0, len(old), rows):
        piece = slice(start, start + rows)
        differ = ~_equal(old[piece], new[piece])
        if differ.any():
            changed += int(differ.sum())
            first, second = (np.asarray(one[piece], np.float64)[differ] for one in (old, new))
            with np.errstate(invalid="ignore", over="ignore"):
                largest = float(np.maximum(largest, np.abs(first - second).max()))  # a NaN stays one
    return changed, largest


def _equal(first: Array, second: Array) -> Any:
    """Tell which elements are the same; a NaN is the same as a NaN."""
    return (first == second) | ((first != first) & (second != second))  # noqa: PLR0124 - that is what a NaN is


def _summary(array: Array | None) -> str:
    """Say the value where there is only one, else shape, type and range."""
    if array is None:
        return ""
    kind = "" if array.dtype == np.float32 else f" {array.dtype.name}"
    flat = array.reshape(-1)
    if flat.size and array.ndim < 2 and bool(_equal(flat, flat[:1]).all()):
        return f"{float(flat[0]):.6g}{kind}" + (f" x {flat.size}" if flat.size > 1 else "")
    shape = "x".join(map(str, array.shape))
    if array.ndim > 1 or not flat.size:
        return f"{shape}{kind}"
    return f"{float(flat.min()):.4g} to {float(flat.max()):.4g} ({shape}){kind}"
