"""``snnopt verify`` and ``snnopt profile``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from snn_optimizer.cli.console import print_json, print_table, progress_bar, talk
from snn_optimizer.cli.options import (
    domain_of,
    input_max_active_option,
    input_range_option,
    json_option,
    model_argument,
    quiet_option,
    seed_option,
)

__all__ = ["profile", "verify"]

EXIT = {"EQUIVALENT": 0, "DIFFERENT": 1, "INCONCLUSIVE": 4}


@click.command(short_help="Check that two models compute the same.")
@model_argument("before")
@model_argument("after")
@click.option("--exactness", type=click.Choice(["bitwise", "algebraic"]), default="algebraic", show_default=True)
@click.option("--data", type=click.Path(path_type=Path), help="Also compare on these samples (.npz).")
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Time steps where T is symbolic.",
)
@click.option("--counterexample", type=click.Path(path_type=Path), help="Write a differing input here (.npz).")
@input_range_option
@input_max_active_option
@seed_option
@json_option
@quiet_option
def verify(
    before: Path,
    after: Path,
    exactness: str,
    data: Path | None,
    steps: int,
    counterexample: Path | None,
    input_ranges: tuple[str, ...],
    input_max_active: tuple[str, ...],
    seed: int,
    *,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run BEFORE and AFTER in onnxruntime on generated spike trains (and DATA) and compare their outputs."""
    from snn_optimizer.execution import Session, load_dataset  # noqa: PLC0415 - heavy; --help must be quick
    from snn_optimizer.ir.atomic import check_targets  # noqa: PLC0415
    from snn_optimizer.verification import verify as verify_models  # noqa: PLC0415

    check_targets(counterexample)
    session = Session(before)
    dataset = None if data is None else load_dataset(data, session.inputs)
    domain = domain_of(input_ranges, input_max_active)
    found = verify_models(before, after, exactness=exactness, dataset=dataset, seed=seed, steps=steps, ranges=domain)
    if counterexample is not None and str(found.verdict) == "DIFFERENT" and found.counterexample is not None:
        found.save_counterexample(counterexample)
        talk(f"wrote a counterexample to {counterexample}", quiet=quiet)
    if as_json:
        print_json(found.to_json())
    else:
        click.echo(f"{found.verdict}" + (f": {found.reason}" if found.reason else ""))
        click.echo(
            f"{found.spikes_compared:,} spikes compared, {found.spikes_differing:,} differ; "
            f"{found.values_compared:,} values, "
            f"largest difference {found.max_abs_difference:g}; {found.samples:,} samples, "
            f"{found.near_ties} near ties"
        )
    return EXIT[str(found.verdict)]


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
@json_option
@quiet_option
def profile(model: Path, data: Path, output: Path, batch_size: int, *, as_json: bool, quiet: bool) -> int:
    """Run MODEL on DATA in onnxruntime, batch by batch, and record rates, membrane ranges and margins."""
    from snn_optimizer.execution import Session, load_dataset, profile_model  # noqa: PLC0415 - heavy; --help must be quick
    from snn_optimizer.ir.atomic import check_targets  # noqa: PLC0415

    check_targets(output)
    dataset = load_dataset(data, Session(model).inputs)
    with progress_bar(quiet=quiet or as_json) as report:
        found = profile_model(
            model, dataset, batch_size=batch_size, progress=lambda done, total: report("profile", done, total)
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
