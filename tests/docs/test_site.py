"""The website builds without a warning, loads nothing from elsewhere, and holds what the code says of itself."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from snn_optimizer import __all__ as public
from snn_optimizer import ops
from snn_optimizer.cli.main import cli
from snn_optimizer.passes import registry
from snn_optimizer.pipeline.presets import PRESETS
from tests.docs.pages import DOCUMENTS, ROOT

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install '.[docs]'")
pytest.importorskip("material", reason="mkdocs-material is not installed: pip install '.[docs]'")
pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed: pip install '.[docs]'")


def test_the_site_builds_and_is_complete(tmp_path: Path) -> None:
    """One test, because two processes would build it twice."""
    site = build(tmp_path / "site")
    check_every_page_is_there_and_in_the_navigation(site)
    check_nothing_is_loaded_from_elsewhere(site)
    check_passes_and_presets_are_those_of_the_code(site)
    check_commands_and_options_are_those_of_the_code(site)
    check_python_and_operators_are_described(site)


def build(folder: Path) -> Path:
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


def text_of(page: Path) -> str:
    content = page.read_text(encoding="utf-8")
    return html.unescape(re.sub(r"<[^>]+>", "", content[content.index("<article") :]))


def check_every_page_is_there_and_in_the_navigation(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    for document in DOCUMENTS[1:]:
        place = document.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / place).is_file()
        assert document.name == "index.md" or f'href="{place.as_posix()}"' in index, place
    assert 'href="overview.html"' in index
    assert (site / "search" / "search_index.json").is_file()
    assert not list(site.rglob("*.py"))


def check_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        content = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?([^\" >]+)", content)
        loaded += re.findall(r"<link\b[^>]*\bhref=\"?([^\" >]+)", content)
        assert loaded
        assert not [address for address in loaded if "//" in address and not address.startswith("data:")], page
        assert "mermaid" not in content, "diagrams would be drawn by a script from elsewhere"
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?https?:", style.read_text(encoding="utf-8"))


def check_passes_and_presets_are_those_of_the_code(site: Path) -> None:
    text = text_of(site / "reference" / "passes.html")
    for name in registry.BUILTIN:
        start = re.search(rf"^{name}¶?$", text, re.MULTILINE)
        assert start, name
        assert registry.load(name).exactness.name in text[start.end() : start.end() + 200]
        for option in registry.options_of(name):
            assert option.name in text[start.end() :], f"{name}: {option.name}"
    for preset in PRESETS:
        assert f"@{preset}" in text
    assert "generated:" not in text


def check_commands_and_options_are_those_of_the_code(site: Path) -> None:
    text = text_of(site / "reference" / "command-line.html")
    parts = re.split(r"^snnopt ([a-z-]+)¶?$", text, flags=re.MULTILINE)
    described = dict(zip(parts[1::2], parts[2::2], strict=True))
    context = click.Context(cli)
    assert sorted(described) == cli.list_commands(context)
    for name, part in described.items():
        for parameter in cli.get_command(context, name).params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[-1] in part, f"{name}: {parameter.opts}"


def check_python_and_operators_are_described(site: Path) -> None:
    text = text_of(site / "reference" / "python.html")
    for name in public:
        assert re.search(rf"\b{name}\b", text), name
    assert ":class:" not in text
    text = text_of(site / "reference" / "operators.html")
    for operator in ops.OPERATORS:
        assert ops.NeuronVariant(operator).op_type in text
        for parameter in ops.schema(operator).inputs:
            assert parameter.doc.replace("``", "") in text
