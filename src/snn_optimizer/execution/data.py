"""Calibration and test data: arrays that fit the inputs of a model."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_optimizer.errors import DataError
from snn_optimizer.execution.axes import batch_axes, time_axis
from snn_optimizer.execution.ort import Port
from snn_optimizer.ir.atomic import AtomicFiles

__all__ = ["Dataset", "load_dataset", "read_arrays", "save_arrays"]

Array = npt.NDArray[Any]

LABELS = "labels"
"""Name of the array of labels in a file of data, unless a model input has that name."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Samples for a model.

    Attributes
    ----------
    feeds : mapping from input name to array
        All samples, laid out as the model takes them.
    labels : int64 array, one per sample, optional
    batch_axes : mapping from input name to int or None
        The axis that counts samples; None for an input all samples share.
    fixed_batch : int, optional
        The number of samples the model insists on per run.
    """

    feeds: Mapping[str, Array]
    labels: npt.NDArray[np.int64] | None
    batch_axes: Mapping[str, int | None]
    fixed_batch: int | None = None

    @classmethod
    def from_arrays(
        cls,
        feeds: Mapping[str, npt.ArrayLike],
        inputs: Sequence[Port],
        labels: npt.ArrayLike | None = None,
    ) -> Dataset:
        """Fit arrays to the inputs of a model.

        Parameters
        ----------
        feeds : mapping from input name to array
            Values of another type are converted when no value changes.
        inputs : sequence of Port
            The inputs of the model, ``Session.inputs``.
        labels : array of int, one per sample, optional

        Raises
        ------
        DataError
            If an array is missing, unknown, empty, not finite, or has the wrong
            axes, sizes or type; one line that names it.
        """
        _check_names(feeds, inputs)
        arrays = {port.name: _converted(np.asarray(feeds[port.name]), port) for port in inputs}
        checked = None if labels is None else _checked_labels(np.asarray(labels))
        for port in inputs:
            _check_rank(arrays[port.name], port)
        axes = batch_axes(inputs, arrays, None if checked is None else len(checked))
        for port in inputs:
            _check_sizes(arrays[port.name], port, axes[port.name])
        samples = _count_samples(arrays, axes)
        if checked is not None and len(checked) != samples:
            raise DataError(f"there are {len(checked)} labels for {samples} samples")
        return cls(arrays, checked, axes, _fixed_batch(inputs, axes))

    @property
    def samples(self) -> int:
        """Number of samples."""
        return _count_samples(self.feeds, self.batch_axes)

    @property
    def steps(self) -> int:
        """Number of time steps of the first time-major input; 1 for a model of one step."""
        for name, array in self.feeds.items():
            if time_axis(array.shape, self.batch_axes[name]) is not None:
                return int(array.shape[0])
        return 1

    def digest(self) -> str:
        """Return the SHA-256 of the samples, labels left out, as hexadecimal text."""
        digest = hashlib.sha256()
        for name, array in sorted(self.feeds.items()):
            digest.update(f"{name}:{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def take(self, indices: npt.ArrayLike | slice) -> Dataset:
        """Return the samples of the given indices, in their order."""
        chosen = indices if isinstance(indices, slice) else np.asarray(indices, dtype=np.int64)
        feeds = {}
        for name, array in self.feeds.items():
            axis = self.batch_axes[name]
            feeds[name] = array if axis is None else array[(slice(None),) * axis + (chosen,)]
        return replace(self, feeds=feeds, labels=None if self.labels is None else self.labels[chosen])

    def batches(self, size: int) -> Iterator[Dataset]:
        """Split into runs of at most ``size`` samples; of the model's own batch size where it has one."""
        step = self.fixed_batch or size
        for start in range(0, self.samples, step):
            yield self.take(slice(start, start + step))


