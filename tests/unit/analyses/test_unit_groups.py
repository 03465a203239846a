"""Where every unit goes: axis by axis through each operator, against brute force."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from snn_optimizer.analyses import NO_UNIT, AnalysisManager, Role, UnitGroups
from snn_optimizer.analyses.reshape_axes import reshape_labels
from snn_optimizer.execution import Session
from snn_optimizer.ir import Module
from snn_optimizer.ops import NeuronVariant
from tests.support.models import ModelBuilder

LIF = NeuronVariant("LIF")
UNITS = 6


# -- reshape against brute force -----------------------------------------------------------------


def factorizations(product: int, parts: int) -> list[tuple[int, ...]]:
    if parts == 1:
        return [(product,)]
    return [
        (first, *rest)
        for first in range(1, product + 1)
        if product % first == 0
        for rest in factorizations(product // first, parts - 1)
    ]


@st.composite
def reshapes(draw: Callable) -> tuple[tuple[int, ...], int, tuple[int, ...], list[bool]]:
    """Two shapes of equal size, the labelled axis of the first, and which sizes are symbols."""
    product = draw(st.sampled_from([1, 2, 6, 8, 12, 24, 36]))
    before = draw(st.sampled_from(factorizations(product, draw(st.integers(1, 4)))))
    after = draw(st.sampled_from(factorizations(product, draw(st.integers(1, 4)))))
    axis = draw(st.integers(0, len(before) - 1))
    hidden = draw(st.lists(st.booleans(), min_size=8, max_size=8))
    return before, axis, after, hidden


@settings(max_examples=250)
@given(reshapes())
def test_labels_move_as_elements_do(case: tuple[tuple[int, ...], int, tuple[int, ...], list[bool]]) -> None:
    before, axis, after, hidden = case
    labels = np.arange(before[axis]) + 10
    shape = [1] * len(before)
    shape[axis] = -1
    tensor = np.broadcast_to(labels.reshape(shape), before).reshape(after)
    known_in = [n if i == axis or not hide else None for i, (n, hide) in enumerate(zip(before, hidden, strict=False))]
    known_out = [None if hide else n for n, hide in zip(after, hidden[4:], strict=False)]
    axes = [labels if i == axis else None for i in range(len(before))]
    result = reshape_labels(known_in, axes, known_out)
    found = [(i, along) for i, along in enumerate(result.axes) if along is not None]
    assert len(found) + len(result.lost) == 1
    for position, along in found:
        shape = [1] * len(after)
        shape[position] = -1
        np.testing.assert_array_equal(tensor, np.broadcast_to(along.reshape(shape), after))
    if result.lost and not any(hidden):
        # nothing was hidden, so the units really lie along no single axis
        for position in range(len(after)):
            other = tuple(i for i in range(len(after)) if i != position)
            assert (tensor.min(axis=other) != tensor.max(axis=other)).any() or len(labels) == 1


@pytest.mark.parametrize(
    ("before", "axis", "after", "expected"),
    [
        (("T", "B", 6), 2, (None, 6), {1: [0, 1, 2, 3, 4, 5]}),
        ((None, 6), 1, ("T", "B", 6), {2: [0, 1, 2, 3, 4, 5]}),
        ((None, 3, 2, 2), 1, (None, 12), {1: [0] * 4 + [1] * 4 + [2] * 4}),
        ((None, 2, 3, 2), 2, (None, 12), {1: [0, 0, 1, 1, 2, 2] * 2}),
        ((5, "B", 3, 4, 4), 2, (None, 3, 4, 4), {1: [0, 1, 2]}),
        ((None, 12), 1, (None, 3, 4), None),
        ((4, 6), 0, (4, 2, 3), {0: [0, 1, 2, 3]}),
        ((4, 6), 1, (24,), {0: [0, 1, 2, 3, 4, 5] * 4}),
        (("B", 6), 1, (6, "B"), None),
    ],
)
def test_reshapes_of_networks(before: tuple, axis: int, after: tuple, expected: dict | None) -> None:
    axes = [np.arange(n) if i == axis else None for i, n in enumerate(before)]
    result = reshape_labels(before, axes, after)
    if expected is None:
        assert [list(labels) for labels in result.lost] == [list(range(before[axis]))]
        return
    assert not result.lost
    assert {i: list(along) for i, along in enumerate(result.axes) if along is not None} == expected


# -- every operator: cut a unit out and run ---------------------------------------------------------


class Probe(ModelBuilder):
    """A population of six units (or six channels of 3 x 3), some operator, and a reader."""

    def population(self, *spatial: int) -> str:
        self.input("x", (4, 2, UNITS, *spatial))
        shape = (UNITS, *[1] * len(spatial))
        if spatial:
            frames = self.reshape("x", "x.frames", (8, UNITS, *spatial))
            weight = self.constant("first.weight", self.weights(UNITS, UNITS, 1, 1, scale=3.0))
            current = self.node("Conv", [frames, weight], "first.out", name="first")
            current = self.reshape(current, "first.x", (4, -1, UNITS, *spatial))
        else:
            weight = self.constant("first.weight", self.weights(UNITS, UNITS, scale=3.0))
            current = self.node("MatMul", ["x", weight], "first.x", name="first")
        parameters = {"beta": np.linspace(0.1, 0.9, UNITS).reshape(shape)}
        return self.neuron("pop", LIF, current, states=[self.constant("v0", np.full(shape, 0.25))], **parameters)[0]


def groups_of(model: onnx.ModelProto) -> UnitGroups:
    module = Module.load(model)
    return AnalysisManager(module).get(UnitGroups)


Apply = Callable[[Probe, str], str]


def unary(op: str, **attributes: object) -> Apply:
    return lambda p, v: p.node(op, [v], f"{v}.{op}", **attributes)


def binary(op: str, constant: np.ndarray, *, reverse: bool = False) -> Apply:
    def apply(p: Probe, v: str) -> str:
        operands = [v, p.constant(f"{op}.constant", constant)]
        return p.node(op, operands[::-1] if reverse else operands, f"{op}.out")

    return apply


def with_int(op: str, *values: Sequence[int], **attributes: object) -> Apply:
    def apply(p: Probe, v: str) -> str:
        names = [p.constant(f"{op}.{i}", value, np.int64) for i, value in enumerate(values)]
        return p.node(op, [v, *names], f"{op}.out", **attributes)

    return apply


def chain(*steps: Apply) -> Apply:
    def apply(p: Probe, v: str) -> str:
        for step in steps:
            v = step(p, v)
        return v

    return apply


def norm(p: Probe, v: str) -> str:
    names = [p.constant(f"bn.{n}", np.linspace(0.5, 1.5, UNITS)) for n in "sbmv"]
    return p.node("BatchNormalization", [v, *names], "bn.out")


def depthwise(p: Probe, v: str) -> str:
    operands = [v, p.constant("dw.weight", p.weights(UNITS, 1, 2, 2)), p.constant("dw.bias", p.weights(UNITS))]
    return p.node("Conv", operands, "dw.out", name="dw", group=UNITS)


def grouped(p: Probe, v: str) -> str:
    return p.node("Conv", [v, p.constant("g.weight", p.weights(UNITS, 2, 1, 1))], "g.out", name="g", group=3)


def residual(p: Probe, v: str) -> str:
    current = p.node("MatMul", [v, p.constant("inner.weight", p.weights(UNITS, UNITS))], "inner.x", name="inner")
    inner = p.neuron("inner.pop", LIF, current, beta=np.full(UNITS, 0.5))[0]
    return p.node("Add", [v, inner], "sum")


def joined(p: Probe, v: str) -> str:
    other = p.node("MatMul", ["x", p.constant("other.weight", p.weights(UNITS, 4))], "other.x", name="other")
    return p.node("Concat", [p.neuron("other.pop", LIF, other)[0], v], "joined", axis=-1)


def joined_with_input(p: Probe, v: str) -> str:
    return p.node("Concat", ["x", v, "x"], "joined", axis=2)


def reshaped_by_own_shape(p: Probe, v: str) -> str:
    lead = p.node("Shape", [v], "lead", start=0, end=2)
    target = p.node("Concat", [lead, p.constant("u", [UNITS], np.int64)], "target", axis=0)
    rows = p.reshape(v, "flat.rows", (-1, UNITS))
    return p.node("Reshape", [rows, target], "back")


def reshaped_by_own_size(p: Probe, v: str) -> str:
    shape = p.node("Shape", [v], "shape")
    return p.node("Reshape", [p.reshape(v, "flat.rows", (-1, UNITS)), shape], "back")


def picked(p: Probe, v: str) -> str:
    return p.node("Gather", [v, p.constant("index", [0, 2, 5, 5], np.int64)], "picked", axis=-1)


def expanded(p: Probe, v: str) -> str:
    wide = p.node("Unsqueeze", [v, p.constant("axes", [0], np.int64)], "wide")
    target = p.constant("target", [3, 1, 1, 1], np.int64)
    return p.node("Squeeze", [p.node("Slice", [
        p.node("Expand", [wide, target], "many"), *(p.constant(n, [i], np.int64) for n, i in (("s", 1), ("e", 2), ("a", 0)))
    ], "one"), "axes"], "narrow")  # fmt: skip


DENSE = {
    "identity": unary("Identity"),
    "relu": unary("Relu"),
    "sigmoid": unary("Sigmoid"),
    "scale": binary("Mul", np.linspace(0.5, 2, UNITS)),
    "offset": binary("Add", np.linspace(0.5, 2, UNITS)[None]),
    "scalar": binary("Mul", np.array(2.0)),
    "quotient": binary("Div", np.linspace(0.5, 2, UNITS)),
    "difference": binary("Sub", np.linspace(0.5, 2, UNITS), reverse=True),
    "cast": chain(unary("Cast", to=TensorProto.DOUBLE), unary("Cast", to=TensorProto.FLOAT)),
    "clip": lambda p, v: p.node("Clip", [v, p.constant("low", 0.0), p.constant("high", 1.0)], "clip.out"),
    "transpose-twice": chain(
        unary("Transpose", perm=[2, 0, 1]), lambda p, v: p.node("Transpose", [v], "T2", perm=[1, 2, 0])
    ),
    "rows": lambda p, v: p.reshape(p.reshape(v, "a", (-1, UNITS)), "b", (4, 2, UNITS)),
    "flatten": lambda p, v: p.reshape(p.node("Flatten", [v], "f", axis=2), "b", (4, -1, UNITS)),
    "copied-sizes": lambda p, v: p.reshape(v, "a", (0, 0, -1)),
    "unsqueeze": lambda p, v: p.node(
        "Squeeze", [p.node("Unsqueeze", [v, p.constant("axes", [1], np.int64)], "u"), "axes"], "s"
    ),
    "slice-of-time": lambda p, v: p.node(
        "Slice", [v, *(p.constant(n, [i], np.int64) for n, i in (("s", 1), ("e", 3), ("a", 0)))], "sliced"
    ),
    "mean-over-time": with_int("ReduceMean", [0], keepdims=1),
    "pad-time": with_int("Pad", [1, 0, 0, 0, 0, 0]),
    "residual": residual,
    "concat": joined,
    "concat-with-input": joined_with_input,
    "own-shape": reshaped_by_own_shape,
    "own-size": reshaped_by_own_size,
    "expand": expanded,
}
FIXED = {
    "sum-over-units": lambda p, v: p.node("Expand", [
        p.node("ReduceSum", [v, p.constant("axes", [2], np.int64)], "total"), p.constant("target", [1, 1, UNITS], np.int64)
    ], "same"),
    "softmax": unary("Softmax", axis=-1),
    "argmax": chain(unary("ArgMax", axis=2, keepdims=1), unary("Cast", to=TensorProto.FLOAT),
                    lambda p, v: p.node("Expand", [v, p.constant("target", [1, 1, UNITS], np.int64)], "same")),
    "slice-of-units": lambda p, v: p.node(
        "Slice", [v, *(p.constant(n, [i], np.int64) for n, i in (("s", 1), ("e", 4), ("a", 2)))], "sliced"
    ),
    "split-units": lambda p, v: p.reshape(v, "a", (4, 2, 2, 3)),
    "units-into-time": lambda p, v: p.reshape(p.node("Transpose", [v], "t", perm=[0, 2, 1]), "b", (-1, 2)),
    "pad-units": with_int("Pad", [0, 0, 1, 0, 0, 0]),
    "tile-units": with_int("Tile", [1, 1, 2]),
    "input": lambda p, v: p.node("Add", [v, "x"], "sum"),
    "cumulative": with_int("CumSum", 2),
    "gather": picked,
    "multiply-all": lambda p, v: p.node("MatMul", [v, p.node("Transpose", [v], "t", perm=[0, 2, 1])], "all"),
}  # fmt: skip
MAPS = {
    "identity": unary("Identity"),
    "norm": norm,
    "average": unary("AveragePool", kernel_shape=[2, 2]),
    "maximum": unary("MaxPool", kernel_shape=[2, 2], strides=[1, 2]),
    "padded-maximum": unary("MaxPool", kernel_shape=[2, 2], pads=[1, 0, 1, 0]),
    "global": unary("GlobalAveragePool"),
    "depthwise": depthwise,
    "depthwise-pool": chain(depthwise, unary("MaxPool", kernel_shape=[2, 2])),
    "scale": binary("Mul", np.linspace(0.5, 2, UNITS).reshape(UNITS, 1, 1)),
    "mean-of-places": with_int("ReduceMean", [2, 3], keepdims=1),
}


def run(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return Session(model).run({"x": (generator.random(shape) < 0.5).astype(np.float32)})


def cut(model: onnx.ModelProto, number: int) -> onnx.ModelProto:
    """Cut one class at every site, as the analysis says, and nothing else."""
    module = Module.load(model)
    groups = AnalysisManager(module).get(UnitGroups)
    from snn_optimizer.ir import Rewriter, SNNGraph
    from snn_optimizer.passes.unit_surgery import Surgeon

    selected = np.zeros(groups.classes, np.bool_)
    selected[number] = True
    graph = SNNGraph(module=module)
    rewriter = Rewriter(module)
    Surgeon(graph, groups, rewriter).cut(selected)
    rewriter.finish()
    return graph.to_onnx()


def silenced(model: onnx.ModelProto, unit: int) -> onnx.ModelProto:
    """The same network in which the readers give what comes from the unit no weight."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    groups = groups_of(model)
    population = next(p for p in groups.populations if p.name == "pop")
    number = groups.classes_at(population.labels)[unit]
    for contraction in groups.contractions:
        where = groups.classes_at(contraction.labels_in) == number
        if not where.any():
            continue
        name = contraction.node.inputs[contraction.weight_slot].name
        tensor = next(t for t in copy.graph.initializer if t.name == name)
        array = np.array(onnx.numpy_helper.to_array(tensor))
        np.moveaxis(array, contraction.axis_in, 0)[where] = 0
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))
    return copy


