"""Whether one network is another with units cut out: both are walked side by side, from the outputs back.

The relation is a simulation: if it holds of what a node reads, it holds of what the node makes. A unit that is left
has the current it had before, up to the order in which floats are added; the units that are gone never fired, always
fired, fired together with one that is left, or were read by zeros. Nothing is taken from the passes: weights of the
smaller network are compared with those that follow from the larger one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx

from snn_optimizer.certificates.affine import Affine, affine_at
from snn_optimizer.certificates.columns import Broken, only_picked, rows_after
from snn_optimizer.certificates.facts import Facts
from snn_optimizer.certificates.network import RESHAPES, Array, Made, Network, same_numbers
from snn_optimizer.certificates.scans import SLICE, STACK, STATE
from snn_optimizer.certificates.signals import NotFollowed

__all__ = ["Relation"]

_ULPS = 2.0**-22  # what folded or regrouped weights may be off by, as a share of what was added


@dataclass
class Relation:
    """Walks two networks side by side.

    Attributes
    ----------
    facts : Facts
        About the network before.
    after : Network
    regrouped : set of str
        Linear maps of the network before whose sums have other terms or another order now.
    refolded : set of str
        Linear maps whose weights were computed anew.
    """

    facts: Facts
    after: Network
    regrouped: set[str] = field(default_factory=set)
    refolded: set[str] = field(default_factory=set)
    _seen: dict[tuple[str, str], bytes] = field(default_factory=dict)
    _pending: list[tuple[str, str, Array | None]] = field(default_factory=list)
    _tails: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def before(self) -> Network:
        """The network before."""
        return self.facts.network

    def hold(self) -> None:
        """Check that all outputs of the two networks are related, with no unit missing.

        Raises
        ------
        Broken
            If they are not.
        NotFollowed
            If the checker cannot tell.
        """
        if self.before.outputs != self.after.outputs:
            raise Broken("the outputs are not the same")
        if set(self.before.inputs) != set(self.after.inputs):
            raise Broken("the inputs are not the same")
        for name in self.before.outputs:
            self._want(name, name, None)
        while self._pending:
            self._match(*self._pending.pop())
        missing = set(self.facts.cuts) - self._visited()
        if missing:
            raise Broken(f"population '{min(missing)}' is read by no output")

    def _visited(self) -> set[str]:
        names = (made for _, value in self._seen if (made := self.before.made.get(value)) is not None)
        return {self.before.population_name(made.node) for made in names}

    def _want(self, after: str, before: str, kept: Array | None) -> None:
        """Ask that a value is another with these units; all of them when ``kept`` is None."""
        key = b"all" if kept is None else np.asarray(kept, np.int64).tobytes()
        known = self._seen.get((after, before))
        if known is None:
            self._seen[after, before] = key
            self._pending.append((after, before, kept))
        elif known != key:
            raise Broken(f"'{after}' would have to be '{before}' with different units at once")

    def _match(self, after: str, before: str, kept: Array | None) -> None:
        wanted, given = self.before.constant(before), self.after.constant(after)
        if wanted is not None or given is not None:
            if wanted is not None and kept is not None:
                wanted = _of_units(wanted, self._tail(before), kept)
            if not _same_bits(wanted, given):
                raise Broken(f"the constants '{after}' and '{before}' differ")
            return
        self._same_shape(after, before, kept)
        first, second = self.after.made.get(after), self.before.made.get(before)
        if second is None:
            if first is not None or after != before:
                raise Broken(f"'{after}' is not the input '{before}'")
            return
        linear_after, linear_before = affine_at(self.after, after), affine_at(self.before, before)
        if linear_before is not None and linear_after is not None:
            self._linear(linear_after, linear_before, kept)
            return
        if first is None or first.op != second.op or first.position != second.position:
            other = "an input" if first is None else f"{first.op} '{first.node.name}'"
            raise Broken(f"{second.op} '{second.node.name}' has become {other}")
        if second.is_neuron:
            self._population(first, second, kept)
        elif second.op in (SLICE, STATE, STACK):
            self._through_loop(first, second, before, kept)
        elif any(attribute.HasField("g") for attribute in second.node.attribute):
            self._with_body(first, second, kept)
        else:
            self._elementwise(first, second, before, kept)

    def _same_shape(self, after: str, before: str, kept: Array | None) -> None:
        sizes = self.before.shapes.keys() & self.after.shapes.keys()
        if not sizes:
            raise NotFollowed("the two models run with no common number of samples")
        for size in sizes:
            old, new = self.before.shapes[size], self.after.shapes[size]
            if after not in new or before not in old:
                raise NotFollowed(f"nothing tells the shape of '{before}'")
            shape = list(old[before])
            if kept is not None:
                axis = len(shape) - len(self._tail(before))
                shape[axis] = len(kept)
            if list(new[after]) != shape:
                raise Broken(f"'{after}' has shape {list(new[after])}, not {shape}")

    def _tail(self, before: str) -> tuple[int, ...]:
        tail = self.facts.signal(before).tail or self._tails.get(before, ())
        if not tail:
            raise NotFollowed(f"nothing tells which axis of '{before}' counts units")
        return tail

    # -- linear maps -----------------------------------------------------------------------

    def _linear(self, after: Affine, before: Affine, kept: Array | None) -> None:
        if (after.kind, after.groups, after.geometry) != (before.kind, before.groups, before.geometry):
            raise Broken(f"'{after.name}' is another kind of map than '{before.name}'")
        source = self.facts.signal(before.source)
        picked = self._picked(after.source, before.source)
        if picked is not None:
            self._want(self.after.made[after.source].inputs[0], before.source, None)
            source = only_picked(source, picked, before)
        else:
            self._want(after.source, before.source, None if source.cut is None else source.cut.kept)
        rows = np.arange(len(before.weights)) if kept is None else kept
        weights, bias, size, moved = rows_after(before, source, rows)
        exact = self._compare(after, before, weights, bias, size)
        if moved or kept is not None:
            self.regrouped.add(before.name)
        if not exact or before.fused != after.fused:
            self.refolded.add(before.name)

    def _picked(self, after: str, before: str) -> Array | None:
        """Return which inputs a gather picks that only the network after has."""
        first, second = self.after.made.get(after), self.before.made.get(before)
        if first is None or first.op != "Gather" or (second is not None and second.op == "Gather"):
            return None
        axis, rank = int(first.attributes.get("axis", 0)), len(self.after.shape(first.inputs[0]))
        index = self.after.constant(first.inputs[1])
        if index is None or index.ndim != 1 or axis % rank != rank - 1:
            raise NotFollowed(f"'{first.node.name}' picks along another axis than that of the units")
        return np.asarray(index, np.int64)

    @staticmethod
    def _compare(after: Affine, before: Affine, weights: Array, bias: Array, size: tuple[Array, Array] | None) -> bool:
        """Tell whether weights and bias are those wanted to the last bit, and not just within rounding."""
        exact = True
        for given, wanted, scale, what in (
            (after.weights, weights, None if size is None else size[0], "weights"),
            (after.bias, bias, None if size is None else size[1], "bias"),
        ):
            if given.shape != wanted.shape:
                raise Broken(f"'{after.name}' has {what} of shape {given.shape}, not {wanted.shape}")
            same = same_numbers(given, wanted)
            exact = exact and bool(same.all())
            if scale is not None or after.fused:
                allowed = _ULPS * (np.abs(wanted) if scale is None else scale)
                same = same | (np.abs(given.astype(np.float64) - wanted) <= allowed)
            if not same.all():
                place = [int(i) for i in np.argwhere(~same)[0]]
                raise Broken(f"the {what} of '{after.name}' at {place} do not follow from those of '{before.name}'")
        return exact

    # -- populations -----------------------------------------------------------------------

    def _population(self, after: Made, before: Made, kept: Array | None) -> None:
        variant, other = self.before.variant(before), self.after.variant(after)
        name = self.before.population_name(before.node)
        if variant != other:
            raise Broken(f"population '{name}' has become another kind of neuron")
        tail = self._tail(before.node.output[0])
        cut = self.facts.cuts.get(name)
        left = None if cut is None else cut.kept
        if (kept is None) != (left is None) or (
            kept is not None and left is not None and (len(kept) != len(left) or (kept != left).any())
        ):
            raise Broken(f"population '{name}' is read with other units than it has")
        for declared, one, two in zip(variant.schema.inputs, before.inputs, after.inputs, strict=True):
            if declared.role == "signal":
                self._want(two, one, left)
                continue
            parameter, given = self.before.constant(one), self.after.constant(two)
            if parameter is None or given is None:
                self._want(two, one, left if declared.role != "steps" and self._varies(one) else None)
            elif not _same_bits(_of_units(parameter, tail, left), given):
                raise Broken(f"{declared.name} of population '{name}' is not what it was")

    def _varies(self, value: str) -> bool:
        return bool(self.facts.signal(value).tail)

    # -- everything else -------------------------------------------------------------------

    def _through_loop(self, after: Made, before: Made, value: str, kept: Array | None) -> None:
        """Lead in and out of a loop; what a state was at the last step is related by induction over the steps."""
        tail = self._tail(value) if kept is not None else ()
        for one, two in zip(before.inputs, after.inputs, strict=True):
            self._tails.setdefault(one, tail)
            self._want(two, one, kept)

    def _with_body(self, after: Made, before: Made, kept: Array | None) -> None:
        """Loops are compared as they stand: no unit may be cut in them."""
        if kept is not None or not _same_node(after.node, before.node):
            raise NotFollowed(f"the checker does not look into {before.op} '{before.node.name}'")
        captured = _captured(before.node)
        if captured != _captured(after.node):
            raise Broken(f"{before.op} '{before.node.name}' reads other values")
        for one, two in zip([*before.inputs, *captured], [*after.inputs, *captured], strict=True):
            self._want(two, one, None)
        self._same_functions()

    def _same_functions(self) -> None:
        for key, function in self.before.functions.items():
            other = self.after.functions.get(key)
            if other is not None and other.SerializeToString() != function.SerializeToString():
                raise Broken(f"the function {key[1]} is not what it was")

    def _elementwise(self, after: Made, before: Made, value: str, kept: Array | None) -> None:
        """Any other operator: the same one on related values; shapes may be computed in another way."""
        if not _same_node(after.node, before.node) or len(after.inputs) != len(before.inputs):
            raise Broken(f"{before.op} '{before.node.name}' has other attributes")
        signal = self.facts.signal(value) if kept is not None else None
        if kept is not None and (signal is None or signal.cut is None or not np.array_equal(signal.cut.kept, kept)):
            # a value of no population, such as a current: its units are those of the value read
            self._through(after, before, value, kept)
            return
        for slot, (one, two) in enumerate(zip(before.inputs, after.inputs, strict=True)):
            if not one and not two:
                continue
            if (slot == 1 and before.op in ("Reshape", "Expand")) or before.op == "ConstantOfShape":
                continue  # the shapes of what they make were compared
            cut = self.facts.signal(one).cut if kept is not None else None
            self._want(two, one, None if cut is None else cut.kept)

    def _through(self, after: Made, before: Made, value: str, kept: Array) -> None:
        """Ask for the units of a current on the way back through reshapes and sums."""
        if before.op == "ConstantOfShape":
            return  # the same number everywhere; the shapes were compared
        if before.op == "Expand" and self.before.constant(before.inputs[0]) is not None:
            self._tails[before.inputs[0]] = self._tail(value)
            self._want(after.inputs[0], before.inputs[0], kept)
            return
        if before.op in (*RESHAPES, "Identity", "Expand", "Transpose"):
            source = before.inputs[0]
            if self.facts.signal(source).tail[:1] != self.facts.signal(value).tail[:1]:
                raise NotFollowed(f"units cannot be followed through {before.op} '{before.node.name}'")
            self._want(after.inputs[0], source, kept)
        elif before.op in ("Add", "Sub"):
            for one, two in zip(before.inputs, after.inputs, strict=True):
                constant, given = self.before.constant(one), self.after.constant(two)
                if constant is None or given is None:
                    self._want(two, one, kept)
                elif not _same_bits(_of_units(constant, self._tail(value), kept), given):
                    raise Broken(f"the constant '{two}' is not what '{one}' was")
        else:
            raise NotFollowed(f"units cannot be followed through {before.op} '{before.node.name}'")


def _of_units(parameter: Array, tail: tuple[int, ...], kept: Array | None) -> Array:
    """Return a parameter of the units that are left."""
    axis = parameter.ndim - len(tail)
    if kept is None or axis < 0 or parameter.shape[axis] == 1:
        return parameter
    return np.take(parameter, kept, axis=axis)


def _same_bits(first: Array | None, second: Array | None) -> bool:
    if first is None or second is None or first.dtype != second.dtype or first.shape != second.shape:
        return False
    return first.tobytes() == second.tobytes()


def _same_node(first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
    def bare(node: onnx.NodeProto) -> dict[str, bytes]:
        return {a.name: a.SerializeToString(deterministic=True) for a in node.attribute}

    return bare(first) == bare(second)


def _captured(node: onnx.NodeProto) -> list[str]:
    """Return the values of outer graphs that the bodies of a node read, in order of first use."""
    found: dict[str, None] = {}

    def walk(graph: onnx.GraphProto, known: frozenset[str]) -> None:
        inner = known | {i.name for i in graph.input} | {t.name for t in graph.initializer}
        inner |= {name for n in graph.node for name in n.output}
        for each in graph.node:
            found.update(dict.fromkeys(name for name in each.input if name and name not in inner))
            for attribute in each.attribute:
                if attribute.HasField("g"):
                    walk(attribute.g, inner)
        found.update(dict.fromkeys(o.name for o in graph.output if o.name not in inner))

    for attribute in node.attribute:
        if attribute.HasField("g"):
            walk(attribute.g, frozenset())
    return list(found)
