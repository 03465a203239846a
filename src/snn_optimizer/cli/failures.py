"""What is said about a failure, and the exit code: one line, and the model named where it is at fault."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from snn_optimizer.errors import ExecutionError, OutputError, PassError, PipelineSpecError, SnnOptimizerError

if TYPE_CHECKING:
    from snn_optimizer.execution.diagnosis import Fault

__all__ = ["complain", "failure_code", "one_line", "written_badly"]

_LONGEST_NAME: Final = 120
_LONGEST_LINE: Final = 1000
_NAME: Final = re.compile("'[^']*'")  # short ones too, so that what stands between two of them is not taken for one
_TRACED: Final = (ExecutionError, PassError)


def one_line(text: str) -> str:
    """Return text, with what a file calls its nodes in it, as one printable line of bearable length."""
    line = _NAME.sub(
        lambda found: found[0] if len(found[0]) < _LONGEST_NAME + 2 else f"{found[0][:_LONGEST_NAME]} ...'", text
    )
    line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} ..."


def complain(message: str) -> None:
    """Say on stderr, in one line, why nothing was done."""
    click.echo(f"snnopt: {one_line(message)}", err=True)


def failure_code(error: Exception, models: Sequence[Path]) -> int:
    """Say what went wrong and return the exit code.

    Where a pass or the runtime failed, the models are examined first: one that breaks the rules
    of ONNX is the caller's input, not a defect.
    """
    if isinstance(error, PipelineSpecError):  # shows the text and the place in it
        click.echo(f"snnopt: {error}", err=True)
        return error.exit_code
    if isinstance(error, OSError):
        return written_badly(error)
    if isinstance(error, MemoryError):
        complain("not enough memory for this model and data")
        return 2
    if isinstance(error, SnnOptimizerError) and not isinstance(error, _TRACED):
        complain(str(error))
        return error.exit_code
    for model in dict.fromkeys(models):
        if (found := _fault(model)) is not None:
            complain(f"'{model}': {found}")
            return 2 if found.invalid else ExecutionError.exit_code
    if isinstance(error, SnnOptimizerError):
        complain(str(error))
        return error.exit_code
    complain(f"internal error, please report it: {type(error).__name__}: {error}")
    return 3


def written_badly(error: OSError) -> int:
    """Say that the output could not be written and return the exit code; whoever closed the pipe knows."""
    if isinstance(error, BrokenPipeError):
        return 0
    where = f"'{error.filename}'" if error.filename else "the output"
    complain(f"{where}: {error.strerror or error}")
    return OutputError.exit_code


def _fault(model: Path) -> Fault | None:
    from snn_optimizer.execution.diagnosis import find_fault  # noqa: PLC0415 - heavy; --help must be quick

    try:
        return find_fault(model)
    except Exception:  # noqa: BLE001 - the failure that is being explained must still be told
        return None
