"""What is known of a run of the command line wherever it is needed: its words, and the models it was given."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import click

__all__ = ["Invocation", "invocation"]


@dataclass(slots=True)
class Invocation:
    """One run.

    Attributes
    ----------
    command : str
        The command line, quoted so that a shell reads it again.
    models : list of Path
        The models among its arguments, to which a failure can be traced.
    """

    command: str = ""
    models: list[Path] = field(default_factory=list)


def invocation(context: click.Context | None = None) -> Invocation:
    """Return the run of a command; an empty one where a command is called in another way."""
    found = (context or click.get_current_context()).find_root().obj
    return found if isinstance(found, Invocation) else Invocation()
