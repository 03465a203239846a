"""The operators of ``ai.snn``: schema, meaning in NumPy, and functions for stock runtimes."""

from __future__ import annotations

from snn_optimizer.ops.functions import MAXIMUM_OPSET, MINIMUM_OPSET, function_proto
from snn_optimizer.ops.neurons import membrane, sequence, step
from snn_optimizer.ops.schema import (
    DOMAIN,
    FORMS,
    OPERATORS,
    VERSION,
    Attribute,
    OpSchema,
    Parameter,
    schema,
)
from snn_optimizer.ops.variants import NeuronVariant, is_neuron

__all__ = [
    "DOMAIN",
    "FORMS",
    "MAXIMUM_OPSET",
    "MINIMUM_OPSET",
    "OPERATORS",
    "VERSION",
    "Attribute",
    "NeuronVariant",
    "OpSchema",
    "Parameter",
    "function_proto",
    "is_neuron",
    "membrane",
    "schema",
    "sequence",
    "step",
]
