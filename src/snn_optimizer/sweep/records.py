"""The results of single runs, and the folder that keeps them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, get_args, get_type_hints

from snn_optimizer.errors import ModelLoadError, OutputError
from snn_optimizer.execution import model_digest
from snn_optimizer.ir.atomic import write_text
from snn_optimizer.sweep.plan import Run

__all__ = ["Record", "Results"]


@dataclass(frozen=True, slots=True)
class Record:
    """What one run found; None where it found nothing.

    Attributes
    ----------
    verdict : str
        ``original``, ``equivalent``, ``within budget``, ``different``, ``inconclusive`` or ``failed``.
    reason : str
        Why a run failed, cannot be judged, or gave a pass up.
    exit_code : int
        That of the same run alone.
    dense, effective_macs, effective_acs, energy : float
        Synaptic operations and picojoule per sample, see :mod:`snn_optimizer.report.costs`.
    accuracy_calibration, accuracy_test : float
        None without labels.
    decision_change, spike_change : float
        Fractions of the test samples, or of the calibration samples where there are no others.
    latency, latency_ms : float
        Median run time at batch 1, as a ratio to the original and in milliseconds.
    model_digest : str
        Of the model that was written; empty when there is none.
    seconds : float
        Time of the optimization.
    """

    key: str
    pipeline: str
    budget: float | None
    seed: int
    verdict: str
    reason: str = ""
    exit_code: int = 0
    parameters: int | None = None
    nonzero_parameters: int | None = None
    neurons: int | None = None
    bytes: int | None = None
    nodes: int | None = None
    dense: float | None = None
    effective_macs: float | None = None
    effective_acs: float | None = None
    energy: float | None = None
    accuracy_calibration: float | None = None
    accuracy_test: float | None = None
    decision_change: float | None = None
    spike_change: float | None = None
    latency: float | None = None
    latency_ms: float | None = None
    model_digest: str = ""
    seconds: float = 0.0

    @property
    def is_sound(self) -> bool:
        """Tell whether the result is one to use: it exists and was found to be what it claims."""
        return self.exit_code == 0

    @property
    def operations(self) -> float | None:
        """Effective synaptic operations per sample."""
        if self.effective_macs is None or self.effective_acs is None:
            return None
        return self.effective_macs + self.effective_acs

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read what :func:`dataclasses.asdict` wrote.

        Raises
        ------
        ValueError
            If it is something else.
        """
        hints = get_type_hints(cls)
        if not isinstance(data, dict) or set(data) != set(hints):
            raise ValueError("the fields are not those of a record")
        values = {}
        for name, hint in hints.items():
            allowed, value = get_args(hint) or (hint,), data[name]
            if type(value) is int and int not in allowed and float in allowed:
                value = float(value)
            if type(value) not in allowed:
                raise ValueError(f"'{name}' is {value!r}")
            values[name] = value
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Results:
    """A folder with one file per finished run, so that an interrupted sweep goes on.

    A file is complete or absent. One that cannot be read, or belongs to something else, counts as absent.
    """

    folder: Path

    def prepare(self) -> None:
        """Make the folder.

        Raises
        ------
        OutputError
            If that, or writing in it, is not possible.
        """
        try:
            for each in (self._runs, self._models):
                each.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"'{self.folder}': cannot make the folder: {error.strerror or error}") from error
        if not os.access(self._runs, os.W_OK) or not os.access(self._models, os.W_OK):
            raise OutputError(f"'{self.folder}': the folder cannot be written")

    def model_path(self, key: str) -> Path:
        """Return where the model of a run lies."""
        return self._models / f"{key}.onnx"

    def save(self, record: Record) -> None:
        """Write a record.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        write_text(self._record_path(record.key), json.dumps(asdict(record), indent=1, ensure_ascii=False) + "\n")

    def finished(self, run: Run, *, keep_models: bool) -> Record | None:
        """Return the record of a run when nothing of it is left to do but to measure its latency."""
        try:
            record = Record.from_json(json.loads(self._record_path(run.key).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None
        if record.key != run.key:
            return None
        record = replace(record, pipeline=run.pipeline)  # the same passes may have been written another way
        needs_model = record.model_digest and (keep_models or record.latency is None)
        return None if needs_model and not self._has_model(record) else record

    def forget_model(self, record: Record) -> None:
        """Delete the model of a run."""
        path = self.model_path(record.key)
        for each in (path, path.with_name(f"{path.name}.data")):
            each.unlink(missing_ok=True)

    def _has_model(self, record: Record) -> bool:
        try:
            return model_digest(self.model_path(record.key)) == record.model_digest
        except ModelLoadError:
            return False

    def _record_path(self, key: str) -> Path:
        return self._runs / f"{key}.json"

    @property
    def _runs(self) -> Path:
        return self.folder / "runs"

    @property
    def _models(self) -> Path:
        return self.folder / "models"
