"""Bounds of whole networks: nothing that runs leaves them, and where inputs are free they are reached."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from snn_optimizer import ops
from snn_optimizer.analyses import AnalysisManager, NeuronFacts, Range, ValueRanges
from snn_optimizer.execution import Session
from snn_optimizer.ir import InputDomain, Module, Node, Value
from snn_optimizer.ir.activity_limit import thinned
from snn_optimizer.ops import NeuronVariant
from tests.support.models import ModelBuilder
from tests.support.planting import KINDS, Hidden, build, healthy
from tests.support.random_networks import RandomNetwork, random_network

LIF = NeuronVariant("LIF")


# -- whatever runs stays inside ------------------------------------------------------------------


def observed(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The model with every float value of the main graph as an output."""
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.graph.value_info, *inferred.graph.output)}
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    known = {value.name for value in copy.graph.output}
    real = next(t.data_type for t in model.graph.initializer if t.data_type in {TensorProto.FLOAT, TensorProto.DOUBLE})
    names = []
    for node in model.graph.node:
        for name in node.output:
            if types.get(name, real) in {TensorProto.FLOAT, TensorProto.DOUBLE}:
                names.append(name)
                if name not in known:
                    copy.graph.output.append(helper.make_tensor_value_info(name, real, None))
    return copy, names


