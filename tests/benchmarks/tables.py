"""The tables of the benchmark, as Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["HEADER", "rows", "summary", "table"]

HEADER = ["model", "tool", "seconds", "nodes", "bytes", "load ms", "run, batch 1", "run, batch 32", "changed", "note"]
ABSENT = "-"
ORIGINAL = "original"
Runs = Mapping[int, Sequence[float]]

TEXTS = {"model", "tool", "note"}


def table(lines: Sequence[Sequence[str]], *, header: bool = True) -> list[str]:
    """Return lines of cells as lines of Markdown."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    if header:
        cells.insert(1, ["---" if name in TEXTS else "---:" for name in cells[0]])
    return ["| " + " | ".join(line) + " |" for line in cells]


def rows(name: str, results: Mapping[str, Any], batches: Sequence[int]) -> list[list[str]]:
    """Return the rows of one file; the first is the original."""
    base = results[ORIGINAL].get("runs", {})
    lines = []
    for tool, result in results.items():
        lines.append(
            [
                name if tool == ORIGINAL else "",
                tool,
                _seconds(result),
                _nodes(result),
                f"{result['bytes']:,}" if "bytes" in result else ABSENT,
                f"{result['load'] * 1e3:.1f}" if "load" in result else ABSENT,
                *_ratios(result.get("runs", {}), base, batches),
                _changed(result),
                _note(result),
            ]
        )
    return lines


def _seconds(result: Mapping[str, Any]) -> str:
    if "seconds" not in result:
        return ABSENT
    return result["error"] if result["expired"] else f"{result['seconds']:.2f}"


def _nodes(result: Mapping[str, Any]) -> str:
    if "nodes" not in result:
        return ABSENT
    top, total = result["nodes"], result["all_nodes"]
    return f"{top:,}" if top == total else f"{top:,} ({total:,} with bodies)"


def _ratios(runs: Runs, base: Runs, batches: Sequence[int]) -> list[str]:
    """Return one cell per batch size; a model fixed to another size is put into the last one."""
    cells = dict.fromkeys(batches, ABSENT)
    for batch, seconds in runs.items():
        ratio = _ratio(seconds, base.get(batch))
        cell = f"{statistics.median(seconds) * 1e3:.2f} ms" if ratio is None else f"{ratio:.2f}"
        cells[batch if batch in cells else batches[-1]] = cell if batch in cells else f"{cell} (batch {batch})"
    return list(cells.values())


def _ratio(after: Sequence[float] | None, before: Sequence[float] | None) -> float | None:
    """Return the median over the turns: what slows the machine down slows both down in one turn."""
    if not after or not before:
        return None
    return statistics.median(mine / theirs for mine, theirs in zip(after, before, strict=True))


def _changed(result: Mapping[str, Any]) -> str:
    if "changed" not in result:
        return ABSENT
    largest = f" ({result['largest']:.1e})" if result["largest"] else ""
    return f"{result['changed']:,} of {result['total']:,}{largest}"


def _note(result: Mapping[str, Any]) -> str:
    gone = ", ".join(result.get("gone", []))
    return "; ".join(filter(None, [result.get("error"), gone and f"outputs gone or reshaped: {gone}"]))


def summary(record: Mapping[str, Any]) -> list[str]:
    """Return the summary: one row per tool, over the files it could optimize."""
    files = record["files"]
    tools = list(dict.fromkeys(tool for file in files.values() for tool in file["results"] if tool != ORIGINAL))
    batches = record["batches"]
    names = [
        "tool",
        "files",
        "failed",
        "seconds (median)",
        "nodes",
        "bytes",
        "load",
        *(f"run, batch {b}" for b in batches),
    ]
    lines = [[*names, "files changed", "elements changed"]]
    for tool in tools:
        pairs = [
            (file["results"][ORIGINAL], file["results"][tool]) for file in files.values() if tool in file["results"]
        ]
        done = [pair for pair in pairs if not pair[1]["error"]]
        changes = [after["changed"] for _, after in done if "changed" in after]
        seconds = sorted(after["seconds"] for _, after in done)
        lines.append(
            [
                tool,
                f"{len(done)}",
                f"{len(pairs) - len(done)}",
                f"{seconds[len(seconds) // 2]:.2f}" if seconds else ABSENT,
                *(_mean([_quotient(pair, key) for pair in done]) for key in ("all_nodes", "bytes", "load")),
                *(_mean([_speed(pair, batch) for pair in done]) for batch in batches),
                f"{sum(count > 0 for count in changes)} of {len(changes)}",
                f"{sum(changes):,}",
            ]
        )
    lines += [
        [name, "0", f"absent: {reason}", *[ABSENT] * (len(names) - 1)] for name, reason in record["absent"].items()
    ]
    legend = (
        "Nodes (subgraphs and functions included), bytes, load and run time are geometric means of the ratio to the "
        "original, over the files the tool could optimize and onnxruntime could run (their number in brackets); on the "
        "others the tool failed."
    )
    return [*table(lines), "", legend]


def _quotient(pair: tuple[Mapping[str, Any], Mapping[str, Any]], key: str) -> float | None:
    before, after = (side.get(key) for side in pair)
    return after / before if before and after else None


def _speed(pair: tuple[Mapping[str, Any], Mapping[str, Any]], batch: int) -> float | None:
    before, after = (side.get("runs", {}).get(batch) for side in pair)
    return _ratio(after, before)


def _mean(ratios: Sequence[float | None]) -> str:
    known = [math.log(ratio) for ratio in ratios if ratio is not None]
    return f"{math.exp(sum(known) / len(known)):.2f} ({len(known)})" if known else ABSENT
