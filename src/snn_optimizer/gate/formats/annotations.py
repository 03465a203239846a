"""Workflow commands of GitHub Actions: what a job prints appears beside the changed files.

``::error file=F,line=1,title=T::message``, as ``@actions/core`` writes and the runner reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from snn_optimizer.gate.results import GateResult, Status
from snn_optimizer.measures import MEASURES

__all__ = ["workflow_commands"]

_COMMANDS: Final[Mapping[Status, str]] = {
    Status.FAIL: "error",
    Status.UNKNOWN: "error",
    Status.WARN: "warning",
    Status.NEW: "notice",
}


def workflow_commands(result: GateResult, root: Path) -> list[str]:
    """Return one line for each check that did not pass; files are named from the root of the repository."""
    lines = []
    for model, check in result.each():
        if (command := _COMMANDS.get(check.status)) is None:
            continue
        title = _property(f"{MEASURES[check.measure].label} of {model.model.rsplit('/', 1)[-1]}")
        lines.append(f"::{command} file={_property(model.below(root))},line=1,title={title}::{_data(check.message)}")
    return lines


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
