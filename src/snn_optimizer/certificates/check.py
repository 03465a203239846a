"""Checking a certificate against the two models it speaks of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from snn_optimizer.certificates.claims import cuts_from_json, domain_of, examine
from snn_optimizer.certificates.columns import Broken
from snn_optimizer.certificates.document import seal, unpack_witness
from snn_optimizer.certificates.evidence import changed_bits, compare
from snn_optimizer.certificates.facts import Facts
from snn_optimizer.certificates.issue import class_entry, data_entry
from snn_optimizer.certificates.network import Network
from snn_optimizer.certificates.signals import NotFollowed
from snn_optimizer.errors import DataError, ExecutionError, ModelLoadError, UnsupportedModelError
from snn_optimizer.execution.data import load_dataset
from snn_optimizer.execution.source import ModelSource, model_digest

__all__ = ["Checked", "check"]


class Rejected(Exception):  # noqa: N818 - a verdict
    """The certificate does not hold; the message says why."""


@dataclass(slots=True)
class Checked:
    """What came out of checking a certificate.

    Attributes
    ----------
    holds : bool
    reason : str
        Why it does not.
    steps : list of str
        What was verified, in order.
    level, level_reason : str
        The class that holds.
    proved, assumed : int
        Units that are gone by proof, and without one.
    bits : dict
        Currents whose bits change here, by the rewrite and by the runtime's own optimizer.
    """

    holds: bool = True
    reason: str = ""
    steps: list[str] = field(default_factory=list)
    level: str = ""
    level_reason: str = ""
    premises: list[str] = field(default_factory=list)
    proved: int = 0
    assumed: int = 0
    bits: dict[str, Any] | None = None


def check(before: ModelSource, after: ModelSource, content: dict[str, Any], data: Any = None) -> Checked:
    """Check a certificate with nothing but the two files and itself.

    Parameters
    ----------
    before, after : path, bytes or ModelProto
    content : dict
        As read by :func:`~snn_optimizer.certificates.document.read_document`.
    data : path, optional
        The samples the certificate counts on, to count again.

    Raises
    ------
    ModelLoadError, DataError
        If a model or the samples cannot be read.
    """
    result = Checked()
    try:
        _check(before, after, content, data, result)
    except (Rejected, Broken) as error:
        result.holds, result.reason = False, str(error)
    except NotFollowed as error:
        result.holds, result.reason = False, f"the checker cannot follow the network: {error}"
    except (ModelLoadError, DataError):
        raise  # a file that cannot be read says nothing of the certificate
    except UnsupportedModelError as error:
        result.holds, result.reason = False, str(error)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        result.holds, result.reason = False, f"the certificate contradicts itself: {_said(error)}"
    except ExecutionError as error:
        result.holds, result.reason = False, str(error)
    return result


def _said(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) and error.args else str(error)


def _check(before: ModelSource, after: ModelSource, content: dict[str, Any], data: Any, result: Checked) -> None:
    if seal(content) != content.get("seal"):
        raise Rejected("the certificate was changed after it was written: its seal does not fit")
    for name, source in (("before", before), ("after", after)):
        if model_digest(source) != content[name]["sha256"]:
            raise Rejected(f"the model {name} is not the one the certificate speaks of")
    result.steps.append("both models are those of the certificate (SHA-256)")
    first, last = Network.read(before), Network.read(after)
    ranges = content["domain"]
    domain_of(ranges, first)
    seed = content["execution"]["seed"]
    witness, facts, findings = first, None, None
    if content["witness"] is not None:
        witness = unpack_witness(content["witness"], first)
        _raised(first, witness, content, seed, result)
    elif content["raising"] is not None:
        raise Rejected("it speaks of a raised form and holds none")
    if content["unrelated"] is None:
        claims = cuts_from_json(content["cuts"])
        facts = Facts(witness, domain_of(ranges, witness), claims.cuts)
        findings = examine(facts, claims, last)
        for what in ("cuts", "regrouped", "refolded"):
            if getattr(findings, what) != content[what]:
                raise Rejected(
                    f"what it says of {what} is not what follows from the models{_first(findings, content, what)}"
                )
        gone = sum(len(cut.twin) - len(cut.kept) for cut in claims.cuts.values())
        result.assumed = sum(int(mask.sum()) for mask in claims.assumed.values())
        result.proved = gone - result.assumed
        result.steps.append(f"{result.proved} of {gone} cut units are proved, every bound computed again")
        result.steps.append("weights, parameters and structure of the result follow from the original and the cuts")
        left = {name: cut.kept for name, cut in claims.cuts.items()}
        result.bits = changed_bits(witness, last, left, ranges, seed)
    elif content["cuts"] or content["regrouped"] or content["refolded"] or content["witness"]:
        raise Rejected("it claims cuts of models it calls unrelated")
    if class_entry(findings, content["raising"], content["data"]) != content["class"]:
        raise Rejected(f"the class is not '{content['class']['level']}, {content['class']['reason']}'")
    _executed(first, last, content, seed, result)
    if data is not None:
        _counted(first, last, content, data, None if findings is None else (facts, findings), result)
    elif content["data"] is not None:
        result.steps.append("what it counts on samples was not counted again (--data)")
    entry = content["class"]
    result.level, result.level_reason, result.premises = entry["level"], entry["reason"], list(entry["premises"])


def _first(findings: Any, content: dict[str, Any], what: str) -> str:
    """Say where two lists of cuts part."""
    if what != "cuts":
        return ""
    for found, said in zip(findings.cuts, content["cuts"], strict=False):
        if found != said:
            for one, two in zip(found["records"], said.get("records", []), strict=False):
                if one != two:
                    return f": '{found['population']}', rule {one['rule']}"
            return f": '{found['population']}'"
    return ""


def _raised(first: Network, witness: Network, content: dict[str, Any], seed: int, result: Checked) -> None:
    if content["raising"] != "executed":
        raise Rejected("it does not say how the raised form was compared with the original")
    if set(first.inputs) != set(witness.inputs) or first.outputs != witness.outputs:
        raise Rejected("the raised form has other inputs or outputs")
    compared = compare(first, witness, content["domain"], seed)
    if compared.differing:
        raise Rejected(f"the raised form differs from the original in {compared.differing} of {compared.values} values")
    result.steps.append(
        f"the raised form equals the original bit for bit ({compared.values:,} values in {compared.runs} runs)"
    )


def _executed(first: Network, last: Network, content: dict[str, Any], seed: int, result: Checked) -> None:
    compared = compare(first, last, content["domain"], seed)
    said = {key: value for key, value in content["execution"].items() if key != "seed"}
    found = compared.to_json()
    # how many bits rounding changes depends on the processor; whether any may does not
    loose = ("differing", "nonzero") if found["differing"] and said["differing"] else ()
    if any(found[key] != said.get(key) for key in found if key not in loose):
        raise Rejected(f"running both models gives {found}, not {said}")
    if compared.differing and content["class"]["level"] == "bit-exact":
        raise Rejected(f"{compared.differing} of {compared.values} values differ, which is not bit-exact")
    result.steps.append(
        f"both models were run: {compared.differing:,} of {compared.values:,} values differ in {compared.runs} runs"
    )


def _counted(first: Network, last: Network, content: dict[str, Any], data: Any, related: Any, result: Checked) -> None:
    said = content["data"]
    if said is None:
        raise Rejected("it counts on no samples")
    found = data_entry(first, last, load_dataset(data, first.session.inputs), related)
    if found["sha256"] != said["sha256"]:
        raise Rejected("the samples are not those of the certificate")
    if found != said:
        raise Rejected(f"running both models on the samples gives {found}, not {said}")
    result.steps.append(f"{found['changed']} of {found['samples']} samples have other outputs")
    if isinstance(found["margin"], dict):
        result.steps.append(
            f"{found['margin']['undecided']:,} of {found['margin']['observations']:,} membranes come so close to their "
            "threshold that rounding might decide"
        )
