"""What may befall a model after it was made: strange values, other spellings, more ends, another element type.

Every twist leaves a valid model; whether it still loads in the runtime is found out by loading it. A twist that
changes numbers such that sums are no longer exact is not `harmless`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.random_networks import SeededChoices

Twist = Callable[[onnx.ModelProto, SeededChoices], bool]
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)


def floats(graph: onnx.GraphProto, *, rank: int = 0) -> list[onnx.TensorProto]:
    """The stored floats of a graph of at least a rank."""
    return [
        each for each in graph.initializer if each.data_type in FLOATS and len(each.dims) >= rank and all(each.dims)
    ]


def put(tensor: onnx.TensorProto, array: np.ndarray) -> None:
    """Store other values of the same type."""
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        stored = numpy_helper.from_array(np.ascontiguousarray(array.astype(dtype)).reshape(array.shape), tensor.name)
    tensor.CopyFrom(stored)


def odd_values(model: onnx.ModelProto, choices: SeededChoices) -> bool:
    """NaN, infinite, huge and denormal weights."""
    pick = choices.pick
    tensors = floats(model.graph)
    if not tensors:
        return False
    for _ in range(pick((1, 1, 2))):
        tensor = pick(tensors)
        array = np.array(numpy_helper.to_array(tensor))
        value = pick((np.nan, np.inf, -np.inf, 1e30, -3e38, 1e-40, 1e-45, -0.0, 65504.0, 1e-7))
        place = tuple(int(choices.generator.integers(size)) for size in array.shape)
        with np.errstate(over="ignore", under="ignore"):
            array[place] = value
        put(tensor, array)
    return True


def odd_units(model: onnx.ModelProto, choices: SeededChoices) -> bool:
    """Rows or columns of a weight that are zero, equal, opposite, multiples, or large."""
    tensors = floats(model.graph, rank=2)
    if not tensors:
        return False
    tensor = choices.pick(tensors)
    array = np.array(numpy_helper.to_array(tensor))
    rows = array if choices.pick((True, False)) else np.moveaxis(array, 1, 0)
    first, second = (int(choices.generator.integers(len(rows))) for _ in range(2))
    match choices.pick(("zero", "all", "twin", "double", "opposite", "large", "one")):
        case "zero":
            rows[first] = 0
        case "all":
            rows[...] = 0
        case "twin":
            rows[first] = rows[second]
        case "double":
            rows[first] = 2 * rows[second]
        case "opposite":
            rows[first] = -rows[second]
        case "large":
            rows[first] = 64
        case "one":
            rows[...] = 1
    put(tensor, array)
    return True


def ties(model: onnx.ModelProto, choices: SeededChoices) -> bool:
    """Weights on a coarse grid, so that sums land on thresholds."""
    for tensor in floats(model.graph, rank=2):
        array = np.array(numpy_helper.to_array(tensor))
        put(tensor, np.round(array * 2) / 2)
    return bool(floats(model.graph, rank=2))


def expose(model: onnx.ModelProto, choices: SeededChoices) -> bool:
    """A value inside becomes an output too."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    except (onnx.shape_inference.InferenceError, ValueError):
        return False
    made = {name for node in model.graph.node for name in node.output}
    taken = {each.name for each in model.graph.output}
    known = [each for each in inferred if each.name in made - taken and each.type.HasField("tensor_type")]
    known = [each for each in known if each.type.tensor_type.elem_type and each.type.tensor_type.HasField("shape")]
    if not known:
        return False
    model.graph.output.append(choices.pick(known))
    return True


def alias(model: onnx.ModelProto, choices: SeededChoices) -> bool:
    """An output under a second name."""
    output = choices.pick(list(model.graph.output))
    second = onnx.ValueInfoProto()
    second.CopyFrom(output)
    second.name = f"{output.name}.again"
    model.graph.output.append(second)
    model.graph.node.append(helper.make_node("Identity", [output.name], [second.name], second.name))
    return True


def constants_as_nodes(model: onnx.ModelProto, choices: SeededChoices) -> bool:
    """Initializers as Constant nodes."""
    chosen = [each for each in model.graph.initializer if choices.pick((True, False))]
    for tensor in chosen:
        node = helper.make_node("Constant", [], [tensor.name], f"{tensor.name}.constant", value=tensor)
        model.graph.initializer.remove(tensor)
        model.graph.node.insert(0, node)
    return bool(chosen)


def default_input(model: onnx.ModelProto, choices: SeededChoices) -> bool:
    """An initializer that is an input as well: a default the caller may replace."""
    if not model.graph.initializer:
        return False
    tensor = choices.pick(list(model.graph.initializer))
    model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return True


def unread(model: onnx.ModelProto, choices: SeededChoices) -> bool:
    """An initializer and a node that nothing reads, and an input."""
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "unread.constant"))
    model.graph.node.append(helper.make_node("Neg", ["unread.constant"], ["unread.value"], "unread"))
    if choices.pick((True, False)):
        model.graph.input.append(helper.make_tensor_value_info("unread.input", TensorProto.FLOAT, [_batch(model), 2]))
    return True


def _batch(model: onnx.ModelProto) -> str | int:
    names = {axis.dim_param for value in model.graph.input for axis in value.type.tensor_type.shape.dim}
    return "batch" if "batch" in names else 1


def nameless(model: onnx.ModelProto, choices: SeededChoices) -> bool:
    """Nodes without names."""
    for node in model.graph.node:
        node.name = ""
    return True


