"""Python blocks of the README and the docs run; commands in them parse; links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from snn_optimizer.cli.main import run

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    found = []
    for document in DOCUMENTS:
        for number, text in enumerate(re.findall(rf"```{language}\n(.*?)```", document.read_text(), re.DOTALL)):
            found.append(pytest.param(text, id=f"{document.relative_to(ROOT)}-{number}"))
    return found


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("text", blocks("python"))
def test_python_blocks_run(text: str, workplace: Path) -> None:
    exec(compile(text, "block", "exec"), {})  # noqa: S102 - our own documents


@pytest.mark.parametrize("text", blocks("console"))
def test_commands_run(text: str, workplace: Path) -> None:
    shutil.copy(ROOT / "README.md", workplace)
    for line in text.strip().splitlines():
        for command in line.split(" && "):
            words = shlex.split(command)
            if words[0] == "snnopt":
                assert run(words[1:]) == 0, command
            else:
                assert words[0] in {"pip", "pytest"}, f"an unknown program: {command}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert os.path.exists(document.parent / target), target  # noqa: PTH110 - a relative link
