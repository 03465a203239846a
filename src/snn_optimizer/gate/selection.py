"""Which models are checked, and how they are called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from snn_optimizer.errors import InputError
from snn_optimizer.gate.patterns import expand_glob, is_glob, matches
from snn_optimizer.gate.settings import Settings

__all__ = ["Selected", "select"]


@dataclass(frozen=True, slots=True)
class Selected:
    """A model to check.

    Attributes
    ----------
    path : Path
    name : str
        Relative to the folder of the configuration file, with slashes; overrides and lock files know it by this.
    shown : str
        Relative to where the caller stands.
    """

    path: Path
    name: str
    shown: str


def select(settings: Settings, given: Sequence[Path]) -> list[Selected]:
    """Return the models that were given, or those that the configuration names.

    Raises
    ------
    InputError
        If a file is missing, or a glob means none.
    """
    found: dict[Path, None] = {}
    for path in given:
        for one in _expanded(path):
            found[one.absolute()] = None
    if not given:
        if not settings.models:
            raise InputError(f"no model to check: name one, or write models = [\"models/*.onnx\"] in '{settings.file}'")
        for pattern in settings.models:
            paths = expand_glob(settings.folder, pattern)
            if not paths:
                raise InputError(f"'{settings.file}': models '{pattern}' means no file in '{settings.folder}'")
            found.update((path.absolute(), None) for path in paths)
    selected = [_selected(path, settings) for path in found]
    left = [one for one in selected if not any(matches(one.name, pattern) for pattern in settings.exclude)]
    if given and not left:
        raise InputError(f"'{selected[0].shown}' is excluded in '{settings.file}', and nothing else was given")
    return left


def _expanded(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if is_glob(str(path)):
        anchor, pattern = Path(path.anchor or "."), str(path.relative_to(path.anchor))
        if matched := expand_glob(anchor, pattern):
            return matched
        raise InputError(f"'{path}' means no file")
    raise InputError(f"'{path}': {'is a folder, not a model' if path.is_dir() else 'there is no such file'}")


def _selected(path: Path, settings: Settings) -> Selected:
    name = os.path.relpath(path, settings.folder.absolute()).replace(os.sep, "/")
    shown = os.path.relpath(path, Path.cwd()).replace(os.sep, "/")
    return Selected(path, name, shown)
