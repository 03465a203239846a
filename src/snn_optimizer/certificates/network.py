"""A model as the checker reads it: nodes by what they make, constants, and the shapes of one run.

Nothing here comes from the optimizer's own reader: the file is read as onnx stores it, so that a mistake there is not
made twice.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import external_data_helper, helper, numpy_helper

from snn_optimizer import ops
from snn_optimizer.certificates.scans import is_open, opened
from snn_optimizer.errors import ExecutionError, UnsupportedModelError
from snn_optimizer.execution.instrument import expose
from snn_optimizer.execution.ort import Session
from snn_optimizer.execution.source import ModelSource, read_model
from snn_optimizer.verification.stimuli import generate

__all__ = ["RESHAPES", "Array", "Made", "Network", "same_numbers"]

Array = npt.NDArray[Any]
RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_SIZES = ((3, 2), (5, 3), (4, 1))  # steps and samples of the runs that tell shapes, where the model leaves them open


@dataclass(frozen=True, eq=False)
class Made:
    """Where a value comes from: an output of a node."""

    node: onnx.NodeProto
    position: int

    @property
    def op(self) -> str:
        """The op type of a standard operator, with its domain for any other."""
        domain = self.node.domain
        return str(self.node.op_type if domain in ("", "ai.onnx") else f"{domain}::{self.node.op_type}")

    @functools.cached_property
    def attributes(self) -> dict[str, Any]:
        """All attributes by name."""
        return _attributes(self.node)

    @property
    def is_neuron(self) -> bool:
        """Whether it is a call of a neuron."""
        return bool(ops.is_neuron(self.node.domain, self.node.op_type))

    @property
    def inputs(self) -> list[str]:
        """Names of the values read."""
        return list(self.node.input)


@dataclass(eq=False)
class Network:
    """The main graph of a model.

    Attributes
    ----------
    model : ModelProto
    folder : Path, optional
        Where external weights lie.
    """

    model: onnx.ModelProto
    folder: Path | None = None
    _arrays: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.model.graph
        stored = {tensor.name: tensor for tensor in graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        taken = {*stored, *(i.name for i in graph.input), *(name for node in graph.node for name in node.output)}
        for node in graph.node:
            if is_open(node, taken):
                self.nodes += opened(node)
                body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
                stored |= {tensor.name: tensor for tensor in body.initializer}
                taken |= {name for each in self.nodes for name in each.output}
            else:
                self.nodes.append(node)
        self.made = {
            name: Made(node, position)
            for node in self.nodes for position, name in enumerate(node.output) if name
        }  # fmt: skip
        declared = [info.name for info in graph.input]
        self.inputs = [name for name in declared if name not in stored or self.model.ir_version >= 4]
        self._stored = {name: tensor for name, tensor in stored.items() if name not in self.inputs}
        self.outputs = [info.name for info in graph.output]
        self.functions = {(f.domain, f.name): f for f in self.model.functions}
        self.opset = next((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), 1)

    @classmethod
    def read(cls, source: ModelSource) -> Network:
        """Read a model from a file, its bytes or a message."""
        return cls(*read_model(source))

    # -- constants -------------------------------------------------------------------------

    def constant(self, name: str) -> Array | None:
        """Return a value that is stored in the file, None for any other."""
        if name not in self._arrays:
            tensor = self._stored.get(name)
            made = self.made.get(name)
            if tensor is None and made is not None and made.op == "Constant":
                found = made.attributes.get("value")
                if not isinstance(found, onnx.TensorProto):
                    return None
                tensor = found
            if tensor is None:
                return None
            self._arrays[name] = self._decoded(tensor)
        return self._arrays[name]

    def constants(self) -> Iterator[tuple[str, Array]]:
        """Yield all stored values of the main graph."""
        for name in (*self._stored, *(name for name, made in self.made.items() if made.op == "Constant")):
            array = self.constant(name)
            if array is not None:
                yield name, array

    def _decoded(self, tensor: onnx.TensorProto) -> Array:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            copy = onnx.TensorProto()
            copy.CopyFrom(tensor)
            external_data_helper.load_external_data_for_tensor(copy, str(self.folder or "."))
            tensor = copy
        return np.asarray(numpy_helper.to_array(tensor))

    def source(self, value: str, through: Collection[str] = ("Identity",)) -> str:
        """Return the value that another is a copy of, or holds the same elements as, behind some operators."""
        while (made := self.made.get(value)) is not None and made.op in through:
            value = made.inputs[0]
        return value

    # -- neurons ---------------------------------------------------------------------------

    def populations(self) -> dict[str, Made]:
        """Return the neuron calls of the main graph and its loops, by the name of the node or of its first output."""
        found: dict[str, Made] = {}
        for node in self.nodes:
            if ops.is_neuron(node.domain, node.op_type):
                found[self.population_name(node)] = Made(node, 0)
        return found

    @staticmethod
    def population_name(node: onnx.NodeProto) -> str:
        """Return what a population is called."""
        return str(node.name or node.output[0])

    def variant(self, made: Made) -> ops.NeuronVariant:
        """Return what a neuron call computes.

        Raises
        ------
        UnsupportedModelError
            If its function is not the one its name stands for.
        """
        node = made.node
        try:
            variant = ops.NeuronVariant.parse(node.op_type, made.attributes)
            expected = ops.function_proto(variant, self.opset)
        except ValueError as error:
            raise UnsupportedModelError(f"population '{self.population_name(node)}': {error}") from error
        stored = self.functions.get((node.domain, node.op_type))
        if stored is None or not _same_function(stored, expected):
            raise UnsupportedModelError(
                f"population '{self.population_name(node)}': the function {node.op_type} is not the one of that name"
            )
        return variant

    # -- running -----------------------------------------------------------------------------

    @functools.cached_property
    def session(self) -> Session:
        """The session of the model, made at first use."""
        return self.session_of(self.model)

    def session_of(self, model: onnx.ModelProto, *, optimize: bool = False) -> Session:
        """Return a session of a variant of the model, whose weights may lie in the same folder."""
        return Session(model, optimize=optimize, external_data=self.folder)

    # -- shapes ----------------------------------------------------------------------------

    @functools.cached_property
    def shapes(self) -> Mapping[tuple[int, int], Mapping[str, tuple[int, ...]]]:
        """Shapes of all values of the main graph, by the steps and samples of runs of different size.

        A model that claims to take any number of samples and does not is left out of the runs it fails in.
        """
        names = [name for name in self.made if self.made[name].op != "Constant"]
        exposed, places = expose(self.model, names)
        session = self.session_of(exposed)
        ports = self.session.inputs
        wanted = list(dict.fromkeys(place.output for place in places.values()))
        found = {}
        for steps, batch in _SIZES:
            feeds = generate(ports, steps=steps, batch=batch, seed=0)[0].feeds
            try:
                values = session.run(feeds, wanted) if wanted else {}
            except ExecutionError:
                continue
            # a value of a loop is what it is at one step
            shapes = {name: values[p.output].shape[1 if p.stacked else 0 :] for name, p in places.items()}
            found[steps, batch] = {**{name: array.shape for name, array in feeds.items()}, **shapes}
        if not found:
            raise UnsupportedModelError("the model runs with no number of samples that was tried")
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a value in the first run.

        Raises
        ------
        UnsupportedModelError
            If nothing tells.
        """
        constant = self.constant(name)
        if constant is not None:
            return constant.shape
        found = next(iter(self.shapes.values())).get(name)
        if found is None:
            raise UnsupportedModelError(f"nothing tells the shape of '{name}'")
        return found


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _same_function(first: onnx.FunctionProto, second: onnx.FunctionProto) -> bool:
    """Compare what two functions compute; names of nodes, documentation and what nothing reads do not count."""
    return _bare(first) == _bare(second)


def _bare(function: onnx.FunctionProto) -> bytes:
    copy = onnx.FunctionProto()
    copy.CopyFrom(function)
    for name in ("doc_string", "metadata_props", "value_info"):
        copy.ClearField(name)
    used, nodes = set(copy.output), []
    for node in reversed(copy.node):
        if used.isdisjoint(node.output):
            continue
        used.update(_read_by(node))
        for name in ("name", "doc_string", "metadata_props"):
            node.ClearField(name)
        nodes.append(node)
    kept = nodes[::-1]
    copy.ClearField("node")
    copy.node.extend(kept)
    return bytes(copy.SerializeToString(deterministic=True))


def _read_by(node: onnx.NodeProto) -> set[str]:
    """Return the names a node reads, those its bodies read included."""
    found = set(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            found.update(name for inner in attribute.g.node for name in _read_by(inner))
            found.update(output.name for output in attribute.g.output)
    return found


def same_numbers(first: Array, second: Array) -> Array:
    """Tell where two arrays hold the same number: the same bits, but for the sign of zero and what is no number."""
    if first.dtype.kind != "f":
        return np.asarray(first == second)
    return np.asarray((first == second) | ((first != first) & (second != second)))  # noqa: PLR0124 - not a number
