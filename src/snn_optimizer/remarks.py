"""Remarks: what a pass did, what it left alone and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum

__all__ = ["Remark", "RemarkKind"]


class RemarkKind(StrEnum):
    """The three kinds of remark, after LLVM's ``-Rpass`` family."""

    APPLIED = "applied"
    MISSED = "missed"
    ANALYSIS = "analysis"


@dataclass(frozen=True, slots=True)
class Remark:
    """One sentence of a pass about one place in the model.

    Attributes
    ----------
    kind : RemarkKind
    pass_name, rule : str
        Kebab-case names; for ``missed`` the rule is the name of the refusal.
    place : str
        Node, layer or value the remark is about.
    message : str
        One sentence with the numbers in it.
    arguments : dict
        The same numbers for programs; JSON types only.
    """

    kind: RemarkKind
    pass_name: str
    rule: str
    place: str
    message: str
    arguments: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind}: {self.pass_name}/{self.rule}: {self.place}: {self.message}"

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serializable form."""
        return asdict(self)
