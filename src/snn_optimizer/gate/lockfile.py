"""``snnopt.lock.json``: the measures of models as they were recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snn_optimizer.errors import InputError
from snn_optimizer.ir.atomic import write_text
from snn_optimizer.measures import MEASURES, Need

__all__ = ["Lock", "Recorded"]

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Recorded:
    """One model: the SHA-256 of its file with its external weights, and its measures."""

    digest: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Lock:
    """Recorded measures, by the path of the model relative to the configuration file."""

    models: Mapping[str, Recorded] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Lock:
        """Read a file.

        Raises
        ------
        InputError
            If it cannot be read or is none.
        """
        try:
            data = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise InputError(f"'{path}': is not there; record it with: snnopt gate --update") from None
        except OSError as error:
            raise InputError(f"'{path}': cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise InputError(f"'{path}': is no JSON: {error}") from error
        if not isinstance(data, dict) or not isinstance(data.get("models"), dict):
            raise InputError(f"'{path}': is no lock file of snnopt; record one with: snnopt gate --update")
        if data.get("schema") != _VERSION:
            raise InputError(f"'{path}': is a lock file of version {data.get('schema')}, this snnopt reads {_VERSION}")
        return cls({name: _recorded(path, name, held) for name, held in data["models"].items()})

    def write(self, path: Path) -> None:
        """Write a file; it appears complete or not at all.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        models = {
            name: {"sha256": held.digest, "measures": {k: _plain(held.values[k]) for k in MEASURES if k in held.values}}
            for name, held in sorted(self.models.items())
        }
        write_text(path, json.dumps({"schema": _VERSION, "models": models}, indent=2, ensure_ascii=False) + "\n")


def recordable(values: Mapping[str, float]) -> dict[str, float]:
    """Return those measures that are the same on every machine."""
    lasting = (Need.FILE, Need.NETWORK, Need.SAMPLES)
    return {name: value for name, value in values.items() if MEASURES[name].need in lasting}


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _recorded(path: Path, name: str, held: Any) -> Recorded:
    measures = held.get("measures") if isinstance(held, dict) else None
    if not isinstance(measures, dict) or not all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in measures.values()
    ):
        raise InputError(f"'{path}': '{name}' has no measures; record them with: snnopt gate --update")
    return Recorded(str(held.get("sha256", "")), {key: value for key, value in measures.items() if key in MEASURES})
