"""Write a network of one step as a loop over any number of steps."""

from __future__ import annotations

import numpy as np

from snn_optimizer import ops
from snn_optimizer.errors import UnsupportedModelError
from snn_optimizer.ir import Module, Rewriter, Shapes, SNNGraph, Value, array_of, is_constant, is_missing
from snn_optimizer.lowering.step_form import StepForm

__all__ = ["loop_form"]

_TIME = "T"


def loop_form(step: StepForm) -> SNNGraph:
    """Return a model whose main graph is one ``Scan`` over the steps of the inputs.

    Inputs that change from step to step get a time axis in front, outputs are stacked along
    one; a state output holds the value after the last step. States start from their fills.

    Raises
    ------
    UnsupportedModelError
        If no input changes from step to step, or the shape of a state is not known.
    """
    old = step.graph.module
    shapes = Shapes.compute(old)
    signals = [value for value in old.graph.inputs if value.name in step.signals]
    if not signals:
        raise UnsupportedModelError("no input changes from step to step, so nothing says how many steps there are")
    new = Module.empty(inputs=[], outputs=[], opset=max(old.opset(), ops.MINIMUM_OPSET), name=old.graph.name)
    new.metadata.update(old.metadata)
    rewriter = Rewriter(new)
    made: dict[int, Value] = {}
    outer: dict[str, Value] = {}
    for value in old.graph.inputs:
        shape = shapes.shape(value)
        if value.name in step.states:
            known = None if shape is None else list(shape)
            made[id(value)] = rewriter.value(f"{value.name}_before", value.dtype, known)
            continue
        timed = value.name in step.signals
        whole = None if shape is None else [*([_TIME] if timed else []), *shape]
        outer[value.name] = rewriter.value(value.name, value.dtype, whole)
        made[id(value)] = rewriter.value(f"{value.name}_step", value.dtype, shape) if timed else outer[value.name]
    results = [rewriter.value(value.name, value.dtype, None) for value in old.graph.outputs]
    for node in old.graph.nodes:
        if ops.is_neuron(node.domain or "", node.op):
            variant = ops.NeuronVariant.parse(node.op, node.attrs)
            new.add_function(ops.function_proto(variant, min(new.opset(), ops.MAXIMUM_OPSET)))
        elif node.domain:
            raise UnsupportedModelError(f"node '{node.name}' calls '{node.op}' of '{node.domain}'")
    body = rewriter.body("step", [], [])
    _fill(rewriter, body, old, made)
    states = [value for value in old.graph.inputs if value.name in step.states]
    outputs = {value.name: value for value in old.graph.outputs}
    emitted = [value for value in old.graph.outputs if value.name not in step.states.values()]
    returned = [outputs[step.states[state.name]] for state in states] + emitted
    ports = [_copied(rewriter, body, made[id(value)]) for value in returned]
    rewriter.set_ports(body, [*(made[id(s)] for s in states), *(made[id(s)] for s in signals)], ports)
    starts = [_start(rewriter, state, shapes, step, outer, signals[0]) for state in states]
    by_name = dict(zip(outputs, results, strict=True))
    for value in returned:
        shape = shapes.shape(value)
        timed_shape = None if shape is None else [*([] if value in returned[: len(states)] else [_TIME]), *shape]
        by_name[value.name].shape = timed_shape
    new.graph.inputs.extend(outer.values())
    new.graph.outputs.extend(results)
    rewriter.add(
        new.graph,
        "Scan",
        [*starts, *(outer[value.name] for value in signals)],
        [by_name[value.name] for value in returned],
        {"body": body, "num_scan_inputs": len(signals)},
        name_hint="time",
    )
    rewriter.finish()
    return SNNGraph(module=new)


def _fill(rewriter: Rewriter, body: object, old: Module, made: dict[int, Value]) -> None:
    for node in old.graph.nodes:
        inputs: list[Value | None] = []
        for value in node.inputs:
            if id(value) not in made and is_constant(value):
                array = array_of(value)
                assert array is not None  # a constant
                made[id(value)] = rewriter.constant(value.name, array)
            inputs.append(None if is_missing(value) else made[id(value)])
        outputs: list[Value | None] = []
        for value in node.outputs:
            if is_missing(value):
                outputs.append(None)
                continue
            made[id(value)] = rewriter.value(value.name, value.dtype, None)
            outputs.append(made[id(value)])
        rewriter.add(body, node.op, inputs, outputs, node.attrs, node.domain or "", node.name or None)  # type: ignore[arg-type]


def _copied(rewriter: Rewriter, body: object, value: Value) -> Value:
    copy = rewriter.value(f"{value.name}_out", value.dtype, None)
    rewriter.add(body, "Identity", [value], [copy])  # type: ignore[arg-type]
    return copy


def _start(
    rewriter: Rewriter, state: Value, shapes: Shapes, step: StepForm, outer: dict[str, Value], first: Value
) -> Value:
    """Return the initial value of a state: its fill, in a shape that takes the batch from the first signal."""
    shape = shapes.shape(state)
    if shape is None or not all(isinstance(size, int) for size in shape[1:]):
        raise UnsupportedModelError(f"the shape of state '{state.name}' is not known")
    fill = np.array([step.starts.get(state.name, 0.0)], np.float32)
    graph = rewriter.module.graph
    sizes = [int(size) for size in shape[1:] if isinstance(size, int)]
    if shape and isinstance(shape[0], int):
        return rewriter.constant(f"{state.name}_start", np.full([int(shape[0]), *sizes], fill[0], np.float32))
    batch = rewriter.value("batch", np.int64, (1,))
    rewriter.add(graph, "Shape", [outer[first.name]], [batch], {"start": 1, "end": 2})
    vector = batch
    if sizes:
        vector = rewriter.value("shape", np.int64, (len(shape),))
        rest = rewriter.constant("units", np.array(sizes, np.int64))
        rewriter.add(graph, "Concat", [batch, rest], [vector], {"axis": 0})
    start = rewriter.value(f"{state.name}_start", np.float32, list(shape))
    tensor = rewriter.constant("fill", fill)
    rewriter.add(graph, "ConstantOfShape", [vector], [start], {"value": tensor})
    return start