def check_cuts(model: onnx.ModelProto) -> None:
    """Without a unit the network computes what it computes when nobody listens to the unit."""
    groups = groups_of(model)
    population = next(p for p in groups.populations if p.name == "pop")
    classes = groups.classes_at(population.labels)
    assert len(set(classes)) == UNITS
    assert (groups.fixed[classes] < 0).all(), [groups.refusal(int(c)) for c in classes]
    for unit in (0, 3, 5):
        smaller = cut(model, int(classes[unit]))
        onnx.checker.check_model(smaller)
        expected, found = run(silenced(model, unit)), run(smaller)
        np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", DENSE)
def test_units_are_followed_through(name: str) -> None:
    p = Probe(3)
    value = DENSE[name](p, p.population())
    width = UNITS + {"concat": 4, "concat-with-input": 2 * UNITS}.get(name, 0)
    p.node("MatMul", [value, p.constant("last.weight", p.weights(width, 3))], "y", name="last")
    p.output("y", (None, None, 3))
    check_cuts(p.build())


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("reader", ["conv", "flatten", "reshape"])
def test_channels_are_followed_through(name: str, reader: str) -> None:
    p = Probe(4)
    frames = p.reshape(p.population(3, 3), "frames", (-1, UNITS, 3, 3))
    value = MAPS[name](p, frames)
    shape = onnx.shape_inference.infer_shapes(_with_output(p, value)).graph.output[0].type.tensor_type.shape.dim
    size = [d.dim_value for d in shape][2:]
    if reader == "conv":
        p.node("Conv", [value, p.constant("last.weight", p.weights(2, UNITS, 1, 1))], "y", name="last")
        p.output("y", (None, 2, *size))
    else:
        width = UNITS * int(np.prod(size))
        flat = p.node("Flatten", [value], "flat") if reader == "flatten" else p.reshape(value, "flat", (-1, width))
        p.node("Gemm", [flat, p.constant("last.weight", p.weights(3, width))], "y", name="last", transB=1)
        p.output("y", (None, 3))
    check_cuts(p.build())


