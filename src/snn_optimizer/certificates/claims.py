"""What a certificate claims of two networks, worked out from the networks: the same code fills one in and checks one.

A certificate says which units are gone and why. Everything else follows: the bounds, the sums that have other terms
now, the strongest class that holds. So the writer leaves out no number that the checker does not compute itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from snn_optimizer.certificates.columns import Broken
from snn_optimizer.certificates.document import bounds_to_json, units_from_json, units_to_json
from snn_optimizer.certificates.exact_sums import sums_are_exact
from snn_optimizer.certificates.facts import Facts
from snn_optimizer.certificates.intervals import Ends
from snn_optimizer.certificates.network import Array, Made, Network
from snn_optimizer.certificates.relation import Relation
from snn_optimizer.certificates.signals import CutUnits
from snn_optimizer.certificates.twins import are_twins, find_twins

__all__ = ["Claims", "Findings", "cuts_from_json", "decide", "domain_of", "examine"]

RULES: Final = ("never-fires", "always-fires", "fires-with", "read-by-zeros", "not-proved")


@dataclass(frozen=True, slots=True)
class Claims:
    """Units that are gone, by population; and those of them for which nothing is proved."""

    cuts: Mapping[str, CutUnits]
    assumed: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found to hold.

    Attributes
    ----------
    cuts : list of dict
        One entry per population with units gone, as in the file.
    regrouped, refolded : list of str
        Linear maps whose sums have other terms, and whose weights were computed anew.
    level : {"bit-exact", "statistical"}
    reason : str
        What the level follows from.
    premises : list of str
    may_be_spike_exact : bool
        Whether everything is proved but for the rounding of sums, on which data may decide.
    """

    cuts: list[dict[str, Any]]
    regrouped: list[str]
    refolded: list[str]
    level: str
    reason: str
    premises: list[str] = field(default_factory=list)
    may_be_spike_exact: bool = False


def domain_of(content: Any, network: Network) -> dict[str, Ends]:
    """Read the declared ranges of the inputs.

    Raises
    ------
    ValueError
        If they are none.
    """
    found = {}
    for name in network.inputs:
        low, high = content["inputs"].get(name, content["default"])
        ends = Ends.of(np.asarray(low, np.float64).reshape(-1), np.asarray(high, np.float64).reshape(-1))
        if not (ends.low <= ends.high).all():
            raise ValueError(f"the range of input '{name}' is empty")
        found[name] = ends
    unknown = set(content["inputs"]) - set(network.inputs)
    if unknown:
        raise ValueError(f"there is no input '{min(unknown)}'")
    return found


def decide(
    network: Network, domain: Mapping[str, Ends], left: Mapping[str, Array], *, unread: bool
) -> tuple[Facts, Claims]:
    """Find out why units are gone.

    Parameters
    ----------
    left : mapping from population name to int array
        Units that are left.
    unread : bool
        Whether units of which nothing is proved are taken to be read by zeros only; else to be assumed silent.
    """
    assumed: dict[str, Array] = {}
    facts = Facts(network, domain, {})
    populations = network.populations()
    missing = set(left) - set(populations)
    if missing:
        raise Broken(f"population '{min(missing)}' is not in the main graph or a loop over time")
    for name, made in populations.items():
        if name not in left:
            continue
        cut = _reasons(facts, made, name, np.asarray(left[name], np.int64))
        loose = ~cut.mask & ~cut.silent & ~cut.always & (cut.twin < 0)
        assumed[name] = np.zeros_like(loose) if unread else loose
        facts.claim(name, replace(cut, unread=loose) if unread else replace(cut, silent=cut.silent | loose))
    return facts, Claims(facts.cuts, assumed)


def _reasons(facts: Facts, made: Made, name: str, kept: Array) -> CutUnits:
    """Find out why units of a population are gone.

    A unit of a recurrent population may be silent only if others are that excite it: so all are taken to be silent, and
    those given up that are not proved under this claim, until the claim proves itself. The same for twins.
    """
    units = facts.units(made)
    gone = np.ones(units, np.bool_)
    gone[kept] = False
    nothing = np.zeros(units, np.bool_)
    cut = CutUnits(kept, gone, nothing, nothing, np.full(units, -1))
    while True:
        facts.claim(name, cut)
        judged = facts.judge(made)
        left = cut.silent & judged.never
        if np.array_equal(left, cut.silent):
            break
        cut = replace(cut, silent=left)
    cut = replace(cut, always=gone & judged.always & ~cut.silent)
    rest = np.flatnonzero(gone & ~cut.silent & ~cut.always)
    facts.claim(name, cut)
    cut.twin[rest] = find_twins(facts, made, rest, kept)
    while (cut.twin >= 0).any():
        facts.claim(name, cut)
        pairs = np.flatnonzero(cut.twin >= 0)
        wrong = pairs[~are_twins(facts, made, pairs, cut.twin[pairs])]
        if not len(wrong):
            break
        cut.twin[wrong] = -1
    return cut


