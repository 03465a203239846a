"""Certificates: what a rewrite claims, in a file, and a checker that shares nothing with the passes that made it."""

from __future__ import annotations

from snn_optimizer.certificates.check import Checked, check
from snn_optimizer.certificates.document import read_document
from snn_optimizer.certificates.issue import issue

__all__ = ["Checked", "check", "issue", "read_document"]
