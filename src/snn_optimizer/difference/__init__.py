"""What differs between two models, in terms of the network."""

from __future__ import annotations

from snn_optimizer.difference.between import OperatorChange
from snn_optimizer.difference.compare import Difference, LayerChange, TensorChange, compare_models

__all__ = ["Difference", "LayerChange", "OperatorChange", "TensorChange", "compare_models"]
