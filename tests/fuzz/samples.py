"""One random model of a seed, of any kind, with what it takes to feed it and to judge what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from snn_optimizer.api import Job, run_job
from snn_optimizer.ops import DOMAIN, VERSION
from tests.fuzz import exports
from tests.fuzz.twists import apply_twists
from tests.support.random_networks import IR_VERSION, OPSET, NetworkBuilder, SeededChoices, Stream, grow

TIME = ("T", "time", "steps")


@dataclass(frozen=True)
class Sample:
    """A model.

    kind:   which maker grew it.
    exact:  its sums are exact in any order, so that a rewrite equal in real arithmetic is equal in bits.
    states: of a one-step model, input to output.
    twists: what was done to it after it was grown.
    """

    kind: str
    model: onnx.ModelProto
    exact: bool
    states: Mapping[str, str] = field(default_factory=dict)
    twists: tuple[str, ...] = ()

    @property
    def half(self) -> bool:
        """Whether it computes in half precision, which the runtime rounds at places that depend on the graph."""
        ports = [port.type.tensor_type.elem_type for port in (*self.model.graph.input, *self.model.graph.output)]
        held = [tensor.data_type for tensor in self.model.graph.initializer]
        return onnx.TensorProto.FLOAT16 in (*ports, *held)


Maker = Callable[[SeededChoices], tuple[onnx.ModelProto, bool, Mapping[str, str]]]


def functions(choices: SeededChoices) -> tuple[onnx.ModelProto, bool, Mapping[str, str]]:
    """Populations as calls of `ai.snn`, synapses over all steps at once, loops of cells."""
    dtype = choices.pick((np.float32,) * 6 + (np.float64, np.float16))
    network = grow(choices, dtype=dtype, nan=False)
    return network.model, network.grid == "dyadic", {}


def cells(choices: SeededChoices) -> tuple[onnx.ModelProto, bool, Mapping[str, str]]:
    """One step of a network of `ai.snn` cells, states as inputs and outputs."""
    pick = choices.pick
    grid = pick(("dyadic", "dyadic", "decimal", "normal"))
    builder = NetworkBuilder(choices, grid, batch=pick((None, None, 1, 3)))
    batch = builder.batch or "batch"
    stream = Stream("x", (pick((1, 3, 5)),))
    inputs = [builder.tensor_info("x", [batch, *stream.shape])]
    states: dict[str, str] = {}
    outputs = []
    for index in range(pick((1, 2, 2, 3))):
        units, name = pick((1, 2, 4)), f"lif{index}"
        variant = builder.variant("LIF", "LIF", "IF", "CubaLIF", *(("LI",) if index else ()), form="cell")
        weights, offset = builder.rows(units, stream.shape[0], bias=pick((True, False)))
        operands = [stream.value, builder.weight(f"{name}.weight", weights), builder.constant(f"{name}.bias", offset)]
        drive = builder.node("Gemm", operands, f"{name}.drive", name=f"{name}.fc", transB=1)
        before = [f"{name}.{variant.inputs[slot]}" for slot, _ in variant.states]
        after = [f"{state}.next" for state in before]
        parameters = [
            builder.parameter(f"{name}.{role}", role, (units,), variant) for role in variant.inputs[1 + len(before) :]
        ]
        builder.call(name, variant, [drive, *before, *parameters], [f"{name}.out", *after])
        inputs += [builder.tensor_info(state, [batch, units]) for state in before]
        outputs += [builder.tensor_info(state, [batch, units]) for state in after]
        states |= dict(zip(before, after, strict=True))
        value = f"{name}.out"
        if stream.shape == (units,) and pick((False, True)):
            value = builder.node("Add", [stream.value, value], f"{name}.residual")
        stream = Stream(value, (units,))
        if not variant.spiking:
            break
    builder.node("Identity", [stream.value], "output")
    outputs.insert(0, builder.tensor_info("output", [batch, *stream.shape]))
    return _built(builder, inputs, outputs), grid == "dyadic", states


def joined(choices: SeededChoices) -> tuple[onnx.ModelProto, bool, Mapping[str, str]]:
    """Two networks in one file: two inputs or one they share, the outputs of both."""
    steps, batch = choices.pick((None, 4, 1)), choices.pick((None, 1))
    parts = []
    for prefix in ("a.", "b."):
        builder = NetworkBuilder(
            choices, choices.pick(("dyadic", "dyadic", "normal")), steps=steps, batch=batch, nan=False
        )
        parts.append((builder.grow(), prefix))
    models = [_prefixed(network.model, prefix) for network, prefix in parts]
    exact = all(network.grid == "dyadic" for network, _ in parts)
    shares = parts[0][0].shape == parts[1][0].shape and choices.pick((True, True, False))
    if shares:
        _rename(models[1].graph, lambda name: "a.x" if name == "b.x" else name)
    first, second = (model.graph for model in models)
    graph = helper.make_graph(
        [*first.node, *second.node],
        "joined",
        [*first.input, *([] if shares else second.input)],
        [*first.output, *second.output],
        [*first.initializer, *second.initializer],
    )
    functions = {each.name: each for model in models for each in model.functions}
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(graph, functions=list(functions.values()), opset_imports=opsets, ir_version=IR_VERSION)
    return model, exact, {}


def raised(choices: SeededChoices) -> tuple[onnx.ModelProto, bool, Mapping[str, str]]:
    """An export as `@raise` or `@O1` writes it: neurons of written arithmetic, flat and batched forms."""
    model, exact, states = choices.pick((exports.unrolled, exports.scanned, exports.looped, exports.one_step))(choices)
    graph, _ = run_job(model, Job(pipeline=choices.pick(("@raise", "@O1", "@raise,@hygiene")), verify=False))
    return graph.to_onnx(), exact, states


KINDS: dict[str, Maker] = {
    "functions": functions,
    "unrolled": exports.unrolled,
    "step": exports.one_step,
    "scan": exports.scanned,
    "loop": exports.looped,
    "cells": cells,
    "joined": joined,
    "raised": raised,
}


def sample(seed: int, index: int, kind: str | None = None) -> Sample:
    """The model of an index."""
    choices = SeededChoices([seed, index])  # type: ignore[arg-type]
    kind = kind or list(KINDS)[index % len(KINDS)]
    model, exact, states = KINDS[kind](choices)
    made = Sample(kind, model, exact, dict(states))
    twisted, twists, harmless = apply_twists(model, choices, protected=[*states, *states.values()])
    return replace(made, model=twisted, twists=twists, exact=exact and harmless)


def shapes_of(model: onnx.ModelProto, steps: int, batch: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and element type of every input that has to be fed."""
    stored = {tensor.name for tensor in model.graph.initializer}
    found = {}
    for value in model.graph.input:
        if value.name in stored:
            continue
        tensor = value.type.tensor_type
        shape = tuple(
            each.dim_value if each.HasField("dim_value") else steps if each.dim_param in TIME else batch
            for each in tensor.shape.dim
        )
        found[value.name] = (shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return found


def _built(builder: NetworkBuilder, inputs: list[Any], outputs: list[Any]) -> onnx.ModelProto:
    graph = helper.make_graph(builder.nodes, "cells", inputs, outputs, list(builder.constants.values()))
    return helper.make_model(
        graph,
        functions=list(builder.functions.values()),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)],
        ir_version=IR_VERSION,
    )


def _prefixed(model: onnx.ModelProto, prefix: str) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    _rename(changed.graph, lambda name: f"{prefix}{name}" if name else name)
    return changed


def _rename(graph: onnx.GraphProto, new: Callable[[str], str]) -> None:
    """Rename every value, in bodies too."""
    for each in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        each.name = new(each.name)
    for node in graph.node:
        node.name = new(node.name)
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, new)
