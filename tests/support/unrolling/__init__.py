"""Small spiking networks as torch exporters write them: primitive standard operators, step after step.

A `Network` is what is computed, `Habits` how it is written. Nothing here knows `ai.snn`.
"""

from tests.support.unrolling.damage import KINDS, UndamagedError, damage
from tests.support.unrolling.habits import Habits
from tests.support.unrolling.network import Layer, Network, Neuron
from tests.support.unrolling.simulation import Trace, simulate
from tests.support.unrolling.stepwise import scan_model, step_model
from tests.support.unrolling.strategies import habits, networks, neurons
from tests.support.unrolling.unrolled import binary_trains, unroll

__all__ = [
    "KINDS",
    "Habits",
    "Layer",
    "Network",
    "Neuron",
    "Trace",
    "UndamagedError",
    "binary_trains",
    "damage",
    "habits",
    "networks",
    "neurons",
    "scan_model",
    "simulate",
    "step_model",
    "unroll",
]
