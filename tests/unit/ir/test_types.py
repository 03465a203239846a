"""Questions about values and nodes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper, parser

from snn_optimizer.errors import UnsupportedModelError
from snn_optimizer.ir import (
    GraphIndex,
    Module,
    array_of,
    bodies_of,
    captures_of,
    describe,
    dtype_of_constant,
    is_constant,
    is_missing,
    is_standard,
    reads_of,
    shape_of_constant,
)

TEXT = """
<ir_version: 10, opset_import: ["" : 18, "my" : 1]>
net (float[T, 2] x, bool c) => (float[T, 2] y, float[2] last)
<float[2] v0 = {0.0, 0.0}, float[2] beta = {0.5, 0.5}> {
    [loop] last, spikes = Scan <num_scan_inputs = 1,
        body = step (float[2] v, float[2] s) => (float[2] next, float[2] out) {
        decayed = Mul (v, beta)
        next = Add (decayed, s)
        out = Identity (next)
    }> (v0, x)
    z = If (c) <then_branch = yes () => (float[T, 2] p) {
            p = If (c) <then_branch = inner () => (float[T, 2] q) { q = Mul (spikes, beta) },
                        else_branch = other () => (float[T, 2] r) { r = Neg (x) }>
        }, else_branch = no () => (float[T, 2] n) { n = Identity (spikes) }>
    y = my.Clip (z, , beta)
}
"""


def proto() -> ModelProto:
    return parser.parse_model(TEXT)


@pytest.fixture
def module() -> Module:
    return Module.load(proto())


def constant_node(attribute: str) -> Module:
    model = proto()
    node = parser.parse_node(f"k = Constant <{attribute}> ()")
    model.graph.node.append(node)
    return Module.load(model)


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("value: tensor = float[2] {1.0, 2.0}", np.float32([1, 2])),
        ("value_float = 0.5", np.float32(0.5)),
        ("value_floats = [0.5, 1.5]", np.float32([0.5, 1.5])),
        ("value_int = 3", np.int64(3)),
        ("value_ints = [3, 4]", np.int64([3, 4])),
        ('value_string = "a"', np.array("a", dtype=object)),
        ('value_strings = ["a", "b"]', np.array(["a", "b"], dtype=object)),
    ],
)
def test_constant_nodes_are_constants(attribute: str, expected: np.ndarray) -> None:
    value = constant_node(attribute).graph.nodes[-1].outputs[0]
    array = array_of(value)
    assert is_constant(value)
    np.testing.assert_array_equal(array, expected)
    assert shape_of_constant(value) == array.shape == expected.shape
    assert dtype_of_constant(value) == array.dtype == expected.dtype


def test_sparse_constant_node() -> None:
    model = proto()
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.float32([7])), numpy_helper.from_array(np.int64([1])), [3]
    )
    node = model.graph.node.add(op_type="Constant", output=["k"])
    node.attribute.append(helper.make_attribute("sparse_value", sparse))
    value = Module.load(model).graph.nodes[-1].outputs[0]
    assert array_of(value).tolist() == [0, 7, 0]
    assert shape_of_constant(value) == (3,)


def test_sparse_tensor_too_large_when_dense() -> None:
    model = proto()
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.float32([7]), "huge"), numpy_helper.from_array(np.int64([1])), [2**40, 2**20]
    )
    model.graph.sparse_initializer.append(sparse)
    module = Module.load(model)
    value = next(v for v in module.constants() if v.name == "huge")
    assert shape_of_constant(value) == (2**40, 2**20)
    with pytest.raises(UnsupportedModelError, match=r"initializer 'huge'.*too large"):
        array_of(value)


def test_other_values_are_not_constants(module: Module) -> None:
    for value in (module.graph.inputs[0], module.graph.nodes[0].outputs[0], module.graph.nodes[2].inputs[1]):
        assert not is_constant(value)
        assert array_of(value) is None
        assert shape_of_constant(value) is None
        assert dtype_of_constant(value) is None


def test_initializers_are_constants(module: Module) -> None:
    value = module.graph.nodes[0].inputs[0]
    assert array_of(value).tolist() == [0, 0]
    assert shape_of_constant(value) == (2,)
    assert dtype_of_constant(value) == np.float32


def test_foreign_constant_operator_is_not_one() -> None:
    module = constant_node("value_float = 0.5")
    module.graph.nodes[-1].domain = "com.example"
    assert not is_constant(module.graph.nodes[-1].outputs[0])


def test_missing_values(module: Module) -> None:
    assert [is_missing(value) for value in module.graph.nodes[2].inputs] == [False, True, False]


def test_standard_operators(module: Module) -> None:
    scan, _, clip = module.graph.nodes
    assert is_standard(scan)
    assert is_standard(scan, "Loop", "Scan")
    assert not is_standard(scan, "Loop")
    assert not is_standard(clip, "Clip")


def test_names_for_messages(module: Module) -> None:
    assert describe(module.graph.nodes[0]) == "'loop' (Scan)"
    assert describe(module.graph.nodes[2]) == "Clip that makes 'y'"


def test_bodies_and_captures(module: Module) -> None:
    scan, branch, clip = module.graph.nodes
    assert [name for name, _ in bodies_of(branch)] == ["then_branch", "else_branch"]
    assert bodies_of(clip) == []
    assert [value.name for value in captures_of(scan)] == ["beta"]
    assert sorted(value.name for value in captures_of(branch)) == ["beta", "c", "spikes", "spikes", "x"]
    assert [value.name for value in reads_of(scan)] == ["v0", "x", "beta"]
    assert captures_of(clip) == []


def test_index(module: Module) -> None:
    index = GraphIndex(module)
    scan, _, clip = module.graph.nodes
    body = bodies_of(scan)[0][1]
    spikes = scan.outputs[1]
    beta = clip.inputs[2]
    assert index.producer(spikes) is scan
    assert index.producer(beta) is None
    assert index.producer(module.graph.inputs[0]) is None
    assert [(use.node.op, use.slot) for use in index.consumers(beta)] == [("Clip", 2), ("Mul", 1), ("Mul", 1)]
    assert sorted(use.node.op for use in index.consumers(spikes)) == ["Identity", "Mul"]
    assert index.consumers(clip.outputs[0]) == []
    assert index.consumers(clip.inputs[1]) == []
    assert index.scope_of(body.nodes[0]).path == "main/loop.body"
    assert index.scope_of(scan).kind == "main"
    assert index.output_of(body.nodes[1].outputs[0])
    assert index.output_of(clip.outputs[0])
    assert not index.output_of(spikes)
    assert index.is_interface(module.graph.inputs[0])
    assert index.is_interface(clip.outputs[0])
    assert not index.is_interface(body.nodes[1].outputs[0])
    assert len(list(index.nodes())) == module.count_nodes()


def test_index_leaves_functions_out() -> None:
    model = proto()
    model.functions.append(
        parser.parse_function('<domain: "my", opset_import: ["" : 18]> Clip (a, b, c) => (d) { d = Neg (a) }')
    )
    index = GraphIndex(Module.load(model))
    assert all(scope.kind != "function" for scope in index.scopes)
    assert "Neg" not in [node.op for node in index.scopes[0].graph.nodes]
