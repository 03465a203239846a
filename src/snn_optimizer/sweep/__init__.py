"""Accuracy against size, operations and latency, over budgets and pipelines."""

from __future__ import annotations

from snn_optimizer.sweep.conduct import Sweep, run_sweep
from snn_optimizer.sweep.plan import BUDGET_KINDS, DEFAULT_BUDGETS, DEFAULT_PIPELINES, Plan
from snn_optimizer.sweep.records import Record
from snn_optimizer.sweep.tables import Row

__all__ = ["BUDGET_KINDS", "DEFAULT_BUDGETS", "DEFAULT_PIPELINES", "Plan", "Record", "Row", "Sweep", "run_sweep"]
