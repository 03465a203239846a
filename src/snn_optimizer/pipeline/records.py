"""What a run did, pass by pass."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from snn_optimizer.remarks import Remark, RemarkKind

__all__ = ["PassResult", "PassStatus"]


class PassStatus(StrEnum):
    """How a pass ended."""

    KEPT = "kept"
    UNCHANGED = "unchanged"
    ROLLED_BACK = "rolled back"
    SKIPPED = "skipped"


@dataclass(slots=True)
class PassResult:
    """One run of one pass.

    Attributes
    ----------
    name : str
        Canonical name of the pass.
    number : int
        Of this run of a pass, from 1; what ``--bisect-limit`` counts.
    text : str
        The pass with its options as pipeline text.
    neurons_removed, layers_fused : int
        What remains of its work; zero when it was rolled back.
    params_before, params_after : int
        Weights and biases of the whole model.
    neurons_before, neurons_after, nodes_before, nodes_after : int
    changes : int
        Rewrites of any kind.
    claim : str
        ``bitwise``, ``algebraic``, ``profiled`` or ``lossy``.
    status : PassStatus
    reason : str
        Why it was rolled back or skipped.
    check : str
        What the guard found, empty when nothing was checked.
    seconds, check_seconds : float
        Time of the pass, and of the guard.
    statistics : dict
        Counts by name.
    remarks : list of Remark
    rewrites : int
        How many of its rewrites were numbered and made; a pass may make changes that have no number.
    last_rewrite : str
        Rule, place and unit of the last of them.
    """

    name: str
    neurons_removed: int = 0
    layers_fused: int = 0
    params_before: int = 0
    params_after: int = 0
    neurons_before: int = 0
    neurons_after: int = 0
    nodes_before: int = 0
    nodes_after: int = 0
    changes: int = 0
    claim: str = "bitwise"
    status: PassStatus = PassStatus.UNCHANGED
    reason: str = ""
    check: str = ""
    seconds: float = 0.0
    check_seconds: float = 0.0
    statistics: dict[str, int] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)
    number: int = 0
    text: str = ""
    rewrites: int = 0
    last_rewrite: str = ""

    @property
    def applied(self) -> list[str]:
        """The rules it applied, each with its place."""
        return [f"{r.rule} at {r.place}" for r in self.remarks if r.kind is RemarkKind.APPLIED]

    def blame(self, *, shown: int = 3) -> str:
        """Say in one phrase what it did and where, as far as its remarks tell."""
        applied = self.applied
        if not applied:
            return f"made {self.changes:,} changes"
        more = f" and {len(applied) - shown:,} more" if len(applied) > shown else ""
        return f"applied {', '.join(applied[:shown])}{more}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serializable form."""
        return asdict(self) | {"status": str(self.status), "remarks": [r.to_json() for r in self.remarks]}
