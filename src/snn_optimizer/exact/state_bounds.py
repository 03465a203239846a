"""Tighter intervals for potentials after a reset that subtracts.

As a sum of spikes of earlier steps the potential has a wide interval, because an interval forgets that a neuron fires
only above its threshold. With a variable of its own, whose interval is that of both cases (no spike: at most the
threshold; a spike: at least the threshold, less what it takes off), the constraints of later steps are tighter, and
sparse.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from snn_optimizer.exact.affine import Affine, Array, widened
from snn_optimizer.exact.program import MixedProgram

__all__ = ["separated"]


def separated(
    program: MixedProgram, potential: Affine, spikes: Affine, after: Affine, limits: tuple[Array, Array], room: Array
) -> Affine:
    """Return the potential after the reset, by variables of its own where it is ``potential + c + d * spike``.

    Parameters
    ----------
    program : MixedProgram
    potential, spikes, after : Affine
        Before the test, of the test, after the reset; of one shape.
    limits : pair of array
        The least potential of a neuron that fires, the largest of one that does not.
    room : array
        How far an equation may be off, for the solver's sake.
    """
    size = program.size
    change = widened(after.terms, size) - widened(potential.terms, size)
    change.eliminate_zeros()
    single = (np.diff(change.indptr) == 1) & (np.diff(spikes.terms.indptr) == 1)
    rows = np.flatnonzero(single)
    columns, taken = change.indices[change.indptr[rows]], change.data[change.indptr[rows]]
    own = columns == spikes.terms.indices[spikes.terms.indptr[rows]]
    rows, taken = rows[own], taken[own]
    if not len(rows):
        return after
    fires, rests = (end[rows] for end in limits)
    low, high = (end[rows] for end in program.bounds(potential))
    fixed = after.constant[rows] - potential.constant[rows]
    lowest = np.minimum(low, np.maximum(low, fires) + taken) + fixed
    highest = np.maximum(np.minimum(high, rests), high + taken) + fixed
    numbers = program.variables(lowest - room[rows], highest + room[rows], integral=False)
    base, slack = after.constant[rows], room[rows]
    terms = widened(after.terms, program.size)
    program.require(program.rows_of(numbers) - terms[rows], base - slack, base + slack, numbers)
    kept = np.ones(after.size)
    kept[rows] = 0.0
    placed = sparse.csr_array((np.ones(len(rows)), (rows, numbers)), shape=(after.size, program.size))
    constant = after.constant * kept
    combined = sparse.csr_array(sparse.diags_array(kept) @ terms + placed)
    return Affine(after.shape, constant, combined, after.magnitude, after.roundings, after.grid)
