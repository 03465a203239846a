"""One file that replays a failure: the model, and in its metadata the pipeline, the premises and the data."""

from __future__ import annotations

import base64
import io
import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from snn_optimizer.errors import DataError, InputError, ModelLoadError
from snn_optimizer.execution import Profile
from snn_optimizer.execution.data import read_arrays, save_arrays
from snn_optimizer.execution.source import read_model, serialize
from snn_optimizer.ir import InputDomain, SNNGraph
from snn_optimizer.ir.atomic import AtomicFiles
from snn_optimizer.job import Job, Model, proto_of
from snn_optimizer.passes.base import Exactness, Frontend
from snn_optimizer.pipeline import PassResult, PassStatus
from snn_optimizer.pipeline.budget import Budget
from snn_optimizer.pipeline.manager import Instrument
from snn_optimizer.pipeline.spec import Element, PassSpec, parse
from snn_optimizer.reduction.candidate import Candidate, is_sound
from snn_optimizer.reduction.conduct import samples_of
from snn_optimizer.reduction.failures import Failure, PipelineOracle, failure_of_error
from snn_optimizer.version import __version__, installed_versions

__all__ = ["Replay", "Reproducer", "Watcher", "replay"]

KEY = "snn_optimizer.reproducer"
ARRAYS = ("samples", "profile")  # kept beside the settings, under the key with this ending
FORMAT = 1
PACKAGES = ("onnx", "onnxruntime", "onnx-graphsurgeon", "numpy")


@dataclass(frozen=True, slots=True)
class Reproducer:
    """A failure with everything that it needs.

    Attributes
    ----------
    candidate : Candidate
        The model without the metadata of the reproducer.
    job : Job
    failure : Failure
    versions : mapping from package to version
        Of the run that failed.
    """

    candidate: Candidate
    job: Job
    failure: Failure
    versions: Mapping[str, str]

    @classmethod
    def of(cls, candidate: Candidate, job: Job, failure: Failure) -> Reproducer:
        """Return the reproducer of a failure with the versions of this run."""
        return cls(candidate, job, failure, _versions())

    @property
    def model(self) -> onnx.ModelProto:
        """The model with all the rest in its metadata."""
        job, candidate = self.job, self.candidate
        domain = job.domain
        settings = {
            "format": FORMAT,
            "pipeline": candidate.text,
            "failure": asdict(self.failure),
            "seed": job.seed,
            "budget": asdict(job.budget),
            "domain": {
                "default": list(domain.default),
                "named": {k: [np.asarray(end).tolist() for end in ends] for k, ends in domain.named.items()},
                "max_active": domain.max_active,
                "named_active": dict(domain.named_active),
            },
            "states": dict(job.frontend.states),
            "custom_ops": Path(job.frontend.custom_ops).read_text() if job.frontend.custom_ops else "",
            "min_calibration": job.min_calibration,
            "versions": dict(self.versions),
        }
        properties = {KEY: json.dumps(settings)}
        if candidate.samples is not None:
            properties[f"{KEY}.samples"] = _packed(candidate.samples)
        if job.profile is not None:
            properties[f"{KEY}.profile"] = _packed(_profile_arrays(job.profile))
        found = onnx.ModelProto()
        found.CopyFrom(candidate.model)
        _drop_properties(found)
        for key, value in properties.items():
            found.metadata_props.add(key=key, value=value)
        return found

    def save(self, path: Path) -> None:
        """Write the file, complete or not at all."""
        content = serialize(self.model)
        with AtomicFiles() as files, files.open(path) as stream:
            stream.write(content)

    @classmethod
    def load(cls, path: str | os.PathLike[str], folder: Path) -> Reproducer:
        """Read what :meth:`save` wrote; what passes want as files is written to ``folder``.

        Raises
        ------
        InputError
            If the file cannot be read or is no reproducer.
        """
        name = os.fspath(path)
        model, _ = read_model(path)
        properties = {entry.key: entry.value for entry in model.metadata_props}
        if KEY not in properties:
            raise InputError(f"'{name}' is not a reproducer: it has no metadata '{KEY}'")
        try:
            settings = json.loads(properties[KEY])
            if settings["format"] != FORMAT:
                raise InputError(f"'{name}': a reproducer of format {settings['format']}, this version reads {FORMAT}")
            arrays = {one: _unpacked(properties[f"{KEY}.{one}"]) for one in ARRAYS if f"{KEY}.{one}" in properties}
            return cls._read(model, settings, arrays, folder)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise ModelLoadError(f"'{name}': its metadata '{KEY}' is damaged: {error}") from error

    @classmethod
    def _read(
        cls,
        model: onnx.ModelProto,
        settings: Mapping[str, Any],
        arrays: Mapping[str, Mapping[str, npt.NDArray[Any]]],
        folder: Path,
    ) -> Reproducer:
        _drop_properties(model)
        domain = settings["domain"]
        operators = folder / "custom_ops.toml"
        if settings["custom_ops"]:
            operators.write_text(str(settings["custom_ops"]))
        profile = folder / "profile.npz"
        if "profile" in arrays:
            save_arrays(profile, arrays["profile"])
        candidate = Candidate(model, parse(settings["pipeline"]).elements, arrays.get("samples"))
        job = Job(
            pipeline=candidate.text,
            calibration=candidate.samples,
            profile=profile if "profile" in arrays else None,
            budget=Budget(**settings["budget"]),
            domain=InputDomain(
                default=(float(domain["default"][0]), float(domain["default"][1])),
                named={name: (ends[0], ends[1]) for name, ends in domain["named"].items()},
                max_active=domain["max_active"],
                named_active=domain["named_active"],
            ),
            seed=int(settings["seed"]),
            frontend=Frontend(settings["states"], str(operators) if settings["custom_ops"] else ""),
            min_calibration=int(settings["min_calibration"]),
        )
        return cls(candidate, job, Failure(**settings["failure"]), settings["versions"])


