"""The smallest model, pipeline and data that still fail: delta debugging of networks."""

from __future__ import annotations

from snn_optimizer.reduction.candidate import Candidate, Measure
from snn_optimizer.reduction.conduct import Progress, Reduction, reduce
from snn_optimizer.reduction.failures import Failure

__all__ = ["Candidate", "Failure", "Measure", "Progress", "Reduction", "reduce"]
