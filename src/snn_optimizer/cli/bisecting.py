"""``snnopt bisect``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snn_optimizer.cli.console import print_json, talk
from snn_optimizer.cli.failing import failing_job, failing_options
from snn_optimizer.cli.options import model_argument
from snn_optimizer.errors import InputError, OutputError

if TYPE_CHECKING:
    from snn_optimizer.api import Bisection

__all__ = ["bisect"]

SHOWN = 8  # applied rules that are listed


@click.command(short_help="Find the pass that makes a result wrong.")
@model_argument()
@failing_options("-O2")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for the models around the guilty pass.")
def bisect(
    model: Path,
    check: tuple[str, ...],
    level: str | None,
    pipeline: str | None,
    output: Path | None,
    **options: Any,
) -> int:
    """Find the first run of a pass whose result is wrong, and name it with its rules and places.

    Without CHECK a result is wrong when it differs from MODEL in onnxruntime. CHECK is a command that gets
    the file of a candidate in the place of {} and exits with 0 when it is good.

    \b
    snnopt bisect net.onnx -O2 -o found
    snnopt bisect net.onnx -O3 --calib train.npz -- python check.py {}

    Exit codes: 0 nothing wrong, 1 found the pass, 2 your input, 3 our bug, 4 cannot tell.
    """  # noqa: D301 - a backspace keeps click from filling the lines
    from snn_optimizer.api import bisect  # noqa: PLC0415 - heavy; --help must be quick

    job = failing_job(check, level, pipeline, options, default="@O2")
    if not check and options["fail_regex"] is not None:
        raise InputError("--fail-regex is for a check command: give one, -- CHECK {}, or leave it out")
    if output is not None:
        _make(output)
    talk(f"BISECT: running {job.pipeline} once, then judging what it leaves", quiet=options["quiet"])
    found = bisect(
        model,
        job,
        check,
        timeout=options["check_timeout"],
        pattern=options["fail_regex"] or "",
        tell=lambda step: talk(f"BISECT: {step}", quiet=options["quiet"]),
    )
    commands = _commands(model, job.pipeline, output, found, options)
    written = [] if output is None or found.guilty is None else _write(output, found, commands)
    if options["as_json"]:
        print_json(found.to_json() | {"written": [str(p) for p in written], "reproduce": commands})
    else:
        _print(found, written, commands)
    if found.guilty is not None:
        return 1
    return 4 if found.finding.wrong is None else 0


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"'{folder}': cannot make the folder: {error.strerror or error}") from error


def _commands(model: Path, text: str, folder: Path | None, found: Bisection, options: dict[str, Any]) -> list[str]:
    """Return the commands that make the wrong model again, the one from the saved model only where it does."""
    if found.guilty is None:
        return []
    shared = [] if found.guarded else ["--no-verify"]
    for name in ("calib", "max_accuracy_drop", "max_decision_change", "max_spike_change", "states", "custom_ops"):
        if options[name] is not None:
            shared += [f"--{name.replace('_', '-')}", str(options[name])]
    shared += [word for text in options["input_ranges"] for word in ("--input-range", text)]
    shared += [word for text in options["input_max_active"] for word in ("--input-max-active", text)]
    shared += ["--seed", str(options["seed"])] if options["seed"] else []
    number = str(found.guilty.number)
    limit = ["--bisect-limit", number if found.rewrite is None else f"{number}.{found.rewrite.number}"]
    commands = [["snnopt", "optimize", str(model), "-o", "wrong.onnx", "-p", text, *limit, *shared]]
    if folder is not None and found.alone:
        before = str(folder / "before.onnx")
        part = [] if found.rewrite is None else ["--bisect-limit", f"1.{found.rewrite.number}"]
        commands.append(["snnopt", "optimize", before, "-o", "wrong.onnx", "-p", found.guilty.text, *part, *shared])
    return [shlex.join(command) for command in commands]


def _write(folder: Path, found: Bisection, commands: list[str]) -> list[Path]:
    from snn_optimizer.execution.data import save_arrays  # noqa: PLC0415 - heavy
    from snn_optimizer.ir.atomic import write_text  # noqa: PLC0415

    written: list[Path] = []
    for name, graph in (("before.onnx", found.before), ("after.onnx", found.after)):
        if graph is not None:
            graph.save(folder / name)
            written.append(folder / name)
    if found.finding.counterexample is not None:
        save_arrays(folder / "counterexample.npz", dict(found.finding.counterexample))
        written.append(folder / "counterexample.npz")
    write_text(folder / "reproduce.sh", "".join(f"{command}\n" for command in commands))
    return [*written, folder / "reproduce.sh"]


def _print(found: Bisection, written: list[Path], commands: list[str]) -> None:
    guilty = found.guilty
    if guilty is None:
        word = "cannot tell" if found.finding.wrong is None else "nothing wrong"
        click.echo(f"{word} after {len(found.runs)} runs of passes: {found.finding.text}")
        return
    click.echo(f"guilty     pass ({guilty.number}) {guilty.text}")
    click.echo(f"found      {found.finding.text}")
    if found.after is not None:
        click.echo(f"claim      {guilty.claim}, {guilty.changes:,} changes")
    if found.rewrite is not None:
        click.echo(f"rewrite    {found.rewrite.number} of {found.rewrite.total}: {found.rewrite.text}")
    applied = guilty.applied
    for place in applied[:SHOWN]:
        click.echo(f"applied    {place}")
    if len(applied) > SHOWN:
        click.echo(f"applied    {len(applied) - SHOWN:,} more")
    for path in written:
        click.echo(f"wrote      {path}")
    for command in commands:
        click.echo(f"reproduce  {command}")