@dataclass(frozen=True, slots=True)
class Replay:
    """What a reproducer does today.

    Attributes
    ----------
    expected : Failure
    found : Failure or None
    pipeline : str
    versions : mapping
        Packages whose version is another one than when it was written, with both versions.
    """

    expected: Failure
    found: Failure | None
    pipeline: str
    versions: Mapping[str, tuple[str, str]]

    @property
    def fails(self) -> bool:
        """Whether the failure is still there."""
        return self.expected.same_as(self.found)


def replay(path: str | os.PathLike[str]) -> Replay:
    """Run a reproducer.

    Raises
    ------
    InputError
        If the file is no reproducer.
    """
    with tempfile.TemporaryDirectory(prefix="snnopt-replay-") as folder:
        one = Reproducer.load(path, Path(folder))
        found = oracle_of(one.candidate, one.job)(one.candidate)
        now = _versions()
        changed = {name: (old, now.get(name, "none")) for name, old in one.versions.items() if now.get(name) != old}
        return Replay(one.failure, found, one.candidate.text, changed)


def oracle_of(candidate: Candidate, job: Job) -> PipelineOracle:
    """Return what judges a candidate; it has to run in onnxruntime only where it can."""
    premises = candidate.job(job)
    return PipelineOracle(job, runs=is_sound(candidate.model, runs=True, seed=job.seed, domain=premises.domain))


