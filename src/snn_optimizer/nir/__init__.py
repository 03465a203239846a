"""NIR files, the Neuromorphic Intermediate Representation: read as networks over steps, and written back."""

from __future__ import annotations

from snn_optimizer.nir.feedback import FEEDBACKS
from snn_optimizer.nir.losses import LOSSES
from snn_optimizer.nir.network import NirNetwork, is_nir, load
from snn_optimizer.nir.schemes import INTEGRATORS, SCHEMES, Discretization
from snn_optimizer.nir.writing import Export, export

__all__ = [
    "FEEDBACKS",
    "INTEGRATORS",
    "LOSSES",
    "SCHEMES",
    "Discretization",
    "Export",
    "NirNetwork",
    "export",
    "is_nir",
    "load",
]
