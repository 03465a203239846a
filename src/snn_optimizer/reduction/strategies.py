"""The ways in which a candidate is made smaller, in the order in which they pay off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from snn_optimizer.errors import SnnOptimizerError
from snn_optimizer.execution import Dataset, Session
from snn_optimizer.pipeline.spec import Element, GroupSpec
from snn_optimizer.reduction.candidate import Candidate
from snn_optimizer.reduction.dimensions import leading_sizes, pinned, symbols, with_leading_size
from snn_optimizer.reduction.graph_cuts import Typed, bypassed, first_outputs, opened_loop, without_unused
from snn_optimizer.reduction.search import Search
from snn_optimizer.reduction.units import populations_of, without_units
from snn_optimizer.reduction.values import ROUNDINGS, float_tensors, nonzero_entries, simplified, with_zeros

__all__ = ["run_round"]

SIZES = (1, 2, 3, 4, 8, 16)  # tried for a symbol
MANY = 64  # entries of a tensor that are zeroed one by one


def run_round(search: Search, pieces: float) -> None:
    """Try everything once, the nodes in at most so many pieces."""
    _passes(search)
    _samples(search)
    _outputs(search)
    _ends(search)
    _nodes(search, pieces)
    _inputs(search)
    _sizes(search)
    _units(search)
    _loops(search)
    _bypasses(search, pieces)
    _values(search)


def _passes(search: Search) -> None:
    elements = search.current.pipeline
    if len(elements) == 1 and isinstance(elements[0], GroupSpec):
        group = elements[0]

        def rebuilt(body: Sequence[Element]) -> Candidate | None:
            return replace(search.current, pipeline=(replace(group, body=tuple(body)),)) if body else None

        search.thin(group.body, rebuilt, "passes of a group")
    elif len(elements) > 1:
        search.thin(
            elements,
            lambda kept: replace(search.current, pipeline=tuple(kept)) if kept else None,
            "passes",
        )


def _samples(search: Search) -> None:
    if search.current.samples is None:
        return
    base = search.current
    data = _dataset(base)
    if data is None or data.samples < 2 or data.fixed_batch:
        return

    def taken(kept: Sequence[int]) -> Candidate | None:
        return replace(base, samples=_arrays(data.take(list(kept)))) if kept else None

    search.thin(range(data.samples), taken, "samples")


def _dataset(candidate: Candidate) -> Dataset | None:
    arrays = dict(candidate.samples or {})
    labels = arrays.pop("labels", None)
    try:
        return Dataset.from_arrays(arrays, Session(candidate.model).inputs, labels)
    except SnnOptimizerError:
        return None  # samples of the step that is left cannot be told apart, for example


def _arrays(data: Dataset) -> dict[str, npt.NDArray[Any]]:
    return dict(data.feeds) | ({} if data.labels is None else {"labels": np.asarray(data.labels)})


def _outputs(search: Search) -> None:
    outputs = [info.name for info in search.current.model.graph.output]
    if len(outputs) > 1:
        typed = Typed.of(search.current.model)
        base = search.current

        def with_some(kept: Sequence[str]) -> Candidate | None:
            return _with_model(base, typed.with_outputs(kept)) if kept else None

        search.thin(outputs, with_some, "outputs")


def _ends(search: Search) -> None:
    """Cut behind and in front by bisection, which assumes that what fails in a part fails in a larger one."""
    names = first_outputs(search.current.model)
    for behind in (True, False):
        low, high = 1, len(names)
        while low < high:
            middle = (low + high) // 2
            kept = names[:middle] if behind else names[len(names) - middle :]
            if search.attempt(search.built(lambda some: _keeping(search.current, some), kept), "ends"):
                high = middle
            else:
                low = middle + 1


def _nodes(search: Search, pieces: float) -> None:
    names = first_outputs(search.current.model)
    finest = max(1, int(len(names) / pieces))
    search.thin(names, lambda kept: _keeping(search.current, kept), "nodes", finest=finest, reverse=True)


def _keeping(candidate: Candidate, names: Sequence[str]) -> Candidate | None:
    there = first_outputs(candidate.model)
    wanted = set(names).intersection(there)
    if not wanted or len(wanted) == len(there):
        return None
    found = Typed.of(candidate.model).keeping(wanted)
    if found is None or len(found[0].graph.node) >= len(there):
        return None
    model, fresh = found
    return _with_model(candidate, model, fresh)


def _with_model(candidate: Candidate, model: onnx.ModelProto, fresh: Sequence[str] = ()) -> Candidate:
    """Return the candidate with a cut model; samples of new inputs are what the uncut model computes there."""
    samples = candidate.samples
    if samples is not None:
        inputs = {info.name for info in model.graph.input}
        computed = _computed(candidate, fresh) if fresh else {}
        samples = {k: v for k, v in (*samples.items(), *computed.items()) if k in inputs or k == "labels"}
    return replace(candidate, model=model, samples=samples)


def _computed(candidate: Candidate, names: Sequence[str]) -> Mapping[str, npt.NDArray[Any]]:
    asked = onnx.ModelProto()
    asked.CopyFrom(candidate.model)
    types = Typed.of(candidate.model).types
    known = {info.name for info in asked.graph.output}
    for name in names:
        if name not in known:
            asked.graph.output.add(name=name).type.CopyFrom(types[name])
    feeds = {name: array for name, array in (candidate.samples or {}).items() if name != "labels"}
    return Session(asked).run(feeds, list(names))


def _inputs(search: Search) -> None:
    """Replace inputs by zeros, all but one."""
    names = [info.name for info in search.current.model.graph.input]
    if len(names) > 1:
        base = search.current
        search.thin(names, lambda kept: _with_zero_inputs(base, kept) if kept else None, "inputs")


def _with_zero_inputs(candidate: Candidate, kept: Sequence[str]) -> Candidate:
    model = onnx.ModelProto()
    model.CopyFrom(candidate.model)
    for info in candidate.model.graph.input:
        if info.name not in kept:
            tensor = info.type.tensor_type
            shape = [dim.dim_value or 1 for dim in tensor.shape.dim]
            zeros = np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
            model.graph.initializer.append(numpy_helper.from_array(zeros, info.name))
    remaining = [info for info in candidate.model.graph.input if info.name in kept]
    del model.graph.input[:]
    model.graph.input.extend(remaining)
    return _with_model(candidate, without_unused(model))


def _sizes(search: Search) -> None:
    for symbol in symbols(search.current.model):
        any(search.attempt(pinned(search.current, symbol, size), "sizes") for size in SIZES)
    while any(_shorter(search, size) for size in leading_sizes(search.current.model)):
        pass


def _shorter(search: Search, size: int) -> bool:
    return any(
        search.attempt(with_leading_size(search.current, size, new, first=first), "steps")
        for new in sorted({1, 2, size // 2, size - 1} - {0, size})
        for first in (True, False)
    )


def _units(search: Search) -> None:
    done: set[str] = set()
    while True:
        axes = _axes(search.current)
        name = next((one for one in axes if one not in done), None)
        if name is None:
            return
        done.add(name)
        _thin_axis(search, axes[name])


def _thin_axis(search: Search, classes: Sequence[int]) -> None:
    base = search.current  # whose numbers the classes have
    search.thin(classes, lambda kept: without_units(base, sorted(set(classes).difference(kept))), "units")


def _axes(candidate: Candidate) -> dict[str, list[int]]:
    try:
        return populations_of(candidate.model)
    except SnnOptimizerError:
        return {}  # a model that only the check reads


def _loops(search: Search) -> None:
    for name in [one.output[0] for one in search.current.model.graph.node if one.op_type == "Scan"]:
        model = opened_loop(search.current.model, name)
        if model is not None:
            search.attempt(_with_model(search.current, model), "loop")


def _bypasses(search: Search, pieces: float) -> None:
    names = first_outputs(search.current.model)
    if len(names) > pieces:
        return
    for name in reversed(names):
        any(search.attempt(_with_model(search.current, one), "bypass") for one in _bypassed(search.current, name))


def _bypassed(candidate: Candidate, name: str) -> Iterator[onnx.ModelProto]:
    return bypassed(Typed.of(candidate.model), name)


def _values(search: Search) -> None:
    names = float_tensors(search.current.model)
    for name in names:
        _zeroed(search, name)
    for what, change in ROUNDINGS:
        if not search.attempt(simplified(search.current, names, change), what):
            for name in names:
                search.attempt(simplified(search.current, [name], change), what)


def _zeroed(search: Search, name: str) -> None:
    """Let what is not zero in a tensor be so; single numbers are parameters of neurons and stay."""
    base = search.current
    entries = nonzero_entries(base.model, name)
    if len(entries) > 1:
        finest = max(1, len(entries) // MANY)
        search.thin(entries, lambda kept: with_zeros(base, name, kept), "values", finest=finest)
