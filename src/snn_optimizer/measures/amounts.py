"""Amounts as people write them, with their units, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["AMOUNT_UNITS", "amount_text", "read_amount"]

AMOUNT_UNITS: Final[Mapping[str, Mapping[str, float]]] = {
    "": {"": 1, "k": 1e3, "M": 1e6, "G": 1e9},
    "bytes": {"": 1, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30},
    "energy": {"pJ": 1, "nJ": 1e3, "µJ": 1e6, "uJ": 1e6, "mJ": 1e9, "J": 1e12},
    "ratio": {"": 1, "x": 1},
    "share": {"": 1, "%": 0.01},
}
_AMOUNT: Final = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,3}))?\s*([A-Za-zµμ%]*)")


def read_amount(text: str, unit: str) -> float:
    """Return what a number with a unit says, in the unit measures are kept in.

    Raises
    ------
    ValueError
        With what is wrong, and which units there are.
    """
    units = AMOUNT_UNITS[unit]
    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        raise ValueError("is no number")
    name = found[3].replace("μ", "µ")  # the Greek letter and the micro sign look alike
    if name not in units:
        known = ", ".join(each for each in units if each)
        raise ValueError(f"has the unit '{name}', known: {known}" if name else f"needs a unit: {known}")
    digits = found[1].replace("_", "").replace(",", "")
    return float(f"{digits}e{found[2] or 0}") * units[name]


def amount_text(value: float, unit: str, *, signed: bool = False) -> str:
    """Write an amount for people."""
    sign = "-" if value < 0 else "+" if signed else ""
    size = abs(value)
    match unit:
        case "bytes":
            text = f"{size:,.0f} B" if size < 1 << 10 else _scaled(size, ("KiB", "MiB", "GiB", "TiB"))
        case "energy":
            text = _decimal(size)
        case "ratio":
            text = f"{size:.3g}x"
        case "share":
            text = f"{size:.1%}"
        case _:
            text = f"{size:,.0f}" if size >= 1000 or size == round(size) else f"{size:,.4g}"
    return sign + text


def _scaled(size: float, names: tuple[str, ...]) -> str:
    power = 1
    while power < len(names) and size >= 1 << (10 * (power + 1)):
        power += 1
    return f"{size / (1 << (10 * power)):,.2f} {names[power - 1]}"


def _decimal(picojoule: float) -> str:
    for factor, name in ((1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ")):
        if picojoule >= factor:
            return f"{picojoule / factor:.4g} {name}"
    return f"{picojoule:.4g} pJ"
