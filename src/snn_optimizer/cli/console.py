"""Terminal output: results on stdout, talk on stderr, no color when piped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

__all__ = ["bytes_text", "print_json", "print_table", "progress_bar", "talk", "working"]

KIB = 1024


def print_table(title: str, columns: list[tuple[str, str]], rows: list[list[str]]) -> None:
    """Print a table to stdout; columns are (heading, justification)."""
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for heading, justify in columns:
        table.add_column(heading, justify="right" if justify == "right" else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_printable, row))
    console = _console()
    console.print(table)


def _console(*, stderr: bool = False) -> Console:
    """Return a console that takes text as it is: the names in a model are not markup."""
    console = Console(stderr=stderr, soft_wrap=False, markup=False, emoji=False, highlight=False)
    if not stderr and not console.is_terminal:
        console.width = 120
    return console


def _printable(text: str) -> str:
    """Return text that moves no cursor, whatever a model calls its layers."""
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def print_json(data: Any) -> None:
    """Print JSON to stdout."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def talk(message: str, *, quiet: bool = False) -> None:
    """Print a line to stderr."""
    if not quiet:
        click.echo(message, err=True)


def bytes_text(number: int) -> str:
    """Return a size in KiB or MiB."""
    if number < KIB:
        return f"{number} B"
    return f"{number / KIB:,.1f} KiB" if number < KIB * KIB else f"{number / KIB / KIB:,.2f} MiB"


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show progress on stderr while the block runs; the callback takes what, done and total."""
    console = _console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield report


@contextmanager
def working(what: str, *, quiet: bool) -> Iterator[None]:
    """Say on the terminal what goes on while the block runs, where no share of it is known."""
    console = _console(stderr=True)
    if quiet or not console.is_terminal:
        yield
        return
    with console.status(what):
        yield
