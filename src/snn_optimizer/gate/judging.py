"""Measure models, and hold them against their budgets."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from snn_optimizer.errors import DataError, ExecutionError, InputError
from snn_optimizer.execution import model_digest
from snn_optimizer.execution.benchmark import Benchmark, benchmark
from snn_optimizer.execution.timing import Ratio
from snn_optimizer.gate.baselines import Baseline, Known, LockBaseline, find_baseline
from snn_optimizer.gate.lockfile import Lock, Recorded, recordable
from snn_optimizer.gate.pointers import pointer_of_file
from snn_optimizer.gate.results import Check, Found, GateResult, Status
from snn_optimizer.gate.selection import Selected
from snn_optimizer.gate.settings import Rule, Settings
from snn_optimizer.gate.shrinking import Shrunk, shrink
from snn_optimizer.measures import MEASURES, Measured, Need, amount_text, measure_model

__all__ = ["run_gate"]

Progress = Callable[[str, int, int], None]


def run_gate(
    settings: Settings,
    models: Sequence[Selected],
    *,
    baseline: str = "",
    update: bool = False,
    progress: Progress | None = None,
) -> GateResult:
    """Measure models and judge them.

    Parameters
    ----------
    settings : Settings
    models : sequence of Selected
    baseline : str
        Instead of that of the settings.
    update : bool
        Record the measures in the lock file, and compare with those.
    progress : callable, optional
        Takes what, done and total.

    Raises
    ------
    InputError
        If a model, its samples or the baseline cannot be read, or a limit needs what is not there.
    """
    if not models:
        raise InputError("no model to check: a gate that checked nothing has not passed")
    written = baseline or settings.baseline
    if update and written and (Path.cwd() if baseline else settings.folder) / written != settings.lock:
        where = "--baseline" if baseline else f"the baseline of '{settings.file}'"
        raise InputError(f"--update records a lock file, and {where} is '{written}': leave out one of them")
    for model in models:
        _require_files(model, settings)
        if not update and not settings.rules_of(model.name):
            raise InputError(f"'{model.shown}': no limit applies to it; write one in '{settings.file}', or exclude it")
    with tempfile.TemporaryDirectory(prefix="snnopt-gate-") as scratch:
        found = None if update else _baseline(settings, baseline, Path(scratch))
        measured: dict[str, Measured] = {}
        for number, model in enumerate(models):
            if progress is not None:
                progress("measure", number, len(models))
            measured[model.name] = _measured(model, settings)
        if update:
            found = _record(settings, models, measured)
        results = []
        for number, model in enumerate(models):
            if progress is not None:
                progress("judge", number, len(models))
            results.append(_Judge(settings, model, measured[model.name], found).judge())
    compared = written or ("" if found is None else settings.lock.name)
    return GateResult(os.path.relpath(settings.file).replace(os.sep, "/"), compared, tuple(results))


def _baseline(settings: Settings, named: str, scratch: Path) -> Baseline | None:
    """Return what the caller named, else what the settings name, else the lock file where there is one."""
    if named:
        return find_baseline(named, Path.cwd(), scratch)
    if settings.baseline:
        return find_baseline(settings.baseline, settings.folder, scratch)
    return LockBaseline(Lock.read(settings.lock), settings.lock.name) if settings.lock.is_file() else None


def _require_files(model: Selected, settings: Settings) -> None:
    """Refuse what would fail after minutes: pointers instead of models, limits without samples."""
    pointer = pointer_of_file(model.path)
    if pointer is not None:
        size = amount_text(pointer.size, "bytes")
        raise InputError(f"'{model.shown}' is a Git LFS pointer, not the model ({size}): run 'git lfs pull'")
    needing = [rule.measure for rule in settings.rules_of(model.name) if MEASURES[rule.measure].need is Need.SAMPLES]
    data = settings.data_of(model.name)
    if needing and data is None:
        raise InputError(f"'{model.shown}': {needing[0]} needs samples: say 'data = \"....npz\"' in '{settings.file}'")


def _measured(model: Selected, settings: Settings, path: Path | None = None) -> Measured:
    """Measure a model, on samples only where a limit asks for it or samples are named."""
    data = settings.data_of(model.name)
    return measure_model(path or model.path, data, mac_energy=settings.mac_energy, ac_energy=settings.ac_energy)


def _record(settings: Settings, models: Sequence[Selected], measured: Mapping[str, Measured]) -> LockBaseline:
    """Write the lock file; models that were not asked for keep what was recorded of them, unless they are gone."""
    kept = dict(Lock.read(settings.lock).models) if settings.lock.is_file() else {}
    kept = {name: held for name, held in kept.items() if (settings.folder / name).is_file()}
    for model in models:
        values = recordable(measured[model.name].values)
        kept[model.name] = Recorded(model_digest(model.path), values)
    lock = Lock(kept)
    lock.write(settings.lock)
    return LockBaseline(lock, settings.lock.name)


@dataclass
class _Judge:
    settings: Settings
    model: Selected
    measured: Measured
    source: Baseline | None

    def judge(self) -> Found:
        rules = self.settings.rules_of(self.model.name)
        known = None if self.source is None else self.source.of(self.model.name, self.model.path)
        before = self._baseline_values(known)
        values = dict(self.measured.values)
        times, why_not = self._times(rules, known)
        values |= {name: ratio.median for name, ratio in times.items()}
        shrunk = shrink(self.model.path) if any(_need(rule) is Need.OPTIMIZER for rule in rules) else None
        if shrunk is not None and shrunk.share is not None:
            values["could-be-smaller"] = shrunk.share
        checks = []
        for rule in rules:
            if rule.limit.relative or _need(rule) is Need.TURNS:
                self._require_baseline(rule)
                if known is None:
                    checks.append(self._without_baseline(rule, values))
                    continue
            if _need(rule) is Need.TURNS:
                checks.append(_timed(rule, times.get(rule.measure), why_not))
            elif _need(rule) is Need.OPTIMIZER:
                assert shrunk is not None
                checks.append(_shrunk(rule, shrunk, self.model.shown))
            else:
                checks.append(self._compared(rule, values.get(rule.measure), before))
        return Found(
            self.model.name,
            self.model.shown,
            self.model.path,
            values,
            tuple(checks),
            known.label if known else "",
            before,
        )

    def _baseline_values(self, known: Known | None) -> Mapping[str, float]:
        if known is None:
            return {}
        if known.values is not None:
            return known.values
        assert known.path is not None
        try:
            return _measured(self.model, self.settings, known.path).values
        except (DataError, ExecutionError):  # another interface: the samples of today do not fit
            return measure_model(known.path).values
        except InputError as error:
            reason = str(error).replace(f"'{known.path}'", f"'{self.model.shown}'")
            raise InputError(f"baseline {known.label}: {reason}") from error

    def _require_baseline(self, rule: Rule) -> None:
        if self.source is None:
            raise InputError(
                f"'{self.model.shown}': {rule.measure} = {rule.limit.text} is relative to a baseline, there is none: "
                "name one (--baseline REVISION or FILE), or record one with --update"
            )
        if _need(rule) is Need.TURNS and isinstance(self.source, LockBaseline):
            raise InputError(
                f"'{self.model.shown}': {rule.measure} needs a model to run beside it, which the lock file "
                f"'{self.source.name}' is not: name a git revision or a file as baseline"
            )

    def _without_baseline(self, rule: Rule, values: Mapping[str, float]) -> Check:
        assert self.source is not None
        status = Status.NEW if not self.source.strict else _over(rule)
        return Check(rule, status, f"{self.model.shown} {self.source.missing}", values.get(rule.measure))

    def _compared(self, rule: Rule, value: float | None, before: Mapping[str, float]) -> Check:
        baseline = before.get(rule.measure)
        label = MEASURES[rule.measure].label
        if value is None:
            return Check(rule, Status.UNKNOWN, f"{label}: cannot be measured in this model", None, baseline)
        if rule.limit.relative and baseline is None:
            if isinstance(self.source, LockBaseline):
                return Check(rule, _over(rule), f"{label} {self.source.missing}", value)
            return Check(rule, Status.UNKNOWN, f"{label}: cannot be measured in the baseline", value)
        allowed, unit = rule.limit.allowed(baseline), MEASURES[rule.measure].unit
        if rule.limit.holds(value, baseline):
            return Check(rule, Status.PASS, f"{label}: within the budget", value, baseline, allowed)
        text = f"{label}: {_exact(value, unit)}"
        if value < allowed:
            message = f"{text}, less than the recorded {_exact(allowed, unit)}: record it with 'snnopt gate --update'"
            return Check(rule, _over(rule), message, value, baseline, allowed)
        origin = "" if not rule.limit.relative else f" ({rule.limit.text} of {_exact(baseline or 0, unit)})"
        if rule.limit.text == "=":
            origin = " as in the baseline"
        message = f"{text}, allowed {_exact(allowed, unit)}{origin}: over by {_exact(value - allowed, unit)}"
        return Check(rule, _over(rule), message, value, baseline, allowed)

    def _times(self, rules: Sequence[Rule], known: Known | None) -> tuple[dict[str, Ratio], str]:
        """Time the model and its baseline in turns; the reason where they cannot be compared."""
        if not any(_need(rule) is Need.TURNS for rule in rules) or known is None or known.path is None:
            return {}, ""
        settings = self.settings
        try:
            found = benchmark(
                [known.path, self.model.path],
                batches=() if settings.batch is None else (settings.batch,),
                threads=settings.threads,
                rounds=settings.rounds,
                data=settings.data_of(self.model.name),
            )
        except (InputError, ExecutionError) as error:
            return {}, str(error).splitlines()[0]
        return _ratios(found), ""


def _ratios(found: Benchmark) -> dict[str, Ratio]:
    runs = next(iter(found.runs.values()))
    held = {"load-time": found.load.models[1].ratio, "run-time": runs.models[1].ratio}
    return {name: ratio for name, ratio in held.items() if ratio is not None}


def _need(rule: Rule) -> Need:
    return MEASURES[rule.measure].need


def _over(rule: Rule) -> Status:
    return Status.WARN if rule.warns else Status.FAIL


def _exact(value: float, unit: str) -> str:
    """Write an amount so that two that differ look different."""
    return f"{value:,.0f} bytes" if unit == "bytes" and value == round(value) else amount_text(value, unit)


def _timed(rule: Rule, ratio: Ratio | None, why_not: str) -> Check:
    """Judge a ratio of times: over budget only where noise cannot be the reason."""
    label = MEASURES[rule.measure].label
    if ratio is None:
        return Check(rule, Status.UNKNOWN, f"{label}: cannot be compared: {why_not}")
    allowed = rule.limit.allowed(1.0)
    bounds = f"{ratio.low:.3f} to {ratio.high:.3f} at {ratio.confidence:.0%}"
    text = f"{label}: {ratio.median:.3f} of the baseline ({bounds})"
    if ratio.low > allowed:
        return Check(rule, _over(rule), f"{text}, allowed {allowed:g}", ratio.median, 1.0, allowed)
    if ratio.median > allowed:
        message = f"{text}, allowed {allowed:g}: within the noise of the measurement"
        return Check(rule, Status.WARN, message, ratio.median, 1.0, allowed)
    return Check(rule, Status.PASS, text, ratio.median, 1.0, allowed)


def _shrunk(rule: Rule, shrunk: Shrunk, shown: str) -> Check:
    if shrunk.share is None:
        return Check(rule, Status.UNKNOWN, f"could be smaller: cannot tell: {shrunk.reason}")
    allowed, file = rule.limit.allowed(None), shlex.quote(shown)
    if shrunk.share <= allowed:
        message = f"could be smaller: by {shrunk.share:.1%} at -O2, within the budget"
        return Check(rule, Status.PASS, message, shrunk.share, None, allowed)
    message = (
        f"could be smaller: -O2 makes it {shrunk.share:.1%} smaller with the same spikes "
        f"({shrunk.before:,} to {shrunk.after:,} bytes), allowed {allowed:.1%}; run: snnopt optimize {file} -o {file}"
    )
    return Check(rule, _over(rule), message, shrunk.share, None, allowed)
