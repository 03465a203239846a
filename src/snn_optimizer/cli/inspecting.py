"""``snnopt info`` and ``snnopt passes``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from snn_optimizer.cli.console import bytes_text, print_json, print_table
from snn_optimizer.cli.nir_files import nir_options, runnable
from snn_optimizer.cli.options import json_option, model_argument

__all__ = ["info", "passes"]


@click.command(short_help="Show the network in a model.")
@model_argument()
@nir_options
@json_option
def info(model: Path, *, as_json: bool, **options: Any) -> int:
    """Show layers, neurons, synapses and neuron equations of MODEL.

    An export of a framework is raised first: what is shown is the network, not its unrolled nodes.
    """
    from snn_optimizer.api import raise_model  # noqa: PLC0415 - heavy; --help must be quick
    from snn_optimizer.ir import equation  # noqa: PLC0415

    raised = raise_model(runnable(model, options))
    graph, module = raised.graph, raised.graph.module
    size = model.stat().st_size
    weights = module.initializer_bytes()
    if as_json:
        print_json(
            {
                "model": str(model),
                "bytes": size,
                "weight_bytes": weights,
                "opset": dict(module.opset_imports),
                "form": raised.form,
                "steps": raised.steps,
                "producer": raised.producer,
                "neurons": graph.total_neurons,
                "parameters": graph.total_params,
                "nonzero_parameters": graph.nonzero_params,
                "nodes": raised.nodes,
                "functions": len(module.functions),
                "metadata": dict(module.metadata),
                "layers": [_layer(layer, equation(layer), raised.origins.get(layer.name)) for layer in graph.layers],
                "not_raised": raised.refused,
            }
        )
        return 0
    click.echo(str(graph))
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(module.opset_imports.items()))
    click.echo(f"  file {bytes_text(size)}, {raised.nodes:,} nodes, weights {bytes_text(weights)}; {opsets}")
    came = f" from {raised.producer}" if raised.producer else ""
    count = f", T={raised.steps}" if raised.steps else ""
    click.echo(f"  {raised.form}{count}{came}")
    classes = dict.fromkeys(origin for origin in raised.origins.values() if origin)
    if classes:
        click.echo(f"  neurons written by {', '.join(classes)}")
    for key, value in sorted(module.metadata.items()):
        click.echo(f"  {key}: {value}")
    for reason in raised.refused:
        click.echo(f"  not raised: {reason}")
    if not graph.layers:
        click.echo("  no neurons found: the model is optimized as a plain graph")
    return 0


def _layer(layer: Any, text: str, origin: str | None) -> dict[str, Any]:
    return {
        "name": layer.name,
        "neuron_type": layer.neuron_type,
        "neurons": layer.n_neurons,
        "inputs": layer.n_inputs,
        "equation": text,
        "origin": origin,
        "synapses": [{"name": p.node.name, "op": p.node.op, "shape": list(p.shape)} for p in layer.projections],
    }


@click.command(short_help="List the passes, or explain one.")
@click.argument("name", required=False)
@click.option("--explain", metavar="PIPELINE", help="Print the canonical text of a pipeline, presets expanded.")
@json_option
def passes(name: str | None, explain: str | None, *, as_json: bool) -> int:
    """List all passes with what they promise, or explain the pass NAME and its options."""
    from snn_optimizer.passes import registry  # noqa: PLC0415 - heavy; --help must be quick
    from snn_optimizer.pipeline.presets import PRESETS, expand  # noqa: PLC0415
    from snn_optimizer.pipeline.spec import parse  # noqa: PLC0415

    if explain is not None:
        click.echo(str(expand(parse(explain))))
        return 0
    if name is not None:
        _explain(registry, name, as_json=as_json)
        return 0
    found = [(n, registry.load(n)) for n in registry.names()]
    if as_json:
        print_json(
            {
                "passes": [
                    {
                        "name": n,
                        "exactness": p.exactness.name.lower(),
                        "aliases": list(p.aliases),
                        "summary": p.describe(),
                    }
                    for n, p in found
                ],
                "presets": dict(PRESETS),
            }
        )
        return 0
    rows = [[n, p.exactness.name.lower(), p.describe()] for n, p in found]
    print_table("", [("pass", "left"), ("claim", "left"), ("", "left")], rows)
    click.echo()
    print_table(
        "",
        [("preset", "left"), ("pipeline", "left")],
        [[f"@{n}", text or "(nothing)"] for n, text in PRESETS.items()],
    )
    return 0


def _explain(registry: Any, name: str, *, as_json: bool) -> None:
    canonical = registry.resolve(name)
    one = registry.load(canonical)
    options = registry.options_of(canonical)
    if as_json:
        print_json(
            {
                "name": canonical,
                "exactness": one.exactness.name.lower(),
                "aliases": list(one.aliases),
                "documentation": one.__doc__,
                "options": [{"name": o[0], "type": o[1], "default": o[2]} for o in options],
            }
        )
        return
    click.echo(f"{canonical}  ({one.exactness.name.lower()})")
    if one.aliases:
        click.echo(f"aliases: {', '.join(one.aliases)}")
    click.echo()
    click.echo(_dedent(one.__doc__ or "").split("\n\nAttributes\n")[0])
    if options:
        click.echo()
        rows = [[str(x) for x in option] for option in options]
        print_table("", [("option", "left"), ("type", "left"), ("default", "left"), ("", "left")], rows)


def _dedent(text: str) -> str:
    import inspect  # noqa: PLC0415 - only here

    return inspect.cleandoc(text)
