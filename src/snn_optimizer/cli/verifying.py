"""``snnopt verify``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snn_optimizer.cli.console import print_json, print_table, progress_bar, talk
from snn_optimizer.cli.names import Choice
from snn_optimizer.cli.nir_files import as_onnx, is_nir, nir_options, refuse_nir_options
from snn_optimizer.cli.options import (
    domain_of,
    input_max_active_option,
    input_range_option,
    json_option,
    limit_option,
    model_argument,
    quiet_option,
    refuse_given,
    seed_option,
    steps_option,
)
from snn_optimizer.errors import InputError, ModelLoadError, OutputError

if TYPE_CHECKING:
    from snn_optimizer.execution.source import ModelSource
    from snn_optimizer.ir import InputDomain
    from snn_optimizer.verification import Equivalence, Examination
    from snn_optimizer.verification.behaviour import Behaviour
    from snn_optimizer.verification.referees import Opinion

__all__ = ["verify"]

EXIT = {"EQUIVALENT": 0, "DIFFERENT": 1, "INCONCLUSIVE": 4}


@click.command(short_help="Check that two models compute the same.")
@model_argument("before")
@model_argument("after")
@click.option("--exactness", type=Choice(["bitwise", "algebraic", "profiled"]), default="algebraic", show_default=True)
@click.option("--data", type=click.Path(path_type=Path), help="Also compare on these samples (.npz).")
@click.option("--no-stimuli", is_flag=True, help="Compare on DATA alone: nothing is generated.")
@steps_option
@click.option(
    "--counterexample",
    type=click.Path(path_type=Path),
    help="Where to write a differing input (.npz).  [default: AFTER.counterexample.npz, beside AFTER]",
)
@click.option(
    "--time-scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Steps within which two spikes count as near, in measures of spike trains.",
)
@click.option("--exhaustive", is_flag=True, help="Try every input of the declared domain instead; small models only.")
@limit_option
@click.option("--quick", is_flag=True, help="Search less for inputs at thresholds; ask no further referee.")
@input_range_option
@input_max_active_option
@nir_options
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
    time_scale: float,
    limit: int | None,
    input_ranges: tuple[str, ...],
    input_max_active: tuple[str, ...],
    seed: int,
    *,
    no_stimuli: bool,
    exhaustive: bool,
    quick: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Run BEFORE and AFTER on generated spike trains (and DATA) and compare what they put out.

    Both run in onnxruntime with its optimizer off, then with its optimizer on, and in the NumPy reference of
    ONNX. A differing input is made small and written as an .npz file that --data reads.

    With --exhaustive every input of the declared domain is tried: spikes are 0 or 1, so of n inputs over T steps
    there are 2^(n T). The verdict is then exact, and no difference is excused.

    Exit codes: 0 EQUIVALENT, 1 DIFFERENT, 4 INCONCLUSIVE.
    """
    from snn_optimizer.ir.atomic import check_targets  # noqa: PLC0415 - heavy; --help must be quick

    check_targets(counterexample)
    first, second = (as_onnx(one, options) for one in (before, after))
    if not is_nir(before) and not is_nir(after):
        refuse_nir_options()
    if exhaustive:
        refuse_given("--exhaustive tries every input", "data", "seed", "no_stimuli", "quick", "time_scale")
        return _verify_exhaustively(
            first, second, exactness, steps, limit, domain_of(input_ranges, input_max_active), counterexample,
            as_json=as_json, quiet=quiet,
        )  # fmt: skip
    refuse_given("it belongs to --exhaustive", "limit")
    if no_stimuli and data is None:
        raise InputError("--no-stimuli leaves nothing to compare on: give --data as well")
    if exactness == "profiled" and data is None:
        raise InputError("--exactness profiled is a claim about data: give --data")
    from snn_optimizer.api import examine  # noqa: PLC0415 - heavy; --help must be quick

    with progress_bar(quiet=quiet or as_json) as report:
        found = examine(
            first,
            second,
            data,
            exactness=exactness,
            stimuli=() if no_stimuli else None,
            seed=seed,
            steps=steps,
            ranges=domain_of(input_ranges, input_max_active),
            time_scale=time_scale,
            thorough=not quick,
            progress=lambda done, total: report("verify", done, total),
        )
    if str(found.equivalence.verdict) == "INCONCLUSIVE":
        _refuse_invalid(*(one for one in (before, after) if not is_nir(one)))
    written = _write_counterexample(found.equivalence, counterexample, after, quiet=quiet)
    if as_json:
        print_json({**found.to_json(), "counterexample_file": None if written is None else str(written)})
    else:
        _print(found, before, after, written)
    return EXIT[str(found.equivalence.verdict)]


