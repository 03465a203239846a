"""Running a model and its optimized versions in onnxruntime; called in a process of its own.

A file on which the runtime dies takes this process along, and not the benchmark.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from contenders import first_line

__all__ = ["Case", "difference", "reference", "timings"]

Array = npt.NDArray[Any]

LOADS = 5
SHORTEST = 0.002  # a shorter measurement is repeated within
MOST_CALLS = 50
BATCHES = (1, 32)

_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One model of the benchmark and how it is run.

    Attributes
    ----------
    name : str
    model : Path
    kind : str
        One of ``unrolled``, ``loop``, ``step``, ``custom``.
    inputs : Path
        Samples (.npz).
    expected : Path, optional
        The framework's own outputs (.npz).
    input_axes, output_axes : dict of str to int
        Batch axis of every array in the two files.
    states : dict of str to str
        State input of a one-step model to the output that feeds it.
    steps : int
        Calls that make one run; 0 when the model runs the whole sequence itself.
    batch : int, optional
        The only batch size the model accepts.
    """

    name: str
    model: Path
    kind: str
    inputs: Path
    expected: Path | None = None
    input_axes: Mapping[str, int] = field(default_factory=dict)
    output_axes: Mapping[str, int] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    steps: int = 0
    batch: int | None = None

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes at which the model is timed."""
        return BATCHES if self.batch is None else (self.batch,)

    def samples(self) -> tuple[dict[str, Array], int]:
        """Return the inputs and how many samples they are."""
        with np.load(self.inputs) as stored:
            arrays = {name: stored[name] for name in self.input_axes}
        return arrays, min(array.shape[self.input_axes[name]] for name, array in arrays.items())


def reference(case: Case, store: Path) -> str:
    """Store the outputs of the original for all samples; return why it cannot run, or nothing.

    Where onnxruntime cannot load the original, the framework's own outputs take its place.
    """
    try:
        outputs = _all_outputs(_session(case.model, optimize=False), case)
    except Exception as error:
        if case.expected is None:
            raise
        with np.load(case.expected) as stored:
            np.savez(store, **stored)
        return first_line(str(error)) or type(error).__name__
    np.savez(store, **outputs)
    return ""


def difference(case: Case, output: Path, store: Path) -> dict[str, Any]:
    """Compare an optimized model with the stored outputs, without the runtime's own rewriting.

    Returns
    -------
    dict
        ``changed`` elements of ``total``, the ``largest`` difference, and the names of outputs that are ``gone`` or
        have another shape.
    """
    _session(output, optimize=True)  # what cannot be timed is found here, where it costs one file
    found = _all_outputs(_session(output, optimize=False), case)
    changed, total, largest, gone = 0, 0, 0.0, []
    with np.load(store) as stored:
        for name in stored.files:
            wanted = stored[name]
            total += wanted.size
            got = found.get(name)
            if got is None or got.shape != wanted.shape:
                gone.append(name)
                changed += wanted.size
                continue
            numbers = wanted.dtype.kind == "f"
            differing = ~np.isclose(got, wanted, rtol=0, atol=0, equal_nan=True) if numbers else got != wanted
            changed += int(differing.sum())
            if differing.any():
                distance = np.abs(got[differing].astype(np.float64) - wanted[differing].astype(np.float64))
                largest = max(largest, float(distance.max()))
    return {"changed": changed, "total": total, "largest": largest, "gone": gone}


def timings(case: Case, models: Mapping[str, Path], repeats: int) -> dict[str, dict[str, Any]]:
    """Return the seconds of loading and running every model, the models taking turns.

    Returns
    -------
    dict
        By model: ``load``, the median; ``runs``, by batch size every measurement, in the order of the turns.
    """
    sessions: dict[str, onnxruntime.InferenceSession] = {}
    loads: dict[str, list[float]] = defaultdict(list)
    for turn, (name, path) in itertools.product(range(min(LOADS, repeats)), models.items()):
        if turn == 0:
            _session(path, optimize=True)
        begin = time.perf_counter()
        sessions[name] = _session(path, optimize=True)
        loads[name].append(time.perf_counter() - begin)
    runs: dict[str, dict[int, list[float]]] = {name: {} for name in models}
    arrays, count = case.samples()
    for batch in case.batches:
        feeds = _take(case, arrays, np.arange(batch) % count)
        calls = {name: _call(session, case, feeds) for name, session in sessions.items()}
        for name, seconds in _in_turns(calls, repeats).items():
            runs[name][batch] = seconds
    return {name: {"load": statistics.median(loads[name]), "runs": runs[name]} for name in models}


def _in_turns(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    warm = []
    for call, _ in itertools.product(calls.values(), range(2)):
        begin = time.perf_counter()
        call()
        warm.append(time.perf_counter() - begin)
    times = max(1, min(MOST_CALLS, round(SHORTEST / max(min(warm), 1e-6))))
    measured: dict[str, list[float]] = defaultdict(list)
    for turn in range(repeats):
        names = list(calls)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begin = time.perf_counter()
            for _ in range(times):
                calls[name]()
            measured[name].append((time.perf_counter() - begin) / times)
    return measured


def _session(model: Path, *, optimize: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    # buffers are reused by declared symbolic sizes; exporters declare wrong ones, which only the optimizer repairs
    options.enable_mem_reuse = optimize
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _all_outputs(session: onnxruntime.InferenceSession, case: Case) -> dict[str, Array]:
    arrays, count = case.samples()
    size = case.batch or count
    parts: dict[str, list[Array]] = defaultdict(list)
    for first in range(0, count, size):
        picked = np.arange(first, first + size) % count
        for name, array in _run(session, case, _take(case, arrays, picked)).items():
            parts[name].append(array)
    whole = {}
    for name, pieces in parts.items():
        axis = case.output_axes.get(name, 0)
        # the last batch of a fixed size repeats the first samples
        whole[name] = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis).take(np.arange(count), axis)
    return whole


def _take(case: Case, arrays: Mapping[str, Array], picked: Array) -> dict[str, Array]:
    return {name: array.take(picked, case.input_axes[name]) for name, array in arrays.items()}


def _call(session: onnxruntime.InferenceSession, case: Case, feeds: Mapping[str, Array]) -> Callable[[], object]:
    typed = _typed(session, feeds)
    if not case.steps:
        return lambda: session.run(None, typed)
    moments = [
        {name: np.ascontiguousarray(array[step]) for name, array in typed.items() if name not in case.states}
        for step in range(case.steps)
    ]
    names = [output.name for output in session.get_outputs()]
    threaded = [(state, names.index(output)) for state, output in case.states.items() if state in typed]

    def run() -> list[list[Array]]:
        states = {state: typed[state] for state, _ in threaded}
        outputs = []
        for moment in moments:
            outputs.append(session.run(None, moment | states))
            states = {state: outputs[-1][position] for state, position in threaded}
        return outputs

    return run


def _run(session: onnxruntime.InferenceSession, case: Case, feeds: Mapping[str, Array]) -> dict[str, Array]:
    names = [output.name for output in session.get_outputs()]
    outputs: Any = _call(session, case, feeds)()
    if case.steps:
        outputs = [np.stack(arrays) for arrays in zip(*outputs, strict=True)]
    return dict(zip(names, outputs, strict=True))


def _typed(session: onnxruntime.InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Array]:
    types = {argument.name: _TYPES.get(argument.type) for argument in session.get_inputs()}
    return {name: np.ascontiguousarray(feeds[name], dtype=kind) for name, kind in types.items() if name in feeds}
