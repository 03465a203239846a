"""Nodes, constants and names as an exporter leaves them.

Every node carries `layer`, `step` and `role` in its metadata, for those who want to know where it came from
(`damage`); step -1 belongs to no step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.support.unrolling.habits import Habits

OPSET = 18
IR_VERSION = 10
COMMUTATIVE = {"Add", "Mul", "Max"}
FLOAT = onnx.TensorProto.FLOAT
ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
}


@dataclass(frozen=True, eq=False)
class Constant:
    """A number that gets into the file with its first use.

    kind: `literal` in the code, `parameter`, or `initial`: a state before the first step and what follows from it.
    """

    array: np.ndarray
    role: str
    kind: str = "literal"


Operand = str | Constant


class GraphWriter:
    """Collects one graph. `layer` and `step` say what is being written."""

    def __init__(self, habits: Habits):
        self.habits = habits
        self.nodes: list[onnx.NodeProto] = []
        self.prologue: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.layer = "input"
        self.step = -1
        self._generator = np.random.default_rng(habits.seed)
        self._count = 0
        self._names: set[str] = set()
        self._written: dict[Any, str] = {}
        self._exposed: dict[str, str] = {}

    # -- names -----------------------------------------------------------------------------

    def fresh(self, base: str) -> str:
        """A new name of the style."""
        match self.habits.names:
            case "random":
                base = f"r{int(self._generator.integers(1 << 40)):x}"
            case "none":
                base = f"{len(self._names)}"
        name, count = base, 0
        while name in self._names:
            count += 1
            name = f"{base}_{count}"
        self._names.add(name)
        return name

    def reserve(self, name: str) -> str:
        """Keep a name of an input or output."""
        self._names.add(name)
        return name

    def _scoped(self, role: str) -> str:
        return f"{self.layer}.{role}" if self.step < 0 else f"{self.layer}.{role}.{self.step}"

    # -- nodes -----------------------------------------------------------------------------

    def emit(self, op: str, inputs: Sequence[Operand], role: str, **attributes: Any) -> str:
        """One node of one result, and sometimes an Identity."""
        operands = [self.write(each) for each in inputs]
        if op in COMMUTATIVE and self._swaps(role):
            operands.reverse()
        result = self.append(self.nodes, op, operands, [self.fresh(self._scoped(role))], role, **attributes)[0]
        if self._generator.random() < self.habits.identity_noise:
            alias = [self.fresh(self._scoped(f"{role}.alias"))]
            return self.append(self.nodes, "Identity", [result], alias, f"{role}.alias")[0]
        return result

    def append(
        self,
        nodes: list[onnx.NodeProto],
        op: str,
        operands: Sequence[str],
        results: Sequence[str],
        role: str,
        **attributes: Any,
    ) -> Sequence[str]:
        """A node as given."""
        self._count += 1
        match self.habits.names:
            case "random":
                name = self.fresh("")
            case "none":
                name = ""
            case _:
                name = f"/{self.layer}/{op}_{self._count}"
        node = helper.make_node(op, operands, results, name, **attributes)
        for key, value in (("layer", self.layer), ("step", self.step), ("role", role)):
            node.metadata_props.add(key=key, value=str(value))
        nodes.append(node)
        return results

    def _swaps(self, role: str) -> bool:
        return self.habits.swap_operands and crc32(f"{self.habits.seed}/{self.layer}/{role}".encode()) & 1 == 1

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """What is written meanwhile comes before all steps."""
        kept, self.nodes = self.nodes, []
        step, self.step = self.step, -1
        yield
        self.prologue += self.nodes
        self.nodes, self.step = kept, step

    def once(self, key: Any, write: Callable[[], str]) -> str:
        """What is computed only once in a graph."""
        if key not in self._written:
            self._written[key] = write()
        return self._written[key]

    # -- arithmetic on what may be known ----------------------------------------------------

    def binary(self, op: str, left: Operand, right: Operand, role: str) -> Operand:
        """A node, unless the initial state decides the result."""
        folded = self._fold(op, left, right, role)
        return self.emit(op, [left, right], role) if folded is None else folded

    def _fold(self, op: str, left: Operand, right: Operand, role: str) -> Operand | None:
        initial = [isinstance(each, Constant) and each.kind == "initial" for each in (left, right)]
        if not any(initial):
            return None
        if isinstance(left, Constant) and isinstance(right, Constant):
            return Constant(np.asarray(ARITHMETIC[op](left.array, right.array)), role, "initial")
        if self.habits.initial != "folded":
            return None
        at = 1 if initial[1] else 0
        known, other = (left, right)[at], (left, right)[1 - at]
        assert isinstance(known, Constant)
        if op == "Mul" and not known.array.any():
            return known
        neutral = 1 if op in {"Mul", "Div"} else 0
        if (known.array == neutral).all() and (op in {"Add", "Mul"} or at == 1):
            return other
        return None

    def to_float(self, value: Operand, role: str) -> Operand:
        """Spikes of a comparison."""
        if isinstance(value, Constant):
            return Constant(value.array.astype(np.float32), role, "initial")
        return self.emit("Cast", [value], role, to=FLOAT)

    # -- constants -------------------------------------------------------------------------

    def write(self, operand: Operand) -> str:
        """The name of an operand in the file."""
        if isinstance(operand, str):
            return operand
        in_code = operand.kind != "parameter"
        if in_code and self.habits.constants != "initializers":
            tensor = numpy_helper.from_array(operand.array)
            return self.append(
                self.nodes, "Constant", [], [self.fresh(self._scoped(operand.role))], operand.role, value=tensor
            )[0]
        content = (operand.array.dtype.str, operand.array.shape, operand.array.tobytes())
        key = content if self.habits.merge_constants else (self.layer, operand.role, *content)
        return self.once(key, lambda: self._store(f"{self.layer}.{operand.role}", operand.array))

    def _store(self, base: str, array: np.ndarray) -> str:
        name = self.fresh(base)
        tensor = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        if self.habits.constants == "everything":
            return self.append(self.prologue, "Constant", [], [name], base, value=tensor)[0]
        self.initializers[name] = tensor
        return name

    def weight(self, role: str, array: np.ndarray) -> str:
        """A weight for the step being written."""
        base = f"{self.layer}.{role}"
        key = ("weight", base)
        if self.habits.weights == "shared" or key not in self._written:
            return self.once(key, lambda: self._store(base, array))

        def another() -> str:
            if self.habits.weights == "copies":
                return self._store(base, array)
            alias = [self.fresh(base)]
            return self.append(self.prologue, "Identity", [self._written[key]], alias, f"{role}.alias")[0]

        return self.once((*key, self.step), another)

    # -- ends ------------------------------------------------------------------------------

    def expose(self, value: str, name: str) -> str:
        """Let a value be known by the name of an output: it takes the name, or an Identity does if it has one."""
        self.reserve(name)
        value = self._exposed.get(value, value)
        made = [node for node in self.nodes if value in node.output]
        if value in self._exposed.values() or not made:
            return self.append(self.nodes, "Identity", [value], [name], "output")[0]
        for node in self.nodes:
            for names in (node.input, node.output):
                for position, each in enumerate(names):
                    if each == value:
                        names[position] = name
        self._exposed[value] = name
        return name


def tensor_info(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    """A float."""
    return helper.make_tensor_value_info(name, FLOAT, shape)


def build(
    writer: GraphWriter, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
) -> onnx.ModelProto:
    """The checked model."""
    graph = helper.make_graph(
        [*writer.prologue, *writer.nodes], "main_graph", inputs, outputs, list(writer.initializers.values())
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="pytorch"
    )
    onnx.checker.check_model(model, full_check=True)
    return model