class Watcher(Instrument):
    """Keeps what a reproducer needs of a run: the model before the first pass that breaks its claim or raises.

    Attributes
    ----------
    broken : PassResult or None
        The first run of a pass that was rolled back because the result differed.
    before : SNNGraph or None
        What it ran on; None for the model as it came.
    kept : tuple of str
        The passes before it that changed something, with their options.
    """

    def __init__(self) -> None:
        self.broken: PassResult | None = None
        self.before: SNNGraph | None = None
        self.kept: tuple[str, ...] = ()
        self._running: PassResult | None = None
        self._last: SNNGraph | None = None
        self._kept: list[str] = []

    def before_pass(self, number: int, spec: PassSpec, *, runs: bool) -> None:
        """Note what runs; a first run begins anew."""
        if number == 1:
            self._last, self._kept = None, []
        self._running = PassResult(name=spec.name, number=number, text=str(spec))

    def after_pass(self, result: PassResult, graph: SNNGraph) -> None:
        """Keep the model after a pass that stood, and blame one that did not."""
        self._running = None
        if result.status is PassStatus.KEPT:
            self._last = graph.copy(share_weights=True)
            self._kept.append(result.text)
        elif result.status is PassStatus.ROLLED_BACK and result.claim != Exactness.LOSSY.name.lower():
            self._blame(result)

    def _blame(self, result: PassResult) -> None:
        if self.broken is None:
            self.broken, self.before, self.kept = result, self._last, tuple(self._kept)

    def reproducer(self, model: Model, job: Job, error: Exception | None, found: str) -> tuple[Reproducer, bool]:
        """Return the shortest reproducer that replays, and whether one does.

        Parameters
        ----------
        model : SNNGraph, path or ModelProto
        job : Job
        error : Exception, optional
            What the run raised.
        found : str
            In which way the result differs, where no pass was rolled back for it.
        """
        if error is not None and self._running is not None:
            self.broken = None
            self._blame(self._running)
        culprit = self.broken
        expected = Failure("values differ", culprit.name if culprit else "", culprit.reason if culprit else found)
        if error is not None:
            expected = failure_of_error(error, culprit.name if culprit else "")
        original = proto_of(model)
        samples = samples_of(original, job)
        kept = self.kept if culprit else tuple(self._kept)
        behind = _elements((*kept, *([culprit.text] if culprit else [])))
        beginnings = [Candidate(original, behind, samples)]
        if culprit is not None:
            before = original if self.before is None else self.before.to_onnx()
            beginnings.insert(0, Candidate(before, _elements([culprit.text]), samples))
        for one in beginnings:
            failure = oracle_of(one, job)(one)
            if failure is not None and (culprit is None or failure.culprit == culprit.name):
                return Reproducer.of(one, one.job(job), failure), True
        return Reproducer.of(beginnings[-1], beginnings[-1].job(job), expected), False


def _elements(texts: Sequence[str]) -> tuple[Element, ...]:
    return parse(",".join(texts)).elements


def _versions() -> dict[str, str]:
    found = {"snn_optimizer": __version__, "python": platform.python_version()}
    return found | dict.fromkeys(PACKAGES, "unknown") | installed_versions(PACKAGES)


def _drop_properties(model: onnx.ModelProto) -> None:
    kept = [(entry.key, entry.value) for entry in model.metadata_props if not entry.key.startswith(KEY)]
    del model.metadata_props[:]
    for key, value in kept:
        model.metadata_props.add(key=key, value=value)


def _profile_arrays(profile: str | os.PathLike[str] | Profile) -> dict[str, npt.NDArray[Any]]:
    if not isinstance(profile, Profile):
        return read_arrays(profile)
    with tempfile.TemporaryDirectory(prefix="snnopt-") as folder:
        profile.save(Path(folder) / "profile.npz")
        return read_arrays(Path(folder) / "profile.npz")


def _packed(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    stream = io.BytesIO()
    np.savez_compressed(stream, **{f"array:{name}": array for name, array in arrays.items()})  # type: ignore[arg-type]
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _unpacked(text: str) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(io.BytesIO(base64.b64decode(text, validate=True)), allow_pickle=False) as archive:
            return {name.removeprefix("array:"): archive[name] for name in archive.files}
    except OSError as error:
        raise DataError(f"its arrays cannot be read: {error}") from error
