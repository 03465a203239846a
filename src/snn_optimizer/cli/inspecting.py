"""``snnopt info`` and ``snnopt passes``."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import click

from snn_optimizer.cli.console import bytes_text, print_json, print_table, talk, working
from snn_optimizer.cli.names import PassName, PipelineText
from snn_optimizer.cli.nir_files import nir_options, runnable
from snn_optimizer.cli.options import json_option, model_argument, quiet_option
from snn_optimizer.errors import InputError

__all__ = ["info", "passes"]


@click.command(short_help="Show the network in a model.")
@model_argument()
@nir_options
@json_option
@quiet_option
def info(model: Path, *, as_json: bool, quiet: bool, **options: Any) -> int:
    """Show layers, neurons, synapses and neuron equations of MODEL.

    An export of a framework is raised first: what is shown is the network, not its unrolled nodes.
    """
    from snn_optimizer.api import raise_model  # noqa: PLC0415 - heavy; --help must be quick
    from snn_optimizer.ir import equation  # noqa: PLC0415

    with working("reading", quiet=quiet):
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
@click.argument("name", type=PassName(), required=False)
@click.option(
    "--explain", type=PipelineText(), metavar="PIPELINE",
    help="Print the canonical text of a pipeline, presets expanded.",
)  # fmt: skip
@json_option
@quiet_option
def passes(name: str | None, explain: str | None, *, as_json: bool, quiet: bool) -> int:
    """List all passes with what they promise, or explain the pass NAME and its options."""
    if name is not None and explain is not None:
        raise InputError("give the name of a pass or --explain PIPELINE, not both")
    if explain is not None:
        _print_canonical(explain, as_json=as_json)
    elif name is not None:
        _explain(name, as_json=as_json)
    else:
        _list(as_json=as_json, quiet=quiet)
    return 0


def _print_canonical(text: str, *, as_json: bool) -> None:
    from snn_optimizer.pipeline.manager import create_passes  # noqa: PLC0415 - heavy; --help must be quick
    from snn_optimizer.pipeline.presets import expand  # noqa: PLC0415
    from snn_optimizer.pipeline.spec import parse  # noqa: PLC0415

    pipeline = expand(parse(text))
    create_passes(pipeline.elements)  # a wrong name or option is told here as it is when the pipeline runs
    if as_json:
        print_json({"pipeline": text, "canonical": str(pipeline)})
    else:
        click.echo(str(pipeline))


def _list(*, as_json: bool, quiet: bool) -> None:
    from snn_optimizer.passes import registry  # noqa: PLC0415 - heavy; --help must be quick
    from snn_optimizer.pipeline.presets import PRESETS  # noqa: PLC0415

    found = []
    for name in registry.names():
        try:
            found.append((name, registry.load(name)))
        except InputError as error:  # of another distribution: the others can be used
            talk(f"snnopt: warning: {error}", quiet=quiet)
    if as_json:
        print_json(
            {
                "passes": [
                    {
                        "name": name,
                        "exactness": one.exactness.name.lower(),
                        "aliases": list(one.aliases),
                        "summary": one.describe(),
                        "distribution": registry.distribution_of(name),
                    }
                    for name, one in found
                ],
                "presets": dict(PRESETS),
            }
        )
        return
    rows = [[name, one.exactness.name.lower(), one.describe()] for name, one in found]
    print_table("", [("pass", "left"), ("claim", "left"), ("", "left")], rows)
    click.echo()
    print_table(
        "",
        [("preset", "left"), ("pipeline", "left")],
        [[f"@{name}", text or "(nothing)"] for name, text in PRESETS.items()],
    )


def _explain(name: str, *, as_json: bool) -> None:
    from snn_optimizer.passes import registry  # noqa: PLC0415 - heavy; --help must be quick

    canonical = registry.resolve(name)
    one = registry.load(canonical)
    owner = registry.distribution_of(canonical)
    options = [
        {"name": o.name, "type": o.type_text, "default": _default(o), "doc": o.doc}
        for o in registry.options_of(canonical)
    ]
    if as_json:
        print_json(
            {
                "name": canonical,
                "exactness": one.exactness.name.lower(),
                "aliases": list(one.aliases),
                "distribution": owner,
                "documentation": inspect.cleandoc(one.__doc__ or ""),
                "options": options,
            }
        )
        return
    click.echo(f"{canonical}  ({one.exactness.name.lower()})")
    if one.aliases:
        click.echo(f"aliases: {', '.join(one.aliases)}")
    if owner != registry.DISTRIBUTION:
        click.echo(f"from the distribution {owner}")
    click.echo()
    click.echo(_prose(one.__doc__ or ""))
    if options:
        click.echo()
        rows = [[str(value) for value in option.values()] for option in options]
        print_table("", [("option", "left"), ("type", "left"), ("default", "left"), ("", "left")], rows)


def _default(option: Any) -> Any:
    """Return the default as pipeline text has it, as far as JSON can say it."""
    if option.default is MISSING:
        return "(required)"
    return "none" if option.default is None else option.default


def _prose(text: str) -> str:
    """Return a docstring without the sections that describe options, which are printed as a table."""
    return re.split(r"\n\n(?:Parameters|Attributes)\n-+\n", inspect.cleandoc(text))[0]
