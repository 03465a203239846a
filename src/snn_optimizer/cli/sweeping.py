"""``snnopt sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snn_optimizer.cli.console import bytes_text, print_json, print_table, progress_bar, talk
from snn_optimizer.cli.names import Choice, PipelineText
from snn_optimizer.cli.options import domain_of, input_range_option, json_option, model_argument, quiet_option
from snn_optimizer.errors import InputError

if TYPE_CHECKING:
    from snn_optimizer.sweep import Row, Sweep

__all__ = ["sweep"]

INTERRUPTED = 130
MARKS = {"bytes": "B", "operations": "O", "latency": "L"}
RIGHT = ("parameters", "non-zero", "neurons", "bytes", "nodes", "dense", "MACs", "ACs", "µJ")
SIZES = [(head, "right") for head in RIGHT]
OUTCOMES = [(head, "right") for head in ("latency", "accuracy, calibration", "test", "decisions changed")]
OUTCOMES += [("verdict", "left"), ("front", "left")]


@click.command(short_help="Weigh accuracy against size, operations and latency.")
@model_argument()
@click.option(
    "--calib",
    type=click.Path(path_type=Path),
    required=True,
    help="Samples (.npz) that weights are fitted to and budgets are measured on.",
)
@click.option("--test", type=click.Path(path_type=Path), help="Samples (.npz) that only judge.  [default: --calib]")
@click.option("--budgets", metavar="X,...", help="Fractions from 0 to 1.  [default: 0,0.0025,0.005,0.01,0.02]")
@click.option(
    "--budget-kind",
    type=Choice(["accuracy-drop", "decision-change", "spike-change"]),
    default="accuracy-drop",
    show_default=True,
    help="What a budget limits.",
)
@click.option(
    "-p",
    "--passes",
    "pipelines",
    type=PipelineText(),
    multiple=True,
    metavar="PIPELINE",
    help="Pipeline text; may be repeated.  [default: @Oz; @Oz,quantize-weights; @O2,prune{budget method=membrane}]",
)
@click.option("--seeds", default="0", show_default=True, metavar="N,...", help="Seeds of splits and stimuli.")
@click.option("--jobs", type=click.IntRange(min=1), help="Runs at a time.  [default: the number of cores]")
@click.option("--scheduler", default="", metavar="ADDRESS", help="Run on the Dask cluster of this scheduler.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of results; what is finished there is not repeated.",
)
@click.option("--fresh", is_flag=True, help="Repeat what is finished.")
@click.option("--keep-models", is_flag=True, help="Keep the optimized models in the folder.")
@click.option("--plot", type=Choice(["svg", "png", "none"]), default="svg", show_default=True, help="The fronts.")
@input_range_option
@json_option
@quiet_option
def sweep(model: Path, output: Path, **options: Any) -> int:
    """Optimize MODEL by every pipeline within every budget, and show which results no other beats.

    \b
    snnopt sweep net.onnx --calib train.npz --test test.npz -o results
    snnopt sweep net.onnx --calib train.npz --test test.npz -o results --budgets 0,0.01 -p @Oz -p @Oz,quantize-weights
    """  # noqa: D301 - a backspace keeps click from filling the lines
    from snn_optimizer.sweep import run_sweep  # noqa: PLC0415 - heavy; --help must be quick

    if options["jobs"] is not None and options["scheduler"]:
        raise InputError("give --jobs or --scheduler, not both: a cluster decides itself how much it runs at a time")
    plan = _plan(model, options)
    quiet = options["quiet"]
    try:
        with progress_bar(quiet=quiet or options["as_json"]) as progress:
            found = run_sweep(
                plan,
                output,
                jobs=options["jobs"],
                scheduler=options["scheduler"],
                fresh=options["fresh"],
                keep_models=options["keep_models"],
                progress=progress,
            )
    except KeyboardInterrupt:
        talk(f"snnopt: interrupted; what is finished is kept in '{output}', the same command goes on from there")
        return INTERRUPTED
    plot = _plot(found, output, options)
    if options["as_json"]:
        print_json(found.to_json() | {"executed": found.executed, "reused": found.reused, "output": str(output)})
    else:
        _print(found, output, plot)
    return found.exit_code


def _plan(model: Path, options: dict[str, Any]) -> Any:
    from snn_optimizer.sweep import DEFAULT_BUDGETS, DEFAULT_PIPELINES, Plan  # noqa: PLC0415 - heavy

    budgets = options["budgets"]
    return Plan(
        model,
        options["calib"],
        options["test"],
        pipelines=options["pipelines"] or DEFAULT_PIPELINES,
        budgets=DEFAULT_BUDGETS if budgets is None else _numbers(budgets, float, "--budgets", "0,0.005,0.01"),
        budget_kind=options["budget_kind"],
        seeds=_numbers(options["seeds"], int, "--seeds", "0,1,2"),
        domain=domain_of(options["input_ranges"]),
    )


def _numbers(text: str, kind: Any, option: str, example: str) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise InputError(f"{option} '{text}' is no list of numbers, for example {example}") from None


def _plot(found: Sweep, output: Path, options: dict[str, Any]) -> Path | None:
    """Draw the fronts; without matplotlib only the figure is missing."""
    from snn_optimizer.sweep.plot import draw  # noqa: PLC0415 - heavy

    if options["plot"] == "none":
        return None
    path = output / f"pareto.{options['plot']}"
    try:
        draw(found.rows, path, title=found.plan.model.name, merit=found.merit)
    except InputError as error:
        talk(f"snnopt: warning: {error}")
        return None
    return path


def _print(found: Sweep, output: Path, plot: Path | None) -> None:
    title = f"{found.plan.model.name}, budgets of {found.plan.budget_kind}"
    seeds = len({row.record.seed for row in found.rows}) > 1
    heads = [("passes", "left"), ("budget", "right"), *([("seed", "right")] if seeds else [])]
    names = [
        [
            row.record.pipeline or "original",
            _text(row.record.budget, "{:g}"),
            *([str(row.record.seed)] if seeds else []),
        ]
        for row in found.rows
    ]
    for heading, columns, cells in ((title, SIZES, _sizes), ("", OUTCOMES, _outcomes)):
        rows = [[*name, *cells(row)] for name, row in zip(names, found.rows, strict=True)]
        print_table(heading, [*heads, *columns], rows)
        click.echo()
    click.echo("front: no other row has this accuracy, or more, for less B bytes, O operations, L latency")
    for name, row in zip(names, found.rows, strict=True):
        if row.record.reason:
            click.echo(f"{' '.join(name)}: {row.record.reason}")
    written = ["sweep.json", "sweep.csv", *([] if plot is None else [plot.name])]
    click.echo(f"{found.executed} runs, {found.reused} taken from before; wrote {', '.join(written)} in {output}")


def _sizes(row: Row) -> list[str]:
    record = row.record
    return [
        *(_text(n, "{:,}") for n in (record.parameters, record.nonzero_parameters, record.neurons)),
        "" if record.bytes is None else bytes_text(record.bytes),
        _text(record.nodes, "{:,}"),
        *(_text(n, "{:,.0f}") for n in (record.dense, record.effective_macs, record.effective_acs)),
        "" if record.energy is None else f"{record.energy / 1e6:.4f}",
    ]


def _outcomes(row: Row) -> list[str]:
    record = row.record
    shares = record.accuracy_calibration, record.accuracy_test, record.decision_change
    return [
        _text(record.latency, "{:.2f}"),
        *(_text(share, "{:.2%}") for share in shares),
        record.verdict,
        " ".join(MARKS[cost] for cost in row.fronts),
    ]


def _text(value: Any, form: str) -> str:
    return "" if value is None else form.format(value)
