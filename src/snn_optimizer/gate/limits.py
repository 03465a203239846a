"""Limits as a budget writes them: absolute, or relative to a baseline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from snn_optimizer.measures import Measure, Need, read_amount

__all__ = ["Kind", "Limit", "read_limit"]


class Kind(StrEnum):
    """What a limit is measured from."""

    ABSOLUTE = "absolute"
    SHARE = "share"
    AMOUNT = "amount"
    EQUAL = "equal"


@dataclass(frozen=True, slots=True)
class Limit:
    """The most a measure may be.

    Attributes
    ----------
    text : str
        As it was written.
    kind : Kind
    amount : float
        In the unit of the measure; a fraction for ``SHARE``; what may be added to the baseline for ``AMOUNT``.
    """

    text: str
    kind: Kind
    amount: float

    @property
    def relative(self) -> bool:
        """Whether a baseline is needed to say what is allowed."""
        return self.kind is not Kind.ABSOLUTE

    def allowed(self, baseline: float | None) -> float:
        """Return the largest allowed value."""
        if self.kind is Kind.ABSOLUTE:
            return self.amount
        assert baseline is not None
        match self.kind:
            case Kind.SHARE:
                # rounded: 100 * 1.1 is 110.00000000000001; and of whole things the limit is whole
                limit = round(baseline * (1 + self.amount), 6)
                return float(math.floor(limit)) if baseline == int(baseline) else limit
            case Kind.AMOUNT:
                return baseline + self.amount
            case _:
                return baseline

    def holds(self, value: float, baseline: float | None) -> bool:
        """Tell whether a value is within the limit."""
        return value == baseline if self.kind is Kind.EQUAL else value <= self.allowed(baseline)


def read_limit(measure: Measure, written: object) -> Limit:
    """Read one limit of a measure.

    Parameters
    ----------
    measure : Measure
    written : object
        A number, or text: ``"4 MiB"``, ``"+2%"``, ``"-10%"``, ``"+4 KiB"``, ``"="``.

    Raises
    ------
    ValueError
        With what is wrong.
    """
    if isinstance(written, bool) or not isinstance(written, (int, float, str)):
        raise ValueError(  # noqa: TRY004 - what a file says is wrong, not a type of ours
            f"is {type(written).__name__}, not a number or a text such as {_example(measure)}"
        )
    if not isinstance(written, str):
        if measure.unit == "energy":
            raise ValueError(f"needs a unit: {_example(measure)}")
        if not 0 <= written < float("inf"):
            raise ValueError(f"is {written}: it must be zero or more")
        return _checked(measure, Limit(str(written), Kind.ABSOLUTE, float(written)))
    text = written.strip()
    if text == "=":
        if measure.need in (Need.TURNS, Need.OPTIMIZER):
            raise ValueError("is '=', which a measurement never is exactly")
        return Limit(text, Kind.EQUAL, 0)
    try:
        if not text.startswith(("+", "-")):
            return _checked(measure, Limit(text, Kind.ABSOLUTE, read_amount(text, measure.unit)))
        sign, rest = -1 if text[0] == "-" else 1, text[1:].strip()
        if measure.need is Need.OPTIMIZER:
            raise ValueError("is relative, which has no meaning here: write the share that may be left, such as '5%'")
        if rest.endswith("%"):
            share = sign * read_amount(rest, "share")
            if measure.unit == "ratio":
                return _checked(measure, Limit(text, Kind.ABSOLUTE, 1 + share))
            return Limit(text, Kind.SHARE, share)
        if measure.unit == "ratio":
            raise ValueError("is a ratio to the baseline already: write 1.2 or '+20%'")
        return Limit(text, Kind.AMOUNT, sign * read_amount(rest, measure.unit))
    except ValueError as error:
        raise ValueError(f"'{written}' {error}, for example {_example(measure)}") from None


def _checked(measure: Measure, limit: Limit) -> Limit:
    if measure.need is Need.OPTIMIZER and limit.amount > 1:
        raise ValueError(f"is {limit.text}: it is a share of the bytes, from 0 to 1, or in per cent")
    if measure.need is Need.TURNS and limit.amount <= 0:
        raise ValueError("must be above zero: it is a ratio of times")
    return limit


def _example(measure: Measure) -> str:
    examples = {
        "bytes": "'4 MiB' or '+2%'",
        "energy": "'40 nJ' or '+2%'",
        "ratio": "1.2 or '+20%'",
        "share": "'5%'",
    }
    return examples.get(measure.unit, "1000 or '+2%'")
