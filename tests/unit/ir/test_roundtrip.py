"""Loading and saving loses nothing and duplicates nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper, parser

from snn_optimizer.ir import Module, Rewriter, array_of, verify_structure

PLAIN = """
<ir_version: 10, opset_import: ["" : 18]>
plain (float[N, 2] x) => (float[N, 2] y) <float[2] w = {1.0, 2.0}> {
    h = Mul (x, w)
    y = Neg (h)
}
"""

TWO_SCANS = """
<ir_version: 10, opset_import: ["" : 18]>
loops (float[T, 2] x) => (float[T, 2] y, float[T, 2] z) <float[2] w = {1.0, 2.0}, float[2] v0 = {0.0, 0.0}> {
    v1, y = Scan <num_scan_inputs = 1, body = first (float[2] v, float[2] s) => (float[2] next, float[2] out) {
        next = Mul (v, w)
        out = Add (s, next)
    }> (v0, x)
    v2, z = Scan <num_scan_inputs = 1, body = second (float[2] v, float[2] s) => (float[2] next, float[2] out) {
        next = Add (v, w)
        out = Sub (s, next)
    }> (v0, x)
}
"""

Edit = Callable[[ModelProto], None]


def parse(text: str) -> ModelProto:
    return parser.parse_model(text)


def reread(model: ModelProto, folder: Path) -> ModelProto:
    """Send a model through a file and back, and check the other ways out of a module."""
    source, target = folder / "in.onnx", folder / "out.onnx"
    source.write_bytes(model.SerializeToString())
    module = Module.load(source)
    verify_structure(module)
    size = module.save(target)
    assert size == target.stat().st_size
    assert module.to_proto() == module.copy().to_proto() == Module.load(model).to_proto()
    assert module.skeleton(threshold=1 << 30) == module.to_proto()
    return onnx.load(target)


def assert_kept(model: ModelProto, folder: Path) -> None:
    before = model.SerializeToString()
    assert reread(model, folder) == model
    assert model.SerializeToString() == before


# ------------------------------------------------------------------ metadata


def _model_fields(model: ModelProto) -> None:
    model.domain = "org.example"
    model.model_version = 7
    model.doc_string = "a model"
    model.producer_name = "maker"
    model.producer_version = "3.1"
    for key, value in (("b", "2"), ("a", "1"), ("b", "3")):
        model.metadata_props.add(key=key, value=value)


def _node_fields(model: ModelProto) -> None:
    node = model.graph.node[0]
    node.name = "scale"
    node.doc_string = "multiplies"
    node.metadata_props.add(key="stack", value="line 1")


def _graph_fields(model: ModelProto) -> None:
    model.graph.doc_string = "a graph"
    model.graph.metadata_props.add(key="k", value="v")


def _quantization(model: ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "scale"))
    entry = model.graph.quantization_annotation.add(tensor_name="h")
    entry.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale")
    model.graph.quantization_annotation.add(tensor_name="nothing")


def _interface_fields(model: ModelProto) -> None:
    for entry in (*model.graph.input, *model.graph.output):
        entry.doc_string = "time first"
        entry.metadata_props.add(key="unit", value="mV")
        entry.type.denotation = "TENSOR"
        entry.type.tensor_type.shape.dim[0].denotation = "BATCH"


def _default_input(model: ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]))


def _default_between_constants(model: ModelProto) -> None:
    for name in ("before", "x", "after"):
        model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 2), np.float32), name))


def _unused_initializers(model: ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.arange(3), "unused"))
    model.graph.initializer[-1].doc_string = "kept for later"
    model.graph.initializer[-1].metadata_props.add(key="k", value="v")


def _value_info(model: ModelProto) -> None:
    infos = [("h", ["N", 2]), ("w", [2]), ("stale", [3]), ("y", None), ("x", ["N", 2])]
    for name, shape in infos:
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    model.graph.value_info[0].doc_string = "the product"


def _disagreeing_value_info(model: ModelProto) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 2]))
    model.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, [4, 2]))
    model.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, None))


def _opsets(model: ModelProto) -> None:
    del model.opset_import[:]
    for domain, version in (("com.other", 3), ("ai.onnx", 18), ("com.unused", 1)):
        model.opset_import.add(domain=domain, version=version)
    model.graph.node[0].domain = "ai.onnx"


def _domain_without_import(model: ModelProto) -> None:
    model.graph.node[0].domain = "com.example"


def _training_info(model: ModelProto) -> None:
    info = model.training_info.add()
    info.initialization.CopyFrom(parse(PLAIN).graph)
    info.initialization_binding.add(key="w", value="y")


def _device_configuration(model: ModelProto) -> None:
    model.configuration.add(name="two", num_devices=2)
    model.graph.node[0].device_configurations.add(configuration_id="two", pipeline_stage=1)


def _unknown_fields(model: ModelProto) -> None:
    """A field of a later version of the format, in a node and in the model."""
    field = b"\xfa\x3e\x03new"  # number 1007
    node = model.graph.node[0]
    node.MergeFromString(field)
    model.MergeFromString(field)
    assert b"new" in node.SerializeToString()


def _symbolic_shapes(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].ClearField("dim_param")
    model.graph.output[0].type.tensor_type.ClearField("shape")


@pytest.mark.parametrize(
    "edit",
    [
        _model_fields,
        _node_fields,
        _graph_fields,
        _quantization,
        _interface_fields,
        _default_input,
        _default_between_constants,
        _unused_initializers,
        _value_info,
        _disagreeing_value_info,
        _opsets,
        _domain_without_import,
        _training_info,
        _device_configuration,
        _unknown_fields,
        _symbolic_shapes,
    ],
)
def test_field_is_kept(edit: Edit, tmp_path: Path) -> None:
    model = parse(PLAIN)
    edit(model)
    assert_kept(model, tmp_path)


def test_initializer_that_is_an_input_is_not_constant() -> None:
    model = parse(PLAIN)
    _default_input(model)
    module = Module.load(model)
    assert [value.name for value in module.graph.inputs] == ["x", "w"]
    assert array_of(module.graph.inputs[1]) is None


@pytest.mark.parametrize("version", [3, 4])
def test_declared_initializers_of_old_files(version: int, tmp_path: Path) -> None:
    """Before IR version 4 every initializer is declared as an input, and yet constant."""
    model = parse(PLAIN)
    model.ir_version = version
    model.graph.input.insert(0, helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]))
    assert_kept(model, tmp_path)
    module = Module.load(model)
    weight = module.graph.nodes[0].inputs[1]
    assert (array_of(weight) is not None) == (version == 3)


def test_new_constants_of_old_files_are_declared() -> None:
    model = parse(PLAIN)
    model.ir_version = 3
    model.graph.input.insert(0, helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]))
    module = Module.load(model)
    rewriter = Rewriter(module)
    rewriter.set_input(module.graph.nodes[0], 1, rewriter.constant("fresh", np.ones(2, np.float32)))
    rewriter.finish()
    proto = module.to_proto()
    assert [entry.name for entry in proto.graph.input] == ["x", "fresh"]
    assert [entry.name for entry in proto.graph.initializer] == ["fresh"]
    onnx.checker.check_model(proto, full_check=True)


# ---------------------------------------------------------------- attributes


def _attribute(**fields: object) -> Edit:
    def edit(model: ModelProto) -> None:
        attribute = AttributeProto(name="extra", doc_string="documented", **fields)
        model.graph.node[0].attribute.append(attribute)
        model.graph.node[0].domain = "com.example"

    return edit


_TENSOR = numpy_helper.from_array(np.arange(2000, dtype=np.float32), "t")
_SPARSE = helper.make_sparse_tensor(
    numpy_helper.from_array(np.float32([5, 6]), "s"), numpy_helper.from_array(np.int64([1, 3])), [4]
)
_TYPE = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 3])
_KINDS = {
    "float": {"type": AttributeProto.FLOAT, "f": 0.1},
    "float_nan": {"type": AttributeProto.FLOAT, "f": float("nan")},
    "int": {"type": AttributeProto.INT, "i": -(2**63)},
    "string": {"type": AttributeProto.STRING, "s": "grün".encode()},
    "string_not_utf8": {"type": AttributeProto.STRING, "s": b"\xff\xfe"},
    "tensor": {"type": AttributeProto.TENSOR, "t": _TENSOR},
    "sparse_tensor": {"type": AttributeProto.SPARSE_TENSOR, "sparse_tensor": _SPARSE},
    "type_proto": {"type": AttributeProto.TYPE_PROTO, "tp": _TYPE},
    "floats": {"type": AttributeProto.FLOATS, "floats": [0.1, float("nan")]},
    "ints": {"type": AttributeProto.INTS, "ints": [1, 2]},
    "ints_empty": {"type": AttributeProto.INTS},
    "floats_empty": {"type": AttributeProto.FLOATS},
    "strings": {"type": AttributeProto.STRINGS, "strings": [b"a", b"\xff"]},
    "strings_empty": {"type": AttributeProto.STRINGS},
    "tensors": {"type": AttributeProto.TENSORS, "tensors": [_TENSOR, _TENSOR]},
    "tensors_empty": {"type": AttributeProto.TENSORS},
    "sparse_tensors": {"type": AttributeProto.SPARSE_TENSORS, "sparse_tensors": [_SPARSE]},
    "type_protos": {"type": AttributeProto.TYPE_PROTOS, "type_protos": [_TYPE, _TYPE]},
    "graph": {"type": AttributeProto.GRAPH, "g": parse(PLAIN).graph},
    "graphs": {"type": AttributeProto.GRAPHS, "graphs": [parse(PLAIN).graph] * 2},
    "graphs_empty": {"type": AttributeProto.GRAPHS},
}


@pytest.mark.parametrize("kind", _KINDS)
def test_attribute_is_kept(kind: str, tmp_path: Path) -> None:
    model = parse(PLAIN)
    _attribute(**_KINDS[kind])(model)
    assert_kept(model, tmp_path)


def test_attribute_named_id_is_kept(tmp_path: Path) -> None:
    model = parse(PLAIN)
    model.graph.node[0].attribute.append(helper.make_attribute("id", 3))
    assert_kept(model, tmp_path)


def test_attributes_beside_a_changed_one_are_kept() -> None:
    model = parse(PLAIN)
    for fields in (_KINDS["tensor"], _KINDS["graphs"], _KINDS["ints_empty"]):
        _attribute(**fields)(model)
        model.graph.node[0].attribute[-1].name = f"a{len(model.graph.node[0].attribute)}"
    module = Module.load(model)
    rewriter = Rewriter(module)
    rewriter.set_attribute(module.graph.nodes[0], "fresh", [0.5, 1])
    rewriter.finish()
    attributes = module.to_proto().graph.node[0].attribute
    assert list(attributes[:-1]) == list(model.graph.node[0].attribute)
    assert attributes[-1] == helper.make_attribute("fresh", [0.5, 1.0])


# ------------------------------------------------------------------- tensors

_DTYPES = [
    np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int8, np.int16, np.int32, np.int64,
    np.uint8, np.uint16, np.uint32, np.uint64, np.bool_, np.complex64, np.complex128,
    ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2, ml_dtypes.float8_e5m2fnuz,
    ml_dtypes.uint4, ml_dtypes.int4, ml_dtypes.float4_e2m1fn, ml_dtypes.uint2, ml_dtypes.int2,
    ml_dtypes.float6_e2m3fn, ml_dtypes.float6_e3m2fn, ml_dtypes.float8_e8m0fnu,
]  # fmt: skip


def _values(dtype: type, count: int) -> np.ndarray:
    return (np.arange(count) % 2).astype(dtype)


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("count", [0, 5, 30_000])
@pytest.mark.parametrize("dtype", _DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_tensor_is_kept(dtype: type, count: int, raw: bool, tmp_path: Path) -> None:
    values = _values(dtype, count)
    tensor = numpy_helper.from_array(values, "w")
    if not raw:
        tensor = helper.make_tensor("w", tensor.data_type, values.shape, values)
        assert not tensor.HasField("raw_data")
    model = parse(PLAIN)
    model.graph.node[0].domain = "com.example"  # no operator takes all types
    model.graph.initializer[0].CopyFrom(tensor)
    assert_kept(model, tmp_path)
    module = Module.load(tmp_path / "in.onnx")
    loaded = array_of(module.graph.nodes[0].inputs[1])
    assert loaded is not None
    assert loaded.dtype == np.dtype(dtype)
    assert loaded.tobytes() == values.tobytes()


@pytest.mark.parametrize("dtype", _DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_new_constant_of_any_type(dtype: type) -> None:
    module = Module.load(parse(PLAIN))
    rewriter = Rewriter(module)
    values = _values(dtype, 2001)
    rewriter.set_input(module.graph.nodes[0], 1, rewriter.constant("fresh", values))
    rewriter.finish()
    tensor = module.to_proto().graph.initializer[0]
    assert tensor == numpy_helper.from_array(values, "fresh")


def test_strings_are_kept(tmp_path: Path) -> None:
    model = parse(PLAIN)
    model.graph.node[0].domain = "com.example"
    model.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.STRING, [2], [b"a", b"\xff"]))
    assert_kept(model, tmp_path)
    module = Module.load(model)
    rewriter = Rewriter(module)
    words = rewriter.constant("words", np.array(["grün", "rot"]))
    rewriter.set_input(module.graph.nodes[0], 1, words)
    rewriter.finish()
    assert list(module.to_proto().graph.initializer[0].string_data) == ["grün".encode(), b"rot"]


@pytest.mark.parametrize("order", [">f4", "<f4"])
def test_arrays_of_any_layout_are_written_right(order: str) -> None:
    values = np.arange(4000, dtype=order).reshape(40, 100).T
    module = Module.load(parse(PLAIN))
    rewriter = Rewriter(module)
    rewriter.set_input(module.graph.nodes[0], 1, rewriter.constant("fresh", values))
    rewriter.finish()
    written = numpy_helper.to_array(module.to_proto().graph.initializer[0])
    assert written.dtype == np.float32
    np.testing.assert_array_equal(written, values)


@pytest.mark.parametrize("shape", [[4], [2, 2]], ids=["linear", "coordinates"])
def test_sparse_initializer_is_kept(shape: list[int], tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.float32([5, 6]), "w")
    indices = np.int64([1, 3]) if shape == [4] else np.int64([[0, 1], [1, 1]])
    model = parse(PLAIN)
    del model.graph.initializer[:]
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(indices, "w_at"), shape)
    )
    assert_kept(model, tmp_path)
    module = Module.load(model)
    dense = array_of(module.graph.nodes[0].inputs[1])
    assert dense is not None
    np.testing.assert_array_equal(dense, np.float32([0, 5, 0, 6]).reshape(shape))


# --------------------------------------------------------------------- types


def _typed_input(type_proto: onnx.TypeProto) -> Edit:
    def edit(model: ModelProto) -> None:
        model.graph.input.append(helper.make_value_info("more", type_proto))
        model.graph.output.append(helper.make_value_info("made", type_proto))
        model.graph.node.add(op_type="Make", domain="com.example", input=["more"], output=["made"])

    return edit


_TYPES = {
    "sequence": helper.make_sequence_type_proto(_TYPE),
    "optional": helper.make_optional_type_proto(_TYPE),
    "map": helper.make_map_type_proto(TensorProto.INT64, _TYPE),
    "sparse": helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, [2]),
    "opaque": onnx.TypeProto(opaque_type=onnx.TypeProto.Opaque(domain="d", name="n")),
    "unset": onnx.TypeProto(),
    "no_shape": helper.make_tensor_type_proto(TensorProto.FLOAT, None),
    "scalar": helper.make_tensor_type_proto(TensorProto.FLOAT, []),
    "type_of_the_future": onnx.TypeProto(tensor_type=onnx.TypeProto.Tensor(elem_type=99)),
}


@pytest.mark.parametrize("kind", _TYPES)
def test_type_is_kept(kind: str, tmp_path: Path) -> None:
    model = parse(PLAIN)
    _typed_input(_TYPES[kind])(model)
    assert_kept(model, tmp_path)


# ----------------------------------------------------------- bodies, functions


def test_weight_captured_by_two_bodies_is_stored_once(tmp_path: Path) -> None:
    model = parse(TWO_SCANS)
    big = np.arange(200_000, dtype=np.float32).reshape(-1, 2)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(big, "w"))
    assert_kept(model, tmp_path)
    assert (tmp_path / "out.onnx").stat().st_size == len(model.SerializeToString())
    module = Module.load(model)
    weight = module.sidecar.record(module.graph).initializers[0]
    assert [node.op for node in weight.outputs] == ["Mul", "Add"]


def test_initializers_of_bodies_stay_there(tmp_path: Path) -> None:
    model = parse(TWO_SCANS)
    for node in model.graph.node:
        body = next(a.g for a in node.attribute if a.name == "body")
        body.initializer.append(numpy_helper.from_array(np.float32([3, 4]), "local"))
        body.node[0].input[1] = "local"
        body.doc_string = "a body"
    assert_kept(model, tmp_path)


def test_name_of_an_inner_value_may_hide_an_outer_one(tmp_path: Path) -> None:
    model = parse(TWO_SCANS)
    body = next(a.g for a in model.graph.node[0].attribute if a.name == "body")
    body.node[0].output[0] = "w"
    body.node[1].input[1] = "w"
    body.output[0].name = "w"
    body.node[0].input[1] = "v0"
    assert_kept(model, tmp_path)


def _function_model() -> ModelProto:
    return parse("""
    <ir_version: 10, opset_import: ["" : 18, "my" : 1]>
    calls (float[N] x) => (float[N] y) {
        h = my.Twice <alpha = 2.0> (x)
        y = my.Deep (h)
    }
    <domain: "my", opset_import: ["" : 18]>
    Twice <alpha: float = 1.0, beta> (a) => (b) {
        c = Constant <value_float: float = @alpha> ()
        b = Mul (a, c)
    }
    <domain: "my", opset_import: ["" : 18, "my" : 1]>
    Deep (a) => (b) { b = my.Twice (a) }
    """)


def test_functions_are_kept(tmp_path: Path) -> None:
    model = _function_model()
    function = model.functions[0]
    function.overload = "f32"
    function.doc_string = "doubles"
    function.metadata_props.add(key="k", value="v")
    function.value_info.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, []))
    other = model.functions.add()
    other.CopyFrom(function)
    other.overload = "f64"
    for node in (model.graph.node[0], model.functions[1].node[0]):
        node.overload = "f32"
    assert_kept(model, tmp_path)


def test_missing_optional_inputs_and_outputs_are_kept(tmp_path: Path) -> None:
    model = parse(PLAIN)
    model.graph.node[0].input[:] = ["x", "", "w", ""]
    model.graph.node[0].output[:] = ["h", "", "extra"]
    model.graph.node[0].domain = "com.example"
    assert_kept(model, tmp_path)


def test_nodes_in_the_wrong_order_are_sorted() -> None:
    model = parse(PLAIN)
    first, second = model.graph.node
    nodes = [second, first]
    shuffled = ModelProto()
    shuffled.CopyFrom(model)
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(nodes)
    assert Module.load(shuffled).to_proto() == model


# -------------------------------------------------------------------- corpus

CORPUS = Path(os.environ.get("SNN_CORPUS", Path(__file__).parents[4] / "shared" / "corpus"))
FILES = sorted(CORPUS.glob("*/*.onnx"))


@pytest.mark.skipif(not FILES, reason=f"no models in {CORPUS}; set SNN_CORPUS")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_corpus_file_is_kept(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    module = Module.load(path)
    verify_structure(module)
    module.save(target)
    assert onnx.load(target) == onnx.load(path)
