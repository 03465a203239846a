"""SARIF 2.1.0 (OASIS), as code scanning reads it: one rule for each measure, one result for each limit not kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from snn_optimizer.gate.results import Check, Found, GateResult, Status
from snn_optimizer.measures import MEASURES
from snn_optimizer.version import __version__

__all__ = ["sarif"]

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS: Final[Mapping[Status, str]] = {
    Status.FAIL: "error",
    Status.UNKNOWN: "error",
    Status.WARN: "warning",
    Status.NEW: "note",
}


def sarif(result: GateResult, root: Path) -> dict[str, Any]:
    """Return the log; files are named from the root of the repository."""
    found = [(model, check) for model, check in result.each() if check.status in _LEVELS]
    rules = [name for name in MEASURES if any(check.measure == name for _, check in found)]
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "snnopt gate",
                        "semanticVersion": __version__,
                        "rules": [_rule(name) for name in rules],
                    }
                },
                "invocations": [{"executionSuccessful": result.status is not Status.UNKNOWN}],
                "columnKind": "utf16CodeUnits",
                "results": [_result(model, check, rules.index(check.measure), root) for model, check in found],
            }
        ],
    }


def _rule(name: str) -> dict[str, Any]:
    measure = MEASURES[name]
    return {
        "id": f"snnopt/{name}",
        "name": "".join(part.capitalize() for part in name.split("-")) + "Budget",
        "shortDescription": {"text": f"The {measure.label} of a model is over its budget."},
        "fullDescription": {"text": f"{measure.label[0].upper()}{measure.label[1:]}: {measure.meaning}."},
        "defaultConfiguration": {"level": "error"},
    }


def _result(model: Found, check: Check, index: int, root: Path) -> dict[str, Any]:
    # one alert per model, measure and limit, whatever the numbers of a run are
    identity = "\0".join((model.model, check.measure, check.rule.limit.text, str(check.rule.warns)))
    facts = {"value": check.value, "baseline": check.baseline, "allowed": check.allowed}
    return {
        "ruleId": f"snnopt/{check.measure}",
        "ruleIndex": index,
        "level": _LEVELS[check.status],
        "message": {"text": f"{model.shown}: {check.message}"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(model.below(root)), "uriBaseId": "%SRCROOT%"},
                    "region": {"startLine": 1},
                }
            }
        ],
        "partialFingerprints": {"snnoptBudget/v1": hashlib.sha256(identity.encode()).hexdigest()},
        "properties": {"limit": check.rule.limit.text} | {k: v for k, v in facts.items() if v is not None},
    }
