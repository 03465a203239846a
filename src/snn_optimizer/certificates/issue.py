"""Writing a certificate for two models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from snn_optimizer.certificates.claims import Findings, decide, domain_of, examine
from snn_optimizer.certificates.columns import Broken
from snn_optimizer.certificates.document import FORMAT, bounds_to_json, pack_witness, write_document
from snn_optimizer.certificates.evidence import changed_bits, compare, compare_data, rate_bound
from snn_optimizer.certificates.facts import Facts
from snn_optimizer.certificates.margins import Margin, margin_on
from snn_optimizer.certificates.network import Array, Network
from snn_optimizer.certificates.signals import NotFollowed
from snn_optimizer.errors import UnsupportedModelError
from snn_optimizer.execution.data import Dataset
from snn_optimizer.execution.source import ModelSource, model_digest
from snn_optimizer.ir.domain import InputDomain
from snn_optimizer.version import __version__

__all__ = ["class_entry", "data_entry", "domain_entry", "issue"]


def issue(
    before: ModelSource,
    after: ModelSource,
    *,
    left: Mapping[str, Array],
    domain: InputDomain,
    raised: Callable[[], ModelSource],
    data: Dataset | None = None,
    pipeline: str = "",
    seed: int = 0,
) -> str:
    """Return the text of a certificate that one model does what another does.

    Parameters
    ----------
    before, after : path, bytes or ModelProto
    left : mapping from population name to int array
        Which of its units a population still has, where some are gone.
    domain : InputDomain
        The declared ranges of the inputs, on which proofs rest.
    raised : callable
        Makes the model before any unit was cut, with its neurons recognised; called where the original itself does
        not show them.
    data : Dataset, optional
        Samples on which changed outputs are counted too.
    pipeline : str
        What was run, for the record.
    seed : int
        Of the stimuli both models are run on.
    """
    first, last = Network.read(before), Network.read(after)
    ranges = domain_entry(domain, first)
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": __version__,
        "pipeline": pipeline,
        "before": {"sha256": model_digest(before)},
        "after": {"sha256": model_digest(after)},
        "domain": ranges,
        "witness": None,
        "raising": None,
    }
    witness = first
    facts, findings, reason = _related(first, last, ranges, left)
    if findings is None:
        witness = Network.read(raised())
        facts, findings, reason = _related(witness, last, ranges, left)
        raising = compare(first, witness, ranges, seed)
        if raising.differing:
            facts = findings = None
            reason = f"the raised form differs in {raising.differing:,} of {raising.values:,} values"
        if findings is not None:
            content["witness"] = pack_witness(witness, first)
            content["raising"] = "executed"
    executed = compare(first, last, ranges, seed)
    related = None if facts is None or findings is None else (facts, findings)
    counted = None if data is None else data_entry(first, last, data, related)
    content |= {
        "unrelated": None if findings is not None else reason,
        "cuts": [] if findings is None else findings.cuts,
        "regrouped": [] if findings is None else findings.regrouped,
        "refolded": [] if findings is None else findings.refolded,
        "class": class_entry(findings, content["raising"], counted),
        "execution": {"seed": seed, **executed.to_json()},
        "bits": None if findings is None else changed_bits(witness, last, left, ranges, seed),
        "data": counted,
    }
    return write_document(content)


def class_entry(findings: Findings | None, raising: str | None, data: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the strongest class that holds of both steps, raising and cutting."""
    if findings is None:
        return {"level": "statistical", "reason": "the result was compared by running both models only", "premises": []}
    level, reason = findings.level, findings.reason
    margin = None if data is None else data["margin"]
    if findings.may_be_spike_exact and isinstance(margin, dict) and margin["observations"] and not margin["undecided"]:
        level = "spike-exact"
        reason = "on the samples every membrane stays further from its threshold than rounding can move it"
    if raising == "executed":
        reason = f"the raised form equals the original on the inputs tried; from there: {level}, {reason}"
        level = "statistical"
    return {"level": level, "reason": reason, "premises": findings.premises}


def data_entry(
    before: Network, after: Network, data: Dataset, related: tuple[Facts, Findings] | None
) -> dict[str, Any]:
    """Return what running both models over samples shows, and how close membranes come to their thresholds."""
    compared = compare_data(before, after, data)
    margin: Margin | str = "nothing is known of the sums"
    if related is not None:
        facts, findings = related
        touched = {*findings.regrouped, *findings.refolded}
        margin = margin_on(facts, touched, set(findings.refolded), data) if touched else "no sums have other terms"
    return {
        "sha256": data.digest(),
        **compared.to_json(),
        "changed_at_most": rate_bound(compared.samples, compared.changed),
        "confidence": 0.95,
        "margin": margin if isinstance(margin, str) else asdict(margin),
    }


def domain_entry(domain: InputDomain, network: Network) -> dict[str, Any]:
    """Return the declared ranges for the file."""

    def ends(name: str) -> list[Any]:
        low, high = domain.interval(name)
        if low.ndim == 0 and high.ndim == 0:
            return [_number(low), _number(high)]
        low, high = np.broadcast_arrays(low, high)
        if low.ndim > 1 and low.size == max(low.shape):
            low, high = low.reshape(-1), high.reshape(-1)
        if low.ndim > 1:
            return [float(low.min()), float(high.max())]
        return [bounds_to_json(low), bounds_to_json(high)]

    return {
        "default": [float(end) for end in domain.default],
        "inputs": {name: ends(name) for name in network.inputs if domain.is_declared(name)},
    }


def _number(value: Array) -> float:
    return float(value)


def _related(
    before: Network, after: Network, ranges: Mapping[str, Any], left: Mapping[str, Array]
) -> tuple[Facts | None, Findings | None, str]:
    """Relate two networks, with as much proved as can be; or say why they are not."""
    reason = ""
    for unread in (True, False):
        try:
            facts, claims = decide(before, domain_of(ranges, before), left, unread=unread)
            return facts, examine(facts, claims, after), ""
        except (Broken, NotFollowed, UnsupportedModelError) as error:
            reason = str(error)
    return None, None, reason