def _verify_exhaustively(
    before: ModelSource,
    after: ModelSource,
    exactness: str,
    steps: int,
    limit: int | None,
    domain: InputDomain,
    counterexample: Path | None,
    *,
    as_json: bool,
    quiet: bool,
) -> int:
    from snn_optimizer.exact.equivalence import verify_exhaustively  # noqa: PLC0415 - heavy; --help must be quick
    from snn_optimizer.exact.space import DEFAULT_LIMIT  # noqa: PLC0415

    with progress_bar(quiet=quiet or as_json) as report:
        found = verify_exhaustively(
            before, after, exactness=exactness, steps=steps, domain=domain, limit=limit or DEFAULT_LIMIT,
            progress=lambda done, total: report("inputs", done, total),
        )  # fmt: skip
    outcome = found.equivalence
    if counterexample is not None and outcome.counterexample is not None:
        outcome.save_counterexample(counterexample)
        talk(f"wrote a counterexample to {counterexample}", quiet=quiet)
    if as_json:
        print_json(found.to_json())
    else:
        click.echo(str(found))
        click.echo(
            f"{outcome.spikes_compared:,} spikes compared, {outcome.spikes_differing:,} differ; "
            f"{outcome.values_compared:,} values, largest difference {outcome.max_abs_difference:g}"
        )
    return EXIT[str(outcome.verdict)]


def _refuse_invalid(*models: Path) -> None:
    """Refuse a model that breaks the rules of ONNX: that nothing can be told about it is no verdict."""
    from snn_optimizer.execution.diagnosis import find_fault  # noqa: PLC0415 - heavy; --help must be quick

    for model in models:
        fault = find_fault(model)
        if fault is not None and fault.invalid:
            raise ModelLoadError(f"'{model}': {fault}")


def _write_counterexample(found: Equivalence, wanted: Path | None, after: Path, *, quiet: bool) -> Path | None:
    if found.counterexample is None:
        return None
    path = wanted or after.with_suffix(".counterexample.npz")
    try:
        found.save_counterexample(path)
    except OutputError as error:
        if wanted is not None:
            raise
        talk(f"no counterexample was written, --counterexample names another place: {error}", quiet=quiet)
        return None
    talk(f"wrote a counterexample to {path}", quiet=quiet)
    return path


def _print(result: Examination, before: Path, after: Path, written: Path | None) -> None:
    found = result.equivalence
    click.echo(f"{found.verdict}" + (f": {found.reason}" if found.reason else ""))
    click.echo(
        f"{found.spikes_compared:,} spikes compared, {found.spikes_differing:,} differ; "
        f"{found.values_compared:,} values, largest difference {found.max_abs_difference:g}; "
        f"{found.samples:,} samples, {found.near_ties} near ties"
    )
    if result.divergence is not None:
        click.echo(f"first inside: {result.divergence}")
    if result.shrunk is not None:
        _print_counterexample(result, before, after, written)
    if result.tried:
        click.echo(f"tried: {', '.join(f'{kind} {samples}' for kind, samples in result.tried.items())}")
    for stimulus in found.skipped:
        click.echo(f"not tried: {stimulus}, on which the original itself does not run")
    if result.opinions:
        click.echo()
        _print_referees(result)
    if result.coverage is not None and result.coverage.populations:
        click.echo()
        _print_coverage(result)
    elif found.cases:
        click.echo("\nno coverage: the neurons of the original cannot be seen")
    for place, behaviour in (("on the data", result.on_data), ("on stimuli", result.on_stimuli)):
        if behaviour is not None:
            _print_behaviour(place, behaviour)


