"""Units that fire in the same steps because they are driven alike.

Two units with equal rows of weights (over the units that are left), equal bias, parameters and start have equal
membranes; with all of these times one power of two, membranes in that ratio, because such a factor passes through
every rounding.
"""

from __future__ import annotations

import numpy as np

from snn_optimizer.certificates.affine import Affine, affine_at
from snn_optimizer.certificates.columns import Broken, rows_after
from snn_optimizer.certificates.facts import Facts
from snn_optimizer.certificates.network import RESHAPES, Array, Made, Network
from snn_optimizer.certificates.scans import SLICE, STATE
from snn_optimizer.certificates.signals import NotFollowed

__all__ = ["are_twins", "find_twins"]

_SCALED = ("v_threshold", "v_reset", "v0", "i0", "v", "i")


def find_twins(facts: Facts, made: Made, gone: Array, left: Array) -> Array:
    """Return for each unit that is gone one that is left and may fire in the same steps, -1 where there is none.

    What a loop carries is left out: whether it is alike depends on who is claimed to be a twin.
    """
    found = _described(facts, made, loops=False)
    if found is None or not len(gone):
        return np.full(len(gone), -1)
    rows, kinds = found
    scaled = rows / _scales(rows)[:, np.newaxis]
    table = np.ascontiguousarray(np.concatenate([scaled, kinds[:, np.newaxis]], axis=1) + 0.0)  # one zero only
    whole = table.view(np.dtype((np.void, table.dtype.itemsize * table.shape[1]))).reshape(-1)
    _, groups = np.unique(whole, return_inverse=True)
    first = np.full(groups.max() + 1, -1)
    first[groups[left[::-1]]] = left[::-1]
    twins = first[groups[gone]]
    return np.asarray(twins)


def are_twins(facts: Facts, made: Made, units: Array, others: Array) -> Array:
    """Tell for pairs of units whether they fire in the same steps."""
    found = _described(facts, made)
    if found is None:
        return np.zeros(len(units), np.bool_)
    rows, kinds = found
    scale = _scales(rows)
    ratio = (scale[units] / scale[others])[:, np.newaxis]
    alike = (rows[units] == rows[others] * ratio) & np.isfinite(rows[units])
    return np.asarray(alike.all(axis=1) & (kinds[units] == kinds[others]))


def _scales(rows: Array) -> Array:
    """Return for each row the power of two above its largest element: rows of one direction differ by it."""
    _, exponent = np.frexp(np.abs(rows).max(axis=1, initial=0))
    scale: Array = np.ldexp(1.0, exponent)
    return scale


def _described(facts: Facts, made: Made, *, loops: bool = True) -> tuple[Array, Array] | None:
    """Return all that scales with the membrane as one row per unit, and a number for what does not scale."""
    network = facts.network
    variant = network.variant(made)
    terms = None if variant.currents != 1 or variant.written or not variant.spiking else _terms(network, made.inputs[0])
    if terms is not None and not loops:
        terms = [each for each in terms if not _is_carried(network, each)]
    if not terms:
        return None
    try:
        parts = [rows_after(each, facts.signal(each.source), np.arange(len(each.weights)))[:2] for each in terms]
    except (Broken, NotFollowed):
        return None
    units = len(parts[0][0])
    scaled = [weights.reshape(units, -1).astype(np.float64) for weights, _ in parts]
    scaled += [bias.astype(np.float64).reshape(units, 1) for _, bias in parts]
    fixed: list[Array] = []
    for declared, name in zip(variant.schema.inputs, made.inputs, strict=True):
        if declared.role in ("signal", "steps"):
            continue
        constant = facts.constant_of(name, made)
        if constant is None:
            return None
        column = _column(constant, units)
        if column is None:
            return None
        (scaled if declared.name in _SCALED else fixed).append(column)
    plain = np.concatenate(fixed, axis=1) if fixed else np.zeros((units, 1))
    _, kinds = np.unique(plain, axis=0, return_inverse=True)
    return np.concatenate(scaled, axis=1), kinds.reshape(units)


def _terms(network: Network, value: str) -> list[Affine] | None:
    """Return the linear maps that are added up to a current; None where anything else goes into it."""
    found, pending = [], [value]
    while pending:
        name = pending.pop()
        affine = affine_at(network, name)
        made = network.made.get(name)
        if affine is not None:
            found.append(affine)
        elif made is not None and made.op in (*RESHAPES, "Identity", SLICE):
            pending.append(made.inputs[0])
        elif made is not None and made.op == "Add":
            pending += made.inputs
        else:
            return None
    return found


def _is_carried(network: Network, affine: Affine) -> bool:
    """Tell whether a map reads what the last step returned."""
    made = network.made.get(network.source(affine.source))
    return made is not None and made.op == STATE


def _column(constant: Array, units: int) -> Array | None:
    if constant.size == 1:
        return np.full((units, 1), float(constant.reshape(-1)[0]))
    if constant.size == units:
        return constant.astype(np.float64).reshape(units, 1)
    return None
