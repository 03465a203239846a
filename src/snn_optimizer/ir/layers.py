"""Layers as people think of them: a population of neurons and the synapses that feed it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snn_optimizer import ops
from snn_optimizer.errors import InputError
from snn_optimizer.ir.decoded import is_encoded, weights_of, weights_shape
from snn_optimizer.ir.types import Node, Use, Value, array_of, dtype_of_constant, is_constant

if TYPE_CHECKING:
    from snn_optimizer.ir.graph import SNNGraph

__all__ = ["NEURON_TYPES", "LayerBinding", "LayerNode", "Projection"]

NEURON_TYPES = ("LIF", "IF", "LI", "CubaLIF")


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear node with constant weights and where its outputs are counted.

    Attributes
    ----------
    axis_out : int
        Axis of the weight that counts the postsynaptic units; the other one (and
        for convolutions the kernel axes) make up the fan-in.
    bias : Use or None
        Where a constant bias is read: the node's own slot, or an Add behind a MatMul.
    """

    node: Node
    weight_slot: int
    axis_out: int
    bias: Use | None

    @property
    def weight_use(self) -> Use:
        """Where the weight is read."""
        return Use(self.node, self.weight_slot)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight as stored."""
        shape = weights_shape(self.node.inputs[self.weight_slot])
        assert shape is not None
        return shape

    def as_matrix(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """View stored weights as (units, fan-in)."""
        moved = np.moveaxis(stored, self.axis_out, 0)
        return moved if moved.ndim == 2 else moved.reshape(moved.shape[0], -1)

    def as_stored(self, matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return weights (units, fan-in) in the layout of the file."""
        shape = self.shape
        rest = [n for i, n in enumerate(shape) if i != self.axis_out]
        return np.moveaxis(np.asarray(matrix).reshape(-1, *rest), 0, self.axis_out)


@dataclass(frozen=True, slots=True)
class LayerBinding:
    """Ties a layer to its nodes in a graph."""

    graph: SNNGraph
    neuron: Node
    projections: tuple[Projection, ...]
    neurons: int


