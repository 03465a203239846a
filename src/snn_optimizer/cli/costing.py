"""``snnopt costs``."""

from __future__ import annotations

from pathlib import Path

import click

from snn_optimizer.cli.console import bytes_text, print_json, print_table, working
from snn_optimizer.cli.options import json_option, model_argument, quiet_option

__all__ = ["costs"]


@click.command(short_help="Count synaptic operations, sparsity and energy on data.")
@model_argument()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Samples (.npz), one array per input.")
@click.option("--mac-energy", type=click.FloatRange(min=0), default=4.6, show_default=True, help="Picojoule per MAC.")
@click.option("--ac-energy", type=click.FloatRange(min=0), default=0.9, show_default=True, help="Picojoule per AC.")
@json_option
@quiet_option
def costs(model: Path, data: Path, mac_energy: float, ac_energy: float, *, as_json: bool, quiet: bool) -> int:
    """Run MODEL on DATA and print what it costs per sample, by the definitions of NeuroBench.

    The default energies are those of 32-bit floating point in 45 nm (Horowitz, ISSCC 2014).
    """
    from snn_optimizer.execution import Session, load_dataset  # noqa: PLC0415 - heavy; --help must be quick
    from snn_optimizer.raised import raise_model  # noqa: PLC0415
    from snn_optimizer.report.costs import measure_costs  # noqa: PLC0415

    with working("counting", quiet=quiet):
        graph = raise_model(model).graph
        dataset = load_dataset(data, Session(model).inputs)
        found = measure_costs(graph, dataset, mac_energy=mac_energy, ac_energy=ac_energy)
    if as_json:
        print_json(found.to_json())
        return 0
    rows = [
        [
            layer.name, layer.op, f"{layer.weights:,}", f"{layer.zeros / layer.weights:.1%}" if layer.weights else "",
            *("not measured" if each is None else f"{each:,.0f}" for each in (layer.dense, layer.macs, layer.acs)),
        ]
        for layer in found.layers
    ]  # fmt: skip
    rows.append(
        [
            "all", "", f"{sum(layer.weights for layer in found.layers):,}", f"{found.connection_sparsity:.1%}",
            f"{found.dense:,.0f}", f"{found.effective_macs:,.0f}", f"{found.effective_acs:,.0f}",
        ]
    )  # fmt: skip
    right = ("weights", "zero", "dense", "effective MACs", "effective ACs")
    heads = [("layer", "left"), ("op", "left"), *((head, "right") for head in right)]
    print_table(f"operations per sample of {found.steps} steps, mean of {found.samples} samples", heads, rows)
    click.echo(f"footprint            {bytes_text(found.footprint)}")
    click.echo(f"connection sparsity  {found.connection_sparsity:.4f}")
    click.echo(f"activation sparsity  {found.activation_sparsity:.4f}")
    click.echo(
        f"energy               {found.energy / 1e6:.4g} µJ per sample ({mac_energy:g} pJ a MAC, {ac_energy:g} pJ an AC)"
    )
    return 0
