"""``snnopt``: parse the command line, call the programming interface, print, and choose the exit code."""

from __future__ import annotations

import faulthandler
import importlib
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from snn_optimizer import __version__
from snn_optimizer.cli.failures import complain, failure_code, written_badly
from snn_optimizer.cli.invocation import Invocation
from snn_optimizer.errors import did_you_mean

__all__ = ["cli", "main"]


_COMMANDS = {
    "bench": "snn_optimizer.cli.benching",
    "bisect": "snn_optimizer.cli.bisecting",
    "check-certificate": "snn_optimizer.cli.certificates",
    "diff": "snn_optimizer.cli.differing",
    "gate": "snn_optimizer.cli.gating",
    "completion": "snn_optimizer.cli.completing",
    "info": "snn_optimizer.cli.inspecting",
    "convert": "snn_optimizer.cli.converting",
    "costs": "snn_optimizer.cli.costing",
    "optimize": "snn_optimizer.cli.optimizing",
    "passes": "snn_optimizer.cli.inspecting",
    "profile": "snn_optimizer.cli.measuring",
    "reduce": "snn_optimizer.cli.reducing",
    "run-reproducer": "snn_optimizer.cli.reproducing",
    "query": "snn_optimizer.cli.querying",
    "sweep": "snn_optimizer.cli.sweeping",
    "verify": "snn_optimizer.cli.verifying",
    "view": "snn_optimizer.cli.viewing",
}


class _Stopped(SystemExit):
    """A signal asked to end: an exception, so that what was begun is cleaned up."""


class _Commands(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, sorted."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, None when there is none of this name."""
        if cmd_name not in _COMMANDS:
            return None
        found: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name.replace("-", "_"))
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is named, and what follows."""
        if args[0] not in _COMMANDS and not args[0].startswith("-"):
            near = did_you_mean(args[0], _COMMANDS) or "; 'snnopt --help' lists them"
            ctx.fail(f"there is no command '{args[0]}'{near}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an interruption gets a line of ours, click would add an empty one."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _Stopped(128 + signal.SIGINT) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="snnopt")
def cli() -> None:
    """Optimize spiking neural networks in ONNX: the same spikes, a smaller and faster file.

    Exit codes: 0 done, 1 wrong or over budget, 2 your input, 3 our bug, 4 cannot tell.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of Python to programmers; users get lines of ours
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_DFL:
            signal.signal(getattr(signal, name), _stop)
    code = run(arguments)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = code or written_badly(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to say when Python ends
    sys.exit(code)


def _stop(number: int, _frame: object) -> NoReturn:
    raise _Stopped(128 + number)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; nothing raises but the unforeseen."""
    if not faulthandler.is_enabled() and hasattr(sys.stderr, "fileno"):
        _enable_faulthandler()
    words = list(sys.argv[1:] if arguments is None else arguments)
    invocation = Invocation(shlex.join(["snnopt", *words]))
    if "_SNNOPT_COMPLETE" in os.environ:
        importlib.import_module("snn_optimizer.cli.completing")  # how bash is answered
    try:
        code = cli.main(args=words, prog_name="snnopt", standalone_mode=False, obj=invocation)
    except click.exceptions.Exit as stop:
        return int(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        complain("stopped; nothing was written")
        return 128 + signal.SIGINT
    except click.ClickException as error:
        complain(error.format_message())
        return 2
    except _Stopped as stop:
        if (atomic := sys.modules.get("snn_optimizer.ir.atomic")) is not None:  # it may come before any clean-up began
            atomic.discard_unfinished()
        complain("stopped; nothing was written")
        return int(stop.code or 0)
    except SystemExit:  # how click ends when nobody reads the output any more
        return 0
    except Exception as error:  # noqa: BLE001 - a defect of ours must not end in a traceback
        return failure_code(error, invocation.models)
    return int(code or 0)


def _enable_faulthandler() -> None:
    try:
        faulthandler.enable()
    except (OSError, ValueError, AttributeError):  # stderr is not a real file, as under a test runner
        return
