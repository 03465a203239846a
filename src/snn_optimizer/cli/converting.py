"""``snnopt convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from snn_optimizer.cli.console import bytes_text, print_json, talk
from snn_optimizer.cli.nir_files import (
    allow_loss_option,
    describe,
    export_nir,
    is_nir,
    nir_options,
    read_nir,
    refuse_nir_options,
    require_suffix,
    save_nir,
)
from snn_optimizer.cli.options import (
    frontend_of,
    json_option,
    model_argument,
    quiet_option,
    refuse_given,
    seed_option,
)
from snn_optimizer.errors import UnsupportedModelError

__all__ = ["convert"]


@click.command(short_help="Convert between NIR and ONNX, and between forms of ONNX.")
@model_argument()
@click.argument("output", type=click.Path(path_type=Path))
@nir_options
@click.option(
    "--emit", type=click.Choice(["sequence", "step", "scan"]), help="Form of an ONNX result.  [default: as it came]"
)
@allow_loss_option
@click.option("--states", metavar="IN=OUT,...", help="States of a one-step model.  [default: found from the dataflow]")
@click.option("--custom-ops", type=click.Path(path_type=Path), help="Neuron operators without a body (.toml).")
@seed_option
@json_option
@quiet_option
def convert(model: Path, output: Path, **options: Any) -> int:
    """Write MODEL, an .onnx or .nir file, as OUTPUT, an .onnx or .nir file. Nothing is optimized.

    \b
    snnopt convert net.nir net.onnx --dt 1e-4
    snnopt convert net.nir step.onnx --dt 1e-4 --emit step
    snnopt convert export.onnx net.nir --dt 1e-3 --allow-loss soft-reset

    The result is run beside the original. What NIR cannot say is refused unless --allow-loss names it:
    fire-at-threshold, multi-spike, no-reset, potential, potential-floor, reset-delay, soft-reset.
    """  # noqa: D301 - a backspace keeps click from filling the lines
    from snn_optimizer.ir.atomic import check_targets  # noqa: PLC0415 - heavy; --help must be quick

    require_suffix(output)
    check_targets(output)
    if is_nir(model):
        refuse_given("what is not in a NIR file cannot be named in it", "states", "custom_ops")
    elif not is_nir(output):
        refuse_nir_options()
    refuse_given("a NIR file has one form", *(["emit"] if is_nir(output) else []))
    refuse_given("it is about writing NIR files", *([] if is_nir(output) else ["allow_loss"]))
    return _to_nir(model, output, options) if is_nir(output) else _to_onnx(model, output, options)


def _to_nir(model: Path, output: Path, options: dict[str, Any]) -> int:
    from snn_optimizer.api import raise_model  # noqa: PLC0415 - heavy
    from snn_optimizer.ir.atomic import AtomicFiles  # noqa: PLC0415

    quiet = options["quiet"] or options["as_json"]
    if is_nir(model):
        origin = read_nir(model, options)
        made = export_nir(origin.graph, output, options, origin, allowed=options["allow_loss"], quiet=quiet)
    else:
        frontend = frontend_of(options["states"], options["custom_ops"])
        raised = raise_model(model, frontend)
        if not raised.graph.layers:
            reasons = "".join(f"; {reason}" for reason in raised.refused[:1])
            raise UnsupportedModelError(f"'{model}': no neurons found in it{reasons}")
        made = export_nir(raised.graph, output, options, None, frontend.states, options["allow_loss"], quiet=quiet)
    if made is None:
        return 1
    with AtomicFiles() as files:
        save_nir(made, output, files)
    nodes = made.again.file.nodes
    if options["as_json"]:
        check = made.check
        print_json(
            {
                "output": str(output), "bytes": len(made.data), "nodes": len(nodes), "losses": made.losses,
                "values_compared": check.compared, "values_changed": check.changed,
            }
        )  # fmt: skip
        return 0
    click.echo(f"form     {describe(made)}")
    click.echo(f"wrote    {output}: {len(nodes):,} nodes, {bytes_text(len(made.data))}")
    return 0


def _to_onnx(model: Path, output: Path, options: dict[str, Any]) -> int:
    from snn_optimizer.api import Job, run_job  # noqa: PLC0415 - heavy

    source = read_nir(model, options).graph.to_onnx() if is_nir(model) else model
    job = Job(
        pipeline="@raise,dead-code", emit=options["emit"] or "", seed=options["seed"],
        frontend=frontend_of(options["states"], options["custom_ops"]),
    )  # fmt: skip
    graph, report = run_job(source, job)
    for warning in report.warnings:
        talk(f"snnopt: warning: {warning}", quiet=options["quiet"])
    if report.evidence.verdict == "DIFFERENT":
        talk(f"snnopt: nothing was written: the result differs from '{model}': {report.evidence.reason}")
        return 1
    size = graph.save(output)
    if options["as_json"]:
        print_json(
            {
                "output": str(output), "bytes": size, "nodes": report.after.nodes, "neurons": report.after.neurons,
                "verdict": report.evidence.verdict, "form": report.form,
            }
        )  # fmt: skip
        return 0
    click.echo(str(graph))
    click.echo(f"verdict  {report.evidence.verdict}")
    if report.form:
        click.echo(f"form     {report.form}")
    click.echo(f"wrote    {output}: {report.after.nodes:,} nodes, {bytes_text(size)}")
    return 0
