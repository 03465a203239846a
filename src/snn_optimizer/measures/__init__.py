"""What a model file and the network in it measure: sizes, costs on samples, time."""

from __future__ import annotations

from snn_optimizer.measures.amounts import AMOUNT_UNITS, amount_text, read_amount
from snn_optimizer.measures.catalogue import MEASURES, Measure, Need
from snn_optimizer.measures.composition import Composition, composition_of
from snn_optimizer.measures.network import Measured, measure_model

__all__ = [
    "AMOUNT_UNITS",
    "MEASURES",
    "Composition",
    "Measure",
    "Measured",
    "Need",
    "amount_text",
    "composition_of",
    "measure_model",
    "read_amount",
]