def _print_counterexample(result: Examination, before: Path, after: Path, written: Path | None) -> None:
    small = result.shrunk
    assert small is not None
    steps = f"{small.steps} step{'' if small.steps == 1 else 's'}"
    size = f"{small.data.samples} sample{'' if small.data.samples == 1 else 's'}, {steps}, {small.active} active inputs"
    notes = []
    if not small.alone:
        notes.append("the samples of the run differ only together")
    elif not small.minimal:
        notes.append("perhaps not the smallest")
    click.echo(f"counterexample: {', '.join([size, *notes])}")
    if written is not None:
        command = ["snnopt", "verify", str(before), str(after), "--data", str(written), "--no-stimuli"]
        level = str(result.equivalence.level)
        if level != "algebraic":
            command += ["--exactness", level]
        click.echo(f"replay: {shlex.join(command)}")


def _print_referees(result: Examination) -> None:
    rows = [["onnxruntime, optimizer off", str(result.first_verdict), f"{result.equivalence.samples:,}", "", ""]]
    rows += [_referee(opinion) for opinion in result.opinions]
    headings = [("referee", "left"), ("verdict", "left"), ("samples", "right"), ("disagrees", "right"), ("", "left")]
    print_table("", headings, rows)


def _referee(opinion: Opinion) -> list[str]:
    if opinion.failure is not None:
        return [opinion.referee, "did not run", "", "", opinion.failure]
    note = opinion.broken or ""
    if not note and opinion.dispute is not None:
        note = f"about the original itself: {opinion.dispute}"
    elif not note and opinion.disputed_after:
        note = "about the rewritten model only"
    disputed = max(opinion.disputed, opinion.disputed_after)
    return [opinion.referee, opinion.verdict, f"{opinion.samples:,}", f"{disputed:,}", note]


def _print_coverage(result: Examination) -> None:
    assert result.coverage is not None
    headings = ["layer", "neurons", "fired", "never fired", "near threshold", "on threshold", "untested"]
    rows = []
    for each in result.coverage.populations.values():
        fired = int(each.fired.sum())
        counts = [each.neurons, fired, each.neurons - fired, each.near.sum(), each.met.sum(), each.untested.sum()]
        rows.append([each.population, *(f"{int(count):,}" for count in counts)])
    print_table("", [(heading, "left" if heading == "layer" else "right") for heading in headings], rows)


def _print_behaviour(place: str, behaviour: Behaviour) -> None:
    trains = [("output", name, each) for name, each in behaviour.outputs.items()]
    trains += [("layer", name, each) for name, each in behaviour.populations.items()]
    if trains:
        click.echo()
        rows = [
            [
                f"{kind} {name}",
                f"{each.trains:,}",
                f"{each.exact_match:.4%}",
                "" if each.coincidence is None else f"{each.coincidence:.6f}",
                f"{each.victor_purpura:.4g} / {each.victor_purpura_max:.4g}",
                f"{each.van_rossum:.4g} / {each.van_rossum_max:.4g}",
            ]
            for kind, name, each in trains
        ]
        headings = [f"spike trains {place}", "trains", "exact match", "coincidence", "Victor-Purpura", "van Rossum"]
        print_table("", [(heading, "right" if column else "left") for column, heading in enumerate(headings)], rows)
    for each in behaviour.decisions:
        agreed = f"{each.agreeing:,} of {each.samples:,} the same ({each.share:.2%})"
        click.echo(f"decisions {place}, by {each.rule} of '{each.output}': {agreed}")
