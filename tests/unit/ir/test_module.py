"""The module as a whole: copies, scopes, functions, sizes, metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper, parser

from snn_optimizer.errors import ModelLoadError
from snn_optimizer.ir import Module, Rewriter, array_of, bodies_of, verify_structure

TEXT = """
<ir_version: 10, opset_import: ["" : 18, "my" : 1]>
net (float[T, 2] x) => (float[T, 2] y, float[2] last) <float[2] v0 = {0.0, 0.0}, float[2] beta = {0.5, 0.5}> {
    [loop] last, spikes = Scan <num_scan_inputs = 1,
        body = step (float[2] v, float[2] s) => (float[2] next, float[2] out) {
        decayed = Mul (v, beta)
        next = Add (decayed, s)
        out = Identity (next)
    }> (v0, x)
    h = my.Double (spikes)
    k = Constant <value: tensor = float[3] {1.0, 2.0, 3.0}> ()
    y = Neg (h)
}
<domain: "my", opset_import: ["" : 18]>
Double (a) => (b) { b = Add (a, a) }
"""


def proto() -> ModelProto:
    return parser.parse_model(TEXT)


@pytest.fixture
def module() -> Module:
    return Module.load(proto())


def test_load_remembers_the_path(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(proto(), path)
    assert Module.load(str(path)).path == path
    assert Module.load(proto()).path is None


def test_scopes(module: Module) -> None:
    scopes = list(module.scopes())
    assert [(scope.path, scope.kind) for scope in scopes] == [
        ("main", "main"),
        ("main/loop.body", "body"),
        ("my::Double", "function"),
    ]
    body = scopes[1]
    assert body.owner is module.graph.nodes[0]
    assert body.parent is scopes[0]
    assert body.graph is bodies_of(module.graph.nodes[0])[0][1]
    assert scopes[2].owner is None


def test_counts_and_sizes(module: Module) -> None:
    assert module.count_nodes() == 4 + 3
    assert module.initializer_bytes() == 8 + 8 + 12
    model = proto()
    model.graph.input.append(helper.make_tensor_value_info("beta", TensorProto.FLOAT, [2]))
    assert Module.load(model).initializer_bytes() == 8 + 8 + 12


def test_opsets(module: Module) -> None:
    assert (module.opset(), module.opset("ai.onnx"), module.opset("my"), module.opset("none")) == (18, 18, 1, 0)
    module.opset_imports["ai.snn"] = 1
    module.ir_version = 11
    written = module.to_proto()
    assert {entry.domain: entry.version for entry in written.opset_import} == {"": 18, "my": 1, "ai.snn": 1}
    assert written.ir_version == 11


def test_metadata(module: Module) -> None:
    module.metadata["optimized"] = "yes"
    assert module.to_proto().metadata_props[0].value == "yes"
    assert module.copy().metadata == {"optimized": "yes"}
    assert module.copy().metadata is not module.metadata


def test_functions(module: Module) -> None:
    call = module.graph.nodes[1]
    double = module.functions[0]
    assert module.function_of(call) is double
    assert module.function_of(module.graph.nodes[0]) is None
    assert module.key_of(double) == ("my", "Double", "")
    module.add_function(proto().functions[0])
    assert module.functions == [double]
    extra = parser.parse_function('<domain: "other", opset_import: ["" : 18]> More (a) => (b) { b = Neg (a) }')
    before = extra.SerializeToString()
    module.add_function(extra)
    assert extra.SerializeToString() == before
    assert module.opset_imports["other"] == 1
    assert module.to_proto().functions[1] == extra
    assert list(module.unused_functions()) == [("other", "More", "")]
    assert module.remove_unused_functions() == 1
    assert module.remove_unused_functions() == 0
    assert module.functions == [double]


def test_function_needs_a_newer_format() -> None:
    model = proto()
    del model.functions[:]
    model.graph.node[1].CopyFrom(helper.make_node("Neg", ["spikes"], ["h"]))
    model.ir_version = 7
    module = Module.load(model)
    assert module.remove_unused_functions() == 0
    module.add_function(proto().functions[0])
    assert module.to_proto().ir_version == 8


def test_overloads_are_told_apart() -> None:
    model = proto()
    other = model.functions.add()
    other.CopyFrom(model.functions[0])
    other.overload = "two"
    model.graph.node[1].overload = "two"
    module = Module.load(model)
    assert module.function_of(module.graph.nodes[1]) is module.functions[1]
    assert list(module.unused_functions()) == [("my", "Double", "")]


def test_broken_function_is_refused(module: Module) -> None:
    broken = parser.parse_function('<domain: "other", opset_import: ["" : 18]> More (a) => (b) { b = Neg (a) }')
    broken.node[0].input[0] = "nowhere"
    with pytest.raises(ModelLoadError, match=r"'other::More'.*'nowhere'"):
        module.add_function(broken)
    broken.node[0].input[0] = "b"
    with pytest.raises(ModelLoadError, match="circle"):
        module.add_function(broken)


# -------------------------------------------------------------------- copies


def test_copy_shares_arrays_and_nothing_else(module: Module) -> None:
    twin = module.copy()
    verify_structure(twin)
    assert twin.to_proto() == module.to_proto()
    first, second = list(module.constants()), list(twin.constants())
    assert len(first) == len(second) == 3
    for ours, theirs in zip(first, second, strict=True):
        assert ours is not theirs
        assert np.shares_memory(array_of(ours), array_of(theirs))
    twin.graph.nodes[0].attrs["body"].nodes[0].op = "Div"
    twin.graph.nodes[3].name = "renamed"
    twin.graph.inputs[0].shape[0] = 7
    twin.functions.clear()
    assert module.to_proto() == proto()


def test_copy_with_own_arrays(module: Module) -> None:
    twin = module.copy(share_weights=False)
    assert twin.to_proto() == Module.load(proto()).copy(share_weights=False).to_proto()
    for value in twin.constants():
        array = array_of(value)
        assert array.flags.writeable
        array += 1
    checker.check_model(twin.to_proto(), full_check=True)
    for value in module.constants():
        assert array_of(value).max() <= 3


def test_copy_of_a_copy_keeps_everything() -> None:
    model = proto()
    model.graph.input.append(helper.make_tensor_value_info("beta", TensorProto.FLOAT, [2]))
    model.graph.initializer[0].doc_string = "start"
    model.graph.value_info.append(helper.make_tensor_value_info("gone", TensorProto.FLOAT, [2]))
    model.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["T", 2]))
    model.graph.node[3].metadata_props.add(key="a", value="b")
    assert Module.load(model).copy().copy().to_proto() == model


def test_lists_in_attributes_are_copied() -> None:
    model = proto()
    model.graph.node[3].attribute.extend(
        [
            helper.make_attribute("axes", [1, 2]),
            helper.make_attribute("tensors", [numpy_helper.from_array(np.ones(2), "t")]),
            helper.make_attribute("graphs", [model.graph.node[0].attribute[1].g]),
        ]
    )
    module = Module.load(model)
    twin = module.copy()
    assert twin.to_proto() == model
    twin.graph.nodes[3].attrs["axes"].append(3)
    assert module.graph.nodes[3].attrs["axes"] == [1, 2]
    assert [name for name, _ in bodies_of(module.graph.nodes[3])] == ["graphs[0]"]


# --------------------------------------------------------------------- empty


def test_empty_module_is_filled_by_a_rewriter() -> None:
    module = Module.empty(
        inputs=[("x", np.float32, ["T", 2])], outputs=[("y", np.float32, ["T", 2]), ("n", "int64", [1])],
        opset=20, name="made",
    )  # fmt: skip
    rewriter = Rewriter(module)
    x, (y, n) = module.graph.inputs[0], module.graph.outputs
    rewriter.add(module.graph, "Mul", [x, rewriter.constant("w", np.float32([2, 3]))], [y])
    rewriter.add(module.graph, "Shape", [x], [n], attrs={"start": 1})
    rewriter.finish()
    verify_structure(module)
    written = module.to_proto()
    checker.check_model(written, full_check=True)
    assert (written.graph.name, written.opset_import[0].version) == ("made", 20)
    assert written.ir_version >= 9
    assert [dim.dim_param or dim.dim_value for dim in written.graph.input[0].type.tensor_type.shape.dim] == ["T", 2]
    assert Module.load(written).to_proto() == written
    assert module.copy().to_proto() == written


def test_values_without_shape() -> None:
    module = Module.empty(inputs=[("x", np.float32, None)], outputs=[("y", np.float32, [None])])
    rewriter = Rewriter(module)
    rewriter.add(module.graph, "Neg", [module.graph.inputs[0]], [module.graph.outputs[0]])
    rewriter.finish()
    written = module.to_proto()
    assert not written.graph.input[0].type.tensor_type.HasField("shape")
    assert len(written.graph.output[0].type.tensor_type.shape.dim) == 1


def test_changed_types_are_written() -> None:
    model = proto()
    model.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["T", 2]))
    module = Module.load(model)
    hidden = module.graph.nodes[1].outputs[0]
    hidden.shape = [25, None]
    hidden.dtype = np.dtype(np.float64)
    written = module.to_proto().graph.value_info[0]
    assert written == helper.make_tensor_value_info("h", TensorProto.DOUBLE, [25, None])
    hidden.shape = None
    assert not module.to_proto().graph.value_info[0].type.tensor_type.HasField("shape")


# -------------------------------------------------------------------- others


def test_strip_metadata() -> None:
    model = proto()
    model.doc_string = "kept"
    model.metadata_props.add(key="kept", value="kept")
    model.graph.input[0].doc_string = "kept"
    model.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["T", 2]))
    model.graph.initializer[0].metadata_props.add(key="a", value="gone")
    body = model.graph.node[0].attribute[1].g
    tensor = model.graph.node[2].attribute[0].t
    body.input[0].doc_string = body.output[0].doc_string = "gone"
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.float32([7]), "sparse"), numpy_helper.from_array(np.int64([1])), [3]
    )
    sparse.values.doc_string = sparse.indices.doc_string = "gone"
    model.graph.sparse_initializer.append(sparse)
    noted = [model.graph, model.graph.node[0], body, body.node[0], model.functions[0], model.functions[0].node[0]]
    for part in (*noted, model.graph.value_info[0], model.graph.initializer[1], tensor):
        part.doc_string = "gone"
        part.metadata_props.add(key="a", value="gone")
    module = Module.load(model)
    twin = module.copy()
    module.strip_metadata()
    written = module.to_proto()
    assert b"gone" not in written.SerializeToString()
    assert written.SerializeToString().count(b"kept") == 4
    assert twin.to_proto() == model


def test_skeleton_has_the_nodes_of_the_graph(module: Module) -> None:
    rewriter = Rewriter(module)
    rewriter.set_input(module.graph.nodes[3], 0, rewriter.constant("big", np.zeros((100, 2), np.float32)))
    rewriter.finish()
    skeleton = module.skeleton(threshold=100)
    assert [node.op_type for node in skeleton.graph.node] == [node.op for node in module.graph.nodes]
    big = next(tensor for tensor in skeleton.graph.initializer if tensor.name == "big")
    assert big.data_location == TensorProto.EXTERNAL
    assert list(big.dims) == [100, 2]


def test_graph_is_one_of_the_graph_library(module: Module) -> None:
    assert isinstance(module.graph, gs.Graph)
    assert all(isinstance(node, gs.Node) for node in module.graph.nodes)
    exported = gs.export_onnx(module.graph)
    assert [node.op_type for node in exported.graph.node] == ["Scan", "Double", "Constant", "Neg"]
    values = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in exported.graph.initializer}
    assert values["v0"] == [0, 0]
