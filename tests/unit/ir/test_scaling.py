"""Cost grows with the number of nodes, not with its square, and nothing recurses over nodes.

Time limits are several times what a slow machine needs; a quadratic step exceeds them by
orders of magnitude.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from snn_optimizer.ir import GraphIndex, Module, Rewriter, Use, remove_dead, verify_structure


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    started = time.process_time()
    yield
    assert time.process_time() - started < seconds


def chain(count: int, *, shared: bool = False) -> ModelProto:
    """x -> Neg -> Neg -> ... -> y, or Add of one shared weight."""
    model = ModelProto(ir_version=10)
    model.opset_import.add(domain="", version=18)
    graph = model.graph
    graph.name = "chain"
    graph.input.append(helper.make_tensor_value_info("v0", TensorProto.FLOAT, [1]))
    graph.output.append(helper.make_tensor_value_info(f"v{count}", TensorProto.FLOAT, [1]))
    if shared:
        graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "w"))
    for number in range(count):
        node = graph.node.add(op_type="Add" if shared else "Neg", name=f"n{number}")
        node.input.extend([f"v{number}", "w"] if shared else [f"v{number}"])
        node.output.append(f"v{number + 1}")
    return model


@pytest.mark.slow
def test_hundred_thousand_nodes(tmp_path: Path) -> None:
    path = tmp_path / "in.onnx"
    path.write_bytes(chain(100_000).SerializeToString())
    with at_most(40):
        module = Module.load(path)
        verify_structure(module)
        GraphIndex(module)
        rewriter = Rewriter(module)
        nodes = list(module.graph.nodes)
        for node in nodes[10:50_000:2]:
            rewriter.replace_uses(node.outputs[0], node.inputs[0])
            rewriter.erase(node)
        for node in nodes[50_001:60_000:2]:
            between = rewriter.value("between", None, None)
            rewriter.add(module.graph, "Abs", [node.inputs[0]], [between])
            rewriter.set_input(node, 0, between)
        rewriter.finish()
        verify_structure(module)
        module.save(tmp_path / "out.onnx")
    assert module.count_nodes() == 100_000 - 24_995 + 5_000
    assert len(onnx.load(tmp_path / "out.onnx").graph.node) == module.count_nodes()


def test_nodes_in_reverse_order() -> None:
    model = chain(10_000)
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    with at_most(10):
        module = Module.load(model)
    assert [node.name for node in module.graph.nodes[:3]] == ["n0", "n1", "n2"]


def _one_by_one(module: Module, rewriter: Rewriter) -> None:
    zero = rewriter.constant("zero", np.zeros(1, np.float32))
    for node in module.graph.nodes:
        rewriter.set_input(node, 1, zero)


def _backwards(module: Module, rewriter: Rewriter) -> None:
    zero = rewriter.constant("zero", np.zeros(1, np.float32))
    for node in reversed(module.graph.nodes):
        rewriter.set_input(node, 1, zero)


def _all_at_once(module: Module, rewriter: Rewriter) -> None:
    weight = module.graph.nodes[0].inputs[1]
    rewriter.replace_uses(weight, rewriter.constant("zero", np.zeros(1, np.float32)))


def _own_copies(module: Module, rewriter: Rewriter) -> None:
    for node in module.graph.nodes[::2]:
        rewriter.edit_constant([Use(node, 1)], np.zeros(1, np.float32))


def _dead_end(module: Module, rewriter: Rewriter) -> None:
    last = module.graph.nodes[-1]
    rewriter.set_input(last, 0, module.graph.inputs[0])


def _erased(module: Module, rewriter: Rewriter) -> None:
    nodes = module.graph.nodes
    rewriter.set_input(nodes[-1], 0, module.graph.inputs[0])
    rewriter.erase(nodes[:-1])


@pytest.mark.parametrize("edit", [_one_by_one, _backwards, _all_at_once, _own_copies, _dead_end, _erased])
def test_edits_around_a_constant_with_many_readers(edit: Callable[[Module, Rewriter], None]) -> None:
    module = Module.load(chain(8_000, shared=True))
    with at_most(10):
        rewriter = Rewriter(module)
        edit(module, rewriter)
        rewriter.finish()
        verify_structure(module)


def test_removal_of_many_dead_readers() -> None:
    model = chain(16_000, shared=True)
    for number in range(0, 16_000, 2):
        model.graph.node.add(op_type="Mul", input=[f"v{number}", "w"], output=[f"dead{number}"])
    module = Module.load(model)
    with at_most(10):
        assert remove_dead(module) == 8_000
        verify_structure(module)


def test_many_bodies() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 18]>
    loops (float[T, 2] x) => (float[2] v) <float[2] w = {1.0, 2.0}> {
        v, y = Scan <num_scan_inputs = 1, body = step (float[2] v0, float[2] s) => (float[2] next, float[2] out) {
            next = Mul (v0, w)
            out = Add (s, next)
        }> (w, x)
    }
    """
    model = parser.parse_model(text)
    scan = model.graph.node[0]
    for number in range(1_000):
        more = model.graph.node.add()
        more.CopyFrom(scan)
        more.output[:] = [f"v{number}", f"y{number}"]
        more.input[0] = f"v{number - 1}" if number else "v"
    with at_most(15):
        module = Module.load(model)
        verify_structure(module)
        index = GraphIndex(module)
        weight = module.sidecar.record(module.graph).initializers[0]
        assert len(index.consumers(weight)) == 1_002
        rewriter = Rewriter(module)
        rewriter.edit_constant(index.consumers(weight), np.float32([3, 4]))
        rewriter.finish()
        verify_structure(module)
        assert len(module.to_proto().graph.initializer) == 1
        assert remove_dead(module) == 1_000
