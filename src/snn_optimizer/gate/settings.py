"""Budgets as ``pyproject.toml`` or ``snnopt.toml`` write them."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from snn_optimizer.errors import InputError
from snn_optimizer.gate.limits import Limit, read_limit
from snn_optimizer.gate.patterns import matches
from snn_optimizer.measures import MEASURES
from snn_optimizer.report.costs import AC_ENERGY, MAC_ENERGY

__all__ = ["LOCK_NAME", "Budget", "Rule", "Settings", "find_settings", "read_settings"]

LOCK_NAME: Final = "snnopt.lock.json"
_OWN_FILE: Final = "snnopt.toml"
_OF_BUDGETS: Final = ("data", "warn")
_OF_ALL: Final = (
    "models", "exclude", "baseline", "lock", "model", "mac-energy", "ac-energy", "rounds", "batch", "threads",
)  # fmt: skip

Limits = Mapping[str, tuple[Limit, ...]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A limit of a measure; one that only warns fails nothing."""

    measure: str
    limit: Limit
    warns: bool = False


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of the models a table speaks of; no limits under a name take away those of the tables before."""

    limits: Limits = field(default_factory=dict)
    warnings: Limits = field(default_factory=dict)
    data: str | None = None


@dataclass(frozen=True)
class Settings:
    """Everything a configuration file says.

    Attributes
    ----------
    file : Path
        All paths in it are relative to its folder.
    models, exclude : tuple of str
        Globs.
    baseline : str
        Empty where none is named.
    lock : Path
    budget : Budget
        For all models.
    overrides : tuple of (str, Budget)
        By glob; later ones win.
    rounds, batch, threads : int or None
        How time is measured.
    mac_energy, ac_energy : float
    """

    file: Path
    models: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    baseline: str = ""
    lock: Path = Path(LOCK_NAME)
    budget: Budget = field(default_factory=Budget)
    overrides: tuple[tuple[str, Budget], ...] = ()
    rounds: int | None = None
    batch: int | None = None
    threads: int = 1
    mac_energy: float = MAC_ENERGY
    ac_energy: float = AC_ENERGY

    @property
    def folder(self) -> Path:
        """The folder all paths are relative to."""
        return self.file.parent

    def budgets_of(self, model: str) -> list[Budget]:
        """Return the tables that speak of a model, the most binding last."""
        return [self.budget, *(budget for pattern, budget in self.overrides if matches(model, pattern))]

    def rules_of(self, model: str) -> list[Rule]:
        """Return the limits of a model, in the order of the measures."""
        found: dict[tuple[str, bool], tuple[Limit, ...]] = {}
        for budget in self.budgets_of(model):
            found.update({(name, False): limits for name, limits in budget.limits.items()})
            found.update({(name, True): limits for name, limits in budget.warnings.items()})
        return [
            Rule(name, limit, warns)
            for name in MEASURES
            for warns in (False, True)
            for limit in found.get((name, warns), ())
        ]

    def data_of(self, model: str) -> Path | None:
        """Return where the samples of a model are."""
        written = next((one.data for one in reversed(self.budgets_of(model)) if one.data is not None), "")
        path = Path(model)
        filled = written.replace("{stem}", path.stem).replace("{folder}", path.parent.as_posix())
        return self.folder / filled if filled else None


def find_settings(start: Path) -> Settings:
    """Read the nearest configuration file with budgets, in a folder or above it.

    Raises
    ------
    InputError
        If there is none, or it is wrong.
    """
    for folder in (start, *start.parents):
        if (folder / _OWN_FILE).is_file():
            return read_settings(folder / _OWN_FILE)
        project = folder / "pyproject.toml"
        if project.is_file() and _gate_table(project, _parse(project)) is not None:
            return read_settings(project)
    raise InputError(
        f"no budgets: neither '{_OWN_FILE}' nor a table [tool.snnopt.gate] of 'pyproject.toml' in '{start}' or above; "
        "write one, or name the file with --config"
    )


def read_settings(path: Path) -> Settings:
    """Read a configuration file.

    Raises
    ------
    InputError
        If it cannot be read, has no budgets, or says something unknown.
    """
    table = _gate_table(path, _parse(path))
    if table is None:
        own = "[gate] or " if path.name != "pyproject.toml" else ""
        raise InputError(f"'{path}': has no table {own}[tool.snnopt.gate]")
    return _Reader(path).settings(table)


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}': is no TOML: {error}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"'{path}': cannot be read: {reason}") from error


def _gate_table(path: Path, whole: Mapping[str, Any]) -> Any:
    """Return the table of budgets: ``[tool.snnopt.gate]``, in a file of our own also ``[gate]``."""
    inner: Any = whole
    for name in ("tool", "snnopt"):
        inner = inner.get(name) if isinstance(inner, Mapping) else None
    nested = inner.get("gate") if isinstance(inner, Mapping) else None
    if nested is None:
        _refuse_misspelt(path, "tool.snnopt.", inner)
    if path.name == "pyproject.toml":
        return nested
    if nested is None and "gate" not in whole:
        _refuse_misspelt(path, "", whole)
    if nested is not None and "gate" in whole:
        raise InputError(f"'{path}': has both [gate] and [tool.snnopt.gate]: keep one")
    return whole.get("gate", nested)


def _refuse_misspelt(path: Path, prefix: str, tables: Any) -> None:
    """Refuse a table that was meant to be this one; others are not for the gate."""
    near = difflib.get_close_matches("gate", list(tables), 1, 0.5) if isinstance(tables, Mapping) else []
    if near:
        raise InputError(f"'{path}': unknown table [{prefix}{near[0]}]; did you mean [{prefix}gate]?")


def _refuse_unknown(path: Path, table: str, found: Any, known: Iterable[str]) -> None:
    if not isinstance(found, Mapping):
        raise InputError(f"'{path}': [{table}] is not a table")
    names = list(known)
    for key in found:
        if key not in names:
            near = difflib.get_close_matches(key, [*names, *(name.replace("-", "_") for name in names)], 1, 0.5)
            hint = f"did you mean '{near[0].replace('_', '-')}'?" if near else f"known: {', '.join(names)}"
            place = f" in [{table}]" if table else ""
            raise InputError(f"'{path}': unknown key '{key}'{place}; {hint}")


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path

    def settings(self, table: Any) -> Settings:
        name = "tool.snnopt.gate" if self.path.name == "pyproject.toml" else "gate"
        _refuse_unknown(self.path, name, table, (*_OF_ALL, *_OF_BUDGETS, *MEASURES))
        overrides = table.get("model", {})
        if not isinstance(overrides, Mapping):
            raise self.wrong("model", 'holds one table for each glob: [tool.snnopt.gate.model."models/*.onnx"]')
        return Settings(
            self.path,
            models=self.texts(table, "models"),
            exclude=self.texts(table, "exclude"),
            baseline=self.text(table, "baseline") or "",
            lock=self.path.parent / (self.text(table, "lock") or LOCK_NAME),
            budget=self.budget(table),
            overrides=tuple((glob, self.override(f'{name}.model."{glob}"', one)) for glob, one in overrides.items()),
            rounds=self.whole(table, "rounds"),
            batch=self.whole(table, "batch"),
            threads=self.whole(table, "threads") or 1,
            mac_energy=self.picojoule(table, "mac-energy", MAC_ENERGY),
            ac_energy=self.picojoule(table, "ac-energy", AC_ENERGY),
        )

    def override(self, name: str, table: Any) -> Budget:
        _refuse_unknown(self.path, name, table, (*_OF_BUDGETS, *MEASURES))
        return self.budget(table)

    def budget(self, table: Mapping[str, Any]) -> Budget:
        warnings = table.get("warn", {})
        _refuse_unknown(self.path, "warn", warnings, MEASURES)
        return Budget(self.limits(table), self.limits(warnings), self.text(table, "data"))

    def limits(self, table: Mapping[str, Any]) -> Limits:
        return {name: self.limit(name, table[name]) for name in MEASURES if name in table}

    def limit(self, name: str, written: Any) -> tuple[Limit, ...]:
        if written is False:  # none, for the models of this table
            return ()
        try:
            return tuple(
                read_limit(MEASURES[name], one) for one in (written if isinstance(written, list) else [written])
            )
        except ValueError as error:
            raise self.wrong(name, str(error)) from None

    def text(self, table: Mapping[str, Any], name: str) -> str | None:
        held = table.get(name)
        if held is None or (isinstance(held, str) and held):
            return held
        raise self.wrong(name, "must be a text that is not empty")

    def texts(self, table: Mapping[str, Any], name: str) -> tuple[str, ...]:
        held = table.get(name, [])
        held = [held] if isinstance(held, str) else held
        if not isinstance(held, list) or not all(isinstance(one, str) and one for one in held):
            raise self.wrong(name, 'must be a list of globs, for example ["models/*.onnx"]')
        if absolute := [one for one in held if Path(one).is_absolute()]:
            raise self.wrong(name, f"'{absolute[0]}' must be relative to the folder of this file")
        return tuple(held)

    def whole(self, table: Mapping[str, Any], name: str) -> int | None:
        held = table.get(name)
        if held is None or (isinstance(held, int) and not isinstance(held, bool) and held >= 1):
            return held
        raise self.wrong(name, "must be a whole number from 1")

    def picojoule(self, table: Mapping[str, Any], name: str, default: float) -> float:
        held = table.get(name, default)
        if isinstance(held, (int, float)) and not isinstance(held, bool) and 0 <= held < float("inf"):
            return float(held)
        raise self.wrong(name, "must be a number of picojoule, zero or more")

    def wrong(self, name: str, why: str) -> InputError:
        return InputError(f"'{self.path}': {name} {why}")
