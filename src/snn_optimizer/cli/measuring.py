"""``snnopt profile``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from snn_optimizer.cli.console import print_json, print_table, progress_bar
from snn_optimizer.cli.nir_files import nir_options, runnable
from snn_optimizer.cli.options import json_option, model_argument, quiet_option

__all__ = ["profile"]


@click.command(short_help="Measure what every neuron does on data.")
@model_argument()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Samples (.npz), one array per input.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Where to write the profile (.npz).",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True)
@nir_options
@json_option
@quiet_option
def profile(
    model: Path, data: Path, output: Path, batch_size: int, *, as_json: bool, quiet: bool, **options: Any
) -> int:
    """Run MODEL on DATA in onnxruntime, batch by batch, and record rates, membrane ranges and margins."""
    from snn_optimizer.api import profile as profile_model  # noqa: PLC0415 - heavy; --help must be quick
    from snn_optimizer.ir.atomic import check_targets  # noqa: PLC0415

    check_targets(output)
    source = runnable(model, options)
    with progress_bar(quiet=quiet or as_json) as report:
        found = profile_model(
            source, data, batch_size=batch_size, progress=lambda done, total: report("profile", done, total)
        )
    found.save(output)
    rows: list[dict[str, Any]] = []
    for name, p in found.populations.items():
        rate = np.asarray(p.rate)
        silent = int((rate == 0).sum()) if p.spiking else 0
        rows.append(
            {
                "population": name,
                "neurons": int(np.prod(p.shape)),
                "silent": silent,
                "mean_rate": float(rate.mean()) if p.spiking else None,
                "v_min": float(p.v_min.min()),
                "v_max": float(p.v_max.max()),
                "margin": float(p.margin.min()) if p.spiking else None,
            }
        )
    if as_json:
        print_json({"samples": found.samples, "steps": found.steps, "populations": rows, "output": str(output)})
        return 0
    print_table(
        f"{found.samples} samples, {found.steps} steps",
        [
            (h, "left" if h == "population" else "right")
            for h in ("population", "neurons", "silent", "mean rate", "v min", "v max", "margin")
        ],
        [
            [
                r["population"],
                f"{r['neurons']:,}",
                f"{r['silent']:,}",
                *("" if r[k] is None else f"{r[k]:.4g}" for k in ("mean_rate", "v_min", "v_max", "margin")),
            ]
            for r in rows
        ],
    )
    click.echo(f"wrote {output}")
    return 0
