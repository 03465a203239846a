"""A layer as a description that can be compared, and which layers of two networks belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from snn_optimizer.ir import Array, LayerNode, Projection, SNNGraph, array_of, weights_of
from snn_optimizer.ir.contents import digest

__all__ = ["Described", "describe_layers", "match_layers"]

_KIND: Final = ("operator", "reset", "reset_delay", "fire", "max_spikes", "arithmetic")


@dataclass(frozen=True)
class Described:
    """One layer.

    Attributes
    ----------
    name : str
    kind : mapping
        Operator, reset, comparison and order of arithmetic, each as text.
    neurons : int
    synapses : tuple of str
        The operators that feed the population, with their attributes, without the shapes of the weights.
    tensors : mapping
        Weights, biases, neuron parameters and initial states, by what they are; those computed at run time are missing.
    digest : bytes
        The same of layers that differ in their names at most.
    """

    name: str
    kind: Mapping[str, str]
    neurons: int
    synapses: tuple[str, ...]
    tensors: Mapping[str, Array]
    digest: bytes

    @property
    def title(self) -> str:
        """Kind, size and synapses in a few words."""
        return (
            f"{self.kind['operator']}, {self.neurons:,} neurons, fed by {' and '.join(self.synapses) or 'no weights'}"
        )


def describe_layers(graph: SNNGraph) -> list[Described]:
    """Describe the layers of a network, in the order of computation."""
    return [_described(layer) for layer in graph.layers]


def _described(layer: LayerNode) -> Described:
    variant = layer.variant
    kind = {name: str(getattr(variant, name)) for name in _KIND}
    tensors: dict[str, Array] = {}
    for number, projection in enumerate(layer.projections):
        suffix = f" {number + 1}" if number else ""
        stored = weights_of(projection.node.inputs[projection.weight_slot])
        assert stored is not None
        tensors[f"weights{suffix}"] = projection.as_matrix(stored)
        use = projection.bias
        bias = None if use is None else array_of(use.node.inputs[use.slot])
        if bias is not None:
            tensors[f"bias{suffix}"] = bias.reshape(-1)
    for name in variant.inputs[variant.currents :]:
        held = layer.parameter(name)
        if held is not None and name != "steps":
            tensors[name] = held
    synapses = tuple(_synapse(projection) for projection in layer.projections)
    total = hashlib.blake2b(repr((sorted(kind.items()), layer.n_neurons, synapses)).encode(), digest_size=16)
    for name, array in tensors.items():
        total.update(repr((name, array.dtype.name, array.shape)).encode() + digest(array))
    return Described(layer.name, kind, layer.n_neurons, synapses, tensors, total.digest())


def _synapse(projection: Projection) -> str:
    """Name an operator with what it does to positions; how a matrix is stored is not a property of the network."""
    node = projection.node
    if node.op != "Conv":
        return "a matrix"
    names = ("auto_pad", "dilations", "group", "pads", "strides")
    held = "".join(f" {name}={_plain(node.attrs[name])}" for name in names if name in node.attrs)
    kernel = "x".join(map(str, projection.shape[2:]))
    return f"a convolution {kernel}{held}"


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


Pair = tuple[Described | None, Described | None]


def match_layers(before: Sequence[Described], after: Sequence[Described]) -> list[Pair]:
    """Pair the layers of two networks: by contents first, then by name, then by kind and size.

    Returns
    -------
    list of (Described or None, Described or None)
        In the order of the second network; what was removed stands where it was.
    """
    partner: dict[int, int] = {}
    taken: set[int] = set()
    keys: tuple[Callable[[Described], Hashable], ...] = (
        lambda one: (one.name, one.digest),
        lambda one: one.digest,
        lambda one: one.name,
        lambda one: (one.kind["operator"], one.neurons),
        lambda one: (one.neurons, one.synapses),
    )
    for key in keys:
        waiting: dict[Hashable, list[int]] = {}
        for place, one in enumerate(after):
            if place not in taken:
                waiting.setdefault(key(one), []).append(place)
        for place, one in enumerate(before):
            if place not in partner and (found := waiting.get(key(one))):
                partner[place] = found.pop(0)
                taken.add(partner[place])
    return list(_in_order(before, after, partner))


def _in_order(before: Sequence[Described], after: Sequence[Described], partner: Mapping[int, int]) -> Iterator[Pair]:
    origin = {there: here for here, there in partner.items()}
    removed = [place for place in range(len(before)) if place not in partner]
    for place, one in enumerate(after):
        here = origin.get(place)
        while removed and here is not None and removed[0] < here:
            yield before[removed.pop(0)], None
        yield None if here is None else before[here], one
    for left in removed:
        yield before[left], None
