from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from onnx.inliner import inline_local_functions
from onnx.reference import ReferenceEvaluator

from snn_optimizer.ops import (
    DOMAIN,
    MAXIMUM_OPSET,
    MINIMUM_OPSET,
    VERSION,
    NeuronVariant,
    function_proto,
    sequence,
    step,
)

# Together they use every operator a function can have.
SAMPLE = [
    NeuronVariant("LIF"),
    NeuronVariant("LIF", reset="to-value", fire="ge", arithmetic="relax"),
    NeuronVariant("IF", reset="none", max_spikes=0, fire="ge"),
    NeuronVariant("CubaLIF", reset_delay=1, max_spikes=4),
    NeuronVariant("CubaLIF", reset="to-value", reset_delay=1),
    NeuronVariant("LI"),
]
SAMPLE += [variant.as_form("cell") for variant in SAMPLE]


def name_of(variant: NeuronVariant) -> str:
    return variant.op_type


def opsets() -> range:
    return range(MINIMUM_OPSET, min(MAXIMUM_OPSET, onnx.defs.onnx_opset_version()) + 1)


def call(variant: NeuronVariant, inputs: list[str], outputs: list[str]) -> onnx.NodeProto:
    return helper.make_node(variant.op_type, inputs, outputs, domain=DOMAIN, **variant.attributes())


def value(name: str, shape: list[int | str] | None, element: int = onnx.TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


def model_of(
    variant: NeuronVariant,
    signal_shape: list[int | str],
    *,
    opset: int = 18,
    ir_version: int = 8,
    element: int = onnx.TensorProto.FLOAT,
) -> onnx.ModelProto:
    state = signal_shape[1:] if variant.form == "sequence" else signal_shape
    parameter = list(state[1:])
    shapes = {"signal": signal_shape, "state": state, "parameter": parameter}
    return helper.make_model(
        helper.make_graph(
            [call(variant, list(variant.inputs), list(variant.outputs))],
            "one_call",
            [value(part.name, shapes[part.role], element) for part in variant.schema.inputs],
            [value(part.name, shapes[part.role], element) for part in variant.schema.outputs],
        ),
        functions=[function_proto(variant, opset)],
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, VERSION)],
        ir_version=ir_version,
    )


def inputs_of(variant: NeuronVariant) -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    shapes = {
        "signal": (4, 2, 3) if variant.form == "sequence" else (2, 3),
        "state": (2, 3),
        "parameter": (3,),
    }
    return [rng.uniform(0.25, 1.5, shapes[part.role]).astype(np.float32) for part in variant.schema.inputs]


def expected_of(variant: NeuronVariant, inputs: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    return (sequence if variant.form == "sequence" else step)(variant, inputs)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feeds)


def assert_same_bytes(actual: list[np.ndarray], expected: tuple[np.ndarray, ...]) -> None:
    for array, wanted in zip(actual, expected, strict=True):
        assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)
        assert array.tobytes() == wanted.tobytes()


