"""``snnopt query``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from snn_optimizer.cli.console import print_json, progress_bar, talk
from snn_optimizer.cli.names import Choice
from snn_optimizer.cli.options import (
    domain_of,
    input_max_active_option,
    input_range_option,
    json_option,
    limit_option,
    model_argument,
    quiet_option,
    refuse_given,
    steps_option,
)
from snn_optimizer.errors import InputError

if TYPE_CHECKING:
    from snn_optimizer.exact.query import Answer

__all__ = ["query"]

NOT_DECIDED = 4


@click.command(short_help="Ask whether a neuron can ever fire, or ever stay silent.")
@model_argument()
@click.option("--layer", required=True, metavar="L", help="Name of the layer, as 'snnopt info' shows it.")
@click.option(
    "--neuron",
    type=click.IntRange(min=0),
    metavar="N",
    help="Number of the neuron, from 0; channels before positions.  [default: every neuron of the layer]",
)
@click.option(
    "--can-fire", "question", flag_value="can-fire", default=True, help="Does it fire for some input? (default)"
)
@click.option(
    "--can-stay-silent", "question", flag_value="can-stay-silent", help="Is it silent at some step of some input?"
)
@click.option(
    "--method",
    type=Choice(["auto", "enumerate", "milp"]),
    default="auto",
    show_default=True,
    help="Try every input; solve a mixed-integer linear program (needs scipy); or whichever is quicker.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Seconds for the solver, per neuron.",
)
@limit_option
@steps_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the input that shows it here (.npz).")
@input_range_option
@input_max_active_option
@json_option
@quiet_option
def query(
    model: Path,
    layer: str,
    neuron: int | None,
    question: Literal["can-fire", "can-stay-silent"],
    method: Literal["auto", "enumerate", "milp"],
    time_limit: float,
    limit: int | None,
    steps: int,
    output: Path | None,
    input_ranges: tuple[str, ...],
    input_max_active: tuple[str, ...],
    *,
    as_json: bool,
    quiet: bool,
) -> int:
    """Decide for every input of the declared domain what neurons of MODEL can do.

    The answer is a witness, which was replayed in onnxruntime; a proof that there is none; or "not decided".
    """
    from snn_optimizer.api import raise_model  # noqa: PLC0415 - heavy; --help must be quick
    from snn_optimizer.exact.query import query_layer  # noqa: PLC0415
    from snn_optimizer.exact.space import DEFAULT_LIMIT  # noqa: PLC0415

    if method == "enumerate":
        refuse_given("trying every input has no time limit", "time_limit")
    if method == "milp":
        refuse_given("a program is solved without trying inputs", "limit")
    if output is not None and neuron is None:
        raise InputError("--output holds the witness of one neuron; choose it with --neuron")
    network = raise_model(model).graph.to_onnx()
    with progress_bar(quiet=quiet or as_json) as report:
        answers = query_layer(
            network, layer, None if neuron is None else [neuron], question, method=method,
            domain=domain_of(input_ranges, input_max_active), steps=steps, limit=limit or DEFAULT_LIMIT,
            time_limit=time_limit, progress=lambda done, total: report("query", done, total),
        )  # fmt: skip
    if output is not None and answers[0].witness is not None:
        answers[0].save_witness(output)
        talk(f"wrote the witness to {output}", quiet=quiet)
    elif output is not None:
        talk(f"there is no witness, {output} was not written", quiet=quiet)
    if as_json:
        print_json(answers[0].to_json() if neuron is not None else {"answers": [one.to_json() for one in answers]})
    else:
        _print(answers, question, alone=neuron is not None)
    return NOT_DECIDED if any(one.outcome == "not decided" for one in answers) else 0


def _print(answers: list[Answer], question: str, *, alone: bool) -> None:
    if not alone:
        named = {"yes": "can fire", "no": "never fire"}
        if question == "can-stay-silent":
            named = {"yes": "can stay silent", "no": "fire at every step"}
        named["not decided"] = "not decided"
        parts = [f"{sum(one.outcome == outcome for one in answers):,} {text}" for outcome, text in named.items()]
        click.echo(f"{answers[0].population}: {len(answers):,} neurons, {', '.join(parts)}")
    for one in answers:
        if alone or one.outcome != "yes":
            click.echo(str(one))
    how = "all inputs tried" if answers[0].method == "enumerate" else "mixed-integer linear program"
    seconds = answers[0].seconds if answers[0].method == "enumerate" else sum(one.seconds for one in answers)
    click.echo(f"{how}: {answers[0].inputs}; {seconds:.2f} s")
