"""``snnopt run-reproducer``, and what ``optimize --reproducer`` does when something fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from snn_optimizer.cli.console import print_json, talk, working
from snn_optimizer.cli.options import json_option, model_argument, quiet_option
from snn_optimizer.errors import InputError

if TYPE_CHECKING:
    from snn_optimizer.api import Job
    from snn_optimizer.ir import SNNGraph
    from snn_optimizer.job import Model
    from snn_optimizer.report import OptimizationReport
    from snn_optimizer.reproducer import Reproducer

__all__ = ["run_reproducer", "run_watched"]


@click.command("run-reproducer", short_help="Replay a failure that was written to a file.")
@model_argument("file")
@json_option
@quiet_option
def run_reproducer(file: Path, *, as_json: bool, quiet: bool) -> int:
    """Run the pipeline in FILE on the model in FILE and say whether it still fails in the same way.

    FILE was written by 'snnopt optimize --reproducer' or 'snnopt reduce'.

    Exit codes: 0 fails no more, 1 still fails, 2 your input, 3 our bug, 4 fails in another way.
    """
    from snn_optimizer.api import replay  # noqa: PLC0415 - heavy; --help must be quick

    with working("replaying", quiet=quiet):
        found = replay(file)
    outcome = "still fails" if found.fails else "fails no more" if found.found is None else "fails in another way"
    if as_json:
        print_json(
            {
                "outcome": outcome,
                "pipeline": found.pipeline,
                "expected": str(found.expected),
                "found": None if found.found is None else str(found.found),
                "versions": {name: {"then": then, "now": now} for name, (then, now) in found.versions.items()},
            }
        )
    else:
        click.echo(f"{outcome}")
        click.echo(f"pipeline   {found.pipeline}")
        click.echo(f"written    {found.expected}")
        if found.found is not None:
            click.echo(f"now        {found.found}")
        for name, (then, now) in found.versions.items():
            click.echo(f"version    {name} {then} then, {now} now")
    return 1 if found.fails else 0 if found.found is None else 4


def run_watched(
    model: Model, job: Job, path: Path | None, *, quiet: bool = False
) -> tuple[SNNGraph, OptimizationReport]:
    """Run a job; where a pass raises or breaks its claim, write a reproducer to ``path`` unless that is None."""
    from snn_optimizer.api import run_job  # noqa: PLC0415 - heavy
    from snn_optimizer.reproducer import Watcher  # noqa: PLC0415

    if path is None:
        return run_job(model, job)
    watcher = Watcher()
    job = replace(job, instruments=[*job.instruments, watcher])
    try:
        graph, report = run_job(model, job)
    except InputError:
        raise
    except Exception as error:
        _write(path, watcher.reproducer(model, job, error, ""), quiet=quiet)
        raise
    differs = report.evidence.verdict == "DIFFERENT" and report.exactness != "lossy"
    if differs or watcher.broken is not None:
        _write(path, watcher.reproducer(model, job, None, report.evidence.reason), quiet=quiet)
    return graph, report


def _write(path: Path, made: tuple[Reproducer, bool], *, quiet: bool) -> None:
    reproducer, replays = made
    reproducer.save(path)
    said = "" if replays else " (it does not fail when replayed: something beside the passes has a part in it)"
    talk(f"snnopt: wrote '{path}', which replays the failure{said}: snnopt run-reproducer {path}", quiet=quiet)
