"""JUnit XML, as GitLab, Jenkins and others read it: a suite for each model, a case for each limit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from snn_optimizer.gate.results import Check, Found, GateResult, Status

__all__ = ["junit"]

_NOT_IN_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(result: GateResult, root: Path) -> str:
    """Return the document; a warning passes and says so, a model without baseline is skipped."""
    suites = ET.Element("testsuites", {"name": "snnopt gate", **_counts([c for _, c in result.each()])})
    for model in result.models:
        suite = ET.SubElement(suites, "testsuite", {"name": _clean(model.model), **_counts(model.checks)})
        for check in model.checks:
            suite.append(_case(model, check, root))
    ET.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(suites, encoding="unicode")}\n'


def _case(model: Found, check: Check, root: Path) -> ET.Element:
    name = f"{check.measure} {check.rule.limit.text}{' (warning)' if check.rule.warns else ''}"
    case = ET.Element(
        "testcase",
        {"classname": _clean(model.model), "name": _clean(name), "file": _clean(model.below(root)), "time": "0"},
    )
    message = _clean(check.message)
    facts = [f"{what}: {check.text(what)}" for what in ("value", "baseline", "allowed") if check.text(what)]
    match check.status:
        case Status.FAIL:
            found = ET.SubElement(case, "failure", {"message": message, "type": check.measure})
            found.text = "\n".join([message, *facts])
        case Status.UNKNOWN:
            found = ET.SubElement(case, "error", {"message": message, "type": check.measure})
            found.text = "\n".join([message, *facts])
        case Status.NEW:
            ET.SubElement(case, "skipped", {"message": message})
        case _:
            ET.SubElement(case, "system-out").text = "\n".join([message, *facts])
    return case


def _counts(checks: tuple[Check, ...] | list[Check]) -> dict[str, str]:
    def count(status: Status) -> str:
        return str(sum(check.status is status for check in checks))

    return {
        "tests": str(len(checks)),
        "failures": count(Status.FAIL),
        "errors": count(Status.UNKNOWN),
        "skipped": count(Status.NEW),
        "time": "0",
    }


def _clean(text: str) -> str:
    """Replace what no XML document may hold; names of files may."""
    return _NOT_IN_XML.sub("\ufffd", text)
