"""SNNGraph: the typed view of a model that people and passes work with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx

from snn_optimizer import ops
from snn_optimizer.errors import InputError, did_you_mean
from snn_optimizer.ir.admission import admit
from snn_optimizer.ir.atomic import AtomicFiles
from snn_optimizer.ir.build import build_module
from snn_optimizer.ir.decoded import is_encoded, weights_of, weights_shape
from snn_optimizer.ir.layers import LayerBinding, LayerNode, find_projections
from snn_optimizer.ir.module import Module
from snn_optimizer.ir.notebook import network_html
from snn_optimizer.ir.rewriter import Rewriter
from snn_optimizer.ir.shapes import Shapes
from snn_optimizer.ir.text import print_graph
from snn_optimizer.ir.types import Node, Use, array_of, is_constant, shape_of_constant

__all__ = ["SNNGraph"]

_LINEAR = frozenset({"Gemm", "Conv", "ConvTranspose", "MatMul", "MatMulInteger"})


class SNNGraph:
    """A spiking network: one ONNX model, seen as layers of neurons.

    Parameters
    ----------
    layers : sequence of LayerNode, optional
        Builds a feed-forward model from weights alone: input ``x`` of shape
        (T, B, n_inputs), output ``spikes`` (``membrane`` for a readout).
    module : Module, optional
        The model to view; exactly one of the two is given.

    Attributes
    ----------
    firing_rates : dict
        Spikes per step of the neurons of a population, by the population's name;
        given by hand, or filled from a profile. Passes keep it in step with the
        units they remove.
    rate_samples : int or None
        On how many samples the rates were measured; None when they were given by hand.
    unit_origins : dict
        Which of the units it had at first a population still has, in order, by its name; of a population not
        mentioned all are there. Passes keep it in step with the units they remove.
    """

    def __init__(self, layers: Sequence[LayerNode] | None = None, *, module: Module | None = None) -> None:
        if (layers is None) == (module is None):
            raise InputError("SNNGraph takes layers=[...]; use SNNGraph.from_onnx for a file")
        self.firing_rates: dict[str, npt.NDArray[np.float64]] = {}
        self.rate_samples: int | None = None
        self.unit_origins: dict[str, npt.NDArray[np.int64]] = {}
        if module is not None:
            self.module = module
            return
        given = list(layers or ())
        self.module = build_module(given)
        for layer, bound in zip(given, self._bindings(), strict=True):
            if layer.firing_rates is not None:
                self.firing_rates[layer.name] = layer.firing_rates
            layer.bind(bound)

    @classmethod
    def from_onnx(cls, source: str | os.PathLike[str] | onnx.ModelProto) -> SNNGraph:
        """Read a model from a file or a ``ModelProto`` (which is not modified).

        Raises
        ------
        ModelLoadError, UnsupportedModelError
            With the file and the reason in one line.
        """
        module = Module.load(source)
        admit(module.graph, module.functions, module.sidecar, f"'{module.path or module.graph.name}'")
        return cls(module=module)

    def save(
        self, path: str | os.PathLike[str], *, external: bool | None = None, files: AtomicFiles | None = None
    ) -> int:
        """Write the model, atomically and with a group of ``files``; return the number of bytes written in all."""
        return self.module.save(path, external=external, files=files)

    def to_onnx(self) -> onnx.ModelProto:
        """Return the complete model."""
        return cast("onnx.ModelProto", self.module.to_proto())

    def copy(self, *, share_weights: bool = False) -> SNNGraph:
        """Return an independent graph.

        With ``share_weights`` the arrays are shared; passes never write into
        arrays, so this is what the optimizer uses internally.
        """
        twin = SNNGraph(module=self.module.copy(share_weights=share_weights))
        twin.firing_rates = {name: rates.copy() for name, rates in self.firing_rates.items()}
        twin.rate_samples = self.rate_samples
        twin.unit_origins = dict(self.unit_origins)
        return twin

    def become(self, other: SNNGraph) -> None:
        """Take over the model and the rates of another graph, which must not be used afterwards."""
        self.module, self.firing_rates = other.module, other.firing_rates
        self.unit_origins = other.unit_origins

    # -- layers ----------------------------------------------------------------------------

    @property
    def layers(self) -> list[LayerNode]:
        """The layers in the order of computation, as views."""
        return [LayerNode.view(binding) for binding in self._bindings()]

    def layer(self, name: str) -> LayerNode:
        """Return the layer of one name."""
        for found in self.layers:
            if found.name == name:
                return found
        known = [layer.name for layer in self.layers]
        raise InputError(f"no layer '{name}'; layers: {', '.join(known) or 'none'}{did_you_mean(name, known)}")

    def _bindings(self) -> list[LayerBinding]:
        outer: dict[int, Any] = {}
        carried_ids: set[int] = set()
        found: list[Node] = []
        for scope in self.module.scopes():
            if scope.kind == "function":
                continue
            if scope.owner is not None and scope.owner.op == "Scan":
                carried = len(scope.owner.inputs) - int(scope.owner.attrs["num_scan_inputs"])
                carried_ids.update(id(value) for value in scope.graph.inputs[:carried])
                outer.update({id(scope.graph.inputs[i]): v for i, v in enumerate(scope.owner.inputs) if i >= carried})
            found.extend(n for n in scope.graph.nodes if ops.is_neuron(n.domain or "", n.op))
        if not found:
            return []
        shapes = Shapes.compute(self.module)
        return [self._binding(node, shapes, outer, carried_ids) for node in self._in_order(found)]

    def _in_order(self, neurons: Sequence[Node]) -> list[Node]:
        """Order populations of loop bodies at the place of their loop."""
        position: dict[int, int] = {}

        def number(graph: Any) -> None:
            for node in graph.nodes:
                position[id(node)] = len(position)
                if "body" in node.attrs:
                    number(node.attrs["body"])

        number(self.module.graph)
        return sorted(neurons, key=lambda n: position.get(id(n), 0))

    def _binding(self, node: Node, shapes: Shapes, outer: dict[int, Any], carried: set[int]) -> LayerBinding:
        variant = ops.NeuronVariant.parse(node.op, node.attrs)
        shape = shapes.shape(node.inputs[0])
        projections = find_projections(node, outer.get, carried)
        trailing = () if shape is None else shape[variant.axes_before_units :]
        if trailing and all(isinstance(n, int) for n in trailing):
            neurons = int(np.prod([int(cast("int", n)) for n in trailing]))
        else:
            neurons = projections[0].shape[projections[0].axis_out] if projections else 0
        return LayerBinding(self, node, projections, neurons)

    # -- totals ----------------------------------------------------------------------------

    @property
    def total_neurons(self) -> int:
        """Number of neurons of all populations, readouts included."""
        return sum(binding.neurons for binding in self._bindings())

    @property
    def total_params(self) -> int:
        """Number of synaptic weights and biases, batch norms included, each tensor counted once.

        Neuron parameters (decay, threshold, ...), initial states and shapes are not counted.
        """
        return sum(int(np.prod(shape, dtype=np.int64)) for shape in self._parameters().values())

    @property
    def nonzero_params(self) -> int:
        """Number of the same that are not zero."""
        total = 0
        for value in self._parameter_values().values():
            array = weights_of(value)
            assert array is not None
            total += int(np.count_nonzero(array))
        return total

    def _parameters(self) -> dict[int, tuple[int, ...]]:
        return {key: weights_shape(value) or () for key, value in self._parameter_values().items()}

    def _parameter_values(self) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for scope in self.module.scopes():
            if scope.kind == "function":
                continue
            for node in scope.graph.nodes:
                for slot in _parameter_slots(node):
                    value = node.inputs[slot]
                    if (
                        (is_constant(value) or (slot == 1 and node.op in _LINEAR and is_encoded(value)))
                        and value.name
                        and (_is_float(array_type(value)) or node.op == "MatMulInteger")
                    ):
                        found.setdefault(id(value), value)
        return found

    # -- edits -----------------------------------------------------------------------------

    def writable(self, use: Use) -> npt.NDArray[Any]:
        """Return the array of a constant for writing in place; loads and detaches it from the file if needed."""
        array = array_of(use.node.inputs[use.slot])
        assert array is not None
        if not array.flags.writeable or isinstance(array, np.memmap):
            self.edit(use, np.array(array), everywhere=True)
            array = array_of(use.node.inputs[use.slot])
            assert array is not None
        return array

    def edit(self, use: Use, array: npt.NDArray[Any], *, everywhere: bool = False) -> None:
        """Replace the constant that one node reads; other readers keep theirs unless ``everywhere``."""
        rewriter = Rewriter(self.module)
        uses = [use]
        if everywhere:
            value = use.node.inputs[use.slot]
            uses = [
                Use(n, i)
                for n in {id(n): n for n in value.outputs}.values()
                for i, v in enumerate(n.inputs)
                if v is value
            ]
        rewriter.edit_constant(uses, array)
        rewriter.finish()

    # -- text ------------------------------------------------------------------------------

    def __str__(self) -> str:
        return print_graph(self)

    def _repr_html_(self) -> str:
        """Return the table that notebooks show."""
        return network_html(self)

    def __repr__(self) -> str:
        return f"SNNGraph({len(self._bindings())} layers, {self.total_neurons} neurons, {self.total_params} parameters)"


def array_type(value: Any) -> Any:
    """Return the element type of a constant."""
    return value.dtype


def _is_float(dtype: Any) -> bool:
    try:
        return np.dtype(dtype).kind in "fV"
    except TypeError:
        return False


def _parameter_slots(node: Node) -> Sequence[int]:
    """Slots of a node that hold weights or biases, not neuron parameters or states."""
    if node.domain:
        return ()
    match node.op:
        case _ if node.op in _LINEAR:
            return range(1, len(node.inputs))
        case "BatchNormalization":
            return range(1, 5)
        case "Add" | "Sub" | "Mul" | "Div":
            return [
                i for i, v in enumerate(node.inputs) if is_constant(v) and np.prod(shape_of_constant(v) or (1,)) > 1
            ]
        case _:
            return ()
