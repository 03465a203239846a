"""Run one operator on constants, for constant folding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from snn_optimizer.execution.ort import Session
from snn_optimizer.ir import Module, Node, Rewriter, SNNGraph

__all__ = ["node_evaluator"]

Array = npt.NDArray[Any]


def node_evaluator(graph: SNNGraph) -> Callable[[Node, list[Array]], list[Array]]:
    """Return a function that runs single nodes as onnxruntime would, at the model's opset.

    The function raises ExecutionError when the runtime cannot run the operator.
    """
    opset = graph.module.opset()

    def evaluate(node: Node, arrays: list[Array]) -> list[Array]:
        names = [value.name for value in node.outputs if value.name]
        outputs = [(f"out{i}", value.dtype, None) for i, value in enumerate(node.outputs) if value.name]
        inputs = [(f"in{i}", array.dtype, list(array.shape)) for i, array in enumerate(arrays)]
        module = Module.empty(inputs=inputs, outputs=outputs, opset=opset, name="fold")
        rewriter = Rewriter(module)
        given = iter(module.graph.inputs)
        made = iter(module.graph.outputs)
        rewriter.add(
            module.graph,
            node.op,
            [next(given) if value.name else None for value in node.inputs],
            [next(made) if value.name else None for value in node.outputs],
            dict(node.attrs),
        )
        rewriter.finish()
        feeds = {name: array for (name, _, _), array in zip(inputs, arrays, strict=True)}
        results = Session(module.to_proto()).run(feeds)
        return [results[f"out{i}"] for i, value in enumerate(node.outputs) if value.name][: len(names)]

    return evaluate
