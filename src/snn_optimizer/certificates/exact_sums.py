"""Whether sums are exact in float32, so that neither their order nor zeros among their terms change a bit (T7).

If all weights and the bias of a row are multiples of ``2**low`` and the inputs whole multiples of ``2**m``, every
partial sum is a multiple of ``2**(low + m)``. If also ``sum |w| h + |b| < 2**(24 + low + m)``, every partial sum in
any order is a float32.
"""

from __future__ import annotations

import numpy as np

from snn_optimizer.certificates.affine import Affine, affine_at
from snn_optimizer.certificates.network import Array
from snn_optimizer.certificates.relation import Relation
from snn_optimizer.certificates.signals import Signal

__all__ = ["sums_are_exact"]

SPIKES = "inputs without a declared range are spikes: 0 or 1"


def sums_are_exact(relation: Relation) -> tuple[bool, str, list[str]]:
    """Tell whether all sums that have other terms now are exact, why or why not, and on what premises."""
    if relation.refolded:
        return False, f"the weights of '{min(relation.refolded)}' were computed anew", []
    facts = relation.facts
    premises: set[str] = set()
    lowest = 0
    for value in facts.network.made:
        affine = affine_at(facts.network, value)
        if affine is None or affine.name not in relation.regrouped:
            continue
        source = facts.signal(affine.source)
        whole = source.whole
        if whole is None and affine.source_is_input(facts.network) and _is_binary(source):
            whole = 0
            premises.add(SPIKES)
        low = None if whole is None else _grid(affine, source, whole)
        if low is None:
            return False, f"sums of '{affine.name}' are rounded", []
        lowest = min(lowest, low)
    return True, f"all sums are exact on a grid of 2^{lowest}", sorted(premises)


def _is_binary(source: Signal) -> bool:
    return bool(((source.ends.low == 0) & (source.ends.high == 1)).all())


def _grid(affine: Affine, source: Signal, whole: int) -> int | None:
    """Return the exponent of the grid on which all sums of a map are exact, None if they are not."""
    if affine.fused or not np.isfinite(source.ends.size).all():
        return None
    parts = (affine.weights, affine.bias)
    if not all(np.isfinite(part).all() for part in parts):
        return None
    low = min(_lowest_bit(part) for part in parts)
    size = float(source.ends.size.max())
    sums = np.abs(affine.weights.astype(np.float64)).sum(axis=(1, 2)) * size + np.abs(affine.bias.astype(np.float64))
    exponent = low + min(whole, 0)
    return exponent if float(sums.max(initial=0)) < 2.0 ** (24 + exponent) else None


def _lowest_bit(values: Array) -> int:
    """Return the largest exponent of a power of two that all values are multiples of; 0 at most."""
    nonzero = values[values != 0].astype(np.float32)
    if not len(nonzero):
        return 0
    fraction, exponent = np.frexp(nonzero)
    integer = np.abs(fraction * np.float32(2**24)).astype(np.int64)
    trailing = np.log2((integer & -integer).astype(np.float64)).astype(np.int64)
    return int(min(0, (exponent - 24 + trailing).min()))
