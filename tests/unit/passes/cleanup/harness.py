"""Runs one cleanup pass on a model and checks what every cleanup pass promises.

`check` runs the pass and then: the structure is valid, the interface is the same to the last byte, the
model before and the model after give the same bytes in onnxruntime, for ordinary values and for NaN,
infinities, signed zeros and subnormal numbers; a second run changes nothing, not even the file; and a run
that reports no changes left the file as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx.parser
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from snn_optimizer.analyses import AnalysisManager
from snn_optimizer.ir import Module, SNNGraph, bodies_of, verify_structure
from snn_optimizer.passes.base import Exactness, Outcome, Pass, PassContext
from snn_optimizer.remarks import Remark, RemarkKind

HEADER = '<ir_version: 9, opset_import: ["": 18]>'
SPECIAL = (np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45, -1e-45, 3.4e38, 1.0, -1.0)


@dataclass
class Run:
    """What a pass did to a model."""

    module: Module
    outcome: Outcome
    remarks: list[Remark]
    before: onnx.ModelProto
    after: onnx.ModelProto = field(init=False)

    def __post_init__(self):
        self.after = self.module.to_proto()

    @property
    def ops(self) -> list[str]:
        """The operators of the main graph, those of bodies after their node."""
        return _ops(self.module.graph)

    @property
    def missed(self) -> list[str]:
        """The names of the refusals."""
        return [remark.rule for remark in self.remarks if remark.kind is RemarkKind.MISSED]

    @property
    def applied(self) -> dict[str, int]:
        """How often each rule applied."""
        return {r.rule: r.arguments["number"] for r in self.remarks if r.kind is RemarkKind.APPLIED}

    @property
    def initializers(self) -> list[str]:
        """The names of the initializers of the main graph."""
        return [tensor.name for tensor in self.after.graph.initializer]


def _ops(graph) -> list[str]:
    found = []
    for node in graph.nodes:
        found.append(node.op)
        for _, body in bodies_of(node):
            found += _ops(body)
    return found


def parse(text: str, header: str = HEADER) -> onnx.ModelProto:
    """Read a graph, or a whole model, in ONNX text."""
    model = onnx.parser.parse_model(text if text.lstrip().startswith("<") else f"{header}\n{text}")
    onnx.checker.check_model(model)
    return model


def evaluator(model: onnx.ModelProto):
    """Return a function that runs single nodes in onnxruntime."""

    def evaluate(node, arrays):
        given = iter(f"in{i}" for i in range(len(arrays)))
        read = [next(given) if value.name else "" for value in node.inputs]
        made = [f"out{i}" if value.name else "" for i, value in enumerate(node.outputs)]
        attributes = {
            name: numpy_helper.from_array(np.array(held.values)) if hasattr(held, "values") else held
            for name, held in node.attrs.items()
        }
        one = helper.make_node(node.op, read, made, domain=node.domain or "", **attributes)
        inputs = [
            helper.make_tensor_value_info(f"in{i}", helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for i, array in enumerate(arrays)
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in made if name]
        graph = helper.make_graph([one], "one", inputs, outputs)
        proto = helper.make_model(graph, opset_imports=model.opset_import, ir_version=9)
        feeds = {f"in{i}": array for i, array in enumerate(arrays)}
        return session(proto).run(None, feeds)

    return evaluate


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Load a model as it is, without the optimizations of the runtime."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_mem_reuse = False  # symbols of exported bodies may contradict each other
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def apply(one: Pass, graph: SNNGraph, evaluate=None) -> tuple[Outcome, list[Remark]]:
    """Run a pass in a context of its own."""
    context = PassContext(AnalysisManager(graph.module), pass_name=one.name, evaluate_node=evaluate)
    outcome = one.run(graph, context)
    verify_structure(graph.module)
    return outcome, context.remarks


def check(
    one: Pass,
    text: str | onnx.ModelProto,
    *,
    sizes: Mapping[str, int] | None = None,
    feeds: Sequence[Mapping[str, np.ndarray]] | None = None,
    evaluate: bool = True,
    execute: bool = True,
) -> Run:
    """Run a pass on a model and check its promises.

    `sizes` gives the sizes of symbolic dimensions (3 where it does not), `feeds` replaces the generated
    inputs; `execute` is off for models that onnxruntime cannot load.
    """
    model = parse(text) if isinstance(text, str) else text
    assert one.claim is Exactness.BITWISE
    graph = SNNGraph(module=Module.load(model))  # not admitted: passes look after themselves
    before = graph.to_onnx()
    run_node = evaluator(model) if evaluate else None
    outcome, remarks = apply(one, graph, run_node)
    run = Run(graph.module, outcome, remarks, before)
    assert interface(run.after) == interface(before)
    assert (run.after == before) == (outcome.changes == 0)
    assert sum(remark.kind is RemarkKind.APPLIED for remark in remarks) <= outcome.changes
    again, _ = apply(one, graph, run_node)
    assert again.changes == 0
    assert graph.to_onnx().SerializeToString(deterministic=True) == run.after.SerializeToString(deterministic=True)
    if execute:
        onnx.checker.check_model(run.after, full_check=True)
        assert_same_results(model, run.after, inputs_for(model, sizes or {}) if feeds is None else feeds)
    return run


def interface(model: onnx.ModelProto) -> list[bytes]:
    """Return inputs and outputs as they are in the file."""
    values = (*model.graph.input, *model.graph.output)
    return [value.SerializeToString(deterministic=True) for value in values]


def inputs_for(model: onnx.ModelProto, sizes: Mapping[str, int]) -> list[dict[str, np.ndarray]]:
    """Return ordinary and special values for the inputs of a model."""
    generator = np.random.default_rng(7)
    stored = {tensor.name for tensor in model.graph.initializer}
    ordinary: dict[str, np.ndarray] = {}
    special: dict[str, np.ndarray] = {}
    for value in model.graph.input:
        if value.name in stored:
            continue
        tensor = value.type.tensor_type
        shape = [
            dim.dim_value if dim.HasField("dim_value") else sizes.get(dim.dim_param, 3) for dim in tensor.shape.dim
        ]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        count = int(np.prod(shape))
        if tensor.elem_type == TensorProto.BOOL:
            ordinary[value.name] = special[value.name] = generator.integers(0, 2, shape).astype(dtype)
        elif dtype.kind in "iu":
            ordinary[value.name] = special[value.name] = generator.integers(0, 3, shape).astype(dtype)
        else:
            ordinary[value.name] = generator.normal(0, 1, shape).astype(dtype)
            with np.errstate(over="ignore"):
                special[value.name] = np.resize(np.array(SPECIAL), count).reshape(shape).astype(dtype)
    return [ordinary, special]


def assert_same_results(before: onnx.ModelProto, after: onnx.ModelProto, feeds: Sequence[Mapping[str, np.ndarray]]):
    """Run both models and compare every byte of every output."""
    first, second = session(before), session(after)
    assert feeds
    for feed in feeds:
        for old, new in zip(first.run(None, feed), second.run(None, feed), strict=True):
            assert (old.dtype, old.shape) == (new.dtype, new.shape)
            assert old.tobytes() == new.tobytes()
