"""``snnopt bench``: time models side by side, or what products of spikes cost on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from snn_optimizer.cli.console import print_json, print_table, progress_bar, talk
from snn_optimizer.cli.options import ModelPath, json_option, quiet_option, seed_option
from snn_optimizer.errors import InputError, OutputError

if TYPE_CHECKING:
    from snn_optimizer.execution.benchmark import Benchmark, Turns

__all__ = ["bench"]

_OF_MODELS = ("batches", "data", "rate", "seconds", "steps")
_OF_CALIBRATION = ("output", "sizes")


@click.command(short_help="Time models side by side, or calibrate this machine.")
@click.argument("models", nargs=-1, type=ModelPath(), metavar="[A [B ...]]")
@click.option("--batch", "batches", type=click.IntRange(min=1), multiple=True, help="Batch size; may be repeated.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of the runtime.")
@click.option(
    "--rounds", type=click.IntRange(min=1), help="Turns of every measurement.  [default: 30; calibrating: 12]"
)
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Instead: time for each batch size.")
@click.option("--data", type=click.Path(path_type=Path), help="Samples (.npz) to run on.  [default: random spikes]")
@click.option(
    "--rate", type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Share of spikes in random input."
)
@click.option(
    "--steps", type=click.IntRange(min=1), default=16, show_default=True, help="Time steps of random input, where open."
)
@click.option("--calibrate", is_flag=True, help="Measure products of spikes with weights, for 'event-driven'.")
@click.option("--sizes", metavar="N,N,...", help="Inputs and outputs to calibrate.  [default: 64,256,1024,4096]")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where calibration goes.  [default: the user's cache]"
)
@seed_option
@json_option
@quiet_option
@click.pass_context
def bench(
    context: click.Context,
    models: tuple[Path, ...],
    batches: tuple[int, ...],
    threads: int,
    rounds: int | None,
    seconds: float | None,
    data: Path | None,
    rate: float,
    steps: int,
    sizes: str | None,
    output: Path | None,
    seed: int,
    *,
    calibrate: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Load and run models A, B, ... in onnxruntime, in turns, and print their times and ratios to A.

    \b
    snnopt bench net.onnx small.onnx --batch 1 --batch 32
    snnopt bench --calibrate
    """  # noqa: D301 - a backspace keeps click from filling the lines
    given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    idle = [name for name in given if name in (_OF_MODELS if calibrate else _OF_CALIBRATION)]
    if idle:
        option = next(one.opts[-1] for one in context.command.params if one.name == idle[0])
        raise InputError(f"{option} has no meaning {'with' if calibrate else 'without'} --calibrate")
    if calibrate:
        if models:
            raise InputError(f"--calibrate measures this machine and takes no model: leave out '{models[0]}'")
        return _calibrate(threads, rounds, sizes, output, seed, as_json=as_json, quiet=quiet)
    if not models:
        raise InputError("say which models to time: snnopt bench A.onnx [B.onnx ...]; or --calibrate")
    if rounds is not None and seconds is not None:
        raise InputError("give --rounds or --seconds, not both")
    if data is not None and (drawing := [name for name in ("rate", "steps", "seed") if name in given]):
        raise InputError(f"--{drawing[0]} is about random input: leave it out, or --data")
    from snn_optimizer.execution.benchmark import Trains, benchmark  # noqa: PLC0415 - heavy; --help must be quick

    with progress_bar(quiet=quiet or as_json) as report:
        found = benchmark(
            models, batches=batches, threads=threads, rounds=rounds, seconds=seconds, data=data,
            trains=Trains(rate, steps, seed), progress=report,
        )  # fmt: skip
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)
    return 0


def _print(found: Benchmark) -> None:
    click.echo(f"{found.inputs}; {found.threads} thread{'s' if found.threads > 1 else ''}")
    _print_turns("load", found.load)
    for batch, turns in found.runs.items():
        _print_turns(f"run, batch {batch}", turns)


def _print_turns(title: str, turns: Turns) -> None:
    heads = ("median", "quartiles", "ratio", "interval", "outputs differ by")
    rows = []
    names = [Path(one.model).name for one in turns.models]
    for one, name in zip(turns.models, names, strict=True):
        row = [
            name if names.count(name) == 1 else one.model,
            _time(one.seconds.median),
            f"{_time(one.seconds.lower)} - {_time(one.seconds.upper)}",
        ]
        if one.ratio is None:
            row += ["1", ""]
        else:
            bounds = f"{one.ratio.low:.3f} - {one.ratio.high:.3f} ({one.ratio.confidence:.0%})"
            row += [f"{one.ratio.median:.3f}", bounds]
        rows.append([*row, "" if one.largest_difference is None else f"{one.largest_difference:.3g}"])
    click.echo()
    columns = [("model", "left"), *((head, "right") for head in heads)]
    shown = len(columns) if any(row[-1] for row in rows) else len(columns) - 1
    print_table(f"{title} ({turns.rounds} rounds)", columns[:shown], [row[:shown] for row in rows])


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def _calibrate(
    threads: int,
    rounds: int | None,
    sizes: str | None,
    output: Path | None,
    seed: int,
    *,
    as_json: bool,
    quiet: bool,
) -> int:
    from snn_optimizer.execution import calibration  # noqa: PLC0415 - heavy; --help must be quick
    from snn_optimizer.ir.atomic import write_text  # noqa: PLC0415
    from snn_optimizer.projection_costs import default_path  # noqa: PLC0415

    path = output or default_path()
    try:
        wanted = calibration.SIZES if sizes is None else tuple(int(size) for size in sizes.split(","))
    except ValueError:
        raise InputError(f"--sizes '{sizes}' must be numbers with commas, for example 64,256,1024") from None
    if output is not None and not output.absolute().parent.is_dir():  # known before minutes are spent
        raise OutputError(f"'{output}': there is no folder '{output.parent}'")
    if output is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"'{path.parent}': cannot be made: {error.strerror or error}") from error
    with progress_bar(quiet=quiet or as_json) as report:
        found = calibration.calibrate(
            threads=threads, sizes=wanted, rounds=rounds or calibration.ROUNDS, seed=seed, progress=report
        )
    write_text(path, json.dumps(found.to_json(), indent=1) + "\n")
    if as_json:
        print_json(found.to_json() | {"output": str(path)})
        return 0
    rows = [
        [
            f"{inputs} x {outputs}", f"{vectors}", _time(found.dense[i, j, k]),
            *(_time(each) for each in (found.several[i, j, k] if vectors > 1 else found.single[i, j])),
            *(_time(each) for each in (found.pooled[i, j, k] if vectors > 1 else ())),
        ]
        for i, inputs in enumerate(found.inputs)
        for j, outputs in enumerate(found.outputs)
        for k, vectors in enumerate(found.rows)
    ]  # fmt: skip
    heads = ["vectors", "dense", *(f"{share:.0%} active" for share in found.shares)]
    heads += [f"{share:.0%} in any" for share in found.shares]
    rows = [row + [""] * (1 + len(heads) - len(row)) for row in rows]
    print_table("", [("weights", "left"), *((head, "right") for head in heads)], rows)
    talk(f"onnxruntime {found.onnxruntime}, {found.machine['processor']}, {found.threads} threads", quiet=quiet)
    click.echo(f"wrote {path}")
    return 0
