"""LLVM's ``opt`` for spiking neural networks in ONNX.

Public names are loaded on first use, so that importing the package is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from snn_optimizer.version import __version__ as __version__

if TYPE_CHECKING:
    from snn_optimizer.api import (
        SNNOptimizer,
        dead_neuron_elimination,
        layer_fusion,
        optimize,
        profile,
        redundancy_elimination,
        verify,
    )
    from snn_optimizer.ir import InputDomain, LayerNode, SNNGraph
    from snn_optimizer.pipeline import PassResult
    from snn_optimizer.report import OptimizationReport

__all__ = [
    "InputDomain",
    "LayerNode",
    "OptimizationReport",
    "PassResult",
    "SNNGraph",
    "SNNOptimizer",
    "dead_neuron_elimination",
    "layer_fusion",
    "optimize",
    "profile",
    "redundancy_elimination",
    "verify",
]

_HOME = {
    "InputDomain": "snn_optimizer.ir",
    "LayerNode": "snn_optimizer.ir",
    "SNNGraph": "snn_optimizer.ir",
    "PassResult": "snn_optimizer.pipeline",
    "OptimizationReport": "snn_optimizer.report",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'snn_optimizer' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME.get(name, "snn_optimizer.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
