"""NIR files on the command line: options that say how time becomes steps, reading, writing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from snn_optimizer.cli.console import talk
from snn_optimizer.cli.options import refuse_given
from snn_optimizer.errors import InputError, OutputError

if TYPE_CHECKING:
    import onnx

    from snn_optimizer.ir import SNNGraph
    from snn_optimizer.nir import Discretization, Export, NirNetwork

__all__ = [
    "allow_loss_option",
    "as_onnx",
    "describe",
    "export_nir",
    "is_nir",
    "nir_options",
    "open_model",
    "read_nir",
    "refuse_nir_options",
    "require_suffix",
    "runnable",
    "save_nir",
]

Command = TypeVar("Command", bound=Callable[..., Any])
_SCHEMES = ("exponential", "euler")
_INTEGRATORS = ("impulse", "current")
_FEEDBACKS = ("spikes", "current")
_MOST_CHANGED = 0.01  # of the output values of a file that is read back: beyond that it is not rounding,
_LARGEST_ROUNDING = 1e-4  # unless the values are potentials and differ by no more than this part of the largest


def nir_options(command: Command) -> Command:
    """Add ``--dt``, ``--discretization``, ``--integrator`` and ``--feedback``."""
    for option in (
        click.option(
            "--feedback", type=click.Choice(_FEEDBACKS), default=_FEEDBACKS[0], show_default=True,
            help="NIR: what a loop carries to the next step: the spikes, or the current that they make.",
        ),
        click.option(
            "--integrator", type=click.Choice(_INTEGRATORS), default=_INTEGRATORS[0], show_default=True,
            help="NIR: what an IF or I node adds per step: r * input, or r * input * dt.",
        ),
        click.option(
            "--discretization", type=click.Choice(_SCHEMES), default="euler", show_default=True,
            help="NIR: how the equations become steps.",
        ),
        click.option("--dt", type=float, metavar="SECONDS", help="NIR: length of a step, for example 1e-4."),
    ):  # fmt: skip
        command = option(command)
    return command


def allow_loss_option(command: Command) -> Command:
    """Add ``--allow-loss``."""
    return click.option(
        "--allow-loss", multiple=True, metavar="NAME", help="NIR: write a neuron that NIR cannot say in full."
    )(command)


def is_nir(path: Path | None) -> bool:
    """Tell whether a path is that of a NIR file."""
    return path is not None and path.suffix == ".nir"


def _time(options: Mapping[str, Any]) -> Discretization:
    from snn_optimizer.nir import Discretization  # noqa: PLC0415 - heavy; --help must be quick

    return Discretization(options["dt"], options["discretization"], options["integrator"], options["feedback"])


def read_nir(path: Path, options: Mapping[str, Any]) -> NirNetwork:
    """Read a NIR file as the options say."""
    from snn_optimizer.nir import load  # noqa: PLC0415 - heavy; --help must be quick

    return load(path, _time(options))


def open_model(model: Path, output: Path | None, options: Mapping[str, Any]) -> NirNetwork | None:
    """Return the network of a NIR file, None for other files, whose format the output must have then too.

    Raises
    ------
    InputError
        If the options make no sense for these files.
    """
    if not is_nir(model):
        if is_nir(output):
            raise InputError(f"'{output}' is a NIR file and '{model}' is not: write .onnx, then snnopt convert")
        refuse_nir_options("allow_loss")
        return None
    if is_nir(output):
        refuse_given("a NIR file has one form and no weights beside it", "emit", "external_data")
    else:
        refuse_given("it is about writing NIR files", "allow_loss")
    refuse_given("what is not in a NIR file cannot be named in it", "states", "custom_ops")
    return read_nir(model, options)


def as_onnx(model: Path, options: Mapping[str, Any]) -> Path | onnx.ModelProto:
    """Return the ONNX form of a NIR file, other files as they are."""
    return read_nir(model, options).graph.to_onnx() if is_nir(model) else model


def runnable(model: Path, options: Mapping[str, Any]) -> Path | onnx.ModelProto:
    """Return a model as what runs, and refuse options about NIR files for others."""
    if not is_nir(model):
        refuse_nir_options()
    return as_onnx(model, options)


def refuse_nir_options(*others: str) -> None:
    """Refuse the options of :func:`nir_options`, and others, where no NIR file is read or written."""
    refuse_given("it is about NIR files", "dt", "discretization", "integrator", "feedback", *others)


def export_nir(
    graph: SNNGraph, output: Path, options: Mapping[str, Any], origin: NirNetwork | None = None,
    states: Mapping[str, str] | None = None, allowed: Sequence[str] = (), *, quiet: bool = False,
) -> Export | None:  # fmt: skip
    """Return a network as a NIR file, None where that does something else; what was lost is said on stderr."""
    from snn_optimizer.nir import export  # noqa: PLC0415 - heavy

    made = export(
        graph, _time(options), origin, allowed=allowed, states=states, label=f"'{output}'", seed=options.get("seed", 0)
    )
    for loss in made.losses:
        talk(f"snnopt: warning: lost: {loss}", quiet=quiet)
    if made.left_out:
        names = ", ".join(f"'{name}'" for name in made.left_out)
        talk(f"snnopt: warning: left out, as states after the last step are no outputs in NIR: {names}", quiet=quiet)
    if made.flattened:
        talk("snnopt: warning: a pass changed what is inside subgraphs, so they were opened", quiet=quiet)
    check = made.check
    many = check.changed > _MOST_CHANGED * check.compared and check.largest > _LARGEST_ROUNDING
    if many and not made.losses:
        talk(
            f"snnopt: nothing was written: read back, '{output}' gives {check.changed:,} of {check.compared:,} output "
            "values otherwise"
        )
        return None
    if not check.spikes:
        talk("snnopt: warning: the NIR file was compared on trains that make nothing fire", quiet=quiet)
    return made


def save_nir(made: Export, output: Path, files: Any) -> None:
    """Write a NIR file with a group of files."""
    with files.open(output) as stream:
        stream.write(made.data)


def describe(made: Export) -> str:
    """Say what reading a written file back showed."""
    check = made.check
    if not check.changed:
        return f"{check.compared:,} output values of the file, read back, equal to those of the network"
    why = "losses and rounding" if made.losses else "rounding"
    return (
        f"{check.changed:,} of {check.compared:,} output values of the file, read back, differ, by at most "
        f"{check.largest:.2g} of the largest ({why})"
    )


def require_suffix(path: Path) -> None:
    """Refuse a file that is neither ONNX nor NIR by its name.

    Raises
    ------
    OutputError
    """
    if path.suffix not in (".nir", ".onnx"):
        raise OutputError(f"'{path}' must end in .onnx or .nir")