def nodes_in(nodes: list[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes_in(attribute.g.node)


def loop_of(function: onnx.FunctionProto) -> list[str]:
    (scan,) = [node for node in function.node if node.op_type == "Scan"]
    return [node.op_type for node in next(a.g for a in scan.attribute if a.name == "body").node]


@pytest.mark.parametrize("variant", SAMPLE, ids=name_of)
class TestEveryFunction:
    def test_interface(self, variant: NeuronVariant) -> None:
        function = function_proto(variant)
        assert (function.domain, function.name) == ("ai.snn", variant.op_type)
        assert tuple(function.input) == variant.inputs
        assert tuple(function.output) == variant.outputs
        assert not function.attribute
        assert not function.attribute_proto
        assert not function.overload
        assert [(entry.domain, entry.version) for entry in function.opset_import] == [("", 18)]

    def test_body_is_standard_and_its_names_are_unique(self, variant: NeuronVariant) -> None:
        function = function_proto(variant)
        nodes = list(nodes_in(function.node))
        results = [name for node in nodes for name in node.output]
        assert {node.domain for node in nodes} == {""}
        assert not any(attribute.ref_attr_name for node in nodes for attribute in node.attribute)
        assert len(results) == len(set(results))
        assert not set(results) & set(function.input)

    def test_equal_arguments_give_equal_bytes_and_new_objects(self, variant: NeuronVariant) -> None:
        first = function_proto(variant)
        written = first.SerializeToString()
        first.node.pop()
        assert function_proto(variant).SerializeToString() == written

    @pytest.mark.parametrize("opset", opsets())
    def test_every_opset(self, variant: NeuronVariant, opset: int) -> None:
        model = model_of(variant, ["T", "B", 3] if variant.form == "sequence" else ["B", 3], opset=opset)
        onnx.checker.check_model(model, full_check=True)
        assert model.functions[0].opset_import[0].version == opset
        inputs = inputs_of(variant)
        feeds = dict(zip(variant.inputs, inputs, strict=True))
        assert_same_bytes(run(model, feeds), expected_of(variant, inputs))

    @pytest.mark.parametrize("batch", ["B", 2])
    @pytest.mark.parametrize("element", [onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE])
    def test_shapes_and_types_are_inferred_through_the_call(
        self, variant: NeuronVariant, batch: int | str, element: int
    ) -> None:
        time: list[int | str] = ["T" if batch == "B" else 7] if variant.form == "sequence" else []
        model = model_of(variant, [*time, batch, 2, 3, 3], element=element)
        for output in model.graph.output:
            output.ClearField("type")
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        for part, output in zip(variant.schema.outputs, inferred.graph.output, strict=True):
            expected = value(part.name, [*(time if part.role == "signal" else []), batch, 2, 3, 3], element)
            assert output == expected

    def test_inlining_keeps_the_bits(self, variant: NeuronVariant) -> None:
        inlined = inline_local_functions(model_of(variant, ["T", "B", 3] if variant.form == "sequence" else ["B", 3]))
        assert not inlined.functions
        inputs = inputs_of(variant)
        feeds = dict(zip(variant.inputs, inputs, strict=True))
        assert_same_bytes(run(inlined, feeds), expected_of(variant, inputs))

    def test_half_precision_runs(self, variant: NeuronVariant) -> None:
        """Exact in onnx.reference; onnxruntime's CPU kernels keep intermediate results in float32."""
        shape: list[int | str] = ["T", "B", 3] if variant.form == "sequence" else ["B", 3]
        model = model_of(variant, shape, element=onnx.TensorProto.FLOAT16)
        inputs = [array.astype(np.float16) for array in inputs_of(variant)]
        feeds = dict(zip(variant.inputs, inputs, strict=True))
        expected = expected_of(variant, inputs)
        assert_same_bytes(ReferenceEvaluator(model).run(None, feeds), expected)
        for array, wanted in zip(run(model, feeds), expected, strict=True):
            assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)


@pytest.mark.parametrize("ir_version", range(8, min(onnx.IR_VERSION, 14) + 1))
@pytest.mark.parametrize("opset", opsets())
def test_every_ir_version_loads(ir_version: int, opset: int) -> None:
    variant = NeuronVariant("LIF", reset_delay=1)
    model = model_of(variant, ["T", "B", 3], opset=opset, ir_version=ir_version)
    inputs = inputs_of(variant)
    assert_same_bytes(run(model, dict(zip(variant.inputs, inputs, strict=True))), sequence(variant, inputs))


@pytest.mark.parametrize("opset", [15, MAXIMUM_OPSET + 1])
def test_opsets_out_of_range(opset: int) -> None:
    with pytest.raises(ValueError, match=f"opset must be {MINIMUM_OPSET} to {MAXIMUM_OPSET}, not {opset}"):
        function_proto(NeuronVariant("LIF"), opset)


def test_bytes_do_not_depend_on_the_hash_seed() -> None:
    program = (
        "import hashlib, sys; "
        "from snn_optimizer.ops import NeuronVariant, function_proto; "
        "variants = map(NeuronVariant._from_name, sys.argv[1:]); "
        "data = b''.join(function_proto(variant).SerializeToString() for variant in variants); "
        "print(hashlib.sha256(data).hexdigest())"
    )
    here = hashlib.sha256(b"".join(function_proto(variant).SerializeToString() for variant in SAMPLE)).hexdigest()
    for seed in ("0", "1"):
        result = subprocess.run(
            [sys.executable, "-c", program, *map(name_of, SAMPLE)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stdout.strip() == here


# What a step costs is what stands in the loop.
@pytest.mark.parametrize(
    ("name", "operators"),
    [
        ("LIF__subtract_gt", "Mul Add Greater CastLike Mul Sub"),
        ("LIF__subtract_ge_delayed", "Mul Add Sub Max Equal CastLike Mul"),
        ("LIF__to_value_gt", "Mul Add Greater Where"),
        ("LIF__to_value_gt_delayed", "Mul Add Greater Where"),
        ("LIF__none_gt", "Mul Add Identity"),
        ("LIF__none_gt_m0", "Mul Add Identity"),
        ("LIF__subtract_gt_relax", "Sub Mul Add Greater CastLike Mul Sub"),
        ("IF__subtract_gt", "Add Greater CastLike Mul Sub"),
        ("LI__decay", "Mul Add Identity"),
        ("CubaLIF__subtract_gt", "Mul Add Mul Mul Add Greater CastLike Mul Sub"),
        ("LIF__subtract_ge_m4", "Mul Add Div Floor Greater Where Min Mul Sub"),
    ],
)
def test_operators_of_one_step(name: str, operators: str) -> None:
    variant = NeuronVariant._from_name(name)
    assert variant is not None
    assert loop_of(function_proto(variant)) == operators.split()


def test_constant_parameters_fold_in_a_loop_over_cells(tmp_path) -> None:
    cell = NeuronVariant("LIF", "cell")
    names = ["beta", "gain", "v_threshold", "v_reset"]
    body = helper.make_graph(
        [call(cell, ["x", "v", *names], ["s", "v_next"])],
        "body",
        [helper.make_empty_tensor_value_info(name) for name in ("v", "x")],
        [helper.make_empty_tensor_value_info(name) for name in ("v_next", "s")],
    )
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Scan", ["v0", "X"], ["vT", "S"], body=body, num_scan_inputs=1)],
            "loop",
            [value("X", ["T", "B", 3]), value("v0", ["B", 3])],
            [value("S", ["T", "B", 3]), value("vT", ["B", 3])],
            [
                helper.make_tensor(name, onnx.TensorProto.FLOAT, [1], [number])
                for name, number in zip(names, (0.9, 0.5, 0.75, 0.0), strict=True)
            ],
        ),
        functions=[function_proto(cell)],
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)],
        ir_version=8,
    )
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    optimized = onnx.load(tmp_path / "optimized.onnx")
    assert [node.op_type for node in nodes_in(optimized.graph.node)] == [
        "Scan",
        *["Mul", "Mul", "Add", "Greater", "Cast", "Mul", "Sub"],
    ]


