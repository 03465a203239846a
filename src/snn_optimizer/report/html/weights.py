"""The weights of a layer: how many, how many are not zero, and what they look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from snn_optimizer.ir import LayerNode, weights_of
from snn_optimizer.report.html.binning import Image, shrunk

__all__ = ["Weights", "weights_by_name"]

LIMIT: Final = (128, 192)  # rows and columns of a map
_CHUNK: Final = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """One linear node.

    Attributes
    ----------
    shape : tuple of int
        As stored.
    count, nonzero : int
        Biases not counted.
    image : Image or None
        Units by fan-in: the weights where every one is shown, else the mean magnitude of each block. None when
        only the sizes were asked for.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    count: int
    nonzero: int
    image: Image | None

    @property
    def density(self) -> float:
        """Share of the weights that are not zero."""
        return self.nonzero / self.count if self.count else 0.0


def weights_by_name(layer: LayerNode, *, drawn: bool) -> dict[str, Weights]:
    """Return the weights that feed a layer, by the name of their node."""
    found: dict[str, Weights] = {}
    for projection in layer.projections:
        array = weights_of(projection.node.inputs[projection.weight_slot])
        if array is None or not array.size:
            continue
        matrix = projection.as_matrix(array)
        name = projection.node.name or projection.node.outputs[0].name
        image = shrunk(matrix, LIMIT, np.abs) if drawn else None
        found[name] = Weights(name, projection.node.op, tuple(array.shape), int(array.size), _nonzero(matrix), image)
    return found


def _nonzero(matrix: npt.NDArray[Any]) -> int:
    rows = max(1, _CHUNK // max(1, matrix.shape[1]))
    return sum(int(np.count_nonzero(matrix[start : start + rows])) for start in range(0, len(matrix), rows))
