"""The guides of the gate and of diff show what the commands print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from snn_optimizer.cli.main import run
from tests.conftest import ROOT


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def shown(text: str) -> list[str]:
    (example,) = re.findall(r"<!-- example: begin -->\n```text\n(.*?)```\n<!-- example: end -->", text, re.DOTALL)
    return [line.rstrip() for line in example.splitlines()]


def commands(text: str) -> list[list[str]]:
    return [line.split() for line in re.findall(r"^\$ snnopt (.*)$", text, re.MULTILINE)]


@pytest.mark.parametrize("guide", ["gate", "diff"])
def test_the_example_is_what_is_printed(guide: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / f"docs/guide/{guide}.md").read_text()
    for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL):
        (workplace / "snnopt.toml").write_text(block)
    found = commands(text)
    assert found
    for command in found:
        capsys.readouterr()
        code = run(command)
        assert code == (1 if command[0] == "diff" else 0), command
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == shown(text)


def test_the_refusal_is_what_is_printed(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "snnopt.toml").write_text("[gate]\nstate_bytes = 1\n")
    assert run(["gate"]) == 2
    assert capsys.readouterr().err.replace(f"{workplace}/", "") in (ROOT / "docs/guide/gate.md").read_text()
