"""Whether, on given samples, every membrane stays further from its threshold than the rewrite can move it by rounding.

If so the spikes of these samples are the same, whatever the order in which floats are added: by induction over layers
and steps, equal spikes so far give currents that differ by rounding only. The difference of two float32 sums of the
same terms is at most ``2 gamma_n sum |w x|``; a membrane gathers it, discounted by its decay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from snn_optimizer.certificates.affine import Affine, affine_at
from snn_optimizer.certificates.facts import Facts
from snn_optimizer.certificates.intervals import UNIT
from snn_optimizer.certificates.membranes import Neuron
from snn_optimizer.certificates.network import RESHAPES, Array
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.instrument import expose
from snn_optimizer.execution.observe import Observer
from snn_optimizer.execution.ort import Session

__all__ = ["Margin", "margin_on"]

_ROUNDINGS = 8
_REFOLDED = 2.0**-22
_BATCH = 32
_ROOM = 1.01


@dataclass(frozen=True, slots=True)
class Margin:
    """How close membranes come to their thresholds.

    Attributes
    ----------
    observations : int
        Membranes looked at: of every step, sample and unit whose sums have other terms.
    undecided : int
        Those that rounding might move over the threshold.
    """

    observations: int
    undecided: int


def margin_on(facts: Facts, touched: set[str], refolded: set[str], data: Dataset) -> Margin | str:
    """Look at the membranes behind some linear maps; say why where they cannot be followed.

    Parameters
    ----------
    facts : Facts
        Of the network before.
    touched, refolded : set of str
        Linear maps whose sums have other terms, and those of them whose weights were computed anew.
    """
    network = facts.network
    fed: dict[str, tuple[_Sums, Neuron]] = {}
    left = set(touched)
    for name, made in network.populations().items():
        affine = affine_at(network, network.source(made.inputs[0], RESHAPES))
        if affine is None or affine.name not in touched:
            continue
        left.discard(affine.name)
        neuron = facts.neuron(made)
        if neuron is None:
            if network.variant(made).spiking:
                return f"the neurons of '{name}' are of a kind whose rounding is not followed"
            continue  # a readout has no threshold
        if neuron.alpha is not None:
            return f"the synapses of '{name}' are not followed"
        fed[name] = _Sums(affine, refolded=affine.name in refolded), neuron
    if left:
        return f"what '{min(left)}' makes is not followed to a threshold"
    observer = Observer(network.model)
    taps = [tap for tap in observer.taps if tap.population in fed]
    if len(taps) != len(fed):
        return "a population cannot be observed"
    exposed, places = expose(network.model, [sums.affine.source for sums, _ in fed.values()])
    reader = network.session_of(exposed)
    outputs = list(dict.fromkeys(places[sums.affine.source].output for sums, _ in fed.values()))
    observations = undecided = 0
    for batch in data.batches(_BATCH):
        read = reader.run(batch.feeds, outputs)
        for found in observer.observe(batch.feeds, taps):
            sums, neuron = fed[found.population]
            if found.distance is None:
                continue
            sizes, moved = (
                each.reshape(found.potential.shape) for each in sums.of(read[places[sums.affine.source].output])
            )
            reach = _reach(neuron, found.potential, sizes, moved)
            observations += found.distance.size
            undecided += int(np.count_nonzero(~(found.distance.astype(np.float64) > reach)))
    return Margin(observations, undecided)


class _Sums:
    """How large the sums of one linear map are, and by how much two ways of adding them up may differ."""

    def __init__(self, affine: Affine, *, refolded: bool) -> None:
        self.affine, self.refolded = affine, refolded
        self._weights = np.abs(affine.weights.astype(np.float64))
        self._convolution = None if affine.kind == "dense" else _convolution(affine, self._weights)

    def of(self, read: Array) -> tuple[Array, Array]:
        """Return ``sum |w x| + |b|`` of every sum for what the map reads, and the difference."""
        inputs = np.abs(read.astype(np.float64))
        rows, columns, kernel = self._weights.shape
        if self._convolution is None:
            sizes = inputs @ self._weights[:, :, 0].T
            terms = np.count_nonzero(inputs, axis=-1)[..., np.newaxis] + 2
            offset = self.affine.reach
        else:
            sizes = np.asarray(self._convolution.run({"x": inputs.astype(np.float32)})["y"], np.float64)
            terms = np.asarray(columns * kernel + 2)
            offset = self.affine.reach.reshape(rows, *(1,) * (sizes.ndim - 2))
        sizes = (sizes + offset) * _ROOM
        roundings = 2 * (terms + 2 * self.affine.fused) * UNIT * _ROOM + (_REFOLDED if self.refolded else 0.0)
        return sizes, sizes * roundings


def _convolution(affine: Affine, weights: Array) -> Session:
    """Return a session that convolves with other weights as a map does."""
    kernel, strides, dilations, pads, automatic = affine.geometry
    attributes: dict[str, Any] = {"strides": list(strides), "dilations": list(dilations), "group": affine.groups}
    attributes |= {"auto_pad": automatic} if automatic else {"pads": list(pads)}
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    stored = weights.reshape(*weights.shape[:2], *kernel).astype(np.float32)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * stored.ndim) for name in "xy")
    graph = helper.make_graph([node], "sizes", [x], [y], [numpy_helper.from_array(stored, "w")])
    return Session(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))


def _reach(neuron: Neuron, potential: Array, sizes: Array, moved: Array) -> Array:
    """Return by how much each membrane may differ, shape (T, B, N...)."""
    units = (-1, *(1,) * (potential.ndim - 3))
    beta, gain, threshold = (part.size.reshape(units) for part in (neuron.beta, neuron.gain, neuron.threshold))
    drive = gain * sizes
    slack = 2 * _ROUNDINGS * UNIT * (np.abs(potential.astype(np.float64)) + 2 * drive + threshold)
    reach = np.empty(potential.shape)
    carried = np.zeros(potential.shape[1:])
    for step in range(len(potential)):
        carried = beta * carried + gain * moved[step] + slack[step]
        reach[step] = carried
    return reach
