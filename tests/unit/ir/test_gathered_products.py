"""Gathered products equal dense ones: every form, rank, opset and number of spikes, none and all included."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from snn_optimizer.execution import Session
from snn_optimizer.ir import Module, Rewriter
from snn_optimizer.ir.gathered_products import GatheredProducts

INPUTS, OUTPUTS = 12, 5
WEIGHTS = np.random.default_rng(0).standard_normal((INPUTS, OUTPUTS)).astype(np.float32)


def model(form: str, rank: int, opset: int) -> onnx.ModelProto:
    leading = [f"d{axis}" for axis in range(rank - 1)]
    module = Module.empty(
        inputs=[("x", np.float32, [*leading, INPUTS])], outputs=[("y", np.float32, [*leading, OUTPUTS])], opset=opset
    )
    rewriter = Rewriter(module)
    products = GatheredProducts(rewriter)
    source, target = module.graph.inputs[0], module.graph.outputs[0]
    weights = rewriter.constant("w", WEIGHTS)
    if form == "single":
        products.single(module.graph, source, weights, target)
    elif form == "several":
        products.several(module.graph, source, rank, weights, target, (INPUTS, OUTPUTS))
    else:
        products.pooled(module.graph, source, rank, weights, target)
    rewriter.finish()
    proto = module.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    return proto


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize(
    ("form", "leading"),
    [
        ("single", ()), ("single", (1,)), ("single", (1, 1)),
        ("several", (1,)), ("several", (7,)), ("several", (3, 4)), ("several", (2, 1, 3)),
        ("pooled", (1,)), ("pooled", (7,)), ("pooled", (3, 4)), ("pooled", (2, 1, 3)),
    ],
)  # fmt: skip
def test_a_gathered_product_is_the_product(form: str, leading: tuple[int, ...], opset: int) -> None:
    session = Session(model(form, len(leading) + 1, opset))
    generator = np.random.default_rng(1)
    for share in (0.0, 0.2, 1.0):
        x = (generator.random((*leading, INPUTS)) < share).astype(np.float32)
        found = session.run({"x": x})["y"]
        assert found.shape == (*leading, OUTPUTS)
        np.testing.assert_allclose(found, x @ WEIGHTS, rtol=1e-5, atol=1e-6)
        if share == 0.0:
            assert not found.any()


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("limit", [1, 6])
@pytest.mark.parametrize("leading", [(0,), (1,), (2,), (6,), (7,), (1, 1), (2, 3), (7, 1), (0, 4)])
def test_a_choice_by_the_number_of_vectors(leading: tuple[int, ...], limit: int, opset: int) -> None:
    shape = [*(f"d{axis}" for axis in range(len(leading))), INPUTS]
    module = Module.empty(inputs=[("x", np.float32, shape)], outputs=[("y", np.bool_, [1])], opset=opset)
    rewriter = Rewriter(module)
    products = GatheredProducts(rewriter)
    few = products.at_most(module.graph, module.graph.inputs[0], len(shape), INPUTS, limit, "x")
    rewriter.add(module.graph, "Identity", [few], [module.graph.outputs[0]])
    rewriter.finish()
    (found,) = Session(module.to_proto()).run({"x": np.zeros((*leading, INPUTS), np.float32)})["y"]
    assert found == (1 <= np.prod(leading) <= limit)
