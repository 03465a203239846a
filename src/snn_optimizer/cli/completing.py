"""``snnopt completion``: scripts that let a shell complete commands, options, files, passes and pipelines."""

from __future__ import annotations

import os
from typing import Final

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from snn_optimizer.cli.names import Choice

__all__ = ["completion"]

_VARIABLE: Final = "_SNNOPT_COMPLETE"

# Bash splits words at '@', '=', ':' and '(' as well, which pipeline text holds: the line is handed over whole, and
# what is offered begins where bash will replace.
_BASH: Final = r"""%(complete_func)s() {
    local IFS=$'\n' response completion type value
    response=$(COMP_TEXT="${COMP_LINE:0:COMP_POINT}" COMP_REPLACED="$2" %(complete_var)s=bash_complete "$1")
    for completion in $response; do
        type=${completion%%%%,*} value=${completion#*,}
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            part) compopt -o nospace; COMPREPLY+=("$value") ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

# What click prints for fish ends a value at its first comma, and pipelines have commas.
_FISH: Final = r"""function %(complete_func)s
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -t) \
        %(prog_name)s)
    for completion in $response
        set -l parts (string split -m 1 "," -- $completion)
        switch $parts[1]
            case dir
                __fish_complete_directories (commandline -t)
            case file
                __fish_complete_path (commandline -t)
            case plain
                echo $parts[2]
        end
    end
end
complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


@add_completion_class
class Bash(BashComplete):
    """Completes in bash."""

    name = "bash"
    source_template = _BASH

    def source(self) -> str:
        """Return the script; no bash is asked for its version."""
        return self.source_template % self.source_vars()

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one to complete, and its beginning."""
        text = os.environ["COMP_TEXT"]
        words = split_arg_string(text)
        begun = ""
        if words and (not text[-1].isspace() or words[-1].endswith(text[-1])):  # the second: inside quotes
            begun = words.pop()
        replaced = os.environ["COMP_REPLACED"].lstrip("'\"")
        value = begun.partition("=")[2] if begun.startswith("--") and "=" in begun else begun
        self._kept = len(value) - len(replaced) if value.endswith(replaced) else 0
        return words[1:], begun

    def format_completion(self, item: CompletionItem) -> str:
        """Return one line of the answer."""
        return f"{'part' if item.nospace else item.type},{item.value[self._kept :]}"


@add_completion_class
class Fish(FishComplete):
    """Completes in fish."""

    name = "fish"
    source_template = _FISH

    def format_completion(self, item: CompletionItem) -> str:
        """Return one line of the answer: what fish shows behind a value comes after a tab."""
        return f"{item.type},{item.value}" + (f"\t{item.help.splitlines()[0]}" if item.help else "")


@click.command(short_help="Print a script that completes commands in your shell.")
@click.argument("shell", type=Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print a script for SHELL (bash, zsh or fish) that completes commands, options, files, passes and pipelines.

    \b
    bash   eval "$(snnopt completion bash)"                                  in ~/.bashrc
    zsh    eval "$(snnopt completion zsh)"                                   in ~/.zshrc, after compinit
    fish   snnopt completion fish > ~/.config/fish/completions/snnopt.fish   once
    """  # noqa: D301 - a backspace keeps click from filling the lines
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    click.echo(kind(root, {}, "snnopt", _VARIABLE).source(), nl=False)
    return 0
