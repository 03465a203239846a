"""Which values are proved to be zeros and ones."""

from __future__ import annotations

import onnx
import pytest

from snn_optimizer.analyses import AnalysisManager
from snn_optimizer.analyses.binary_values import BinaryValues
from snn_optimizer.ir import Module
from snn_optimizer.ops import NeuronVariant
from tests.support.models import mlp, recurrent

OPENING = '<ir_version: 9, opset_import: ["": 18]> '


def proved(model: onnx.ModelProto) -> set[str]:
    module = Module.load(model)
    found = BinaryValues.compute(module, AnalysisManager(module))
    values = [
        value for scope in module.scopes() for node in scope.graph.nodes for value in (*node.inputs, *node.outputs)
    ]
    return {value.name for value in values if found.holds(value)}


def test_spikes_and_what_moves_them() -> None:
    found = proved(mlp((8, 16, 4), steps=5))
    assert {"lif1.s", "fc2.rows", "spikes"} <= found
    assert not found & {"x", "fc1.rows", "fc1.out", "lif1.x", "fc2.out", "fc1.weight", "lif1.v"}


@pytest.mark.parametrize("variant", [NeuronVariant("LIF", max_spikes=0), NeuronVariant("LI")])
def test_more_than_one_spike_or_none_is_not_binary(variant: NeuronVariant) -> None:
    assert "spikes" not in proved(mlp((8, 16, 4), readout=variant))


def test_a_loop_that_reads_its_own_spikes() -> None:
    found = proved(recurrent())
    assert {"s", "s_next", "spikes"} <= found
    assert "v" not in found  # starts with zeros, like the spikes, and is no spike after a step


@pytest.mark.parametrize(
    ("nodes", "holds"),
    [
        ("c = Greater(x, x) y = Cast<to: int = 1>(c)", True),
        ("c = Greater(x, x) d = Not(c) e = And(c, d) y = Cast<to: int = 1>(e)", True),
        ("c = Greater(x, x) a = Cast<to: int = 1>(c) y = Mul(a, a)", True),
        ("c = Greater(x, x) a = Cast<to: int = 1>(c) y = Concat<axis: int = 0>(a, a)", True),
        ("c = Greater(x, x) a = Cast<to: int = 1>(c) y = Where(c, a, a)", True),
        ("c = Greater(x, x) a = Cast<to: int = 1>(c) y = Max(a, a)", True),
        ("c = Greater(x, x) a = Cast<to: int = 1>(c) y = Add(a, a)", False),
        ("c = Greater(x, x) a = Cast<to: int = 1>(c) y = Sub(a, a)", False),
        ("c = Greater(x, x) a = Cast<to: int = 1>(c) y = Mul(a, x)", False),
        ("c = Greater(x, x) a = Cast<to: int = 1>(c) y = Where(c, a, x)", False),
        ("c = Greater(x, x) a = Cast<to: int = 1>(c) y = Dropout(a)", False),
        ("n = Shape(x) y = ConstantOfShape(n)", True),
        ("n = Shape(x) y = ConstantOfShape<value: tensor = float[1] {0.5}>(n)", False),
        ("y = Identity(one)", True),
        ("y = Identity(half)", False),
        ("y = Identity(x)", False),
    ],
)
def test_operators(nodes: str, *, holds: bool) -> None:
    constants = "<float[2] one = {0, 1}, float[2] half = {0, 0.5}>"
    model = onnx.parser.parse_model(f"{OPENING} g (float[2] x) => (float[n] y) {constants} {{ {nodes} }}")
    assert ("y" in proved(model)) == holds


def loop(step: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f"""{OPENING} g (float[3, 2] x) => (float[2] af, float[2] bf, float[3, 2] ys) <float[2] zero = {{0, 0}}> {{
            af, bf, ys = Scan<num_scan_inputs: int = 1,
                body: graph = step (float[2] a, float[2] b, float[2] xt) => (float[2] a1, float[2] b1, float[2] y)
                {{ {step} }}>(zero, zero, x)
        }}"""
    )


def test_what_a_loop_carries_is_binary_as_long_as_all_of_it_is() -> None:
    fire = "c = Greater(xt, a) f = Cast<to: int = 1>(c)"
    swapped = proved(loop(f"{fire} a1 = Identity(b) b1 = Identity(f) y = Identity(a)"))
    assert {"a", "b", "af", "bf", "ys"} <= swapped
    # b is no spike after one step, a not after two: the second follows from the first
    leaky = proved(loop(f"{fire} a1 = Identity(b) b1 = Identity(xt) y = Identity(f)"))
    assert not leaky & {"a", "b", "af", "bf", "a1", "b1"}
    assert {"f", "y", "ys"} <= leaky
