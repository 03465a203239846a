"""Options that several commands share, and parsers of their values."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from snn_optimizer.cli.invocation import invocation
from snn_optimizer.errors import InputError

if TYPE_CHECKING:
    from snn_optimizer.ir import InputDomain
    from snn_optimizer.passes.base import Frontend

__all__ = [
    "ModelPath",
    "domain_of",
    "input_max_active_option",
    "input_range_option",
    "json_option",
    "limit_option",
    "model_argument",
    "quiet_option",
    "refuse_given",
    "seed_option",
    "steps_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])


class ModelPath(click.Path):
    """The path of a model; remembered, so that a failure can be traced to the model."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        path = super().convert(value, param, ctx)
        if ctx is not None:
            invocation(ctx).models.append(Path(os.fsdecode(path)))
        return path


def model_argument(name: str = "model") -> Callable[[Command], Command]:
    """Return the argument for a model file."""
    return click.argument(name, type=ModelPath(), metavar=name.upper())


def json_option(function: Command) -> Command:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def quiet_option(function: Command) -> Command:
    """Add ``--quiet``."""
    return click.option("-q", "--quiet", is_flag=True, help="No talk on stderr.")(function)


def seed_option(function: Command) -> Command:
    """Add ``--seed``."""
    return click.option("--seed", default=0, show_default=True, help="Seed of generated stimuli.")(function)


def input_range_option(function: Command) -> Command:
    """Add ``--input-range``."""
    return click.option(
        "--input-range",
        "input_ranges",
        multiple=True,
        metavar="[NAME=]LOW:HIGH",
        help="Declared range of the inputs, premise of all proofs.  [default: 0:1]",
    )(function)


def input_max_active_option(function: Command) -> Command:
    """Add ``--input-max-active``."""
    return click.option(
        "--input-max-active",
        "input_max_active",
        multiple=True,
        metavar="[NAME=]K",
        help="Declared: at most K entries of an input are non-zero at one step of one sample.  [default: all]",
    )(function)


def steps_option(function: Command) -> Command:
    """Add ``--steps``."""
    return click.option(
        "--steps", type=click.IntRange(min=1), default=16, show_default=True, help="Time steps where T is symbolic."
    )(function)


def limit_option(function: Command) -> Command:
    """Add ``--limit``."""
    return click.option(
        "--limit",
        type=click.IntRange(min=1),
        metavar="N",
        help="The most inputs to try one by one; more are refused, with their number.  [default: 1048576]",
    )(function)


def refuse_given(reason: str, *parameters: str) -> None:
    """Refuse options of the running command that would have no effect.

    Raises
    ------
    InputError
        If the caller gave one of them.
    """
    context = click.get_current_context()
    for option in context.command.params:
        if option.name in parameters and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
            raise InputError(f"{option.opts[-1]} has no effect here: {reason}")


def domain_of(texts: Sequence[str], active: Sequence[str] = ()) -> InputDomain:
    """Return the domain that ``--input-range`` and ``--input-max-active`` options declare.

    Raises
    ------
    InputError
        If a value is not ``[NAME=]LOW:HIGH``, or not ``[NAME=]K``.
    """
    from snn_optimizer.ir import InputDomain  # noqa: PLC0415 - heavy; only when used

    default = (0.0, 1.0)
    named: dict[str, tuple[float, float]] = {}
    for text in texts:
        name, _, interval = text.rpartition("=")
        low, colon, high = interval.partition(":")
        try:
            if not colon:
                raise ValueError(text)
            pair = (float(low), float(high))
        except ValueError:
            raise InputError(f"--input-range '{text}' is not [NAME=]LOW:HIGH, for example -1:1 or x=0:255") from None
        if name:
            named[name] = pair
        else:
            default = pair
    max_active, named_active = _active_limits(active)
    return InputDomain(default=default, named=named, max_active=max_active, named_active=named_active)


def _active_limits(texts: Sequence[str]) -> tuple[int | None, dict[str, int]]:
    """Read ``--input-max-active`` options."""
    everywhere: int | None = None
    named: dict[str, int] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if not number.strip().isdecimal() or int(number) < 1:
            raise InputError(f"--input-max-active '{text}' is not [NAME=]K with a whole K from 1, for example 8 or x=1")
        if name:
            named[name] = int(number)
        else:
            everywhere = int(number)
    return everywhere, named


def frontend_of(states: str | None, custom_ops: Path | None) -> Frontend:
    """Read ``--states`` and ``--custom-ops``.

    Raises
    ------
    InputError
        If a state is not written ``in=out``.
    """
    from snn_optimizer.passes.base import Frontend  # noqa: PLC0415 - heavy; --help must be quick

    pairs: dict[str, str] = {}
    for part in (states or "").split(","):
        if not part.strip():
            continue
        before, equals, after = (text.strip() for text in part.partition("="))
        if not equals or not before or not after:
            raise InputError(f"--states '{part}' must be IN=OUT, for example --states mem1=mem1_out")
        pairs[before] = after
    return Frontend(pairs, "" if custom_ops is None else str(custom_ops))
