"""Reference, function under onnxruntime and function under onnx.reference agree bit for bit.

One test per variant builds one model: several calls of the function with parameters and states
of different shapes, constant parameters that runtimes fold, and for cells a call inside a loop.
Every value must have equal bytes; a NaN equals a NaN.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from snn_optimizer.ops import DOMAIN, VERSION, NeuronVariant, function_proto, membrane, sequence, step

CONSTANTS = {
    "alpha": 0.75,
    "beta": 0.9,
    "gain": 1.0,
    "v_threshold": 1.0,
    "v_reset": 0.0,
    "v0": 0.0,
    "i0": -0.0,
}


@dataclass(frozen=True)
class Place:
    """A call of the model under test, and the shapes of what it reads."""

    name: str
    trailing: tuple[int, ...]
    parameters: tuple[int, ...] | None  # None: constants of the model
    states: tuple[int | str, ...] | None
    looped: bool = False


SCALAR = Place("scalar", (5,), (), ())
PER_NEURON = Place("per_neuron", (5,), (5,), (5,))
ROW = Place("row", (5,), (1,), (1, 5))
PER_CHANNEL = Place("per_channel", (2, 3, 3), (2, 1, 1), ("B", 2, 3, 3))
CONSTANT = Place("constant", (5,), None, None)
LOOPED = Place("looped", (5,), (5,), ("B", 5), looped=True)

SEQUENCE_PLACES = (SCALAR, PER_NEURON, ROW, PER_CHANNEL, CONSTANT)
CELL_PLACES = (
    Place("scalar", (5,), (), ("B", 5)),
    Place("per_channel", (2, 3, 3), (2, 1, 1), ("B", 2, 3, 3)),
    Place("constant", (5,), None, ("B", 5)),
    LOOPED,
    Place("looped_constant", (5,), None, ("B", 5), looped=True),
)


def every_variant() -> Iterator[NeuronVariant]:
    for form in ("sequence", "cell"):
        for operator in ("LIF", "IF", "CubaLIF"):
            for arithmetic in ("decay",) if operator == "IF" else ("decay", "relax"):
                for reset, delay, fire, limit in itertools.product(
                    ("subtract", "to-value", "none"), (0, 1), ("gt", "ge"), (1, 4, 0)
                ):
                    yield NeuronVariant(operator, form, reset, delay, fire, limit, arithmetic)
        yield NeuronVariant("LI", form)
        yield NeuronVariant("LI", form, arithmetic="relax")


VARIANTS = list(every_variant())
DOUBLE_VARIANTS = [
    variant
    for variant in VARIANTS
    if variant.operator == "LI"
    or (variant.operator == "LIF" and variant.fire == "ge" and variant.max_spikes == 1)
    or (variant.operator == "CubaLIF" and variant.fire == "gt" and variant.max_spikes == 4)
]


def build(variant: NeuronVariant, places: tuple[Place, ...], dtype: np.dtype) -> onnx.ModelProto:
    element = helper.np_dtype_to_tensor_dtype(dtype)
    nodes, inputs, outputs, initializers = [], [], [], []
    for place in places:
        called = variant.as_form("sequence") if place.looped else variant
        operands = [f"{place.name}_{name}" for name in called.inputs]
        results = [f"{place.name}_{name}" for name in called.outputs]
        for value, operand in zip(called.schema.inputs, operands, strict=True):
            shape = shape_of(value.role, value.name, place, "T", "B")
            if shape is None:
                constant = np.full((1,), CONSTANTS[value.name], dtype)
                initializers.append(numpy_helper.from_array(constant, operand))
            else:
                inputs.append(helper.make_tensor_value_info(operand, element, shape))
        for value, result in zip(called.schema.outputs, results, strict=True):
            time = ("T",) if value.name in ("S", "V") else ()
            shape = (*time, "B", *place.trailing)
            outputs.append(helper.make_tensor_value_info(result, element, shape))
        make = loop_node if place.looped else call_node
        nodes.append(make(variant, operands, results))
    return helper.make_model(
        helper.make_graph(nodes, "agreement", inputs, outputs, initializers),
        functions=[function_proto(variant)],
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)],
        ir_version=8,
    )


def shape_of(role: str, name: str, place: Place, steps: int | str, batch: int | str) -> tuple[int | str, ...] | None:
    if role == "signal":
        return (*((steps,) if name == "X" else ()), batch, *place.trailing)
    shape = place.states if role == "state" else place.parameters
    return None if shape is None else tuple(batch if axis == "B" else axis for axis in shape)


def call_node(variant: NeuronVariant, operands: list[str], results: list[str]) -> onnx.NodeProto:
    return helper.make_node(variant.op_type, operands, results, domain=DOMAIN, **variant.attributes())


def loop_node(variant: NeuronVariant, operands: list[str], results: list[str]) -> onnx.NodeProto:
    """A Scan of the main graph that calls the cell; operands and results as of the sequence form."""
    cell = variant.as_form("cell")
    states = [cell.inputs[before] for before, _ in cell.states]
    signal, advanced = cell.outputs[0], [cell.outputs[after] for _, after in cell.states]
    prefix = operands[0]
    call = call_node(
        cell,
        [f"{prefix}_{name}" for name in cell.inputs[: 1 + len(states)]] + operands[1 + len(states) :],
        [f"{prefix}_{name}" for name in cell.outputs],
    )
    body = helper.make_graph(
        [call],
        "body",
        [helper.make_empty_tensor_value_info(f"{prefix}_{name}") for name in (*states, "x")],
        [helper.make_empty_tensor_value_info(f"{prefix}_{name}") for name in (*advanced, signal)],
    )
    initial = operands[1 : 1 + len(states)]
    return helper.make_node("Scan", [*initial, operands[0]], [*results[1:], results[0]], body=body, num_scan_inputs=1)


HOSTILE = {
    "beta": [1, -0.5, 0, 0.5, np.inf],
    "gain": [1, 1, -0.5, -0.0, np.nan],
    "v_threshold": [1, np.inf, -np.inf, np.nan, -0.0],
    "v_reset": [-0.0, np.inf, 0.5, np.nan, -0.0],
    "v": [-0.0, np.inf, -np.inf, np.nan, -0.0],
    "v0": [-0.0, np.inf, -np.inf, np.nan, -0.0],
}


def parameters_for(variant: NeuronVariant, place: Place, kind: str, rng: np.random.Generator) -> dict:
    """Parameters and states by name; thresholds of the kind 'non-finite' are as hostile as its currents."""
    ranges = {
        "alpha": (0, 1),
        "beta": (0, 1),
        "gain": (0.25, 2),
        "v_threshold": (0.25, 2),
        "v_reset": (-1, 1),
    }
    drawn = {}
    for value in variant.schema.inputs[1:]:
        shape = shape_of(value.role, value.name, place, 0, 1)
        if shape is None:
            continue
        low, high = ranges.get(value.name, (-1, 2))
        drawn[value.name] = rng.uniform(low, high, shape)
        if kind == "non-finite" and np.prod(shape) == 5 and value.name in HOSTILE:
            drawn[value.name] = np.reshape(HOSTILE[value.name], shape)
    return drawn


def land_on_threshold(variant: NeuronVariant, states: list, parameters: list, target: np.ndarray) -> np.ndarray:
    """Return currents (1, N...) that bring the potential as near to the target as floats allow."""
    base, unit = membrane(
        variant, [np.stack([np.zeros_like(target), np.ones_like(target)])[None], *states, *parameters]
    )[0]
    guess = (target - base) / (unit - base)
    ulps = np.arange(-24, 25).reshape(-1, *[1] * target.ndim).astype(target.dtype)
    candidates = guess + ulps * np.spacing(guess)
    reached = membrane(variant, [candidates[None], *states, *parameters])[0]
    best = np.abs(reached - target).argmin(axis=0)
    return np.take_along_axis(candidates, best[None], axis=0)


# One float below, on, one float above. After a spike the reset may leave a coarser grid of floats to
# reach, so that potentials below the threshold come first.
SIDES = np.array([-1, -1, 0, -1, -1, 1, 0])


def train_on_threshold(variant: NeuronVariant, steps: int, states: list, parameters: list) -> np.ndarray:
    """Currents that put each potential on a multiple of the threshold or one float beside it."""
    sequential = variant.as_form("sequence")
    threshold = parameters[sequential.inputs.index("v_threshold") - 1 - len(states)]
    trailing = np.broadcast_shapes(threshold.shape, states[-1].shape[1:], (5,))
    numbers = np.arange(np.prod(trailing)).reshape(trailing)
    train = []
    for index in range(steps):
        multiple = 1 + (index % 2) * (numbers % 3) if variant.max_spikes != 1 else 1
        target = np.broadcast_to(threshold * multiple, trailing).astype(threshold.dtype)
        side = SIDES[(numbers + index) % len(SIDES)]
        target = np.where(side == 1, np.nextafter(target, np.inf), target)
        target = np.where(side == -1, np.nextafter(target, -np.inf), target).astype(threshold.dtype)
        train.append(land_on_threshold(sequential, states, parameters, target))
        states = list(step(variant, [train[-1], *states, *parameters])[1:])
    return np.stack(train)


def signal_for(shape: tuple[int, ...], kind: str, rng: np.random.Generator) -> np.ndarray:
    if kind in ("binary", "threshold"):
        return (rng.random(shape) < 0.4).astype(float)
    if kind == "non-finite":
        special = [np.inf, -np.inf, np.nan, -0.0, 0.0, 1e-40, -1e-40, 3e38, -3e38, 1.0, 2.0]
        return rng.choice(special, shape)
    return rng.normal(0.5, 1.5, shape)


def feeds_for(
    variant: NeuronVariant,
    place: Place,
    run: tuple[str, int, int],
    dtype: np.dtype,
    rng: np.random.Generator,
) -> tuple[NeuronVariant, list[np.ndarray]]:
    """The variant that specifies a place, and arrays for all its inputs."""
    kind, steps, batch = run
    called = variant.as_form("sequence") if place.looped else variant
    drawn = parameters_for(called, place, kind, rng)
    arrays = [np.asarray(drawn.get(name, np.full((1,), CONSTANTS.get(name, 0.0))), dtype) for name in called.inputs[1:]]
    for before, _ in called.states:
        if place.states and place.states[0] == "B":
            arrays[before - 1] = np.repeat(arrays[before - 1], batch, axis=0)
    if kind == "threshold" and called.spiking and place.trailing == (5,):
        count = len(called.states)
        spread = [np.broadcast_to(array, (1, 5)) for array in arrays[:count]]
        signal = train_on_threshold(called, steps, spread, arrays[count:])
    else:
        signal = signal_for((steps, batch, *place.trailing), kind, rng).astype(dtype)
    return called, [signal if called.form == "sequence" else signal[0], *arrays]


def beside_threshold(potentials: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """How many potentials are one float below, on, and one float above the threshold."""
    neighbours = (np.nextafter(threshold, -np.inf), threshold, np.nextafter(threshold, np.inf))
    return np.array([(potentials == neighbour).sum() for neighbour in neighbours])


def assert_same_bits(actual: np.ndarray, expected: np.ndarray, where: str) -> None:
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), where
    unsigned = np.dtype(f"u{expected.itemsize}")
    equal = np.ascontiguousarray(actual).view(unsigned) == np.ascontiguousarray(expected).view(unsigned)
    equal |= np.isnan(actual) & np.isnan(expected)
    assert equal.all(), f"{where}: {actual[~equal][:4]} instead of {expected[~equal][:4]}"


def session(model: onnx.ModelProto, level: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


# Kind of signal, steps, batch. Binary trains of seven steps run where no threshold is solved for.
RUNS = (
    ("binary", 2, 3),
    ("gaussian", 1, 3),
    ("threshold", 7, 1),
    ("non-finite", 7, 3),
)


def check(variant: NeuronVariant, dtype: np.dtype) -> None:
    places = SEQUENCE_PLACES if variant.form == "sequence" else CELL_PLACES
    model = build(variant, places, dtype)
    onnx.checker.check_model(model, full_check=True)
    runtimes = {
        "onnxruntime": session(model, "ORT_DISABLE_ALL"),
        "onnxruntime optimized": session(model, "ORT_ENABLE_ALL"),
        "onnx.reference": ReferenceEvaluator(model),
    }
    declared = {value.name for value in model.graph.input}
    rng = np.random.default_rng(20)
    signals, not_a_number, landed = [], 0, np.zeros(3, int)
    for run in RUNS:
        kind = run[0]
        feeds, expected = {}, {}
        for place in places:
            called, arrays = feeds_for(variant, place, run, dtype, rng)
            names = [f"{place.name}_{name}" for name in called.inputs]
            feeds |= {name: array for name, array in zip(names, arrays, strict=True) if name in declared}
            results = (sequence if called.form == "sequence" else step)(called, arrays)
            expected |= {f"{place.name}_{name}": result for name, result in zip(called.outputs, results, strict=True)}
            signals.append(results[0].ravel())
            not_a_number += np.isnan(results[-1]).sum()
            if kind == "threshold" and variant.spiking and place.trailing == (5,):
                whole = arrays if called.form == "sequence" else [arrays[0][None], *arrays[1:]]
                landed += beside_threshold(membrane(called, whole), arrays[called.inputs.index("v_threshold")])
        for runtime, runner in runtimes.items():
            with np.errstate(all="ignore"):
                actual = runner.run(list(expected), feeds)
            for (name, wanted), array in zip(expected.items(), actual, strict=True):
                assert_same_bits(np.asarray(array), wanted, f"{runtime}, {kind}: {name}")

    emitted = np.concatenate(signals)
    assert not_a_number > 0
    if variant.spiking:
        assert (landed > 0).all(), f"potentials below, on and above threshold: {landed}"
        assert (emitted == 0).any()
        assert (emitted > 0).any()
        limit = variant.max_spikes or np.inf
        assert emitted.max() == limit


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.op_type)
def test_float32(variant: NeuronVariant) -> None:
    check(variant, np.dtype(np.float32))


@pytest.mark.parametrize("variant", DOUBLE_VARIANTS, ids=lambda variant: variant.op_type)
def test_float64(variant: NeuronVariant) -> None:
    check(variant, np.dtype(np.float64))
