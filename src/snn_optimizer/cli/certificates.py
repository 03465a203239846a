"""``snnopt check-certificate``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from snn_optimizer.cli.console import print_json
from snn_optimizer.cli.options import json_option

__all__ = ["check_certificate"]


@click.command("check-certificate", short_help="Check what a certificate claims of two models.")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.argument("certificate", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Samples (.npz) it counts on, to count again.")
@json_option
def check_certificate(before: Path, after: Path, certificate: Path, data: Path | None, *, as_json: bool) -> int:
    """Check that AFTER does what BEFORE does, as far as CERTIFICATE claims.

    Nothing is taken from the passes: bounds are computed again in interval arithmetic, the cuts are replayed on the
    weights of BEFORE, and what follows is compared with AFTER, weight by weight. Then both models are run.

    Exit codes: 0 it holds, 1 it does not, 2 your input.
    """
    from snn_optimizer.certificates import check, read_document  # noqa: PLC0415 - heavy; --help must be quick

    content = read_document(certificate)
    found = check(before, after, content, data)
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
