"""``snnopt check-certificate``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snn_optimizer.cli.console import print_json, working
from snn_optimizer.cli.nir_files import as_onnx, is_nir, nir_options, refuse_nir_options
from snn_optimizer.cli.options import json_option, model_argument, quiet_option
from snn_optimizer.errors import InputError, SnnOptimizerError

if TYPE_CHECKING:
    from snn_optimizer.api import Job
    from snn_optimizer.execution.source import ModelSource
    from snn_optimizer.ir import SNNGraph

__all__ = ["check_certificate", "require_original", "write_certificate"]


@click.command("check-certificate", short_help="Check what a certificate claims of two models.")
@model_argument("before")
@model_argument("after")
@click.argument("certificate", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Samples (.npz) it counts on, to count again.")
@nir_options
@json_option
@quiet_option
def check_certificate(
    before: Path, after: Path, certificate: Path, data: Path | None, *, as_json: bool, quiet: bool, **options: Any
) -> int:
    """Check that AFTER does what BEFORE does, as far as CERTIFICATE claims.

    Nothing is taken from the passes: bounds are computed again in interval arithmetic, the cuts are replayed on the
    weights of BEFORE, and what follows is compared with AFTER, weight by weight. Then both models are run.

    Exit codes: 0 it holds, 1 it does not, 2 your input.
    """
    from snn_optimizer.certificates import check, read_document  # noqa: PLC0415 - heavy; --help must be quick

    content = read_document(certificate)
    if not is_nir(before):
        refuse_nir_options()
    first, second = (as_onnx(one, options) for one in (before, after))
    with working("checking", quiet=quiet):
        found = check(first, second, content, data)
    if as_json:
        print_json(asdict(found))
        return 0 if found.holds else 1
    for step in found.steps:
        click.echo(f"ok       {step}")
    if not found.holds:
        click.echo(f"REJECTED {found.reason}")
        return 1
    click.echo(f"HOLDS    {found.level}: {found.level_reason}")
    for premise in found.premises:
        click.echo(f"premise  {premise}")
    if found.assumed:
        click.echo(f"not proved: {found.assumed} cut units; what speaks for them is that both models were run")
    bits = found.bits
    if bits is not None:
        click.echo(
            f"bits     {bits['changed']:,} of {bits['currents']:,} currents of neurons have other bits here; "
            f"onnxruntime's own optimizer changes {bits['changed_by_onnxruntime']:,} of "
            f"{bits['currents_of_the_original']:,}"
        )
    return 0


def require_original(model: Path, output: Path | None, *, dry_run: bool) -> None:
    """Refuse a certificate that speaks of a file that is not written, or of one that is written over."""
    if output is None or dry_run:
        raise InputError("--certificate speaks of the file that is written: leave out --dry-run")
    if output.exists() and model.exists() and output.samefile(model):
        raise InputError("--certificate needs the original: write the result to another file than MODEL")


def write_certificate(
    model: ModelSource, graph: SNNGraph, job: Job, output: Path, path: Path, written: ModelSource
) -> None:
    """Write the certificate of a job whose result is saved; ``written`` is what of it can be run."""
    from snn_optimizer.certifying import certify  # noqa: PLC0415 - heavy
    from snn_optimizer.ir.atomic import write_text  # noqa: PLC0415

    try:
        text = certify(model, graph, job, written)
    except SnnOptimizerError as error:
        raise type(error)(f"'{output}' was written, and no certificate: {error}") from error
    write_text(path, text)
