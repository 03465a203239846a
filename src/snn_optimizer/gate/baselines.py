"""What models are compared with: a recorded lock file, a model or folder of models, or a git revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from snn_optimizer.errors import InputError
from snn_optimizer.gate.lockfile import Lock
from snn_optimizer.gate.revisions import Revision

__all__ = ["Baseline", "FileBaseline", "Known", "LockBaseline", "RevisionBaseline", "find_baseline"]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the baseline of one model: a file to measure, or values that were recorded."""

    label: str
    path: Path | None = None
    values: Mapping[str, float] | None = None


class Baseline(Protocol):
    """Where baselines come from."""

    @property
    def missing(self) -> str:
        """Why a model has no baseline here."""
        ...

    @property
    def strict(self) -> bool:
        """Whether a model without a baseline is over budget."""
        ...

    def of(self, model: str, path: Path) -> Known | None:
        """Return the baseline of a model, None when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class LockBaseline:
    """Measures that were recorded."""

    lock: Lock
    name: str
    missing: str = "is not recorded: run 'snnopt gate --update' and commit the lock file"
    strict: bool = True

    def of(self, model: str, path: Path) -> Known | None:
        """Return what was recorded."""
        held = self.lock.models.get(model)
        return None if held is None else Known(self.name, values=held.values)


@dataclass(frozen=True, slots=True)
class FileBaseline:
    """One model for all, or a folder that holds the baselines under the same paths or names."""

    place: Path
    name: str
    missing: str = "has no baseline in that folder"
    strict: bool = False

    def of(self, model: str, path: Path) -> Known | None:
        """Return the file to compare with."""
        if self.place.is_file():
            return Known(self.name, self.place)
        for candidate in (self.place / model, self.place / path.name):
            if candidate.is_file():
                return Known(f"{self.name}/{candidate.relative_to(self.place).as_posix()}", candidate)
        return None


@dataclass(frozen=True, slots=True)
class RevisionBaseline:
    """The model at the same path of a commit, written into a scratch folder."""

    revision: Revision
    scratch: Path
    missing: str = "is new: that revision has no such file"
    strict: bool = False

    def of(self, model: str, path: Path) -> Known | None:
        """Return the model of that commit."""
        target = self.scratch / str(len(list(self.scratch.iterdir())))
        target.mkdir()
        found = self.revision.extract_model(path, target)
        return None if found is None else Known(f"{self.revision.name} ({self.revision.commit[:12]})", found)


def find_baseline(written: str, folder: Path, scratch: Path) -> Baseline:
    """Return what a text names: a ``.json`` file, a model, a folder, else a git revision; ``git:`` says so.

    Raises
    ------
    InputError
        If it is none of these.
    """
    name = written.removeprefix("git:")
    place = folder / name
    if written == name:
        if name.endswith(".json"):
            return LockBaseline(Lock.read(place), name)
        if _exists(place):
            return FileBaseline(place, name.rstrip("/"))
        if name.endswith(".onnx"):
            raise InputError(f"baseline '{name}': is not there")
    return RevisionBaseline(Revision.find(name, folder), scratch)


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except (OSError, ValueError):
        return False
