"""The report as one HTML file: what it shows is gathered first, then drawn, then laid out."""

from __future__ import annotations

from snn_optimizer.report.html.drawing import require_libraries
from snn_optimizer.report.html.gather import ReportData, Sources, gather
from snn_optimizer.report.html.page import render

__all__ = ["ReportData", "Sources", "gather", "render", "require_libraries"]
