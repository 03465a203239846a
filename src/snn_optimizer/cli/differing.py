"""``snnopt diff``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from snn_optimizer.cli.console import print_json, print_table, working
from snn_optimizer.cli.options import json_option, model_argument, quiet_option

if TYPE_CHECKING:
    from snn_optimizer.difference import Difference, LayerChange, TensorChange

__all__ = ["diff"]


@click.command(short_help="Show what differs between two models, as networks.")
@model_argument("a")
@model_argument("b")
@click.option("--data", type=click.Path(path_type=Path), help="Samples (.npz) to count operations and energy on.")
@json_option
@quiet_option
def diff(a: Path, b: Path, data: Path | None, *, as_json: bool, quiet: bool) -> int:
    """Show what differs from A to B: layers, neurons, weights, thresholds, decays, costs and bytes.

    Exits with 0 where both are the same network, whatever their names, metadata and size, and with 1 where they differ.
    """
    from snn_optimizer.difference import compare_models  # noqa: PLC0415 - heavy; --help must be quick

    with working("comparing", quiet=quiet):
        found = compare_models(a, b, data)
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)
    return 0 if found.same_network else 1


def _print(found: Difference) -> None:
    from snn_optimizer.measures import MEASURES, amount_text  # noqa: PLC0415 - heavy

    rows = []
    for name, measure in MEASURES.items():
        old, new = (values.get(name) for values in found.measures)
        if old is None and new is None:
            continue
        texts = ["" if held is None else amount_text(held, measure.unit) for held in (old, new)]
        change = f"{(new - old) / old:+.1%}" if old and new is not None and new != old else ""
        rows.append([measure.label, *texts, change])
    columns = [("", "left"), ("before", "right"), ("after", "right"), ("change", "right")]
    click.echo(f"{found.names[0]} -> {found.names[1]}")
    print_table("", columns, rows)
    click.echo()
    shown = [
        [*(["", ""] if place else [_sign(layer), layer.name]), line]
        for layer in found.changed_layers
        for place, line in enumerate(_lines(layer))
    ]
    if shown:
        print_table("", [("", "left"), ("layer", "left"), ("what changed", "left")], shown)
        click.echo()
    for was, now in found.interface:
        what = f"{was} became {now}" if was and now else f"{was} is gone" if was else f"{now} is new"
        click.echo(f"interface: {what}")
    for one in found.operators:
        number = f"{one.before} -> {one.after}" if one.before != one.after else str(one.before)
        others = f", {one.constants} of their constants are in one network only" if one.constants else ""
        click.echo(f"operators: {one.op} {number}{others}")
    click.echo(_verdict(found))


def _sign(layer: LayerChange) -> str:
    return {"added": "+", "removed": "-", "renamed": "="}.get(layer.status, "~")


def _lines(layer: LayerChange) -> list[str]:
    if layer.before is None or layer.after is None:
        one = layer.after or layer.before
        assert one is not None
        return [f"{layer.status}: {one.title}"]
    lines = [f"renamed, was {layer.before.name}"] if layer.renamed else []
    if layer.before.neurons != layer.after.neurons:
        lines.append(f"neurons {layer.before.neurons:,} -> {layer.after.neurons:,}")
    lines += [f"{name} {old} -> {new}" for name, old, new in layer.kind]
    if layer.synapses:
        sides = [" and ".join(one.synapses) or "nothing" for one in (layer.before, layer.after)]
        lines.append(f"fed by {sides[0]} -> {sides[1]}")
    return lines + [_tensor_line(change) for change in layer.tensors]


def _tensor_line(change: TensorChange) -> str:
    if not change.before or not change.after:
        return f"{change.name} {change.after or change.before} {'added' if change.after else 'removed'}"
    text = f"{change.name} {change.before} -> {change.after}" if change.before != change.after else change.name
    if change.changed is None or not change.elements:
        return text
    if change.elements == 1:
        return text
    share = f"{change.changed / change.elements:.1%}"
    return f"{text}: {change.changed:,} of {change.elements:,} differ ({share}), by at most {change.largest:.3g}"


def _verdict(found: Difference) -> str:
    if found.same_network:
        rest = (
            ", the same model file"
            if found.same_file
            else "; the files differ in names, metadata or in how it is written"
        )
        return f"the same network{rest}"
    if not found.changed_layers and not found.interface:
        return "the layers are the same; the networks differ between them, in operators, constants or connections"
    statuses = Counter(layer.status for layer in found.layers)
    order = ("added", "removed", "changed", "renamed", "same")
    return f"the networks differ: layers {', '.join(f'{statuses[one]} {one}' for one in order if statuses[one])}"
