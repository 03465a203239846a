"""Follow a symbolic batch through reshapes, where ONNX shape inference loses it.

Networks that run a layer over all steps at once fold time and batch into one axis and unfold them
behind it. Inference gives the folded axis a new symbol. Here it is a product such as ``4*batch``, and
what a later reshape leaves of it is found by division.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import prod
from typing import Any

import onnx

from snn_optimizer.ir.types import Dimension

__all__ = ["Reshapes"]

Read = dict[str, tuple[Dimension, ...]]


@dataclass(frozen=True, slots=True)
class _Product:
    """A whole number times symbols."""

    number: int
    symbols: tuple[str, ...] = ()

    def times(self, other: _Product) -> _Product:
        return _Product(self.number * other.number, tuple(sorted(self.symbols + other.symbols)))

    def over(self, other: _Product) -> _Product | None:
        """Return the quotient, None where it is none of this form."""
        mine, theirs = Counter(self.symbols), Counter(other.symbols)
        if other.number == 0 or self.number % other.number or theirs - mine:
            return None
        return _Product(self.number // other.number, tuple(sorted((mine - theirs).elements())))


@dataclass
class Reshapes:
    """The symbols of one model, and the products of them that were given a name."""

    proto: onnx.ModelProto
    products: dict[str, _Product] = field(default_factory=dict)
    targets: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.proto.graph
        self.targets.update((tensor.name, tensor) for tensor in graph.initializer)
        for node in graph.node:
            if node.op_type == "Constant" and node.output and node.attribute and node.attribute[0].name == "value":
                self.targets[node.output[0]] = node.attribute[0].t
        for info in graph.input:
            for dim in info.type.tensor_type.shape.dim:
                if dim.dim_param:
                    self.products[dim.dim_param] = _Product(1, (dim.dim_param,))

    def resolve(self, known: Read, types: dict[str, int]) -> bool:
        """Declare results of reshapes; tell whether any was not known before.

        Parameters
        ----------
        known : dict
            Shapes that inference found, by name; what is declared is added.
        types : dict
            Element types, by name.
        """
        resolved = False
        for node in self.proto.graph.node:
            if node.op_type != "Reshape" or node.domain or len(node.input) < 2 or node.input[1] not in self.targets:
                continue
            given, after = known.get(node.input[0]), known.get(node.output[0])
            shape = self._reshaped(given, self.targets[node.input[1]], node.attribute) if given else None
            if shape is None or after is None or len(after) != len(shape) or not self._says_more(shape, after):
                continue
            element = types.get(node.output[0]) or types.get(node.input[0]) or onnx.TensorProto.FLOAT
            info = onnx.helper.make_tensor_value_info(node.output[0], element, list(shape))
            self.proto.graph.value_info.append(info)
            known[node.output[0]] = shape
            resolved = True
        return resolved

    def _says_more(self, shape: tuple[Dimension, ...], after: tuple[Dimension, ...]) -> bool:
        return any(not self._is_known(old) and self._is_known(new) for new, old in zip(shape, after, strict=True))

    def _is_known(self, size: Dimension) -> bool:
        return isinstance(size, int) or size in self.products

    def _reshaped(
        self, given: tuple[Dimension, ...], target: onnx.TensorProto, attributes: Any
    ) -> tuple[Dimension, ...] | None:
        if target.external_data:
            return None
        wanted = [int(n) for n in onnx.numpy_helper.to_array(target).reshape(-1)]
        if 0 in wanted[len(given) :] or (0 in wanted and any(a.name == "allowzero" and a.i for a in attributes)):
            return None
        sizes: list[Dimension] = [given[at] if n == 0 else n for at, n in enumerate(wanted)]
        if wanted.count(-1) != 1:
            return None
        whole = self._product(given)
        rest = self._product([size for size in sizes if size != -1])
        left = None if whole is None or rest is None else whole.over(rest)
        if left is None:
            return None
        sizes[wanted.index(-1)] = self._name(left)
        return tuple(sizes)

    def _product(self, sizes: Any) -> _Product | None:
        found = _Product(prod(size for size in sizes if isinstance(size, int)))
        for size in sizes:
            if not isinstance(size, int):
                if size not in self.products:
                    return None
                found = found.times(self.products[size])
        return found

    def _name(self, product: _Product) -> Dimension:
        if not product.symbols:
            return product.number
        factors = [str(product.number)] if product.number != 1 else []
        name = "*".join([*factors, *product.symbols])
        self.products.setdefault(name, product)
        return name
