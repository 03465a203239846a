"""What a sweep runs: every pipeline within every budget, and the original beside them.

A run is known by a hash of everything its result depends on: the contents of the model and of the data, the pipeline
with its presets written out, the budget, the seed, the declared input ranges and the version of this package.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np

from snn_optimizer.errors import InputError
from snn_optimizer.execution import Dataset, Session, load_dataset, model_digest
from snn_optimizer.execution.data import read_arrays
from snn_optimizer.ir import InputDomain
from snn_optimizer.job import weakest_claim
from snn_optimizer.passes.base import Exactness
from snn_optimizer.pipeline.budget import Budget
from snn_optimizer.pipeline.presets import expand
from snn_optimizer.pipeline.spec import parse
from snn_optimizer.version import __version__

__all__ = ["BUDGET_KINDS", "DEFAULT_BUDGETS", "DEFAULT_PIPELINES", "Plan", "Run", "Sources"]

BUDGET_KINDS: Final = ("accuracy-drop", "decision-change", "spike-change")
DEFAULT_BUDGETS: Final = (0.0, 0.0025, 0.005, 0.01, 0.02)
DEFAULT_PIPELINES: Final = ("@Oz", "@Oz,quantize-weights", "@O2,prune{budget method=membrane}")


@dataclass(frozen=True, slots=True)
class Sources:
    """The files of a sweep and what is in them.

    Attributes
    ----------
    model, calibration, test : Path
        Absolute; workers read them at the same place.
    digests : tuple of str
        Of the contents, in that order; empty for data that was not given.
    """

    model: Path
    calibration: Path
    test: Path | None
    digests: tuple[str, str, str]

    @classmethod
    def read(cls, model: Path, calibration: Path, test: Path | None) -> Sources:
        """Read the files and remember what is in them.

        Raises
        ------
        InputError
            If one of them cannot be read.
        """
        paths = model.resolve(), calibration.resolve(), None if test is None else test.resolve()
        digests = model_digest(paths[0]), _data_digest(paths[1]), "" if paths[2] is None else _data_digest(paths[2])
        return cls(*paths, digests)

    def open(self) -> tuple[Session, Dataset, Dataset | None]:
        """Load the model into the runtime, and the data that fits it.

        Raises
        ------
        SnnOptimizerError
            If a file cannot be used.
        """
        session = Session(self.model)
        test = None if self.test is None else load_dataset(self.test, session.inputs)
        return session, load_dataset(self.calibration, session.inputs), test


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a sweep, as it is handed to a worker.

    Attributes
    ----------
    key : str
        Hash of everything the result depends on.
    pipeline : str
        Empty for the original.
    budget : float or None
        None where the pipeline spends none.
    """

    key: str
    pipeline: str
    budget: float | None
    budget_kind: str
    seed: int
    sources: Sources
    domain: InputDomain
    version: str = __version__

    @property
    def limits(self) -> Budget:
        """The budget as a job takes it."""
        return Budget() if self.budget is None else Budget(**{self.budget_kind.replace("-", "_"): self.budget})


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep is asked to do.

    Attributes
    ----------
    model, calibration, test : Path
        Nothing is decided on the test samples; they may be left out.
    pipelines : sequence of str
        Pipeline texts. One without a lossy pass spends no budget and runs once for each seed.
    budget_kind : str
        One of ``BUDGET_KINDS``.
    budgets : sequence of float
        Fractions between 0 and 1.
    """

    model: Path
    calibration: Path
    test: Path | None = None
    pipelines: Sequence[str] = DEFAULT_PIPELINES
    budgets: Sequence[float] = DEFAULT_BUDGETS
    budget_kind: str = "accuracy-drop"
    seeds: Sequence[int] = (0,)
    domain: InputDomain = field(default_factory=InputDomain)

    def __post_init__(self) -> None:
        if self.budget_kind not in BUDGET_KINDS:
            raise InputError(f"--budget-kind '{self.budget_kind}' is none of {', '.join(BUDGET_KINDS)}")
        for what, values in (("--budgets", self.budgets), ("--passes", self.pipelines), ("--seeds", self.seeds)):
            if not values:
                raise InputError(f"{what} is empty: there is nothing to run")
        for budget in self.budgets:
            if not 0 <= budget <= 1:
                raise InputError(f"--budgets: {budget:g} is no fraction between 0 and 1")
        for seed in self.seeds:
            if seed < 0:
                raise InputError(f"--seeds: {seed} is negative")

    def runs(self) -> tuple[Run, ...]:
        """Read the files and return what there is to run, the original first.

        Raises
        ------
        SnnOptimizerError
            If a file or a pipeline cannot be used, or the budget needs labels that are not there.
        """
        wanted = [(text, *_spent_by(text)) for text in dict.fromkeys(str(parse(text)) for text in self.pipelines)]
        sources = Sources.read(self.model, self.calibration, self.test)
        _, calibration, _ = sources.open()
        if self.budget_kind == "accuracy-drop" and calibration.labels is None and any(lossy for *_, lossy in wanted):
            raise InputError(
                f"'{self.calibration}' has no labels, so no drop of accuracy can be measured: add an array 'labels', "
                "or use --budget-kind decision-change"
            )
        budgets, seeds = tuple(dict.fromkeys(self.budgets)), tuple(dict.fromkeys(self.seeds))
        found = [self._run(sources, "", "", None, 0)]
        for text, written, lossy in wanted:
            choices = product(budgets if lossy else (None,), seeds)
            found += [self._run(sources, text, written, budget, seed) for budget, seed in choices]
        return tuple(found)

    def _run(self, sources: Sources, text: str, written: str, budget: float | None, seed: int) -> Run:
        decides = {
            "version": __version__,
            "contents": sources.digests,
            "pipeline": written,
            "budget": None if budget is None else [self.budget_kind, budget],
            "seed": seed,
            "domain": _domain_text(self.domain),
            "original": not text,
        }
        key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:20]
        return Run(key, text, budget, self.budget_kind, seed, sources, self.domain)


def _spent_by(text: str) -> tuple[str, bool]:
    """Return a pipeline with its presets written out, and whether it spends a budget; finds mistakes early."""
    pipeline = parse(text)
    if not text:
        raise InputError("--passes has an empty pipeline; the original is part of every sweep")
    return str(expand(pipeline)), weakest_claim(pipeline) is Exactness.LOSSY


def _data_digest(path: Path) -> str:
    """Return the hash of the arrays of a file; how they are packed does not count."""
    digest = hashlib.sha256()
    for name, array in sorted(read_arrays(path).items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _domain_text(domain: InputDomain) -> str:
    named = {name: [np.asarray(end).tolist() for end in ends] for name, ends in sorted(domain.named.items())}
    return json.dumps([list(domain.default), named])
