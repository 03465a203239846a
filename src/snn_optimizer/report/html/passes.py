"""What the passes did, as the page tells it: those that acted, those that did not, and what was refused."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from snn_optimizer.pipeline import PassResult, PassStatus
from snn_optimizer.remarks import Remark, RemarkKind
from snn_optimizer.report.model import describe_result

__all__ = ["Argument", "PassStory", "Refusal", "Run", "Told", "ranges", "story_of"]

REMARKS: Final = 200  # of one run of a pass
REFUSALS: Final = 300


@dataclass(frozen=True, slots=True)
class Argument:
    """A number behind a remark; ``items`` counts what a list holds."""

    name: str
    text: str
    items: int | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """A remark with its arguments in words."""

    remark: Remark
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a pass that did something, or was not let."""

    result: PassResult
    phrase: str
    remarks: tuple[Told, ...]
    more: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a pass left alone and why, with how often it said so."""

    told: Told
    times: int


@dataclass(frozen=True, slots=True)
class PassStory:
    """All runs."""

    runs: tuple[Run, ...]
    quiet: tuple[tuple[str, int], ...]
    refusals: tuple[Refusal, ...]
    refusals_more: int


def story_of(results: Sequence[PassResult]) -> PassStory:
    """Sort the runs of passes by what came of them."""
    runs = []
    for result in results:
        if result.status is PassStatus.UNCHANGED:
            continue
        remarks = [r for r in result.remarks if r.kind is not RemarkKind.MISSED and r.rule != "frontier"]
        shown = tuple(_told(remark) for remark in remarks[:REMARKS])
        runs.append(Run(result, describe_result(result), shown, max(0, len(remarks) - REMARKS)))
    quiet = Counter(result.name for result in results if result.status is PassStatus.UNCHANGED)
    missed: dict[tuple[str, str, str, str], list[Remark]] = {}
    for remark in (r for result in results for r in result.remarks if r.kind is RemarkKind.MISSED):
        missed.setdefault((remark.pass_name, remark.rule, remark.place, remark.message), []).append(remark)
    refusals = [Refusal(_told(same[-1]), len(same)) for same in missed.values()]
    return PassStory(tuple(runs), tuple(quiet.items()), tuple(refusals[:REFUSALS]), max(0, len(refusals) - REFUSALS))


def _told(remark: Remark) -> Told:
    return Told(remark, tuple(_argument(name, value) for name, value in remark.arguments.items() if value is not None))


def _argument(name: str, value: object) -> Argument:
    title = name.replace("_", " ")
    if isinstance(value, list | tuple):
        return Argument(title, _listed(value), len(value))
    if isinstance(value, bool):
        return Argument(title, "yes" if value else "no")
    if isinstance(value, float):
        return Argument(title, f"{value:.6g}")
    return Argument(title, f"{value:,}" if isinstance(value, int) else _text(value))


def _listed(values: Sequence[object]) -> str:
    """Return a list in words, runs of whole numbers as ranges."""
    numbers = [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
    if len(numbers) != len(values):
        return ", ".join(_text(value) for value in values)
    return ranges(numbers)


def ranges(numbers: Sequence[int]) -> str:
    """Return whole numbers as text, three and more in a row as a range."""
    parts = []
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        parts.append(f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)))  # noqa: RUF001 - a range
    return ", ".join(parts)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
