"""Exact answers about small networks: all inputs tried, or decided by mixed-integer linear programming."""

from __future__ import annotations
