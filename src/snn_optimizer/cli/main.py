"""``snnopt``: parse the command line, call the programming interface, print, and choose the exit code."""

from __future__ import annotations

import faulthandler
import importlib
import shlex
import sys
from collections.abc import Sequence

import click

from snn_optimizer import __version__
from snn_optimizer.errors import SnnOptimizerError

__all__ = ["cli", "main"]


_COMMANDS = {
    "bench": "snn_optimizer.cli.benching",
    "bisect": "snn_optimizer.cli.bisecting",
    "info": "snn_optimizer.cli.inspecting",
    "costs": "snn_optimizer.cli.costing",
    "optimize": "snn_optimizer.cli.optimizing",
    "passes": "snn_optimizer.cli.inspecting",
    "profile": "snn_optimizer.cli.measuring",
    "sweep": "snn_optimizer.cli.sweeping",
    "view": "snn_optimizer.cli.viewing",
    "verify": "snn_optimizer.cli.measuring",
}


class _Commands(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, sorted."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, None when there is none of this name."""
        if cmd_name not in _COMMANDS:
            return None
        found: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        return found


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="snnopt")
def cli() -> None:
    """Optimize spiking neural networks in ONNX: the same spikes, a smaller and faster file.

    Exit codes: 0 done, 1 wrong or over budget, 2 your input, 3 our bug, 4 cannot tell.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; nothing raises but the unforeseen."""
    if not faulthandler.is_enabled() and hasattr(sys.stderr, "fileno"):
        _enable_faulthandler()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(args=given, prog_name="snnopt", standalone_mode=False, obj=shlex.join(["snnopt", *given]))
    except click.exceptions.Exit as stop:
        return int(stop.exit_code)
    except click.Abort:
        _complain("interrupted; nothing was written")
        return 130
    except click.ClickException as error:
        _complain(error.format_message())
        return 2
    except SnnOptimizerError as error:
        _complain(str(error))
        return error.exit_code
    except BrokenPipeError:
        return 0
    except Exception as error:  # noqa: BLE001 - a defect of ours must not end in a traceback
        _complain(f"internal error, please report it: {type(error).__name__}: {error}")
        return 3
    return int(code or 0)


def _enable_faulthandler() -> None:
    try:
        faulthandler.enable()
    except (OSError, ValueError, AttributeError):  # stderr is not a real file, as under a test runner
        return


def _complain(message: str) -> None:
    click.echo(f"snnopt: {message}", err=True)