def load_dataset(path: str | os.PathLike[str], inputs: Sequence[Port]) -> Dataset:
    """Read calibration or test data for a model.

    Parameters
    ----------
    path : path
        An ``.npz`` file with one array per model input and, if wanted, ``labels``.
    inputs : sequence of Port
        The inputs of the model, ``Session.inputs``.

    Raises
    ------
    DataError
        If the file cannot be read or does not fit the model; one line.
    """
    feeds = read_arrays(path)
    labels = None if any(port.name == LABELS for port in inputs) else feeds.pop(LABELS, None)
    try:
        return Dataset.from_arrays(feeds, inputs, labels)
    except DataError as error:
        raise DataError(f"'{os.fspath(path)}': {error}") from None


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read all arrays of an ``.npz`` file; pickled objects are refused.

    Raises
    ------
    DataError
        If the file cannot be read or is something else.
    """
    name = os.fspath(path)
    try:
        with Path(path).open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"'{name}': a single array, not an .npz file; write it with numpy.savez(path, x=array)")
            return {key: archive[key] for key in archive.files}
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"'{name}': no such file") from None
    except OSError as error:
        raise DataError(f"'{name}': cannot be read: {error.strerror or error}") from error
    except (
        ValueError,
        EOFError,
        KeyError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
    ) as error:
        raise DataError(f"'{name}': not an .npz file of plain arrays, or damaged") from error


def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write an ``.npz`` file, complete or not at all; equal arrays give equal bytes.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    # not numpy.savez, which cannot write an array called 'file'
    with AtomicFiles() as files, files.open(Path(path)) as stream, zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _check_names(feeds: Mapping[str, npt.ArrayLike], inputs: Sequence[Port]) -> None:
    wanted = [port.name for port in inputs]
    if missing := [name for name in wanted if name not in feeds]:
        raise DataError(f"no array '{missing[0]}'; the model takes {', '.join(wanted)}")
    if unknown := [name for name in feeds if name not in wanted]:
        raise DataError(f"array '{unknown[0]}' is no input of the model, which takes {', '.join(wanted)}")


def _converted(array: Array, port: Port) -> Array:
    if array.size == 0:
        raise DataError(f"array '{port.name}' is empty, its shape is {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"array '{port.name}' holds NaN or infinite values")
    if array.dtype == port.dtype:
        return array
    if array.dtype.kind not in "biuf" or port.dtype.kind not in "biuf":
        raise DataError(f"array '{port.name}' is {array.dtype}, the model takes {port.dtype}")
    with np.errstate(all="ignore"):
        converted = array.astype(port.dtype)
        kept = np.array_equal(converted.astype(array.dtype), array)
    if not kept:
        raise DataError(
            f"array '{port.name}' is {array.dtype} and holds values that {port.dtype} cannot; "
            f"save it as {port.dtype}, which the model takes"
        )
    return converted


def _check_rank(array: Array, port: Port) -> None:
    if port.shape is not None and array.ndim != len(port.shape):
        raise DataError(f"array '{port.name}' has shape {array.shape}, the model takes {len(port.shape)} axes: {port}")


def _check_sizes(array: Array, port: Port, batch_axis: int | None) -> None:
    for axis, (size, wanted) in enumerate(zip(array.shape, port.shape or (), strict=False)):
        if not isinstance(wanted, int) or size == wanted:
            continue
        if axis == batch_axis and wanted > 0 and size % wanted == 0:
            continue
        multiple = "a multiple of " if axis == batch_axis else ""
        raise DataError(
            f"array '{port.name}' has shape {array.shape}, the model takes {port}: "
            f"axis {axis} must be {multiple}{wanted}"
        )


def _count_samples(feeds: Mapping[str, Array], axes: Mapping[str, int | None]) -> int:
    counts = {name: int(feeds[name].shape[axis]) for name, axis in axes.items() if axis is not None}
    if not counts:
        return 1
    first = next(iter(counts))
    for name, count in counts.items():
        if count != counts[first]:
            raise DataError(f"array '{first}' holds {counts[first]} samples, array '{name}' {count}")
    return counts[first]


def _checked_labels(labels: Array) -> npt.NDArray[np.int64]:
    if labels.ndim != 1 or labels.dtype.kind not in "biuf":
        raise DataError(f"labels must be one integer per sample, not {labels.dtype} of shape {labels.shape}")
    with np.errstate(all="ignore"):
        converted = labels.astype(np.int64)
    if not np.array_equal(converted, labels):
        raise DataError("labels must be integers")
    return converted


def _fixed_batch(inputs: Sequence[Port], axes: Mapping[str, int | None]) -> int | None:
    for port in inputs:
        axis = axes[port.name]
        if axis is not None and port.shape is not None and isinstance(size := port.shape[axis], int):
            return size
    return None
