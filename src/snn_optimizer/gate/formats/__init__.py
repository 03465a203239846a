"""The result of a gate as its readers want it: pull requests, test reports, code scanning, job logs."""

from __future__ import annotations

from snn_optimizer.gate.formats.annotations import workflow_commands
from snn_optimizer.gate.formats.junit import junit
from snn_optimizer.gate.formats.markdown import MARKER, markdown
from snn_optimizer.gate.formats.sarif import sarif

__all__ = ["MARKER", "junit", "markdown", "sarif", "workflow_commands"]
