"""Load and run time of models side by side, on the same inputs, as a deployment would run them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from snn_optimizer.errors import InputError
from snn_optimizer.execution.axes import batch_axes, names_time, time_axis
from snn_optimizer.execution.data import Dataset, load_dataset
from snn_optimizer.execution.ort import Dimension, Port, Session
from snn_optimizer.execution.timing import Ratio, Seconds, in_turns, ratio_of, summary
from snn_optimizer.projection_costs import this_machine

__all__ = ["Benchmark", "Measured", "Trains", "Turns", "benchmark"]

ROUNDS: Final = 30
INPUTS: Final = 8  # different ones in one measurement
LONGEST: Final = 0.25  # seconds of one measurement, unless one call takes longer
LOADS: Final = 6  # the fewest whose interval holds the median at 95 %

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Trains:
    """Spike trains to draw: how often a neuron fires, steps where the model leaves them open, and the seed."""

    rate: float = 0.1
    steps: int = 16
    seed: int = 0

    def __str__(self) -> str:
        return f"random spike trains, {self.rate:g} of all elements are spikes, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Measured:
    """One model: its seconds, and how they compare with those of the first.

    Attributes
    ----------
    model : str
    seconds : Seconds
    ratio : Ratio, optional
        None of the first model.
    largest_difference : float, optional
        Between its outputs and those of the first; None where nothing was compared.
    """

    model: str
    seconds: Seconds
    ratio: Ratio | None
    largest_difference: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serializable form."""
        return {
            "model": self.model,
            "seconds": self.seconds.to_json(),
            "ratio": None if self.ratio is None else self.ratio.to_json(),
            "largest_difference": self.largest_difference,
        }


@dataclass(frozen=True, slots=True)
class Turns:
    """The models, taking turns."""

    rounds: int
    models: tuple[Measured, ...]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What was measured.

    Attributes
    ----------
    threads : int
        Within one operator.
    inputs : str
        What the models ran on.
    load : Turns
    runs : mapping from batch size to Turns
    """

    threads: int
    inputs: str
    load: Turns
    runs: Mapping[int, Turns]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serializable form."""

        def turns(one: Turns) -> dict[str, Any]:
            return {"rounds": one.rounds, "models": [each.to_json() for each in one.models]}

        return {
            "machine": this_machine(),
            "onnxruntime": str(onnxruntime.__version__),
            "threads": self.threads,
            "inputs": self.inputs,
            "load": turns(self.load),
            "runs": [{"batch": batch} | turns(one) for batch, one in self.runs.items()],
        }


