"""What is written for a node: new values where a pass changed something, the old ones, bit for bit, where none did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["cut", "recovered", "settled"]

Array = npt.NDArray[Any]


def settled(kind: str, fields: Mapping[str, Any], template: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the content of a node.

    Parameters
    ----------
    kind : str
    fields : mapping
        All parameters of the node.
    template : mapping, optional
        What the file had under this name. Its metadata stays; where it is of the same kind, parameters that are
        equal stay as they were stored.
    """
    content: dict[str, Any] = {"type": kind}
    old = template or {}
    same = old.get("type") == kind
    for name, value in fields.items():
        content[name] = old[name] if same and name in old and _equal(old[name], value) else _stored(value)
    if same:  # fields the nir package adds as it reads were not in the file
        content = {name: value for name, value in content.items() if name in old or name not in _INFERRED}
        content = {name: content[name] for name in old if name in content} | content
    if "metadata" in old:
        content["metadata"] = old["metadata"]
    return content


_INFERRED = ("input_shape", "w_in", "v_reset")


def _stored(value: Any) -> Any:
    return value if isinstance(value, (str, np.ndarray, np.generic)) else np.asarray(value)


def _equal(old: Any, new: Any) -> bool:
    if isinstance(old, (str, bytes)) or isinstance(new, (str, bytes)):
        return bool(old == new)
    first, second = np.asarray(old), np.asarray(new)
    return first.shape == second.shape and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


def cut(values: Any, units: npt.NDArray[np.int64] | None, count: int) -> Array | None:
    """Return what is left of a parameter when only some units are, None where it cannot be told."""
    array = np.asarray(values)
    if units is None:
        return array if not array.ndim or array.shape[0] == count else None
    if not array.ndim:
        return array
    if len(units) != count or (len(units) and int(units.max()) >= array.shape[0]):
        return None
    return np.ascontiguousarray(array[units])


def recovered(found: Array, template: Any, choices: Sequence[npt.NDArray[np.int64]]) -> Array:
    """Return weights as precise as the file had them.

    Networks are computed in single precision. Where the file had more, elements that are still what single precision
    made of the file's are the file's again.

    Parameters
    ----------
    found : array
        In single precision.
    template : array_like or None
        What the file had.
    choices : sequence of array
        Which units populations still have; rows and columns that were cut are among them.
    """
    if template is None:
        return found
    old = np.asarray(template)
    if old.dtype == found.dtype or old.ndim != found.ndim or old.dtype.kind != "f":
        return found
    best: Array | None = None
    most = 0
    for selected in _selections(old, found.shape, choices):
        equal = selected.astype(found.dtype) == found
        if (count := int(equal.sum())) > most or best is None:
            best, most = np.where(equal, selected, found.astype(old.dtype)), count
    return found.astype(old.dtype) if best is None else best


def _selections(old: Array, shape: tuple[int, ...], choices: Sequence[npt.NDArray[np.int64]]) -> list[Array]:
    """Return the ways to take an array of a shape out of a larger one by units."""
    found = [old]
    for axis, size in enumerate(shape):
        found = [part for array in found for part in _along(array, axis, size, choices)]
    return found


def _along(array: Array, axis: int, size: int, choices: Sequence[npt.NDArray[np.int64]]) -> list[Array]:
    if array.shape[axis] == size:
        return [array]
    fitting = [units for units in choices if len(units) == size and int(units.max(initial=0)) < array.shape[axis]]
    return [np.take(array, units, axis) for units in fitting]
