"""What a gate found."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from snn_optimizer.gate.settings import Rule
from snn_optimizer.measures import MEASURES, amount_text

__all__ = ["Check", "Found", "GateResult", "Status", "counted", "model_status"]


class Status(StrEnum):
    """How a check ended."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    WARN = "warn"
    NEW = "new"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """One limit of one model.

    Attributes
    ----------
    rule : Rule
    status : Status
        ``new``: the baseline has no such model; ``unknown``: it could not be measured.
    message : str
        One line.
    value, baseline, allowed : float or None
    """

    rule: Rule
    status: Status
    message: str
    value: float | None = None
    baseline: float | None = None
    allowed: float | None = None

    @property
    def measure(self) -> str:
        """Name of the measure."""
        return self.rule.measure

    def text(self, name: str) -> str:
        """Return ``value``, ``baseline`` or ``allowed`` for people; empty where there is none."""
        held = getattr(self, name)
        return "" if held is None else amount_text(held, MEASURES[self.measure].unit)

    @property
    def change(self) -> str:
        """The change from the baseline, for people."""
        if self.value is None or self.baseline is None or MEASURES[self.measure].unit in {"ratio", "share"}:
            return ""
        if self.value == self.baseline:
            return "0"
        return f"{(self.value - self.baseline) / self.baseline:+.1%}" if self.baseline else "new"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serializable form."""
        return {
            "measure": self.measure,
            "status": str(self.status),
            "limit": self.rule.limit.text,
            "kind": str(self.rule.limit.kind),
            "warns": self.rule.warns,
            "value": self.value,
            "baseline": self.baseline,
            "allowed": self.allowed,
            "message": self.message,
        }


@dataclass(frozen=True)
class Found:
    """One model.

    Attributes
    ----------
    model : str
        Path relative to the folder of the configuration file.
    shown : str
        Path relative to where the caller stands.
    path : Path
    values, baseline_values : mapping
        Everything that was measured; no baseline values without a baseline.
    baseline : str
        What it was compared with; empty without a baseline.
    checks : tuple of Check
    """

    model: str
    shown: str
    path: Path
    values: Mapping[str, float]
    checks: tuple[Check, ...]
    baseline: str = ""
    baseline_values: Mapping[str, float] = field(default_factory=dict)

    def below(self, root: Path) -> str:
        """Return the path from the root of a repository, as code hosts know the file."""
        return os.path.relpath(self.path, root.absolute()).replace(os.sep, "/")

    @property
    def status(self) -> Status:
        """The gravest status of its checks."""
        return model_status(self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serializable form."""
        return {
            "model": self.model,
            "status": str(self.status),
            "baseline": self.baseline or None,
            "measures": dict(self.values),
            "baseline_measures": dict(self.baseline_values) if self.baseline else None,
            "checks": [check.to_json() for check in self.checks],
        }


@dataclass(frozen=True)
class GateResult:
    """All models.

    Attributes
    ----------
    config : str
        The configuration file.
    baseline : str
        What the caller named; empty when nothing.
    models : tuple of Found
    """

    config: str
    baseline: str
    models: tuple[Found, ...]

    def each(self) -> Iterator[tuple[Found, Check]]:
        """Yield every check with its model."""
        for model in self.models:
            for check in model.checks:
                yield model, check

    @property
    def status(self) -> Status:
        """The gravest status of all checks."""
        return model_status(tuple(check for _, check in self.each()))

    @property
    def exit_code(self) -> int:
        """The exit code: 1 over budget, 4 cannot tell."""
        return {Status.FAIL: 1, Status.UNKNOWN: 4}.get(self.status, 0)

    def count(self, status: Status) -> int:
        """Count the checks of one status."""
        return sum(check.status is status for _, check in self.each())

    def headline(self) -> str:
        """Say in one line how it ended."""
        names = {Status.FAIL: "over budget", Status.UNKNOWN: "not measured", Status.WARN: "warned", Status.NEW: "new"}
        counts = [f"{number} {name}" for status, name in names.items() if (number := self.count(status))]
        total = sum(1 for _ in self.each())
        of = f"{counted(total, 'check')} of {counted(len(self.models), 'model')}"
        return f"{of}: {', '.join([*counts, f'{self.count(Status.PASS)} within budget'])}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serializable form; docs/reference/gate.schema.json describes it."""
        return {
            "schema": 1,
            "status": str(self.status),
            "exit_code": self.exit_code,
            "config": self.config,
            "baseline": self.baseline or None,
            "models": [model.to_json() for model in self.models],
        }


def counted(number: int, what: str) -> str:
    """Return a number with its noun."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def model_status(checks: tuple[Check, ...]) -> Status:
    """Return the gravest status."""
    order = (Status.FAIL, Status.UNKNOWN, Status.WARN, Status.NEW, Status.PASS)
    held = {check.status for check in checks}
    return next((status for status in order if status in held), Status.PASS)
