"""The gate: hold models against budgets, for continuous integration."""

from __future__ import annotations

from snn_optimizer.gate.judging import run_gate
from snn_optimizer.gate.results import Check, Found, GateResult, Status
from snn_optimizer.gate.selection import Selected, select
from snn_optimizer.gate.settings import Rule, Settings, find_settings, read_settings

__all__ = [
    "Check",
    "Found",
    "GateResult",
    "Rule",
    "Selected",
    "Settings",
    "Status",
    "find_settings",
    "read_settings",
    "run_gate",
    "select",
]