def examine(facts: Facts, claims: Claims, after: Network) -> Findings:
    """Check claims and say what follows.

    Raises
    ------
    Broken
        If a claim does not hold.
    NotFollowed
        If the checker cannot tell.
    """
    network = facts.network
    populations = network.populations()
    entries = []
    for name, cut in claims.cuts.items():
        if name not in populations:
            raise Broken(f"there is no population '{name}' in the main graph")
        entries.append(_entry(facts, name, populations[name], cut, claims.assumed[name]))
    relation = Relation(facts, after)
    relation.hold()
    regrouped, refolded = sorted(relation.regrouped), sorted(relation.refolded)
    if any(mask.any() for mask in claims.assumed.values()):
        return Findings(entries, regrouped, refolded, "statistical", "units were cut without proof")
    if not regrouped and not refolded:
        return Findings(entries, regrouped, refolded, "bit-exact", "the same operations on the same numbers")
    exact, why, premises = sums_are_exact(relation)
    if exact:
        return Findings(entries, regrouped, refolded, "bit-exact", why, premises)
    return Findings(entries, regrouped, refolded, "statistical", why, may_be_spike_exact=True)


def cuts_from_json(content: Any) -> Claims:
    """Read the claims of a certificate.

    Raises
    ------
    ValueError
        If an entry contradicts itself.
    """
    cuts: dict[str, CutUnits] = {}
    assumed: dict[str, Array] = {}
    for entry in content:
        name, units = entry["population"], entry["units"]
        if type(units) is not int or units < 1 or name in cuts:
            raise ValueError(f"population '{name}' has {units} units, or is there twice")
        kept = units_from_json(entry["kept"], units)
        masks = {rule: np.zeros(units, np.bool_) for rule in RULES}
        twin = np.full(units, -1)
        for record in entry["records"]:
            members = units_from_json(record["units"], units)
            masks[record["rule"]][members] = True
            if record["rule"] == "fires-with":
                twin[members] = record["twins"]
        times = np.sum([mask.astype(np.int64) for mask in masks.values()], axis=0)
        times[kept] += 1
        if (times != 1).any():
            raise ValueError(
                f"unit {int(np.flatnonzero(times != 1)[0])} of '{name}' is not told once what became of it"
            )
        assumed[name] = masks["not-proved"]
        cuts[name] = CutUnits(
            kept, masks["never-fires"] | assumed[name], masks["always-fires"], masks["read-by-zeros"], twin
        )
    return Claims(cuts, assumed)


def _entry(facts: Facts, name: str, made: Made, cut: CutUnits, assumed: Array) -> dict[str, Any]:
    judged = facts.judge(made)
    units = len(cut.twin)
    if len(judged.never) != units:
        raise Broken(f"population '{name}' has {len(judged.never)} units, not {units}")
    records: list[dict[str, Any]] = []
    for rule, mask, proved, bounds in (
        ("never-fires", cut.silent & ~assumed, judged.never, judged.highest),
        ("always-fires", cut.always, judged.always, judged.lowest),
    ):
        members = np.flatnonzero(mask)
        if not len(members):
            continue
        if not proved[members].all():
            unit = int(members[~proved[members]][0])
            raise Broken(f"unit {unit} of '{name}' is not proved: {rule} with {bounds[unit]:g}")
        records.append({
            "rule": rule,
            "units": units_to_json(members),
            "bounds": bounds_to_json(bounds[members]),
            "thresholds": bounds_to_json(judged.threshold[members]),
        })  # fmt: skip
    twins = np.flatnonzero(cut.twin >= 0)
    if len(twins):
        others = cut.twin[twins]
        if not cut.mask[others].all() or not are_twins(facts, made, twins, others).all():
            raise Broken(f"units of '{name}' do not fire with those they are said to fire with")
        records.append({"rule": "fires-with", "units": units_to_json(twins), "twins": others.tolist()})
    for rule, mask in (("read-by-zeros", cut.unread), ("not-proved", assumed)):
        if mask.any():
            records.append({"rule": rule, "units": units_to_json(np.flatnonzero(mask))})
    return {
        "population": name,
        "units": units,
        "kept": units_to_json(cut.kept),
        "constants": facts.constants(made),
        "records": records,
    }
