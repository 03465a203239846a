"""Where time is in a network over all steps: the axis of an input, and the number of steps."""

from __future__ import annotations

from snn_optimizer import ops
from snn_optimizer.ir import Module, Node, Shapes, Value, array_of, is_standard
from snn_optimizer.raising.batching import BROADCASTING

__all__ = ["joins_time", "steps_of", "time_axis"]


def time_axis(value: Value, shapes: Shapes) -> int | None:
    """Return the axis of an input that is joined with the batch, or walked by a loop."""
    for node in value.outputs:
        if is_standard(node, "Transpose") and list(node.attrs.get("perm", ()))[:2] == [1, 0]:
            return 1
        if is_standard(node, "Reshape") and joins_time(node, shapes):
            return 0
        if ops.is_neuron(node.domain or "", node.op):
            if ops.NeuronVariant.parse(node.op, node.attrs).form == "sequence":
                return 0
            continue
        if is_standard(node, "MatMul", *BROADCASTING) and (shapes.rank(node.outputs[0]) or 0) > 2:
            axis = time_axis(node.outputs[0], shapes)
            if axis is not None:
                return axis
        if is_standard(node, "Scan"):
            carried = len(node.inputs) - int(node.attrs["num_scan_inputs"])
            for slot in range(carried, len(node.inputs)):
                if node.inputs[slot] is value:
                    return int(node.attrs.get("scan_input_axes", [0] * len(node.inputs))[slot - carried])
    return None


def joins_time(node: Node, shapes: Shapes) -> bool:
    """Tell whether a Reshape puts time and batch into one axis."""
    before, after = shapes.shape(node.inputs[0]), shapes.shape(node.outputs[0])
    target = array_of(node.inputs[1])
    if before is None or target is None or len(before) != target.size + 1 or int(target[0]) != -1:
        return False
    return tuple(before[2:]) == tuple(int(n) for n in target[1:]) and (after is None or len(after) == target.size)


def steps_of(module: Module, shapes: Shapes | None = None) -> int | None:
    """Return the number of steps of the network; 0 when a caller decides, None when nothing runs over steps."""
    for node in module.graph.nodes:
        if ops.is_neuron(node.domain or "", node.op):
            variant = ops.NeuronVariant.parse(node.op, node.attrs)
            if variant.form == "flat":
                count = array_of(node.inputs[-1])
                return 0 if count is None else int(count.reshape(-1)[0])
            if variant.form == "sequence":
                whole = (shapes or Shapes.compute(module)).shape(node.inputs[0])
                return int(whole[0]) if whole and isinstance(whole[0], int) else 0
        elif is_standard(node, "Scan"):
            return 0
    return None
