"""What all commands share: names nearly right are corrected, programs get JSON, pipes get no colour."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import onnx
import pytest

from snn_optimizer import SNNGraph
from snn_optimizer.cli.main import cli
from snn_optimizer.errors import InputError, did_you_mean
from tests.support.broken_passes import network

ESCAPE = "\x1b"
COMMANDS = [name for name in cli.list_commands(click.Context(cli)) if name != "completion"]  # it prints a script


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["optimise", "MODEL"], "optimize"),
        (["optimize", "MODEL", "--dry-rum"], "--dry-run"),
        (["optimize", "MODEL", "--dry-run", "--emit", "seqence"], "sequence"),
        (["verify", "MODEL", "MODEL", "--exactness", "bitwize"], "bitwise"),
        (["passes", "layer-fussion"], "layer-fusion"),
        (["passes", "--explain", "layer-fussion"], "layer-fusion"),
        (["passes", "--explain", "@hygene"], "@hygiene"),
        (["passes", "--explain", "@o2"], "@O2"),
        (["passes", "--explain", "fixpiont(dead-code)"], "fixpoint"),
        (["passes", "--explain", "fixpoint{mx=3}(dead-code)"], "max"),
        (["passes", "--explain", "prune{sparsty=0.5}"], "sparsity"),
        (["passes", "--explain", "prune{method=magntude sparsity=0.5}"], "magnitude"),
        (["optimize", "MODEL", "--dry-run", "-p", "fixpiont(dead-code)"], "fixpoint"),
        (["query", "MODEL", "--layer", "lif_1"], "lif1"),
        (["optimize", "MODEL", "--dry-run", "--input-range", "X=0:1"], "x"),
        (["optimize", "MODEL", "--dry-run", "--input-max-active", "X=2"], "x"),
        (["verify", "MODEL", "MODEL", "--input-range", "X=0:1"], "x"),
        (["verify", "MODEL", "MODEL", "--exhaustive", "--input-range", "X=0:1"], "x"),
        (["optimize", "STEP", "--dry-run", "--states", "mem11=mem1_out"], "mem1"),
        (["optimize", "STEP", "--dry-run", "--states", "mem1=mem1_ou"], "mem1_out"),
    ],
)
def test_a_wrong_name_suggests_the_nearest(snnopt, model: Path, models: Path, arguments, near) -> None:
    files = {"MODEL": model, "STEP": models / "exports" / "digits_step.onnx"}
    code, out, err = snnopt(*(files.get(word, word) for word in arguments))
    assert (code, out) == (2, "")
    assert re.search(rf"[Dd]id you mean (one of )?'{re.escape(near)}'\?", err), err
    assert len(err.splitlines()) == 1


def test_a_layer_asked_for_from_python_suggests_the_nearest() -> None:
    graph = SNNGraph.from_onnx(network("wrong-column"))
    with pytest.raises(InputError, match="no layer 'lif_1'; layers: lif1, lif2; did you mean 'lif1'"):
        graph.layer("lif_1")


def test_the_nearest_name_survives_a_long_list(snnopt, model: Path) -> None:
    proto = onnx.load(model)
    for value in (*proto.graph.input, *proto.graph.output):
        for node in proto.graph.node:
            node.input[:] = ["signal" * 30 if name == "x" else name for name in node.input]
        if value.name == "x":
            value.name = "signal" * 30
    onnx.save(proto, model)
    code, _, err = snnopt("optimize", model, "--dry-run", "--input-range", f"{'signal' * 29}=0:1")
    assert code == 2
    assert "did you mean 'signalsignal" in err
    assert len(err) < 1000


def test_nothing_is_suggested_where_nothing_is_near() -> None:
    assert did_you_mean("zzz", ["fixpoint", "prune"]) == ""


def test_a_pass_with_a_body_is_told_apart_from_an_unknown_group(snnopt) -> None:
    code, _, err = snnopt("passes", "--explain", "prune(dead-code)")
    assert (code, err) == (2, "snnopt: 'prune' is a pass and holds no others: write 'prune' without parentheses\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_json_and_quiet(command: str) -> None:
    found = cli.get_command(click.Context(cli), command)
    options = {name for parameter in found.params for name in parameter.opts}
    assert {"--json", "--quiet", "-q"} <= options


def test_json_of_what_prints_text(snnopt, model: Path) -> None:
    code, out, _ = snnopt("passes", "--explain", "@hygiene, prune{sparsity=0.50}", "--json", "-q")
    found = json.loads(out)
    assert code == 0
    assert found["canonical"].endswith("dead-code,prune{sparsity=0.5}")
    code, out, _ = snnopt("passes", "prune", "--json")
    options = {one["name"]: one for one in json.loads(out)["options"]}
    assert code == 0
    assert options["sparsity"]["doc"]
    code, out, _ = snnopt("info", model, "--json", "--quiet")
    assert json.loads(out)["neurons"] == 16
    code, _, err = snnopt("passes", "prune", "--explain", "@O2")
    assert (code, err.count("\n")) == (2, 1)


def test_names_in_a_model_are_no_markup(snnopt, model: Path, models: Path, tmp_path: Path) -> None:
    hostile = "[/red]:smile: [bold]\x1b[2J"
    proto = onnx.load(model)
    for node in proto.graph.node:
        if node.name == "lif1":
            node.name = hostile
    onnx.save(proto, model)
    data = tmp_path / "data.npz"
    import numpy as np

    np.savez(data, x=(np.random.default_rng(0).random((8, 4, 8)) < 0.5).astype(np.float32))
    code, out, err = snnopt("profile", model, "--data", data, "-o", tmp_path / "p.npz")
    assert (code, err) == (0, "")
    assert "[/red]:smile: [bold]\\x1b[2J" in out
    assert ESCAPE not in out


def _in_terminal(arguments: list[str], **environment: str) -> str:
    """Run the program with a terminal for its output, and return what arrives there."""
    pty = pytest.importorskip("pty", reason="there are no pseudo terminals here")
    leader, follower = pty.openpty()
    known = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    command = [sys.executable, "-m", "snn_optimizer", *arguments]
    settings = known | {"TERM": "xterm-256color", "COLUMNS": "100"} | environment
    with subprocess.Popen(command, stdout=follower, stderr=follower, env=settings) as process:
        os.close(follower)
        chunks = []
        try:
            while chunk := os.read(leader, 65536):
                chunks.append(chunk)
        except OSError:  # how Linux says that the other end is closed
            pass
        assert process.wait() == 0
    os.close(leader)
    return b"".join(chunks).decode()


def test_a_terminal_gets_headings_in_bold_and_no_colour_where_none_is_wanted(model: Path) -> None:
    assert f"{ESCAPE}[1m" in _in_terminal(["passes"])
    plain = _in_terminal(["passes"], NO_COLOR="1")
    colours = [code for found in re.findall(rf"{ESCAPE}\[([0-9;]*)m", plain) for code in found.split(";")]
    assert not {code for code in colours if code[:1] in {"3", "4", "9"} and len(code) > 1}
    assert "reading" in _in_terminal(["info", str(model)])
    assert "reading" not in _in_terminal(["info", str(model), "--quiet"])


def test_a_pipe_gets_no_escape_sequences(model: Path) -> None:
    for arguments in (["passes"], ["info", str(model)], ["optimize", str(model), "--dry-run"], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "snn_optimizer", *arguments], capture_output=True, text=True, check=True
        )
        assert done.stdout
        assert ESCAPE not in done.stdout + done.stderr, arguments