def inputs(network: RandomNetwork, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Trains of several rates, real numbers, and each input alone at each end."""
    for rate in (0.0, 0.2, 0.5, 1.0):
        yield network.inputs(seed, rate=rate)
    trains = network.inputs(seed, rate=0.5)["x"]
    generator = np.random.default_rng(seed)
    yield {"x": generator.random(trains.shape).astype(trains.dtype)}
    held = np.broadcast_to(generator.random(trains.shape[1:]) < 0.5, trains.shape)
    yield {"x": held.astype(trains.dtype)}


def holds(bound: Range, array: np.ndarray) -> bool:
    low, high = (end.reshape((1,) * (array.ndim - end.ndim) + end.shape) for end in (bound.low, bound.high))
    inside = (array >= low) & (array <= high)
    return bool((inside | np.isnan(array) & np.isinf(low) & np.isinf(high)).all())


def constant(bound: Range, array: np.ndarray) -> bool:
    """What is called fixed is one number over everything that broadcasts from its element."""
    fixed = np.broadcast_to(
        bound.fixed.reshape((1,) * (array.ndim - bound.fixed.ndim) + bound.fixed.shape), array.shape
    )
    axes = tuple(
        i
        for i in range(array.ndim)
        if i < array.ndim - bound.rank or bound.fixed.shape[i - array.ndim + bound.rank] == 1
    )
    low, high = array.min(axis=axes, keepdims=True), array.max(axis=axes, keepdims=True)
    return bool((~fixed | (low == high)).all())


@pytest.mark.parametrize("limit", [None, 2])
@pytest.mark.parametrize("block", range(8))
def test_every_value_of_a_random_network_stays_in_its_range(block: int, limit: int | None) -> None:
    bounded = 0
    domain, generator = InputDomain(max_active=limit), np.random.default_rng(block)
    for seed in range(block * 12, block * 12 + 12):
        network = random_network(seed, nan=False)
        module = Module.load(network.model)
        ranges = AnalysisManager(module, domain).get(ValueRanges)
        values: dict[str, Value] = {v.name: v for node in module.graph.nodes for v in node.outputs}
        model, names = observed(network.model)
        session = Session(model)
        for feed in inputs(network, seed):
            found = session.run(feed if limit is None else {"x": thinned(feed["x"], limit, generator)}, names)
            for name, array in found.items():
                bound = ranges.of(values[name])
                if bound is None or not array.size:
                    continue
                bounded += 1
                assert holds(bound, array), (seed, name)
                assert constant(bound, array), (seed, name)
    assert bounded > 400


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [None, 9])
def test_populations_of_every_form_keep_what_was_claimed(kind: str, steps: int | None) -> None:
    """Some units held down, some lifted up, some close to the edge, under all kinds of spikes and resets."""
    for seed, variant in enumerate(variants()):
        hidden = healthy(kind, seed)
        generator = np.random.default_rng(seed)
        bias = generator.choice([-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 6.0, 12.0], hidden.units)
        model = build(kind, hidden.with_rows(np.arange(hidden.units), bias=bias), steps=steps, variant=variant)
        module = Module.load(model)
        facts = AnalysisManager(module).get(ValueRanges).facts
        population = next(n for scope in module.scopes() for n in scope.graph.nodes if n.name == "pop")
        spikes = trains_of(model, "train" if kind == "recurrent" else "pop.s", steps or 9)
        check_facts(facts[id(population)], spikes)


def variants() -> Iterator[NeuronVariant]:
    for reset in ("subtract", "to-value", "none"):
        yield NeuronVariant("LIF", reset=reset)
        yield NeuronVariant("LIF", reset=reset, reset_delay=1, fire="ge", max_spikes=2)


def trains_of(model: onnx.ModelProto, name: str, steps: int) -> np.ndarray:
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    copy.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    shape = [steps, 24, *(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[2:])]
    generator = np.random.default_rng(0)
    rates = generator.choice([0.0, 0.1, 0.5, 0.9, 1.0], (1, 24, *[1] * (len(shape) - 2)))
    return Session(copy).run({"x": (generator.random(shape) < rates).astype(np.float32)}, [name])[name]


def check_facts(facts: NeuronFacts, spikes: np.ndarray) -> None:
    trailing = facts.never.ndim
    never, always = (np.broadcast_to(mask, spikes.shape[-trailing:]) for mask in (facts.never, facts.always))
    assert not spikes[..., never].any()
    assert (spikes[..., always] == 1).all()


# -- where inputs are free the bounds are reached -----------------------------------------------------


FREE = [
    NeuronVariant(operator, reset=reset, reset_delay=delay, fire=fire, arithmetic=arithmetic)
    for operator, arithmetic in (("LIF", "decay"), ("LIF", "relax"), ("IF", "decay"), ("CubaLIF", "decay"))
    for reset in ("subtract", "to-value")
    for delay in (0, 1)
    for fire in ("gt", "ge")
]


def free_layer(
    variant: NeuronVariant, steps: int, seed: int
) -> tuple[onnx.ModelProto, np.ndarray, dict[str, np.ndarray]]:
    """One layer of forty units whose thresholds lie around what their inputs can do."""
    net = ModelBuilder(seed)
    units, features = 40, 7
    generator = net.generator
    weight = generator.normal(0, 1, (units, features)).astype(np.float32)
    bias = generator.normal(-0.3, 0.5, units).astype(np.float32)
    parameters = {
        "alpha": generator.choice([0.5, 0.9], units),
        "beta": generator.choice([0.3, 0.8, 0.95, 1.0], units),
        "gain": generator.choice([0.2, 0.5, 1.0], units),
        "v_reset": generator.choice([0.0, -0.5], units),
        "v0": generator.choice([0.0, 0.1, -0.4], units),
        "i0": generator.choice([0.0, 0.3, -0.2], units),
    }
    parameters = {name: array.astype(np.float32) for name, array in parameters.items()}
    net.input("x", (steps, "batch", features))
    rows = net.reshape("x", "rows", (-1, features))
    current = net.reshape(net.linear("fc", rows, weight, bias), "steps", (steps, -1, units))
    best = strongest(weight, bias)
    charge = np.max(reset_free(variant, best, parameters, steps), axis=0)
    parameters["v_threshold"] = (charge * generator.choice([0.5, 0.99, 0.999, 1.001, 1.01, 2.0], units)).astype(
        np.float32
    )
    states = [net.constant(f"pop.{n}", parameters[n]) for n in variant.inputs if n in {"i0", "v0"}]
    given = {name: parameters[name] for name in variant.inputs if name not in {"X", "i0", "v0"}}
    net.neuron(
        "pop", variant, current, states=states, outputs=("spikes", *(f"pop.{n}" for n in variant.outputs[1:])), **given
    )
    net.output("spikes", (steps, "batch", units))
    return net.build(), weight, parameters


def strongest(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return np.maximum(weight, 0).sum(axis=1) + bias


def reset_free(
    variant: NeuronVariant, current: np.ndarray, parameters: dict[str, np.ndarray], steps: int
) -> np.ndarray:
    train = np.broadcast_to(current.astype(np.float32), (steps, 1, len(current)))
    free = NeuronVariant(variant.operator, reset="none", arithmetic=variant.arithmetic)
    operands = [parameters.get(name, np.zeros(len(current), np.float32)) for name in free.inputs[1:]]
    return ops.membrane(free, [train, *operands])[:, 0].astype(np.float64)


@pytest.mark.parametrize("variant", FREE, ids=lambda v: v.op_type)
@pytest.mark.parametrize("steps", [1, 3, 20])
def test_what_is_not_proved_dead_can_be_made_to_fire(variant: NeuronVariant, steps: int) -> None:
    model, weight, parameters = free_layer(variant, steps, seed=steps)
    module = Module.load(model)
    facts = AnalysisManager(module).get(ValueRanges).facts
    never = np.broadcast_to(next(iter(facts.values())).never, (40,))
    patterns = (weight > 0).astype(np.float32)  # one sample per unit: its strongest input, held
    spikes = Session(model).run({"x": np.broadcast_to(patterns, (steps, *patterns.shape))})["spikes"]
    fired = np.array([spikes[:, unit, unit].any() for unit in range(40)])
    assert not (fired & never).any()
    charge = np.max(reset_free(variant, strongest(weight, initializer(model, "fc.bias")), parameters, steps), axis=0)
    threshold = parameters["v_threshold"].astype(np.float64)
    close = np.abs(charge - threshold) <= 1e-4 * np.maximum(1, np.abs(threshold))
    above = parameters["v0"] >= threshold
    assert (fired | never | close | above).all()
    assert (never.any() and fired.any()) or steps == 1


def initializer(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))


def test_a_greedy_adversary_finds_no_way_past_a_bound() -> None:
    """Several layers: climb towards the highest potential of each hidden unit, one input bit at a time."""
    generator = np.random.default_rng(2)
    net = ModelBuilder(2)
    net.input("x", (6, "batch", 5))
    value, width = "x", 5
    for index, units in enumerate((8, 6)):
        product = net.node(
            "MatMul", [value, net.constant(f"w{index}", net.weights(width, units, scale=2.0))], f"p{index}"
        )
        current = net.node(
            "Add", [product, net.constant(f"b{index}", net.generator.normal(-0.5, 0.6, units))], f"c{index}"
        )
        value, width = net.neuron(f"pop{index}", LIF, current, beta=0.8)[0], units
    net.output(value, (6, "batch", width))
    net.output("c1", (6, "batch", 6))
    model = net.build()
    module = Module.load(model)
    ranges = AnalysisManager(module).get(ValueRanges)
    current = next(v for node in module.graph.nodes for v in node.outputs if v.name == "c1")
    bound = ranges.of(current)
    assert bound is not None
    session = Session(model)
    low, high = (np.broadcast_to(end, (1, 1, 6)).reshape(6) for end in (bound.low, bound.high))
    for sign in (1, -1):
        best = (generator.random((6, 6, 5)) < 0.5).astype(np.float32)  # one sample per unit
        score = np.full(6, -np.inf)
        for _ in range(150):
            trial = best.copy()
            trial[generator.integers(6, size=6), np.arange(6), generator.integers(5, size=6)] += 1
            trial %= 2
            seen = session.run({"x": trial})["c1"]
            reached = (sign * seen[:, np.arange(6), np.arange(6)]).max(axis=0)
            better = reached > score
            best[:, better], score[better] = trial[:, better], reached[better]
        limit = high if sign > 0 else -low
        assert (score <= limit).all()
        assert (score > limit - 4).any()


# -- readouts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arithmetic", ["decay", "relax"])
@pytest.mark.parametrize("steps", [None, 1, 30])
def test_readouts_stay_in_range_and_reach_its_ends(arithmetic: str, steps: int | None) -> None:
    net = ModelBuilder(4)
    length = steps or "T"
    net.input("x", (length, "batch", 6))
    product = net.node("MatMul", ["x", net.constant("w", net.weights(6, 10, scale=2.0))], "product")
    parameters = {"beta": np.linspace(0.1, 0.95, 10), "gain": np.linspace(0.2, 0.9, 10)}
    start = net.constant("v0", np.linspace(-3, 3, 10))
    net.neuron(
        "out", NeuronVariant("LI", arithmetic=arithmetic), product, states=[start], outputs=("y", "v"), **parameters
    )
    net.output("y", (length, "batch", 10))
    model = net.build()
    module = Module.load(model)
    bound = AnalysisManager(module).get(ValueRanges).of(module.graph.outputs[0])
    assert bound is not None
    weight = initializer(model, "w").T
    patterns = np.concatenate([weight > 0, weight < 0]).astype(np.float32)
    seen = Session(model).run({"x": np.broadcast_to(patterns, (steps or 300, *patterns.shape))})["y"]
    assert holds(bound, seen)
    low, high = bound.low.reshape(-1), bound.high.reshape(-1)
    units = np.arange(10)
    highest, lowest = seen[:, units, units].max(axis=0), seen[:, units + 10, units].min(axis=0)
    np.testing.assert_allclose(highest, high, atol=2e-3)
    np.testing.assert_allclose(lowest, low, atol=2e-3)


# -- premises ---------------------------------------------------------------------------------------


def facts_of(model: onnx.ModelProto, domain: InputDomain | None = None) -> NeuronFacts:
    module = Module.load(model)
    return next(iter(AnalysisManager(module, domain).get(ValueRanges).facts.values()))


def one_layer(weight: np.ndarray, bias: np.ndarray, steps: int | str = "T") -> onnx.ModelProto:
    net = ModelBuilder()
    net.input("x", (steps, "batch", weight.shape[1]))
    product = net.node("MatMul", ["x", net.constant("w", weight.T)], "product")
    current = net.node("Add", [product, net.constant("b", bias)], "current")
    net.neuron("pop", LIF, current, outputs=("spikes", "v"), beta=0.5)
    net.output("spikes", (steps, "batch", len(weight)))
    return net.build()


def test_a_declared_range_of_single_features_counts() -> None:
    weight = np.array([[1.0, 3.0], [1.0, -3.0]], np.float32)
    model = one_layer(weight, np.array([-0.9, -0.9], np.float32))
    assert not facts_of(model).never[0]
    narrow = InputDomain(named={"x": ([0.0, 0.0], [1.0, 0.1])})
    assert facts_of(model, narrow).never.tolist() == [True, True]
    wide = InputDomain(named={"x": (-1.0, 1.0)})
    assert facts_of(model, wide).never.tolist() == [False, False]


def test_infinite_ranges_prove_nothing_but_where_nothing_is_read() -> None:
    weight = np.array([[1.0, 0.0], [0.0, 0.0]], np.float32)
    model = one_layer(weight, np.array([-5.0, -5.0], np.float32))
    unbounded = InputDomain(named={"x": (-np.inf, np.inf)})
    assert facts_of(model, unbounded).never.tolist() == [False, True]


@pytest.mark.parametrize("kind", ["max", "min", "relu", "neg", "clip", "where", "mean", "pad", "gather", "expand"])
def test_ranges_through_other_operators(kind: str) -> None:
    """Each range holds all that runs, and is not the whole line where a rule exists."""
    net = ModelBuilder(8)
    net.input("x", (5, 3, 4))
    product = net.node("MatMul", ["x", net.constant("w", net.weights(4, 4, scale=2.0))], "p")
    other = net.node("MatMul", ["x", net.constant("u", net.weights(4, 4, scale=2.0))], "q")
    match kind:
        case "max" | "min":
            net.node(kind.capitalize(), [product, other], "y")
        case "relu" | "neg":
            net.node(kind.capitalize(), [product], "y")
        case "clip":
            net.node("Clip", [product, net.constant("low", -0.5)], "y")
        case "where":
            net.node("Where", [net.node("Greater", [product, other], "more"), product, other], "y")
        case "mean":
            net.node("ReduceMean", [product, net.constant("axes", [0], np.int64)], "y", keepdims=1)
        case "pad":
            net.node(
                "Pad", [product, net.constant("pads", [0, 0, 1, 0, 0, 0], np.int64), net.constant("fill", 9.0)], "y"
            )
        case "gather":
            net.node("Gather", [product, net.constant("index", [3, 1], np.int64)], "y", axis=-1)
        case "expand":
            net.node("Expand", [product, net.constant("shape", [2, 1, 1, 1], np.int64)], "y")
    net.output("y", [None] * (4 if kind == "expand" else 3))
    model = net.build()
    module = Module.load(model)
    bound = AnalysisManager(module).get(ValueRanges).of(module.graph.outputs[0])
    if kind in {"mean", "pad"}:
        assert bound is None
        return
    assert bound is not None
    assert np.isfinite(bound.low).all()
    assert np.isfinite(bound.high).all()
    generator = np.random.default_rng(0)
    for rate in (0.0, 0.3, 0.7, 1.0):
        assert holds(bound, Session(model).run({"x": (generator.random((5, 3, 4)) < rate).astype(np.float32)})["y"])


def test_silence_that_is_assumed_reaches_the_readers() -> None:
    hidden: Hidden = healthy("gemm", 3)
    module = Module.load(build("gemm", hidden))
    analyses = AnalysisManager(module)
    population: Node = next(n for n in module.graph.nodes if n.name == "pop")
    mask = np.zeros(hidden.units, np.bool_)
    mask[[1, 4]] = True
    assumed = ValueRanges.assuming(module, analyses, {id(population): mask})
    bound = assumed.of(population.outputs[0])
    assert bound is not None
    assert (bound.high.reshape(-1) == np.where(mask, 0, 1)).all()
    assert (bound.fixed.reshape(-1) == mask).all()
    assert analyses.get(ValueRanges).facts[id(population)].never.sum() == 0
