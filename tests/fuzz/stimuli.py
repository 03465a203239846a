"""The fuzzer's own inputs, made without the project's generators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from tests.fuzz.plans import Plan
from tests.fuzz.samples import TIME, Sample, shapes_of

Arrays = dict[str, np.ndarray]
SIZES = ((6, 16), (1, 1), (5, 7), (9, 2))
LARGEST_ENUMERATION = 64


def active(array: np.ndarray, limit: int | None, generator: np.random.Generator) -> np.ndarray:
    """Keep at most `limit` entries of every frame (what is behind the first two axes, of a matrix behind the first)."""
    if limit is None or array.size == 0:
        return array
    lead = max(0, min(2, array.ndim - 1))
    rows = np.array(array).reshape(int(np.prod(array.shape[:lead], dtype=int)), -1)
    order = np.argsort(generator.random(rows.shape) - (rows != 0), axis=1)  # those that are active first
    np.put_along_axis(rows, order[:, limit:], 0, axis=1)
    return rows.reshape(array.shape)


def trains(sample: Sample, plan: Plan, kind: str, steps: int, batch: int, seed: int) -> Arrays:
    """Inputs in the declared domain; states of a one-step model start at zero."""
    generator = np.random.default_rng([seed, sum(map(ord, kind))])
    feeds = {}
    for name, (shape, dtype) in shapes_of(sample.model, steps, batch).items():
        if name in sample.states:
            feeds[name] = np.zeros(shape, dtype)
            continue
        values = _values(kind, shape, plan, generator)
        feeds[name] = active(values, plan.max_active, generator).astype(dtype)
    return feeds


def _values(kind: str, shape: tuple[int, ...], plan: Plan, generator: np.random.Generator) -> np.ndarray:
    low, high = plan.low, plan.high
    match kind:
        case "zeros":
            chosen = np.zeros(shape)
        case "ones":
            chosen = np.ones(shape)
        case "every":  # each pattern of the features, held over the steps
            features = int(np.prod(shape[2:] or shape[1:], dtype=int))
            patterns = (np.arange(LARGEST_ENUMERATION)[:, None] >> np.arange(features)) & 1
            rows = shape[1] if len(shape) > 2 else shape[0]
            held = np.resize(patterns, (rows, features)).reshape((rows, *(shape[2:] or shape[1:])))
            chosen = np.broadcast_to(held, shape).astype(float)
        case "held":
            chosen = np.broadcast_to(generator.random((1, *shape[1:])) < 0.5, shape).astype(float)
        case "graded":  # quarters of the range, exact in every element type
            chosen = generator.integers(0, 5, shape) / 4
        case _:
            chosen = (generator.random(shape) < float(kind)).astype(float)
    return low + chosen * (high - low)


def stimuli(sample: Sample, plan: Plan) -> Iterator[tuple[str, Arrays]]:
    """Named inputs: trains of all rates, every pattern of few features, graded values, one step, one sample, none."""
    for index, (kind, (steps, batch)) in enumerate(
        [("0.1", SIZES[0]), ("0.4", SIZES[0]), ("0.7", SIZES[2]), ("zeros", SIZES[1]), ("ones", SIZES[3]),
         ("0.5", SIZES[1]), ("held", (9, 4)), ("graded", SIZES[2]), ("every", (6, LARGEST_ENUMERATION))]
    ):  # fmt: skip
        yield f"{kind}:{steps}x{batch}", trains(sample, plan, kind, steps, batch, index)
    dims = {axis.dim_param for value in sample.model.graph.input for axis in value.type.tensor_type.shape.dim}
    if dims - set(TIME) - {""}:
        yield "no samples", trains(sample, plan, "0.5", 4, 0, 0)
    if dims & set(TIME):
        yield "no steps", trains(sample, plan, "0.5", 0, 3, 0)


def calibration(sample: Sample, plan: Plan) -> Mapping[str, np.ndarray] | None:
    """The data of a plan; half of the samples are trains, the others nearly silent."""
    if not plan.calibration:
        return None
    busy = trains(sample, plan, "0.4", 6, plan.calibration, 1000 + plan.seed)
    calm = trains(sample, plan, "0.1", 6, plan.calibration, 2000 + plan.seed)
    feeds: Arrays = {}
    for name, array in busy.items():
        feeds[name] = np.where(np.arange(array.size).reshape(array.shape) % 2 == 0, array, calm[name])
        feeds[name] = active(feeds[name], plan.max_active, np.random.default_rng(plan.seed)).astype(array.dtype)
    if plan.labels:
        first = shapes_of(sample.model, 6, plan.calibration)
        free = any(
            axis.dim_param and axis.dim_param not in TIME
            for value in sample.model.graph.input
            for axis in value.type.tensor_type.shape.dim
        )
        samples = plan.calibration if free else _fixed(sample, first)
        feeds["labels"] = np.random.default_rng(plan.seed).integers(0, 2, samples)
    return feeds


def _fixed(sample: Sample, shapes: Mapping[str, tuple[tuple[int, ...], object]]) -> int:
    """The batch of a model that fixes it: the axis all outputs and inputs share is not marked, so it is guessed."""
    shape = next(iter(shapes.values()))[0]
    return shape[1] if len(shape) > 2 and sample.kind not in {"step", "cells"} else shape[0]
