"""Products of spikes with weights that read only the weights of neurons that fired.

``x W`` with ``x`` of zeros and ones is the sum of the rows of ``W`` at which ``x`` is one. onnxruntime has no
operator for that sum; ``NonZero``, ``Gather`` and a product with the few gathered rows come closest. That form
takes one vector. Several go through a ``Scan``, one by one; or the rows of ``W`` are gathered once for all of them,
at the neurons that fired in any, which pays where the same neurons fire again and again. No element is left out but
those that are zero, so every value of ``x`` gives the product's value as long as the weights are finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from snn_optimizer.ir.rewriter import Rewriter
from snn_optimizer.ir.types import Graph, Value

__all__ = ["MINIMUM_OPSET", "GatheredProducts"]

MINIMUM_OPSET: Final = 13  # Clip of whole numbers, If and Scan as they are written here
SHAPE_OF_SOME_AXES: Final = 15
REDUCTION_AXES_AS_INPUT: Final = 18


@dataclass(slots=True)
class GatheredProducts:
    """Writes products with float32 weights into a module.

    Attributes
    ----------
    rewriter : Rewriter
    """

    rewriter: Rewriter
    _vectors: dict[tuple[int, ...], Value] = field(default_factory=dict)

    def single(self, graph: Graph, source: Value, weights: Value, result: Value) -> None:
        """Let ``result`` be ``source @ weights`` where all axes of ``source`` but the last have size one.

        Parameters
        ----------
        graph : Graph
        source : Value, shape (1, ..., 1, inputs) or (inputs,)
        weights : Value, shape (inputs, outputs)
        result : Value, shape (1, ..., 1, outputs) or (outputs,)
        """
        name, new = result.name, self.rewriter.value
        flat = new(f"{name}_flat", np.float32, None)
        self.rewriter.add(graph, "Reshape", [source, self._vector(-1)], [flat])
        self._gather(graph, flat, source, weights, result)

    def several(
        self, graph: Graph, source: Value, rank: int, weights: Value, result: Value, sizes: Sequence[int]
    ) -> None:
        """Let ``result`` be ``source @ weights``, vector by vector; there must be at least one.

        Parameters
        ----------
        graph : Graph
        source : Value, shape (..., inputs)
        rank : int
            Axes of ``source``, at least two.
        weights : Value, shape (inputs, outputs)
        result : Value, shape (..., outputs)
        sizes : sequence of int
            Inputs and outputs.
        """
        name, new, add = result.name, self.rewriter.value, self.rewriter.add
        inputs, outputs = sizes
        row = new(f"{name}_row", np.float32, (inputs,))
        one = new(f"{name}_one", np.float32, (outputs,))
        body = self.rewriter.body(f"{name}_rows", [row], [one])
        self._gather(body, row, row, weights, one)
        attributes = {"body": body, "num_scan_inputs": 1}
        if rank == 2:
            add(graph, "Scan", [source], [result], attributes, name_hint=f"{name}.rows")
            return
        stacked, all_rows = new(f"{name}_stacked", np.float32, None), new(f"{name}_all", np.float32, None)
        shape, leading, target = (new(f"{name}_{what}", np.int64, None) for what in ("shape", "leading", "target"))
        add(graph, "Reshape", [source, self._vector(-1, inputs)], [stacked])
        add(graph, "Scan", [stacked], [all_rows], attributes, name_hint=f"{name}.rows")
        add(graph, "Shape", [source], [shape])
        add(graph, "Slice", [shape, self._vector(0), self._vector(-1)], [leading])
        add(graph, "Concat", [leading, self._vector(outputs)], [target], {"axis": 0})
        add(graph, "Reshape", [all_rows, target], [result])

    def pooled(self, graph: Graph, source: Value, rank: int, weights: Value, result: Value) -> None:
        """Let ``result`` be ``source @ weights``, gathered once for all vectors; there must be at least one.

        Parameters
        ----------
        graph : Graph
        source : Value, shape (..., inputs), values not negative
        rank : int
            Axes of ``source``, at least two.
        weights : Value, shape (inputs, outputs)
        result : Value, shape (..., outputs)
        """
        flat = self.rewriter.value(f"{result.name}_any", np.float32, None)
        axes = tuple(range(rank - 1))
        if self.rewriter.module.opset() < REDUCTION_AXES_AS_INPUT:
            self.rewriter.add(graph, "ReduceMax", [source], [flat], {"axes": list(axes), "keepdims": 0})
        else:
            self.rewriter.add(graph, "ReduceMax", [source, self._vector(*axes)], [flat], {"keepdims": 0})
        self._gather(graph, flat, source, weights, result)

    def at_most(self, graph: Graph, source: Value, rank: int, inputs: int, rows: int, name: str) -> Value:
        """Return whether ``source`` holds between one and ``rows`` vectors of length ``inputs``."""
        new, add = self.rewriter.value, self.rewriter.add
        number, condition = new(f"{name}_number", np.int64, None), new(f"{name}_few", np.bool_, None)
        if rank == 2 and self.rewriter.module.opset() >= SHAPE_OF_SOME_AXES:  # every operator here costs all batches
            add(graph, "Shape", [source], [number], {"start": 0, "end": 1})
        else:
            size = new(f"{name}_size", np.int64, ())
            add(graph, "Size", [source], [size])
            add(graph, "Div", [size, self._vector(inputs)], [number])
        wanted = self._vector(1)
        if rows > 1:
            wanted = new(f"{name}_clipped", np.int64, None)
            least, most = (
                self.rewriter.constant(f"{name}_{what}", np.array(n, np.int64))
                for what, n in (("least", 1), ("most", rows))
            )
            add(graph, "Clip", [number, least, most], [wanted])
        add(graph, "Equal", [number, wanted], [condition])
        return condition

    def _gather(self, graph: Graph, flat: Value, source: Value, weights: Value, result: Value) -> None:
        name, new, add = result.name, self.rewriter.value, self.rewriter.add
        where, fired = (new(f"{name}_{what}", np.int64, None) for what in ("where", "fired"))
        rows, values = (new(f"{name}_{what}", np.float32, None) for what in ("weights", "values"))
        add(graph, "NonZero", [flat], [where])
        add(graph, "Reshape", [where, self._vector(-1)], [fired])
        add(graph, "Gather", [weights, fired], [rows], {"axis": 0})
        add(graph, "Gather", [source, fired], [values], {"axis": -1})
        add(graph, "MatMul", [values, rows], [result])

    def _vector(self, *numbers: int) -> Value:
        if numbers not in self._vectors:
            self._vectors[numbers] = self.rewriter.constant("sizes", np.array(numbers, np.int64))
        return self._vectors[numbers]