class LayerNode:
    """One layer: synapses and the population they feed.

    Built from arrays it describes a layer for ``SNNGraph(layers=[...])``; taken from
    ``graph.layers`` (or after it was given to a graph) it is a view, and what is
    assigned to it changes the graph.

    Parameters
    ----------
    name : str
    n_inputs, n_neurons : int
    weights : array, shape (n_neurons, n_inputs)
    neuron_type : {"LIF", "IF", "LI", "CubaLIF"}
    firing_rates : array, shape (n_neurons,), optional
        Spikes per step of each neuron, measured or known; drives the profile-guided
        passes without any calibration data.
    bias : array, shape (n_neurons,), optional
    beta, threshold, v_reset, gain, alpha : float or array of shape (n_neurons,)
        Decay per step, firing threshold, reset value, input gain, synaptic decay
        (CubaLIF); membrane units.
    reset : {"subtract", "to-value", "none"}
    reset_delay : {0, 1}
    fire : {"gt", "ge"}
    """

    def __init__(
        self,
        name: str,
        n_inputs: int,
        n_neurons: int,
        weights: npt.ArrayLike,
        neuron_type: str = "LIF",
        firing_rates: npt.ArrayLike | None = None,
        *,
        bias: npt.ArrayLike | None = None,
        beta: npt.ArrayLike = 0.9,
        threshold: npt.ArrayLike = 1.0,
        v_reset: npt.ArrayLike = 0.0,
        gain: npt.ArrayLike = 1.0,
        alpha: npt.ArrayLike = 0.8,
        reset: str = "subtract",
        reset_delay: int = 0,
        fire: str = "gt",
    ) -> None:
        self._binding: LayerBinding | None = None
        self._name = name
        self._weights = np.asarray(weights)
        if self._weights.shape != (n_neurons, n_inputs):
            raise InputError(
                f"layer '{name}': weights have shape {self._weights.shape}, expected (n_neurons, n_inputs) = "
                f"({n_neurons}, {n_inputs})"
            )
        if self._weights.dtype not in {np.dtype(np.float32), np.dtype(np.float16)}:
            self._weights = self._weights.astype(np.float32)
        if neuron_type not in NEURON_TYPES:
            raise InputError(f"layer '{name}': unknown neuron type '{neuron_type}'; known: {', '.join(NEURON_TYPES)}")
        self._rates = None if firing_rates is None else _per_neuron(name, "firing_rates", firing_rates, n_neurons)
        self._parameters: dict[str, npt.NDArray[Any]] = {
            "bias": np.zeros(0) if bias is None else _per_neuron(name, "bias", bias, n_neurons),
        }
        given = {"beta": beta, "v_threshold": threshold, "v_reset": v_reset, "gain": gain, "alpha": alpha}
        for key, value in given.items():
            array = np.asarray(value, self._weights.dtype)
            self._parameters[key] = array if array.ndim == 0 else _per_neuron(name, key, array, n_neurons)
        try:
            self._variant = (
                ops.NeuronVariant(neuron_type)
                if neuron_type == "LI"
                else ops.NeuronVariant(neuron_type, reset=reset, reset_delay=reset_delay, fire=fire)
            )
        except ValueError as error:
            raise InputError(f"layer '{name}': {error}") from None

    @classmethod
    def view(cls, binding: LayerBinding) -> LayerNode:
        """Return the layer of a graph."""
        layer = cls.__new__(cls)
        layer.bind(binding)
        return layer

    def bind(self, binding: LayerBinding) -> None:
        """Turn this layer into a view of a graph."""
        self._binding = binding

    # -- what it is ------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the population."""
        return self._name if self._binding is None else self._binding.neuron.name

    @property
    def variant(self) -> ops.NeuronVariant:
        """The operator, with reset, comparison and order of arithmetic."""
        if self._binding is None:
            return self._variant
        return ops.NeuronVariant.parse(self._binding.neuron.op, self._binding.neuron.attrs)

    @property
    def neuron_type(self) -> str:
        """Operator of the population."""
        return self.variant.operator

    @property
    def node(self) -> Node | None:
        """The neuron call in the graph; None before the layer was given to one."""
        return None if self._binding is None else self._binding.neuron

    @property
    def n_neurons(self) -> int:
        """Number of neurons; of a feature map channels times positions."""
        return self._weights.shape[0] if self._binding is None else self._binding.neurons

    @property
    def n_inputs(self) -> int:
        """Fan-in of one neuron over the feed-forward synapses; zero without synapses."""
        return int(self.weights.shape[1])

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The linear nodes that feed the population."""
        return () if self._binding is None else self._binding.projections

    # -- what it holds ---------------------------------------------------------------------

    @property
    def weights(self) -> npt.NDArray[Any]:
        """Weights of the first projection, (units, fan-in); writing into it changes the graph.

        Weights that are stored in few bits are returned as what they stand for, and cannot be written to.
        """
        if self._binding is None:
            return self._weights
        if not self._binding.projections:
            return np.zeros((self.n_neurons, 0), np.float32)
        projection = self._binding.projections[0]
        if (encoded := self._encoded()) is not None:
            return projection.as_matrix(encoded)
        return projection.as_matrix(self._binding.graph.writable(projection.weight_use))

    @weights.setter
    def weights(self, matrix: npt.ArrayLike) -> None:
        array = np.asarray(matrix, self.weights.dtype)
        if array.shape != self.weights.shape:
            raise InputError(f"layer '{self.name}': weights {array.shape} do not fit {self.weights.shape}")
        if self._encoded() is not None:
            raise InputError(f"layer '{self.name}': its weights are stored in few bits and cannot be assigned")
        if self._binding is None:
            self._weights = array
        elif self._binding.projections:
            projection = self._binding.projections[0]
            self._binding.graph.edit(projection.weight_use, np.ascontiguousarray(projection.as_stored(array)))

    def _encoded(self) -> npt.NDArray[Any] | None:
        """Return the stored weights of the first projection where they are computed from fewer bits."""
        if self._binding is None or not self._binding.projections:
            return None
        use = self._binding.projections[0].weight_use
        value = use.node.inputs[use.slot]
        if is_constant(value):
            return None
        found = weights_of(value)
        assert found is not None
        found.flags.writeable = False
        return found

    @property
    def bias(self) -> npt.NDArray[Any] | None:
        """Bias of the first projection, shape (units,), or ``None``."""
        if self._binding is None:
            return self._parameters["bias"] if self._parameters["bias"].size else None
        use = self._binding.projections[0].bias if self._binding.projections else None
        return None if use is None else self._binding.graph.writable(use).reshape(-1)

    @bias.setter
    def bias(self, values: npt.ArrayLike) -> None:
        if self._binding is None:
            self._parameters["bias"] = _per_neuron(self.name, "bias", values, self.n_neurons)
            return
        use = self._binding.projections[0].bias if self._binding.projections else None
        if use is None:
            raise InputError(f"layer '{self.name}' has no bias to assign to")
        old = self._binding.graph.writable(use)
        self._binding.graph.edit(use, np.asarray(values, old.dtype).reshape(old.shape))

    def parameter(self, name: str) -> npt.NDArray[Any] | None:
        """Return a neuron parameter (``beta``, ``v_threshold``, ...), ``None`` when computed or absent."""
        if self._binding is None:
            return self._parameters.get(name)
        if name not in self.variant.inputs:
            return None
        return array_of(self._binding.neuron.inputs[self.variant.inputs.index(name)])

    def set_parameter(self, name: str, values: npt.ArrayLike) -> None:
        """Replace a neuron parameter; a scalar, or one value per neuron."""
        if self._binding is None:
            self._parameters[name] = np.asarray(values, self._weights.dtype)
            return
        slot = self.variant.inputs.index(name)
        old = self._binding.neuron.inputs[slot]
        if not is_constant(old):
            raise InputError(f"layer '{self.name}': '{name}' is computed at run time and cannot be assigned")
        array = np.asarray(values, dtype_of_constant(old))
        self._binding.graph.edit(Use(self._binding.neuron, slot), array)

    @property
    def threshold(self) -> npt.NDArray[Any] | None:
        """Firing threshold, membrane units."""
        return self.parameter("v_threshold")

    @threshold.setter
    def threshold(self, values: npt.ArrayLike) -> None:
        self.set_parameter("v_threshold", values)

    @property
    def beta(self) -> npt.NDArray[Any] | None:
        """Decay per step."""
        return self.parameter("beta")

    @beta.setter
    def beta(self, values: npt.ArrayLike) -> None:
        self.set_parameter("beta", values)

    @property
    def firing_rates(self) -> npt.NDArray[np.float64] | None:
        """Spikes per step of each neuron, where known."""
        if self._binding is None:
            return self._rates
        return self._binding.graph.firing_rates.get(self.name)

    @firing_rates.setter
    def firing_rates(self, rates: npt.ArrayLike | None) -> None:
        array = None if rates is None else _per_neuron(self.name, "firing_rates", rates, self.n_neurons)
        if self._binding is None:
            self._rates = array
        elif array is None:
            self._binding.graph.firing_rates.pop(self.name, None)
        else:
            self._binding.graph.firing_rates[self.name] = array

    def __repr__(self) -> str:
        return f"LayerNode(name={self.name!r}, {self.n_inputs} -> {self.n_neurons}, {self.neuron_type})"


def _per_neuron(layer: str, what: str, values: npt.ArrayLike, neurons: int) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" or array.size != neurons:
        raise InputError(f"layer '{layer}': {what} has shape {array.shape}, expected ({neurons},)")
    if what == "firing_rates":
        array = array.astype(np.float64).reshape(-1)
        if not np.isfinite(array).all() or (array < 0).any():
            raise InputError(f"layer '{layer}': firing_rates must be finite and not negative")
    return array


RESHAPING = frozenset(("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))
PASSING = RESHAPING | {"Add", "AveragePool", "BatchNormalization", "Div", "Dropout", "MaxPool", "Mul", "Sub"}


def find_projections(neuron: Node, outer_of: Callable[[int], Any], carried: Collection[int]) -> tuple[Projection, ...]:
    """Walk back from a population's signal to the linear nodes that make it, feed-forward ones first.

    ``outer_of`` maps the id of a scanned body input to the value the loop reads it from;
    ``carried`` has the ids of body inputs that come from the step before.
    """
    found: list[Projection] = []
    currents = ops.NeuronVariant.parse(neuron.op, neuron.attrs).currents
    pending, seen = [(value, None) for value in neuron.inputs[:currents]], set()
    while pending:
        value, bias = pending.pop(0)
        if id(value) in seen or is_constant(value):
            continue
        seen.add(id(value))
        if not value.inputs:
            outer = outer_of(id(value))
            if outer is not None:
                pending.insert(0, (outer, bias))
            continue
        node = value.inputs[0]
        projection = _projection(node, bias)
        if projection is not None:
            found.append(projection)
        elif not node.domain and node.op in PASSING:
            following = _bias_use(node) if node.op == "Add" else None
            # depth first, so that how deep a sum is written does not change the order
            pending[:0] = [(v, following or bias) for v in node.inputs if v.name]
    return tuple(sorted(found, key=lambda p: _is_recurrent(p.node.inputs[0], carried)))


def _is_recurrent(value: Value, carried: Collection[int]) -> bool:
    """Tell whether a value comes from the step before, but for its shape."""
    while value.inputs and value.inputs[0].op in RESHAPING and not value.inputs[0].domain:
        value = value.inputs[0].inputs[0]
    return id(value) in carried


def _bias_use(add: Node) -> Any:
    for slot, value in enumerate(add.inputs):
        if is_constant(value):
            return Use(add, slot)
    return None


def _projection(node: Node, added: Any) -> Projection | None:
    if node.domain or node.op not in {"Gemm", "MatMul", "MatMulInteger", "Conv"}:
        return None
    if not is_constant(node.inputs[1]) and not is_encoded(node.inputs[1]):
        return None
    if node.op in {"MatMul", "MatMulInteger"}:
        return Projection(node, 1, 1, added) if len(weights_shape(node.inputs[1]) or ()) == 2 else None
    axis = 0 if node.op == "Conv" or node.attrs.get("transB", 0) else 1
    own = len(node.inputs) > 2 and bool(node.inputs[2].name) and is_constant(node.inputs[2])
    return Projection(node, 1, axis, Use(node, 2) if own else None)
