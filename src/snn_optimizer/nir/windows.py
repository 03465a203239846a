"""Windows of convolutions and poolings: NIR gives one number or one per axis, or a word for the padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from snn_optimizer.errors import UnsupportedModelError
from snn_optimizer.nir.document import NirNode

__all__ = ["pads_of", "per_axis"]


def per_axis(values: Any, axes: int) -> list[int]:
    """Return one number per axis."""
    found = [int(n) for n in np.atleast_1d(values)]
    return found * axes if len(found) == 1 else found


def pads_of(node: NirNode, kernel: Sequence[int]) -> list[int]:
    """Return the padding of a convolution as ONNX has it: before each axis, then behind each.

    Raises
    ------
    UnsupportedModelError
        If it has none that PyTorch defines.
    """
    padding = node.values["padding"]
    axes = len(kernel)
    if not isinstance(padding, (str, bytes)):
        return per_axis(padding, axes) * 2
    text = padding.decode() if isinstance(padding, bytes) else padding
    if text == "valid":
        return [0] * 2 * axes
    if any(n != 1 for n in per_axis(node.values["stride"], axes)):
        raise UnsupportedModelError(
            f"node '{node.name}' ({node.kind}) has padding 'same' and a stride above 1, which PyTorch does not define"
        )
    whole = [d * (n - 1) for d, n in zip(per_axis(node.values["dilation"], axes), kernel, strict=True)]
    return [*(n // 2 for n in whole), *(n - n // 2 for n in whole)]
