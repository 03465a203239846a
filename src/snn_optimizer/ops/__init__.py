"""The operators of ``ai.snn``: schema, meaning in NumPy, and functions for stock runtimes."""

from __future__ import annotations

from snn_optimizer.ops.arithmetic import Expression, Program, is_program
from snn_optimizer.ops.functions import MAXIMUM_OPSET, MINIMUM_OPSET, function_proto
from snn_optimizer.ops.meaning import Meaning, NotUnderstood, meaning
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
    "Expression",
    "Meaning",
    "NeuronVariant",
    "NotUnderstood",
    "OpSchema",
    "Parameter",
    "Program",
    "function_proto",
    "is_neuron",
    "is_program",
    "meaning",
    "membrane",
    "schema",
    "sequence",
    "step",
]
