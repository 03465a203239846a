"""The largest of several spikes: one where any of them is one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from scipy import sparse

from snn_optimizer.exact.affine import Affine, widened
from snn_optimizer.exact.affine_rules import NotLinear, Operand, by_rows_matrix
from snn_optimizer.exact.program import MixedProgram

__all__ = ["pooled"]


def pooled(program: MixedProgram, node: onnx.NodeProto, operands: Sequence[Operand], opset: int) -> Affine:
    """Return the outputs of a ``MaxPool`` over spikes.

    ``y >= s`` for each spike of a window and ``y`` at most their sum and one: for binary spikes this is their maximum.

    Raises
    ------
    NotLinear
        If it reads something else than spikes.
    """
    signal = operands[0]
    if not isinstance(signal, Affine) or not _is_spikes(program, signal):
        raise NotLinear("'MaxPool' of other values than spikes")
    matrix, _, each = by_rows_matrix(node, signal.shape[1:], [], opset)
    windows = sparse.csr_array(sparse.kron(sparse.eye_array(signal.shape[0]), matrix))
    terms = widened(signal.terms, program.size)
    certain = np.asarray(windows @ signal.constant) > 0
    possible = np.asarray(windows @ np.asarray(abs(terms).sum(axis=1)).ravel()) > 0
    rows = np.flatnonzero(~certain & possible)
    numbers = program.variables(np.zeros(len(rows)), np.ones(len(rows)), integral=False)
    chosen = sparse.csr_array(windows[rows])
    free = np.full(len(rows), np.inf)
    sums = widened(sparse.csr_array(chosen @ terms), program.size)
    program.require(program.rows_of(numbers) - sums, -free, np.zeros(len(rows)), numbers)
    places = np.repeat(np.arange(len(rows)), np.diff(chosen.indptr))
    members = widened(terms, program.size)[chosen.indices]
    owners = numbers[places]
    program.require(program.rows_of(owners) - members, np.zeros(len(owners)), np.full(len(owners), np.inf), owners)
    picked = sparse.csr_array((np.ones(len(rows)), (rows, numbers)), shape=(len(certain), program.size))
    return Affine(
        (signal.shape[0], *each), certain.astype(np.float64), picked, (certain | possible).astype(np.float64), 0, 0
    )


def _is_spikes(program: MixedProgram, value: Affine) -> bool:
    """Tell whether every element is a binary variable, zero or one."""
    numbers = value.terms.indices
    binary = program.integral[numbers] & (program.low[numbers] == 0) & (program.high[numbers] == 1)
    alone = np.diff(value.terms.indptr) <= 1
    constants = np.isin(value.constant, (0.0, 1.0)) & ((value.constant == 0) | (np.diff(value.terms.indptr) == 0))
    return bool(binary.all() and (value.terms.data == 1).all() and alone.all() and constants.all())
