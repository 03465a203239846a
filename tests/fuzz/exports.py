"""Networks as exporters write them, of one seed: unrolled, one step, a Scan, a Loop.

The same parts as `tests.support.unrolling.strategies` draws for hypothesis, here from seeded choices, and with
corners that a property test leaves out: one unit, one step, thresholds of zero and below, no decay, all decay.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.support.random_networks import SeededChoices
from tests.support.unrolling import Habits, Layer, Network, Neuron, scan_model, step_model, unroll
from tests.support.unrolling.habits import CHOICES, OUTPUTS, SWITCHES
from tests.support.unrolling.network import (
    CHARGES,
    DENSE,
    NORSE_LI,
    NORSE_LIF,
    SINABS_IAF,
    SINABS_LIF,
    SNNTORCH_LEAKY,
    SNNTORCH_LEAKY_ZERO,
    SNNTORCH_SYNAPTIC,
    SPIKINGJELLY_IF,
    SPIKINGJELLY_LIF,
    SPIKINGJELLY_PLIF,
    SPIKINGJELLY_SOFT,
)
from tests.support.unrolling.strategies import PARAMETERS

FRAMEWORKS = (
    SNNTORCH_LEAKY,
    SNNTORCH_LEAKY_ZERO,
    SNNTORCH_SYNAPTIC,
    SPIKINGJELLY_LIF,
    SPIKINGJELLY_SOFT,
    SPIKINGJELLY_PLIF,
    SPIKINGJELLY_IF,
    NORSE_LIF,
    SINABS_IAF,
    SINABS_LIF,
)
READOUT_CHARGES = tuple(charge for charge in CHARGES if charge != "integrate")


def neuron(choices: SeededChoices, output: str) -> Neuron:
    """Any neuron of one kind of output; half of those that spike are what a framework writes."""
    pick = choices.pick
    if output == "membrane" and pick((False, False, True)):
        return NORSE_LI
    if output == "spikes" and pick((False, True)):
        return pick(FRAMEWORKS)
    counts = output == "counts"
    charge = pick(
        ("decay", "integrate", "normalised") if counts else READOUT_CHARGES if output != "spikes" else CHARGES
    )
    reset = "subtract" if counts else "none" if output == "membrane" else pick(("subtract", "zero", "value", "none"))
    return Neuron(
        charge=charge,
        output=output,
        reset=reset,
        reset_delay=pick((0, 1)) if output == "spikes" and reset != "none" else 0,
        fire="gt" if counts else pick(("gt", "ge")),
        decay=pick((0.75, 0.5, 0.5, 0.0, 1.0)),
        tau=pick((2.0, 4.0, 1.0)),
        current_decay=pick((0.5, 0.25, 0.0)),
        threshold=pick((1.0, 1.0, 0.75)) if counts else pick((1.0, 1.0, 1.0, 0.75, 0.0, -0.25)),
        reset_value=pick((0.0, 0.0, -0.25)),
        per_neuron=tuple(name for name in PARAMETERS if pick((False,) * 4 + (True,))),
    )


def network(choices: SeededChoices) -> Network:
    """One to three layers; the last may be a readout."""
    pick = choices.pick
    shape: tuple[int, ...] = (pick((1, 2)), 4, 4) if pick((False, False, True)) else (pick((1, 5, 6)),)
    features, layers, shapes = shape, [], []
    for index in range(pick((1, 2, 2, 3))):
        last = index > 0 and pick((False, False, False, True))
        options: dict[str, Any] = {"units": pick((1, 3, 4, 4))}
        options["neuron"] = neuron(choices, "membrane" if last else pick(("spikes", "spikes", "spikes", "counts")))
        if len(shape) == 3 and pick((False, True, True)):
            pool = pick((None, "max", "average")) if shape[1] > 2 else None
            options |= {"synapse": pick(("conv", "conv-plain")), "normalise": pick((False, True)), "pool": pool}
            shape = (options["units"], *(size // (2 if pool else 1) for size in shape[1:]))
        else:
            options["synapse"] = pick(DENSE)
            options["recurrent"] = None if last else pick((None, None, "bias", "plain"))
            shape = (options["units"],)
        same = [earlier for earlier, each in enumerate(shapes) if each == shape]
        if same and not last and pick((False, True)):
            options["residual"] = pick(same)
        layers.append(Layer(**options))
        shapes.append(shape)
        if last:
            break
    return Network(tuple(layers), features, pick(("dyadic", "dyadic", "normal")), int(choices.generator.integers(1000)))


def habits(choices: SeededChoices, **fixed: Any) -> Habits:
    """Any habits; those given are fixed."""
    pick = choices.pick
    chosen: dict[str, Any] = {name: pick(options) for name, options in CHOICES.items()}
    chosen |= {name: pick((False, True)) for name in SWITCHES}
    chosen |= fixed
    chosen["batch"] = pick((1, 3) if chosen["initial"] in {"constant", "precomputed"} else (None, None, 3, 1))
    outputs = [name for name in OUTPUTS if pick((False, False, True))] or [pick(OUTPUTS)]
    chosen.setdefault("outputs", tuple(outputs))
    chosen["identity_noise"] = pick((0.0, 0.0, 0.1))
    chosen["seed"] = int(choices.generator.integers(100))
    return Habits(**(chosen | fixed))


def is_exact(network: Network) -> bool:
    """Whether its sums are the same in any order: no quotient but by a power of two, no square root."""
    divides = ("input-decay", "input-product", "leak")
    odd = any(
        layer.normalise or ("tau" in layer.neuron.per_neuron and layer.neuron.charge in divides)
        for layer in network.layers
    )
    counts = any(layer.neuron.output == "counts" and layer.neuron.threshold != 1 for layer in network.layers)
    return network.grid == "dyadic" and not odd and not counts


def unrolled(choices: SeededChoices) -> tuple[onnx.ModelProto, bool, dict[str, str]]:
    """A model of unrolled steps."""
    made = network(choices)
    return unroll(made, choices.pick((1, 2, 3, 4, 5, 8)), habits(choices)), is_exact(made), {}


def one_step(choices: SeededChoices) -> tuple[onnx.ModelProto, bool, dict[str, str]]:
    """A model of one step with its states as inputs and outputs."""
    made = network(choices)
    style = habits(choices, outputs=choices.pick((("stack",), ("finals",))), slicing="gather")
    model = step_model(made, style)
    states = [(each.name, f"{each.name}_next") for each in model.graph.input if each.name != "x"]
    return model, is_exact(made), dict(states)


def scanned(choices: SeededChoices) -> tuple[onnx.ModelProto, bool, dict[str, str]]:
    """A model with a Scan over whole steps."""
    made = network(choices)
    style = habits(choices, outputs=choices.pick((("stack",), ("stack", "finals"))), slicing="gather")
    return scan_model(made, style), is_exact(made), {}


def looped(choices: SeededChoices) -> tuple[onnx.ModelProto, bool, dict[str, str]]:
    """The Scan written as a Loop that counts the steps and gathers its input."""
    model, exact, _ = scanned(choices)
    return loop_form(model, counted=choices.pick((True, False))), exact, {}


def loop_form(model: onnx.ModelProto, *, counted: bool) -> onnx.ModelProto:
    """Replace the Scan of a model by a Loop; `counted`: by a trip count, else by a condition in the body."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    position = next(index for index, node in enumerate(graph.node) if node.op_type == "Scan")
    scan = graph.node[position]
    attributes = {each.name: helper.get_attribute_value(each) for each in scan.attribute}
    body: onnx.GraphProto = attributes["body"]
    axis = (attributes.get("scan_input_axes") or [0])[0]
    output_axis = (attributes.get("scan_output_axes") or [0])[0]
    frame = body.input[-1].name
    states = list(body.input)[:-1]
    inside = [helper.make_node("Gather", [scan.input[-1], "loop.t"], [frame], "loop.slice", axis=axis)]
    if counted:
        inside.append(helper.make_node("Identity", ["loop.c"], ["loop.go"], "loop.goes"))
    else:
        inside += [
            helper.make_node("Add", ["loop.t", "loop.one"], ["loop.next"], "loop.count"),
            helper.make_node("Less", ["loop.next", "loop.steps"], ["loop.go"], "loop.goes"),
        ]
    stepped = helper.make_graph(
        [*inside, *body.node],
        "loop.body",
        [
            helper.make_tensor_value_info("loop.t", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("loop.c", onnx.TensorProto.BOOL, []),
            *states,
        ],
        [helper.make_tensor_value_info("loop.go", onnx.TensorProto.BOOL, []), *body.output],
        list(body.initializer),
    )
    stacked = scan.output[-1] if output_axis == 0 else "loop.stack"
    loop = helper.make_node(
        "Loop",
        ["loop.steps" if counted else "", "loop.yes", *scan.input[:-1]],
        [*scan.output[:-1], stacked],
        "loop",
        body=stepped,
    )
    before = [
        helper.make_node("Shape", [scan.input[-1]], ["loop.shape"], "loop.length", start=axis, end=axis + 1),
        helper.make_node("Squeeze", ["loop.shape"], ["loop.steps"], "loop.scalar"),
    ]
    after = []
    if output_axis:
        rank = len(next(each for each in graph.output if each.name == scan.output[-1]).type.tensor_type.shape.dim)
        order = [1, 0, *range(2, rank)]
        after.append(helper.make_node("Transpose", ["loop.stack"], [scan.output[-1]], "loop.order", perm=order))
    nodes = [*graph.node[:position], *before, loop, *after, *graph.node[position + 1 :]]
    for name, value in (("loop.yes", True), ("loop.one", 1)):
        graph.initializer.append(numpy_helper.from_array(_scalar(value), name))
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    return changed


def _scalar(value: bool | int) -> Any:
    return np.asarray(value, np.bool_ if isinstance(value, bool) else np.int64)
