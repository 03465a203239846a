"""Finding the models of a benchmark and how each of them is run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from contenders import subgraphs
from runs import Case

__all__ = ["KINDS", "corpus_folder", "find_cases"]

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("unrolled", "loop", "step", "custom")
SAMPLES = 64
DENSITY = 0.3


def corpus_folder() -> Path:
    """Return the folder named by SNN_CORPUS, or ../shared/corpus beside the project."""
    return Path(os.environ.get("SNN_CORPUS") or ROOT.parent / "shared" / "corpus")


def find_cases(paths: Sequence[Path], scratch: Path) -> Iterator[Case | tuple[str, str]]:
    """Yield every model under `paths`, or its name and what keeps it from being run.

    A folder holds a ``model.onnx`` (an entry of the corpus), or entries and models. Inputs that no file provides are
    drawn and put into `scratch`.
    """
    for model in _models(paths):
        name = model.parent.name if model.name == "model.onnx" else model.stem
        try:
            yield _case(name, model, scratch)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one file, the others are measured
            yield name, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"


def _models(paths: Sequence[Path]) -> list[Path]:
    models: list[Path] = []
    for path in paths:
        if not path.is_dir():
            models.append(path)
        elif (path / "model.onnx").is_file():
            models.append(path / "model.onnx")
        else:
            models += sorted([*path.glob("*.onnx"), *path.glob("*/model.onnx")])
    return list(dict.fromkeys(models))


def _case(name: str, model: Path, scratch: Path) -> Case:
    graph = onnx.load(model, load_external_data=False)
    described = model.parent / "meta.json"
    if model.name == "model.onnx" and described.is_file():
        return _described(name, model, graph, json.loads(described.read_text()))
    axes = {value.name: _batch_axis(value) for value in [*_inputs(graph), *graph.graph.output]}
    inputs = [value.name for value in _inputs(graph)]
    near = [model.with_name("inputs.npz"), model.with_suffix(".test.npz"), model.with_suffix(".npz")]
    samples = next((path for path in near if path.is_file() and set(inputs) <= set(np.load(path).files)), None)
    return Case(
        name=name,
        model=model,
        kind=_kind(graph, step=False),
        inputs=samples or _drawn(name, graph, scratch),
        input_axes={name: axes[name] for name in inputs},
        output_axes=axes,
        batch=_fixed_batch(graph, axes),
    )


def _described(name: str, model: Path, graph: onnx.ModelProto, meta: dict[str, Any]) -> Case:
    step = meta["form"] == "step"
    states = meta.get("state_pairs") or {}
    inputs = [value.name for value in _inputs(graph)]
    outputs = [value.name for value in graph.graph.output]
    axes = meta.get("batch_axis") or {}
    if step:
        # samples are [T, B, ...]; states, and the arguments of one call, begin with the batch
        input_axes = {name: 0 if name in states else 1 for name in inputs}
        output_axes = dict.fromkeys(outputs, 1)
    else:
        input_axes = {name: axes.get("inputs", {}).get(name, 0) for name in inputs}
        output_axes = {name: axes.get("outputs", {}).get(name, 0) for name in outputs}
    expected = model.with_name("expected.npz")
    kind = _kind(graph, step=step)
    # the exporter put its example's batch size into a constant, whatever the declared shape says
    baked = meta["export_batch"] if meta.get("ort_error") and kind != "custom" else None
    return Case(
        name=name,
        model=model,
        kind=kind,
        inputs=model.with_name("inputs.npz"),
        expected=expected if expected.is_file() else None,
        input_axes=input_axes,
        output_axes=output_axes,
        states=states,
        steps=int(meta["T"]) if step else 0,
        batch=baked or _fixed_batch(graph, dict.fromkeys(inputs, 0) if step else input_axes),
    )


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def _dimensions(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def _batch_axis(value: onnx.ValueInfoProto) -> int:
    symbols = {axis: dim.dim_param for axis, dim in enumerate(_dimensions(value)) if not dim.HasField("dim_value")}
    named = [axis for axis, symbol in symbols.items() if "batch" in symbol.lower() or symbol in {"N", "B"}]
    return next(iter([*named, *symbols]), 0)


def _fixed_batch(model: onnx.ModelProto, axes: dict[str, int]) -> int | None:
    sizes = []
    for value in _inputs(model):
        dimensions = _dimensions(value)
        if axes[value.name] < len(dimensions) and dimensions[axes[value.name]].HasField("dim_value"):
            sizes.append(dimensions[axes[value.name]].dim_value)
    return sizes[0] if sizes else None


def _kind(model: onnx.ModelProto, *, step: bool) -> str:
    defined = {(function.domain, function.name) for function in model.functions}
    nodes = list(_all_nodes(model.graph.node))
    foreign = {(node.domain, node.op_type) for node in nodes if node.domain not in {"", "ai.onnx", "ai.onnx.ml"}}
    if any(domain != "com.microsoft" for domain, _ in foreign - defined):
        return "custom"
    if step:
        return "step"
    bodies = [node for function in model.functions for node in _all_nodes(function.node)]
    loops = any(node.op_type in {"Loop", "Scan"} for node in [*nodes, *bodies])
    return "loop" if loops else "unrolled"


def _all_nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from _all_nodes(graph.node)


def _drawn(name: str, model: onnx.ModelProto, scratch: Path) -> Path:
    """Draw spike trains for the inputs; every size that is not declared is the number of samples."""
    generator = np.random.default_rng(0)
    arrays = {}
    for value in _inputs(model):
        shape = [dim.dim_value if dim.HasField("dim_value") else SAMPLES for dim in _dimensions(value)]
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        arrays[value.name] = (generator.random(shape) < DENSITY).astype(kind)
    path = scratch / f"{name}.inputs.npz"
    np.savez(path, **arrays)
    return path
