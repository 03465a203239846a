"""From the record of a run to text, JSON, Markdown and HTML."""

from snn_optimizer.report.model import (
    Evidence,
    EvidenceCase,
    OptimizationReport,
    Size,
    describe_evidence,
    describe_result,
)

__all__ = ["Evidence", "EvidenceCase", "OptimizationReport", "Size", "describe_evidence", "describe_result"]
