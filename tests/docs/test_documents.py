"""Python and commands of the README and the docs run, page by page and in order; links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest

from snn_optimizer.cli.main import cli, run
from tests.docs.pages import DOCUMENTS, ROOT, Block, blocks_of

RUN = ("python", "console")
PAGES = [page for page in DOCUMENTS if any(block.language in RUN for block in blocks_of(page))]
FRAMEWORK_BLOCKS = [block for page in PAGES for block in blocks_of(page) if block.needs]
KNOWN_LANGUAGES = {"python", "console", "text", "toml", "yaml", "cpp", "js", "json", "html"}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models").symlink_to(ROOT / "models")
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_page(document: Path, workplace: Path, framework_block: Block | None = None) -> None:
    """Run a page as a reader would; files stand for what blocks write that need a framework, but for one."""
    names: dict[str, Any] = {}
    for block in blocks_of(document):
        if block.language == "console":
            run_commands(block)
        elif block.language == "python" and (not block.needs or block == framework_block):
            run_python(block, names)
        else:
            for source, name in block.stand_ins:
                shutil.copy(ROOT / source, workplace / name)


def run_python(block: Block, names: dict[str, Any]) -> None:
    code = compile("\n" * block.line + block.text, str(block), "exec")
    with warnings.catch_warnings():
        if block.needs:
            warnings.simplefilter("ignore")  # those of a framework are its own
        exec(code, names)  # noqa: S102 - our own documents


def run_commands(block: Block) -> None:
    for line in block.text.strip().splitlines():
        for command in line.split(" && "):
            words = shlex.split(command)
            if words[0] == "snnopt":
                assert run(words[1:]) == 0, f"{block}: {command}"
            else:
                assert words[0] in {"pip", "pytest"}, f"{block}: an unknown program: {command}"


@pytest.mark.parametrize("document", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_runs(document: Path, workplace: Path) -> None:
    run_page(document, workplace)


@pytest.mark.parametrize("block", FRAMEWORK_BLOCKS, ids=str)
def test_page_runs_with_the_framework(block: Block, workplace: Path) -> None:
    if missing := [name for name in block.needs if find_spec(name) is None]:
        pytest.skip(f"{', '.join(missing)} not installed")
    run_page(block.document, workplace, block)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_are_of_a_known_kind(document: Path) -> None:
    content = document.read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)", content, re.MULTILINE)
    blocks = blocks_of(document)
    assert len(fences) == 2 * len(blocks)
    assert {block.language for block in blocks} <= KNOWN_LANGUAGES
    assert content.count("<!-- needs: ") == sum(bool(block.needs) for block in blocks)
    for block in blocks:
        if block.file:
            assert block.text == (ROOT / block.file).read_text(), f"{block} is not {block.file}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_are_only_named_exist(document: Path) -> None:
    """Commands with a stand-in such as MODEL cannot run; they and their options exist."""
    content = document.read_text(encoding="utf-8")
    shown = [line for block in blocks_of(document) if block.language == "text" for line in block.text.splitlines()]
    named = re.findall(r"`(snnopt [^`\n]*)`", content) + [line[2:] for line in shown if line.startswith("$ ")]
    for text in named:
        words = text.split()
        if words[0] != "snnopt":
            assert text.startswith("python -m tests.fuzz."), text
            assert (ROOT / f"{words[2].replace('.', '/')}.py").exists()
        elif words[1:] and words[1][:1] != "-" and words[1] not in {"optimise", "COMMAND"}:  # shown as a mistake
            command = cli.get_command(click.Context(cli), words[1])
            assert command is not None, text
            known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            own = re.split(r"\s--\s", text)[0]  # what follows is a check command
            for option in re.findall(r"(?<=\s)--[a-z][a-z-]*", own):
                assert option in {*known, "--help"}, text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
        if "://" not in target:
            assert os.path.exists(document.parent / target), target  # noqa: PTH110 - a relative link
