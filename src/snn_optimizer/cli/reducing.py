"""``snnopt reduce``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snn_optimizer.cli.console import print_json, talk
from snn_optimizer.cli.failing import failing_job, failing_options
from snn_optimizer.cli.options import model_argument
from snn_optimizer.errors import OutputError

if TYPE_CHECKING:
    from snn_optimizer.api import Reduction

__all__ = ["reduce"]


@click.command(short_help="Find the smallest model that still fails.")
@model_argument()
@failing_options("-O2; with CHECK: no pass")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Where to write the small model.")
@click.option(
    "--time-limit", type=click.FloatRange(min=0, min_open=True),
    help="Seconds after which the smallest model so far is written.",
)  # fmt: skip
def reduce(
    model: Path, check: tuple[str, ...], output: Path, level: str | None, pipeline: str | None, **options: Any
) -> int:
    """Write the smallest model found that fails as MODEL does, with the shortest pipeline that it fails in.

    Without CHECK a model fails where a pass raises, or where the unguarded result differs from it in onnxruntime.
    CHECK is a command that gets the file of a candidate in the place of {} and exits with 0 when it is good; with
    a pipeline it gets the guarded result, and has to accept the model.

    \b
    snnopt reduce net.onnx -O2 -o small.onnx
    snnopt reduce net.onnx -o small.onnx --fail-regex Segmentation -- sh -c 'snnopt optimize {} --dry-run'

    Exit codes: 0 written, 2 your input (also when nothing fails), 3 our bug, 4 cannot tell.
    """  # noqa: D301 - a backspace keeps click from filling the lines
    from snn_optimizer.api import reduce  # noqa: PLC0415 - heavy; --help must be quick

    job = failing_job(check, level, pipeline, options, default="" if check else "@O2")
    if not output.resolve().parent.is_dir():
        raise OutputError(f"'{output}': its folder does not exist")
    talk(f"REDUCE: looking for what fails in '{model}'", quiet=options["quiet"])
    found = reduce(
        model,
        job,
        check,
        timeout=options["check_timeout"],
        pattern=options["fail_regex"] or "",
        time_limit=options["time_limit"],
        tell=lambda progress: talk(f"REDUCE: {progress}", quiet=options["quiet"]),
    )
    written = _write(output, found, replays=not check)
    command = [] if check else [f"snnopt run-reproducer {output}"]
    if options["as_json"]:
        print_json(found.to_json() | {"written": [str(path) for path in written], "reproduce": command})
        return 0
    click.echo(f"reduced    {found.summary}")
    click.echo(f"fails      {found.failure}")
    if found.candidate.text:
        click.echo(f"pipeline   {found.candidate.text}")
    if not found.complete:
        click.echo(f"stopped    after {options['time_limit']:g} s: a longer --time-limit may find a smaller model")
    for path in written:
        click.echo(f"wrote      {path}")
    for line in command:
        click.echo(f"reproduce  {line}")
    return 0


def _write(path: Path, found: Reduction, *, replays: bool) -> list[Path]:
    """Write the model, as a reproducer where it can be replayed, else with its samples beside it."""
    from snn_optimizer.execution.data import save_arrays  # noqa: PLC0415 - heavy
    from snn_optimizer.ir.atomic import AtomicFiles  # noqa: PLC0415
    from snn_optimizer.reproducer import Reproducer  # noqa: PLC0415

    if replays:
        Reproducer.of(found.candidate, found.job, found.failure).save(path)
        return [path]
    written = []
    if found.candidate.samples is not None:
        beside = path.with_suffix(".calib.npz")
        save_arrays(beside, found.candidate.samples)
        written.append(beside)
    with AtomicFiles() as files, files.open(path) as stream:
        stream.write(found.candidate.model.SerializeToString(deterministic=True))
    return [path, *written]
