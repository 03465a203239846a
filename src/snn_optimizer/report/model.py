"""The report of an optimization: what went in, what came out, what every pass did, and the evidence."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from snn_optimizer.ir import html_table
from snn_optimizer.pipeline.records import PassResult, PassStatus
from snn_optimizer.remarks import Remark
from snn_optimizer.verification import CaseResult, Equivalence

__all__ = ["Evidence", "EvidenceCase", "OptimizationReport", "Size"]


@dataclass(frozen=True, slots=True)
class Size:
    """How large a model is."""

    neurons: int = 0
    params: int = 0
    nonzero_params: int = 0
    nodes: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class EvidenceCase:
    """What was compared on one stimulus, or on the data.

    Attributes
    ----------
    generated : bool
        False for the caller's data.
    differing : int
        Elements of outputs that differ, near ties included.
    """

    name: str
    generated: bool = True
    samples: int = 0
    spikes_compared: int = 0
    spikes_seen: int = 0
    differing: int = 0
    near_ties: int = 0

    @classmethod
    def of(cls, case: CaseResult) -> Self:
        """Return the numbers of a case."""
        found = case.comparison
        return cls(
            name=case.name,
            generated=case.generated,
            samples=case.samples,
            spikes_compared=found.spikes_compared,
            spikes_seen=found.spikes_seen,
            differing=found.differing,
            near_ties=case.near_ties,
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the final comparison of the original and the result found.

    Attributes
    ----------
    verdict : str
        ``EQUIVALENT``, ``DIFFERENT``, ``INCONCLUSIVE``, or empty when not checked.
    spikes_compared : int
        Elements of spike trains compared, over all stimuli.
    spikes_changed : int
    near_ties : int
        Samples that differ because a membrane came within rounding of its threshold.
    cases : tuple of EvidenceCase
        The same by stimulus.
    silent : tuple of str
        Populations that never fired: nothing was seen of them.
    skipped : tuple of str
        Stimuli on which the original itself does not run.
    """

    verdict: str = ""
    reason: str = ""
    values_compared: int = 0
    spikes_compared: int = 0
    spikes_seen: int = 0
    spikes_changed: int = 0
    near_ties: int = 0
    samples: int = 0
    cases: tuple[EvidenceCase, ...] = ()
    silent: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: Equivalence) -> Self:
        """Return the numbers of a comparison."""
        return cls(
            verdict=str(found.verdict),
            reason=found.reason,
            values_compared=found.values_compared,
            spikes_compared=found.spikes_compared,
            spikes_seen=found.spikes_seen,
            spikes_changed=found.spikes_differing,
            near_ties=found.near_ties,
            samples=found.samples,
            cases=tuple(EvidenceCase.of(case) for case in found.cases),
            silent=found.silent,
            skipped=found.skipped,
        )