def reorder(model: onnx.ModelProto, choices: SeededChoices) -> bool:
    """Another order in which every node still follows what it reads."""
    waiting = list(model.graph.node)
    made = {name for node in waiting for name in node.output}
    ordered: list[onnx.NodeProto] = []
    while waiting:
        ready = [node for node in waiting if not _reads(node) & made]
        node = choices.pick(ready)
        waiting = [each for each in waiting if each is not node]
        made -= set(node.output)
        ordered.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    return True


def _reads(node: onnx.NodeProto) -> set[str]:
    found = set(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for each in attribute.g.node:
                found |= _reads(each)
            found |= {each.name for each in attribute.g.output}
    return found - {""}


def twice(model: onnx.ModelProto, choices: SeededChoices) -> bool:
    """A node that is computed twice, for two of its readers."""
    graph = model.graph
    shared = [
        node
        for node in graph.node
        if len(node.output) == 1 and sum(name == node.output[0] for other in graph.node for name in other.input) > 1
    ]
    if not shared:
        return False
    node = choices.pick(shared)
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name, copy.output[0] = f"{node.name}.twice", f"{node.output[0]}.twice"
    reader = choices.pick([other for other in graph.node if node.output[0] in other.input])
    reader.input[list(reader.input).index(node.output[0])] = copy.output[0]
    position = next(index for index, other in enumerate(graph.node) if node.output[0] in other.output)
    graph.node.insert(position, copy)
    return True


def idle_arithmetic(model: onnx.ModelProto, choices: SeededChoices) -> bool:
    """A node that does nothing, or nearly, on some edge."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {each.name: each.type.tensor_type.elem_type for each in (*inferred.value_info, *inferred.input)}
    edges = [
        (node, slot)
        for node in model.graph.node
        for slot, name in enumerate(node.input)
        if types.get(name) in FLOATS and node.op_type not in {"Constant", "BatchNormalization"}
    ]
    if not edges:
        return False
    node, slot = choices.pick(edges)
    source = node.input[slot]
    result = f"{source}.idle"
    dtype = helper.tensor_dtype_to_np_dtype(types[source])
    op, value = choices.pick(
        (
            ("Identity", None),
            ("Mul", 1),
            ("Add", 0),
            ("Add", -0.0),
            ("Sub", 0),
            ("Div", 1),
            ("Mul", 2),
            ("Dropout", None),
        )
    )
    operands = [source]
    if value is not None:
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), f"{result}.value"))
        operands.append(f"{result}.value")
    position = next(index for index, other in enumerate(model.graph.node) if other is node or other == node)
    node.input[slot] = result
    model.graph.node.insert(position, helper.make_node(op, operands, [result], result))
    return True


def renamed_axes(model: onnx.ModelProto, choices: SeededChoices) -> bool:
    """Other names of the symbolic axes."""
    names = {"T": choices.pick(("time", "steps")), "batch": choices.pick(("N", "b"))}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in names:
                axis.dim_param = names[axis.dim_param]
    return True


def inferred_shapes(model: onnx.ModelProto, choices: SeededChoices) -> bool:
    """The shapes of all values in the file."""
    model.CopyFrom(onnx.shape_inference.infer_shapes(model))
    return True


def other_floats(model: onnx.ModelProto, choices: SeededChoices) -> bool:
    """All floats of another width; numbers with no exact double become others."""
    if any(function.domain for function in model.functions):
        return False
    wanted = choices.pick((TensorProto.DOUBLE, TensorProto.DOUBLE, TensorProto.FLOAT16))
    return _convert(model.graph, wanted)


def _convert(graph: onnx.GraphProto, wanted: int) -> bool:
    dtype = helper.tensor_dtype_to_np_dtype(wanted)
    changed = False
    for tensor in graph.initializer:
        changed |= _recast(tensor, dtype)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = wanted
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and not node.attribute:
            zero = numpy_helper.from_array(np.zeros(1, np.float32), "value")
            node.attribute.append(helper.make_attribute("value", zero))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                changed |= _convert(attribute.g, wanted)
            elif attribute.HasField("t"):
                changed |= _recast(attribute.t, dtype)
            elif node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = wanted
    return changed


def _recast(tensor: onnx.TensorProto, dtype: np.dtype) -> bool:
    if tensor.data_type != TensorProto.FLOAT:
        return False
    array = numpy_helper.to_array(tensor)
    if dtype == np.float64:
        array = np.round(array.astype(np.float64), 6)  # a third is not a third of 24 bits
    with np.errstate(over="ignore", under="ignore"):
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(array.astype(dtype)).reshape(array.shape), tensor.name))
    return True


HARMFUL: Sequence[Twist] = (odd_values, odd_values, other_floats)
HARMLESS: Sequence[Twist] = (
    odd_units, odd_units, ties, expose, expose, alias, constants_as_nodes, default_input, unread, nameless, reorder,
    twice, idle_arithmetic, idle_arithmetic, renamed_axes, inferred_shapes,
)  # fmt: skip


def apply_twists(
    model: onnx.ModelProto, choices: SeededChoices, protected: Sequence[str]
) -> tuple[onnx.ModelProto, tuple[str, ...], bool]:
    """A twisted copy, the names of the twists, and whether sums are as exact as they were."""
    count = choices.pick((0, 0, 1, 1, 2, 3))
    done: list[str] = []
    harmless = True
    current = model
    for _ in range(count):
        harmful = choices.pick((False,) * 3 + (True,))
        twist = choices.pick(HARMFUL if harmful else HARMLESS)
        trial = onnx.ModelProto()
        trial.CopyFrom(current)
        if not twist(trial, choices) or not _is_valid(trial):
            continue
        current = trial
        harmless = harmless and not harmful
        done.append(twist.__name__)
    return current, tuple(done), harmless


def _is_valid(model: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError:
        return False
    return True
