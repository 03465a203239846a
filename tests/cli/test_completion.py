"""Shell completion: bash itself is asked, with the script that is printed; the others by their protocol."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from snn_optimizer.cli.main import run
from snn_optimizer.cli.names import PipelineText

SCRIPT = """
source <(snnopt completion bash)
COMP_LINE="$1" COMP_POINT=${#1}
compopt() { echo "compopt $1 $2"; }  # exists only while bash completes
_snnopt_completion snnopt "$2" ""
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``snnopt`` is a program."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "snnopt").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m snn_optimizer "$@"\n')
    (folder / "snnopt").chmod(0o755)
    return folder


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(
    ("line", "replaced", "offered"),
    [
        ("snnopt opt", "opt", ["optimize"]),
        ("snnopt optimize --emit=st", "st", ["step"]),
        ("snnopt optimize net.onnx --print-after-", "--print-after-", ["--print-after-all", "--print-after-change"]),
        ("snnopt passes redundan", "redundan", ["redundancy-elimination", "redundant-connection-removal"]),
        # bash begins a word at the last of @ ( = : it has seen, outside quotes; a comma is none of them
        ("snnopt optimize net.onnx -p @hyg", "hyg", ["hygiene"]),
        ("snnopt optimize net.onnx -p prune,dead-n", "prune,dead-n", ["prune,dead-neuron-elimination"]),
        (
            "snnopt optimize -p 'layer-fusion, fixpoint(dead-n",
            "'layer-fusion, fixpoint(dead-n",
            ["layer-fusion, fixpoint(dead-neuron-elimination"],
        ),
        ("snnopt passes --explain 'prune{sp", "prune{sp", ["prune{sparsity="]),
        ("snnopt info net.on", "net.on", ["compopt -o default"]),
        ("snnopt sweep net.onnx -o resu", "resu", ["compopt -o dirnames"]),
    ],
)
def test_bash_completes(program: Path, line: str, replaced: str, offered: list[str]) -> None:
    environment = os.environ | {"PATH": f"{program}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", SCRIPT, "bash", line, replaced], env=environment, capture_output=True, text=True, check=True
    )
    assert [text for text in done.stdout.splitlines() if text and text != "compopt -o nospace"] == offered


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish here")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("snnopt opti", ["optimize\tOptimize a model."]),
        ("snnopt passes snap", ["snap-to-grid"]),
        ("snnopt optimize net.onnx -p prune,dead-n", ["prune,dead-neuron-elimination"]),
        ("snnopt info net.on", ["net.onnx"]),
    ],
)
def test_fish_completes(program: Path, tmp_path: Path, line: str, offered: list[str]) -> None:
    (tmp_path / "net.onnx").touch()
    environment = os.environ | {"PATH": f"{program}{os.pathsep}{os.environ['PATH']}", "LINE": line}
    script = 'snnopt completion fish | source; complete -C "$LINE"'
    done = subprocess.run(
        ["fish", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_answered(
    shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["completion", shell]) == 0
    assert "_snnopt_completion" in capsys.readouterr().out
    monkeypatch.setenv("_SNNOPT_COMPLETE", f"{shell}_complete")
    monkeypatch.setenv("COMP_WORDS", "snnopt passes snap-to")
    monkeypatch.setenv("COMP_CWORD", "2" if shell == "zsh" else "snap-to")
    assert run([]) == 0
    assert "snap-to-grid" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("begun", "known"),
    [
        ("", {"prune", "fixpoint(", "@O2"}),
        ("fixpoint{max=2}(", {"fixpoint{max=2}(prune"}),
        ("prune{method=membrane un", {"prune{method=membrane units"}),
        ("no-such-pass{", set()),
    ],
)
def test_pipeline_text_is_completed_at_its_last_name(begun: str, known: set[str]) -> None:
    offered = {item.value for item in PipelineText().shell_complete(None, None, begun)}
    assert known <= offered
    assert all(text.startswith(begun) for text in offered)
    assert bool(known) == bool(offered)
