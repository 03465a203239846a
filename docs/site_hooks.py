"""What mkdocs is told beyond ``mkdocs.yml``: the order of pages, and the parts of the reference the code writes.

A page holds ``<!-- generated: NAME -->`` where the function of that name below puts its text when the site is built.
Nothing of it is committed, so nothing of it is ever out of date. Pages that no list names come last in their folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING
from html import escape
from pathlib import Path
from typing import Any

import click
import onnx
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from snn_optimizer import ops
from snn_optimizer.cli.main import cli
from snn_optimizer.passes import registry
from snn_optimizer.pipeline.presets import PRESETS

FOLDERS = {
    "guide": "Guide",
    "explanation": "Explanation",
    "reference": "Reference",
}
FIRST = {
    "guide": ["optimize", "exports", "frameworks", "data", "pipelines", "compress", "deploy", "gate", "plugins"],
    "explanation": ["raising", "exactness", "verdicts"],
    "reference": ["command-line", "passes", "python", "operators"],
}
README = "overview.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README as a page and put the pages in order."""
    text = (Path(config.config_file_path).parent / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, README, content=re.sub(r"\]\(docs/", "](", text)))
    pages = sorted(file.src_uri for file in files.documentation_pages())
    nav: list[Any] = [{"Home": "index.md"}, {"Tutorial": "tutorial.md"}, {"Overview": README}]
    for folder, title in FOLDERS.items():
        ranks = {f"{folder}/{name}.md": rank for rank, name in enumerate(FIRST[folder])}
        inside = [page for page in pages if page.startswith(f"{folder}/")]
        nav.append({title: sorted(inside, key=lambda page: (ranks.get(page, len(ranks)), page))})
    config.nav = nav
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put in what is generated, and lead links to the README to its page."""
    depth = page.file.src_uri.count("/")
    markdown = re.sub(r"\]\((?:\.\./)+README\.md", f"]({'../' * depth}{README}", markdown)
    return re.sub(r"<!-- generated: ([a-z]+) -->", lambda found: "\n".join(GENERATED[found[1]]()), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Drop the roles of cross references, which docstrings have for other readers."""
    return re.sub(r":(?:class|data|func|meth|mod):(?=<code>)", "", html)


def passes() -> Iterator[str]:
    """Describe every pass with its options."""
    for name in registry.names():
        one = registry.load(name)
        yield f"\n## `{name}`\n"
        aliases = ", ".join(f"`{alias}`" for alias in one.aliases)
        yield f"Claims {one.exactness.name}." + (f" Also called {aliases}." if aliases else "") + "\n"
        yield _prose(one.__doc__ or "")
        if options := registry.options_of(name):
            yield "\n| option | type | default | |\n|---|---|---|---|"
            for option in options:
                yield f"| `{option.name}` | {_cell(option.type_text)} | {_default(option)} | {_cell(option.doc)} |"


def presets() -> Iterator[str]:
    """List the presets."""
    yield "| preset | pipeline |\n|---|---|"
    for name, text in PRESETS.items():
        yield f"| `@{name}` | {f'`{text}`' if text else '(nothing)'} |"


def commands() -> Iterator[str]:
    """Describe every command with its options, as ``--help`` does."""
    root = click.Context(cli, info_name="snnopt")
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=root)
        yield f"\n## `snnopt {name}`\n"
        yield f"```text\n{' '.join(['snnopt', name, *command.collect_usage_pieces(context)])}\n```\n"
        yield from _parts(command)
        yield "\n| option | |\n|---|---|"
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
            if record is not None:
                yield f"| <code>{_cell(escape(record[0]))}</code> | {_cell(escape(record[1]))} |"


def operators() -> Iterator[str]:
    """Print the function of every operator in its sequence form, as it travels in a file."""
    for operator in ops.OPERATORS:
        variant = ops.NeuronVariant(operator)
        yield f"\n### `{variant.op_type}`\n\n| input or output | shape | meaning |\n|---|---|---|"
        for parameter in (*variant.schema.inputs, *variant.schema.outputs):
            yield f"| `{parameter.name}` | {_cell(parameter.shape)} | {_cell(parameter.doc)} |"
        yield f"\n```text\n{onnx.printer.to_text(ops.function_proto(variant, 18)).strip()}\n```\n"


def _parts(command: click.Command) -> Iterator[str]:
    """Return the paragraphs of a help text; those click must not fill are code."""
    text = "\n".join(line.strip(" ") for line in (command.help or "").splitlines())
    for part in re.split(r"\n{2,}", text.strip()):
        kept = part.removeprefix("\b\n")
        yield f"\n```text\n{kept}\n```\n" if kept != part else f"\n{part}\n"


def _default(option: registry.Option) -> str:
    if option.default is MISSING:
        return "required"
    text = "none" if option.default is None else str(option.default)
    return f"`{text.lower() if isinstance(option.default, bool) else text}`" if text else ""


def _prose(text: str) -> str:
    lines = "\n".join(line.strip() for line in text.strip().splitlines())
    prose = re.split(r"\n\n(?:Parameters|Attributes)\n-+\n", lines)[0]
    return re.sub(r":[a-z]+:`~?([^`]+)`", r"`\1`", prose).replace("``", "`")


def _cell(text: str) -> str:
    return text.replace("|", "&#124;").replace("\n", " ").replace("``", "`")


GENERATED: dict[str, Callable[[], Iterator[str]]] = {
    "commands": commands,
    "operators": operators,
    "passes": passes,
    "presets": presets,
}
