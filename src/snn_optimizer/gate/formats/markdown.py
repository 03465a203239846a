"""GitHub-flavoured Markdown: for a comment on a pull request, and for the summary of a job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from snn_optimizer.gate.results import Check, Found, GateResult, Status
from snn_optimizer.measures import MEASURES, amount_text

__all__ = ["MARKER", "markdown"]

MARKER: Final = "<!-- snnopt gate -->"
"""First line, by which a later run finds its comment again."""

_MARKS: Final[Mapping[Status, str]] = {
    Status.FAIL: "❌ over budget",
    Status.UNKNOWN: "❓ not measured",
    Status.WARN: "⚠️ warning",
    Status.NEW: "🆕 new",
    Status.PASS: "✅",
}
_ORDER: Final = tuple(_MARKS)
_LONGEST: Final = 60_000  # characters; GitHub refuses comments of more than 65,536


def markdown(result: GateResult) -> str:
    """Return the document: what is wrong first, then all numbers, folded."""
    against = f" against {_code(result.baseline)}" if result.baseline else ""
    lines = [MARKER, f"## {_MARKS[result.status].split()[0]} Model budgets{against}", "", f"{result.headline()}.", ""]
    wrong = [(model, check) for model, check in result.each() if check.status is not Status.PASS]
    items = [
        f"- {_MARKS[check.status]}: {_code(model.shown)} {_escaped(check.message)}"
        for model, check in sorted(wrong, key=lambda each: _ORDER.index(each[1].status))
    ]
    text = _joined("\n".join(lines), items, "- and {} more")
    models = sorted(result.models, key=lambda model: _ORDER.index(model.status))
    return (
        _joined(text + "\n", ["\n".join(_table(model)) for model in models], "{} more models are left out here") + "\n"
    )


def _joined(text: str, parts: list[str], rest: str) -> str:
    """Append parts as long as a comment may be, and say how many are left out."""
    for number, part in enumerate(parts):
        if len(text) + len(part) > _LONGEST:
            return f"{text}\n{rest.format(len(parts) - number)}"
        text += f"\n{part}"
    return text.rstrip("\n")


def _table(model: Found) -> list[str]:
    limits: dict[str, list[Check]] = {}
    for check in model.checks:
        limits.setdefault(check.measure, []).append(check)
    rows = [_row(model, name, limits.get(name, [])) for name in MEASURES if name in model.values or name in limits]
    opened = "" if model.status is Status.PASS else " open"
    return [
        f"<details{opened}><summary>{_MARKS[model.status].split()[0]} {_html(model.shown)}</summary>", "",
        "| measure | baseline | now | change | limit | |", "|---|---:|---:|---:|---:|---|", *rows, "", "</details>", "",
    ]  # fmt: skip


def _row(model: Found, name: str, checks: list[Check]) -> str:
    measure = MEASURES[name]
    before, now = model.baseline_values.get(name), model.values.get(name)
    texts = ["" if held is None else amount_text(held, measure.unit) for held in (before, now)]
    change = ""
    if before is not None and now is not None and before != now:
        change = f"{(now - before) / before:+.1%}" if before else "new"
    limits = "<br>".join(f"{_escaped(c.rule.limit.text)}{' (warns)' if c.rule.warns else ''}" for c in checks)
    statuses = [c.status for c in checks]
    mark = _MARKS[min(statuses, key=_ORDER.index)] if statuses else ""
    return f"| {_escaped(measure.label)} | {' | '.join(texts)} | {change} | {limits} | {mark} |"


def _html(text: str) -> str:
    return _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _escaped(text: str) -> str:
    """Escape what Markdown would read as its own."""
    return re.sub(r"([\\`*_{}\[\]<>#|~@])", r"\\\1", _one_line(text))


def _code(text: str) -> str:
    """Return text as code, in as many ticks as it needs."""
    plain = _one_line(text)
    ticks = "`" * (max((len(run) for run in re.findall("`+", plain)), default=0) + 1)
    space = " " if "`" in plain else ""
    return f"{ticks}{space}{plain}{space}{ticks}"


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text)
