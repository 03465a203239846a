"""How a layer whose weights are levels and scales is written with standard operators.

Levels of eight bits are an int8 tensor. Levels of four bits are stored two to a byte and looked up in a table of
256 pairs: the same on every opset, where int4 tensors need opset 21. What depends on constants only is
computed by runtimes once, when they load the model (measured on onnxruntime 1.32, in bodies of loops
too; ``DequantizeLinear`` it computes at every run). So two forms run as fast as what they stand for:

- float: levels to float, times scale, read by the node that was there;
- integer: ``MatMulInteger`` of spikes and levels, times scale, plus bias.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from snn_optimizer.analyses import Contraction, UnitGroups
from snn_optimizer.analyses.rows import contraction_matrix
from snn_optimizer.ir import Graph, Node, Rewriter, Use, Value, array_of, is_standard, shape_of_constant
from snn_optimizer.passes.weights.rounding import Levels

__all__ = ["Writer"]

_FLOAT, _UINT8, _INT32, _FLOAT16, _DOUBLE = 1, 2, 6, 10, 11  # element types
_NUMBERS: Final = {np.dtype(np.float16): _FLOAT16, np.dtype(np.float64): _DOUBLE}


def _stored(contraction: Contraction, matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array (postsynaptic, presynaptic x kernel) in the layout of the weight."""
    shape, order = _layout(contraction)
    return np.ascontiguousarray(np.transpose(matrix.reshape([shape[axis] for axis in order]), np.argsort(order)))