def _with_output(p: Probe, value: str) -> onnx.ModelProto:
    graph = helper.make_graph(
        p.nodes, "part", p.inputs, [helper.make_tensor_value_info(value, TensorProto.FLOAT, None)],
        list(p.constants.values()),
    )  # fmt: skip
    model = p.build()
    model.graph.CopyFrom(graph)
    return model


@pytest.mark.parametrize("name", FIXED)
def test_units_that_cannot_be_followed_stay(name: str) -> None:
    p = Probe(5)
    value = FIXED[name](p, p.population())
    shape = onnx.shape_inference.infer_shapes(_with_output(p, value)).graph.output[0].type.tensor_type.shape.dim
    p.node("MatMul", [value, p.constant("last.weight", p.weights(shape[-1].dim_value, 3))], "y", name="last")
    p.output("y", [None] * len(shape))
    groups = groups_of(p.build())
    population = groups.populations[0]
    classes = groups.classes_at(population.labels)
    assert (groups.fixed[classes] >= 0).all()
    assert all(groups.refusal(int(c)) for c in classes)


def test_grouped_convolutions_keep_their_channels() -> None:
    p = Probe(5)
    frames = p.reshape(p.population(3, 3), "frames", (-1, UNITS, 3, 3))
    p.node("Conv", [grouped(p, frames), p.constant("last.weight", p.weights(2, UNITS, 1, 1))], "y", name="last")
    p.output("y", (None, 2, 3, 3))
    groups = groups_of(p.build())
    assert (groups.fixed[groups.classes_at(groups.populations[0].labels)] >= 0).all()


def test_sites_of_a_unit() -> None:
    p = Probe(6)
    spikes = p.population()
    p.node("MatMul", [spikes, p.constant("last.weight", p.weights(UNITS, 3))], "y", name="last")
    p.output("y", (4, 2, 3))
    groups = groups_of(p.build())
    number = groups.classes_at(groups.populations[0].labels)[2]
    mask = np.zeros(groups.classes, np.bool_)
    mask[number] = True
    found = {
        (site.use.node.name, site.use.slot, site.axis, str(site.role)): np.flatnonzero(
            groups.mask_at(site.labels, mask)
        )
        for site in groups.sites
        if groups.mask_at(site.labels, mask).any()
    }
    assert {key: list(where) for key, where in found.items()} == {
        ("first", 1, 1, Role.ROW): [2],
        ("pop", 1, 0, Role.STATE): [2],
        ("pop", 2, 0, Role.PARAMETER): [2],
        ("last", 1, 0, Role.COLUMN): [2],
    }
    assert (groups.classes_at(groups.contractions[0].labels_in) == NO_UNIT).all()
