"""``snnopt gate``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from snn_optimizer.cli.console import print_json, print_table, progress_bar, talk
from snn_optimizer.cli.options import json_option, quiet_option
from snn_optimizer.errors import InputError, OutputError

if TYPE_CHECKING:
    from snn_optimizer.gate import Found, GateResult

__all__ = ["gate"]

_ROOTS = ("GITHUB_WORKSPACE", "CI_PROJECT_DIR")  # of the repository, in GitHub Actions and in GitLab
_SUMMARY = "GITHUB_STEP_SUMMARY"
MARKS = {"pass": "within budget", "fail": "OVER BUDGET", "warn": "warning", "new": "new", "unknown": "CANNOT TELL"}


@click.command(short_help="Hold models against budgets, for continuous integration.")
@click.argument("models", nargs=-1, type=click.Path(path_type=Path), metavar="[MODEL ...]")
@click.option(
    "--config", type=click.Path(path_type=Path), help="Budgets.  [default: the nearest snnopt.toml or pyproject.toml]"
)
@click.option("--baseline", default="", metavar="WHAT", help="Git revision, model, folder of models, or lock file.")
@click.option("--update", is_flag=True, help="Record the measures in the lock file, and compare with those.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write a JUnit XML report.")
@click.option("--sarif", type=click.Path(path_type=Path), help="Write a SARIF 2.1.0 log.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write Markdown, for a comment on a pull request.")
@click.option(
    "--annotations/--no-annotations",
    default=None,
    help="Print commands of GitHub Actions that mark the files.  [default: in GitHub Actions]",
)
@click.option(
    "--summary/--no-summary",
    default=None,
    help=f"Append Markdown to the job summary, ${_SUMMARY}.  [default: where it is set]",
)
@json_option
@quiet_option
def gate(
    models: tuple[Path, ...],
    config: Path | None,
    baseline: str,
    junit: Path | None,
    sarif: Path | None,
    markdown: Path | None,
    *,
    update: bool,
    annotations: bool | None,
    summary: bool | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Measure models and fail where one is over its budget; all models of the configuration without MODEL.

    \b
    snnopt gate
    snnopt gate models/net.onnx --baseline origin/main --junit gate.xml
    snnopt gate --update
    """  # noqa: D301 - a backspace keeps click from filling the lines
    from snn_optimizer.gate import find_settings, formats, read_settings, run_gate, select  # noqa: PLC0415 - heavy
    from snn_optimizer.gate.results import counted  # noqa: PLC0415
    from snn_optimizer.ir.atomic import write_text  # noqa: PLC0415

    step_summary = os.environ.get(_SUMMARY, "")
    if summary and not step_summary:
        raise InputError(f"--summary appends to the file that ${_SUMMARY} names, which is not set")
    settings = find_settings(Path.cwd()) if config is None else read_settings(config)
    for path in (junit, sarif, markdown):
        if path is not None and not path.absolute().parent.is_dir():  # known before minutes are spent
            raise OutputError(f"'{path}': there is no folder '{path.parent}'")
    with progress_bar(quiet=quiet or as_json) as progress:
        found = run_gate(settings, select(settings, models), baseline=baseline, update=update, progress=progress)
    root = Path(next((os.environ[name] for name in _ROOTS if os.environ.get(name)), "."))
    if junit is not None:
        write_text(junit, formats.junit(found, root))
    if sarif is not None:
        write_text(sarif, json.dumps(formats.sarif(found, root), indent=2, ensure_ascii=False) + "\n")
    if markdown is not None:
        write_text(markdown, formats.markdown(found))
    if step_summary and summary is not False:
        _append(Path(step_summary), formats.markdown(found))
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)
    if annotations or (annotations is None and os.environ.get("GITHUB_ACTIONS") == "true"):
        for line in formats.workflow_commands(found, root):
            click.echo(line, err=as_json)
    if update:
        talk(f"recorded {counted(len(found.models), 'model')} in {settings.lock.name}", quiet=quiet)
    return found.exit_code


def _append(path: Path, text: str) -> None:
    """Append to a file that other steps write to as well."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(f"'{path}' of ${_SUMMARY}: cannot write: {reason}") from error


def _print(found: GateResult) -> None:
    against = f", against {found.baseline}" if found.baseline else ""
    heads = [("measure", "left"), ("baseline", "right"), ("now", "right"), ("change", "right"), ("limit", "right")]
    for model in found.models:
        print_table(f"{model.shown}{against}", [*heads, ("", "left")], _rows(model))
        click.echo()
    for model, check in found.each():
        if check.status not in {"pass", "new"}:
            click.echo(f"{MARKS[check.status]}: {model.shown}: {check.message}")
    click.echo(found.headline())


def _rows(model: Found) -> list[list[str]]:
    return [
        [
            check.measure, check.text("baseline"), check.text("value"), check.change,
            check.rule.limit.text + (" (warns)" if check.rule.warns else ""), MARKS[check.status],
        ]
        for check in model.checks
    ]  # fmt: skip
