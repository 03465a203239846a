"""Symbols of the inputs that reshapes fold and unfold."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest

from snn_optimizer.ir import Shapes, SNNGraph


def shape_after(nodes: str, given: str) -> tuple[int | str | None, ...] | None:
    body = f"{nodes} z = Relu (r) y = ReduceSum <keepdims = 0> (z)"
    text = f'<ir_version: 10, opset_import: ["" : 18]> g (float[{given}] x) => (float y) {{ {body} }}'
    module = SNNGraph.from_onnx(onnx.parser.parse_model(text)).module
    value = next(value for node in module.graph.nodes for value in node.outputs if value.name == "z")
    return Shapes.compute(module, declared=False).shape(value)


def target(name: str, *sizes: int) -> str:
    return f"{name} = Constant <value = int64[{len(sizes)}] {{{', '.join(map(str, sizes))}}}> ()"


FOLD = target("s", -1, 2, 4) + " f = Reshape (x, s) c = Relu (f)"


@pytest.mark.parametrize(
    ("given", "nodes", "expected"),
    [
        ("5, batch, 2, 4", target("s", 5, -1, 8) + " r = Reshape (x, s)", (5, "batch", 8)),
        ("batch, 2, 4", target("s", -1, 8) + " r = Reshape <allowzero = 1> (x, s)", ("batch", 8)),
        ("5, batch, 2, 4", target("s", 0, -1, 8) + " r = Reshape (x, s)", (5, "batch", 8)),
        ("5, batch, 2, 4", f"{FOLD} {target('u', 5, -1, 8)} r = Reshape (c, u)", (5, "batch", 8)),
        ("batch, 5, 2, 4", f"{FOLD} {target('u', -1, 5, 2, 4)} r = Reshape (c, u)", ("batch", 5, 2, 4)),
        ("5, batch, 2, 4", f"{FOLD} r = Identity (c)", ("5*batch", 2, 4)),
        ("time, batch, 2, 4", f"{FOLD} r = Identity (c)", ("batch*time", 2, 4)),
    ],
)
def test_a_symbol_survives(given: str, nodes: str, expected: tuple[int | str, ...]) -> None:
    assert shape_after(nodes, given) == expected


def test_a_size_that_does_not_divide_stays_unknown() -> None:
    found = shape_after(target("s", -1, 3) + " r = Reshape (x, s)", "batch, 2, 4")
    assert found is not None
    assert found[0] != "batch"