def _by_row(contraction: Contraction, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return one number per postsynaptic unit in a shape that broadcasts into the weight."""
    shape, _ = _layout(contraction)
    sizes = [len(values) if axis == contraction.axis_out else 1 for axis in range(len(shape))]
    return values.reshape(sizes[contraction.axis_out if contraction.axis_out == len(shape) - 1 else 0 :])


def _layout(contraction: Contraction) -> tuple[list[int], list[int]]:
    shape = [int(size) for size in shape_of_constant(contraction.node.inputs[contraction.weight_slot]) or ()]
    order = [contraction.axis_out, contraction.axis_in]
    return shape, order + [axis for axis in range(len(shape)) if axis not in order]


@dataclass
class Writer:
    """Writes layers of one module.

    Attributes
    ----------
    rewriter : Rewriter
    groups : UnitGroups
        Of the module before it is changed.
    bits : int
        4 or 8.
    """

    rewriter: Rewriter
    groups: UnitGroups
    bits: int
    _pairs: Value | None = field(init=False, default=None)

    def float_form(self, readers: list[Contraction], found: Levels) -> None:
        """Let the readers of one weight read levels times scales."""
        first = readers[0]
        weight = first.node.inputs[first.weight_slot]
        main, name, shape = self.rewriter.module.graph, weight.name, _layout(first)[0]
        dtype = contraction_matrix(first).dtype  # what a constant holds; its declaration may be missing
        levels = self._levels(name, _stored(first, found.levels))
        scale = self.rewriter.constant(f"{name}_scale", _by_row(first, found.scale))
        result = self.rewriter.value(f"{name}_{self.bits}_bits", dtype, shape)
        narrow = dtype != np.float32  # the product is made in float32, which every runtime has kernels for
        product = self.rewriter.value(f"{name}_product", np.float32, shape) if narrow else result
        whole = self.rewriter.value(f"{name}_whole", np.float32, shape)
        self.rewriter.add(main, "Cast", [levels], [whole], {"to": _FLOAT})
        self.rewriter.add(main, "Mul", [whole, scale], [product])
        if narrow:
            self.rewriter.add(main, "Cast", [product], [result], {"to": _NUMBERS[dtype]})
        for reader in readers:
            self.rewriter.set_input(reader.node, reader.weight_slot, result)

    def integer_form(self, readers: list[Contraction], found: Levels) -> int:
        """Let the readers of one weight sum levels in integers; return how many need no product behind the sum."""
        name = readers[0].node.name
        levels = self._levels(f"{name}.weight", np.ascontiguousarray(found.levels.T))
        absorbed = 0
        for reader in readers:
            absorbed += self._integer_sum(reader, levels, found.scale)
        return absorbed

    def _integer_sum(self, contraction: Contraction, levels: Value, scale: npt.NDArray[np.float32]) -> bool:
        rewriter, node, result = self.rewriter, contraction.node, contraction.result
        graph = self._graph_of(node)
        bias = node.inputs[2] if node.op == "Gemm" and len(node.inputs) > 2 and node.inputs[2].name else None
        source, name = node.inputs[0], node.name
        inverse = self._absorbed(contraction, bias, scale)
        if inverse is not None:
            bias = None if bias is None else rewriter.constant(f"{name}.bias", inverse)
        spikes = rewriter.value(f"{source.name}_u8", np.uint8, source.shape)
        sums = rewriter.value(f"{result.name}_sums", np.int32, result.shape)
        last = result if bias is None else rewriter.value(f"{result.name}_product", np.float32, result.shape)
        whole = last if inverse is not None else rewriter.value(f"{result.name}_whole", np.float32, result.shape)
        rewriter.retarget(node, "MatMulInteger", [spikes, levels], {})
        rewriter.set_ports(node, [spikes, levels], [sums])
        rewriter.add(graph, "Cast", [source], [spikes], {"to": _UINT8})
        rewriter.add(graph, "Cast", [sums], [whole], {"to": _FLOAT})
        if inverse is None:
            rewriter.add(graph, "Mul", [whole, rewriter.constant(f"{name}.scale", scale)], [last])
        if bias is not None:
            rewriter.add(graph, "Add", [last, bias], [result])
        return inverse is not None

    def _absorbed(
        self, contraction: Contraction, bias: Value | None, scale: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32] | None:
        """Let the gain of neurons that alone read the sums take the scale over; return the bias that is then due.

        ``gain (scale sum + b)`` is ``(gain scale) (sum + b / scale)``: membranes, thresholds and states stay.
        """
        reader = _only_reader(self.rewriter, contraction.result)
        population = next((p for p in self.groups.populations if reader is not None and p.node is reader), None)
        if population is None or population.spatial or population.variant.arithmetic != "decay":
            return None
        variant = population.variant
        if variant.operator == "CubaLIF" or variant.currents != 1:
            return None  # its gain acts behind the synaptic state
        if not np.array_equal(population.labels, contraction.labels_out):
            return None
        slot = variant.inputs.index("gain")
        gain = array_of(population.node.inputs[slot])
        added = np.zeros(1, np.float32) if bias is None else array_of(bias)
        if gain is None or added is None or gain.dtype != np.float32 or gain.size not in (1, len(scale)):
            return None
        if added.size not in (1, len(scale)) or (added.size > 1 and added.shape[-1] != added.size):
            return None  # not one number per neuron
        with np.errstate(over="ignore"):
            due = np.broadcast_to(added.reshape(-1), scale.shape) / scale
            taken = (gain.reshape(-1) * scale).astype(np.float32)
        if not np.isfinite(due).all() or not (np.abs(taken) >= np.finfo(np.float32).tiny).all():
            return None
        self.rewriter.edit_constant([Use(population.node, slot)], taken)
        return due.astype(np.float32)

    def _levels(self, name: str, levels: npt.NDArray[np.int8]) -> Value:
        """Return the value of levels of int8 in a layout."""
        if self.bits == 8:
            return self.rewriter.constant(f"{name}_int8", levels)
        main, flat = self.rewriter.module.graph, levels.reshape(-1)
        even = np.append(flat, np.zeros(flat.size % 2, np.int8)).view(np.uint8) & np.uint8(15)
        packed = self.rewriter.constant(f"{name}_int4", even[0::2] | even[1::2] << np.uint8(4))
        places = self.rewriter.value(f"{name}_bytes", np.int32, [len(even) // 2])
        pairs = self.rewriter.value(f"{name}_pairs", np.int8, [len(even) // 2, 2])
        result = self.rewriter.value(f"{name}_levels", np.int8, list(levels.shape))
        self.rewriter.add(main, "Cast", [packed], [places], {"to": _INT32})
        self.rewriter.add(main, "Gather", [self._table(), places], [pairs], {"axis": 0})
        if flat.size % 2:
            padded = self.rewriter.value(f"{name}_padded", np.int8, [len(even)])
            whole = self.rewriter.constant(f"{name}_all", np.array([-1], np.int64))
            self.rewriter.add(main, "Reshape", [pairs, whole], [padded])
            ends = [
                self.rewriter.constant(f"{name}_{end}", np.array([n], np.int64))
                for end, n in (("from", 0), ("to", flat.size))
            ]
            pairs = self.rewriter.value(f"{name}_flat", np.int8, [flat.size])
            self.rewriter.add(main, "Slice", [padded, *ends], [pairs])
        shape = self.rewriter.constant(f"{name}_shape", np.array(levels.shape, np.int64))
        self.rewriter.add(main, "Reshape", [pairs, shape], [result])
        return result

    def _table(self) -> Value:
        """Return the two levels that each byte holds, the first in its lower half."""
        if self._pairs is None:
            byte = np.arange(256)
            halves = np.stack([byte & 15, byte >> 4], axis=1)
            self._pairs = self.rewriter.constant(
                "int4_pairs", np.where(halves > 7, halves - 16, halves).astype(np.int8)
            )
        return self._pairs

    def _graph_of(self, node: Node) -> Graph:
        return next(s.graph for s in self.rewriter.module.scopes() if any(n is node for n in s.graph.nodes))


def _only_reader(rewriter: Rewriter, value: Value) -> Node | None:
    """Return the node that alone reads a value, as its first input and behind nothing but changes of shape."""
    outputs = {id(out) for scope in rewriter.module.scopes() for out in scope.graph.outputs}
    while id(value) not in outputs and len(value.outputs) == 1 and value.outputs[0].inputs[0] is value:
        reader = value.outputs[0]
        if not is_standard(reader, "Reshape", "Squeeze", "Unsqueeze", "Identity"):
            return reader
        value = reader.outputs[0]
    return None