@pytest.mark.parametrize("opset", [16, 18, 24])
def test_functions_live_together(opset: int) -> None:
    """A network of all operators, one of them twice, one as cells in a loop of the main graph."""
    lif, cuba, readout = NeuronVariant("LIF"), NeuronVariant("CubaLIF", reset="to-value"), NeuronVariant("LI")
    cell = NeuronVariant("IF", "cell", reset_delay=1, max_spikes=3)
    body = helper.make_graph(
        [call(cell, ["x", "v", "gain", "threshold", "rest"], ["s", "v_next"])],
        "body",
        [helper.make_empty_tensor_value_info(name) for name in ("v", "x")],
        [helper.make_empty_tensor_value_info(name) for name in ("v_next", "s")],
    )
    nodes = [
        call(lif, ["X", "start", "beta", "gain", "threshold", "rest"], ["S1", "v1"]),
        call(lif, ["S1", "start", "beta", "gain", "threshold", "rest"], ["S2", "v2"]),
        call(cuba, ["S2", "start", "start", "beta", "beta", "gain", "threshold", "rest"], ["S3", "i3", "v3"]),
        helper.make_node("Scan", ["initial", "S3"], ["v4", "S4"], body=body, num_scan_inputs=1),
        call(readout, ["S4", "start", "beta", "gain"], ["V5", "v5"]),
    ]
    outputs = [value(name, None) for name in ("S1", "v1", "S2", "v2", "S3", "i3", "v3", "S4", "v4", "V5", "v5")]
    inputs = [value("X", ["T", "B", 3]), value("initial", ["B", 3])]
    inputs += [value(name, []) for name in ("start", "beta", "gain", "threshold", "rest")]
    for output in outputs:
        output.type.CopyFrom(value("", ["T", "B", 3] if output.name[0] in "SV" else ["B", 3]).type)
    model = helper.make_model(
        helper.make_graph(nodes, "network", inputs, outputs),
        functions=[function_proto(variant, opset) for variant in (lif, cuba, cell, readout)],
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, VERSION)],
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)

    rng = np.random.default_rng(5)
    x, initial = rng.uniform(0, 2, (9, 2, 3)).astype(np.float32), np.zeros((2, 3), np.float32)
    numbers = (0, 0.9, 1.5, 0.75, 0.25)
    start, beta, gain, threshold, rest = (np.array(number, np.float32) for number in numbers)
    first = sequence(lif, [x, start, beta, gain, threshold, rest])
    second = sequence(lif, [first[0], start, beta, gain, threshold, rest])
    third = sequence(cuba, [second[0], start, start, beta, beta, gain, threshold, rest])
    fourth = sequence(cell, [third[0], initial, gain, threshold, rest])
    fifth = sequence(readout, [fourth[0], start, beta, gain])
    assert fourth[0].max() > 1
    feeds = {"X": x, "initial": initial, "start": start, "beta": beta, "gain": gain}
    feeds |= {"threshold": threshold, "rest": rest}
    for results in (run(model, feeds), ReferenceEvaluator(model).run(None, feeds)):
        assert_same_bytes(results, (*first, *second, *third, *fourth, *fifth))


@pytest.mark.parametrize("shape", [(3, 0, 3), (3, 2, 0)])
def test_empty_batches_and_layers(shape: tuple[int, ...]) -> None:
    variant = NeuronVariant("LIF")
    model = model_of(variant, ["T", "B", shape[2]])
    inputs = [np.zeros(shape, np.float32), np.zeros(shape[1:], np.float32)]
    inputs += [np.ones(shape[2:], np.float32)] * 4
    assert_same_bytes(run(model, dict(zip(variant.inputs, inputs, strict=True))), sequence(variant, inputs))
