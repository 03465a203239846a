"""From the record of a run to text, JSON and Markdown."""

from snn_optimizer.report.model import Evidence, OptimizationReport, Size, describe_evidence, describe_result

__all__ = ["Evidence", "OptimizationReport", "Size", "describe_evidence", "describe_result"]
