"""Unrolled models in which one step is not like the others: what a rolled loop would get wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import numpy_helper

KINDS = ("weight", "threshold", "wiring", "operator", "input")
OPERATORS = {
    "Add": "Sub",
    "Sub": "Add",
    "Greater": "Less",
    "GreaterOrEqual": "Less",
    "MaxPool": "AveragePool",
    "AveragePool": "MaxPool",
}


class UndamagedError(LookupError):
    """The model has nothing of the kind to damage, for example no input slices of a static input."""


def damage(model: onnx.ModelProto, rng: np.random.Generator, kind: str) -> tuple[onnx.ModelProto, int]:
    """A copy whose one step differs, and the step.

    kind: `weight` an element of a weight, `threshold` a parameter of the comparison, `wiring` a state is read one
    step too late, `operator`, `input` the slice of another step is read.
    """
    damaged = onnx.ModelProto()
    damaged.CopyFrom(model)
    step = Damage(damaged, rng).apply(kind)
    onnx.checker.check_model(damaged, full_check=True)
    return damaged, step


class Damage:
    """Changes a model in place."""

    def __init__(self, model: onnx.ModelProto, rng: np.random.Generator):
        self.graph = model.graph
        self.rng = rng
        self.makers = {name: node for node in self.graph.node for name in node.output}
        self.tensors = {each.name: each for each in self.graph.initializer}

    def apply(self, kind: str) -> int:
        """The step that was changed."""
        finders: dict[str, Callable[[], list[tuple[int, Callable[[], None]]]]] = {
            "weight": self._weights,
            "threshold": self._thresholds,
            "wiring": self._wirings,
            "operator": self._operators,
            "input": self._inputs,
        }
        choices = finders[kind]()
        if not choices:
            raise UndamagedError(kind)
        step, change = choices[int(self.rng.integers(len(choices)))]
        change()
        self._sweep()
        return step

    # -- what there is ---------------------------------------------------------------------

    def _where(self, node: onnx.NodeProto) -> tuple[str, int, str]:
        found = {each.key: each.value for each in node.metadata_props}
        return found["layer"], int(found["step"]), found["role"]

    def _in_steps(self) -> list[tuple[onnx.NodeProto, str, int, str]]:
        return [(node, *where) for node in self.graph.node if (where := self._where(node))[1] >= 0]

    def _constant(self, name: str) -> np.ndarray | None:
        while name in self.makers and self.makers[name].op_type == "Identity":
            name = self.makers[name].input[0]
        if name in self.tensors:
            return numpy_helper.to_array(self.tensors[name])
        maker = self.makers.get(name)
        if maker is not None and maker.op_type == "Constant":
            return numpy_helper.to_array(maker.attribute[0].t)
        return None

    def _replace(self, node: onnx.NodeProto, position: int, array: np.ndarray) -> None:
        name = f"damaged.{len(self.tensors)}"
        self.tensors[name] = numpy_helper.from_array(array, name)
        self.graph.initializer.append(self.tensors[name])
        node.input[position] = name

    # -- the kinds -------------------------------------------------------------------------

    def _weights(self) -> list[tuple[int, Callable[[], None]]]:
        def change(node: onnx.NodeProto) -> Callable[[], None]:
            def apply() -> None:
                weight = np.array(self._constant(node.input[1]))
                position = tuple(int(self.rng.integers(size)) for size in weight.shape)
                weight[position] += 3 * max(1, np.abs(weight).max())
                self._replace(node, 1, weight)

            return apply

        return [
            (step, change(node))
            for node, _, step, role in self._in_steps()
            if role == "synapse" or (role == "recurrent" and step > 0)  # the first one reads zeros
        ]

    def _thresholds(self) -> list[tuple[int, Callable[[], None]]]:
        def change(node: onnx.NodeProto, position: int, array: np.ndarray) -> Callable[[], None]:
            return lambda: self._replace(node, position, (array * np.float32(0.5)).astype(np.float32))

        return [
            (step, change(node, position, array))
            for node, _, step, role in self._in_steps()
            if role in {"fire.difference", "fire.passed", "fire.quotient"}
            for position, name in enumerate(node.input)
            if (array := self._constant(name)) is not None and array.any()
        ]

    def _wirings(self) -> list[tuple[int, Callable[[], None]]]:
        def change(node: onnx.NodeProto, position: int, older: str) -> Callable[[], None]:
            def apply() -> None:
                node.input[position] = older

            return apply

        made = {self._where(node): node.output[0] for node in self.graph.node}
        choices = []
        for node, layer, step, _ in self._in_steps():
            if layer == "readout":
                continue
            for position, name in enumerate(node.input):
                if name not in self.makers:
                    continue
                source, before, role = self._where(self.makers[name])
                older = made.get((source, before - 1, role))
                if before == step - 1 and source == layer and older is not None:
                    choices.append((step, change(node, position, older)))
        return choices

    def _operators(self) -> list[tuple[int, Callable[[], None]]]:
        def change(node: onnx.NodeProto) -> Callable[[], None]:
            def apply() -> None:
                node.op_type = OPERATORS[node.op_type]

            return apply

        return [
            (step, change(node))
            for node, _, step, role in self._in_steps()
            if node.op_type in OPERATORS and step > 0 and not role.startswith(("signal", "before"))
        ]

    def _inputs(self) -> list[tuple[int, Callable[[], None]]]:
        slices = [each for each in self._in_steps() if each[0].op_type in {"Gather", "Slice"}]
        slices += [
            each
            for each in self._in_steps()
            if each[0].op_type == "Squeeze" and self.makers[each[0].input[0]].op_type == "Split"
        ]

        def change(node: onnx.NodeProto, other: onnx.NodeProto) -> Callable[[], None]:
            def apply() -> None:
                if node.op_type == "Squeeze":
                    node.input[0] = other.input[0]
                    return
                for position in range(1, len(node.input)):
                    array = self._constant(other.input[position])
                    assert array is not None
                    self._replace(node, position, array)

            return apply

        return [
            (step, change(node, other))
            for node, layer, step, role in slices
            for other, layer_there, step_there, role_there in slices
            if (layer, role) == (layer_there, role_there) and step != step_there
        ]

    def _sweep(self) -> None:
        """Drop what nothing reads any more, as exporters do."""
        outputs = {each.name for each in self.graph.output}
        while True:
            read = {name for node in self.graph.node for name in node.input} | outputs
            idle = [node for node in self.graph.node if not read & set(node.output)]
            if not idle:
                break
            for node in idle:
                self.graph.node.remove(node)
        for tensor in [each for each in self.graph.initializer if each.name not in read]:
            self.graph.initializer.remove(tensor)
