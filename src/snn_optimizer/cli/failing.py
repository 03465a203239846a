"""What the commands that look for a failure share: the pipeline, its data and premises, and the caller's check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snn_optimizer.cli.names import Choice, PipelineText
from snn_optimizer.cli.optimizing import LEVELS, forbid_unbudgeted
from snn_optimizer.cli.options import (
    Command,
    domain_of,
    frontend_of,
    input_max_active_option,
    input_range_option,
    json_option,
    quiet_option,
    seed_option,
)
from snn_optimizer.errors import InputError

if TYPE_CHECKING:
    from snn_optimizer.api import Job

__all__ = ["failing_job", "failing_options"]

OPTIONS = (
    click.argument("check", nargs=-1, metavar="[-- CHECK {}]"),
    click.option("-p", "--pipeline", type=PipelineText(), help="Pipeline text instead of a level."),
    click.option("--calib", type=click.Path(path_type=Path), help="Samples (.npz): one array per input, and labels."),
    click.option("--max-accuracy-drop", type=float, help="Budget of a lossy pipeline; so are the next two."),
    click.option("--max-decision-change", type=float),
    click.option("--max-spike-change", type=float),
    click.option(
        "--states", metavar="IN=OUT,...", help="States of a one-step model.  [default: found from the dataflow]"
    ),
    click.option("--custom-ops", type=click.Path(path_type=Path), help="Neuron operators without a body (.toml)."),
    click.option("--check-timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds a check may take."),
    click.option("--fail-regex", metavar="R", help="A failure counts only where what it prints matches R, too."),
    input_range_option,
    input_max_active_option,
    seed_option,
    json_option,
    quiet_option,
)


def failing_options(default: str) -> Callable[[Command], Command]:
    """Return a decorator that adds CHECK and the options; ``default`` says what runs without a level or a pipeline."""

    def decorate(function: Command) -> Command:
        for option in reversed(OPTIONS):
            function = option(function)
        help_text = f"Level: -O0 to -O3, -Oz.  [default: {default}]"
        return click.option("-O", "level", type=Choice(LEVELS), default=None, help=help_text)(function)

    return decorate


def failing_job(
    check: tuple[str, ...], level: str | None, pipeline: str | None, options: dict[str, Any], *, default: str
) -> Job:
    """Return the job that fails.

    Raises
    ------
    InputError
        If options contradict each other, or would have no effect.
    """
    from snn_optimizer.api import Job  # noqa: PLC0415 - heavy; --help must be quick
    from snn_optimizer.pipeline.budget import Budget  # noqa: PLC0415

    if level is not None and pipeline is not None:
        raise InputError("give a level or a pipeline (-O or -p), not both")
    budget = Budget(options["max_accuracy_drop"], options["max_decision_change"], options["max_spike_change"])
    text = pipeline if pipeline is not None else default if level is None else f"@O{level}"
    if check:
        forbid_unbudgeted(text, budget)
    elif options["check_timeout"] is not None:
        raise InputError("--check-timeout is for a check command: give one, -- CHECK {}, or leave it out")
    return Job(
        pipeline=text,
        calibration=options["calib"],
        budget=budget,
        domain=domain_of(options["input_ranges"], options["input_max_active"]),
        seed=options["seed"],
        frontend=frontend_of(options["states"], options["custom_ops"]),
    )
