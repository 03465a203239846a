"""Weights behind nodes that unpack and scale are seen as what they stand for; anything else is no weight."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from snn_optimizer.errors import InputError
from snn_optimizer.execution import Session
from snn_optimizer.ir import SNNGraph, is_encoded, weights_of, weights_shape

TABLE = np.stack([np.arange(256) % 16, np.arange(256) // 16], axis=1).astype(np.int8) - 8
STORED = {
    "bytes": np.random.default_rng(0).integers(0, 256, 10).astype(np.uint8), "table": TABLE,
    "all": np.array([-1]), "from": np.array([0]), "to": np.array([20]), "shape": np.array([4, 5]),
    "scale": np.linspace(0.1, 0.5, 5).astype(np.float32),
}  # fmt: skip


def model(declared: tuple[int, ...] | None = (4, 5), **changed) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["bytes"], ["places"], to=6),
        helper.make_node("Gather", ["table", "places"], ["pairs"]),
        helper.make_node("Reshape", ["pairs", "all"], ["flat"]),
        helper.make_node("Slice", ["flat", "from", "to"], ["cut"]),
        helper.make_node("Reshape", ["cut", "shape"], ["levels"]),
        helper.make_node("Cast", ["levels"], ["whole"], to=1),
        helper.make_node("Mul", ["whole", "scale"], ["weight"]),
        helper.make_node("Identity", ["weight"], ["seen"]),
        helper.make_node("MatMul", ["x", "weight"], ["y"], name="fc"),
    ]
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", floats, ["n", 4])],
        [helper.make_tensor_value_info("y", floats, ["n", 5]), helper.make_tensor_value_info("seen", floats, [4, 5])],
        [numpy_helper.from_array(array, name) for name, array in (STORED | changed).items()],
        value_info=[] if declared is None else [helper.make_tensor_value_info("weight", floats, declared)],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def weight_of(proto: onnx.ModelProto):
    graph = SNNGraph.from_onnx(proto)
    return next(node.inputs[1] for node in graph.module.graph.nodes if node.op == "MatMul")


def test_what_the_runtime_computes() -> None:
    value = weight_of(model())
    assert is_encoded(value)
    assert weights_shape(value) == (4, 5)
    expected = Session(model()).run({"x": np.zeros((1, 4), np.float32)})["seen"]
    np.testing.assert_array_equal(weights_of(value), expected)
    assert expected.any()


def test_the_shape_need_not_be_declared() -> None:
    value = weight_of(model(None))
    assert value.shape is None
    assert weights_shape(value) == (4, 5)
    np.testing.assert_array_equal(weights_of(value), weights_of(weight_of(model())))


@pytest.mark.parametrize("name", ["all", "from", "to", "shape", "bytes", "table"])
def test_shapes_that_a_run_decides_are_not_known(name: str) -> None:
    proto = model(None)
    held = next(t for t in proto.graph.initializer if t.name == name)
    proto.graph.input.append(helper.make_tensor_value_info(name, held.data_type, held.dims))
    proto.graph.initializer.remove(held)
    value = weight_of(proto)
    assert (weights_shape(value), is_encoded(value), weights_of(value)) == (None, False, None)


def test_what_depends_on_an_input_is_no_weight() -> None:
    proto = model()
    proto.graph.input.append(helper.make_tensor_value_info("scale", onnx.TensorProto.FLOAT, [5]))
    del proto.graph.initializer[[t.name for t in proto.graph.initializer].index("scale")]
    assert weights_of(weight_of(proto)) is None


@pytest.mark.parametrize(("name", "array"), [("shape", np.array([5, 5])), ("table", TABLE[:3])])
def test_nodes_that_do_not_fit_are_named(name: str, array: np.ndarray) -> None:
    with pytest.raises(InputError, match="weight 'weight': its nodes do not compute a tensor of shape"):
        weights_of(weight_of(model(**{name: array})))


def test_scales_that_do_not_fit_make_no_weight() -> None:
    assert weights_of(weight_of(model(scale=np.ones(3, np.float32)))) is None