def benchmark(
    models: Sequence[str | os.PathLike[str]],
    *,
    batches: Sequence[int] = (),
    threads: int = 1,
    rounds: int | None = None,
    seconds: float | None = None,
    data: str | os.PathLike[str] | None = None,
    trains: Trains | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Benchmark:
    """Measure models with the same interface, in turns.

    Parameters
    ----------
    models : sequence of path
        The first is what the others are compared with.
    batches : sequence of int
        Batch sizes to run; the one the models fix, or 1, when empty.
    rounds : int, optional
        Turns of every measurement, 30 by default.
    seconds : float, optional
        Instead of ``rounds``: how long to measure at each batch size.
    data : path, optional
        Samples (.npz) instead of ``trains``; repeated where there are fewer than a batch.
    progress : callable, optional
        Takes what, done and total.

    Raises
    ------
    InputError
        If a model has another interface than the first, or does not take a batch size.
    """
    names = [os.fspath(model) for model in models]
    sessions = [Session(model, optimize=True, threads=threads) for model in models]
    for name, session in zip(names[1:], sessions[1:], strict=True):
        _require_same_interface(names[0], sessions[0], name, session)
    inputs = [[_named(session.inputs, port.name) for session in sessions] for port in sessions[0].inputs]
    axes = batch_axes([_combined(same, open_sizes=True) for same in inputs])
    fixed = _fixed_batches(names, inputs, axes)
    chosen = tuple(dict.fromkeys(batches)) or (next(iter(fixed.values()), 1),)
    for name, size in fixed.items():
        if wrong := [batch for batch in chosen if batch != size]:
            raise InputError(f"'{name}' takes batches of {size} only, not of {wrong[0]}: give --batch {size}")
    dataset = None if data is None else load_dataset(data, sessions[0].inputs)
    drawn = trains or Trains()
    loads = {name: _loading(model, threads) for name, model in zip(_keys(names), models, strict=True)}
    rounds = ROUNDS if rounds is None and seconds is None else rounds
    load = in_turns(loads, rounds=min(rounds or LOADS, LOADS), shortest=0, warm_ups=1)
    runs = {}
    for batch in chosen:
        draw = _sampled(dataset, batch) if dataset is not None else _drawing(inputs, axes, batch, drawn)
        report = None if progress is None else partial(progress, f"batch {batch}")
        runs[batch] = _run_turns(names, sessions, draw, rounds, seconds, report)
    fed = str(drawn) if dataset is None else f"{dataset.samples} samples of '{os.fspath(data or '')}'"
    return Benchmark(threads, fed, _turns(names, load, [None] * len(names)), runs)


def _run_turns(
    names: Sequence[str],
    sessions: Sequence[Session],
    draw: Callable[[int, int], Mapping[str, Array]],
    rounds: int | None,
    seconds: float | None,
    report: Callable[[int, int], None] | None,
) -> Turns:
    """Time all models on the same inputs, on so many different ones as do not take long."""
    first = draw(0, 1)
    slowest = max(min(in_turns({"": session.prepare(first)}, rounds=1, shortest=0)[""]) for session in sessions)
    number = max(1, min(INPUTS, int(LONGEST / slowest)))
    inputs = [draw(index, number) for index in range(number)]
    differences: list[float | None] = [None, *([0.0] * (len(names) - 1))]
    for feeds in inputs:
        reference = sessions[0].run(feeds)
        for place in range(1, len(names)):
            found = _difference(reference, sessions[place].run(feeds), names[place])
            differences[place] = max(differences[place] or 0.0, found)
    calls = {
        key: _all_of([session.prepare(feeds) for feeds in inputs])
        for key, session in zip(_keys(names), sessions, strict=True)
    }
    times = in_turns(calls, rounds=rounds, seconds=seconds, fewest=LOADS, progress=report)
    each = {key: [found / number for found in all_inputs] for key, all_inputs in times.items()}
    return _turns(names, each, differences)


def _all_of(calls: Sequence[Callable[[], object]]) -> Callable[[], object]:
    def run() -> None:
        for call in calls:
            call()

    return run


def _turns(names: Sequence[str], times: Mapping[str, list[float]], differences: Sequence[float | None]) -> Turns:
    first = next(iter(times.values()))
    models = [
        Measured(name, summary(found), None if found is first else ratio_of(found, first), difference)
        for name, found, difference in zip(names, times.values(), differences, strict=True)
    ]
    return Turns(len(first), tuple(models))


def _keys(names: Sequence[str]) -> list[str]:
    """Return a key for each model; one file may be given twice."""
    return [f"{number} {name}" for number, name in enumerate(names)]


def _loading(model: str | os.PathLike[str], threads: int) -> Callable[[], object]:
    return lambda: Session(model, optimize=True, threads=threads)


def _difference(first: Mapping[str, Array], other: Mapping[str, Array], name: str) -> float:
    largest = 0.0
    for output, array in first.items():
        found = other[output]
        if found.shape != array.shape:
            raise InputError(
                f"'{name}': output '{output}' has shape {found.shape}, that of the first model {array.shape}: "
                "they do not compute the same and are not compared"
            )
        if array.dtype.kind in "biufc" and array.size:
            distance = np.abs(found.astype(np.float64) - array.astype(np.float64))
            largest = max(largest, float(np.nan_to_num(distance, nan=np.inf).max()))
    return largest


def _require_same_interface(reference: str, first: Session, name: str, other: Session) -> None:
    for kind, before, after in (("input", first.inputs, other.inputs), ("output", first.outputs, other.outputs)):
        old, new = {port.name: port for port in before}, {port.name: port for port in after}
        for only, of in ((old.keys() - new.keys(), reference), (new.keys() - old.keys(), name)):
            if only:
                raise InputError(
                    f"'{name}' cannot be compared with '{reference}': only '{of}' has {kind} '{min(only)}'"
                )
        for port in before:
            if not _agree(port, new[port.name]):
                raise InputError(
                    f"'{name}' cannot be compared with '{reference}': {kind} '{port.name}' is {new[port.name]} "
                    f"instead of {port}"
                )


def _agree(one: Port, other: Port) -> bool:
    """Tell whether some array fits both; open sizes fit any."""
    if one.dtype != other.dtype:
        return False
    if one.shape is None or other.shape is None:
        return True
    return len(one.shape) == len(other.shape) and all(
        a == b or not isinstance(a, int) or not isinstance(b, int) for a, b in zip(one.shape, other.shape, strict=True)
    )


def _named(ports: Sequence[Port], name: str) -> Port:
    return next(port for port in ports if port.name == name)


def _combined(ports: Sequence[Port], *, open_sizes: bool) -> Port:
    """Return an input that several models have, each size open, or fixed, where it is so in any of them."""
    shapes = [port.shape for port in ports if port.shape is not None]
    if not shapes:
        return ports[0]
    sizes: list[Dimension] = []
    for same in zip(*shapes, strict=True):
        wanted = [size for size in same if isinstance(size, int) != open_sizes]
        sizes.append(wanted[0] if wanted else same[0])
    return Port(ports[0].name, ports[0].dtype, tuple(sizes))


def _fixed_batches(
    names: Sequence[str], inputs: Sequence[Sequence[Port]], axes: Mapping[str, int | None]
) -> dict[str, int]:
    """Return the batch size of every model that takes no other."""
    found: dict[str, int] = {}
    for same in inputs:
        axis = axes[same[0].name]
        for name, port in zip(names, same, strict=True):
            size = None if axis is None or port.shape is None else port.shape[axis]
            if isinstance(size, int):
                found.setdefault(name, size)
    return found


def _sampled(dataset: Dataset, batch: int) -> Callable[[int, int], Mapping[str, Array]]:
    """Return a function that takes one of so many batches, spread over all samples."""

    def draw(index: int, number: int) -> Mapping[str, Array]:
        start = index * dataset.samples // number
        return dataset.take((start + np.arange(batch)) % dataset.samples).feeds

    return draw


def _drawing(
    inputs: Sequence[Sequence[Port]], axes: Mapping[str, int | None], batch: int, trains: Trains
) -> Callable[[int, int], Mapping[str, Array]]:
    """Return a function that draws spike trains."""
    shapes = {}
    for same in inputs:
        port = _combined(same, open_sizes=False)
        shapes[port.name] = (_drawn_shape(port, axes[port.name], batch, trains), port.dtype)

    def draw(index: int, _: int) -> Mapping[str, Array]:
        generator = np.random.default_rng([trains.seed, index])
        return {name: (generator.random(shape) < trains.rate).astype(dtype) for name, (shape, dtype) in shapes.items()}

    return draw


def _drawn_shape(port: Port, axis: int | None, batch: int, trains: Trains) -> list[int]:
    if port.shape is None or port.dtype.kind not in "biuf":
        raise InputError(f"nothing can be drawn for input '{port.name}', {port}: give --data SAMPLES.npz")
    time = time_axis(port.shape, axis)
    shape = []
    for place, size in enumerate(port.shape):
        if place == axis:
            shape.append(batch)
        elif isinstance(size, int):
            shape.append(size)
        elif place == time or names_time(size):
            shape.append(trains.steps)
        else:
            raise InputError(f"input '{port.name}', {port}, leaves axis {place} open: give --data SAMPLES.npz")
    return shape