@dataclass(slots=True)
class OptimizationReport:
    """What an optimization did.

    Attributes
    ----------
    pass_results : list of PassResult
        In the order they ran.
    before, after : Size
    evidence : Evidence
    accuracy_before, accuracy_after : float or None
        On the labelled data given for testing (else for calibration).
    outputs_changed, decisions_changed : float or None
        Fractions of spikes and of decisions that changed on the same data.
    form : str
        What was found when the result was written in another form; empty when it was not.
    split : str
        Which samples weights were fitted to, and on which the budget was measured; empty when nothing was fitted.
    assumptions : list of str
        What was declared of the inputs: what is proved holds where this does.
    warnings : list of str
    """

    pass_results: list[PassResult] = field(default_factory=list)
    before: Size = field(default_factory=Size)
    after: Size = field(default_factory=Size)
    evidence: Evidence = field(default_factory=Evidence)
    model: str = ""
    pipeline: str = ""
    exactness: str = "bitwise"
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    accuracy_samples: int = 0
    outputs_changed: float | None = None
    decisions_changed: float | None = None
    seconds: float = 0.0
    assumptions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    form: str = ""
    split: str = ""

    @property
    def params_before(self) -> int:
        """Weights and biases of the input."""
        return self.before.params

    @property
    def params_after(self) -> int:
        """Weights and biases of the result."""
        return self.after.params

    @property
    def neurons_before(self) -> int:
        """Neurons of the input."""
        return self.before.neurons

    @property
    def neurons_after(self) -> int:
        """Neurons of the result."""
        return self.after.neurons

    @property
    def compression_ratio(self) -> float:
        """How many times fewer parameters the result has; 1 when nothing changed."""
        if self.before.params == self.after.params:
            return 1.0
        return self.before.params / self.after.params if self.after.params else math.inf

    @property
    def remarks(self) -> list[Remark]:
        """All remarks, in order."""
        return [remark for result in self.pass_results for remark in result.remarks]

    def summary(self) -> str:
        """Return the report as a few lines of plain text."""
        lines = [f"{self.model or 'model'}: {self.pipeline}".rstrip(": ")]
        for label, old, new in self._sizes():
            lines.append(f"  {label:<11}{old:>12,} -> {new:>12,}  {_change(old, new)}")
        lines += [
            f"  {result.name:<29} {describe_result(result)}"
            for result in self.pass_results
            if result.status is not PassStatus.UNCHANGED
        ]
        lines.append(f"  compression {self.compression_ratio:.2f}x, exactness {self.exactness}")
        if self.assumptions:
            lines.append(f"  premise: {'; '.join(self.assumptions)}")
        if self.evidence.verdict:
            lines.append(f"  {describe_evidence(self.evidence)}")
        if self.accuracy_before is not None and self.accuracy_after is not None:
            lines.append(
                f"  accuracy {self.accuracy_before:.2%} -> {self.accuracy_after:.2%} on {self.accuracy_samples} samples"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the tables that notebooks show."""
        rows = [(label, f"{old:,}", f"{new:,}", _change(old, new)) for label, old, new in self._sizes()]
        if self.accuracy_before is not None and self.accuracy_after is not None:
            label = f"accuracy ({self.accuracy_samples:,} samples)"
            rows.append((label, f"{self.accuracy_before:.2%}", f"{self.accuracy_after:.2%}", ""))
        title = f"{self.model or 'model'}: {self.pipeline}".rstrip(": ")
        evidence = describe_evidence(self.evidence) if self.evidence.verdict else "not verified"
        acted = [result for result in self.pass_results if result.status is not PassStatus.UNCHANGED]
        return "\n".join([
            html_table(title, ("", "before", "after", "change"), rows, f"{self.exactness}; {evidence}"),
            html_table("passes", ("pass", "claim", "result"), [(r.name, r.claim, describe_result(r)) for r in acted]),
        ])  # fmt: skip

    def _sizes(self) -> list[tuple[str, int, int]]:
        """Return what is counted: its name, before and after."""
        named = (
            ("neurons", "neurons"),
            ("parameters", "params"),
            ("non-zero", "nonzero_params"),
            ("nodes", "nodes"),
            ("bytes", "bytes"),
        )
        return [(label, getattr(self.before, name), getattr(self.after, name)) for label, name in named]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serializable form."""
        return {
            "model": self.model,
            "pipeline": self.pipeline,
            "exactness": self.exactness,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "compression_ratio": self.compression_ratio if math.isfinite(self.compression_ratio) else None,
            "evidence": asdict(self.evidence),
            "accuracy_before": self.accuracy_before,
            "accuracy_after": self.accuracy_after,
            "accuracy_samples": self.accuracy_samples,
            "outputs_changed": self.outputs_changed,
            "decisions_changed": self.decisions_changed,
            "seconds": self.seconds,
            "form": self.form,
            "split": self.split,
            "assumptions": list(self.assumptions),
            "warnings": list(self.warnings),
            "passes": [result.to_json() for result in self.pass_results],
        }

    def to_markdown(self) -> str:
        """Return the report as GitHub-flavoured Markdown."""
        rows = ["| | before | after | change |", "|---|---:|---:|---:|"]
        rows += [
            f"| {label} | {old:,} | {new:,} | {_change(old, new)} |"
            for label, old, new in self._sizes()
            if label != "non-zero"
        ]
        if self.accuracy_before is not None and self.accuracy_after is not None:
            rows.append(f"| accuracy | {self.accuracy_before:.2%} | {self.accuracy_after:.2%} | |")
        passes = ["| pass | result | seconds |", "|---|---|---:|"]
        passes += [
            f"| `{r.name}` | {describe_result(r)} | {r.seconds:.3f} |"
            for r in self.pass_results
            if r.status is not PassStatus.UNCHANGED
        ]
        evidence = describe_evidence(self.evidence) if self.evidence.verdict else "not checked"
        premises = [f"Premise: {'; '.join(self.assumptions)}.", ""] if self.assumptions else []
        return "\n".join([f"## {self.model or 'model'}", "", *rows, "", *passes, "", *premises, evidence, ""])

    def dumps(self, suffix: str) -> str:
        """Return the text of a report file of the given suffix (``.json`` or ``.md``)."""
        return (
            self.to_markdown() if suffix == ".md" else json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"
        )


def describe_result(result: PassResult) -> str:
    """Say in one phrase what a pass did."""
    if result.status is PassStatus.ROLLED_BACK:
        return f"rolled back: {result.reason} (it {result.blame()})"
    if result.status is PassStatus.SKIPPED:
        return f"skipped: {result.reason}"
    if result.status is PassStatus.UNCHANGED:
        return "nothing to do"
    parts = []
    if result.neurons_removed:
        parts.append(f"{result.neurons_removed:,} neurons removed")
    if result.layers_fused:
        parts.append(f"{result.layers_fused} layers fused")
    if result.params_before != result.params_after:
        parts.append(_difference(result.params_before, result.params_after, "parameters"))
    if result.nodes_before != result.nodes_after:
        parts.append(_difference(result.nodes_before, result.nodes_after, "nodes"))
    parts += [f"{number:,} {what.replace('-', ' ')}" for what, number in result.statistics.items()]
    return ", ".join(parts) or f"{result.changes} changes"


def _difference(before: int, after: int, what: str) -> str:
    return f"{abs(before - after):,} {what} {'less' if after < before else 'more'}"


def describe_evidence(evidence: Evidence) -> str:
    """Say in one line what the comparison found."""
    text = (
        f"{evidence.verdict}: {evidence.spikes_compared:,} spikes compared, {evidence.spikes_changed:,} changed "
        f"({evidence.samples:,} samples, {evidence.spikes_seen:,} spikes fired)"
    )
    if evidence.near_ties:
        text += f"; {evidence.near_ties} generated samples within rounding of a threshold"
    return text if evidence.verdict == "EQUIVALENT" or not evidence.reason else f"{text}; {evidence.reason}"


def _change(old: int, new: int) -> str:
    return "" if old == new else ("new" if not old else f"{(new - old) / old:+.1%}")
