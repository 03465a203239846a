"""The verifier finds every broken invariant and names the place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from onnx import parser

from snn_optimizer.errors import IRVerificationError
from snn_optimizer.ir import Module, Rewriter, verify_structure

TEXT = """
<ir_version: 10, opset_import: ["" : 18, "my" : 1]>
net (float[T, 2] x) => (float[T, 2] y, float[2] last) <float[2] v0 = {0.0, 0.0}, float[2] beta = {0.5, 0.5}> {
    last, spikes = Scan <num_scan_inputs = 1, body = step (float[2] v, float[2] s) => (float[2] next, float[2] out) {
        decayed = Mul (v, beta)
        next = Add (decayed, s)
        out = Identity (next)
    }> (v0, x)
    h = my.Double (spikes)
    y = Neg (h)
}
<domain: "my", opset_import: ["" : 18]>
Double (a) => (b) { b = Add (a, a) }
"""


def build() -> Module:
    return Module.load(parser.parse_model(TEXT))


def _body(module: Module):
    return module.graph.nodes[0].attrs["body"]


def _wrong_order(module: Module) -> None:
    module.graph.nodes.reverse()


def _wrong_order_in_body(module: Module) -> None:
    _body(module).nodes.reverse()


def _unlinked_node(module: Module) -> None:
    del module.graph.nodes[1]


def _body_value_read_outside(module: Module) -> None:
    module.graph.nodes[2].inputs[0] = _body(module).nodes[0].outputs[0]


def _same_name_twice(module: Module) -> None:
    module.graph.nodes[1].outputs[0].name = "spikes"


def _name_of_an_input(module: Module) -> None:
    module.graph.nodes[1].outputs[0].name = "x"


def _output_without_producer(module: Module) -> None:
    module.graph.outputs[0] = gs.Variable("y")


def _input_without_name(module: Module) -> None:
    module.graph.inputs[0].name = ""


def _initializer_named_like_an_input(module: Module) -> None:
    module.sidecar.record(module.graph).initializers[0].name = "x"


def _produced_input(module: Module) -> None:
    module.graph.nodes[1].outputs[0] = module.graph.inputs[0]


def _two_producers(module: Module) -> None:
    module.graph.nodes[2].outputs[0] = module.graph.nodes[1].outputs[0]


def _node_twice(module: Module) -> None:
    module.graph.nodes.append(module.graph.nodes[2])


def _forgotten_reader(module: Module) -> None:
    list.clear(module.graph.nodes[1].outputs[0].outputs)


def _wrong_reader(module: Module) -> None:
    readers = module.graph.nodes[1].outputs[0].outputs
    list.__setitem__(readers, 0, module.graph.nodes[0])


def _forgotten_producer(module: Module) -> None:
    list.clear(module.graph.nodes[1].outputs[0].inputs)


def _captured_name_is_hidden(module: Module) -> None:
    _body(module).nodes[0].outputs[0].name = "beta"
    _body(module).nodes[2].inputs[0] = module.graph.nodes[0].attrs["body"].nodes[0].inputs[1]


def _function_is_gone(module: Module) -> None:
    module.functions.clear()


def _our_operator_without_function(module: Module) -> None:
    rewriter = Rewriter(module)
    rewriter.retarget(module.graph.nodes[2], ("ai.snn", "LIF__none_gt"), module.graph.nodes[2].inputs)
    rewriter.finish()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_wrong_order, r"main: input 'h' of node Neg that makes 'y' is not produced before it"),
        (_wrong_order_in_body, r"main/last\.body: .*'next'|main/.*body: input 'next'"),
        (_unlinked_node, "input 'h'"),
        (_body_value_read_outside, "input 'decayed'"),
        (_same_name_twice, "'spikes' .* has no name of its own"),
        (_name_of_an_input, "'x' of node Double .* has no name of its own"),
        (_output_without_producer, "main: output 'y' is not produced"),
        (_input_without_name, "input '' has no name"),
        (_initializer_named_like_an_input, "initializer 'x' has no name"),
        (_produced_input, "output 'x' of node Double"),
        (_two_producers, "output 'h' of node Neg"),
        (_node_twice, "in two places"),
        (_forgotten_reader, "'h' does not know its readers"),
        (_wrong_reader, "'h' does not know its readers"),
        (_forgotten_producer, "'h' does not know its producer"),
        (_captured_name_is_hidden, "input 'beta' of node Identity"),
        (_function_is_gone, "calls a function that is gone"),
        (_our_operator_without_function, "'LIF__none_gt', which has no function"),
    ],
)
def test_damage_is_found(damage: Callable[[Module], None], message: str) -> None:
    module = build()
    verify_structure(module)
    damage(module)
    with pytest.raises(IRVerificationError, match=message):
        verify_structure(module)


def test_operators_of_ours_that_never_had_a_function_are_accepted() -> None:
    model = parser.parse_model(TEXT.replace("my", "ai.snn"))
    del model.functions[:]
    verify_structure(Module.load(model))


def test_two_new_constants_of_one_name_are_found() -> None:
    module = build()
    for node in _body(module).nodes[:2]:
        node.inputs[1] = gs.Constant("twin", np.zeros(2, np.float32))
    with pytest.raises(IRVerificationError, match="'twin'"):
        verify_structure(module)


def test_new_constant_in_a_body_is_accepted() -> None:
    module = build()
    _body(module).nodes[0].inputs[1] = gs.Constant("fresh", np.zeros(2, np.float32))
    verify_structure(module)
