"""Budgets are read from either file; what is unknown or wrong is refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from snn_optimizer.errors import InputError
from snn_optimizer.gate import find_settings, read_settings
from snn_optimizer.gate.limits import Kind


def settings_of(tmp_path: Path, text: str, name: str = "snnopt.toml"):
    (tmp_path / name).write_text(text)
    return read_settings(tmp_path / name)


def test_overrides_by_glob_later_ones_win(tmp_path: Path) -> None:
    found = settings_of(
        tmp_path,
        """
[gate]
bytes = ["4 MiB", "+2%"]
neurons = 100
data = "{folder}/{stem}.npz"
[gate.warn]
nodes = 9
[gate.model."models/**/*.onnx"]
neurons = 200
[gate.model."wide*.onnx"]
neurons = false
data = "wide.npz"
[gate.model."wide*.onnx".warn]
nodes = 12
""",
    )
    rules = {(r.measure, r.limit.text, r.warns) for r in found.rules_of("models/deep/net.onnx")}
    assert rules == {
        ("bytes", "4 MiB", False), ("bytes", "+2%", False), ("neurons", "200", False), ("nodes", "9", True),
    }  # fmt: skip
    assert {(r.measure, r.limit.text) for r in found.rules_of("models/wide1.onnx")} == {
        ("bytes", "4 MiB"), ("bytes", "+2%"), ("nodes", "12"),
    }  # fmt: skip
    assert {r.limit.text for r in found.rules_of("net.onnx") if r.measure == "neurons"} == {"100"}
    assert found.data_of("models/deep/net.onnx") == tmp_path / "models/deep/net.npz"
    assert found.data_of("models/wide1.onnx") == tmp_path / "wide.npz"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[gate]\nbyte = 1", "unknown key 'byte' in [gate]; did you mean 'bytes'?"),
        ("[gate]\nstate_bytes = 1", "did you mean 'state-bytes'?"),
        ("[gate]\nbits = 1\nneuron = 1", "unknown key 'bits' in [gate]; did you mean"),
        ("[gate.warn]\nneruons = 1", "unknown key 'neruons' in [warn]; did you mean 'neurons'?"),
        ('[gate.model."a.onnx"]\nbaseline = "x"', "unknown key 'baseline' in [gate.model.\"a.onnx\"]"),
        ("[gaet]\nbytes = 1", "unknown table [gaet]; did you mean [gate]?"),
        ("[gate]\nbytes = 1\n[tool.snnopt.gate]\nbytes = 1", "has both"),
        ("[tool.snnopt]\ngates = 1", "unknown table [tool.snnopt.gates]; did you mean [tool.snnopt.gate]?"),
        ("gate = 1", "[gate] is not a table"),
        ("[gate]\nmodel = 1", "holds one table for each glob"),
        ("[gate]\nbytes = true", "bytes is bool, not a number"),
        ("[gate]\nbytes = -1", "bytes is -1"),
        ("[gate]\nbytes = nan", "bytes is nan"),
        ('[gate]\nbytes = "many"', "bytes 'many' is no number, for example '4 MiB' or '+2%'"),
        ('[gate]\nbytes = "+2 nJ"', "has the unit 'nJ'"),
        ("[gate]\nenergy = 3", "energy needs a unit"),
        ('[gate]\nrun-time = "+3"', "is a ratio to the baseline already"),
        ("[gate]\nrun-time = 0", "must be above zero"),
        ('[gate]\nrun-time = "="', "never is exactly"),
        ('[gate]\ncould-be-smaller = "+5%"', "is relative, which has no meaning here"),
        ("[gate]\ncould-be-smaller = 5", "a share of the bytes"),
        ("[gate]\nmodels = 3", "must be a list of globs"),
        ('[gate]\nmodels = ["/x/*.onnx"]', "must be relative"),
        ('[gate]\nbaseline = ""', "baseline must be a text"),
        ("[gate]\nrounds = 0", "rounds must be a whole number from 1"),
        ("[gate]\nmac-energy = -1", "mac-energy must be a number of picojoule"),
        ("[gate\n", "is no TOML"),
        ("", "has no table [gate] or [tool.snnopt.gate]"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        settings_of(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("measure", "text", "kind", "baseline", "allowed"),
    [
        ("bytes", '"+2%"', Kind.SHARE, 40985, 41804),
        ("bytes", '"-10%"', Kind.SHARE, 1000, 900),
        ("bytes", '"+4 KiB"', Kind.AMOUNT, 1000, 5096),
        ("neurons", '"-3"', Kind.AMOUNT, 10, 7),
        ("neurons", '"+10%"', Kind.SHARE, 100, 110),
        ("energy", '"+10%"', Kind.SHARE, 0.5, 0.55),
        ("energy", '"2 nJ"', Kind.ABSOLUTE, None, 2000),
        ("run-time", '"+20%"', Kind.ABSOLUTE, None, 1.2),
        ("run-time", "1.2", Kind.ABSOLUTE, None, 1.2),
        ("could-be-smaller", '"5%"', Kind.ABSOLUTE, None, 0.05),
    ],
)
def test_limits(tmp_path: Path, measure: str, text: str, kind: Kind, baseline, allowed: float) -> None:
    (rule,) = settings_of(tmp_path, f"[gate]\n{measure} = {text}").rules_of("net.onnx")
    assert rule.limit.kind is kind
    assert rule.limit.allowed(baseline) == pytest.approx(allowed)
    assert rule.limit.holds(allowed, baseline)
    assert not rule.limit.holds(allowed * 1.001 + 0.001, baseline)


def test_equal_is_neither_more_nor_less(tmp_path: Path) -> None:
    (rule,) = settings_of(tmp_path, '[gate]\nneurons = "="').rules_of("net.onnx")
    assert [rule.limit.holds(value, 10) for value in (9, 10, 11)] == [False, True, False]


def test_the_nearest_file_with_budgets_is_found(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[tool.snnopt.gate]\nbytes = 1\n")
    (tmp_path / "a" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert find_settings(inner).file == tmp_path / "pyproject.toml"
    (tmp_path / "snnopt.toml").write_text("[tool.snnopt.gate]\nbytes = 2\n")
    assert find_settings(inner).file == tmp_path / "snnopt.toml"
    (inner / "snnopt.toml").write_text("[gate]\nbytes = 3\n")
    assert find_settings(inner).rules_of("x")[0].limit.allowed(None) == 3


def test_no_file_with_budgets(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    with pytest.raises(InputError, match="no budgets"):
        find_settings(tmp_path)
    with pytest.raises(InputError, match=r"has no table \[tool"):
        read_settings(tmp_path / "pyproject.toml")
    with pytest.raises(InputError, match="No such file"):
        read_settings(tmp_path / "none.toml")
