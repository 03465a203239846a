"""Values of options that are names: the nearest is suggested for a wrong one, and a shell completes them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from snn_optimizer.errors import InputError, did_you_mean

if TYPE_CHECKING:
    _Choice = click.Choice[str]
else:
    _Choice = click.Choice

__all__ = ["Choice", "PassName", "PipelineText"]

_GROUPS: Final = ("fixpoint(",)
_OPEN_OPTIONS: Final = re.compile(r"([A-Za-z][A-Za-z0-9._-]*)\{([^{}]*)$")


class Choice(_Choice):
    """One of some words."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word, or fail with the nearest."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            near = did_you_mean(value, map(str, self.choices))
            raise click.BadParameter(f"{error.message.rstrip('.')}{near}", ctx, param) from None


class PassName(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic in click 8.4 and later only
    """The name of a pass; whether it exists is found out by whoever loads it."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the passes that begin so, with what they do."""
        return _starting(incomplete, _passes())


class PipelineText(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Pipeline text; it is parsed by whoever runs it."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the text with its last name completed: a pass, a preset, a group or an option of a pass."""
        if (inside := _OPEN_OPTIONS.search(incomplete)) is not None:
            begun = re.split(r"[ ,]", inside[2])[-1]
            head = incomplete[: len(incomplete) - len(begun)]
            return _starting(incomplete, (f"{head}{text}" for text in _options(inside[1])))
        begun = re.split(r"[,(\s]", incomplete)[-1]
        head = incomplete[: len(incomplete) - len(begun)]
        from snn_optimizer.pipeline.presets import PRESETS  # noqa: PLC0415 - heavy; --help must be quick

        known = [*_passes(), *_GROUPS, *(f"@{name}" for name in PRESETS)]
        return _starting(incomplete, (f"{head}{name}" for name in known))


def _passes() -> tuple[str, ...]:
    from snn_optimizer.passes import registry  # noqa: PLC0415 - heavy; --help must be quick

    try:
        return registry.names()
    except InputError:  # of another distribution; running a command says so, completing one keeps silent
        return tuple(registry.BUILTIN)


def _options(name: str) -> list[str]:
    """Return the options of a pass as they are begun in pipeline text."""
    from snn_optimizer.passes import registry  # noqa: PLC0415 - heavy; --help must be quick

    try:
        return [one.name if one.type_text == "bool" else f"{one.name}=" for one in registry.options_of(name)]
    except InputError:
        return []


def _starting(begun: str, known: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(name, nospace=True) for name in known if name.startswith(begun)]
