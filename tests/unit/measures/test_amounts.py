"""Amounts are read in all their units, and what is none is refused."""

from __future__ import annotations

import re

import pytest

from snn_optimizer.measures import amount_text, read_amount


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("4 MiB", "bytes", 4 << 20),
        ("1.5KiB", "bytes", 1536),
        ("80 kB", "bytes", 80_000),
        ("1_000", "bytes", 1000),
        ("1,000", "", 1000),
        ("20k", "", 20_000),
        ("1e3", "", 1000),
        (".5 M", "", 500_000),
        ("40 nJ", "energy", 40_000),
        ("2 µJ", "energy", 2e6),
        ("2 \u03bcJ", "energy", 2e6),
        ("2 uJ", "energy", 2e6),
        ("1.2x", "ratio", 1.2),
        ("5%", "share", 0.05),
    ],
)
def test_amounts(text: str, unit: str, value: float) -> None:
    assert read_amount(text, unit) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "unit", "says"),
    [
        ("4 MiB", "", "has the unit 'MiB', known: k, M, G"),
        ("4 mib", "bytes", "has the unit 'mib'"),
        ("4", "energy", "needs a unit: pJ"),
        ("-4", "bytes", "is no number"),
        ("", "bytes", "is no number"),
        ("nan", "bytes", "is no number"),
        ("1e9999", "bytes", "is no number"),
        ("much", "bytes", "is no number"),
    ],
)
def test_what_is_no_amount(text: str, unit: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        read_amount(text, unit)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (552, "bytes", "552 B"),
        (40985, "bytes", "40.02 KiB"),
        (5 << 30, "bytes", "5.00 GiB"),
        (9610, "", "9,610"),
        (12.5, "", "12.5"),
        (40825.65, "energy", "40.83 nJ"),
        (2.5e9, "energy", "2.5 mJ"),
        (12.0, "energy", "12 pJ"),
        (0.378, "share", "37.8%"),
        (1.234, "ratio", "1.23x"),
        (-2048, "bytes", "-2.00 KiB"),
    ],
)
def test_texts(value: float, unit: str, text: str) -> None:
    assert amount_text(value, unit) == text
